package rope_test

import (
	"fmt"
	"log"
	"math"
	"os"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/rope"
)

// A model's frequencies from its config.json.
func ExampleFromHF() {
	model, err := rope.FromHF([]byte(`{
		"hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 131072, "rope_theta": 500000.0,
		"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
			"original_max_position_embeddings": 8192, "comment": "not a parameter"}
	}`), rope.V5)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("unknown:", model.Unknown)
	cfg, err := model.Config("")
	if err != nil {
		log.Fatal(err)
	}
	r, err := rope.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	if err := r.Describe(os.Stdout); err != nil {
		log.Fatal(err)
	}
	// Output:
	// unknown: [rope_scaling.comment]
	// rope: 8 of 8 features, half, base 500000, Llama 3, factor 8, original 8192, low and high frequency factors 1 and 4, exact
	// attention factor 1
	//   pair  axis      radians  wavelength
	//      0     0            1     6.28319  kept
	//      1     0     0.037606     167.079  kept
	//      2     0  0.000524846     11971.5  stretched 2.695 times
	//      3     0  6.64787e-06      945143  stretched 8 times
}

// What each layer of a model does: SmolLM3 rotates nothing in every fourth.
func ExampleHF_Layer() {
	model, err := rope.FromHF([]byte(`{"model_type": "smollm3", "hidden_size": 2048, "num_attention_heads": 16,
		"num_hidden_layers": 4, "rope_theta": 5000000.0, "no_rope_layers": [1, 1, 1, 0]}`), rope.V5)
	if err != nil {
		log.Fatal(err)
	}
	for i := range 4 {
		cfg, err := model.Layer(i)
		if err != nil {
			log.Fatal(err)
		}
		r, err := rope.New(cfg)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(i, r)
	}
	// Output:
	// 0 rope: 128 of 128 features, half, base 5e+06, plain, exact
	// 1 rope: 128 of 128 features, half, base 5e+06, plain, exact
	// 2 rope: 128 of 128 features, half, base 5e+06, plain, exact
	// 3 rope: none
}

// Queries and keys of a fused buffer, rotated in one call: two query heads, one
// key head and one value head, which stays as it is.
func ExampleRotation_Rotate() {
	const headDim, tokens = 2, 3
	r, err := rope.New(rope.Config{HeadDim: headDim})
	if err != nil {
		log.Fatal(err)
	}
	fused := blas32.General{Rows: tokens, Cols: 4 * headDim, Stride: 4 * headDim, Data: []float32{
		1, 0, 0, 1, 1, 1, 7, 7,
		1, 0, 0, 1, 1, 1, 7, 7,
		1, 0, 0, 1, 1, 1, 7, 7,
	}}
	queriesAndKeys := fused
	queriesAndKeys.Cols = 3 * headDim
	if err := r.Rotate(queriesAndKeys, 1_000_000); err != nil {
		log.Fatal(err)
	}
	for t := range tokens {
		fmt.Printf("%.3f\n", fused.Data[t*fused.Stride:][:fused.Cols])
	}
	// Output:
	// [0.937 -0.350 0.350 0.937 1.287 0.587 7.000 7.000]
	// [0.801 0.599 -0.599 0.801 0.201 1.400 7.000 7.000]
	// [-0.072 0.997 -0.997 -0.072 -1.069 0.926 7.000 7.000]
}

// FlexRoPE for 16 times the number of frames a video model was trained with: the
// slope is such that a frame as far back as the training was long weighs 2 % of
// the present one.
func ExampleNewFlexRoPE() {
	const trained, frames, tokensPerFrame = 16, 16 * 16, 64
	slope, err := rope.FlexRoPESlope(trained, 0.02)
	if err != nil {
		log.Fatal(err)
	}
	bias, err := rope.NewFlexRoPE(rope.FlexRoPEConfig{Slopes: []float32{slope}, TokensPerFrame: tokensPerFrame})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("slope %.4f\n", slope)

	// What a query of the last frame adds to the logits of one key of some frames.
	last := int64(frames-1) * tokensPerFrame
	for _, back := range []int64{0, 1, 16, 255, -1} {
		s := blas32.General{Rows: 1, Cols: 1, Stride: 1, Data: []float32{0}}
		bias.AddTo(s, 0, last, last-back*tokensPerFrame)
		fmt.Printf("%3d frames back: %7.3f, weight %.4f\n", back, s.Data[0], math.Exp(float64(s.Data[0])))
	}
	// With logits that differ by at most 4, keys from here on weigh less than 1e-6.
	fmt.Println("tokens that count:", bias.Reach(0, last, 4, 1e-6))
	// Output:
	// slope 0.2445
	//   0 frames back:   0.000, weight 1.0000
	//   1 frames back:  -0.245, weight 0.7831
	//  16 frames back:  -3.912, weight 0.0200
	// 255 frames back: -62.348, weight 0.0000
	//  -1 frames back:    -Inf, weight 0.0000
	// tokens that count: 4609
}

// Keys cached at the positions of a prompt that has lost its first half.
func ExampleRotation_Shift() {
	r, err := rope.New(rope.Config{HeadDim: 2})
	if err != nil {
		log.Fatal(err)
	}
	k := blas32.General{Rows: 1, Cols: 2, Stride: 2, Data: []float32{1, 0}}
	if err := r.Rotate(k, 1000); err != nil {
		log.Fatal(err)
	}
	if err := r.Shift(k, -1000); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.4f\n", k.Data[0])
	// Output: 1.0000
}

// A prompt with an image, numbered in two chunks, and the first generated token.
func ExampleNewMRoPE() {
	m, err := rope.NewMRoPE(rope.MRoPEConfig{ImageToken: 100, VideoToken: 101})
	if err != nil {
		log.Fatal(err)
	}
	m.Images = [][3]int{{1, 4, 4}} // frames, height, width in patches; 2 x 2 patches make a token
	for _, chunk := range [][]int64{{1, 2, 100, 100}, {100, 100, 3}, {4}} {
		positions := make([]int64, 3*len(chunk))
		if err := m.Append(positions, chunk, nil); err != nil {
			log.Fatal(err)
		}
		fmt.Println(positions)
	}
	fmt.Println("delta", m.Delta())
	// Output:
	// [0 0 0 1 1 1 2 2 2 2 2 3]
	// [2 3 2 2 3 3 4 4 4]
	// [5 5 5]
	// delta -2
}

// A sequence that outgrows its training, with keys cached rotated: they are
// brought to the new frequencies when those change.
func ExampleNewSchedule() {
	s, err := rope.NewSchedule(rope.Config{HeadDim: 4, Scheme: rope.DynamicNTK{Factor: 2, MaxPosition: 8}}, rope.Rerotate)
	if err != nil {
		log.Fatal(err)
	}
	for _, length := range []int64{4, 8, 12} {
		r, from, err := s.Step(length)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%2d tokens: %.5f, rotate cached keys: %v\n", length, r.Frequencies(), from != nil)
	}
	// Output:
	//  4 tokens: [1.00000 0.01000], rotate cached keys: false
	//  8 tokens: [1.00000 0.01000], rotate cached keys: false
	// 12 tokens: [1.00000 0.00500], rotate cached keys: true
}

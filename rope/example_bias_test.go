package rope_test

import (
	"fmt"
	"log"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/rope"
)

// row adds what a bias adds to the logits of one query, at position 4, and the keys at
// positions 0 to 4.
func row(bias rope.Bias, head int) []float32 {
	s := blas32.General{Rows: 1, Cols: 5, Stride: 5, Data: make([]float32, 5)}
	bias.AddTo(s, head, 4, 0)
	return s.Data
}

// A rotation of queries or keys: one head of 4 features, at position 1.
func ExampleNew() {
	r, err := rope.New(rope.Config{HeadDim: 4, Layout: rope.Interleaved, Base: 10000})
	if err != nil {
		log.Fatal(err)
	}
	q := blas32.General{Rows: 1, Cols: 4, Stride: 4, Data: []float32{1, 0, 1, 0}}
	if err := r.Rotate(q, 1); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.4f\n", q.Data)
	// Output: [0.5403 0.8415 0.9999 0.0100]
}

// ALiBi of 8 heads, with the published slopes.
func ExampleNewALiBi() {
	bias, err := rope.NewALiBi(rope.ALiBiSlopes(8))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(row(bias, 0))
	fmt.Println(row(bias, 1))
	// Output:
	// [-2 -1.5 -1 -0.5 0]
	// [-1 -0.75 -0.5 -0.25 0]
}

// KERPLE's logarithmic kernel, of one head.
func ExampleNewKERPLELog() {
	bias, err := rope.NewKERPLELog([]float64{2}, []float64{1})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.3f\n", row(bias, 0))
	// Output: [-3.219 -2.773 -2.197 -1.386 0.000]
}

// KERPLE's power kernel, of one head.
func ExampleNewKERPLEPower() {
	bias, err := rope.NewKERPLEPower([]float64{1}, []float64{0.5})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.3f\n", row(bias, 0))
	// Output: [-2.000 -1.732 -1.414 -1.000 0.000]
}

// FIRE with one hidden unit, of one head: -3 times the logarithm's share.
func ExampleNewFIRE() {
	bias, err := rope.NewFIRE(rope.FIREConfig{W1: []float64{1}, B1: []float64{0}, W2: []float64{-3}, B2: []float64{0}, C: 1, Threshold: 4})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.3f\n", row(bias, 0))
	// Output: [-3.000 -2.584 -2.048 -1.292 0.000]
}

// The tokens of three frames of 2 x 2 latents, of which the last is kept in fine
// patches and those before it make one token each.
func ExampleNewFAR() {
	far, err := rope.NewFAR(rope.FARConfig{Frames: 3, Height: 2, Width: 2, Window: 1, ContextPatch: 2})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("frames", far.Frames)
	for t := range far.Frames {
		fmt.Print(far.Positions[3*t:][:3], " ")
	}
	// Output:
	// frames [0 1 2 2 2 2]
	// [0 0 0] [1 0 0] [2 0 0] [2 0 1] [2 1 0] [2 1 1]
}

// Frequencies for the axes of an image, as Config.Axes takes them.
func ExamplePixelFrequencies() {
	f, err := rope.PixelFrequencies(3, 10)
	if err != nil {
		log.Fatal(err)
	}
	r, err := rope.New(rope.Config{HeadDim: 12, Axes: []rope.Axis{
		{Dim: 6, Scheme: rope.Custom{Frequencies: f}},
		{Dim: 6, Scheme: rope.Custom{Frequencies: f}},
	}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d axes, %.3f\n", r.Axes(), f)
	// Output: 2 axes, [3.142 9.425 15.708]
}

package mamba_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/ssm"
	"github.com/subquad/subquad/ssm/longmamba"
	"github.com/subquad/subquad/ssm/mamba"
)

// open opens the byte-level model of examples/generate.
func open() *mamba.Model {
	m, err := mamba.Open(filepath.Join("..", "..", "examples", "generate", "model", "model.safetensors"), mamba.Config{})
	if err != nil {
		panic(err)
	}
	return m
}

func bytesOf(text string) (tokens []int32) {
	for _, b := range []byte(text) {
		tokens = append(tokens, int32(b))
	}
	return tokens
}

func ExampleModel_Generate() {
	m := open()
	st, err := m.NewState(ssm.StateConfig{})
	if err != nil {
		panic(err)
	}
	for token, err := range m.Generate(context.Background(), bytesOf("In the beginning "), st, mamba.GenerateConfig{MaxTokens: 22}) {
		if err != nil {
			panic(err)
		}
		os.Stdout.Write([]byte{byte(token)})
	}
	// Output: of the children of Isr
}

// A conversation: every turn goes on from the state that the one before left, which
// has not seen the last token that was yielded: the next prompt begins with that.
func ExampleModel_Generate_turns() {
	m := open()
	st, err := m.NewState(ssm.StateConfig{})
	if err != nil {
		panic(err)
	}
	var last []int32
	for _, turn := range []string{"And Moses said, ", "\nAnd Pharaoh said, "} {
		prompt := append(last, bytesOf(turn)...)
		fmt.Print(turn)
		for token, err := range m.Generate(context.Background(), prompt, st, mamba.GenerateConfig{MaxTokens: 24}) {
			if err != nil {
				panic(err)
			}
			last = []int32{token}
			os.Stdout.Write([]byte{byte(token)})
		}
	}
	fmt.Println()
	fmt.Println(st.Len(), "tokens seen")
	// Output:
	// And Moses said, The LORD of hosts is the
	// And Pharaoh said, I will send thee away fr
	// 82 tokens seen
}

// A prompt is read once, kept, and gone on from in two ways.
func ExampleState_Clone() {
	m := open()
	prefix, err := m.NewState(ssm.StateConfig{})
	if err != nil {
		panic(err)
	}
	if err := m.Run(context.Background(), &mamba.Call{Tokens: bytesOf("And Moses said unto "), State: prefix}); err != nil {
		panic(err)
	}
	var file bytes.Buffer // or a file on disk
	if _, err := prefix.WriteTo(&file); err != nil {
		panic(err)
	}
	kept, err := m.ReadState(&file)
	if err != nil {
		panic(err)
	}
	for _, next := range []string{"the LORD,", "Pharaoh,"} {
		st := kept.Clone()
		if err := m.Run(context.Background(), &mamba.Call{Tokens: bytesOf(next), State: st}); err != nil {
			panic(err)
		}
		fmt.Println(kept.Len(), st.Len())
	}
	// Output:
	// 20 29
	// 20 28
}

// One more token for each of two texts; the weights are read once.
func ExampleModel_StepBatch() {
	m := open()
	var states []*mamba.State
	for _, text := range []string{"In the beginnin", "And it came to pas"} {
		st, err := m.NewState(ssm.StateConfig{})
		if err != nil {
			panic(err)
		}
		if err := m.Run(context.Background(), &mamba.Call{Tokens: bytesOf(text), State: st}); err != nil {
			panic(err)
		}
		states = append(states, st)
	}
	v := m.Config().Vocab
	logits := blas32.General{Rows: 2, Cols: v, Stride: v, Data: make([]float32, 2*v)}
	if err := m.StepBatch(logits, bytesOf("gs"), states); err != nil {
		panic(err)
	}
	greedy, err := mamba.NewSampler(mamba.SampleConfig{})
	if err != nil {
		panic(err)
	}
	for i := range 2 {
		next, err := greedy.Sample(logits.Data[i*v : (i+1)*v])
		if err != nil {
			panic(err)
		}
		fmt.Printf("%q\n", rune(next))
	}
	// Output:
	// ' '
	// ','
}

// Calibrated once, on sequences of the length that the model was trained with, a model
// reads prompts that are longer; the tables go into a file.
func ExampleModel_Calibrate() {
	m, err := mamba.Open(filepath.Join("..", "..", "examples", "recall", "model", "model.safetensors"), mamba.Config{})
	if err != nil {
		panic(err)
	}
	noise := rand.New(rand.NewPCG(1, 2))
	text := func(n int) []int32 { // the like of what the model was trained with
		tokens := make([]int32, n)
		for i := range tokens {
			tokens[i] = 66 + noise.Int32N(30)
		}
		return tokens
	}
	ctx := context.Background()
	calibration, err := m.Calibrate(ctx, [][]int32{text(128), text(128)}, longmamba.CalibrationConfig{Clamp: 0.12})
	if err != nil {
		panic(err)
	}
	var file bytes.Buffer // or a file on disk
	if _, err := calibration.WriteTo(&file); err != nil {
		panic(err)
	}
	calibration, err = longmamba.ReadCalibration(&file)
	if err != nil {
		panic(err)
	}
	filter, err := calibration.NewFilter(longmamba.FilterConfig{})
	if err != nil {
		panic(err)
	}
	prompt := text(1000)
	st, err := m.NewState(ssm.StateConfig{Filter: filter, Prompt: len(prompt)})
	if err != nil {
		panic(err)
	}
	for piece := range slices.Chunk(prompt, 300) { // the whole being declared, it may come in pieces
		if err := m.Run(ctx, &mamba.Call{Tokens: piece, State: st}); err != nil {
			panic(err)
		}
	}
	fmt.Println(len(calibration.Tables), "tables of", len(calibration.Lengths), "lengths;", st.Len(), "tokens read")
	// Output: 2 tables of 24 lengths; 1000 tokens read
}

// A vector for each of two texts, the mean of their hidden states, in one call; and the
// residual stream after the first layer.
func ExampleModel_Run() {
	m := open()
	cfg := m.Config()
	tokens := bytesOf("the LORDPharaoh")
	residuals := make([]blas32.General, cfg.Layers+1) // those that stay zero are not made
	residuals[1] = blas32.General{Rows: len(tokens), Cols: cfg.Dim, Stride: cfg.Dim, Data: make([]float32, len(tokens)*cfg.Dim)}
	call := &mamba.Call{
		Tokens: tokens, Offsets: []int{0, 8, 15},
		Pooled: make([]float32, 2*cfg.Dim), Pooling: mamba.Mean, Residuals: residuals,
	}
	if err := m.Run(context.Background(), call); err != nil {
		panic(err)
	}
	fmt.Println(len(call.Pooled)/cfg.Dim, "vectors,", residuals[1].Rows, "rows")
	// Output: 2 vectors, 15 rows
}

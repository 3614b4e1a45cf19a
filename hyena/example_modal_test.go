package hyena_test

import (
	"fmt"
	"log"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/hyena"
)

// sequence is a matrix of one column.
func sequence(x ...float32) blas32.General {
	return blas32.General{Rows: len(x), Cols: 1, Stride: 1, Data: x}
}

// A leaky sum, token by token: the state of a long convolution.
func ExampleConv_Step() {
	conv, err := hyena.NewConv(hyena.ConvConfig{Kernel: sequence(1, 0.5, 0.25, 0.125)})
	if err != nil {
		log.Fatal(err)
	}
	st, err := conv.NewState(hyena.StateConfig{})
	if err != nil {
		log.Fatal(err)
	}
	for _, x := range []float32{8, 0, 0, 4} {
		y := sequence(x)
		if err := conv.Step(y, y, st); err != nil {
			log.Fatal(err)
		}
		fmt.Print(y.Data[0], " ")
	}
	fmt.Println("after", st.Len(), "tokens")
	// Output: 8 4 2 5 after 4 tokens
}

// An oscillation that decays: one pole, at a sixth of a turn for each token.
func ExampleModal() {
	sin, cos := math.Sincos(math.Pi / 3)
	modes, err := hyena.NewModes(hyena.ModesWeights{
		Poles:    blas32.General{Rows: 1, Cols: 2, Stride: 2, Data: []float32{float32(0.5 * cos), float32(0.5 * sin)}},
		Residues: blas32.General{Rows: 1, Cols: 2, Stride: 2, Data: []float32{1, 0}},
	})
	if err != nil {
		log.Fatal(err)
	}
	modal, err := hyena.NewModal(hyena.ModalConfig{Modes: modes})
	if err != nil {
		log.Fatal(err)
	}
	st, err := modal.NewState(hyena.StateConfig{})
	if err != nil {
		log.Fatal(err)
	}
	y := sequence(16, 0, 0, 0)
	if err := modal.Step(y, y, st); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.0f\n", y.Data)
	// Output: [16 4 -2 -2]
}

// The kernel of a diagonal state space with one mode: dt = ln 2, A = -1, C = 1/2.
func ExampleNewS4DModes() {
	modes, err := hyena.NewS4DModes(hyena.S4DWeights{
		LogDt: []float32{float32(math.Log(math.Ln2))}, LogAReal: sequence(0), AImag: sequence(0),
		C: blas32.General{Rows: 1, Cols: 2, Stride: 2, Data: []float32{0.5, 0}},
	})
	if err != nil {
		log.Fatal(err)
	}
	k := sequence(make([]float32, 4)...)
	if err := modes.Kernel(k, 0); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.4f\n", k.Data)
	// Output: [0.5000 0.2500 0.1250 0.0625]
}

// A gated convolution of two tokens: x2 and x1 are 1, v is 3 and then nothing.
func ExampleGated() {
	modes, err := hyena.NewModes(hyena.ModesWeights{
		Poles:    blas32.General{Rows: 1, Cols: 2, Stride: 2, Data: []float32{0.5, 0}},
		Residues: blas32.General{Rows: 1, Cols: 2, Stride: 2, Data: []float32{2, 0}},
	})
	if err != nil {
		log.Fatal(err)
	}
	gated, err := hyena.NewGated(hyena.GatedConfig{Dim: 1}, hyena.GatedWeights{Short: sequence(1, 1, 1), Modes: modes})
	if err != nil {
		log.Fatal(err)
	}
	y := sequence(0, 0)
	z := blas32.General{Rows: 2, Cols: 3, Stride: 3, Data: []float32{1, 1, 3, 1, 1, 0}}
	if err := gated.Forward(y, z); err != nil {
		log.Fatal(err)
	}
	fmt.Println(y.Data)
	// Output: [6 3]
}

// A memory: what v was where k was 1 is there whenever q asks.
func ExampleH3() {
	op, err := hyena.NewH3(hyena.H3Config{Heads: 1}, hyena.H3Weights{Kernel: sequence(1, 1, 1, 1)})
	if err != nil {
		log.Fatal(err)
	}
	y := sequence(0, 0, 0, 0)
	if err := op.Forward(y, sequence(0, 0, 1, 1), sequence(0, 1, 0, 0), sequence(5, 7, 9, 2)); err != nil {
		log.Fatal(err)
	}
	fmt.Println(y.Data)
	// Output: [0 0 7 7]
}

// A layer whose output is its gated input: sigmoid(0) is a half.
func ExampleS4D() {
	modes, err := hyena.NewModes(hyena.ModesWeights{
		Poles:    blas32.General{Rows: 1, Cols: 2, Stride: 2, Data: []float32{0, 0}},
		Residues: blas32.General{Rows: 1, Cols: 2, Stride: 2, Data: []float32{1, 0}},
	})
	if err != nil {
		log.Fatal(err)
	}
	layer, err := hyena.NewS4D(hyena.S4DConfig{}, hyena.S4DLayerWeights{Modes: modes, Out: sequence(2, 0)})
	if err != nil {
		log.Fatal(err)
	}
	y := sequence(20, 0)
	if err := layer.Forward(y, y); err != nil {
		log.Fatal(err)
	}
	fmt.Println(y.Data)
	// Output: [20 0]
}

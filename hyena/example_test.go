package hyena_test

import (
	"fmt"
	"log"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/hyena"
)

// A leaky sum of two channels, with kernels that halve and that stay, over a
// sequence with a single event each.
func ExampleConv() {
	const tokens, channels = 5, 2
	kernel := blas32.General{Rows: tokens, Cols: channels, Stride: channels, Data: []float32{
		1, 1,
		0.5, 1,
		0.25, 1,
		0.125, 1,
		0.0625, 1,
	}}
	conv, err := hyena.NewConv(hyena.ConvConfig{Kernel: kernel})
	if err != nil {
		log.Fatal(err)
	}
	u := blas32.General{Rows: tokens, Cols: channels, Stride: channels, Data: []float32{
		8, 0,
		0, 3,
		0, 0,
		0, 0,
		0, 0,
	}}
	if err := conv.Forward(u, u); err != nil {
		log.Fatal(err)
	}
	for t := range tokens {
		fmt.Println(u.Data[t*u.Stride:][:channels])
	}
	// Output:
	// [8 0]
	// [4 3]
	// [2 3]
	// [1 3]
	// [0.5 3]
}

// A kernel that falls to a hundredth over its whole length: a filter of one sine that is
// a constant, with the window of two channels.
func ExampleFilter() {
	const maxLen, channels = 5, 2
	shift := 0.0
	filter, err := hyena.NewFilter(hyena.FilterConfig{Channels: channels, MaxLen: maxLen, EmbDim: 3, Shift: &shift, SlowDecay: 1, FastDecay: 0.5},
		hyena.FilterWeights{
			Layers: []hyena.FilterLayer{{
				Weight: blas32.General{Rows: 1, Cols: 3, Stride: 3, Data: make([]float32, 3)},
				Bias:   []float32{1.5707964}, Freq: []float32{1},
			}},
			Out: blas32.General{Rows: channels, Cols: 1, Stride: 1, Data: []float32{1, 1}},
		})
	if err != nil {
		log.Fatal(err)
	}
	k := blas32.General{Rows: maxLen, Cols: channels, Stride: channels, Data: make([]float32, maxLen*channels)}
	if err := filter.Kernel(k, 0); err != nil {
		log.Fatal(err)
	}
	for t := range maxLen {
		fmt.Printf("%.4f\n", k.Data[t*channels:][:channels])
	}
	// Output:
	// [1.0000 1.0000]
	// [0.3162 0.1000]
	// [0.1000 0.0100]
	// [0.0316 0.0010]
	// [0.0100 0.0001]
}

// An operator of order 2 that looks back one token: its filter is made of one
// sine that is a constant, without a window.
func ExampleOperator() {
	const dim, maxLen = 1, 8
	row := func(v ...float32) blas32.General {
		return blas32.General{Rows: len(v), Cols: 1, Stride: 1, Data: v}
	}
	filter, err := hyena.NewFilter(hyena.FilterConfig{Channels: dim, MaxLen: maxLen, EmbDim: 3, NoModulation: true},
		hyena.FilterWeights{
			Layers: []hyena.FilterLayer{{
				Weight: blas32.General{Rows: 1, Cols: 3, Stride: 3, Data: make([]float32, 3)},
				Bias:   []float32{1.5707964}, Freq: []float32{1},
			}},
			Out: row(1), // k[t] = sin(pi/2) = 1: a running sum
		})
	if err != nil {
		log.Fatal(err)
	}
	op, err := hyena.NewOperator(hyena.OperatorConfig{Dim: dim}, hyena.OperatorWeights{
		In: row(0, 0, 1), InBias: []float32{1, 1, 0}, // x0 = x1 = 1, v = x
		Short: row(1, 1, 1), ShortBias: make([]float32, 3),
		Filter: filter, Skip: []float32{0},
		Out: row(1), OutBias: []float32{0},
	})
	if err != nil {
		log.Fatal(err)
	}
	x := row(1, 2, 3, 4)
	if err := op.Forward(x, x); err != nil {
		log.Fatal(err)
	}
	fmt.Println(x.Data)
	// Output: [1 3 6 10]
}

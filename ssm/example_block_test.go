package ssm_test

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/ssm"
)

// The state of one head with two channels: without a trapezoid (a large Trap) and
// without angles it is a plain recurrence, whose state here halves at every token.
func ExampleSISO() {
	siso, err := ssm.NewSISO(ssm.SISOConfig{Heads: 1, HeadDim: 2, States: 1}, ssm.SISOWeights{})
	if err != nil {
		panic(err)
	}
	ones := matrix(3, 1, 1, 1, 1)
	call := ssm.SISOCall{
		Dst: matrix(3, 2), X: matrix(3, 2, 4, 8, 0, 0, 0, 0), B: ones, C: ones,
		Dt: ones, Decay: matrix(3, 1, -0.6931472, -0.6931472, -0.6931472), Trap: matrix(3, 1, 99, 99, 99),
	}
	if err := siso.Run(context.Background(), &call); err != nil {
		panic(err)
	}
	fmt.Printf("%.1f\n", call.Dst.Data)
	// Output: [4.0 8.0 2.0 4.0 1.0 2.0]
}

// Without a gate it is the usual RMSNorm. A gate of 0 closes a channel, and the others
// are normalised with it.
func ExampleGatedNorm() {
	norm, err := ssm.NewGatedNorm(ssm.GatedNormConfig{}, ssm.GatedNormWeights{Weight: []float32{1, 1, 1, 1}})
	if err != nil {
		panic(err)
	}
	x, y := matrix(1, 4, 3, -3, 3, -3), matrix(1, 4)
	for _, gate := range []blas32.General{{}, matrix(1, 4, 20, 20, 0, 0)} {
		if err := norm.Forward(y, x, gate); err != nil {
			panic(err)
		}
		fmt.Printf("%.2f\n", y.Data)
	}
	// Output:
	// [1.00 -1.00 1.00 -1.00]
	// [1.41 -1.41 0.00 -0.00]
}

// A Mamba block of one channel: a prompt at once, then a token at a time, by the same
// operator.
func ExampleMamba() {
	block, err := ssm.NewMamba(ssm.MambaConfig{}, ssm.MambaWeights{
		In:   matrix(2, 1, 1, 1),    // x and the gate z are the input
		Conv: matrix(1, 2, 0.5, 1),  // two taps
		X:    matrix(3, 1, 1, 1, 1), // dt, B and C are x
		Dt:   matrix(1, 1, 1),
		ALog: matrix(1, 1, 0), // A = -1
		D:    []float32{1},
		Out:  matrix(1, 1, 1),
	})
	if err != nil {
		panic(err)
	}
	x := []float32{1, 2, 3, 4}
	whole := matrix(4, 1)
	if err := block.Forward(whole, matrix(4, 1, x...)); err != nil {
		panic(err)
	}
	st, err := block.NewState(ssm.StateConfig{})
	if err != nil {
		panic(err)
	}
	y := matrix(3, 1)
	if err := block.Step(y, matrix(3, 1, x[:3]...), st); err != nil {
		panic(err)
	}
	last := matrix(1, 1)
	if err := block.Step(last, matrix(1, 1, x[3]), st); err != nil {
		panic(err)
	}
	fmt.Println(st.Len(), "tokens;", "the same:", y.Data[2] == whole.Data[2] && last.Data[0] == whole.Data[3])
	// Output: 4 tokens; the same: true
}

// A Mamba-2 block of one head, for two sequences that are decoded together: the weights
// are read once for both.
func ExampleMamba2() {
	block, err := ssm.NewMamba2(ssm.Mamba2Config{States: 1, HeadDim: 2}, ssm.Mamba2Weights{
		In:     matrix(7, 2, 1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0.5, 0.5), // z, x, B, C, dt
		Conv:   matrix(4, 1, 1, 1, 1, 1),                                   // one tap: no convolution
		DtBias: []float32{0},
		ALog:   []float32{0},
		D:      []float32{1},
		Norm:   []float32{1, 1},
		Out:    matrix(2, 2, 1, 0, 0, 1),
	})
	if err != nil {
		panic(err)
	}
	var states []*ssm.State
	for range 2 {
		st, err := block.NewState(ssm.StateConfig{})
		if err != nil {
			panic(err)
		}
		states = append(states, st)
	}
	y := matrix(2, 2)
	for range 3 {
		if err := block.StepBatch(y, matrix(2, 2, 1, 2, 3, 4), states); err != nil {
			panic(err)
		}
	}
	fmt.Println(states[0].Len(), states[1].Len())
	fmt.Printf("%.2f\n", y.Data)
	// Output:
	// 3 3
	// [0.24 1.39 0.66 1.25]
}

// A state with snapshots goes back over its last calls: a draft of two tokens of which
// one is taken.
func ExampleState_Truncate() {
	conv, err := ssm.NewConv(ssm.ConvConfig{}, ssm.ConvWeights{Weight: matrix(1, 2, 1, 10)})
	if err != nil {
		panic(err)
	}
	st, err := conv.NewState(ssm.StateConfig{Snapshots: 2})
	if err != nil {
		panic(err)
	}
	y := matrix(1, 1)
	for _, v := range []float32{1, 2, 3} {
		if err := conv.Step(y, matrix(1, 1, v), st); err != nil {
			panic(err)
		}
	}
	if err := st.Truncate(2); err != nil {
		panic(err)
	}
	if err := conv.Step(y, matrix(1, 1, 4), st); err != nil {
		panic(err)
	}
	fmt.Println(st.Len(), y.Data)
	// Output: 3 [42]
}

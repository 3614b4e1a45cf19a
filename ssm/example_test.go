package ssm_test

import (
	"bytes"
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/ssm"
)

func matrix(rows, cols int, data ...float32) blas32.General {
	if data == nil {
		data = make([]float32, rows*cols)
	}
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// A scan with one channel and one state: with A = -ln 2 and dt = 1 the state halves
// at every token.
func ExampleScan() {
	scan, err := ssm.NewScan(ssm.ScanConfig{Channels: 1, States: 1}, ssm.ScanWeights{A: matrix(1, 1, -0.6931472)})
	if err != nil {
		panic(err)
	}
	x, ones := matrix(4, 1, 8, 0, 0, 1), matrix(4, 1, 1, 1, 1, 1)
	y := matrix(4, 1)
	if err := scan.Forward(y, x, ones, ones, ones); err != nil {
		panic(err)
	}
	fmt.Printf("%.3f\n", y.Data)
	// Output: [8.000 4.000 2.000 2.000]
}

// The same sequence in two pieces, the state stored in between.
func ExampleScan_Step() {
	scan, err := ssm.NewScan(ssm.ScanConfig{Channels: 1, States: 1}, ssm.ScanWeights{A: matrix(1, 1, -0.6931472)})
	if err != nil {
		panic(err)
	}
	st, err := scan.NewState(ssm.StateConfig{})
	if err != nil {
		panic(err)
	}
	ones, y := matrix(2, 1, 1, 1), matrix(2, 1)
	if err := scan.Step(y, matrix(2, 1, 8, 0), ones, ones, ones, st); err != nil {
		panic(err)
	}
	var file bytes.Buffer
	if _, err := st.WriteTo(&file); err != nil {
		panic(err)
	}
	if st, err = scan.ReadState(&file); err != nil {
		panic(err)
	}
	fmt.Println("tokens:", st.Len())
	if err := scan.Step(y, matrix(2, 1, 0, 1), ones, ones, ones, st); err != nil {
		panic(err)
	}
	fmt.Printf("%.3f\n", y.Data)
	// Output:
	// tokens: 2
	// [2.000 2.000]
}

// A filter of dt: the channel passes over every token whose step is small.
func ExampleDeltaFilter() {
	scan, err := ssm.NewScan(ssm.ScanConfig{Channels: 1, States: 1}, ssm.ScanWeights{A: matrix(1, 1, -1)})
	if err != nil {
		panic(err)
	}
	x, dt, ones := matrix(3, 1, 5, 7, 9), matrix(3, 1, 1, 0.1, 0.2), matrix(3, 1, 1, 1, 1)
	y := matrix(3, 1)
	err = scan.Run(context.Background(), &ssm.ScanCall{Dst: y, X: x, Dt: dt, B: ones, C: ones, Filter: func(position, first int, dt []float32) {
		for i, v := range dt {
			if v < 0.5 {
				dt[i] = 0
			}
		}
	}})
	if err != nil {
		panic(err)
	}
	fmt.Println(y.Data)
	// Output: [5 5 5]
}

// Retention (Sun et al. 2023): a fixed decay for each head, B and C being keys and
// queries.
func ExampleSSD() {
	ssd, err := ssm.NewSSD(ssm.SSDConfig{Heads: 1, HeadDim: 2, States: 1}, ssm.SSDWeights{})
	if err != nil {
		panic(err)
	}
	values, ones := matrix(3, 2, 4, 8, 0, 0, 0, 0), matrix(3, 1, 1, 1, 1)
	decay := matrix(3, 1, -0.6931472, -0.6931472, -0.6931472)
	y := matrix(3, 2)
	if err := ssd.Run(context.Background(), &ssm.SSDCall{Dst: y, X: values, B: ones, C: ones, Decay: decay}); err != nil {
		panic(err)
	}
	fmt.Printf("%.1f\n", y.Data)
	// Output: [4.0 8.0 2.0 4.0 1.0 2.0]
}

// A convolution goes on after the tokens it has seen.
func ExampleConv() {
	conv, err := ssm.NewConv(ssm.ConvConfig{}, ssm.ConvWeights{Weight: matrix(1, 2, 1, 10)})
	if err != nil {
		panic(err)
	}
	st, err := conv.NewState(ssm.StateConfig{})
	if err != nil {
		panic(err)
	}
	for _, v := range []float32{1, 2, 3} {
		y := matrix(1, 1)
		if err := conv.Step(y, matrix(1, 1, v), st); err != nil {
			panic(err)
		}
		fmt.Println(y.Data)
	}
	// Output:
	// [10]
	// [21]
	// [32]
}

package longmamba_test

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/ssm"
	"github.com/subquad/subquad/ssm/longmamba"
)

func matrix(rows, cols int, data ...float32) blas32.General {
	if data == nil {
		data = make([]float32, rows*cols)
	}
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// LongMamba for one block, here a bare SSD: calibrated on a sequence of the training's
// length, it lets through the large steps of a longer one.
func ExampleCalibrator() {
	const trained, n = 4, 16
	ssd, err := ssm.NewSSD(ssm.SSDConfig{Heads: 1, HeadDim: 1, States: 1}, ssm.SSDWeights{A: []float32{-0.1}})
	if err != nil {
		panic(err)
	}
	run := func(steps []float32, st *ssm.State, hook ssm.DeltaFilter) {
		tokens := len(steps)
		err := ssd.Run(context.Background(), &ssm.SSDCall{
			Dst: matrix(tokens, 1), X: matrix(tokens, 1), B: matrix(tokens, 1), C: matrix(tokens, 1), Dt: matrix(tokens, 1, steps...), State: st, Filter: hook,
		})
		if err != nil {
			panic(err)
		}
	}
	calibrator, err := longmamba.NewCalibrator(ssd, longmamba.CalibrationConfig{TrainLength: trained})
	if err != nil {
		panic(err)
	}
	run([]float32{1, 8, 2, 1}, nil, calibrator.Record)
	if err := calibrator.Next(); err != nil {
		panic(err)
	}
	calibration, err := calibrator.Calibration()
	if err != nil {
		panic(err)
	}
	filter, err := calibration.NewFilter(longmamba.FilterConfig{})
	if err != nil {
		panic(err)
	}
	st, err := ssd.NewState(ssm.StateConfig{Filter: filter, Prompt: n})
	if err != nil {
		panic(err)
	}
	kept := matrix(n, 1)
	long := []float32{1, 8, 2, 1, 1, 7, 1, 2, 2, 1, 9, 1, 1, 2, 1, 1}
	run(long[:10], st, ssm.RecordSteps(kept)) // in two calls, or as many as one likes
	run(long[10:], st, ssm.RecordSteps(kept))
	fmt.Printf("%.1f\n", calibration.Tables[0].LogDecay)
	fmt.Println(kept.Data)
	// Output:
	// [-1.2]
	// [0 8 0 0 0 0 0 0 0 0 9 0 0 0 0 0]
}

// Receptive fields tell which channels a filter takes for global: here the second, whose
// state has lost little after the four tokens of the training.
func ExampleCalibration_ReceptiveFields() {
	calibration := &longmamba.Calibration{TrainLength: 4, Lengths: []int{8}, Tables: []longmamba.Table{{
		LogDecay: []float64{-12, -0.5}, DtSum: []float64{4, 4},
		Alpha: [][]float32{{0.5, 0.5}}, Threshold: [][]float32{{1, 1}},
	}}}
	fields, err := calibration.ReceptiveFields(0, 0.05)
	if err != nil {
		panic(err)
	}
	filter, err := calibration.NewFilter(longmamba.FilterConfig{})
	if err != nil {
		panic(err)
	}
	global, err := filter.Global(0)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%.1f %v\n", fields, global)
	// Output: [1.0 24.0] [false true]
}

// A filter changes the steps of a whole prompt by any rule of the official code: here
// the two tokens with the largest steps are kept.
func ExampleFilter_Apply() {
	calibration := &longmamba.Calibration{TrainLength: 2, Lengths: []int{4}, Tables: []longmamba.Table{{
		LogDecay: []float64{0}, DtSum: []float64{2}, Alpha: [][]float32{{0.5}}, Threshold: [][]float32{{1}},
	}}}
	filter, err := calibration.NewFilter(longmamba.FilterConfig{Method: longmamba.TopNormTokens, TopK: 2})
	if err != nil {
		panic(err)
	}
	dt := matrix(4, 1, 3, 1, 2, 4)
	if err := filter.Apply(0, dt); err != nil {
		panic(err)
	}
	fmt.Println(dt.Data)
	// Output: [3 0 0 4]
}

// After layer 0 two tokens go on, those with the largest steps, and the last one.
func ExampleDecimation() {
	decimation, err := longmamba.NewDecimation(longmamba.DecimationConfig{Layers: []int{0}, Base: 2, MinTokens: -1, Response: 1})
	if err != nil {
		panic(err)
	}
	kept, err := decimation.Keep(0, matrix(5, 1, 3, 1, 2, 4, 0))
	if err != nil {
		panic(err)
	}
	fmt.Println(kept)
	// Output: [0 3 4]
}

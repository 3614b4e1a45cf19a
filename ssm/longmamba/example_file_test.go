package longmamba_test

import (
	"bytes"
	"fmt"

	"github.com/subquad/subquad/ssm/longmamba"
)

// A calibration takes seconds to make, and is stored beside the model.
func ExampleReadCalibration() {
	calibration := &longmamba.Calibration{TrainLength: 2, Lengths: []int{4}, Tables: []longmamba.Table{{
		LogDecay: []float64{0}, DtSum: []float64{2}, Alpha: [][]float32{{0.5}}, Threshold: [][]float32{{1}},
	}}}
	var file bytes.Buffer
	if _, err := calibration.WriteTo(&file); err != nil {
		panic(err)
	}
	read, err := longmamba.ReadCalibration(&file)
	if err != nil {
		panic(err)
	}
	fmt.Println(read.TrainLength, read.Lengths)
	// Output: 2 [4]
}

package catanet_test

import (
	"fmt"
	"log"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/merge/catanet"
)

func matrix(rows, cols int, data ...float32) blas32.General {
	if len(data) == 0 {
		data = make([]float32, rows*cols)
	}
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// Attention among tokens of like content, in groups of two.
func ExampleGroupAttention() {
	op, err := catanet.NewGroupAttention(catanet.GroupConfig{Heads: 1, HeadDim: 1, GroupSize: 2})
	if err != nil {
		log.Fatal(err)
	}
	x := matrix(6, 1, 1, -1, 1, -1, 1, -1)
	bucket := make([]int32, 6)
	if err := catanet.AssignCenters(bucket, x, matrix(2, 1, 2, -2)); err != nil {
		log.Fatal(err)
	}
	out := matrix(6, 1)
	if err := op.Forward(out, matrix(6, 1), x, x, bucket); err != nil {
		log.Fatal(err)
	}
	fmt.Println(bucket, out.Data)
	// Output:
	// [0 1 0 1 0 1] [0.5 -0.5 0.5 -1 -0.5 -1]
}

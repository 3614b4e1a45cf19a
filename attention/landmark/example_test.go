package landmark_test

import (
	"fmt"
	"log"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention/landmark"
)

// matrix is a matrix of the data given, without gaps.
func matrix(rows, cols int, data ...float32) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// Two blocks of three tokens, each ended by a landmark, and a token that sees
// both through their landmarks.
func ExampleLandmark() {
	op, err := landmark.New(landmark.Config{Heads: 1, HeadDim: 1, Scale: 1, Block: 3})
	if err != nil {
		log.Fatal(err)
	}
	const n = 9
	landmarks := make([]bool, n)
	for i := range landmarks {
		landmarks[i] = op.IsLandmark(int64(i))
	}
	q, k := matrix(n, 1, make([]float32, n)...), matrix(n, 1, make([]float32, n)...)
	v := matrix(n, 1, 1, 1, 1, 0, 2, 2, 2, 0, 6)
	dst := matrix(n, 1, make([]float32, n)...)
	if err := op.Forward(dst, q, k, v, landmarks); err != nil {
		log.Fatal(err)
	}
	fmt.Println(dst.Data[n-1]) // (1 + 2 + 6) / 3: blocks and tokens weigh the same
	// Output: 3
}

// Only meta-tokens attend, to meta-tokens.
func ExampleMeta() {
	op, err := landmark.NewMeta(landmark.MetaConfig{Heads: 1, HeadDim: 1})
	if err != nil {
		log.Fatal(err)
	}
	q, v := matrix(4, 1, 0, 0, 0, 0), matrix(4, 1, 1, 2, 3, 4)
	dst := matrix(4, 1, 9, 9, 9, 9)
	if err := op.Forward(dst, q, q, v, []bool{false, true, false, true}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(dst.Data)
	// Output: [0 2 0 3]
}

package attention_test

import (
	"context"
	"fmt"
	"log"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
)

func matrix(rows, cols int, data ...float32) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// Causal attention with one head of width 2. All keys are equal, so that each
// query takes the mean of the values up to its own.
func ExampleAttention() {
	att, err := attention.New(attention.Config{Heads: 1, HeadDim: 2, Causal: true})
	if err != nil {
		log.Fatal(err)
	}
	q := matrix(3, 2, 1, 2, 3, 4, 5, 6)
	k := matrix(3, 2, 1, 1, 1, 1, 1, 1)
	v := matrix(3, 2, 1, 0, 3, 0, 5, 6)
	dst := matrix(3, 2, make([]float32, 6)...)
	if err := att.Forward(dst, q, k, v); err != nil {
		log.Fatal(err)
	}
	for i := range dst.Rows {
		fmt.Printf("%.2f\n", dst.Data[i*dst.Stride:][:dst.Cols])
	}
	// Output:
	// [1.00 0.00]
	// [2.00 0.00]
	// [3.00 2.00]
}

// Two parts of the keys, attended to apart and put together.
func ExampleMerge() {
	att, err := attention.New(attention.Config{Heads: 1, HeadDim: 1, Scale: 1})
	if err != nil {
		log.Fatal(err)
	}
	q := matrix(1, 1, 1)
	k, v := matrix(4, 1, 0, 1, 2, 3), matrix(4, 1, 1, 2, 3, 4)
	over := func(from, to int) attention.Partial {
		rows := func(m blas32.General) []blas32.General {
			return []blas32.General{matrix(to-from, 1, m.Data[from:to]...)}
		}
		p := attention.Partial{Out: matrix(1, 1, 0), LSE: matrix(1, 1, 0)}
		err := att.Run(context.Background(), &attention.Call{Dst: p.Out, LSE: p.LSE, Q: q, K: rows(k), V: rows(v), Partial: true})
		if err != nil {
			log.Fatal(err)
		}
		return p
	}
	whole := over(0, 4)
	merged := attention.Partial{Out: matrix(1, 1, 0), LSE: matrix(1, 1, 0)}
	if err := attention.Merge(merged, nil, over(0, 1), over(1, 4)); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.4f %.4f\n", whole.Out.Data[0], whole.LSE.Data[0])
	fmt.Printf("%.4f %.4f\n", merged.Out.Data[0], merged.LSE.Data[0])
	// Output:
	// 3.4927 3.4402
	// 3.4927 3.4402
}

// A merged token that stands for three counts as three.
func ExampleCall_logWeights() {
	att, err := attention.New(attention.Config{Heads: 1, HeadDim: 1})
	if err != nil {
		log.Fatal(err)
	}
	const log3 = 1.0986123
	dst := matrix(1, 1, 0)
	err = att.Run(context.Background(), &attention.Call{
		Dst: dst, Q: matrix(1, 1, 1),
		K: []blas32.General{matrix(2, 1, 2, 2)}, V: []blas32.General{matrix(2, 1, 10, 20)},
		LogWeights: matrix(2, 1, 0, log3),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.1f\n", dst.Data[0]) // (10 + 3*20) / 4
	// Output: 17.5
}

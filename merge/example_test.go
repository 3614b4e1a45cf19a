package merge_test

import (
	"context"
	"fmt"
	"log"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/merge"
	"github.com/subquad/subquad/rope"
)

func matrix(rows, cols int, data ...float32) blas32.General {
	if len(data) == 0 {
		data = make([]float32, rows*cols)
	}
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// Merge two of six tokens away, look at where each went, and give what was computed of
// four back to all six.
func Example() {
	matcher, err := merge.New(merge.Config{})
	if err != nil {
		log.Fatal(err)
	}
	metric := matrix(6, 2, 1, 0, 1, 0.1, -1, 0, 0, 1, 0.1, 1, 0, -1) // tokens 0 and 1 are alike, 3 and 4 too
	var plan merge.Plan
	if err := matcher.Match(&plan, metric, 2); err != nil {
		log.Fatal(err)
	}
	fmt.Println("token map:", plan.Map())

	x := matrix(6, 1, 10, 20, 30, 40, 50, 60)
	merged, size := matrix(plan.Len(), 1), make([]float32, plan.Len())
	if err := plan.ApplyWeighted(merged, x, size, nil); err != nil {
		log.Fatal(err)
	}
	fmt.Println("merged:", merged.Data, "sizes:", size)

	back := matrix(6, 1)
	if err := plan.Unmerge(back, merged); err != nil {
		log.Fatal(err)
	}
	fmt.Println("unmerged:", back.Data)
	// Output:
	// token map: [0 0 1 2 2 3]
	// merged: [15 30 45 60] sizes: [2 1 2 1]
	// unmerged: [15 15 30 45 45 60]
}

// Merged keys count as the tokens they stand for, and take their mean position.
func ExampleLogSizes() {
	k, v := matrix(4, 2, 1, 0, 1, 0, 0, 1, 0, 1), matrix(4, 2, 1, 2, 1, 2, 5, 6, 7, 8)
	var plan merge.Plan
	if err := plan.SetMap([]int32{0, 0, 1, 2}, 3); err != nil { // by hand: the first two are one
		log.Fatal(err)
	}
	keys, values, size := matrix(3, 2), matrix(3, 2), make([]float32, 3)
	for _, m := range [][2]blas32.General{{keys, k}, {values, v}} {
		if err := plan.ApplyWeighted(m[0], m[1], size, nil); err != nil {
			log.Fatal(err)
		}
	}
	weights := matrix(3, 1)
	if err := merge.LogSizes(weights.Data, size); err != nil {
		log.Fatal(err)
	}
	op, err := attention.New(attention.Config{Heads: 1, HeadDim: 2})
	if err != nil {
		log.Fatal(err)
	}
	q, all, few := matrix(1, 2, 1, 1), matrix(1, 2), matrix(1, 2)
	if err := op.Forward(all, q, k, v); err != nil {
		log.Fatal(err)
	}
	call := &attention.Call{Dst: few, Q: q, K: []blas32.General{keys}, V: []blas32.General{values}, LogWeights: weights}
	if err := op.Run(context.Background(), call); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.4f %.4f\n", all.Data, few.Data)

	at := make([]float64, 3)
	if err := plan.ApplyPositions(at, []int64{0, 1, 2, 3}, merge.Mean, nil); err != nil {
		log.Fatal(err)
	}
	rotation, err := rope.New(rope.Config{HeadDim: 2})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("positions:", at)
	if err := rotation.Run(context.Background(), &rope.Call{X: keys, Positions: rope.Positions{Fractional: at}}); err != nil {
		log.Fatal(err)
	}
	// Output:
	// [3.5000 4.5000] [3.5000 4.5000]
	// positions: [0.5 2 3]
}

// Two layers merge in turn; their composition knows the origin of every token.
func ExamplePlan_Compose() {
	matcher, err := merge.New(merge.Config{})
	if err != nil {
		log.Fatal(err)
	}
	x := matrix(8, 2, 1, 0, 1, 0.1, 0, 1, 0.1, 1, -1, 0, -1, 0.1, 1, 0.2, 1, 0.3)
	var all, layer merge.Plan
	if err := all.SetIdentity(x.Rows); err != nil {
		log.Fatal(err)
	}
	var size []float32
	for range 2 {
		if err := matcher.Match(&layer, x, x.Rows/4); err != nil {
			log.Fatal(err)
		}
		next, total := matrix(layer.Len(), 2), make([]float32, layer.Len())
		if err := layer.ApplyWeighted(next, x, total, size); err != nil {
			log.Fatal(err)
		}
		if err := all.Compose(&all, &layer); err != nil {
			log.Fatal(err)
		}
		x, size = next, total
	}
	fmt.Println(all.Map(), size)
	// Output:
	// [0 0 1 1 2 3 4 4] [2 2 1 1 2]
}

// A causal merger takes tokens as they come.
func ExampleStream() {
	stream, err := merge.NewStream(merge.StreamConfig{MetricDim: 2, Dim: 1, Above: 0.9})
	if err != nil {
		log.Fatal(err)
	}
	state, err := stream.NewState(merge.StateConfig{})
	if err != nil {
		log.Fatal(err)
	}
	metric := matrix(5, 2, 1, 0, 1, 0.1, 0, 1, 1, 0, 0, 1)
	for t := range 5 {
		one := func(m blas32.General) blas32.General {
			m.Rows, m.Data = 1, m.Data[t*m.Stride:]
			return m
		}
		dst, size := matrix(2, 1), make([]float32, 2)
		n, err := stream.Run(context.Background(), &merge.StreamCall{Dst: dst, X: matrix(1, 1, float32(t)), Metric: one(metric), Total: size, State: state, End: t == 4})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(t, dst.Data[:n], size[:n])
	}
	// Output:
	// 0 [] []
	// 1 [0.5] [2]
	// 2 [] []
	// 3 [2 3] [1 1]
	// 4 [4] [1]
}

// Ask first whether merging pays.
func ExampleMatcher_Estimate() {
	matcher, err := merge.New(merge.Config{})
	if err != nil {
		log.Fatal(err)
	}
	const dim, heads = 768, 12
	layer := merge.Workload{Dim: dim, Layers: 11, PairFlop: 4 * dim, TokenFlop: 24 * dim * dim}
	many, err := matcher.Estimate(197, dim/heads, 16, layer)
	if err != nil {
		log.Fatal(err)
	}
	layer = merge.Workload{Dim: 320, Layers: 1, PairFlop: 0, TokenFlop: 8 * 64 * 64, Unmerge: true}
	few, err := matcher.Estimate(4096, 64, 40, layer)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(many.Pays(), few.Pays())
	// Output: true false
}

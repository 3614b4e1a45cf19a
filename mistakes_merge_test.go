package subquad_test

import (
	"math/rand/v2"

	"github.com/subquad/subquad/merge"
	"github.com/subquad/subquad/merge/catanet"
	"github.com/subquad/subquad/merge/maelre"
)

func init() { rooms = append(rooms, mergeRoom, planRoom, catanetRoom, maelreRoom) }

func mergeRoom(b *builder) {
	cfg := merge.Config{Method: merge.ToMe}
	b.add("merge.New", merge.New, func() []any { return []any{cfg} })
	m := must(merge.New(cfg))
	self := func() any { return m }
	const dim = 5
	call := func() *merge.Call {
		return &merge.Call{Plan: new(merge.Plan), Metric: matrix(tokens, dim), R: 2, AtMost: true}
	}
	b.operator(operator{op: m,
		whole: func() any { return call() },
		packed: func() any {
			c := call()
			c.R, c.Counts, c.Offsets = 0, []int{1, 0, 2}, []int{0, 3, 3, tokens}
			return c
		},
		free: []string{"call.Metric.Cols", "metric.Cols"}, args: map[string]func(any) any{"r": func(any) any { return 2 }}})
	b.on(self, "Run", func() []any {
		c := call()
		c.R, c.Ratio, c.MinTokens, c.Valid, c.Protect = 0, 0.5, 2, make([]bool, tokens), make([]bool, tokens)
		return []any{nowhere, c}
	}).call = "ratio"
	b.rows[len(b.rows)-1].free = []string{"call.Metric.Cols"}
	b.on(self, "Match", func() []any { return []any{new(merge.Plan), matrix(tokens, dim), 2} }).free = []string{"metric.Cols"}
	b.rows[len(b.rows)-1].never = true
	b.on(self, "Estimate", func() []any {
		return []any{64, dim, 4, merge.Workload{Dim: 8, Layers: 2, PairFlop: 10, TokenFlop: 100}}
	})

	b.add("merge.NewStream", merge.NewStream, func() []any { return []any{merge.StreamConfig{MetricDim: 3, Dim: dim, Above: 0.9}} })
	s, other := must(merge.NewStream(merge.StreamConfig{MetricDim: 3, Dim: dim, Above: 0.9})), must(merge.NewStream(merge.StreamConfig{MetricDim: 3, Dim: dim, Above: 0.8}))
	stream := func() *merge.StreamCall {
		return &merge.StreamCall{X: matrix(tokens, dim), Metric: matrix(tokens, 3), Dst: matrix(tokens+1, dim)}
	}
	free := []string{"call.Dst.Rows", "dst.Rows"}
	b.operator(operator{op: s, other: other, free: free,
		whole: func() any { c := stream(); c.End = true; return c },
		step:  func() any { c := stream(); c.State = newState(b.t, s, 0).(*merge.State); return c },
	})

	b.add("merge.MeanHeads", merge.MeanHeads, func() []any { return []any{matrix(tokens, 3), matrix(tokens, 6), 2} })
	b.add("merge.LogSizes", merge.LogSizes, func() []any { return []any{vector(tokens), positive(tokens)} })
	rng := func() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
	b.add("merge.RandomPartition", merge.RandomPartition, func() []any { return []any{9, 3, rng()} })
	b.add("merge.GridPartition", merge.GridPartition, func() []any { return []any{4, 4, 2, 2, rng()} })
	b.add("merge.Schedule", merge.Schedule, func() []any { return []any{4, 3, 0.5} })
	b.add("merge.ScheduleRatio", merge.ScheduleRatio, func() []any { return []any{4, 30, 0.5} })
}

func planRoom(b *builder) {
	const dim, merged = 5, 5
	plan := func() any {
		p := new(merge.Plan)
		must(0, p.SetMap([]int32{0, 1, 1, 2, 3, 3, 4}, merged))
		return p
	}
	empty := func() any { return new(merge.Plan) }
	b.on(empty, "SetIdentity", func() []any { return []any{tokens} })
	b.on(empty, "SetMap", func() []any { return []any{[]int32{0, 1, 1, 2, 3, 3, 4}, merged} }).never = true
	b.on(empty, "SetRoute", func() []any { return []any{make([]int32, tokens), int32(0)} }).free = []string{"route."}
	b.on(empty, "SetKeep", func() []any { return []any{make([]bool, tokens)} }).free = []string{"keep."}
	b.on(empty, "Compose", func() []any {
		second := new(merge.Plan)
		must(0, second.SetIdentity(merged))
		return []any{plan(), second}
	})

	for _, r := range []*row{
		b.on(plan, "Apply", func() []any { return []any{matrix(merged, dim), matrix(tokens, dim), merge.Mean} }),
		b.on(plan, "ApplyWeighted", func() []any { return []any{matrix(merged, dim), matrix(tokens, dim), vector(merged), positive(tokens)} }),
		b.on(plan, "ApplySizes", func() []any { return []any{vector(merged), positive(tokens)} }),
		b.on(plan, "ApplyPositions", func() []any {
			return []any{make([]float64, merged), make([]int64, tokens), merge.Mean, positive(tokens)}
		}),
		b.on(plan, "ApplyMask", func() []any { return []any{make([]bool, merged), make([]bool, tokens)} }),
		b.on(plan, "Unmerge", func() []any { return []any{matrix(tokens, dim), matrix(merged, dim)} }),
	} {
		r.never = true
	}
}

func catanetRoom(b *builder) {
	const dim, qk, mlp, h, w = 6, 4, 8, 4, 4
	gc := catanet.GroupConfig{Heads: 2, HeadDim: 3, ValueDim: 2, GroupSize: 3, Scale: 0.5}
	b.add("catanet.NewGroupAttention", catanet.NewGroupAttention, func() []any { return []any{gc} })
	group := func() *catanet.GroupCall {
		return &catanet.GroupCall{Dst: matrix(tokens, 4), Q: matrix(tokens, 6), K: matrix(tokens, 6), V: matrix(tokens, 4), Bucket: []int32{0, 1, 0, 1, 1, 0, 2},
			CenterK: matrix(3, 6), CenterV: matrix(3, 4)}
	}
	b.operator(operator{op: must(catanet.NewGroupAttention(gc)),
		whole: func() any { return group() },
		packed: func() any {
			c := group()
			c.Offsets = []int{0, 3, 3, tokens}
			c.CenterK, c.CenterV = matrix(9, 6), matrix(9, 4)
			return c
		},
	})
	ffn := func() catanet.ConvFFNWeights {
		return catanet.ConvFFNWeights{Norm: vector(dim), NormBias: vector(dim), Up: matrix(mlp, dim), Down: matrix(dim, mlp), UpBias: vector(mlp), DownBias: vector(dim), Conv: matrix(mlp, 25), ConvBias: vector(mlp)}
	}
	lc := catanet.LRSAConfig{Dim: dim, QKDim: qk, Inner: mlp, Heads: 2, Window: 2, Step: 1}
	lw := func() catanet.LRSAWeights {
		return catanet.LRSAWeights{Norm: vector(dim), NormBias: vector(dim), Q: matrix(qk, dim), K: matrix(qk, dim), V: matrix(dim, dim), Out: matrix(dim, dim), FFN: ffn()}
	}
	image := func() any { return &catanet.ImageCall{Dst: matrix(h*w, dim), X: matrix(h*w, dim), Height: h, Width: w} }
	b.add("catanet.NewLRSA", catanet.NewLRSA, func() []any { return []any{lc, lw()} })
	b.operator(operator{op: must(catanet.NewLRSA(lc, lw())), whole: image})
	tc := catanet.TABConfig{Dim: dim, QKDim: qk, Inner: mlp, Heads: 2, Centers: 3, GroupSize: 3}
	tw := func() catanet.TABWeights {
		return catanet.TABWeights{Norm: vector(dim), NormBias: vector(dim), CenterK: matrix(qk, dim), CenterV: matrix(dim, dim), Q: matrix(qk, dim), K: matrix(qk, dim), V: matrix(dim, dim),
			Out: matrix(dim, dim), Conv: matrix(dim, dim), FFN: ffn(), Means: matrix(3, dim)}
	}
	b.add("catanet.NewTAB", catanet.NewTAB, func() []any { return []any{tc, tw()} })
	b.operator(operator{op: must(catanet.NewTAB(tc, tw())), whole: image})
	b.add("catanet.AssignCenters", catanet.AssignCenters, func() []any { return []any{make([]int32, tokens), matrix(tokens, dim), matrix(3, dim)} })
	b.add("catanet.FitCenters", catanet.FitCenters, func() []any { return []any{matrix(3, dim), matrix(tokens, dim), matrix(3, dim), 2} })
	b.add("catanet.MoveCenters", catanet.MoveCenters, func() []any { return []any{matrix(3, dim), matrix(3, dim), float32(0.9)} })
}

// maelreParts are a Config and weights of an encoder, and those in a file.
func maelreWeights() maelre.Weights {
	const dim, up, classes = 8, 16, 3
	block := func() maelre.Block {
		return maelre.Block{Norm1: vector(dim), Norm1Bias: vector(dim), QKV: matrix(3*dim, dim), QKVBias: vector(3 * dim), Out: matrix(dim, dim), OutBias: vector(dim),
			Norm2: vector(dim), Norm2Bias: vector(dim), Up: matrix(up, dim), UpBias: vector(up), Down: matrix(dim, up), DownBias: vector(dim)}
	}
	return maelre.Weights{Blocks: []maelre.Block{block(), block()}, Norm: vector(dim), NormBias: vector(dim), Head: matrix(classes, dim), HeadBias: vector(classes)}
}

func maelreRoom(b *builder) {
	const dim, classes = 8, 3
	cfg := func() maelre.Config {
		return maelre.Config{Heads: 2, Matching: must(merge.New(merge.Config{})), Ratios: []float64{0.5, 0.5}, MinTokens: 2, Eps: 1e-5}
	}
	b.add("maelre.New", maelre.New, func() []any { return []any{cfg(), maelreWeights()} }).free = []string{"w.Head.Rows"}
	op := must(maelre.New(cfg(), maelreWeights()))
	call := func(n int) *maelre.Call {
		return &maelre.Call{X: matrix(tokens, dim), Pooled: matrix(n, dim), Logits: matrix(n, classes)}
	}
	b.on(func() any { return op }, "Run", func() []any {
		c := call(1)
		c.Sizes, c.Valid, c.Observe = positive(tokens), []bool{true, true, true, true, true, true, true}, func(maelre.Stage) {}
		return []any{nowhere, c}
	}).call = "whole"
	b.on(func() any { return op }, "Run", func() []any {
		c := call(3)
		c.Offsets = []int{0, 3, 3, tokens}
		return []any{nowhere, c}
	}).call = "packed"
	b.on(func() any { return op }, "Forward", func() []any { return []any{matrix(1, classes), matrix(tokens, dim)} })
	b.on(func() any { return op }, "ScratchBytes", func() []any { return []any{tokens} })
}

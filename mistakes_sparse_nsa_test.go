package subquad_test

import (
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/sparse"
)

func init() { rooms = append(rooms, nsaRoom) }

func nsaRoom(b *builder) {
	cfg := sparse.NSAConfig{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim, Block: 2, TopK: 2, Keep: 1, Local: 1, Compress: 4, Stride: 2, Window: 3}
	b.add("sparse.NewNSA", sparse.NewNSA, func() []any { return []any{cfg} })
	op := must(sparse.NewNSA(cfg))
	cfg.Window = 2
	gates := func() sparse.Gates {
		return sparse.Gates{Compressed: matrix(tokens, heads), Selected: matrix(tokens, heads), Window: matrix(tokens, heads)}
	}
	b.attends(operator{op: op, other: must(sparse.NewNSA(cfg)), args: map[string]func(any) any{"gates": func(any) any { return gates() }}}, valueDim, true, true, true,
		func(c *attention.Call) {
			c.Options = &sparse.NSAOptions{Gates: gates()}
		})
	opt := b.on(func() any { return op }, "Run", func() []any {
		c := attend(valueDim)
		c.Options = &sparse.NSAOptions{Gates: gates(), Blocks: make([]int32, tokens*kvHeads*2)}
		return []any{nowhere, c}
	})
	opt.call, opt.never = "options", true
	b.on(func() any { return op }, "NewPages", func() []any { return []any{attention.PagesConfig{PageTokens: 4, MaxPages: 8}} })
}

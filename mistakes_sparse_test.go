package subquad_test

import (
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/sparse"
)

func init() { rooms = append(rooms, blocksRoom, mobaRoom) }

func blocksRoom(b *builder) {
	cfg := sparse.BlocksConfig{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim, Causal: true, QueryBlock: tokens, KeyBlock: 2}
	b.add("sparse.NewBlocks", sparse.NewBlocks, func() []any { return []any{cfg} })
	op := must(sparse.NewBlocks(cfg))
	self := func() any { return op }
	choice := func() *sparse.Choice {
		return &sparse.Choice{Heads: kvHeads, Offsets: []int{0, 2, 3}, Blocks: []int32{0, 2, 1}}
	}
	b.attends(operator{op: op, never: true, args: map[string]func(any) any{"choice": func(any) any { return choice() }}}, valueDim, false, false, false,
		func(c *attention.Call) {
			c.Options, c.LSE, c.LogWeights, c.QueryPos, c.KeyPos = choice(), matrix(tokens, heads), matrix(tokens, kvHeads), []int64{0}, []int64{0}
		})
	b.rows[len(b.rows)-3].free = []string{"call.LogWeights.Cols"}
	packed := b.on(self, "Run", func() []any {
		c := attend(valueDim)
		c.Offsets, c.KOffsets = []int{0, 3, tokens}, []int{0, 0, tokens}
		c.Options = &sparse.Choice{Heads: 1, Offsets: []int{0, 0, 2}, Blocks: []int32{0, 1}}
		return []any{nowhere, c}
	})
	packed.call, packed.never = "packed", true
	b.on(self, "Choose", func() []any {
		return []any{&sparse.Choice{Heads: 1, Offsets: []int{0, 1}, Blocks: []int32{0}}, sparse.Pattern{Keep: 1}, tokens, tokens}
	}).never = true
	b.on(self, "ChooseBy", func() []any {
		return []any{nowhere, &sparse.Choice{Heads: heads, Offsets: []int{0, 1, 1, 1, 1}, Blocks: []int32{0}}, sparse.Pattern{TopK: 2}, matrix(tokens, heads*headDim), matrix(tokens, kvHeads*headDim)}
	}).free = []string{"q.Rows", "k.Rows"}
	b.on(self, "ChooseScored", func() []any {
		return []any{nowhere, &sparse.Choice{Heads: heads, Offsets: []int{0, 1, 1, 1, 1}, Blocks: []int32{0}}, sparse.Pattern{TopK: 2}, tokens, tokens, heads, func([]float32, int, int) {}}
	}).never = true
}

func mobaRoom(b *builder) {
	cfg := sparse.MoBAConfig{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim, Block: 2, TopK: 2}
	b.add("sparse.NewMoBA", sparse.NewMoBA, func() []any { return []any{cfg} })
	op := must(sparse.NewMoBA(cfg))
	cfg.TopK = 3
	b.attends(operator{op: op, other: must(sparse.NewMoBA(cfg))}, valueDim, true, true, true, func(c *attention.Call) { c.LSE = matrix(tokens, heads) })
	b.on(func() any { return op }, "NewPages", func() []any { return []any{attention.PagesConfig{PageTokens: 4, MaxPages: 8}} })
}

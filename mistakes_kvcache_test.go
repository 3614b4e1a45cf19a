package subquad_test

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/kvcache"
	"github.com/subquad/subquad/rope"
)

func init() { rooms = append(rooms, kvcacheRoom) }

func kvcacheRoom(b *builder) {
	config := func() kvcache.Config {
		return kvcache.Config{
			Heads: heads, KVHeads: kvHeads, HeadDim: headDim, ValueDim: valueDim, Keep: 1, Recent: 2, Chunk: 1,
			Select: kvcache.Top{TopK: 2}, Rotation: &rope.Config{HeadDim: headDim}, Positions: kvcache.InCache,
		}
	}
	b.add("kvcache.New", kvcache.New, func() []any { return []any{config()} })
	shadow := b.add("kvcache.New", kvcache.New, func() []any {
		cfg := config()
		cfg.Select, cfg.Positions = kvcache.Shadow{Bits: 8, TopK: 2, Eps: .1}, kvcache.AtOrigin
		return []any{cfg}
	})
	shadow.call = "shadow"
	op := must(kvcache.New(config()))
	cfg := config()
	cfg.Recent = 3
	other := must(kvcache.New(cfg))
	b.attends(operator{op: op, other: other}, valueDim, true, true, true, func(c *attention.Call) { c.LSE = matrix(tokens, heads) })
	self := func() any { return op }
	seen := func() any {
		st := must(op.NewState(kvcache.StateConfig{}))
		must(0, op.Step(matrix(tokens, heads*valueDim), matrix(tokens, heads*headDim), matrix(tokens, kvHeads*headDim), matrix(tokens, kvHeads*valueDim), st))
		return st
	}
	b.on(seen, "CopyFrom", func() []any { return []any{seen()} }).foreign = func() any { return must(other.NewState(kvcache.StateConfig{})) }
	b.on(self, "NewPages", func() []any { return []any{attention.PagesConfig{PageTokens: 4, MaxPages: 8}} })
	opt := b.on(self, "Run", func() []any {
		c := attend(valueDim)
		c.Options = &kvcache.Options{Importance: vector(tokens)}
		return []any{nowhere, c}
	})
	opt.call, opt.never = "options", true

	b.on(func() any { return must(op.NewState(kvcache.StateConfig{})) }, "ReadFrom", func() []any { return []any{fileOf(seen().(*kvcache.State))} })

	cfg.Select, cfg.Evict = nil, kvcache.H2O{Budget: 5}
	evicting := must(kvcache.New(cfg))
	b.on(func() any { return must(evicting.NewState(kvcache.StateConfig{})) }, "Compact", func() []any { return []any{5} })
	b.on(seen, "Append", func() []any { return []any{matrix(tokens, kvHeads*headDim), matrix(tokens, kvHeads*valueDim)} })
	b.on(seen, "Restore", func() []any {
		m := new(kvcache.Mark)
		seen().(*kvcache.State).Save(m)
		return []any{m}
	}).foreign = func() any { return new(kvcache.Mark) }
	b.add("kvcache.New", kvcache.New, func() []any {
		cfg := config() // with a Rotation of its own
		cfg.Select, cfg.Evict = nil, kvcache.Merging{Evict: kvcache.Knorm{Budget: 5}}
		return []any{cfg}
	}).call = "merging"
	cfg.Evict = kvcache.SirLLM{Tokens: 3}
	surprised := must(kvcache.New(cfg))
	b.on(func() any {
		st := must(surprised.NewState(kvcache.StateConfig{}))
		must(0, surprised.Step(matrix(3, heads*valueDim), matrix(3, heads*headDim), matrix(3, kvHeads*headDim), matrix(3, kvHeads*valueDim), st))
		return st
	}, "SetImportance", func() []any { return []any{vector(3)} }).free = []string{"values."}
	b.add("kvcache.AttentionRows", kvcache.AttentionRows, func() []any {
		return []any{matrix(tokens, heads*headDim), matrix(tokens, kvHeads*headDim), heads, kvHeads, float32(1), 2, 1}
	}).never = true // rows beyond the last
	b.add("kvcache.QuestionWeights", kvcache.QuestionWeights, func() []any { return []any{matrix(2, tokens), kvcache.Run{From: 1, To: 3}} }).free = []string{"a.Cols"}
	b.on(func() any { return kvcache.Sentences{} }, "Score", func() []any { return []any{matrix(2, tokens), kvcache.Run{From: 0, To: 3}, vector(2)} }).free = []string{"a.Cols"}
	b.add("kvcache.SelfInformation", kvcache.SelfInformation, func() []any { return []any{vector(tokens), matrix(tokens, 5), make([]int32, tokens)} }).free = []string{"logits.Cols"}
	half := func() float64 { return .5 }
	weights := func() blas32.General {
		m := matrix(3, 5)
		for i := range m.Data {
			m.Data[i] = 1
		}
		return m
	}
	b.add("kvcache.Verify", kvcache.Verify, func() []any { return []any{[]int{-1, 0, 1}, []int{0, 1, 2}, []int{1, 2, 3}} })
	b.add("kvcache.VerifySampled", kvcache.VerifySampled, func() []any { return []any{[]int{-1, 0, 1}, []int{0, 1, 2}, weights(), half} }).free = []string{"target.Cols"}
	b.add("kvcache.VerifyDrafted", kvcache.VerifyDrafted, func() []any { return []any{[]int{-1, 0, 1}, []int{0, 1, 2}, weights(), weights(), half} }).free = []string{"target.Cols"}
	rotation := must(rope.New(rope.Config{HeadDim: headDim, Workers: 1}))
	b.add("kvcache.Rerotate", kvcache.Rerotate, func() []any { return []any{matrix(tokens, headDim), rotation, make([]int64, tokens)} })
	vs := func() any { return kvcache.VerticalSlash{Heads: heads, KVHeads: kvHeads} }
	b.on(vs, "Choose", func() []any { return []any{matrix(tokens, heads*headDim), matrix(tokens, kvHeads*headDim), 1} })
	b.on(vs, "Run", func() []any {
		return []any{nowhere, matrix(tokens, heads*valueDim), matrix(tokens, heads*headDim), matrix(tokens, kvHeads*headDim), matrix(tokens, kvHeads*valueDim)}
	})
}

package subquad_test

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/ssm/delta"
)

func init() { rooms = append(rooms, deltaRoom) }

// deltaRoom has a recurrence whose Config uses few of a call's inputs and one that uses
// others.
func deltaRoom(b *builder) {
	const heads, key, value = 3, 5, 4 // heads - 1 is not 1, which Beta may have, too
	cfg := delta.Config{Heads: heads, KeyHeads: 1, KeyDim: key, ValueDim: value, Decay: delta.HeadDecay, Erase: delta.EraseKey, Normalize: true, NormEps: 1e-6, Scale: 1}
	b.add("delta.New", delta.New, func() []any { return []any{cfg} })
	constant := delta.Config{Heads: heads, KeyDim: key, ValueDim: value, Decay: delta.ConstantDecay, LogDecay: []float32{-1, -2, -3}}
	b.add("delta.New", delta.New, func() []any { c := constant; c.LogDecay = []float32{-1, -2, -3}; return []any{c} }).call = "constant"
	op := must(delta.New(cfg))
	other := cfg
	other.Scale = 2
	recurrent(b, operator{op: op, other: must(delta.New(other))},
		func() *delta.Call {
			return &delta.Call{Dst: matrix(tokens, heads*value), Q: matrix(tokens, key), K: matrix(tokens, key), V: matrix(tokens, heads*value),
				Decay: negatives(tokens, heads), Beta: matrix(tokens, heads)}
		},
		func(c *delta.Call, o []int, s *delta.State, l []*delta.State) { c.Offsets, c.State, c.States = o, s, l })
	alien := func() any { return newState(b.t, must(delta.New(constant)), 0) }
	state := func() any { return newState(b.t, op, 0) }
	s := func() blas32.General { return matrix(heads*key, value) }
	b.on(func() any { return op }, "Read", func() []any { return []any{s(), state()} }).foreign = alien
	b.on(func() any { return op }, "Write", func() []any { return []any{state(), s()} }).foreign = alien

	b.on(state, "CopyFrom", func() []any { return []any{state()} }).foreign = alien

	for name, cfg := range map[string]delta.Config{
		"pair":  {Heads: heads, KeyDim: key, ValueDim: value, Decay: delta.KeyDecay, Erase: delta.ErasePair},
		"gated": {Heads: heads, KeyDim: key, ValueDim: value, Decay: delta.KeyDecay, Erase: delta.EraseGated},
	} {
		op := must(delta.New(cfg))
		b.on(func() any { return op }, "Run", func() []any {
			wide := func() blas32.General { return matrix(tokens, heads*key) }
			c := &delta.Call{Dst: matrix(tokens, heads*value), Q: wide(), K: wide(), V: matrix(tokens, heads*value), Decay: negatives(tokens, heads*key), Erase: wide()}
			if cfg.Erase == delta.ErasePair {
				c.Insert = wide()
			} else {
				c.WriteGate = matrix(tokens, heads*value)
			}
			return []any{nowhere, c}
		}).call = name
	}
}

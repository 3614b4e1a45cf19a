package subquad_test

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/ssm/delta"
)

func init() { rooms = append(rooms, deltaRoom, deltaBlockRoom) }

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

// deltaBlockRoom has the blocks of ssm/delta.
func deltaBlockRoom(b *builder) {
	const dim, heads, key, value, taps, rank, wide = 6, 4, 3, 5, 4, 2, 8
	alien := func() any {
		return newState(b.t, must(delta.New(delta.Config{Heads: heads, KeyDim: key, ValueDim: value})), 0)
	}
	block := func(op, other any, first bool) {
		recurrent(b, operator{op: op, other: other},
			func() *delta.BlockCall {
				c := &delta.BlockCall{Dst: matrix(tokens, dim), X: matrix(tokens, dim)}
				return c
			},
			func(c *delta.BlockCall, o []int, s *delta.State, l []*delta.State) {
				c.Offsets, c.State, c.States = o, s, l
				if first && o != nil {
					c.First = matrix(tokens, dim)
				}
			})
	}
	states := func(op any, list map[string]func() blas32.General) {
		for name, m := range list {
			state := func() any { return newState(b.t, op, 0) }
			b.on(func() any { return op }, "Read"+name, func() []any { return []any{m(), state()} }).foreign = alien
			if name == "Window" || name == "States" && !isRWKV7(op) {
				continue
			}
			b.on(func() any { return op }, "Write"+name, func() []any { return []any{state(), m()} }).foreign = alien
		}
	}

	gc := delta.GatedDeltaConfig{Heads: heads, KeyHeads: 2, KeyDim: key, ValueDim: value, NormEps: 1e-6}
	const keys, values = 2 * key, heads * value
	gw := func() delta.GatedDeltaWeights {
		return delta.GatedDeltaWeights{InQKV: matrix(2*keys+values, dim), InZ: matrix(values, dim), InB: matrix(heads, dim), InA: matrix(heads, dim),
			Conv: matrix(2*keys+values, taps), ALog: vector(heads), DtBias: vector(heads), Norm: vector(value), Out: matrix(dim, values)}
	}
	b.add("delta.NewGatedDelta", delta.NewGatedDelta, func() []any { return []any{gc, gw()} }).free = []string{"w.Conv.Cols"}
	b.add("delta.SplitQKVZ", delta.SplitQKVZ, func() []any {
		return []any{gc, matrix(2*keys+2*values, dim), matrix(2*heads, dim)}
	})
	g, w := must(delta.NewGatedDelta(gc, gw())), gw()
	w.DtBias[0]++
	block(g, must(delta.NewGatedDelta(gc, w)), false)
	states(g, map[string]func() blas32.General{
		"Window": func() blas32.General { return matrix(taps-1, 2*keys+values) },
		"States": func() blas32.General { return matrix(heads*key, value) },
	})

	kc := delta.KDAConfig{Heads: heads, KeyHeads: 2, KeyDim: key, ValueDim: value, LowerBound: -5, NormEps: 1e-5}
	kw := func() delta.KDAWeights {
		return delta.KDAWeights{Q: matrix(keys, dim), K: matrix(keys, dim), V: matrix(values, dim), QConv: matrix(keys, taps), KConv: matrix(keys, taps), VConv: matrix(values, taps),
			FA: matrix(rank, dim), FB: matrix(heads*key, rank), DtBias: vector(heads * key), ALog: vector(heads), B: matrix(heads, dim),
			GA: matrix(rank, dim), GB: matrix(values, rank), GBias: vector(values), Norm: vector(value), Out: matrix(dim, values)}
	}
	b.add("delta.NewKDA", delta.NewKDA, func() []any { return []any{kc, kw()} }).free = []string{"w.QConv.Cols"}
	k, v := must(delta.NewKDA(kc, kw())), kw()
	v.ALog[0]++
	block(k, must(delta.NewKDA(kc, v)), false)
	states(k, map[string]func() blas32.General{
		"Window": func() blas32.General { return matrix(taps-1, 2*keys+values) },
		"States": func() blas32.General { return matrix(heads*key, value) },
	})

	rc := delta.RWKV7Config{HeadDim: 3, First: true, NormEps: 1e-4, KeyEps: 1e-6}
	rw := func() delta.RWKV7Weights {
		d := func() []float32 { return vector(dim) }
		up, down, full := func() blas32.General { return matrix(rank, dim) }, func() blas32.General { return matrix(dim, rank) }, func() blas32.General { return matrix(dim, dim) }
		return delta.RWKV7Weights{XR: d(), XW: d(), XK: d(), XV: d(), XA: d(), XG: d(), W0: d(), A0: d(), W1: down(), W2: up(), A1: down(), A2: up(), G1: down(), G2: up(),
			KK: d(), KA: d(), RK: d(), Receptance: full(), Key: full(), Value: full(), Out: full(), Norm: d(), NormBias: d()}
	}
	b.add("delta.NewRWKV7", delta.NewRWKV7, func() []any { return []any{rc, rw()} })
	r, x := must(delta.NewRWKV7(rc, rw())), rw()
	x.KK[0]++
	block(r, must(delta.NewRWKV7(rc, x)), true)
	states(r, map[string]func() blas32.General{
		"Shift":  func() blas32.General { return matrix(1, dim) },
		"States": func() blas32.General { return matrix(dim, 3) },
	})

	fw := func() delta.RWKV7FFNWeights {
		return delta.RWKV7FFNWeights{XK: vector(dim), Key: matrix(wide, dim), Value: matrix(dim, wide)}
	}
	b.add("delta.NewRWKV7FFN", delta.NewRWKV7FFN, func() []any { return []any{delta.RWKV7FFNConfig{}, fw()} })
	f, y := must(delta.NewRWKV7FFN(delta.RWKV7FFNConfig{}, fw())), fw()
	y.XK[0]++
	block(f, must(delta.NewRWKV7FFN(delta.RWKV7FFNConfig{}, y)), false)
	states(f, map[string]func() blas32.General{"Shift": func() blas32.General { return matrix(1, dim) }})
}

func isRWKV7(op any) bool { _, ok := op.(*delta.RWKV7); return ok }

package subquad_test

import (
	"bytes"
	"io"
	"slices"

	"github.com/subquad/subquad/hyena"
)

func init() { rooms = append(rooms, hyenaRoom) }

func hyenaFilter() *hyena.Filter {
	return must(hyena.NewFilter(hyenaFilterConfig(), hyenaFilterWeights()))
}

func hyenaFilterConfig() hyena.FilterConfig {
	return hyena.FilterConfig{Channels: channels, MaxLen: 16, EmbDim: 3, Shift: new(0.05), FastDecay: 0.3, SlowDecay: 1.5, Target: 0.01}
}

func hyenaFilterWeights() hyena.FilterWeights {
	return hyena.FilterWeights{
		Layers: []hyena.FilterLayer{{Weight: matrix(4, 3), Bias: vector(4), Freq: vector(4)}, {Weight: matrix(4, 4), Bias: vector(4), Freq: vector(4)}},
		Out:    matrix(channels, 4), Deltas: positive(channels),
	}
}

func hyenaRoom(b *builder) {
	cc := func() hyena.ConvConfig {
		return hyena.ConvConfig{Kernel: matrix(5, channels), Skip: vector(channels), Reverse: matrix(3, channels), SpectraBytes: 1 << 16, Scratch: new(hyena.Scratch)}
	}
	b.add("hyena.NewConv", hyena.NewConv, func() []any { return []any{cc()} }).free = []string{"cfg.Kernel.Rows"}
	plain := func(taps int) hyena.ConvConfig {
		return hyena.ConvConfig{Kernel: matrix(taps, channels), Skip: vector(channels)}
	}
	streams(b, operator{op: must(hyena.NewConv(plain(5))), other: must(hyena.NewConv(plain(6)))},
		func() *hyena.ConvCall {
			return &hyena.ConvCall{Dst: matrix(tokens, channels), X: matrix(tokens, channels)}
		},
		func(c *hyena.ConvCall, o []int, s *hyena.State, l []*hyena.State) {
			c.Offsets, c.State, c.States = o, s, l
		})
	modalRooms(b)
	signalRooms(b)
	b.add("hyena.NewCache", hyena.NewCache, func() []any { return []any{int64(1 << 20)} })
	b.add("hyena.NewFilter", hyena.NewFilter, func() []any { return []any{hyenaFilterConfig(), hyenaFilterWeights()} })
	b.on(func() any { return hyenaFilter() }, "Kernel", func() []any { return []any{matrix(5, channels), 2} }).free = []string{"dst.Rows"}
	const dim = channels
	oc := hyena.OperatorConfig{Dim: dim, Order: 2, SpectraBytes: 1 << 16}
	ow := func() hyena.OperatorWeights {
		return hyena.OperatorWeights{
			In: matrix(3*dim, dim), InBias: vector(3 * dim), Short: matrix(3*dim, 3), ShortBias: vector(3 * dim), Filter: hyenaFilter(), Skip: vector(dim),
			Out: matrix(dim, dim), OutBias: vector(dim),
		}
	}
	b.add("hyena.NewOperator", hyena.NewOperator, func() []any { return []any{oc, ow()} }).free = []string{"w.Short.Cols"}
	w2 := ow()
	w2.Skip[0]++
	streams(b, operator{op: must(hyena.NewOperator(oc, ow())), other: must(hyena.NewOperator(oc, w2))},
		func() *hyena.OperatorCall {
			return &hyena.OperatorCall{Dst: matrix(tokens, dim), X: matrix(tokens, dim)}
		},
		func(c *hyena.OperatorCall, o []int, s *hyena.State, l []*hyena.State) {
			c.Offsets, c.State, c.States = o, s, l
		})
}

// streams puts an operator of hyena into the table, whose calls call makes; change makes of
// one a packed one, a step or a batch.
func streams[C any](b *builder, o operator, call func() *C, change func(c *C, offsets []int, state *hyena.State, states []*hyena.State)) {
	with := func(offsets []int, one bool, many int) func() any {
		return func() any {
			c := call()
			var state *hyena.State
			var list []*hyena.State
			if one {
				state = newState(b.t, o.op, 0).(*hyena.State)
			}
			for range many {
				list = append(list, newState(b.t, o.op, 0).(*hyena.State))
			}
			change(c, slices.Clone(offsets), state, list)
			return c
		}
	}
	o.whole, o.packed, o.step, o.batch = with(nil, false, 0), with([]int{0, 3, 3, tokens}, false, 0), with(nil, true, 0), with(nil, false, tokens)
	b.operator(o)
	b.operatorStates(o, with)
}

func hyenaModes() *hyena.Modes {
	return must(hyena.NewModes(hyena.ModesWeights{Poles: matrix(channels, 4), Residues: matrix(channels, 4)}))
}

// modalRooms are operators with modal filters.
func modalRooms(b *builder) {
	b.add("hyena.NewModes", hyena.NewModes, func() []any {
		return []any{hyena.ModesWeights{Poles: matrix(channels, 4), Residues: matrix(channels, 4)}}
	}).free = []string{"w.Poles.Rows"}
	b.on(func() any { return hyenaModes() }, "Kernel", func() []any { return []any{matrix(5, channels), 2} }).free = []string{"dst.Rows"}
	b.add("hyena.NewS4DModes", hyena.NewS4DModes, func() []any {
		return []any{hyena.S4DWeights{LogDt: vector(channels), LogAReal: matrix(channels, 2), AImag: matrix(channels, 2), C: matrix(channels, 4)}}
	})
	mc := func(skip []float32) hyena.ModalConfig {
		return hyena.ModalConfig{Modes: hyenaModes(), Skip: skip, SpectraBytes: 1 << 16}
	}
	b.add("hyena.NewModal", hyena.NewModal, func() []any { return []any{mc(vector(channels))} })
	modal := must(hyena.NewModal(mc(vector(channels))))
	modalCall := func() *hyena.ModalCall {
		return &hyena.ModalCall{Dst: matrix(tokens, channels), X: matrix(tokens, channels)}
	}
	change := func(c *hyena.ModalCall, o []int, s *hyena.State, l []*hyena.State) {
		c.Offsets, c.State, c.States = o, s, l
	}
	other := must(hyena.NewModal(mc(nil)))
	streams(b, operator{op: modal, other: other}, modalCall, change)
	alien := func() any { return newState(b.t, other, 0) }
	seen := func() any { return newState(b.t, modal, 0) }
	b.on(seen, "Room", func() []any { return []any{2} })
	mark := new(hyena.Mark)
	seen().(*hyena.State).Save(mark)
	b.on(seen, "Restore", func() []any { return []any{mark} })
	b.on(seen, "CopyFrom", func() []any { return []any{seen()} }).foreign = alien
	b.on(func() any { return modal }, "Read", func() []any { return []any{matrix(channels, 4), newState(b.t, modal, 0)} }).foreign = alien

	gw := func(bias []float32) hyena.GatedWeights {
		return hyena.GatedWeights{Short: matrix(3*channels, 3), ShortBias: bias, Modes: hyenaModes(), Skip: vector(channels)}
	}
	gc := hyena.GatedConfig{Dim: channels, Heads: 2}
	b.add("hyena.NewGated", hyena.NewGated, func() []any { return []any{gc, gw(vector(3 * channels))} }).free = []string{"w.Short.Cols"}
	gated := must(hyena.NewGated(gc, gw(vector(3*channels))))
	streams(b, operator{op: gated, other: must(hyena.NewGated(gc, gw(nil)))},
		func() *hyena.GatedCall {
			return &hyena.GatedCall{Dst: matrix(tokens, channels), X: matrix(tokens, 3*channels)}
		},
		func(c *hyena.GatedCall, o []int, s *hyena.State, l []*hyena.State) {
			c.Offsets, c.State, c.States = o, s, l
		})
	b.on(func() any { return gated }, "Read", func() []any { return []any{matrix(channels, 4), newState(b.t, gated, 0)} }).foreign = alien

	sw := func(bias []float32) hyena.S4DLayerWeights {
		return hyena.S4DLayerWeights{Modes: hyenaModes(), Skip: vector(channels), Out: matrix(2*channels, channels), OutBias: bias}
	}
	sc := hyena.S4DConfig{SpectraBytes: 1 << 16}
	b.add("hyena.NewS4D", hyena.NewS4D, func() []any { return []any{sc, sw(vector(2 * channels))} })
	streams(b, operator{op: must(hyena.NewS4D(sc, sw(nil))), other: must(hyena.NewS4D(sc, sw(vector(2*channels))))}, modalCall, change)

	const heads, dim = 3, 2
	hw := func(shift int) hyena.H3Weights {
		return hyena.H3Weights{Shift: matrix(shift, heads*dim), ShiftSkip: vector(heads * dim), Kernel: matrix(5, heads), Skip: vector(heads)}
	}
	hc := hyena.H3Config{Heads: heads, HeadDim: dim, SpectraBytes: 1 << 16}
	b.add("hyena.NewH3", hyena.NewH3, func() []any { return []any{hc, hw(4)} }).free = []string{"w.Shift.Rows", "w.Kernel.Rows"}
	streams(b, operator{op: must(hyena.NewH3(hc, hw(4))), other: must(hyena.NewH3(hc, hw(3)))},
		func() *hyena.H3Call {
			return &hyena.H3Call{Dst: matrix(tokens, heads*dim), Q: matrix(tokens, heads*dim), K: matrix(tokens, heads*dim), V: matrix(tokens, heads*dim)}
		},
		func(c *hyena.H3Call, o []int, s *hyena.State, l []*hyena.State) {
			c.Offsets, c.State, c.States = o, s, l
		})
}

// signalRooms are convolutions of signals, and distillation.
func signalRooms(b *builder) {
	pc := func(channels int) hyena.PartitionConfig {
		return hyena.PartitionConfig{Kernel: matrix(40, channels), Block: 16, Largest: 32, MaxTaps: 50, Fade: 5}
	}
	b.add("hyena.NewPartition", hyena.NewPartition, func() []any { return []any{pc(channels)} }).free = []string{"cfg.Kernel.Rows", "cfg.Kernel.Cols"}
	p := must(hyena.NewPartition(pc(channels)))
	self := func() any { return p }
	b.on(self, "NewState", func() []any { return nil })
	b.on(self, "Forward", func() []any { return []any{matrix(tokens, channels), matrix(tokens, channels)} })
	b.on(self, "Step", func() []any { return []any{matrix(tokens, channels), matrix(tokens, channels), must(p.NewState())} })
	b.on(self, "ReadState", func() []any { return []any{fileOfSignal(must(p.NewState()))} })
	b.on(func() any { return must(p.NewState()) }, "WriteTo", func() []any { return []any{io.Discard} })
	b.on(func() any { return must(p.NewState()) }, "Replace", func() []any { return []any{p} })

	b.add("hyena.Distill", hyena.Distill, func() []any {
		return []any{nowhere, matrix(30, channels), hyena.DistillConfig{Order: 2, Rows: 8}}
	}).free = []string{"kernel.Rows", "kernel.Cols"}

	dc := func(taps int) hyena.DecimateConfig {
		return hyena.DecimateConfig{Kernel: matrix(taps, channels), Factor: tokens}
	}
	b.add("hyena.NewDecimate", hyena.NewDecimate, func() []any { return []any{dc(4)} }).free = []string{"cfg.Kernel.Rows", "cfg.Kernel.Cols"}
	d := must(hyena.NewDecimate(dc(4)))
	call := func() *hyena.DecimateCall {
		return &hyena.DecimateCall{Dst: matrix(1, channels), X: matrix(tokens, channels)}
	}
	b.operator(operator{op: d, other: must(hyena.NewDecimate(dc(3))), never: true,
		whole: func() any { return call() },
		step: func() any {
			c := call()
			c.State = newState(b.t, d, 0).(*hyena.State)
			return c
		}})
	b.on(func() any { return d }, "ScratchBytes", func() []any { return []any{tokens} })
}

func fileOfSignal(st *hyena.PartitionState) io.Reader {
	var file bytes.Buffer
	must(st.WriteTo(&file))
	return bytes.NewReader(file.Bytes())
}

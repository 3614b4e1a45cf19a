package subquad_test

import (
	"bytes"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/ssm"
	"github.com/subquad/subquad/ssm/longmamba"
)

func init() { rooms = append(rooms, scanRoom, blockRoom, longmambaRoom) }

// Sizes of all scans here.
const (
	channels, states = 6, 4
	ssdHeads, ssdDim = 3, 2
)

// negative is a vector of numbers below 0: decays.
func negative(n int) []float32 {
	x := vector(n)
	for i := range x {
		x[i] = -1 - x[i]*x[i]
	}
	return x
}

func negatives(rows, cols int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: negative(rows * cols)}
}

// recurrent puts an operator of ssm or ssm/delta, with states of type S, into the table,
// whose calls call makes; change makes of one a packed one, a step or a batch.
func recurrent[C, S any](b *builder, o operator, call func() *C, change func(c *C, offsets []int, state *S, states []*S)) {
	with := func(offsets []int, one bool, many int) func() any {
		return func() any {
			c := call()
			var state *S
			var list []*S
			if one {
				state = newState(b.t, o.op, 0).(*S)
			}
			for range many {
				list = append(list, newState(b.t, o.op, 0).(*S))
			}
			change(c, slices.Clone(offsets), state, list)
			return c
		}
	}
	o.whole, o.packed, o.step, o.batch = with(nil, false, 0), with([]int{0, 3, 3, tokens}, false, 0), with(nil, true, 0), with(nil, false, tokens)
	b.operator(o)
	b.operatorStates(o, with)
}

func (b *builder) operatorStates(o operator, with func(offsets []int, one bool, many int) func() any) {
	r := b.on(func() any { return o.op }, "Run", func() []any { return []any{nowhere, with([]int{0, 3, tokens}, false, 2)()} })
	r.call, r.foreign = "packed states", func() any { return newState(b.t, o.other, 0) }
}

func scanRoom(b *builder) {
	cc := ssm.ConvConfig{SiLU: true}
	cw := func() ssm.ConvWeights {
		return ssm.ConvWeights{Weight: matrix(channels, 4), Bias: vector(channels)}
	}
	b.add("ssm.NewConv", ssm.NewConv, func() []any { return []any{cc, cw()} }).free = []string{"w.Weight.Cols"}
	recurrent(b, operator{op: must(ssm.NewConv(cc, cw())), other: must(ssm.NewConv(ssm.ConvConfig{}, cw()))},
		func() *ssm.ConvCall { return &ssm.ConvCall{Dst: matrix(tokens, channels), X: matrix(tokens, channels)} },
		func(c *ssm.ConvCall, o []int, s *ssm.State, l []*ssm.State) { c.Offsets, c.State, c.States = o, s, l })

	sc := ssm.ScanConfig{Channels: channels, States: states, Softplus: true, DtMin: 0.01, DtMax: 2}
	sw := func() ssm.ScanWeights {
		return ssm.ScanWeights{A: negatives(channels, states), D: vector(channels), DtBias: vector(channels)}
	}
	b.add("ssm.NewScan", ssm.NewScan, func() []any { return []any{sc, sw()} })
	scan := must(ssm.NewScan(sc, sw()))
	sc.DtMin = 0
	recurrent(b, operator{op: scan, other: must(ssm.NewScan(sc, sw()))},
		func() *ssm.ScanCall {
			return &ssm.ScanCall{Dst: matrix(tokens, channels), X: matrix(tokens, channels), Dt: matrix(tokens, channels), B: matrix(tokens, states), C: matrix(tokens, states)}
		},
		func(c *ssm.ScanCall, o []int, s *ssm.State, l []*ssm.State) {
			c.Offsets, c.State, c.States = o, s, l
			if s != nil || o != nil {
				c.Z = matrix(tokens, channels)
				c.Filter = func(int, int, []float32) {}
			}
		})
	b.hidden(scan, func() any { return matrix(channels, states) })

	dc := ssm.SSDConfig{Heads: ssdHeads, HeadDim: ssdDim, States: states, Softplus: true, DtMin: 0.01, DtMax: 2}
	dw := func() ssm.SSDWeights {
		return ssm.SSDWeights{A: negative(ssdHeads), D: vector(ssdHeads), DtBias: vector(ssdHeads)}
	}
	b.add("ssm.NewSSD", ssm.NewSSD, func() []any { return []any{dc, dw()} })
	ssd := must(ssm.NewSSD(dc, dw()))
	dc.DtMin = 0
	const inner = ssdHeads * ssdDim
	recurrent(b, operator{op: ssd, other: must(ssm.NewSSD(dc, dw()))},
		func() *ssm.SSDCall {
			return &ssm.SSDCall{Dst: matrix(tokens, inner), X: matrix(tokens, inner), Dt: matrix(tokens, ssdHeads), B: matrix(tokens, states), C: matrix(tokens, states)}
		},
		func(c *ssm.SSDCall, o []int, s *ssm.State, l []*ssm.State) {
			c.Offsets, c.State, c.States = o, s, l
			if s != nil || o != nil {
				c.Z = matrix(tokens, inner)
				c.Filter = func(int, int, []float32) {}
			}
		})
	b.hidden(ssd, func() any { return matrix(inner, states) })

	ic := ssm.SISOConfig{Heads: ssdHeads, HeadDim: ssdDim, States: states, Angles: 1}
	iw := func() ssm.SISOWeights {
		return ssm.SISOWeights{BBias: vector(ssdHeads * states), CBias: vector(ssdHeads * states), D: vector(ssdHeads)}
	}
	b.add("ssm.NewSISO", ssm.NewSISO, func() []any { return []any{ic, iw()} })
	siso := must(ssm.NewSISO(ic, iw()))
	ow := iw()
	ow.D[0]++
	recurrent(b, operator{op: siso, other: must(ssm.NewSISO(ic, ow))},
		func() *ssm.SISOCall {
			return &ssm.SISOCall{Dst: matrix(tokens, inner), X: matrix(tokens, inner), B: matrix(tokens, states), C: matrix(tokens, states),
				Dt: matrix(tokens, ssdHeads), Decay: matrix(tokens, ssdHeads), Trap: matrix(tokens, ssdHeads), Angles: matrix(tokens, ssdHeads)}
		},
		func(c *ssm.SISOCall, o []int, s *ssm.State, l []*ssm.State) {
			c.Offsets, c.State, c.States = o, s, l
			if s != nil {
				c.Z = matrix(tokens, inner)
			}
		})
	b.hidden(siso, func() any {
		return ssm.SISOState{H: matrix(inner, states), B: matrix(ssdHeads, states), X: matrix(ssdHeads, ssdDim), Angles: matrix(ssdHeads, 1)}
	})

	nc := ssm.GatedNormConfig{GroupSize: 3, Eps: 1e-5}
	nw := func() ssm.GatedNormWeights { return ssm.GatedNormWeights{Weight: vector(channels)} }
	b.add("ssm.NewGatedNorm", ssm.NewGatedNorm, func() []any { return []any{nc, nw()} })
	b.operator(operator{op: must(ssm.NewGatedNorm(nc, nw())), whole: func() any {
		return &ssm.GatedNormCall{Dst: matrix(tokens, channels), X: matrix(tokens, channels), Z: matrix(tokens, channels)}
	}})
}

// hidden puts the methods that read and write the numbers of a state into the table.
func (b *builder) hidden(op any, h func() any) {
	state := func() any { return newState(b.t, op, 0) }
	b.on(func() any { return op }, "Read", func() []any { return []any{h(), state()} }).foreign = b.alien
	b.on(func() any { return op }, "Write", func() []any { return []any{state(), h()} }).foreign = b.alien
}

// alien makes a state of an operator that is in no other row.
func (b *builder) alien() any {
	op := must(ssm.NewConv(ssm.ConvConfig{}, ssm.ConvWeights{Weight: matrix(2, 2)}))
	return newState(b.t, op, 0)
}

func mambaWeights() ssm.MambaWeights {
	const dim, rank = 5, 2
	return ssm.MambaWeights{
		In: matrix(2*channels, dim), InBias: vector(2 * channels), Conv: matrix(channels, 4), ConvBias: vector(channels),
		X: matrix(rank+2*states, channels), Dt: matrix(channels, rank), DtBias: vector(channels), ALog: matrix(channels, states), D: vector(channels),
		Out: matrix(dim, channels), OutBias: vector(dim), DtNorm: vector(rank), BNorm: vector(states), CNorm: vector(states),
	}
}

func mamba2Weights() ssm.Mamba2Weights {
	const dim, inner = 5, ssdHeads * ssdDim
	return ssm.Mamba2Weights{
		In: matrix(2*inner+2*states+ssdHeads, dim), InBias: vector(2*inner + 2*states + ssdHeads), Conv: matrix(inner+2*states, 4), ConvBias: vector(inner + 2*states),
		DtBias: vector(ssdHeads), ALog: vector(ssdHeads), D: vector(ssdHeads), Norm: vector(inner), Out: matrix(dim, inner), OutBias: vector(dim),
	}
}

func blockRoom(b *builder) {
	const dim = 5
	block := func(op, other any) {
		recurrent(b, operator{op: op, other: other},
			func() *ssm.BlockCall { return &ssm.BlockCall{Dst: matrix(tokens, dim), X: matrix(tokens, dim)} },
			func(c *ssm.BlockCall, o []int, s *ssm.State, l []*ssm.State) {
				c.Offsets, c.State, c.States = o, s, l
				if s != nil {
					c.Filter = func(int, int, []float32) {}
				}
			})
	}
	mc := ssm.MambaConfig{Eps: 1e-5, NormDtBC: true}
	b.add("ssm.NewMamba", ssm.NewMamba, func() []any { return []any{mc, mambaWeights()} }).free = []string{"w.In.Cols", "w.Conv.Cols", "w.Dt.Cols", "w.ALog.Cols"}
	mamba := must(ssm.NewMamba(mc, mambaWeights()))
	w := mambaWeights()
	w.D[0]++
	block(mamba, must(ssm.NewMamba(mc, w)))
	b.on(func() any { return mamba }, "ReadWindow", func() []any { return []any{matrix(3, channels), newState(b.t, mamba, 0)} }).foreign = b.alien
	b.on(func() any { return mamba }, "ReadScan", func() []any { return []any{matrix(channels, states), newState(b.t, mamba, 0)} }).foreign = b.alien

	c2 := ssm.Mamba2Config{States: states, HeadDim: ssdDim, Eps: 1e-5}
	b.add("ssm.NewMamba2", ssm.NewMamba2, func() []any { return []any{c2, mamba2Weights()} }).free = []string{"w.Conv.Cols"}
	mamba2 := must(ssm.NewMamba2(c2, mamba2Weights()))
	w2 := mamba2Weights()
	w2.D[0]++
	block(mamba2, must(ssm.NewMamba2(c2, w2)))
	const inner = ssdHeads * ssdDim
	b.on(func() any { return mamba2 }, "ReadWindow", func() []any { return []any{matrix(3, inner+2*states), newState(b.t, mamba2, 0)} }).foreign = b.alien
	b.on(func() any { return mamba2 }, "ReadSSD", func() []any { return []any{matrix(inner, states), newState(b.t, mamba2, 0)} }).foreign = b.alien
	seen := func() any {
		st := newState(b.t, mamba, 0).(*ssm.State)
		must(0, mamba.Step(matrix(tokens, dim), matrix(tokens, dim), st))
		return st
	}
	b.on(seen, "Skip", func() []any { return []any{2} })
	b.on(seen, "CopyFrom", func() []any { return []any{seen()} }).foreign = b.alien
	b.on(func() any { return newState(b.t, mamba, 0) }, "SetFilter", func() []any { return []any{nil, 3} })
}

// calibration is one of a block.
func calibration(op longmamba.Operator) *longmamba.Calibration {
	c := must(longmamba.NewCalibrator(op, longmamba.CalibrationConfig{TrainLength: 16, Lengths: []int{16, 32}}))
	dt := positive(channels)
	for i := range 16 {
		c.Record(i, 0, dt)
	}
	must(0, c.Next())
	return must(c.Calibration())
}

func positive(n int) []float32 {
	x := vector(n)
	for i := range x {
		x[i] = 0.01 + x[i]*x[i]
	}
	return x
}

func longmambaRoom(b *builder) {
	block := must(ssm.NewMamba(ssm.MambaConfig{NormDtBC: true}, mambaWeights()))
	b.add("longmamba.NewCalibrator", longmamba.NewCalibrator, func() []any {
		return []any{block, longmamba.CalibrationConfig{TrainLength: 16, Lengths: []int{16, 32}, Clamp: 0.5}}
	})
	cal := func() any { return calibration(block) }
	b.on(func() any {
		c := must(longmamba.NewCalibrator(block, longmamba.CalibrationConfig{TrainLength: 16, Lengths: []int{16, 32}}))
		for i := range 16 {
			c.Record(i, 0, positive(channels))
		}
		return c
	}, "Next", func() []any { return nil })
	b.on(func() any {
		c := must(longmamba.NewCalibrator(block, longmamba.CalibrationConfig{TrainLength: 16, Lengths: []int{16, 32}}))
		for i := range 16 {
			c.Record(i, 0, positive(channels))
		}
		must(0, c.Next())
		return c
	}, "Calibration", func() []any { return nil })
	b.on(cal, "ReceptiveFields", func() []any { return []any{0, 0.01} })
	b.on(cal, "WriteTo", func() []any { return []any{new(bytes.Buffer)} })
	b.add("longmamba.ReadCalibration", longmamba.ReadCalibration, func() []any {
		var file bytes.Buffer
		_, err := calibration(block).WriteTo(&file)
		return []any{must(bytes.NewReader(file.Bytes()), err)}
	})
	b.on(cal, "NewFilter", func() []any { return []any{longmamba.FilterConfig{Threshold: 0.5}} })
	filter := func() any { return must(calibration(block).NewFilter(longmamba.FilterConfig{Threshold: 0.5})) }
	b.on(filter, "Global", func() []any { return []any{0} })
	b.on(filter, "Delta", func() []any { return []any{0, tokens} })
	b.on(filter, "Block", func() []any { return []any{0} })
	b.on(filter, "Bind", func() []any { return []any{block.Identity(), tokens} })
	b.on(filter, "Apply", func() []any { return []any{0, matrix(tokens, channels)} })
	prompt := b.on(filter, "RunPrompt", func() []any {
		return []any{nowhere, block, &ssm.BlockCall{Dst: matrix(tokens, 5), X: matrix(tokens, 5), State: newState(b.t, block, 0).(*ssm.State)}}
	})
	prompt.foreign, prompt.unseen = b.alien, true
	b.add("longmamba.Report", longmamba.Report, func() []any { return []any{block, matrix(tokens, channels), matrix(tokens, channels)} })
	dc := longmamba.DecimationConfig{Layers: []int{1, 2}, Base: 4, Beta: 0.5, MinTokens: 2}
	b.add("longmamba.NewDecimation", longmamba.NewDecimation, func() []any { return []any{dc} })
	d := must(longmamba.NewDecimation(dc))
	b.on(func() any { return d }, "Keep", func() []any { return []any{1, matrix(tokens, channels)} }).free = []string{"dt.Cols"}
}

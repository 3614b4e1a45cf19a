package ssm

import (
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

// parameter returns a weight of a file, or the zero matrix. One-dimensional ones
// are a row.
func parameter(f *golden.File, name string) blas32.General {
	if name = "param." + name; !f.Has(name) {
		return blas32.General{}
	}
	shape := f.Shape(name)
	rows := shape[0]
	if len(shape) == 1 {
		rows = 1
	}
	data := f.Float32(name)
	return mat.Of(data, rows, len(data)/rows)
}

// windowed is a block whose state a test looks into.
type windowed interface {
	Block
	ReadWindow(conv blas32.General, st *State) error
}

// goldenBlock runs a prefill and then single tokens, and compares outputs and states.
func goldenBlock(t *testing.T, f *golden.File, op windowed, taps, channels int, scan func(st *State) []float32) {
	f.Ignore(func(name string) bool { return strings.Contains(name, "_official") })
	window := func(st *State) blas32.General {
		m := zeros(taps-1, channels)
		must(t, op.ReadWindow(m, st))
		return m
	}
	// conv_state has a column more than is read: the oldest one before the last token.
	official := func(before blas32.General, st *State) []float32 {
		m := zeros(taps, channels)
		copy(m.Data, before.Data)
		copy(m.Data[channels:], window(st).Data)
		return golden.Transposed(m).Data
	}
	shape := f.Shape("x")
	batch, n, dim := shape[0], shape[1], shape[2]
	x := f.Elements("x")
	var y, conv, ssm []float32
	var states []*State
	for b := range batch {
		st := value[*State](t)(op.NewState(StateConfig{}))
		in, out := x.Matrix(b, n, dim), zeros(n, dim)
		split := max(n-1, 0)
		must(t, op.Step(mat.Rows(out, 0, split), mat.Rows(in, 0, split), st))
		before := window(st)
		must(t, op.Step(mat.Rows(out, split, n), mat.Rows(in, split, n), st))
		conv, ssm, states = append(conv, official(before, st)...), append(ssm, scan(st)...), append(states, st)
		whole := zeros(n, dim)
		must(t, op.Forward(whole, in))
		y = append(y, whole.Data...)
		if f.Has("y") {
			near(t, "prefill and one token", out.Data, whole.Data, 1e-5)
		}
	}
	f.Compare("y", y)
	f.Compare("conv_state", conv)
	f.Compare("ssm_state", ssm)
	if !f.Has("x_decode") {
		return
	}
	steps := f.Shape("x_decode")[1]
	next := f.Float32("x_decode")
	decoded := make([]float32, len(next))
	before := make([]blas32.General, batch)
	for i := range steps {
		in, out := zeros(batch, dim), zeros(batch, dim)
		for b := range batch {
			before[b] = window(states[b])
			copy(in.Data[b*dim:][:dim], next[(b*steps+i)*dim:])
		}
		must(t, op.StepBatch(out, in, states))
		for b := range batch {
			copy(decoded[(b*steps+i)*dim:], out.Data[b*dim:][:dim])
		}
	}
	if conv, ssm = nil, nil; steps > 0 {
		for b, st := range states {
			conv, ssm = append(conv, official(before[b], st)...), append(ssm, scan(st)...)
		}
		f.Compare("conv_state_end", conv)
		f.Compare("ssm_state_end", ssm)
	}
	f.Compare("y_decode", decoded)
}

func goldenMamba(t *testing.T, f *golden.File) {
	var cfg golden.MambaConfig
	f.Python("config", &cfg)
	w := MambaWeights{
		In: parameter(f, "in_proj.weight"), InBias: parameter(f, "in_proj.bias").Data,
		Conv: parameter(f, "conv1d.weight"), ConvBias: parameter(f, "conv1d.bias").Data,
		X: parameter(f, "x_proj.weight"), Dt: parameter(f, "dt_proj.weight"), DtBias: parameter(f, "dt_proj.bias").Data,
		ALog: parameter(f, "A_log"), D: parameter(f, "D").Data,
		Out: parameter(f, "out_proj.weight"), OutBias: parameter(f, "out_proj.bias").Data,
	}
	op := value[*Mamba](t)(NewMamba(MambaConfig{}, w))
	goldenBlock(t, f, op, w.Conv.Cols, w.Conv.Rows, func(st *State) []float32 {
		h := zeros(w.ALog.Rows, w.ALog.Cols)
		must(t, op.ReadScan(h, st))
		return h.Data
	})
}

// goldenMamba2Block returns the block of a file.
func goldenMamba2Block(t *testing.T, f *golden.File) *Mamba2 {
	var cfg golden.MambaConfig
	f.Python("config", &cfg)
	c := Mamba2Config{States: cfg.DState, HeadDim: cfg.HeadDim, Groups: cfg.Groups, NormBeforeGate: cfg.NormBeforeGate}
	c.NoNorm = cfg.RMSNorm != nil && !*cfg.RMSNorm
	if l := cfg.DtLimit; l != nil {
		c.DtMin, c.DtMax = float32((*l)[0]), limit((*l)[1])
	}
	w := Mamba2Weights{
		In: parameter(f, "in_proj.weight"), InBias: parameter(f, "in_proj.bias").Data,
		Conv: parameter(f, "conv1d.weight"), ConvBias: parameter(f, "conv1d.bias").Data,
		DtBias: parameter(f, "dt_bias").Data, ALog: parameter(f, "A_log").Data, D: parameter(f, "D").Data, Norm: parameter(f, "norm.weight").Data,
		Out: parameter(f, "out_proj.weight"), OutBias: parameter(f, "out_proj.bias").Data,
	}
	return value[*Mamba2](t)(NewMamba2(c, w))
}

func goldenMamba2(t *testing.T, f *golden.File) {
	op := goldenMamba2Block(t, f)
	goldenBlock(t, f, op, op.conv.taps.Rows, op.conv.taps.Cols, func(st *State) []float32 {
		h := zeros(op.heads*op.cfg.HeadDim, op.cfg.States)
		must(t, op.ReadSSD(h, st))
		return h.Data
	})
}

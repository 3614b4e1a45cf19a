package hyena

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// FilterConfig fixes an implicit filter.
type FilterConfig struct {
	// Channels of the kernel: the operator's Dim times its order less one.
	Channels int
	// MaxLen is l_max, the number of rows of the position grid. Positions are
	// fractions of it, so it is part of what the weights mean.
	MaxLen int
	// EmbDim is the width of the positional embedding, odd and at least 3; 0 is 5.
	EmbDim int
	// NoModulation leaves out the exponential window.
	NoModulation bool
	// Shift is what the window decays to; nil is 0.05, the default of the standalone
	// file of HyenaDNA and of the Hugging Face port, which published checkpoints are for
	// (their config.json does not tell it). The default of the training code, in the
	// repositories hyena-dna (src) and safari, is 0.
	Shift *float64
	// FastDecay, SlowDecay and Target are fast_decay_pct, slow_decay_pct and target of
	// the published code: without stored Deltas, the window of the last channel reaches
	// Target at FastDecay times MaxLen, and that of the first at SlowDecay times MaxLen.
	// 0 stands for 0.3, 1.5 and 0.01.
	FastDecay, SlowDecay, Target float64
	// Normalized divides each row of the kernel, after the window, by the sum of the
	// absolute values of its channels ("normalized" in hyena-dna's src).
	Normalized bool
}

// FilterWeights are the weights of an implicit filter.
type FilterWeights struct {
	// Layers are the hidden layers of the MLP, each followed by a sine. None is the
	// "linear_mixer" of the published code.
	Layers []FilterLayer
	// Out is [Channels, width of the last layer], without a bias.
	Out blas32.General
	// Z [MaxLen, EmbDim], T [MaxLen] and Deltas [Channels] are the stored
	// positional embedding, positions and decays; nil computes what training
	// started from.
	Z, T, Deltas []float32
	// Like is a filter that may have the same Z and T, as those of a model's layers do: they
	// then take memory once, and Bytes counts them there. nil is none.
	Like *Filter
}

// FilterLayer is x -> sin(Freq * (Weight x + Bias)).
type FilterLayer struct {
	Weight     blas32.General // [out, in]; in is EmbDim for the first layer
	Bias, Freq []float32      // [out]
}

// Filter is an implicit filter: a kernel that an MLP with sine activations makes
// from the position, times an exponential window (Poli et al. 2023, section 3.3):
//
//	k[t][c] = MLP(z[t])[c] (exp(-t/(MaxLen-1) |delta[c]|) + shift),
//
// where z[t] is t/(MaxLen-1) and the cosine and minus sine of 2 pi f t / MaxLen
// for (EmbDim-1)/2 frequencies f between 1e-4 and (EmbDim-3)/2, and delta goes in
// equal steps from ln(Target)/SlowDecay to ln(Target)/FastDecay over the channels.
//
// It is computed in float64, because the sines magnify errors of their argument.
// A Filter is immutable and safe for concurrent use.
type Filter struct {
	cfg    FilterConfig   // complete
	shift  float64        // what the window decays to
	z, t   []float32      // [MaxLen, EmbDim] and [MaxLen] as stored; nil is computed
	others int64          // bytes of z and t that another filter counts
	deltas []float64      // [Channels]
	layers []layer64      // hidden ones
	output blas64.General // [Channels, width of the last layer]
}

// layer64 is a FilterLayer in float64.
type layer64 struct {
	weight     blas64.General // [out, in]
	bias, freq []float64      // [out]
}

// NewFilter returns a filter, or an error that matches ErrConfig. It keeps none of the
// weights' memory.
func NewFilter(cfg FilterConfig, w FilterWeights) (*Filter, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	// What there must be memory of comes first: it bounds all else.
	if err := cfg.checkLayers(w); err != nil {
		return nil, err
	}
	f := &Filter{cfg: cfg, shift: *cfg.Shift}
	if err := f.setGrid(w); err != nil {
		return nil, err
	}
	for _, l := range w.Layers {
		f.layers = append(f.layers, layer64{widenMatrix(l.Weight), widen(l.Bias), widen(l.Freq)})
	}
	f.output = widenMatrix(w.Out)
	return f, nil
}

// complete sets the fields that have a default, and checks all.
func (cfg *FilterConfig) complete() error {
	if cfg.EmbDim == 0 {
		cfg.EmbDim = 5
	}
	shift := 0.05
	if cfg.Shift != nil {
		shift = *cfg.Shift
	}
	cfg.Shift = &shift
	for _, f := range []struct {
		name  string
		value *float64
		usual float64
		most  float64
	}{
		{"FastDecay", &cfg.FastDecay, 0.3, math.MaxFloat64},
		{"SlowDecay", &cfg.SlowDecay, 1.5, math.MaxFloat64},
		{"Target", &cfg.Target, 1e-2, 1},
	} {
		if *f.value == 0 {
			*f.value = f.usual
		}
		if !(*f.value > 0 && *f.value <= f.most) {
			return check.Errorf(ErrConfig, "hyena: %s is %v, want a number from 0 to %v", f.name, *f.value, f.most)
		}
	}
	switch {
	case cfg.Channels <= 0:
		return check.Errorf(ErrConfig, "hyena: Channels is %d, want more than 0", cfg.Channels)
	case cfg.MaxLen <= 0:
		return check.Errorf(ErrConfig, "hyena: MaxLen is %d, want more than 0", cfg.MaxLen)
	case cfg.EmbDim < 3 || cfg.EmbDim%2 == 0:
		return check.Errorf(ErrConfig, "hyena: EmbDim is %d, want an odd number from 3", cfg.EmbDim)
	case check.Product(mostTokens, cfg.MaxLen, cfg.EmbDim) < 0:
		return check.Errorf(ErrConfig, "hyena: MaxLen is %d, too much for EmbDim = %d", cfg.MaxLen, cfg.EmbDim)
	case check.Product(mostTokens, cfg.MaxLen, cfg.Channels) < 0:
		return check.Errorf(ErrConfig, "hyena: MaxLen is %d, too much for Channels = %d", cfg.MaxLen, cfg.Channels)
	case math.IsNaN(shift) || math.IsInf(shift, 0):
		return check.Errorf(ErrConfig, "hyena: Shift is %v, want a finite number", shift)
	}
	return nil
}

// checkLayers checks the weights of the MLP.
func (cfg *FilterConfig) checkLayers(w FilterWeights) error {
	in := cfg.EmbDim
	for _, l := range w.Layers {
		if err := check.Matrix(ErrConfig, pkg, "filter layer's weight", l.Weight, -1, in, "the layer's input"); err != nil {
			return err
		}
		if in = l.Weight.Rows; in == 0 {
			return check.Errorf(ErrConfig, "hyena: filter layer's weight has 0 rows, want more")
		}
		if err := check.Vector(ErrConfig, pkg, "filter layer's bias", l.Bias, in, "the layer's output"); err != nil {
			return err
		}
		if err := check.Vector(ErrConfig, pkg, "filter layer's frequency", l.Freq, in, "the layer's output"); err != nil {
			return err
		}
	}
	return check.Matrix(ErrConfig, pkg, "filter's output weight", w.Out, cfg.Channels, in, "the last layer's output")
}

func widen(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

func widenMatrix(m blas32.General) blas64.General {
	out := blas64.General{Rows: m.Rows, Cols: m.Cols, Stride: m.Cols, Data: make([]float64, 0, m.Rows*m.Cols)}
	for i := range m.Rows {
		out.Data = append(out.Data, widen(mat.Row(m, i))...)
	}
	return out
}

// setGrid takes the stored positions and decays, or computes the latter.
func (f *Filter) setGrid(w FilterWeights) error {
	n, emb, channels := f.cfg.MaxLen, f.cfg.EmbDim, f.cfg.Channels
	like := w.Like
	if like == nil {
		like = &Filter{}
	}
	for _, g := range []struct {
		name         string
		stored, like []float32
		n            int
		what         string
		to           *[]float32
	}{
		{"filter's T", w.T, like.t, n, "MaxLen", &f.t},
		{"filter's Z", w.Z, like.z, n * emb, "MaxLen*EmbDim", &f.z},
	} {
		if g.stored == nil {
			continue
		}
		if err := check.Vector(ErrConfig, pkg, g.name, g.stored, g.n, g.what); err != nil {
			return err
		}
		if slices.Equal(g.stored, g.like) {
			*g.to, f.others = g.like, f.others+floatBytes(g.n)
		} else {
			*g.to = slices.Clone(g.stored)
		}
	}
	if w.Deltas != nil {
		f.deltas = widen(w.Deltas)
		return check.Vector(ErrConfig, pkg, "filter's Deltas", w.Deltas, channels, "Channels")
	}
	f.deltas = make([]float64, channels)
	log := math.Log(f.cfg.Target)
	for c := range f.deltas {
		f.deltas[c] = linspace(log/f.cfg.SlowDecay, log/f.cfg.FastDecay, channels, c)
	}
	return nil
}

// MaxLen returns the length of the longest kernel.
func (f *Filter) MaxLen() int { return f.cfg.MaxLen }

// Channels returns the number of channels of the kernel.
func (f *Filter) Channels() int { return f.cfg.Channels }

// Bytes returns the memory of the weights, in float64, and of stored Z and T, unless they are
// another filter's (FilterWeights.Like).
func (f *Filter) Bytes() int64 {
	n := len(f.deltas) + len(f.output.Data)
	for _, l := range f.layers {
		n += len(l.weight.Data) + len(l.bias) + len(l.freq)
	}
	return 8*int64(n) + floatBytes(len(f.z)+len(f.t)) - f.others
}

// permuted returns the filter with its channels in another order: channel c of
// the result is channel order[c] of f.
func (f *Filter) permuted(order []int) *Filter {
	p := *f
	p.deltas = make([]float64, len(order))
	p.output.Data = make([]float64, p.output.Rows*p.output.Cols)
	p.output.Stride = p.output.Cols
	for c, from := range order {
		p.deltas[c] = f.deltas[from]
		copy(p.output.Data[c*p.output.Stride:][:p.output.Cols], f.output.Data[from*f.output.Stride:])
	}
	return &p
}

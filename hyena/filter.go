package hyena

import (
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"

	"github.com/subquad/subquad/internal/check"
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
	// Shift is what the window decays to; nil is 0.05, as in published HyenaDNA
	// checkpoints (where config.json does not tell it). Safari's is 0.
	Shift *float64
}

// FilterWeights are the weights of an implicit filter.
type FilterWeights struct {
	// Layers are the hidden layers of the MLP, each followed by a sine.
	Layers []FilterLayer
	// Output is [Channels, hidden], without a bias.
	Output blas32.General
	// Z [MaxLen, EmbDim], T [MaxLen] and Deltas [Channels] are the stored
	// positional embedding, positions and decays; nil computes what training
	// started from.
	Z, T, Deltas []float32
}

// FilterLayer is x -> sin(Freq * (Weight x + Bias)).
type FilterLayer struct {
	Weight     blas32.General // [out, in]
	Bias, Freq []float32      // [out]
}

// Filter is an implicit filter: a kernel that an MLP with sine activations makes
// from the position, times an exponential window (Poli et al. 2023, section 3.3):
//
//	k[t][c] = MLP(z[t])[c] (exp(-t/(MaxLen-1) |delta[c]|) + shift),
//
// where z[t] is t/(MaxLen-1) and the cosine and minus sine of 2 pi f t / MaxLen
// for (EmbDim-1)/2 frequencies f between 1e-4 and (EmbDim-3)/2.
//
// It is computed in float64, because the sines magnify errors of their argument.
// A Filter is immutable and safe for concurrent use.
type Filter struct {
	cfg    FilterConfig
	z, t   []float64 // as stored; nil is computed
	deltas []float64
	layers []layer64
	output blas64.General
	shift  float64
}

type layer64 struct {
	weight     blas64.General
	bias, freq []float64
}

// NewFilter returns a filter, or an error that matches ErrConfig.
func NewFilter(cfg FilterConfig, w FilterWeights) (*Filter, error) {
	if cfg.EmbDim == 0 {
		cfg.EmbDim = 5
	}
	switch {
	case cfg.Channels <= 0:
		return nil, check.Errorf(ErrConfig, "hyena: Channels is %d, want more than 0", cfg.Channels)
	case cfg.MaxLen <= 0:
		return nil, check.Errorf(ErrConfig, "hyena: MaxLen is %d, want more than 0", cfg.MaxLen)
	case cfg.EmbDim < 3 || cfg.EmbDim%2 == 0:
		return nil, check.Errorf(ErrConfig, "hyena: EmbDim is %d, want an odd number from 3", cfg.EmbDim)
	case cfg.MaxLen > math.MaxInt/8/cfg.EmbDim:
		return nil, check.Errorf(ErrConfig, "hyena: MaxLen is %d, too much for EmbDim = %d", cfg.MaxLen, cfg.EmbDim)
	}
	f := &Filter{cfg: cfg, shift: 0.05}
	if cfg.Shift != nil {
		f.shift = *cfg.Shift
		if math.IsNaN(f.shift) || math.IsInf(f.shift, 0) {
			return nil, check.Errorf(ErrConfig, "hyena: Shift is %v", f.shift)
		}
	}
	if err := f.setGrid(w); err != nil {
		return nil, err
	}
	in := cfg.EmbDim
	for _, l := range w.Layers {
		if err := check.Matrix(ErrConfig, "hyena", "filter layer's weight", l.Weight, -1, in, "the layer's input"); err != nil {
			return nil, err
		}
		if in = l.Weight.Rows; in == 0 {
			return nil, check.Errorf(ErrConfig, "hyena: filter layer's weight has 0 rows, want more")
		}
		if err := check.Vector(ErrConfig, "hyena", "filter layer's bias", l.Bias, in, "the layer's output"); err != nil {
			return nil, err
		}
		if err := check.Vector(ErrConfig, "hyena", "filter layer's frequency", l.Freq, in, "the layer's output"); err != nil {
			return nil, err
		}
		f.layers = append(f.layers, layer64{widenMatrix(l.Weight), widen(l.Bias), widen(l.Freq)})
	}
	if err := check.Matrix(ErrConfig, "hyena", "filter's output weight", w.Output, cfg.Channels, in, "the last layer's output"); err != nil {
		return nil, err
	}
	f.output = widenMatrix(w.Output)
	return f, nil
}

func widen(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

func widenMatrix(m blas32.General) blas64.General {
	out := blas64.General{Rows: m.Rows, Cols: m.Cols, Stride: m.Cols, Data: make([]float64, m.Rows*m.Cols)}
	for i := range m.Rows {
		copy(out.Data[i*m.Cols:], widen(m.Data[i*m.Stride:][:m.Cols]))
	}
	return out
}

// setGrid takes the stored positions and decays.
func (f *Filter) setGrid(w FilterWeights) error {
	n, emb, channels := f.cfg.MaxLen, f.cfg.EmbDim, f.cfg.Channels
	for _, g := range []struct {
		name   string
		stored []float32
		n      int
		what   string
		to     *[]float64
	}{
		{"filter's T", w.T, n, "MaxLen", &f.t},
		{"filter's Z", w.Z, n * emb, "MaxLen*EmbDim", &f.z},
		{"filter's Deltas", w.Deltas, channels, "Channels", &f.deltas},
	} {
		if g.stored == nil {
			continue
		}
		if err := check.Vector(ErrConfig, "hyena", g.name, g.stored, g.n, g.what); err != nil {
			return err
		}
		*g.to = widen(g.stored)
	}
	if f.deltas != nil {
		return nil
	}
	// The window reaches the target between 0.3 and 1.5 times MaxLen.
	const target, fast, slow = 1e-2, 0.3, 1.5
	for c := range channels {
		f.deltas = append(f.deltas, linspace(math.Log(target)/slow, math.Log(target)/fast, channels, c))
	}
	return nil
}

// position returns the position of row i of the kernel, from 0 to 1.
func (f *Filter) position(i int) float64 {
	if f.t != nil {
		return f.t[i]
	}
	return float64(i) / float64(max(f.cfg.MaxLen-1, 1))
}

// embedding sets z to the positional embedding of row i of the kernel.
func (f *Filter) embedding(z []float64, i int) {
	if f.z != nil {
		copy(z, f.z[i*len(z):])
		return
	}
	z[0] = float64(i) / float64(max(f.cfg.MaxLen-1, 1))
	bands := (len(z) - 1) / 2
	for b := range bands {
		frequency := linspace(1e-4, float64(bands-1), bands, b)
		sin, cos := math.Sincos(frequency * 2 * math.Pi * float64(i) / float64(f.cfg.MaxLen))
		z[1+b], z[1+bands+b] = cos, -sin
	}
}

// linspace returns step i of n from a to b.
func linspace(a, b float64, n, i int) float64 {
	if n == 1 {
		return a
	}
	return a + (b-a)*float64(i)/float64(n-1)
}

// MaxLen returns the length of the longest kernel.
func (f *Filter) MaxLen() int { return f.cfg.MaxLen }

// Channels returns the number of channels of the kernel.
func (f *Filter) Channels() int { return f.cfg.Channels }

// Kernel sets dst [rows, Channels] to rows from, from+1, ... of the kernel. Rows
// do not depend on how many are asked for.
//
// It costs 2 (EmbDim H + H^2 (layers-1) + H Channels) flop in float64 and H
// sines a layer, for each row, H being the width of the hidden layers.
func (f *Filter) Kernel(dst blas32.General, from int) error {
	if err := check.Matrix(ErrShape, "hyena", "dst", dst, -1, f.cfg.Channels, "Channels"); err != nil {
		return err
	}
	if from < 0 || from > f.cfg.MaxLen || dst.Rows > f.cfg.MaxLen-from {
		return check.Errorf(ErrTooLong, "hyena: rows %d to %d of a kernel of MaxLen = %d", from, from+dst.Rows, f.cfg.MaxLen)
	}
	// gonum multiplies small blocks on the calling goroutine.
	const rows, cols = 64, 128
	width := max(f.cfg.EmbDim, cols)
	for _, l := range f.layers {
		width = max(width, l.weight.Rows)
	}
	a, b := make([]float64, rows*width), make([]float64, rows*width)
	for t := 0; t < dst.Rows; t += rows {
		n, emb := min(rows, dst.Rows-t), f.cfg.EmbDim
		h := blas64.General{Rows: n, Cols: emb, Stride: emb, Data: b[:n*emb]}
		for i := range n {
			f.embedding(h.Data[i*emb:(i+1)*emb], from+t+i)
		}
		for i, l := range f.layers {
			out := [2][]float64{a, b}[i%2]
			next := blas64.General{Rows: n, Cols: l.weight.Rows, Stride: l.weight.Rows, Data: out[:n*l.weight.Rows]}
			blas64.Gemm(blas.NoTrans, blas.Trans, 1, h, l.weight, 0, next)
			for j := range next.Data {
				c := j % next.Cols
				next.Data[j] = math.Sin(l.freq[c] * (next.Data[j] + l.bias[c]))
			}
			h = next
		}
		spare := [2][]float64{a, b}[len(f.layers)%2]
		for c := 0; c < f.cfg.Channels; c += cols {
			m := min(cols, f.cfg.Channels-c)
			k := blas64.General{Rows: n, Cols: m, Stride: m, Data: spare[:n*m]}
			output := blas64.General{Rows: m, Cols: f.output.Cols, Stride: f.output.Stride, Data: f.output.Data[c*f.output.Stride:]}
			blas64.Gemm(blas.NoTrans, blas.Trans, 1, h, output, 0, k)
			for i := range n {
				f.window(dst.Data[(t+i)*dst.Stride+c:][:m], k.Data[i*m:], f.position(from+t+i), f.deltas[c:])
			}
		}
	}
	return nil
}

// window sets dst to a row of the kernel, the exponential window applied.
func (f *Filter) window(dst []float32, k []float64, t float64, deltas []float64) {
	for c := range dst {
		if f.cfg.NoModulation {
			dst[c] = float32(k[c])
		} else {
			dst[c] = float32(k[c] * (math.Exp(-t*math.Abs(deltas[c])) + f.shift))
		}
	}
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

package dna

import (
	"fmt"

	"github.com/subquad/subquad/hyena"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/lm"
)

func (c *checkpoint) norm(prefix string) dense.Norm {
	return c.Norm(prefix, c.cfg.Dim, dense.Norm{Eps: float32(c.cfg.Eps)}, true)
}

// layer returns a block: r += Hyena(norm1(r)); r += mlp(norm2(r)).
func (c *checkpoint) layer(prefix string) lm.Layer {
	norm1, norm2 := c.norm(prefix+"norm1."), c.norm(prefix+"norm2.")
	up, _ := c.Linear(prefix+"mlp.fc1.", c.cfg.Inner, c.cfg.Dim, true)
	down, _ := c.Linear(prefix+"mlp.fc2.", c.cfg.Dim, c.cfg.Inner, true)
	return lm.Layer{
		{Norm: norm1, Mixer: lm.Hyena{Operator: c.operator(prefix + "mixer.")}},
		{Norm: norm2, MLP: &dense.MLP{Up: up, Down: down}},
	}
}

// operator returns the Hyena operator of a block.
func (c *checkpoint) operator(prefix string) *hyena.Operator {
	cfg := &c.cfg
	wide := (cfg.Order + 1) * cfg.Dim
	w := hyena.OperatorWeights{
		In: c.Matrix(prefix+"in_proj.weight", wide, cfg.Dim), InBias: c.Vector(prefix+"in_proj.bias", wide),
		Short: c.Matrix(prefix+"short_filter.weight", wide, -1), ShortBias: c.Vector(prefix+"short_filter.bias", wide),
		Filter: c.filter(prefix + "filter_fn."), Skip: c.Vector(prefix+"filter_fn.bias", (cfg.Order-1)*cfg.Dim),
		Out: c.Matrix(prefix+"out_proj.weight", cfg.Dim, cfg.Dim), OutBias: c.Vector(prefix+"out_proj.bias", cfg.Dim),
	}
	if c.Err != nil {
		return nil
	}
	op, err := hyena.NewOperator(hyena.OperatorConfig{
		Dim: cfg.Dim, Order: cfg.Order, ChannelMajor: cfg.ChannelMajor, Activation: cfg.Activation, Format: cfg.Format,
		Cache: c.cache, Workers: cfg.Workers, Scratch: c.scratch,
	}, w)
	if err != nil {
		c.Fail("%s%s: %v", c.Prefix, prefix, err)
	}
	return op
}

// classifier returns the head that scores classes, or nil where there is none.
func (c *checkpoint) classifier(pad int32) *lm.Classifier {
	const mean, last = "head.output_transform.", "score."
	prefix := mean
	if !c.Has(mean + "weight") {
		if prefix = last; !c.Has(last + "weight") {
			return nil
		}
	}
	weights, _ := c.Linear(prefix, -1, c.cfg.Dim, prefix == mean)
	return &lm.Classifier{Weights: weights, Last: prefix == last, Pad: pad}
}

// filter returns the implicit filter of a block.
func (c *checkpoint) filter(prefix string) *hyena.Filter {
	cfg := &c.cfg
	var w hyena.FilterWeights
	in, last := -1, 0
	for c.Has(fmt.Sprintf("%simplicit_filter.%d.bias", prefix, last)) {
		last += 2
	}
	for i := 0; i < last; i += 2 {
		name := fmt.Sprintf("%simplicit_filter.%d.", prefix, i)
		l := hyena.FilterLayer{Weight: c.Matrix(name+"weight", -1, in)}
		in = l.Weight.Rows
		l.Bias = c.Vector(name+"bias", in)
		l.Freq = c.freq(prefix, i+1, in, cfg.Freq)
		w.Layers = append(w.Layers, l)
	}
	channels := (cfg.Order - 1) * cfg.Dim
	w.Out = c.Matrix(fmt.Sprintf("%simplicit_filter.%d.weight", prefix, last), channels, in)
	fc := hyena.FilterConfig{
		Channels: channels, MaxLen: cfg.MaxLen, EmbDim: cfg.EmbDim,
		NoModulation: cfg.NoModulation, Shift: cfg.Shift, Normalized: cfg.Normalized,
		FastDecay: cfg.FastDecay, SlowDecay: cfg.SlowDecay, Target: cfg.Target,
	}
	if cfg.LinearFilter && last > 0 && c.Err == nil {
		c.Err = check.Errorf(ErrConfig, "dna: LinearFilter (layer.linear_mixer) is set, but the checkpoint's filters have hidden layers")
	}
	// Stored grids win over computed ones: training may have changed them.
	if c.Has(prefix + "pos_emb.z") {
		w.Z = c.Vector(prefix+"pos_emb.z", cfg.MaxLen*cfg.EmbDim)
	}
	if c.Has(prefix + "pos_emb.t") {
		w.T = c.Vector(prefix+"pos_emb.t", cfg.MaxLen)
	}
	if c.Has(prefix + "modulation.deltas") {
		w.Deltas = c.Vector(prefix+"modulation.deltas", channels)
	}
	if c.Err != nil {
		return nil
	}
	w.Like = c.filters // most likely it has the same grid
	f, err := hyena.NewFilter(fc, w)
	if err != nil {
		c.Fail("%s%s: %v", c.Prefix, prefix, err)
	}
	if c.filters == nil {
		c.filters = f
	}
	return f
}

// freq returns the frequencies of a sine. One module serves all layers of the
// official filter, and may be stored once, at index 1.
func (c *checkpoint) freq(prefix string, i, n int, constant float64) []float32 {
	for _, at := range []int{i, 1} {
		if name := fmt.Sprintf("%simplicit_filter.%d.freq", prefix, at); c.Has(name) {
			return c.Vector(name, n)
		}
	}
	freq := make([]float32, max(n, 0))
	for j := range freq {
		freq[j] = float32(constant)
	}
	return freq
}

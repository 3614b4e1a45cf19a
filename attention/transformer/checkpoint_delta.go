package transformer

import (
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/ssm/delta"
)

// gatedDelta makes the Gated DeltaNet of a layer, whose projections stand in one matrix, key
// head by key head (Qwen3-Next), in two and two small ones (Qwen3.5), or apart (OLMo).
func (c *checkpoint) gatedDelta(prefix string) lm.Streamer {
	s, m := c.shape, c.shape.Delta
	cfg := delta.GatedDeltaConfig{
		Heads: m.Heads, KeyHeads: m.KeyHeads, KeyDim: m.KeyDim, ValueDim: m.ValueDim, NegativeEigen: m.negative,
		NormEps: m.eps, Format: c.Format, Scratch: c.deltas, Workers: c.cfg.Workers,
	}
	if cfg.NormEps == 0 {
		cfg.NormEps = float64(s.eps)
	}
	keys, values := m.KeyHeads*m.KeyDim, m.Heads*m.ValueDim
	w := delta.GatedDeltaWeights{
		Conv: c.matrix(prefix+"conv1d.weight", 2*keys+values, m.Taps),
		ALog: c.vector(prefix+"A_log", m.Heads), DtBias: c.vector(prefix+"dt_bias", m.Heads),
	}
	weight := func(name string, rows int) blas32.General { return c.matrix(prefix+name+".weight", rows, s.Dim) }
	norm, out := "norm", "out_proj"
	var err error
	switch {
	case c.Has(prefix + "in_proj_qkvz.weight"):
		qkvz, ba := weight("in_proj_qkvz", 2*keys+2*values), weight("in_proj_ba", 2*m.Heads)
		if c.Err == nil {
			w.InQKV, w.InZ, w.InB, w.InA, err = delta.SplitQKVZ(cfg, qkvz, ba)
		}
	case c.Has(prefix + "q_proj.weight"):
		norm, out = "o_norm", "o_proj"
		q, k, v := weight("q_proj", keys), weight("k_proj", keys), weight("v_proj", values)
		w.InZ, w.InB, w.InA = weight("g_proj", values), weight("b_proj", m.Heads), weight("a_proj", m.Heads)
		if c.Err == nil {
			w.InQKV = mat.Of(slices.Concat(q.Data, k.Data, v.Data), 2*keys+values, s.Dim)
		}
	default:
		w.InQKV, w.InZ, w.InB, w.InA = weight("in_proj_qkv", 2*keys+values), weight("in_proj_z", values), weight("in_proj_b", m.Heads), weight("in_proj_a", m.Heads)
	}
	w.Norm, w.Out = c.vector(prefix+norm+".weight", m.ValueDim), c.matrix(prefix+out+".weight", s.Dim, values)
	if c.Err != nil {
		return nil
	}
	var b *delta.GatedDelta
	if err == nil {
		b, err = delta.NewGatedDelta(cfg, w)
	}
	if err != nil {
		c.Fail("%s%s: %v", c.Prefix, prefix, err)
		return nil
	}
	return lm.Delta{Block: b}
}

// kda makes the Kimi Delta Attention of a layer.
func (c *checkpoint) kda(prefix string) lm.Streamer {
	s, m := c.shape, c.shape.Delta
	wide, rank := m.Heads*m.KeyDim, m.KeyDim
	weight := func(name string, rows, cols int) blas32.General { return c.matrix(prefix+name+".weight", rows, cols) }
	w := delta.KDAWeights{
		Q: weight("q_proj", wide, s.Dim), K: weight("k_proj", wide, s.Dim), V: weight("v_proj", wide, s.Dim),
		QConv: weight("q_conv1d", wide, m.Taps), KConv: weight("k_conv1d", wide, m.Taps), VConv: weight("v_conv1d", wide, m.Taps),
		FA: weight("f_a_proj", rank, s.Dim), FB: weight("f_b_proj", wide, rank), DtBias: c.vector(prefix+"dt_bias", wide), ALog: c.vector(prefix+"A_log", m.Heads),
		B: weight("b_proj", m.Heads, s.Dim), GA: weight("g_a_proj", rank, s.Dim), GB: weight("g_b_proj", wide, rank),
		Norm: c.vector(prefix+"o_norm.weight", m.ValueDim), Out: weight("o_proj", s.Dim, wide),
	}
	if c.Err != nil {
		return nil
	}
	b, err := delta.NewKDA(delta.KDAConfig{
		Heads: m.Heads, KeyDim: m.KeyDim, NormEps: float64(s.eps), Format: c.Format, Scratch: c.deltas, Workers: c.cfg.Workers,
	}, w)
	if err != nil {
		c.Fail("%s%s: %v", c.Prefix, prefix, err)
		return nil
	}
	return lm.Delta{Block: b}
}

package transformer

import (
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/ssm/delta"
)

// gatedDelta makes the Gated DeltaNet of a layer, whose projections stand in one matrix, key
// head by key head (Qwen3-Next), or apart (Qwen3.5).
func (c *checkpoint) gatedDelta(prefix string) lm.Streamer {
	s, m := c.shape, c.shape.Delta
	cfg := delta.GatedDeltaConfig{
		Heads: m.Heads, KeyHeads: m.KeyHeads, KeyDim: m.KeyDim, ValueDim: m.ValueDim,
		NormEps: float64(s.eps), Format: c.Format, Scratch: c.deltas, Workers: c.cfg.Workers,
	}
	keys, values := m.KeyHeads*m.KeyDim, m.Heads*m.ValueDim
	w := delta.GatedDeltaWeights{
		Conv: c.matrix(prefix+"conv1d.weight", 2*keys+values, m.Taps),
		ALog: c.vector(prefix+"A_log", m.Heads), DtBias: c.vector(prefix+"dt_bias", m.Heads), Norm: c.vector(prefix+"norm.weight", m.ValueDim),
		Out: c.matrix(prefix+"out_proj.weight", s.Dim, values),
	}
	var err error
	if c.Has(prefix + "in_proj_qkvz.weight") {
		qkvz, ba := c.matrix(prefix+"in_proj_qkvz.weight", 2*keys+2*values, s.Dim), c.matrix(prefix+"in_proj_ba.weight", 2*m.Heads, s.Dim)
		if c.Err == nil {
			w.InQKV, w.InZ, w.InB, w.InA, err = delta.SplitQKVZ(cfg, qkvz, ba)
		}
	} else {
		w.InQKV, w.InZ = c.matrix(prefix+"in_proj_qkv.weight", 2*keys+values, s.Dim), c.matrix(prefix+"in_proj_z.weight", values, s.Dim)
		w.InB, w.InA = c.matrix(prefix+"in_proj_b.weight", m.Heads, s.Dim), c.matrix(prefix+"in_proj_a.weight", m.Heads, s.Dim)
	}
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

package transformer

import (
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/ssm"
)

// optional is vector of a tensor that need not be there.
func (c *checkpoint) optional(name string, n int) []float32 {
	if !c.Has(name) {
		return nil
	}
	return c.vector(name, n)
}

// block makes the recurrent block of a layer.
func (c *checkpoint) block(prefix string) lm.Streamer {
	m := c.shape.Mamba
	var b ssm.Block
	var err error
	if m.Heads > 0 {
		w := c.mamba2(prefix)
		if c.Err != nil {
			return nil
		}
		b, err = ssm.NewMamba2(ssm.Mamba2Config{
			States: m.States, HeadDim: m.Inner / m.Heads, Groups: m.Groups, NormGroups: m.normGroups, NoNorm: m.noNorm, NormBeforeGate: m.normFirst,
			DtMin: m.dtMin, DtMax: m.dtMax, Eps: float64(c.shape.eps), Format: c.Format, Scratch: c.blocks, Workers: c.cfg.Workers,
		}, w)
	} else {
		w := c.mamba1(prefix)
		if c.Err != nil {
			return nil
		}
		b, err = ssm.NewMamba(ssm.MambaConfig{NormDtBC: true, Eps: float64(c.shape.eps), Format: c.Format, Scratch: c.blocks, Workers: c.cfg.Workers}, w)
	}
	if err != nil {
		c.Fail("%s%s: %v", c.Prefix, prefix, err)
		return nil
	}
	return lm.Recurrent{Block: b}
}

// mamba2 reads the weights of a block of Mamba-2.
func (c *checkpoint) mamba2(prefix string) ssm.Mamba2Weights {
	s, m := c.shape, c.shape.Mamba
	shared := m.Groups * m.States
	wide, conv := 2*m.Inner+2*shared+m.Heads, m.Inner+2*shared
	w := ssm.Mamba2Weights{
		In: c.matrix(prefix+"in_proj.weight", wide, s.Dim), InBias: c.optional(prefix+"in_proj.bias", wide),
		Conv: c.matrix(prefix+"conv1d.weight", conv, m.Taps), ConvBias: c.optional(prefix+"conv1d.bias", conv),
		DtBias: c.vector(prefix+"dt_bias", m.Heads), ALog: c.vector(prefix+"A_log", m.Heads), D: c.vector(prefix+"D", m.Heads),
		Out: c.matrix(prefix+"out_proj.weight", s.Dim, m.Inner), OutBias: c.optional(prefix+"out_proj.bias", s.Dim),
	}
	if !m.noNorm {
		w.Norm = c.vector(prefix+"norm.weight", m.Inner)
	}
	if c.Err != nil {
		return w
	}
	c.fold(prefix+"in_proj.", w.In.Data, w.InBias)
	c.fold(prefix+"out_proj.", w.Out.Data, w.OutBias)
	if s.foldIn != nil {
		row := 0
		for i, n := range [...]int{m.Inner, m.Inner, shared, shared, m.Heads} { // z, x, B, C, dt
			part := mat.Rows(w.In, row, row+n)
			for t := range n {
				asm.Scale(mat.Row(part, t), s.foldIn[i], mat.Row(part, t))
			}
			if w.InBias != nil {
				asm.Scale(w.InBias[row:row+n], s.foldIn[i], w.InBias[row:row+n])
			}
			row += n
		}
	}
	return w
}

// mamba1 reads the weights of a block of Mamba with norms of dt, B and C.
func (c *checkpoint) mamba1(prefix string) ssm.MambaWeights {
	s, m := c.shape, c.shape.Mamba
	return ssm.MambaWeights{
		In: c.matrix(prefix+"in_proj.weight", 2*m.Inner, s.Dim), InBias: c.optional(prefix+"in_proj.bias", 2*m.Inner),
		Conv: c.matrix(prefix+"conv1d.weight", m.Inner, m.Taps), ConvBias: c.optional(prefix+"conv1d.bias", m.Inner),
		X:  c.matrix(prefix+"x_proj.weight", m.Rank+2*m.States, m.Inner),
		Dt: c.matrix(prefix+"dt_proj.weight", m.Inner, m.Rank), DtBias: c.vector(prefix+"dt_proj.bias", m.Inner),
		ALog: c.matrix(prefix+"A_log", m.Inner, m.States), D: c.vector(prefix+"D", m.Inner),
		Out: c.matrix(prefix+"out_proj.weight", s.Dim, m.Inner), OutBias: c.optional(prefix+"out_proj.bias", s.Dim),
		DtNorm: c.vector(prefix+"dt_layernorm.weight", m.Rank), BNorm: c.vector(prefix+"b_layernorm.weight", m.States),
		CNorm: c.vector(prefix+"c_layernorm.weight", m.States),
	}
}

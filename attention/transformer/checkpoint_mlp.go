package transformer

import (
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
)

// gated makes a dense MLP of a width.
func (c *checkpoint) gated(prefix string, inner int) lm.MLP {
	s := c.shape
	if s.plain {
		return c.ungated(prefix, inner)
	}
	m := &dense.Gated{Activation: s.act, Limit: s.limit}
	if s.fusedMLP {
		w, bias := c.projection(prefix+"gate_up_proj.", 2*inner, s.Dim, s.mlpBias)
		if c.Err == nil {
			m.Up = c.pack(swapHalves(w), swapVector(bias))
		}
	} else {
		m.Up = c.stacked(s.Dim, s.mlpBias, []string{prefix + "up_proj.", prefix + "gate_proj."}, []int{inner, inner})
	}
	m.Down = c.linear(prefix+"down_proj.", s.Dim, inner, s.mlpBias)
	if c.Err != nil {
		return nil
	}
	return m
}

// ungated makes a dense MLP without a gate.
func (c *checkpoint) ungated(prefix string, inner int) lm.MLP {
	s := c.shape
	m := &dense.MLP{Up: c.linear(prefix+"up_proj.", inner, s.Dim, s.mlpBias), Down: c.linear(prefix+"down_proj.", s.Dim, inner, s.mlpBias)}
	if c.Err != nil {
		return nil
	}
	return m
}

// swapHalves puts the second half of a matrix's rows first.
func swapHalves(w blas32.General) blas32.General {
	return mat.Of(swapVector(w.Data), w.Rows, w.Cols)
}

func swapVector(x []float32) []float32 {
	if x == nil {
		return nil
	}
	half := len(x) / 2
	return append(append(make([]float32, 0, len(x)), x[half:]...), x[:half]...)
}

// experts makes the experts of a layer.
func (c *checkpoint) experts(prefix string) lm.MLP {
	s, e := c.shape, c.shape.Experts
	m := &experts{cfg: e, dim: s.Dim, router: c.linear(prefix+"router.", e.Count, s.Dim, s.mlpBias)}
	if e.router == sigmoids {
		m.correction = c.vector(prefix+"router.e_score_correction_bias", e.Count)
	}
	if e.router == softmaxLast {
		m.list = c.together(prefix + "experts.")
	} else {
		for i := range e.Count {
			g := c.gated(fmt.Sprintf("%sexperts.%d.", prefix, i), e.Inner)
			if c.Err != nil {
				return nil
			}
			m.list = append(m.list, g.(*dense.Gated))
		}
	}
	if e.Shared > 0 {
		if g := c.gated(prefix+"shared_experts.", e.Shared); g != nil {
			m.shared = g.(*dense.Gated)
		}
	}
	if c.Err != nil {
		return nil
	}
	return m
}

// together makes gpt-oss's experts, whose weights stand in one tensor each: gates and
// inputs take turns.
func (c *checkpoint) together(prefix string) (list []*dense.Gated) {
	s, e := c.shape, c.shape.Experts
	upBias, downBias := c.vector(prefix+"gate_up_proj_bias", e.Count*2*e.Inner), c.vector(prefix+"down_proj_bias", e.Count*s.Dim)
	up := c.expertWeights(prefix+"gate_up_proj", 2*e.Inner, s.Dim)
	down := c.expertWeights(prefix+"down_proj", s.Dim, e.Inner)
	for i := range e.Count {
		if c.Err != nil {
			return nil
		}
		w := up(i)
		parted, bias := mat.New(2*e.Inner, s.Dim), make([]float32, 2*e.Inner)
		for o := range e.Inner {
			copy(mat.Row(parted, e.Inner+o), mat.Row(w, 2*o)) // the gate
			copy(mat.Row(parted, o), mat.Row(w, 2*o+1))
			bias[e.Inner+o], bias[o] = upBias[(i*e.Inner+o)*2], upBias[(i*e.Inner+o)*2+1]
		}
		list = append(list, &dense.Gated{Up: c.pack(parted, bias), Down: c.pack(down(i), downBias[i*s.Dim:][:s.Dim]), Activation: s.act, Limit: s.limit})
	}
	return list
}

// expertWeights returns a function of the weights [out, in] of each expert: of blocks of
// MXFP4 where there are any, else of a tensor [experts, in, out].
func (c *checkpoint) expertWeights(name string, out, in int) func(i int) blas32.General {
	n := c.shape.Experts.Count
	if c.Has(name + "_blocks") {
		blocks, scales := c.bytes(name+"_blocks", n, out, in/mxBlock, mxBlock/2), c.bytes(name+"_scales", n, out, in/mxBlock)
		if in%mxBlock != 0 {
			c.Fail("tensor %s%s_blocks stands for rows of %d, no multiple of %d", c.Prefix, name, in, mxBlock)
		}
		return func(i int) blas32.General {
			w := mat.New(out, in)
			if c.Err == nil {
				per := out * in / mxBlock
				decodeMXFP4(w.Data, blocks[i*per*mxBlock/2:], scales[i*per:])
			}
			return w
		}
	}
	all := c.vector(name, n*in*out)
	return func(i int) blas32.General {
		w := mat.New(out, in)
		if c.Err == nil {
			for r := range in {
				for o := range out {
					w.Data[o*in+r] = all[(i*in+r)*out+o]
				}
			}
		}
		return w
	}
}

// bytes returns a tensor of bytes, of a shape.
func (c *checkpoint) bytes(name string, shape ...int) []byte {
	c.read[name] = true
	t := c.Tensors[name]
	if t == nil {
		c.Fail("no tensor %s%s", c.Prefix, name)
		return nil
	}
	if fmt.Sprint(t.Shape) != fmt.Sprint(shape) {
		c.Fail("tensor %s has the shape %v, want %v", t.Name, t.Shape, shape)
		return nil
	}
	b, err := t.Bytes()
	if err != nil {
		c.Fail("%v", err)
	}
	return b
}

package transformer

import (
	"fmt"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
)

// gated makes a dense MLP of a width, which reads and writes dim columns.
func (c *checkpoint) gated(prefix string, dim, inner int) lm.MLP {
	s := c.shape
	if s.plain {
		return c.ungated(prefix, dim, inner)
	}
	m := &dense.Gated{Activation: s.act, Limit: s.limit}
	if s.fusedMLP {
		w, bias := c.projection(prefix+"gate_up_proj.", 2*inner, dim, s.mlpBias)
		if c.Err == nil {
			m.Up = c.pack(swapHalves(w), swapVector(bias))
		}
	} else {
		m.Up = c.stacked(dim, s.mlpBias, []string{prefix + "up_proj.", prefix + "gate_proj."}, []int{inner, inner})
	}
	m.Down = c.linear(prefix+"down_proj.", dim, inner, s.mlpBias)
	if c.Err != nil {
		return nil
	}
	return m
}

// ungated makes a dense MLP without a gate.
func (c *checkpoint) ungated(prefix string, dim, inner int) lm.MLP {
	s := c.shape
	m := &dense.MLP{Up: c.linear(prefix+"up_proj.", inner, dim, s.mlpBias), Down: c.linear(prefix+"down_proj.", dim, inner, s.mlpBias), Squared: s.squared}
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
	m := &experts{cfg: e, dim: s.Dim, wide: s.Dim, router: c.linear(prefix+"router.", e.Count, s.Dim, e.interlaced)}
	if e.router == sigmoids {
		m.correction = c.vector(prefix+"router.e_score_correction_bias", e.Count)
	}
	if e.Latent > 0 {
		m.wide = e.Latent
		m.before, m.after = c.linear(prefix+"fc1_latent_proj.", e.Latent, s.Dim, s.mlpBias), c.linear(prefix+"fc2_latent_proj.", s.Dim, e.Latent, s.mlpBias)
	}
	switch {
	case e.interlaced:
		m.list = c.interlaced(prefix + "experts.")
	case c.Has(prefix + "experts.down_proj"):
		m.list = c.together(prefix+"experts.", m.wide)
	default:
		for i := range e.Count {
			g := c.gated(fmt.Sprintf("%sexperts.%d.", prefix, i), m.wide, e.Inner)
			if c.Err != nil {
				return nil
			}
			m.list = append(m.list, g)
		}
	}
	if e.Shared > 0 {
		m.shared = c.gated(prefix+"shared_experts.", s.Dim, e.Shared)
		if e.sharedGate {
			m.gate = c.linear(prefix+"shared_expert_gate.", 1, s.Dim, false)
		}
	}
	if c.Err != nil {
		return nil
	}
	return m
}

// together makes experts whose weights stand in one tensor each, [experts, out, in]: gates
// before inputs or, of MLPs without a gate, inputs alone.
func (c *checkpoint) together(prefix string, dim int) (list []lm.MLP) {
	s, e := c.shape, c.shape.Experts
	up := "gate_up_proj"
	wide := 2 * e.Inner
	if s.plain {
		up, wide = "up_proj", e.Inner
	}
	for i := range e.Count {
		first, second := c.part(prefix+up, i, wide, dim), c.part(prefix+"down_proj", i, dim, e.Inner)
		if c.Err != nil {
			return nil
		}
		down := c.pack(second, nil)
		if s.plain {
			list = append(list, &dense.MLP{Up: c.pack(first, nil), Down: down, Squared: s.squared})
		} else {
			list = append(list, &dense.Gated{Up: c.pack(swapHalves(first), nil), Down: down, Activation: s.act, Limit: s.limit})
		}
	}
	return list
}

// part returns the matrix of an expert, out of a tensor [experts, rows, cols].
func (c *checkpoint) part(name string, i, rows, cols int) blas32.General {
	c.read[name] = true
	t := c.Tensors[name]
	if t == nil {
		c.Fail("no tensor %s%s", c.Prefix, name)
		return blas32.General{}
	}
	if want := []int{c.shape.Experts.Count, rows, cols}; !slices.Equal(t.Shape, want) {
		c.Fail("tensor %s has the shape %v, want %v", t.Name, t.Shape, want)
		return blas32.General{}
	}
	data, err := t.Part(i).Float32()
	if err != nil {
		c.Fail("%v", err)
		return blas32.General{}
	}
	w := mat.Of(data, rows, cols)
	c.scale(name, w, i)
	return w
}

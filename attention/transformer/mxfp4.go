package transformer

import (
	"fmt"
	"math"
	"slices"

	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
)

// interlaced makes gpt-oss's experts, whose weights stand in one tensor each: gates and
// inputs take turns.
func (c *checkpoint) interlaced(prefix string) (list []lm.MLP) {
	s, e := c.shape, c.shape.Experts
	upBias, downBias := c.numbers(prefix+"gate_up_proj_bias", e.Count, 2*e.Inner), c.numbers(prefix+"down_proj_bias", e.Count, s.Dim)
	up := c.expertWeights(prefix+"gate_up_proj", 2*e.Inner, s.Dim)
	down := c.expertWeights(prefix+"down_proj", s.Dim, e.Inner)
	// Inputs come first, then gates.
	order := make([]int, 2*e.Inner)
	for o := range e.Inner {
		order[o], order[e.Inner+o] = 2*o+1, 2*o
	}
	for i := range e.Count {
		if c.Err != nil {
			return nil
		}
		bias := make([]float32, 2*e.Inner)
		for o, from := range order {
			bias[o] = upBias[i*2*e.Inner+from]
		}
		list = append(list, &dense.Gated{Up: up(i, order, bias), Down: down(i, nil, downBias[i*s.Dim:][:s.Dim]), Activation: s.act, Limit: s.limit})
	}
	return list
}

// expertWeights returns a function of the layer [out, in] of each expert, of its outputs in an
// order, or as they are: of blocks of MXFP4 where there are any, else of a tensor
// [experts, in, out].
func (c *checkpoint) expertWeights(name string, out, in int) func(i int, order []int, bias []float32) *dense.Linear {
	n := c.shape.Experts.Count
	const block = dense.MXBlock
	if c.Has(name + "_blocks") {
		blocks, scales := c.bytes(name+"_blocks", n, out, in/block, block/2), c.bytes(name+"_scales", n, out, in/block)
		if in%block != 0 {
			c.Fail("tensor %s%s_blocks stands for rows of %d, no multiple of %d", c.Prefix, name, in, block)
		}
		return func(i int, order []int, bias []float32) *dense.Linear {
			if c.Err != nil {
				return nil
			}
			b, s := ordered(blocks[i*(out*in/2):][:out*in/2], order, out), ordered(scales[i*(out*in/block):][:out*in/block], order, out)
			if c.cfg.KeepMXFP4 {
				return dense.NewPackedLinear(c.Format, out, in, b, s, bias)
			}
			w := mat.New(out, in)
			dense.DecodeMXFP4(w.Data, b, s)
			return c.pack(w, bias)
		}
	}
	all := c.numbers(name, n, in, out)
	return func(i int, order []int, bias []float32) *dense.Linear {
		if c.Err != nil {
			return nil
		}
		w := mat.New(out, in)
		for r := range in {
			for o := range out {
				w.Data[o*in+r] = all[(i*in+r)*out+o]
			}
		}
		return c.pack(mat.Of(ordered(w.Data, order, out), out, in), bias)
	}
}

// ordered returns a copy of rows, of which row o is order[o], or o without.
func ordered[T any](data []T, order []int, rows int) []T {
	if order == nil {
		return slices.Clone(data)
	}
	each := len(data) / rows
	list := make([]T, 0, len(data))
	for _, o := range order {
		list = append(list, data[o*each:][:each]...)
	}
	return list
}

// numbers is vector of a tensor of so many elements as a shape has, which may be more than an int
// counts to: none have that.
func (c *checkpoint) numbers(name string, shape ...int) []float32 {
	n := int64(1) // of sizes that are bounded: up to 55 bits
	for _, d := range shape {
		n *= int64(d)
	}
	if n > math.MaxInt {
		c.Fail("tensor %s%s: %v are too many elements", c.Prefix, name, shape)
		return nil
	}
	return c.vector(name, int(n))
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

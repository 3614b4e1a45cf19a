package catanet

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// NormWeights are those of a layer norm, [Dim] each, with an eps of 1e-5.
type NormWeights struct{ Weight, Bias []float32 }

const normEps = 1e-5

// ConvFFNWeights are those of CATANet's feed-forward layer: fc2(z + gelu(conv(z))) with
// z = gelu(fc1(norm(x))) and conv a 5 x 5 depthwise convolution.
type ConvFFNWeights struct {
	Norm NormWeights
	// FC1 is [inner, dim] and FC2 [dim, inner], with biases or nil.
	FC1, FC2         blas32.General
	FC1Bias, FC2Bias []float32
	// Conv is [inner, 25], a checkpoint's [inner, 1, 5, 5], with a bias or nil.
	Conv     blas32.General
	ConvBias []float32
}

const convSide = 5

// convFFN is the layer.
type convFFN struct {
	norm     dense.Norm
	inner    int
	fc1, fc2 *dense.Linear
	taps     [convSide]blas32.General // a row of the kernel each: [5, inner]
	bias     []float32
}

func packFFN(w *dense.Packer, c ConvFFNWeights, dim, inner int) convFFN {
	f := convFFN{inner: inner, norm: w.Norm("FFN.Norm.", c.Norm.Weight, c.Norm.Bias, dim, false),
		fc1: w.Linear("FFN.FC1", c.FC1, c.FC1Bias, inner, dim), fc2: w.Linear("FFN.FC2", c.FC2, c.FC2Bias, dim, inner)}
	w.Matrix("FFN.Conv", c.Conv, inner, convSide*convSide)
	f.bias = w.Vector("FFN.ConvBias", c.ConvBias, inner, true)
	if w.Err != nil {
		return f
	}
	for y := range f.taps {
		f.taps[y] = mat.Of(make([]float32, convSide*inner), convSide, inner)
		for x := range convSide {
			for ch := range inner {
				f.taps[y].Data[x*inner+ch] = c.Conv.Data[ch*c.Conv.Stride+y*convSide+x]
			}
		}
	}
	return f
}

// hidden sets z [rows, inner] = gelu(fc1(norm(x))). work is scratch.
func (f *convFFN) hidden(z, x blas32.General, work *[]float32) {
	*work = scratch.Floats(*work, x.Rows*x.Cols)
	n := mat.Of(*work, x.Rows, x.Cols)
	f.norm.Forward(n, x, normEps)
	f.fc1.Forward(z, n)
	for t := range z.Rows {
		asm.GELU(mat.Row(z, t), mat.Row(z, t))
	}
}

// line sets dst [width, dim] = x + fc2(z + gelu(conv(z))) for line y of an image whose z
// is [height*width, inner]; dst and x are of that line, and dst may be x.
func (f *convFFN) line(dst, x, z blas32.General, y, height, width int, work *[]float32) {
	const margin = convSide / 2
	long := width + 2*margin
	*work = scratch.Floats(*work, 3*long*f.inner+width*dst.Cols)
	rest := *work
	take := func(rows, cols int) blas32.General {
		m := mat.Of(rest, rows, cols)
		rest = rest[rows*cols:]
		return m
	}
	padded, part, sum, out := take(long, f.inner), take(long, f.inner), take(long, f.inner), take(width, dst.Cols)
	for t := range sum.Rows {
		clear(mat.Row(sum, t))
		copy(mat.Row(sum, t), f.bias)
	}
	for dy := -margin; dy <= margin; dy++ {
		if y+dy < 0 || y+dy >= height {
			continue
		}
		clear(padded.Data)
		for t := range width {
			copy(mat.Row(padded, t+margin), mat.Row(z, (y+dy)*width+t))
		}
		asm.DepthwiseConv(part, padded, f.taps[dy+margin], nil, blas32.General{})
		asm.Add(sum.Data, sum.Data, part.Data)
	}
	// The convolution is causal: token t's result stands 2 margins behind it.
	hidden := mat.Rows(sum, 2*margin, long)
	for t := range width {
		h := mat.Row(hidden, t)
		asm.GELU(h, h)
		asm.Add(h, h, mat.Row(z, y*width+t))
	}
	f.fc2.Forward(out, hidden)
	for t := range width {
		asm.Add(mat.Row(dst, t), mat.Row(x, t), mat.Row(out, t))
	}
}

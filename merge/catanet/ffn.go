package catanet

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// normEps is the eps of every norm.
const normEps = 1e-5

// ConvFFNWeights are those of CATANet's feed-forward layer: down(z + gelu(conv(z))) with
// z = gelu(up(norm(x))) and conv a 5 x 5 depthwise convolution.
type ConvFFNWeights struct {
	// Norm and NormBias [Dim] are a layer norm with an eps of 1e-5.
	Norm, NormBias []float32
	// Up is [Inner, Dim] and Down [Dim, Inner], with biases [Inner] and [Dim] or nil.
	Up, Down         blas32.General
	UpBias, DownBias []float32
	// Conv is [Inner, 25], a checkpoint's [Inner, 1, 5, 5], with a bias [Inner] or nil.
	Conv     blas32.General
	ConvBias []float32
}

// convSide is the side of the convolution's kernel.
const convSide = 5

// convFFN is the feed-forward layer, packed.
type convFFN struct {
	norm     dense.Norm
	inner    int // Inner
	fc1, fc2 *dense.Linear
	conv     *dense.Depthwise
}

func packFFN(w *dense.Packer, c ConvFFNWeights, dim, inner int) convFFN {
	f := convFFN{inner: inner, norm: w.Norm("FFN.Norm", c.Norm, c.NormBias, dim, false),
		fc1: w.Linear("FFN.Up", c.Up, c.UpBias, inner, dim), fc2: w.Linear("FFN.Down", c.Down, c.DownBias, dim, inner)}
	w.Matrix("FFN.Conv", c.Conv, inner, convSide*convSide)
	bias := w.Vector("FFN.ConvBias", c.ConvBias, inner, true)
	if w.Err != nil {
		return f
	}
	f.conv = dense.NewDepthwise(c.Conv, bias, convSide, convSide)
	return f
}

// bytes returns the memory of the weights.
func (f *convFFN) bytes() int64 {
	return int64(f.fc1.Bytes()) + int64(f.fc2.Bytes()) + f.conv.Bytes() + f.norm.Bytes()
}

// expand sets z [rows, inner] = gelu(fc1(norm(x))) of x [rows, Dim]. work is scratch.
func (f *convFFN) expand(z, x blas32.General, work *[]float32) {
	*work = scratch.Floats(*work, x.Rows*x.Cols)
	n := mat.Of(*work, x.Rows, x.Cols)
	f.norm.Forward(n, x)
	f.fc1.Forward(z, n)
	for t := range z.Rows {
		asm.GELU(mat.Row(z, t), mat.Row(z, t))
	}
}

// convFloats is how much scratch contract takes for a line of an image.
func (f *convFFN) convFloats(width, dim int) int {
	return f.conv.Floats(width) + width*dim
}

// contract sets dst [width, Dim] = x + fc2(z + gelu(conv(z))) for line y of an image
// whose z is [height*width, inner]; dst and x are of that line, and dst may be x. work is
// scratch.
func (f *convFFN) contract(dst, x, z blas32.General, y, height, width int, work *[]float32) {
	*work = scratch.Floats(*work, f.convFloats(width, dst.Cols))
	hidden := f.conv.Line(z, y, height, width, *work)
	out := mat.Of((*work)[f.conv.Floats(width):], width, dst.Cols)
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

// contractLine is contract for line i of all images of a call.
func (f *convFFN) contractLine(c *ImageCall, y, z blas32.General, i int, work *[]float32) {
	h, w := c.Height, c.Width
	image, at := i/h, i*w
	f.contract(mat.Rows(c.Dst, at, at+w), mat.Rows(y, at, at+w), mat.Rows(z, image*h*w, (image+1)*h*w), i%h, h, w, work)
}

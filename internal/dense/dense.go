// Package dense holds the fully connected layers that models are made of. They
// are serial; callers cut the tokens into blocks and run those side by side,
// which changes no bit, because a row's result does not depend on the others.
package dense

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
)

// BlockRows is a good number of tokens to a block: a multiple of every tier's
// tile, and few enough that a layer's input and output stay in the second cache.
const BlockRows = 192

// Linear is y = x W^T + b, with its weights packed.
type Linear struct {
	weight *asm.Matrix
	bias   []float32
}

// NewLinear packs a weight [out, in] with a bias [out], or nil.
func NewLinear(format asm.Format, weight blas32.General, bias []float32) *Linear {
	return &Linear{asm.NewMatrixT(format, weight), bias}
}

// Forward sets dst [tokens, out] from x [tokens, in]; dst must not overlap x.
func (l *Linear) Forward(dst, x blas32.General) { asm.Gemm(dst, x, l.weight, l.bias) }

// Output sets w [in] to the weights of output o.
func (l *Linear) Output(w []float32, o int) { l.weight.Column(w, o) }

// Bytes returns the memory of the weights.
func (l *Linear) Bytes() int { return l.weight.Bytes() + 4*len(l.bias) }

// MLP is y = down(gelu(up(x))), the GELU in its tanh form.
type MLP struct{ Up, Down *Linear }

// Forward sets dst [tokens, d] from x [tokens, d]; hidden is scratch,
// [tokens, inner].
func (m *MLP) Forward(dst, x, hidden blas32.General) {
	m.Up.Forward(hidden, x)
	for t := range hidden.Rows {
		row := hidden.Data[t*hidden.Stride:][:hidden.Cols]
		asm.GELUTanh(row, row)
	}
	m.Down.Forward(dst, hidden)
}

package dense

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
)

// Embedding turns tokens into rows of width D: those of Table or, where a head is tied
// to the embedding, the packed weights of its outputs.
type Embedding struct {
	Table blas32.General // [V, D], or none
	Tied  *Linear        // D -> V, where there is no Table
	Scale float32        // what rows are multiplied by; 0 for 1
}

// Dims returns V and D.
func (e *Embedding) Dims() (vocab, dim int) {
	if e.Tied != nil {
		dim, vocab = e.Tied.Dims()
		return vocab, dim
	}
	return e.Table.Rows, e.Table.Cols
}

// Row sets dst [D] to the row of a token.
func (e *Embedding) Row(dst []float32, token int) {
	if e.Tied != nil {
		e.Tied.Output(dst, token)
	} else {
		copy(dst, mat.Row(e.Table, token))
	}
	if e.Scale != 0 {
		asm.Scale(dst, e.Scale, dst)
	}
}

// Head turns hidden states [n, D] into logits [n, V]: z = Scale (x Weights^T), and with a
// Cap C tanh(z / C).
type Head struct {
	Weights    *Linear // D -> V
	Scale, Cap float32 // 0 for none
}

// Forward sets dst [n, V] from x [n, D], as part of a task of group g or with nil; dst
// must not overlap x.
func (h *Head) Forward(g *parallel.Group, dst, x blas32.General) {
	h.Weights.ForwardIn(g, dst, x)
	if h.Scale == 0 && h.Cap == 0 {
		return
	}
	for t := range dst.Rows {
		z := mat.Row(dst, t)
		if h.Scale != 0 {
			asm.Scale(z, h.Scale, z)
		}
		if c := float64(h.Cap); c != 0 {
			for i, v := range z {
				z[i] = float32(c * math.Tanh(float64(v)/c))
			}
		}
	}
}

// LogSoftmaxAt returns the natural logarithm of softmax(z)[target], all of z counting.
// work has as many elements as z.
func LogSoftmaxAt(z []float32, target int, work []float32) float32 {
	largest := asm.Max(z)
	sum := kernel.ExpSum(work, z, largest)
	return float32(float64(z[target]) - float64(largest) - math.Log(float64(sum)))
}

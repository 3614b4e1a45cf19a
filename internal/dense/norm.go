package dense

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
)

// Norm is LayerNorm, (x - mean(x)) / sqrt(var(x) + Eps) * Weight + Bias, or, with RMS,
// RMSNorm, x / sqrt(mean(x^2) + Eps) * Weight, over the columns. The zero value stands
// for a norm that a model does not have: it changes nothing.
type Norm struct {
	Weight []float32 // [D]
	Bias   []float32 // [D], of a LayerNorm, or nil for 0
	Eps    float32
	RMS    bool
	// EpsOutside adds Eps to the root of an RMS norm, and not under it.
	EpsOutside bool
}

// Given tells whether there is a norm.
func (n *Norm) Given() bool { return n.Weight != nil }

// Row sets dst [D] to the norm of x [D]; dst may be x.
func (n *Norm) Row(dst, x []float32) {
	switch {
	case n.Weight == nil:
		copy(dst, x)
	case n.RMS && n.EpsOutside:
		root := math.Sqrt(float64(asm.Dot(x, x)) / float64(len(x)))
		asm.Scale(dst, float32(1/(root+float64(n.Eps))), x)
		asm.Mul(dst, dst, n.Weight)
	case n.RMS:
		asm.RMSNorm(dst, x, n.Weight, n.Eps)
	default:
		asm.LayerNorm(dst, x, n.Weight, n.Bias, n.Eps)
	}
}

// Forward sets dst [n, D] to the norms of the rows of x [n, D]; dst may be x.
func (n *Norm) Forward(dst, x blas32.General) {
	for t := range x.Rows {
		n.Row(mat.Row(dst, t), mat.Row(x, t))
	}
}

// Bytes returns the memory of the weights.
func (n *Norm) Bytes() int64 { return 4 * int64(len(n.Weight)+len(n.Bias)) }

// shortest is the length below which InverseLength takes this instead.
const shortest = 1e-12

// InverseLength returns 1 / max(|x|, 1e-12), with the Euclidean length of x, or 0 where x
// holds NaN or Inf.
func InverseLength(x []float32) float32 {
	square := float64(asm.Dot(x, x))
	if square > math.MaxFloat32 || square != square { // overflow, or an element that is not finite
		square = 0
		for _, v := range x {
			square += float64(float64(v) * float64(v))
		}
		if square-square != 0 {
			return 0
		}
	}
	return float32(1 / max(math.Sqrt(square), shortest))
}

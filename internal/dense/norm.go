package dense

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
)

// Norm is a layer norm over the columns, with a weight and a bias [columns] or nil.
type Norm struct{ Weight, Bias []float32 }

// Forward sets dst to x [tokens, columns], each row normalised; dst may be x.
func (n *Norm) Forward(dst, x blas32.General, eps float32) {
	for t := range x.Rows {
		asm.LayerNorm(mat.Row(dst, t), mat.Row(x, t), n.Weight, n.Bias, eps)
	}
}

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

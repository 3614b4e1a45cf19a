package kernel

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
)

// Prefetch asks for the memory of x, so that it comes while other work is done. It
// changes nothing, and does nothing where a tier has no means for it.
func Prefetch(x []float32) {
	PrefetchRows(blas32.General{Rows: 1, Cols: len(x), Stride: len(x), Data: x})
}

// PrefetchRows is Prefetch for the rows of x. Where they stand far apart a processor does not
// foresee the next by itself.
func PrefetchRows(x blas32.General) {
	const most = 1024 // lines to a kernel call
	tier := isa.Active()
	if tier == isa.Generic || x.Rows == 0 || x.Cols == 0 {
		return
	}
	CheckMatrix("kernel: PrefetchRows", "x", x, x.Rows, x.Cols)
	for col := 0; col < x.Cols; col += prefetchLine * most {
		lines := (min(x.Cols-col, prefetchLine*most) + prefetchLine - 1) / prefetchLine
		for step, i := most/lines, 0; i < x.Rows; i += step {
			prefetchSIMD(tier, min(step, x.Rows-i), lines, &x.Data[i*x.Stride+col], 4*x.Stride)
		}
	}
}

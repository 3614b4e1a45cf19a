package kernel

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

// ScaleRows sets dst[t][i] = scale[t] x[t][i]. dst may be x.
func ScaleRows(dst blas32.General, scale []float32, x blas32.General) {
	const op = "kernel: ScaleRows"
	CheckMatrix(op, "x", x, x.Rows, x.Cols)
	CheckMatrix(op, "dst", dst, x.Rows, x.Cols)
	CheckLen(op, "scale", len(scale), x.Rows)
	if x.Rows == 0 || x.Cols == 0 {
		return
	}
	if tier := isa.Active(); tier != isa.Generic {
		for step, t := max(Chunk/x.Cols, 1), 0; t < x.Rows; t += step {
			for i := 0; i < x.Cols; i += Chunk {
				scaleRowsSIMD(tier, min(step, x.Rows-t), min(Chunk, x.Cols-i), &dst.Data[t*dst.Stride+i], 4*dst.Stride, &x.Data[t*x.Stride+i], 4*x.Stride, &scale[t])
			}
		}
		return
	}
	for t, s := range scale {
		for i, v := range x.Data[t*x.Stride:][:x.Cols] {
			dst.Data[t*dst.Stride+i] = s * v
		}
	}
}

// Flush sets x[i] = 0 where |x[i]| < 2^-103, so that a decaying state never
// becomes subnormal, where arithmetic is slow.
func Flush(x []float32) {
	if tier := isa.Active(); tier != isa.Generic {
		flushSIMD(tier, x)
		return
	}
	for i, v := range x {
		if float32(math.Abs(float64(v))) < scalar.Tiny {
			x[i] = 0
		}
	}
}

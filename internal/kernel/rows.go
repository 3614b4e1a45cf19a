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

// RowScales sets dst[t] = scale / sqrt(eps + sum over i of x[t][i]^2), which brings rows to a
// length. eps is more than 0.
func RowScales(dst []float32, scale float32, x blas32.General, eps float64) {
	const op = "kernel: RowScales"
	CheckMatrix(op, "x", x, x.Rows, x.Cols)
	CheckLen(op, "dst", len(dst), x.Rows)
	// An eps that float32 has few bits of or none counts where rows are zeros.
	if tier := isa.Active(); tier != isa.Generic && x.Rows > 0 && x.Cols > 0 && eps > 0x1p-100 {
		for step, t := max(Chunk/x.Cols, 1), 0; t < x.Rows; t += step {
			rowScalesSIMD(tier, min(step, x.Rows-t), x.Cols, &dst[t], scale, &x.Data[t*x.Stride], 4*x.Stride, float32(eps))
		}
		return
	}
	for t := range dst {
		var sum float64
		if x.Cols > 0 {
			for _, v := range x.Data[t*x.Stride:][:x.Cols] {
				sum += float64(v) * float64(v)
			}
		}
		dst[t] = float32(float64(scale) / math.Sqrt(sum+eps))
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

package kernel

import (
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/mat"
)

// RotateInterleaved is asm.RotateInterleaved with a table that has an element for
// each feature, ready for the vectors: the cosine twice, and the sine first negated,
// then as it is, so that
//
//	dst[2i]   = x[2i] cos[2i] + x[2i+1] sin[2i]        (sin[2i] = -sine)
//	dst[2i+1] = x[2i+1] cos[2i+1] + x[2i] sin[2i+1].
//
// x and dst are heads of headDim >= len(cos) features one after the other.
func RotateInterleaved(dst, x []float32, headDim int, cos, sin []float32) {
	const op = "kernel: RotateInterleaved"
	heads := CheckRotate(op, dst, x, headDim, len(cos), cos, sin)
	if len(cos)%2 != 0 {
		Panicf("%s: cos has %d elements, want an even number", op, len(cos))
	}
	RotateHeads(dst, x, heads, headDim, cos, sin)
}

// RotateHeads is RotateInterleaved unchecked: element 0 of dst and x is that of the
// first pair of the first head, which need not be the head's own first.
func RotateHeads(dst, x []float32, heads, headDim int, cos, sin []float32) {
	width := len(cos)
	if heads == 0 || width == 0 {
		return
	}
	if tier := isa.Active(); tier != isa.Generic {
		vectors := WholeVectors(tier, width)
		for at, step := 0, max(Chunk/headDim, 1); at < heads; at += step {
			rotateInterleavedSIMD(tier, vectors, &dst[at*headDim], &x[at*headDim], min(step, heads-at), 4*headDim, width, &cos[0], &sin[0])
		}
		return
	}
	for h := range heads {
		from, to := x[h*headDim:][:width], dst[h*headDim:][:width]
		for i := 0; i < width; i += 2 {
			a, b := from[i], from[i+1]
			to[i] = float32(a*cos[i]) + float32(b*sin[i])
			to[i+1] = float32(b*cos[i+1]) + float32(a*sin[i+1])
		}
	}
}

// WholeVectors returns how many whole vectors n elements are, or 0. The kernels of
// rotations keep a table of a few in registers.
func WholeVectors(tier isa.Tier, n int) int {
	lanes := sizesOf[tier].lanes
	if n%lanes != 0 {
		return 0
	}
	return n / lanes
}

// CheckRotate panics unless dst can take the rotation of the first width features of
// every head of x, and returns the number of heads.
func CheckRotate(op string, dst, x []float32, headDim, width int, cos, sin []float32) (heads int) {
	CheckInto(op, dst, x)
	CheckLen(op, "sin", len(sin), len(cos))
	if headDim < width || headDim <= 0 {
		Panicf("%s: headDim is %d, want at least %d", op, headDim, max(width, 1))
	}
	if len(x)%headDim != 0 {
		Panicf("%s: x has %d elements, want a multiple of headDim = %d", op, len(x), headDim)
	}
	if mat.OverlapVectors(dst, cos) || mat.OverlapVectors(dst, sin) {
		Panicf("%s: dst overlaps cos or sin", op)
	}
	return len(x) / headDim
}

package asm

import (
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
)

// RotateHalf rotates, in every head of a row, the pairs (i, half+i) by angles
// whose cosines and sines are given, half = len(cos) = len(sin):
//
//	dst[i]      = x[i] cos[i] - x[half+i] sin[i]
//	dst[half+i] = x[half+i] cos[i] + x[i] sin[i].
//
// x and dst hold heads of headDim >= 2 half features one after the other; the
// features behind 2 half are neither read nor written. dst may be x.
func RotateHalf(dst, x []float32, headDim int, cos, sin []float32) {
	heads := checkRotate("asm: RotateHalf", dst, x, headDim, 2*len(cos), cos, sin)
	half := len(cos)
	if heads == 0 || half == 0 {
		return
	}
	if tier := isa.Active(); tier != isa.Generic {
		vectors := wholeVectors(tier, half)
		for at, step := 0, max(kernel.Chunk/headDim, 1); at < heads; at += step {
			rotateHalfSIMD(tier, vectors, &dst[at*headDim], &x[at*headDim], min(step, heads-at), 4*headDim, half, &cos[0], &sin[0])
		}
		return
	}
	for h := range heads {
		a, b := x[h*headDim:][:half], x[h*headDim+half:][:half]
		to, to2 := dst[h*headDim:][:half], dst[h*headDim+half:][:half]
		for i, c := range cos {
			s, va, vb := sin[i], a[i], b[i]
			to[i] = float32(va*c) - float32(vb*s)
			to2[i] = float32(vb*c) + float32(va*s)
		}
	}
}

// wholeVectors is how many whole vectors n elements are, or 0. The kernels keep a
// table of a few in registers.
func wholeVectors(tier isa.Tier, n int) int {
	lanes := kernel.Lanes(tier)
	if n%lanes != 0 {
		return 0
	}
	return n / lanes
}

// RotateInterleaved rotates, in every head of a row, the pairs (2i, 2i+1). cos
// and sin have an element for each feature: the cosine twice, and the sine first
// negated, then as it is, so that
//
//	dst[2i]   = x[2i] cos[2i] + x[2i+1] sin[2i]        (sin[2i] = -sine)
//	dst[2i+1] = x[2i+1] cos[2i+1] + x[2i] sin[2i+1].
//
// x and dst are as in RotateHalf, with headDim >= len(cos).
func RotateInterleaved(dst, x []float32, headDim int, cos, sin []float32) {
	heads := checkRotate("asm: RotateInterleaved", dst, x, headDim, len(cos), cos, sin)
	width := len(cos)
	if width%2 != 0 {
		kernel.Panicf("asm: RotateInterleaved: cos has %d elements, want an even number", width)
	}
	if heads == 0 || width == 0 {
		return
	}
	if tier := isa.Active(); tier != isa.Generic {
		vectors := wholeVectors(tier, width)
		for at, step := 0, max(kernel.Chunk/headDim, 1); at < heads; at += step {
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

// checkRotate returns the number of heads.
func checkRotate(op string, dst, x []float32, headDim, width int, cos, sin []float32) int {
	kernel.CheckInto(op, dst, x)
	kernel.CheckLen(op, "sin", len(sin), len(cos))
	if headDim < width || headDim <= 0 {
		kernel.Panicf("%s: headDim is %d, want at least %d", op, headDim, max(width, 1))
	}
	if len(x)%headDim != 0 {
		kernel.Panicf("%s: x has %d elements, want a multiple of headDim = %d", op, len(x), headDim)
	}
	if mat.OverlapVectors(dst, cos) || mat.OverlapVectors(dst, sin) {
		kernel.Panicf("%s: dst overlaps cos or sin", op)
	}
	return len(x) / headDim
}

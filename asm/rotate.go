package asm

import (
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
)

// RotateHalf rotates, in every head of a row, the pairs (i, half+i) by angles
// whose cosines and sines are given, half = len(cos) = len(sin):
//
//	dst[i]      = x[i] cos[i] - x[half+i] sin[i]
//	dst[half+i] = x[half+i] cos[i] + x[i] sin[i].
//
// x and dst are heads of headDim >= 2 half features one after the other; those
// after the first 2 half are neither read nor written. dst may be x.
func RotateHalf(dst, x []float32, headDim int, cos, sin []float32) {
	heads := kernel.CheckRotate("asm: RotateHalf", dst, x, headDim, 2*len(cos), cos, sin)
	half := len(cos)
	if heads == 0 || half == 0 {
		return
	}
	if tier := isa.Active(); tier != isa.Generic {
		vectors := kernel.WholeVectors(tier, half)
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

// RotateInterleaved rotates, in every head of a row, the pairs (2i, 2i+1) by angles
// whose cosines and sines are given, as in RotateHalf:
//
//	dst[2i]   = x[2i] cos[i] - x[2i+1] sin[i]
//	dst[2i+1] = x[2i+1] cos[i] + x[2i] sin[i].
//
// x and dst are heads of headDim >= 2 len(cos) features one after the other; those
// after the first 2 len(cos) are neither read nor written. dst may be x.
func RotateInterleaved(dst, x []float32, headDim int, cos, sin []float32) {
	heads := kernel.CheckRotate("asm: RotateInterleaved", dst, x, headDim, 2*len(cos), cos, sin)
	if heads == 0 {
		return
	}
	const most = 128 // pairs at a time, whose table is laid out for the vectors
	var cosines, sines [2 * most]float32
	for from := 0; from < len(cos); from += most {
		n := min(most, len(cos)-from)
		for i, c := range cos[from:][:n] {
			s := sin[from+i]
			cosines[2*i], cosines[2*i+1] = c, c
			sines[2*i], sines[2*i+1] = -s, s
		}
		kernel.RotateHeads(dst[2*from:], x[2*from:], heads, headDim, cosines[:2*n], sines[:2*n])
	}
}

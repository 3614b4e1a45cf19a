package asm

import (
	"math"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
)

// Dot returns the sum of a[i] * b[i], 0 for empty slices. The error is at most
// (n/64 + 16) 2^-24 times the sum of |a[i] * b[i]|, for n elements.
func Dot(a, b []float32) float32 { return dotIn(isa.Active(), a, b) }

func dotGeneric(a, b []float32) float32 {
	var sum float64
	for i, v := range a {
		sum += float64(v) * float64(b[i])
	}
	return float32(sum)
}

// SquaredDistance returns the sum of (a[i] - b[i])^2, 0 for empty slices.
func SquaredDistance(a, b []float32) float32 { return squaredDistanceIn(isa.Active(), a, b) }

func squaredDistanceGeneric(a, b []float32) float32 {
	var sum float64
	for i, v := range a {
		d := float64(v - b[i])
		sum += d * d
	}
	return float32(sum)
}

// Cosine returns the cosine of the angle between a and b,
//
//	a.b / (|a| |b|),
//
// and 0 when a or b is zero (or empty).
func Cosine(a, b []float32) float32 {
	kernel.CheckLen("asm: Cosine", "b", len(b), len(a))
	var ab, aa, bb float64
	if tier := isa.Active(); tier != isa.Generic {
		for len(a) > 0 {
			n := min(len(a), kernel.Chunk)
			var sums [3]float32
			cosineSIMD(tier, &sums[0], &a[0], &b[0], n)
			ab, aa, bb = ab+float64(sums[0]), aa+float64(sums[1]), bb+float64(sums[2])
			a, b = a[n:], b[n:]
		}
	} else {
		for i, v := range a {
			ab += float64(v) * float64(b[i])
			aa += float64(v) * float64(v)
			bb += float64(b[i]) * float64(b[i])
		}
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return float32(ab / math.Sqrt(aa) / math.Sqrt(bb))
}

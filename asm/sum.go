package asm

import (
	"math"

	"github.com/subquad/subquad/internal/isa"
)

// Sum returns the sum of x, 0 when x is empty.
func Sum(x []float32) float32 { return sumIn(isa.Active(), x) }

func sumGeneric(x []float32) float32 {
	var sum float64
	for _, v := range x {
		sum += float64(v)
	}
	return float32(sum)
}

// Max returns the largest element of x, NaN where x has one, and -Inf when x is
// empty.
func Max(x []float32) float32 { return maximumIn(isa.Active(), x) }

func maximumGeneric(x []float32) float32 {
	largest := float32(math.Inf(-1))
	for _, v := range x {
		largest = max(largest, v)
	}
	return largest
}

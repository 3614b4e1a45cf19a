package asm

import (
	"math"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
)

// Sum returns the sum of x, 0 when x is empty.
func Sum(x []float32) float32 {
	if tier := isa.Active(); tier != isa.Generic {
		return sumSIMD(tier, x)
	}
	var sum float64
	for _, v := range x {
		sum += float64(v)
	}
	return float32(sum)
}

// Max returns the largest element of x, NaN where x has one, and -Inf when x is
// empty.
func Max(x []float32) float32 {
	largest := float32(math.Inf(-1))
	if tier := isa.Active(); tier != isa.Generic {
		if n := len(x); n > 0 && n <= kernel.Chunk {
			return maximumSIMD(tier, &x[0], n)
		}
		for len(x) > 0 {
			n := min(len(x), kernel.Chunk)
			largest = max(largest, maximumSIMD(tier, &x[0], n))
			x = x[n:]
		}
		return largest
	}
	for _, v := range x {
		largest = max(largest, v)
	}
	return largest
}

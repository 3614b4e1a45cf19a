package asm

import (
	"math"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
)

// LayerNorm normalises one row (Ba et al. 2016):
//
//	dst[i] = (x[i] - mean(x)) / sqrt(var(x) + eps) * weight[i] + bias[i],
//
// var the mean squared deviation. weight and bias have len(x) elements; either
// may be nil, for 1 and 0.
func LayerNorm(dst, x, weight, bias []float32, eps float32) {
	kernel.CheckInto("asm: LayerNorm", dst, x)
	checkAffine("asm: LayerNorm", "weight", dst, weight)
	checkAffine("asm: LayerNorm", "bias", dst, bias)
	if len(x) == 0 {
		return
	}
	tier, n := isa.Active(), float64(len(x))
	mean := float32(float64(Sum(x)) / n)
	var deviation float64
	if tier != isa.Generic {
		deviation = float64(squaredDeviationSIMD(tier, x, mean))
	} else {
		for _, v := range x {
			d := float64(v - mean)
			deviation += d * d
		}
	}
	scale := float32(1 / math.Sqrt(deviation/n+float64(eps)))
	if tier != isa.Generic && weight != nil && bias != nil {
		layerNormSIMD(tier, dst, x, weight, bias, mean, scale)
		return
	}
	for i, v := range x {
		y := (v - mean) * scale
		if weight != nil {
			y *= weight[i]
		}
		if bias != nil {
			y = float32(y) + bias[i]
		}
		dst[i] = y
	}
}

// RMSNorm normalises one row (Zhang and Sennrich 2019):
//
//	dst[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i].
//
// weight has len(x) elements or is nil, for 1.
func RMSNorm(dst, x, weight []float32, eps float32) {
	kernel.CheckInto("asm: RMSNorm", dst, x)
	checkAffine("asm: RMSNorm", "weight", dst, weight)
	if len(x) == 0 {
		return
	}
	scale := float32(1 / math.Sqrt(float64(Dot(x, x))/float64(len(x))+float64(eps)))
	if weight == nil {
		Scale(dst, scale, x)
		return
	}
	if tier := isa.Active(); tier != isa.Generic {
		rmsNormSIMD(tier, dst, x, weight, scale)
		return
	}
	for i, v := range x {
		dst[i] = v * scale * weight[i]
	}
}

func checkAffine(op, name string, dst, p []float32) {
	if p == nil {
		return
	}
	kernel.CheckLen(op, name, len(p), len(dst))
	if mat.OverlapVectors(dst, p) {
		kernel.Panicf("%s: dst overlaps %s", op, name)
	}
}

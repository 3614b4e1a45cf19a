package asm

import "github.com/subquad/subquad/internal/isa"

// Add sets dst[i] = a[i] + b[i].
func Add(dst, a, b []float32) {
	checkInto("Add", dst, a)
	checkInto("Add", dst, b)
	if tier := isa.Active(); tier != isa.Generic {
		addSIMD(tier, dst, a, b)
		return
	}
	for i, v := range a {
		dst[i] = v + b[i]
	}
}

// Mul sets dst[i] = a[i] * b[i].
func Mul(dst, a, b []float32) {
	checkInto("Mul", dst, a)
	checkInto("Mul", dst, b)
	if tier := isa.Active(); tier != isa.Generic {
		mulSIMD(tier, dst, a, b)
		return
	}
	for i, v := range a {
		dst[i] = v * b[i]
	}
}

// KeepAbove sets dst[i] = x[i], or 0 where it is at most thresholds[i]. NaN on either
// side keeps x[i].
func KeepAbove(dst, x, thresholds []float32) {
	checkInto("KeepAbove", dst, x)
	checkInto("KeepAbove", dst, thresholds)
	if tier := isa.Active(); tier != isa.Generic {
		keepAboveSIMD(tier, dst, x, thresholds)
		return
	}
	for i, v := range x {
		if v <= thresholds[i] {
			v = 0
		}
		dst[i] = v
	}
}

// Maximum sets dst[i] to the larger of a[i] and b[i], or NaN where either is one.
func Maximum(dst, a, b []float32) {
	checkInto("Maximum", dst, a)
	checkInto("Maximum", dst, b)
	if tier := isa.Active(); tier != isa.Generic {
		largerSIMD(tier, dst, a, b)
		return
	}
	for i, v := range a {
		dst[i] = max(v, b[i])
	}
}

// Scale sets dst[i] = a * x[i].
func Scale(dst []float32, a float32, x []float32) {
	checkInto("Scale", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		scaleSIMD(tier, dst, a, x)
		return
	}
	for i, v := range x {
		dst[i] = a * v
	}
}

// Axpy adds a * x[i] to dst[i]; the kernels round once.
func Axpy(dst []float32, a float32, x []float32) {
	checkInto("Axpy", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		axpySIMD(tier, dst, a, x)
		return
	}
	for i, v := range x {
		dst[i] += float32(a * v)
	}
}

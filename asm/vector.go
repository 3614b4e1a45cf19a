package asm

import (
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
)

// Add sets dst[i] = a[i] + b[i].
func Add(dst, a, b []float32) {
	kernel.CheckInto("asm: Add", dst, a)
	kernel.CheckInto("asm: Add", dst, b)
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
	kernel.CheckInto("asm: Mul", dst, a)
	kernel.CheckInto("asm: Mul", dst, b)
	if tier := isa.Active(); tier != isa.Generic {
		mulSIMD(tier, dst, a, b)
		return
	}
	for i, v := range a {
		dst[i] = v * b[i]
	}
}

// Maximum sets dst[i] to the larger of a[i] and b[i], or NaN where either is one.
func Maximum(dst, a, b []float32) {
	kernel.CheckInto("asm: Maximum", dst, a)
	kernel.CheckInto("asm: Maximum", dst, b)
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
	kernel.CheckInto("asm: Scale", dst, x)
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
	kernel.CheckInto("asm: Axpy", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		axpySIMD(tier, dst, a, x)
		return
	}
	for i, v := range x {
		dst[i] += float32(a * v)
	}
}

//go:build !unix

package asm

import "testing"

// guarded returns n float32; this system has no pages to protect.
func guarded(_ testing.TB, n int, _ bool) []float32 { return make([]float32, n) }

//go:build !purego

package isa

// detect returns NEON, which every arm64 has.
func detect() []Tier { return []Tier{NEON} }

//go:build purego || !(amd64 || arm64)

package isa

func detect() []Tier { return nil }

func detectUnits() Unit { return 0 }

func detectSecondCache() int { return 0 }

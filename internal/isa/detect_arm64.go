//go:build !purego

package isa

// detect returns NEON, which every arm64 has.
func detect() []Tier { return []Tier{NEON} }

// detectUnits returns none: nothing is known of those of arm64 yet.
func detectUnits() Unit { return 0 }

// detectSecondCache returns that nothing is known.
func detectSecondCache() int { return 0 }

package isa

import "testing"

func TestSecondCache(t *testing.T) {
	for bytes, want := range map[int]int{-1: 1 << 20, 0: 1 << 20, 1: 256 << 10, 512 << 10: 512 << 10, 1 << 40 >> 12: 2 << 20} {
		if got := boundCache(bytes); got != want {
			t.Errorf("a second cache said to have %d bytes is taken for %d, want %d", bytes, got, want)
		}
	}
	if n := SecondCache(); n != boundCache(n) {
		t.Errorf("SecondCache() is %d, out of bounds", n)
	}
}

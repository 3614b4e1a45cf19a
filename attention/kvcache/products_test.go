package kvcache

import (
	"math"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
)

// TestInt8Products: with products of integers a policy reads the same tokens, and its outputs are
// near those of float32; a state belongs to either operator.
func TestInt8Products(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		cfg := Config{Heads: 6, KVHeads: 2, HeadDim: 32, Keep: 2, Recent: 8, Select: Top{TopK: 20}}
		plain := operator(t, cfg)
		cfg.Int8Products = true
		rounds := operator(t, cfg)
		const n = 90
		x := newText(3, &plain.cfg, n)
		s := newState(t, plain, StateConfig{Format: asm.Int8})
		x.run(t, plain, s, 0, n-4)
		c := newState(t, rounds, StateConfig{Format: asm.Int8})
		must(t, c.CopyFrom(s))
		want, got := x.run(t, plain, s, n-4, n), x.run(t, rounds, c, n-4, n)
		for i, y := range want.Data {
			if d := math.Abs(float64(got.Data[i] - y)); !(d < 2e-3) {
				t.Fatalf("element %d is %v, %v in float32", i, got.Data[i], y)
			}
		}
	})
}

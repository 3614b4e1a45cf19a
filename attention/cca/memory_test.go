package cca

import (
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// TestCCAScratchBytes compares what a call holds with what was said before.
func TestCCAScratchBytes(t *testing.T) {
	for _, levels := range []int{1, 5} {
		for _, n := range []int{1, 500, 3000} {
			c := mustCCA(t, Config{Heads: 4, KVHeads: 2, HeadDim: 24, ValueDim: 5, GroupSize: 4, Window: 40, Levels: levels, Workers: 1})
			if err := c.Forward(zeroMatrix(n, 20), matrix(1, n, 96), matrix(2, n, 48), matrix(3, n, 10)); err != nil {
				t.Fatal(err)
			}
			held := isatest.HeldBehind(c)
			if said := c.ScratchBytes(n); held > said || held < said/4 {
				t.Errorf("%d tokens, %d levels: %d bytes, said %d", n, levels, held, said)
			}
		}
	}
}

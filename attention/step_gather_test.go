package attention

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
)

// TestGather reads tokens that stand alone, chosen from a long state, and the same tokens
// where a Keep has put them side by side: the same bits, in every format, with values that
// are a part of keys and int8 rows that stand turned, too.
func TestGather(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(11, 12))
		for trial := range 4 * len(formats) {
			format, shared := asm.Format(trial/4), trial%2 == 1
			cfg := Config{Heads: 4, KVHeads: [...]int{2, 1, 4}[trial%3], HeadDim: 32, ValueDim: [...]int{32, 16, 11}[trial%3], Causal: true, Workers: 1 + trial%4, Bias: alibi{.1, .2, .3, .4}}
			a := must(t, cfg)
			smallSteps(a)
			const n = 200
			x := tokens(a, uint64(trial), n)
			if trial%4 > 1 { // rows that are stored turned
				for i := 3; i < len(x.k.Data); i += cfg.HeadDim * (1 + trial%3) {
					x.k.Data[i] += 300
				}
			}
			state := StateConfig{Format: format, SharedValues: shared}
			if trial%3 == 0 {
				state.Pages = newPages(t, a, PagesConfig{PageTokens: 9, Format: format, SharedValues: shared})
			}
			s := newState(t, a, state)
			call := func(s *State, from, to int, list []Selection) []float32 {
				y := x.part(from, to)
				c := &Call{State: s, Dst: blank(to-from, 4*a.cfg.ValueDim), Q: y.q, K: []blas32.General{y.k}, Select: list}
				if !shared {
					c.V = []blas32.General{y.v}
				}
				if err := a.Run(context.Background(), c); err != nil {
					t.Fatal(err)
				}
				return c.Dst.Data
			}
			call(s, 0, n-1, nil)
			var rows []int32
			var list Selection
			for at := r.IntN(3); at < n-1; at += 1 + r.IntN(4) {
				rows, list = append(rows, int32(at)), append(list, Run{at, at + 1})
			}
			list = append(list, Run{n - 1, n})
			kept := s.Clone()
			must0(t, kept.Keep(rows))
			if trial%3 == 0 {
				var err error
				own := newState(t, a, StateConfig{Format: format, SharedValues: shared})
				if err = own.CopyFrom(kept); err != nil {
					t.Fatal(err)
				}
				kept = own
			}
			sameBits(t, fmt.Sprintf("%v, shared %v, trial %d", format, shared, trial), call(s, n-1, n, []Selection{list}), call(kept, n-1, n, nil))
		}
	})
}

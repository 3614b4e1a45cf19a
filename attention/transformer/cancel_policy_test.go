package transformer

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/subquad/subquad/internal/mat"
)

// TestCancelPolicies is TestCancelToken for states whose layers look at, or hold, a part of
// the past, and for a few tokens at a time.
func TestCancelPolicies(t *testing.T) {
	m, err := Open(stories, Config{})
	must(t, err)
	ids, v := tokens(m, 120), m.shape.Vocab
	stops := int64(40)
	if testing.Short() {
		stops = 4
	}
	for what, cfg := range policies() {
		cfg.MaxTokens = 0
		for _, n := range []int{1, 19} {
			st := newState(t, m, cfg)
			must(t, m.Run(t.Context(), &Call{Tokens: ids[:80], State: st}))
			fork, want, got := st.Clone(), zeros(n, v), zeros(n, v)
			must(t, m.Step(want, ids[80:80+n], fork))
			more, next := zeros(1, v), zeros(1, v)
			must(t, m.Step(more, ids[100:101], fork))
			ctx := &asked{Context: t.Context(), done: make(chan struct{})}
			run := func(st *State, end int64) error {
				ctx.times.Store(0)
				ctx.end.Store(end)
				return m.Run(ctx, &Call{Tokens: ids[80 : 80+n], State: st, Logits: got, Workers: 1})
			}
			must(t, run(st.Clone(), math.MaxInt64))
			looks := ctx.times.Load()
			// Hundreds of looks, each of which costs a call up to there: some of them, an odd
			// number apart, from the last: not all in the same place of a layer or of a token.
			for end := looks - 1; end >= 0; end -= looks/stops | 1 {
				if err := run(st, end); !errors.Is(err, context.Canceled) || st.Len() != 80 {
					t.Fatalf("%s, %d tokens, ended at look %d of %d: %v, %d tokens", what, n, end, looks, err, st.Len())
				}
			}
			must(t, run(st, math.MaxInt64))
			same(t, what+", at last", mat.Rows(got, 0, n).Data, want.Data)
			must(t, m.Step(next, ids[100:101], st))
			same(t, what+", after it", next.Data, more.Data)
			if n > 1 && looks < int64(m.shape.Layers) { // nothing stops a single token
				t.Errorf("%s: a context is asked %d times in %d layers", what, looks, m.shape.Layers)
			}
		}
	}
}

package transformer

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
)

// asked is a context that ends when it has been asked so often.
type asked struct {
	context.Context
	times, end atomic.Int64
	done       chan struct{}
}

func (c *asked) Done() <-chan struct{} { return c.done }
func (c *asked) Err() error {
	if c.times.Add(1) > c.end.Load() {
		return context.Canceled
	}
	return nil
}

// TestCancelToken ends the context of a single token wherever it is looked at: the state stands
// before the token, and goes on as if nothing had been.
func TestCancelToken(t *testing.T) {
	for _, name := range laws {
		m := open(t, name, Config{})
		if m.shape.recurrent() {
			continue
		}
		for what, cfg := range map[string]StateConfig{"plain": {}, "ring": {Window: 8, Keep: 2}, "windows": {WindowsOnly: true}} {
			ids, v := tokens(m, 120), m.shape.Vocab
			st := newState(t, m, cfg)
			must(t, m.Run(t.Context(), &Call{Tokens: ids[:100], State: st}))
			fork, want, got := st.Clone(), zeros(1, v), zeros(1, v)
			must(t, m.Step(want, ids[100:101], fork))
			must(t, m.Step(want, ids[101:102], fork))
			ctx, looks := &asked{Context: t.Context(), done: make(chan struct{})}, 0
			for ; ; looks++ {
				ctx.times.Store(0)
				ctx.end.Store(int64(looks))
				err := m.Run(ctx, &Call{Tokens: ids[100:101], State: st, Logits: got, Workers: 1})
				if err == nil {
					break
				}
				if !errors.Is(err, context.Canceled) || st.Len() != 100 {
					t.Fatalf("%s, %s, ended at look %d: %v, %d tokens", name, what, looks, err, st.Len())
				}
			}
			if looks < 4*m.shape.Layers {
				t.Errorf("%s, %s: a context is asked %d times in %d layers", name, what, looks, m.shape.Layers)
			}
			must(t, m.Step(got, ids[101:102], st))
			same(t, name+", "+what, got.Data, want.Data)
		}
	}
}

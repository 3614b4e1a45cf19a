package attention

import (
	"context"
	"testing"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
)

// TestCancelSoon ends the context of long calls at several moments: they return
// context.Canceled itself, soon, and a state stands where it was.
func TestCancelSoon(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("measures time: run without -short and -race")
	}
	const n, heads, kvHeads, d = 16384, 8, 4, 64
	a := must(t, Config{Heads: heads, KVHeads: kvHeads, HeadDim: d, Causal: true})
	q, k, v, dst := matrix(1, n, heads*d), matrix(2, n, kvHeads*d), matrix(3, n, kvHeads*d), mat.New(n, heads*d)
	calls := map[string]func() *Call{
		"forward": func() *Call { return &Call{} },
		"mass":    func() *Call { return &Call{Mass: mat.New(n, heads)} },
	}
	for _, format := range []asm.Format{asm.Float32, asm.Int8} {
		calls["step in "+format.String()] = func() *Call { return &Call{State: newState(t, a, StateConfig{Format: format})} }
	}
	for name, make := range calls {
		worst := time.Duration(0)
		for _, after := range []time.Duration{time.Millisecond, 20 * time.Millisecond, 150 * time.Millisecond, 400 * time.Millisecond} {
			c := make()
			c.Dst, c.Q, c.K, c.V = dst, q, []blas32.General{k}, []blas32.General{v}
			ctx, cancel := context.WithCancel(context.Background())
			var asked time.Time
			time.AfterFunc(after, func() { asked = time.Now(); cancel() })
			err := a.Run(ctx, c)
			late := time.Since(asked)
			if err == nil {
				continue // done before
			}
			if err != context.Canceled {
				t.Fatalf("%s: error %v", name, err)
			}
			worst = max(worst, late)
			if c.State != nil && c.State.Len() != 0 {
				t.Errorf("%s: the state has %d tokens", name, c.State.Len())
			}
		}
		t.Logf("%s: at most %v late", name, worst)
		if worst > 100*time.Millisecond { // 20 on a machine that does nothing else
			t.Errorf("%s: %v late", name, worst)
		}
	}
}

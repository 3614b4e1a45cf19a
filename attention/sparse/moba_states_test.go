package sparse

import (
	"errors"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/tile"
)

// TestMoBAStepBatch has StepBatch, and several tokens of each of many states, be what each state
// gives alone, to the bit, for any number of workers.
func TestMoBAStepBatch(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const batch, d, dv, heads, kv = 4, 5, 3, 4, 2
		end := tile.Small()
		m := mustMoBA(t, MoBAConfig{Heads: heads, KVHeads: kv, HeadDim: d, ValueDim: dv, Block: 3, TopK: 3})
		end()
		var alone, together []*MoBAState
		for b := range batch {
			s, err := m.NewState(MoBAStateConfig{})
			if err != nil {
				t.Fatal(err)
			}
			n := 9 * b
			if err := m.Step(mat.New(n, heads*dv), matrix(9, n, heads*d), matrix(uint64(b), n, kv*d), matrix(8, n, kv*dv), s); err != nil {
				t.Fatal(err)
			}
			alone, together = append(alone, s), append(together, s.Clone())
		}
		for round := range 9 {
			sizes := []int{1, 1, 1, 1}
			if round%2 == 1 {
				sizes = []int{0, 3, 4, 7}
			}
			n := sizes[0] + sizes[1] + sizes[2] + sizes[3]
			seed := uint64(10 * round)
			q, k, v := matrix(seed, n, heads*d), matrix(seed+1, n, kv*d), matrix(seed+2, n, kv*dv)
			call := attention.Call{Q: q, K: []blas32.General{k}, V: []blas32.General{v}, Offsets: []int{0}, Workers: 1 + round%3}
			want, got := mat.New(n, heads*dv), mat.New(n, heads*dv)
			for b, s := range alone {
				from := call.Offsets[b]
				part := func(m blas32.General) blas32.General { return mat.Rows(m, from, from+sizes[b]) }
				if err := m.Step(part(want), part(q), part(k), part(v), s); err != nil {
					t.Fatal(err)
				}
				call.Offsets = append(call.Offsets, from+sizes[b])
				call.States = append(call.States, together[b])
			}
			var err error
			if call.Dst = got; round%2 == 0 {
				err = m.StepBatch(got, q, k, v, together)
			} else {
				err = m.Run(t.Context(), &call)
			}
			if err != nil {
				t.Fatal(err)
			}
			sameBits(t, "a batch", got.Data, want.Data)
		}
		if err := m.StepBatch(mat.New(1, heads*dv), mat.New(1, heads*d), mat.New(1, kv*d), mat.New(1, kv*dv), nil); !errors.Is(err, ErrCall) {
			t.Errorf("error %v without states", err)
		}
	})
}

// TestMoBAFailures: where the pool of pages is exhausted after some key heads and states have
// taken up their tokens, all are as before, and go on when there is room.
func TestMoBAFailures(t *testing.T) {
	const heads, d = 2, 3
	for _, rows := range []int{mobaFewTokens, 3 * mobaFewTokens} {
		m := mustMoBA(t, MoBAConfig{Heads: heads, HeadDim: d, Block: 2, TopK: 2})
		pages, err := m.NewPages(attention.PagesConfig{PageTokens: 1, MaxPages: 2*heads*(3+rows) - 1})
		if err != nil {
			t.Fatal(err)
		}
		var states []*MoBAState
		for range 2 {
			s, err := m.NewState(MoBAStateConfig{Pages: pages})
			if err != nil {
				t.Fatal(err)
			}
			states = append(states, s)
		}
		step := func(n int) (blas32.General, error) {
			x, dst := matrix(1, 2*n, heads*d), mat.New(2*n, heads*d)
			c := &attention.Call{Dst: dst, Q: x, K: []blas32.General{x}, V: []blas32.General{x}, Offsets: []int{0, n, 2 * n}, States: []attention.Past{states[0], states[1]}}
			return dst, m.Run(t.Context(), c)
		}
		if _, err := step(3); err != nil {
			t.Fatal(err)
		}
		if _, err = step(rows); !errors.Is(err, ErrFull) || !strings.HasPrefix(err.Error(), "sparse: ") {
			t.Errorf("%d rows: error %v", rows, err)
		}
		for i, s := range states {
			for g, x := range s.tokens {
				if x.Len() != 3 || len(s.means) != heads*d {
					t.Errorf("%d rows: %d tokens of state %d, head %d, and %d means after an error", rows, x.Len(), i, g, len(s.means))
				}
			}
		}
		one, err := step(1)
		if err != nil {
			t.Fatal(err)
		}
		fresh, _ := m.NewState(MoBAStateConfig{})
		y := matrix(1, 6, heads*d)
		p := mat.Rows(y, 0, 3)
		if err := m.Step(mat.New(3, heads*d), p, p, p, fresh); err != nil {
			t.Fatal(err)
		}
		z, dst := mat.Rows(matrix(1, 2, heads*d), 0, 1), mat.New(1, heads*d)
		if err := m.Step(dst, z, z, z, fresh); err != nil {
			t.Fatal(err)
		}
		sameBits(t, "after an error", mat.Rows(one, 0, 1).Data[:heads*d], dst.Data)
	}
}

// TestMoBAMeans: a state's means have the bits of those of a whole sequence, whatever the steps.
func TestMoBAMeans(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n, d, kv, block = 50, 6, 2, 4
		m := mustMoBA(t, MoBAConfig{Heads: kv, HeadDim: d, Block: block, TopK: 2})
		k := matrix(1, n, kv*d)
		want, err := blockMeans(t.Context(), mat.Rows(k, 0, n/block*block), block)
		if err != nil {
			t.Fatal(err)
		}
		r := mobaRun{op: m}
		r.mean = r.meanTask
		whole, err := r.meansOf(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		sameBits(t, "whole", whole.Data, want.Data)
		for _, size := range []int{1, 3, 7, n} {
			s, err := m.NewState(MoBAStateConfig{})
			if err != nil {
				t.Fatal(err)
			}
			for from := 0; from < n; from += size {
				x := mat.Rows(k, from, min(from+size, n))
				if err := m.Step(mat.New(x.Rows, kv*d), x, x, x, s); err != nil {
					t.Fatal(err)
				}
			}
			sameBits(t, "steps", s.means, want.Data)
		}
	})
}

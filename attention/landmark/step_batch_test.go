package landmark

import (
	"errors"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
)

// TestStepBatch: StepBatch is Step of each state, states of several lengths and across
// the ends of blocks.
func TestStepBatch(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const batch, d, heads = 4, 5, 2
		l := mustLandmark(t, Config{Heads: heads, HeadDim: d, Block: 3, TopK: 2})
		m := mustMeta(t, MetaConfig{Heads: heads, HeadDim: d})
		var alone, together []*State
		var aloneMeta, togetherMeta []*MetaState
		for b := range batch {
			s, err := l.NewState(StateConfig{})
			ms, other := m.NewState(MetaStateConfig{})
			if err != nil || other != nil {
				t.Fatal(err, other)
			}
			x := matrix(uint64(b), 5*b, heads*d)
			marks, meta := make([]bool, 5*b), make([]bool, 5*b)
			for i := range marks {
				marks[i], meta[i] = l.IsLandmark(int64(i)), i%2 > 0
			}
			if err := errors.Join(l.Step(zeroMatrix(5*b, heads*d), x, x, x, marks, s), m.Step(zeroMatrix(5*b, heads*d), x, x, x, meta, ms)); err != nil {
				t.Fatal(err)
			}
			alone, together = append(alone, s), append(together, s.Clone())
			aloneMeta, togetherMeta = append(aloneMeta, ms), append(togetherMeta, ms.Clone())
		}
		for round := range 7 {
			seed := uint64(10 * round)
			q, k, v := matrix(seed, batch, heads*d), matrix(seed+1, batch, heads*d), matrix(seed+2, batch, heads*d)
			want, got := zeroMatrix(batch, heads*d), zeroMatrix(batch, heads*d)
			wantMeta, gotMeta := zeroMatrix(batch, heads*d), zeroMatrix(batch, heads*d)
			marks, meta := make([]bool, batch), make([]bool, batch)
			for b := range batch {
				marks[b], meta[b] = l.IsLandmark(int64(alone[b].Len())), (b+round)%3 > 0
				one := func(m blas32.General) blas32.General { return part(m, b, b+1) }
				if err := l.Step(one(want), one(q), one(k), one(v), marks[b:b+1], alone[b]); err != nil {
					t.Fatal(err)
				}
				if err := m.Step(one(wantMeta), one(q), one(k), one(v), meta[b:b+1], aloneMeta[b]); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(l.StepBatch(got, q, k, v, marks, together), m.StepBatch(gotMeta, q, k, v, meta, togetherMeta)); err != nil {
				t.Fatal(err)
			}
			sameBits(t, "landmarks", got.Data, want.Data)
			sameBits(t, "meta", gotMeta.Data, wantMeta.Data)
			for b := range batch {
				if together[b].Len() != alone[b].Len() || togetherMeta[b].Len() != aloneMeta[b].Len() {
					t.Fatalf("states of %d and %d tokens, want %d and %d", together[b].Len(), togetherMeta[b].Len(), alone[b].Len(), aloneMeta[b].Len())
				}
			}
		}
		x := zeroMatrix(1, heads*d)
		for what, err := range map[string]error{
			"landmark: no states": l.StepBatch(zeroMatrix(1, heads*d), x, x, x, []bool{false}, nil),
			"meta: no states":     m.StepBatch(zeroMatrix(1, heads*d), x, x, x, []bool{false}, nil),
		} {
			if !errors.Is(err, attention.ErrCall) {
				t.Errorf("%s: error %v", what, err)
			}
		}
	})
}

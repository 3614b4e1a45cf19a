package approx

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/subquad/subquad/internal/state/statetest"
)

// FuzzReadState reads hostile files of every operator that has states: an error that matches
// ErrState, or a state that works and is stored as it was read.
func FuzzReadState(f *testing.F) {
	var all []*featured
	for _, op := range operators(f, shape{2, 1, 2, 3}, 1) {
		l := featuredOf(op.run)
		if l == nil || l.still != "" {
			continue
		}
		all = append(all, l)
		for _, n := range []int{0, 3, foldTokens + 9} {
			s := value[*LinearState](f)(l.newState(StateConfig{}))
			c := randomCall(1, l.sums.shape, n, n)
			c.State = s
			if err := l.attend(context.Background(), c.call()); err != nil {
				f.Fatal(err)
			}
			statetest.Add(f, s)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, l := range all {
			s, err := l.readState(statetest.Sealed(data))
			if err != nil {
				if !errors.Is(err, ErrState) {
					t.Fatalf("error %v", err)
				}
				continue
			}
			fork := s.Clone()
			for _, n := range []int{1, 70} {
				c := randomCall(1, l.sums.shape, n, n)
				c.State = s
				before := s.Len()
				if err := l.attend(context.Background(), c.call()); err != nil && !errors.Is(err, ErrFull) {
					t.Fatalf("error %v", err)
				} else if want := before + n; err == nil && s.Len() != want {
					t.Fatalf("Len is %d, want %d", s.Len(), want)
				}
			}
			if fork.folded < 0 || fork.folded > fork.n {
				t.Fatalf("%d of %d tokens are folded", fork.folded, fork.n)
			}
			if sum, z := fork.Sums(0); sum.Rows != l.sums.width || len(z) != l.sums.width {
				t.Fatalf("sums are %d x %d and %d", sum.Rows, sum.Cols, len(z))
			}
			var again bytes.Buffer
			if _, err := fork.WriteTo(&again); err != nil || !bytes.HasPrefix(again.Bytes(), data) || again.Len() != len(data)+4 {
				t.Fatalf("error %v, or another file", err)
			}
		}
	})
}

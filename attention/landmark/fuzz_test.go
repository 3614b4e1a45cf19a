package landmark

import (
	"errors"
	"testing"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/state/statetest"
)

// FuzzReadState reads hostile files: an error that matches ErrState, or a state
// that works.
func FuzzReadState(f *testing.F) {
	l := mustLandmark(f, Config{Heads: 2, HeadDim: 2, Block: 2})
	m := mustMeta(f, MetaConfig{Heads: 2, HeadDim: 2})
	x := matrix(1, 9, 4)
	is := make([]bool, 9)
	for i := range is {
		is[i] = l.IsLandmark(int64(i))
	}
	ls, _ := l.NewState(StateConfig{})
	ms, _ := m.NewState(MetaStateConfig{})
	for _, err := range []error{l.Step(zeroMatrix(9, 4), x, x, x, is, ls), m.Step(zeroMatrix(9, 4), x, x, x, is, ms)} {
		if err != nil {
			f.Fatal(err)
		}
	}
	statetest.Add(f, ls)
	statetest.Add(f, ms)
	f.Fuzz(func(t *testing.T, data []byte) {
		x := matrix(1, 1, 4)
		try := func(err error, step func() error) {
			if err != nil {
				if !errors.Is(err, attention.ErrState) {
					t.Fatalf("error %v", err)
				}
				return
			}
			if err := step(); err != nil && !errors.Is(err, attention.ErrCall) && !errors.Is(err, attention.ErrFull) {
				t.Fatalf("error %v", err)
			}
		}
		ls, err := l.ReadState(statetest.Sealed(data))
		try(err, func() error {
			return l.Step(zeroMatrix(1, 4), x, x, x, []bool{l.IsLandmark(int64(ls.Len()))}, ls)
		})
		ms, err := m.ReadState(statetest.Sealed(data))
		try(err, func() error { return m.Step(zeroMatrix(1, 4), x, x, x, []bool{true}, ms) })
	})
}

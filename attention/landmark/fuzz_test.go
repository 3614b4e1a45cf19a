package landmark

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/state/statetest"
)

// FuzzReadState reads hostile files: an error that matches ErrState, or a state
// that works. The parts after a file's head have checksums of their own, and package
// attention's own test.
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
	statetest.AddParts(f, ls, 8*(2+len(l.fingerprint())+4))
	statetest.AddParts(f, ms, 8*(2+len(m.fingerprint())+4))
	f.Fuzz(func(t *testing.T, head, parts []byte) {
		file := func() io.Reader { return io.MultiReader(statetest.Sealed(head), bytes.NewReader(parts)) }
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
		ls, err := l.ReadState(file())
		try(err, func() error {
			return l.Step(zeroMatrix(1, 4), x, x, x, []bool{l.IsLandmark(int64(ls.Len()))}, ls)
		})
		ms, err := m.ReadState(file())
		try(err, func() error { return m.Step(zeroMatrix(1, 4), x, x, x, []bool{true}, ms) })
	})
}

package approx

import (
	"io"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

const stateKind = "sqLinSum"

// numbers are what a stored state tells of its operator's shape.
func (s *shape) numbers() []int64 {
	return []int64{int64(s.heads), int64(s.kvHeads), int64(s.dim), int64(s.valueDim)}
}

// WriteTo stores the state, without its snapshots. It implements io.WriterTo. Errors match
// ErrState or are those of w.
func (s *LinearState) WriteTo(w io.Writer) (int64, error) {
	if s.fingerprint == 0 {
		return 0, check.Errorf(ErrState, "approx: the state was not made by NewState")
	}
	if err := check.Stream(ErrState, "approx", "writer", w); err != nil {
		return 0, err
	}
	f := state.NewWriter(w, stateKind, s.numbers)
	f.Ints(int64(s.n), int64(s.folded))
	f.Floats(s.values)
	return f.End()
}

// ReadState reads a state that WriteTo wrote of this Linear, or of one with the
// same heads, widths and Eps. Errors match ErrState or are those of r.
func (l *Linear) ReadState(r io.Reader) (*LinearState, error) { return l.readState(r) }

// readState is the operators' ReadState.
func (l *featured) readState(r io.Reader) (*LinearState, error) {
	s, err := l.newState(StateConfig{})
	if err != nil {
		return nil, err
	}
	f := state.NewReader(r, "approx", ErrState, stateKind, l.numbers)
	n := f.Int()
	if n < 0 || n > maxLen {
		f.Fail("it is of %d tokens, want 0 to %d", n, int64(maxLen))
	}
	folded := f.Int()
	if folded < 0 || folded > n {
		f.Fail("%d of its %d tokens are folded", folded, n)
	}
	s.n, s.folded, s.values = int(n), int(folded), f.Floats(int64(len(s.values)))
	if err := f.End(); err != nil {
		return nil, err
	}
	return s, nil
}

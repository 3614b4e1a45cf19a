package ssm

import (
	"io"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// A stored state has this kind, the fingerprint, how many tokens it has seen, and its
// values.
const stateKind = "sqSSM\x00\x00\x03"

// WriteTo stores the state, without its snapshots and filter. It implements
// io.WriterTo. Errors match ErrState or are those of w.
func (st *State) WriteTo(w io.Writer) (int64, error) {
	if st.kind == nil {
		return 0, check.Errorf(ErrState, "ssm: the state was not made by NewState")
	}
	if err := st.kind.accept("the state", st); err != nil {
		return 0, err
	}
	if err := check.Stream(ErrState, "ssm", "writer", w); err != nil {
		return 0, err
	}
	f := state.NewWriter(w, stateKind, []int64{int64(st.kind.hash)})
	f.Ints(int64(st.n))
	f.Floats(st.values)
	n, err := f.End()
	return n, wrapped(err)
}

// readState reads a state that WriteTo wrote.
func (k *kind) readState(r io.Reader) (*State, error) {
	f := state.NewReader(r, "ssm", ErrState, stateKind, []int64{int64(k.hash)})
	n := f.Int()
	if n < 0 || n > maxTokens {
		f.Fail("it has seen %d tokens, want 0 to %d", n, int64(maxTokens))
	}
	st := &State{kind: k, values: f.Floats(int64(k.size)), n: int(n)}
	if err := f.End(); err != nil {
		return nil, err
	}
	return st, nil
}

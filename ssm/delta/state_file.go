package delta

import (
	"fmt"
	"io"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// A stored state has this kind, the fingerprint, how many tokens it has seen, n, or -1-n
// where it was written to, and its values: of a head's matrix [K, V] 32 columns after the
// other.
const stateKind = "sqDelta\x01"

// WriteTo stores the state, without its snapshots. It implements io.WriterTo. Errors
// match ErrState or are those of w.
func (st *State) WriteTo(w io.Writer) (int64, error) {
	if st.kind == nil {
		return 0, check.Errorf(ErrState, "delta: the state was not made by NewState")
	}
	f := state.NewWriter(w, stateKind, []int64{int64(st.kind.hash)})
	seen := int64(st.n)
	if st.given {
		seen = -1 - seen
	}
	f.Ints(seen)
	f.Floats(st.values)
	n, err := f.End()
	if err != nil {
		return n, fmt.Errorf("delta: %w", err)
	}
	return n, nil
}

// readState reads a state that WriteTo wrote.
func (k *kind) readState(r io.Reader) (*State, error) {
	f := state.NewReader(r, "delta", ErrState, stateKind, []int64{int64(k.hash)})
	n := f.Int()
	given := n < 0
	if given {
		n = -1 - n
	}
	if n > maxTokens {
		f.Fail("it has seen %d tokens, want 0 to %d", n, int64(maxTokens))
	}
	st := &State{kind: k, values: f.Floats(int64(k.size)), n: int(n), given: given}
	if err := f.End(); err != nil {
		return nil, err
	}
	st.values = largeCopy(st.values)
	return st, nil
}

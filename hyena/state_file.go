package hyena

import (
	"fmt"
	"io"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// A stored state has this kind, the fingerprint, how many tokens it has seen, its values, and
// the inputs of each long convolution: what they add up to is computed again by the next step.
const stateKind = "sqHyena1"

// WriteTo stores the state, without its snapshots. It implements io.WriterTo. Errors match
// ErrState or are those of w.
func (st *State) WriteTo(w io.Writer) (int64, error) {
	switch {
	case st.kind == nil:
		return 0, check.Errorf(ErrState, "hyena: the state was not made by NewState")
	case w == nil:
		return 0, check.Errorf(ErrState, "hyena: the writer is nil")
	}
	f := state.NewWriter(w, stateKind, []int64{int64(st.kind.hash)})
	f.Ints(int64(st.n))
	f.Floats(st.values)
	for _, s := range st.streams {
		f.Floats(s.held())
	}
	n, err := f.End()
	return n, wrapped(err)
}

// readState reads a state that WriteTo wrote.
func (k *kind) readState(r io.Reader) (*State, error) {
	if r == nil {
		return nil, check.Errorf(ErrState, "hyena: the reader is nil")
	}
	f := state.NewReader(r, pkg, ErrState, stateKind, []int64{int64(k.hash)})
	n := f.Int()
	if n < 0 || n > int64(k.most) {
		f.Fail("it has seen %d tokens, want 0 to %d", n, k.most)
		n = 0
	}
	st, err := k.newState(StateConfig{})
	if err != nil {
		return nil, err
	}
	st.values = f.Floats(int64(k.size))
	var held [][]float32
	for _, s := range st.streams {
		held = append(held, f.Floats(s.heldFloats(int(n))))
	}
	if err := f.End(); err != nil {
		return nil, err
	}
	for i, s := range st.streams {
		s.refill(held[i], int(n))
	}
	st.n = int(n)
	return st, nil
}

// wrapped gives an error of an io.Writer the package's name.
func wrapped(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", pkg, err)
}

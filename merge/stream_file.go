package merge

import (
	"io"
	"math"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

const stateKind = "sqMerge\x01"

// WriteTo stores the state. It implements io.WriterTo. Errors match ErrState or are those of
// w.
func (st *State) WriteTo(w io.Writer) (int64, error) {
	if st.fingerprint == 0 {
		return 0, check.Errorf(ErrState, "merge: the state was not made by NewState")
	}
	if err := check.Stream(ErrState, "merge", "writer", w); err != nil {
		return 0, err
	}
	f := state.NewWriter(w, stateKind, st.cfg.numbers())
	f.Ints(st.n, state.Bool(st.waiting))
	if st.waiting {
		f.Floats([]float32{st.size})
		f.Floats(st.x)
		f.Floats(st.metric)
	}
	return f.End()
}

// ReadState reads a state that WriteTo wrote of a stream of the same Config. Errors match
// ErrState or are those of r.
func (op *Stream) ReadState(r io.Reader) (*State, error) {
	f := state.NewReader(r, "merge", ErrState, stateKind, op.cfg.numbers())
	st := new(State)
	st.fit(op)
	n, waiting := f.Int(), f.Int()
	if n < 0 || n > maxLen || waiting>>1 != 0 || waiting > n {
		f.Fail("it has %d tokens, of which %d wait", n, waiting)
	}
	if st.n, st.waiting = n, waiting == 1; st.waiting && f.Err() == nil {
		size := f.Floats(1)
		st.x, st.metric = f.Floats(int64(len(st.x))), f.Floats(int64(len(st.metric)))
		if f.Err() == nil && !(size[0] > 0 && size[0] <= math.MaxFloat32) {
			f.Fail("the token that waits has size %v", size[0])
		}
		if f.Err() == nil {
			st.size = size[0]
		}
	}
	if err := f.End(); err != nil {
		return nil, err
	}
	return st, nil
}

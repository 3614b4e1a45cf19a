package delta

import "io"

// stateKind is what a stored state begins with: the values of a head's matrix [K, V] are 32
// columns after the other.
const stateKind = "sqDelta\x01"

// WriteTo stores the state, without its snapshots. It implements io.WriterTo. Errors
// match ErrState or are those of w.
func (st *State) WriteTo(w io.Writer) (int64, error) { return st.fixed.WriteTo("delta", w) }

// readState reads a state that WriteTo wrote.
func (k *kind) readState(r io.Reader) (*State, error) {
	fixed, err := k.Read(r)
	if err != nil {
		return nil, err
	}
	return &State{fixed}, nil
}

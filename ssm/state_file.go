package ssm

import "io"

// stateKind is what a stored state begins with.
const stateKind = "sqSSM\x00\x00\x03"

// WriteTo stores the state, without its snapshots and filter. It implements
// io.WriterTo. Errors match ErrState or are those of w.
func (st *State) WriteTo(w io.Writer) (int64, error) { return st.fixed.WriteTo("ssm", w) }

// readState reads a state that WriteTo wrote.
func (k *kind) readState(r io.Reader) (*State, error) {
	fixed, err := k.Read(r)
	if err != nil {
		return nil, err
	}
	return &State{kind: k, fixed: fixed}, nil
}

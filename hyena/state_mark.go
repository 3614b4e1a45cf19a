package hyena

import "github.com/subquad/subquad/internal/check"

// Mark is a point that a State can come back to: what does not grow, and the number of tokens.
// Its zero value is ready for a Save, of states of any operator.
type Mark struct {
	kind   *kind
	n      int
	values []float32
}

// Bytes returns the memory of the mark.
func (m *Mark) Bytes() int64 { return floatBytes(cap(m.values)) }

// Clone returns a copy.
func (m *Mark) Clone() *Mark {
	c := *m
	c.values = append([]float32{}, m.values...)
	return &c
}

// Save notes in m what the state is. After the first time of a mark it allocates nothing.
func (st *State) Save(m *Mark) {
	m.kind, m.n = st.kind, st.n
	m.values = append(m.values[:0], st.values...)
}

// Restore makes the state what it was, or what one that it is a Clone of was, when m was saved:
// as Truncate does, of any point that has been saved. It must have gone on from that point: after
// a Truncate to fewer tokens, and others since, the mark is of a sequence that is no more, which
// cannot be told. Errors match ErrState.
func (st *State) Restore(m *Mark) error {
	switch {
	case st.kind == nil || m == nil || m.kind == nil:
		return check.Errorf(ErrState, "hyena: a mark that was not saved, or a state that was not made by NewState")
	case m.kind.name != st.kind.name || m.kind.hash != st.kind.hash:
		return check.Errorf(ErrState, "hyena: the mark is of the state of another operator")
	case m.n == 0:
		st.Reset()
		return nil
	case m.n > st.n || !st.canReturn(m.n):
		return check.Errorf(ErrState, "hyena: the inputs before token %d of %d are not kept any more", m.n, st.n)
	}
	st.ring.Forget(m.n)
	copy(st.values, m.values)
	st.goBack(m.n)
	return nil
}

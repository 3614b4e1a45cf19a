package striped

import (
	"bytes"
	"errors"
	"testing"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileStates reads files of states that another program has changed.
func TestHostileStates(t *testing.T) {
	m, ids := read(t, small.random(4), small.config()), ids(1, 40, small.vocab)
	st := newState(t, m)
	must(t, m.Step(mat.New(30, small.vocab), ids[:30], st))
	statetest.Mutate(t, st, m.ReadState, func(st *State) error {
		if err := m.Step(mat.New(1, small.vocab), ids[30:31], st); err != nil {
			return err
		}
		return m.Step(mat.New(9, small.vocab), ids[31:], st)
	})
}

// TestStoredRoom: a stored state is full where it was, and then no layer takes a token.
func TestStoredRoom(t *testing.T) {
	m, ids := read(t, small.random(4), small.config()), ids(1, 31, small.vocab)
	st, err := m.NewState(StateConfig{MaxTokens: 30})
	must(t, err)
	must(t, m.Step(mat.New(30, small.vocab), ids[:30], st))
	for range 2 {
		var file bytes.Buffer
		_, err := st.WriteTo(&file)
		must(t, err)
		st, err = m.ReadState(&file)
		must(t, err)
		if err := m.Step(mat.New(1, small.vocab), ids[30:], st); !errors.Is(err, ErrFull) || st.Len() != 30 {
			t.Errorf("error %v, %d tokens", err, st.Len())
		}
	}
}

package lm

import (
	"errors"
	"fmt"
	"io"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// kindState begins the file of a state.
const kindState = "subqlm.1"

// WriteTo stores the state, without its snapshots and filter: a header with a fingerprint of
// the model, the number of tokens, and then each mixer's state as its package stores it. It
// implements io.WriterTo.
func (st *State) WriteTo(w io.Writer) (int64, error) {
	if st.fingerprint == 0 {
		return 0, check.Errorf(subquad.ErrState, "%s: the state was not made by NewState", st.name())
	}
	if err := check.Stream(subquad.ErrState, st.pkg, "writer", w); err != nil {
		return 0, err
	}
	if err := st.whole(); err != nil {
		return 0, err
	}
	head := state.NewWriter(w, kindState, []int64{int64(st.fingerprint)})
	head.Ints(int64(st.tokens))
	parts := make([]io.WriterTo, len(st.layers))
	for i, l := range st.layers {
		parts[i] = l
	}
	n, err := head.End(parts...)
	return n, wrapped(st.pkg, err)
}

// ConfigReader is a Streamer some of whose states can only be read by who knows their
// configuration.
type ConfigReader interface {
	ReadStateWith(r io.Reader, cfg StateConfig) (LayerState, error)
}

// ReadState reads a state that WriteTo wrote, of this model or of one with the same
// configuration and weights. Errors match ErrState or are those of r.
func (m *Model) ReadState(r io.Reader) (*State, error) { return m.ReadStateWith(r, StateConfig{}) }

// ReadStateWith is ReadState of a state with Policies, which a file does not tell, only check:
// those of cfg must be the state's own, and Length and Policy too.
func (m *Model) ReadStateWith(r io.Reader, cfg StateConfig) (*State, error) {
	if !m.streams {
		return nil, check.Errorf(subquad.ErrCall, "%s: the model cannot go on from a state", m.cfg.Package)
	}
	head := state.NewReader(r, m.cfg.Package, subquad.ErrState, kindState, []int64{int64(m.fingerprint)})
	st := m.emptyState()
	tokens := head.Int()
	if err := head.End(); err != nil {
		return nil, err
	}
	if tokens < 0 || tokens > maxTokens || int64(int(tokens)) != tokens {
		return nil, check.Errorf(subquad.ErrState, "%s: the stored state has seen %d tokens", m.cfg.Package, tokens)
	}
	st.tokens = int(tokens)
	for i, s := range m.streamers {
		read := s.ReadState
		if c, ok := s.(ConfigReader); ok {
			read = func(r io.Reader) (LayerState, error) { return c.ReadStateWith(r, cfg) }
		}
		l, err := read(r)
		switch {
		case err != nil && errors.Is(err, subquad.ErrState):
			return nil, check.Errorf(subquad.ErrState, "%s: layer %d: %v", m.cfg.Package, i, err)
		case err != nil:
			return nil, fmt.Errorf("%s: layer %d: %w", m.cfg.Package, i, err)
		case l.Len() != st.tokens:
			return nil, check.Errorf(subquad.ErrState, "%s: layer %d has seen %d tokens, the model %d", m.cfg.Package, i, l.Len(), st.tokens)
		}
		st.layers = append(st.layers, l)
	}
	return st, nil
}

// wrapped gives an error of a mixer the package's name.
func wrapped(pkg string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", pkg, err)
}

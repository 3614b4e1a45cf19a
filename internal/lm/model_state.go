package lm

import (
	"io"
	"math"
	"reflect"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention/kvcache"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/rope"
)

// LayerState is what a mixer remembers of one sequence.
type LayerState interface {
	Len() int
	Bytes() int64
	Reset()
	Clone() LayerState
	// CopyFrom makes the state what another of the same mixer is.
	CopyFrom(from LayerState) error
	// WriteTo stores the state with a fingerprint of its mixer.
	WriteTo(w io.Writer) (int64, error)
	// Room returns an error that matches ErrFull where no more tokens fit.
	Room(tokens int) error
	// NewMark returns memory for a Save, whatever Bytes says of it.
	NewMark() Mark
	// Save notes in a mark how Restore comes back to this point: from any point that up to
	// 512 tokens more lead to and, if it can be a snapshot, from any later one.
	Save(mark Mark)
	Restore(mark Mark) error
	// CanTruncate returns nil where Truncate can go back to the first n tokens without a
	// mark.
	CanTruncate(n int) bool
	Truncate(n int) error
}

// Mark is a point that a LayerState can come back to: a copy of a recurrence, the length of
// a list of keys.
type Mark interface {
	Bytes() int64
	Clone() Mark
}

// StateConfig is what must be known of a state in advance.
type StateConfig struct {
	// Snapshots is how many earlier versions of itself the state keeps, those after each of
	// the last Snapshots calls, for Truncate. 0 is none.
	Snapshots int
	// MaxTokens is the most tokens that the state may have, for mixers whose memory grows
	// with them; 0 is no bound.
	MaxTokens int
	// Length is how many tokens the sequence will have, where that is known, for rotary
	// positions whose frequencies depend on it; 0 is unknown.
	Length int
	// Policy says how rotary positions go on where it is not known.
	Policy rope.Policy
	// Format is how keys and values are stored. Recurrences are float32.
	Format asm.Format
	// Window has attention see no more than the last Window tokens and the first Keep, and
	// keep no others; 0 is all. WindowsOnly keeps no more than their window in layers that
	// have one of their own.
	Window, Keep int
	WindowsOnly  bool
	// Policies returns, for the attention of each layer, what to look at and what to forget,
	// or nil for neither. Its shape, Rotation and Workers are the layer's.
	Policies func(layer int) *kvcache.Config
}

// Undoer is a LayerState that can take its last token back without a mark. A model of such
// states alone looks at ctx within a token.
type Undoer interface {
	// Undo goes back to n tokens, of which the state has one more at the most.
	Undo(n int) error
}

// Planner is a LayerState that is to know how many tokens its sequence will have, which is
// empty yet. States of calls that were given none are told.
type Planner interface {
	Plan(tokens int)
}

// State is what a model remembers of the tokens it has seen: a prefix that can be kept,
// copied and gone on from. It is made by NewState, belongs to every model with the same
// configuration and weights, and must not be used by two calls at once.
type State struct {
	pkg         string
	fingerprint uint64
	layers      []LayerState // of the mixers, in their order
	tokens      int
	ring        state.Ring[[]Mark]
}

// maxSnapshots bounds StateConfig.Snapshots, maxTokens its MaxTokens and Length.
const (
	maxSnapshots = 1 << 20
	maxTokens    = min(1<<40, math.MaxInt/2)
)

// NewState returns an empty state. Errors match ErrConfig, ErrFull, or ErrCall where the
// model cannot go on from one.
func (m *Model) NewState(cfg StateConfig) (*State, error) {
	switch {
	case !m.streams:
		return nil, check.Errorf(subquad.ErrCall, "%s: the model cannot go on from a state", m.cfg.Package)
	case cfg.Snapshots < 0 || cfg.Snapshots > maxSnapshots:
		return nil, check.Errorf(subquad.ErrConfig, "%s: Snapshots is %d, want 0 to %d", m.cfg.Package, cfg.Snapshots, maxSnapshots)
	case cfg.Length < 0 || int64(cfg.Length) > maxTokens:
		return nil, check.Errorf(subquad.ErrConfig, "%s: Length is %d, want 0 to %d", m.cfg.Package, cfg.Length, int64(maxTokens))
	case cfg.Format > asm.Float16:
		return nil, check.Errorf(subquad.ErrConfig, "%s: Format is %d", m.cfg.Package, cfg.Format)
	case cfg.MaxTokens < 0 || int64(cfg.MaxTokens) > maxTokens:
		return nil, check.Errorf(subquad.ErrConfig, "%s: MaxTokens is %d, want 0 to %d", m.cfg.Package, cfg.MaxTokens, int64(maxTokens))
	}
	st := m.emptyState()
	for _, s := range m.streamers {
		l, err := s.NewState(cfg)
		if err != nil {
			return nil, wrapped(m.cfg.Package, err)
		}
		st.layers = append(st.layers, l)
	}
	st.ring = state.NewRing(cfg.Snapshots, st.newMarks)
	return st, nil
}

func (m *Model) emptyState() *State {
	return &State{pkg: m.cfg.Package, fingerprint: m.fingerprint}
}

// newState returns a state for a run's own use.
func (m *Model) newState() *State {
	st, err := m.NewState(StateConfig{})
	if err != nil {
		panic(err) // comes back as the call's error; mixers can make a state of any length
	}
	return st
}

func (st *State) newMarks() (list []Mark) {
	for _, l := range st.layers {
		list = append(list, l.NewMark())
	}
	return list
}

// Len returns how many tokens the state has seen.
func (st *State) Len() int { return st.tokens }

// Layer returns the state of a mixer, by its number.
func (st *State) Layer(mixer int) LayerState { return st.layers[mixer] }

// LayerAt is Layer, or false where there is no mixer of that number.
func (st *State) LayerAt(mixer int) (LayerState, bool) {
	if mixer < 0 || mixer >= len(st.layers) {
		return nil, false
	}
	return st.layers[mixer], true
}

// Bytes returns the memory of the state, with its snapshots.
func (st *State) Bytes() (n int64) {
	for _, l := range st.layers {
		n += l.Bytes()
	}
	for marks := range st.ring.All {
		for _, mark := range *marks {
			n += mark.Bytes()
		}
	}
	return n
}

// Reset makes the state what NewState made it; a filter stays.
func (st *State) Reset() {
	for _, l := range st.layers {
		l.Reset()
	}
	st.tokens = 0
	st.ring.Forget(-1)
}

// Clone returns a copy, snapshots included: a fork, each side of which goes on by itself.
func (st *State) Clone() *State {
	c := &State{pkg: st.pkg, fingerprint: st.fingerprint, tokens: st.tokens}
	for _, l := range st.layers {
		c.layers = append(c.layers, l.Clone())
	}
	c.ring = st.ring.Clone(func(marks []Mark) (list []Mark) {
		for _, mark := range marks {
			list = append(list, mark.Clone())
		}
		return list
	})
	return c
}

// CopyFrom makes the state what another of the same model is, filter included and without
// its snapshots; those of st are forgotten. Where memory does not grow with tokens it
// allocates nothing.
func (st *State) CopyFrom(from *State) error {
	switch {
	case st.fingerprint == 0:
		return check.Errorf(subquad.ErrState, "%s: the state was not made by NewState", st.name())
	case from == nil:
		return check.NilState(st.pkg, "the state to copy")
	case from.fingerprint != st.fingerprint:
		return check.Errorf(subquad.ErrState, "%s: the state to copy is of another model", st.pkg)
	case from == st:
		return nil
	}
	for i, l := range st.layers {
		if c, ok := l.(interface{ CanCopy(from LayerState) error }); ok {
			if err := c.CanCopy(from.layers[i]); err != nil {
				return wrapped(st.pkg, err)
			}
		}
	}
	for i, l := range st.layers {
		if err := l.CopyFrom(from.layers[i]); err != nil {
			return wrapped(st.pkg, err)
		}
	}
	st.tokens = from.tokens
	st.ring.Forget(-1)
	return nil
}

// Truncate goes back to the first n tokens: to 0, to Len, to those that the state has a
// snapshot of (StateConfig.Snapshots) or, where no mixer is recurrent, to any that it still
// has. It returns an error that matches ErrState, and changes nothing, where it cannot.
func (st *State) Truncate(n int) error {
	switch {
	case n < 0 || n > st.tokens:
		return check.Errorf(subquad.ErrState, "%s: n is %d, want 0 to Len = %d", st.name(), n, st.tokens)
	case n == st.tokens && st.whole() == nil:
		return nil
	case n == 0:
		st.Reset()
		return nil
	}
	marks := st.ring.Back(n)
	if marks == nil {
		for _, l := range st.layers {
			if !l.CanTruncate(n) {
				return check.Errorf(subquad.ErrState, "%s: no snapshot of the first %d tokens in a state of %d; it keeps those after its last %d calls", st.pkg, n, st.tokens, st.ring.Len())
			}
		}
		st.ring.Forget(n)
	}
	for i, l := range st.layers {
		var err error
		if marks != nil {
			err = l.Restore((*marks)[i])
		} else {
			err = l.Truncate(n)
		}
		if err != nil {
			return wrapped(st.pkg, err)
		}
	}
	st.tokens = n
	return nil
}

// keep takes a snapshot.
func (st *State) keep() {
	if marks := st.ring.Next(st.tokens); marks != nil {
		for i, l := range st.layers {
			l.Save((*marks)[i])
		}
	}
}

// name returns the package's name, of a state that may be no model's.
func (st *State) name() string {
	if st.pkg == "" {
		return "lm"
	}
	return st.pkg
}

// checkState returns an error unless st is a state of the model.
func (m *Model) checkState(name string, st *State) error {
	switch {
	case st == nil:
		return check.NilState(m.cfg.Package, name)
	case st.fingerprint == 0:
		return check.Errorf(subquad.ErrState, "%s: %s was not made by NewState", m.cfg.Package, name)
	case st.fingerprint != m.fingerprint:
		return check.Errorf(subquad.ErrState, "%s: %s is of another model, or one with other weights", m.cfg.Package, name)
	}
	return st.whole()
}

// whole returns an error unless all layers have seen the same tokens.
func (st *State) whole() error {
	for i, l := range st.layers {
		if n := l.Len(); n != st.tokens {
			return check.Errorf(subquad.ErrState, "%s: a call has failed when layer %d had seen %d tokens, the model %d; Reset the state, or Truncate it to a snapshot", st.pkg, i, n, st.tokens)
		}
	}
	return nil
}

// takeBack brings layers back where a call has failed of which nothing was saved, as with a
// state of a file that we have not written. Those that cannot go back keep the state from
// being used.
func (s *run) takeBack() {
	for _, st := range s.states {
		for _, l := range st.layers {
			if u, ok := l.(Undoer); ok {
				u.Undo(st.tokens)
			} else if l.CanTruncate(st.tokens) {
				l.Truncate(st.tokens)
			}
		}
	}
}

// room returns an error where the call's tokens do not fit into a state.
func (s *run) room() error {
	for i, st := range s.layout.States {
		g := s.layout.Segments[i]
		if n := g.To - g.From; n > maxTokens-st.tokens {
			return check.Errorf(subquad.ErrFull, "%s: %d tokens after %d, want at most %d in all", st.pkg, n, st.tokens, int64(maxTokens))
		}
		for _, l := range st.layers {
			if err := l.Room(g.To - g.From); err != nil {
				return err
			}
		}
	}
	return nil
}

// save notes what the piece's states are.
func (s *run) save() {
	for i, st := range s.states {
		if i == len(s.marks) {
			s.marks = append(s.marks, make([]Mark, len(st.layers)))
			s.marked = append(s.marked, make([]reflect.Type, len(st.layers)))
		}
		for j, l := range st.layers {
			// A layer's states may be of several types, which the last call's need not have been.
			if t := reflect.TypeOf(l); s.marked[i][j] != t {
				s.marks[i][j], s.marked[i][j] = l.NewMark(), t
			}
			l.Save(s.marks[i][j])
		}
	}
}

// restore brings the piece's states back to what they were when save noted it.
func (s *run) restore() {
	for i, st := range s.states {
		for j, l := range st.layers {
			if err := l.Restore(s.marks[i][j]); err != nil {
				panic(err) // a mixer's Save and Restore do not agree
			}
		}
	}
}

// undoable tells whether the piece's states can take a token back.
func (s *run) undoable() bool {
	if len(s.states) == 0 {
		return false
	}
	for _, st := range s.states {
		for _, l := range st.layers {
			if _, ok := l.(Undoer); !ok {
				return false
			}
		}
	}
	return true
}

// undo takes the token of a piece of one token each back where layers have it.
func (s *run) undo() {
	for _, st := range s.states {
		for _, l := range st.layers {
			if err := l.(Undoer).Undo(st.tokens); err != nil {
				panic(err) // it has one token more at the most
			}
		}
	}
}

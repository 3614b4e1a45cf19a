package hyena

import (
	"math"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// StateConfig is what must be known of a state in advance.
type StateConfig struct {
	// MaxTokens is the most tokens that the state may have; 0 is no bound but the
	// operator's own. With one, memory that grows with tokens is taken at once, and steps
	// allocate nothing.
	MaxTokens int
	// Snapshots is how many earlier versions of itself the state keeps, those after each of
	// the last Snapshots calls, to which Truncate can go back. 0 is none.
	Snapshots int
}

// State is what an operator remembers of the tokens it has seen. That of modes, of short
// convolutions and of gates does not grow; a long convolution's, which needs all of the past
// (as far as its kernel reaches), does: 12 to 24 bytes for each token and channel. An
// operator's NewState makes it, for that operator and all with the same fingerprint (Config
// and weights). Two calls must not use it at once.
type State struct {
	kind    *kind
	n       int       // tokens seen
	most    int       // tokens that there may be
	values  []float32 // laid out as the operator says, kind.size of them
	streams []*stream // of kind.convs
	ring    state.Ring[[]float32]
}

// kind is what an operator's states have in common, and tells those of different operators
// apart.
type kind struct {
	name  string // the operator and its shape, for errors
	size  int    // float32 of State.values
	hash  uint64 // fingerprint of Config and weights
	most  int    // tokens that there may be
	convs []*Conv
}

// maxSnapshots bounds StateConfig.Snapshots, and maxStateFloats the elements of a state with
// its snapshots.
const maxSnapshots, maxStateFloats = 1 << 20, min(1<<33, math.MaxInt/8)

func (k *kind) newState(cfg StateConfig) (*State, error) {
	switch {
	case cfg.MaxTokens < 0:
		return nil, check.Errorf(ErrConfig, "hyena: MaxTokens is %d, want 0 or more", cfg.MaxTokens)
	case cfg.Snapshots < 0 || cfg.Snapshots > maxSnapshots:
		return nil, check.Errorf(ErrConfig, "hyena: Snapshots is %d, want 0 to %d", cfg.Snapshots, maxSnapshots)
	case check.Product(maxStateFloats, 1+cfg.Snapshots, k.size) < 0:
		return nil, check.Errorf(ErrConfig, "hyena: Snapshots is %d, too many for a state of %d bytes", cfg.Snapshots, 4*k.size)
	}
	values := func() []float32 { return make([]float32, k.size) }
	st := &State{kind: k, most: k.most, values: values(), ring: state.NewRing(cfg.Snapshots, values)}
	hint := 0
	if cfg.MaxTokens > 0 {
		st.most = min(st.most, cfg.MaxTokens)
		hint = st.most
	}
	for _, c := range k.convs {
		s, err := c.newStream(hint)
		if err != nil {
			return nil, err
		}
		st.streams = append(st.streams, s)
	}
	return st, nil
}

// accept returns an error unless st is a state of k.
func (k *kind) accept(name string, st *State) error {
	switch {
	case st == nil:
		return check.NilState(pkg, name)
	case st.kind == nil:
		return check.Errorf(ErrState, "hyena: %s was not made by NewState", name)
	case st.kind.name != k.name:
		return check.Errorf(ErrState, "hyena: %s is of a %s, want a %s", name, st.kind.name, k.name)
	case st.kind.hash != k.hash:
		return check.Errorf(ErrState, "hyena: %s is of another %s, with another Config or other weights", name, k.name)
	}
	return nil
}

// Len returns how many tokens the state has seen.
func (st *State) Len() int { return st.n }

// Bytes returns the memory of the state, with its snapshots.
func (st *State) Bytes() int64 {
	n := 4 * int64(len(st.values)) * int64(1+st.ring.Len())
	for _, s := range st.streams {
		n = sumBytes(n, s.bytes())
	}
	return n
}

// Reset makes the state what NewState made it; memory that has grown is kept.
func (st *State) Reset() {
	clear(st.values)
	st.n = 0
	st.ring.Forget(-1)
	for _, s := range st.streams {
		s.reset()
	}
}

// Clone returns a copy, snapshots included: a prefix that several continuations share.
func (st *State) Clone() *State {
	c := *st
	c.values = append([]float32{}, st.values...)
	c.ring = st.ring.Clone(func(x []float32) []float32 { return append([]float32{}, x...) })
	c.streams = nil
	for _, s := range st.streams {
		c.streams = append(c.streams, s.clone())
	}
	return &c
}

// CopyFrom makes the state what another of the same operator is, without its snapshots; those
// of st are forgotten. Errors match ErrState, or ErrFull where st may not have as many tokens.
func (st *State) CopyFrom(from *State) error {
	if st.kind == nil {
		return check.Errorf(ErrState, "hyena: the state was not made by NewState")
	}
	if err := st.kind.accept("from", from); err != nil || from == st {
		return err
	}
	if from.n > st.most {
		return check.Errorf(ErrFull, "hyena: from has %d tokens, want at most MaxTokens = %d", from.n, st.most)
	}
	copy(st.values, from.values)
	st.n = from.n
	st.ring.Forget(-1)
	for i, s := range st.streams {
		s.copyFrom(from.streams[i])
	}
	return nil
}

// Truncate goes back to the first n tokens: to 0, to Len, to those that the state has a
// snapshot of (StateConfig.Snapshots) or, of a Conv, to any of which it still has the inputs
// that the kernel reaches. Going back is cheap; of a long convolution the next step costs what the
// last few of its tiles do. It returns an error that matches ErrState, and changes nothing, where it cannot.
func (st *State) Truncate(n int) error {
	switch {
	case n == st.n:
		return nil
	case n < 0 || n > st.n:
		return check.Errorf(ErrState, "hyena: n is %d, want 0 to Len = %d", n, st.n)
	case n == 0:
		st.Reset()
		return nil
	case !st.canReturn(n):
		return check.Errorf(ErrState, "hyena: the inputs before token %d of %d are not kept any more", n, st.n)
	}
	if len(st.values) > 0 {
		snapshot := st.ring.Back(n)
		if snapshot == nil {
			return check.Errorf(ErrState, "hyena: no snapshot after %d tokens in a state of %d; it keeps those after its last %d calls", n, st.n, st.ring.Len())
		}
		copy(st.values, *snapshot)
	} else {
		st.ring.Forget(n)
	}
	st.goBack(n)
	return nil
}

// canReturn tells whether the long convolutions have the inputs to go back to n tokens.
func (st *State) canReturn(n int) bool {
	for _, s := range st.streams {
		if !s.holds(n) {
			return false
		}
	}
	return true
}

// goBack brings the long convolutions back to n tokens; values are those already.
func (st *State) goBack(n int) {
	for _, s := range st.streams {
		s.truncate(n)
	}
	st.n = n
}

// Room returns an error that matches ErrFull unless n more tokens fit.
func (st *State) Room(n int) error {
	if n > st.most-st.n {
		return check.Errorf(ErrFull, "hyena: %d tokens after %d, want at most %d", n, st.n, st.most)
	}
	return nil
}

// advance notes that the state is that after n more tokens.
func (st *State) advance(n int) {
	if n == 0 {
		return
	}
	st.n += n
	if snapshot := st.ring.Next(st.n); snapshot != nil {
		copy(*snapshot, st.values)
	}
}

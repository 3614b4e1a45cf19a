package merge

import (
	"fmt"
	"io"
	"math"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// StateConfig is what must be known of a state in advance: nothing.
type StateConfig struct{}

// State is what a Stream remembers: the first token of a pair while it waits for the
// second. It must not be used by two calls at once.
type State struct {
	op        StreamConfig
	made      bool
	n         int64
	waiting   bool
	x, metric []float32
	size      float32
}

// NewState returns an empty state.
func (op *Stream) NewState(StateConfig) (*State, error) {
	st := new(State)
	st.fit(op)
	return st, nil
}

func (op *Stream) checkState(st *State) error {
	switch {
	case st == nil:
		return check.Errorf(ErrState, "merge: the state is nil")
	case !st.made:
		return check.Errorf(ErrState, "merge: the state was not made by NewState")
	case st.op != op.cfg:
		return check.Errorf(ErrState, "merge: the state is of a stream %+v, want %+v", st.op, op.cfg)
	}
	return nil
}

// Len returns how many tokens the state has seen.
func (st *State) Len() int { return int(st.n) }

// Waiting returns 1 while a token waits for the second of its pair, and else 0.
func (st *State) Waiting() int {
	if st.waiting {
		return 1
	}
	return 0
}

// Bytes returns the memory of the state.
func (st *State) Bytes() int { return 4 * (len(st.x) + len(st.metric)) }

// Reset makes the state what NewState made it.
func (st *State) Reset() {
	st.n, st.waiting, st.size = 0, false, 0
	clear(st.x)
	clear(st.metric)
}

// Clone returns a copy.
func (st *State) Clone() *State {
	c := *st
	c.x, c.metric = append([]float32(nil), st.x...), append([]float32(nil), st.metric...)
	return &c
}

const stateKind = "sqMerge\x01"

func (c *StreamConfig) fingerprint() []int64 {
	return []int64{int64(c.MetricDim), int64(c.Dim), int64(math.Float32bits(c.Above))}
}

// WriteTo stores the state. It implements io.WriterTo.
func (st *State) WriteTo(w io.Writer) (int64, error) {
	if !st.made {
		return 0, check.Errorf(ErrState, "merge: the state was not made by NewState")
	}
	f := state.NewWriter(w, stateKind, st.op.fingerprint())
	f.Ints(st.n, int64(st.Waiting()))
	if st.waiting {
		f.Floats([]float32{st.size})
		f.Floats(st.x)
		f.Floats(st.metric)
	}
	n, err := f.End()
	if err != nil {
		err = fmt.Errorf("merge: %w", err)
	}
	return n, err
}

// ReadState reads a state that WriteTo wrote of a stream of the same Config. Errors match
// ErrState or are those of r.
func (op *Stream) ReadState(r io.Reader) (*State, error) {
	f := state.NewReader(r, "merge", ErrState, stateKind, op.cfg.fingerprint())
	st := new(State)
	st.fit(op)
	n, waiting := f.Int(), f.Int()
	if n < 0 || n > math.MaxInt || waiting>>1 != 0 || waiting > n {
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

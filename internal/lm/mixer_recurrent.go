package lm

import (
	"context"
	"fmt"
	"io"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/ssm"
	"github.com/subquad/subquad/ssm/delta"
	"github.com/subquad/subquad/ssm/longmamba"
)

// Recurrent is a block of package ssm as a mixer.
type Recurrent struct{ ssm.Block }

// recurrentCall is what a call of a Recurrent needs.
type recurrentCall struct {
	call   ssm.BlockCall
	states []*ssm.State
}

// Mix implements Mixer.
func (m Recurrent) Mix(ctx context.Context, mix *Mix) error {
	c := &mix.recurrent
	c.states = c.states[:0]
	for _, st := range mix.States {
		c.states = append(c.states, st.(*recurrentState).State)
	}
	c.call = ssm.BlockCall{Dst: mix.X, X: mix.X, Offsets: mix.Offsets, States: c.states, Filter: mix.Filter, Workers: mix.Workers}
	err := singly(mix, func(from, to int, offsets []int) error {
		if to-from < mix.X.Rows {
			c.call.Dst, c.call.X, c.call.Offsets = mat.Rows(mix.X, from, to), mat.Rows(mix.X, from, to), offsets
		}
		return m.Block.Run(ctx, &c.call)
	})
	c.call = ssm.BlockCall{}
	clear(c.states)
	return err
}

// singleRows is up to how many tokens of a sequence blocks take one by one.
const singleRows = 4

// singly runs the rows of a mix: all of them or, where they are to have the bits that they
// have one by one, few at a time.
func singly(mix *Mix, run func(from, to int, offsets []int) error) error {
	if !mix.Single || len(mix.States) != 1 {
		return run(0, mix.X.Rows, mix.Offsets)
	}
	for from := 0; from < mix.X.Rows; from += singleRows {
		to := min(from+singleRows, mix.X.Rows)
		if err := run(from, to, []int{0, to - from}); err != nil {
			return err
		}
	}
	return nil
}

// Kind implements Mixer.
func (m Recurrent) Kind() string { return fmt.Sprintf("%T", m.Block) }

// Prepare implements Mixer: there is nothing to make ready.
func (m Recurrent) Prepare(context.Context, int) error { return nil }

// Fingerprint implements Streamer.
func (m Recurrent) Fingerprint() uint64 { return m.Identity().Fingerprint }

// StateBytes implements Streamer: it does not depend on the tokens.
func (m Recurrent) StateBytes(int) int64 {
	st, err := m.Block.NewState(ssm.StateConfig{})
	if err != nil {
		return 0
	}
	return st.Bytes()
}

// NewState implements Streamer: a recurrence has room for any number of tokens, in float32.
func (m Recurrent) NewState(StateConfig) (LayerState, error) {
	st, err := m.Block.NewState(ssm.StateConfig{})
	if err != nil {
		return nil, err
	}
	return &recurrentState{State: st}, nil
}

// ReadState implements Streamer.
func (m Recurrent) ReadState(r io.Reader) (LayerState, error) {
	st, err := m.Block.ReadState(r)
	if err != nil {
		return nil, err
	}
	return &recurrentState{State: st}, nil
}

// RecurrentState returns the state that a mixer of an ssm.Block has, or nil.
func RecurrentState(l LayerState) *ssm.State {
	if st, ok := l.(*recurrentState); ok {
		return st.State
	}
	return nil
}

// DeltaState returns the state that a mixer of a delta.Block has, or nil.
func DeltaState(l LayerState) *delta.State {
	if st, ok := l.(*deltaState); ok {
		return st.State
	}
	return nil
}

// recurrentState is the state of a block, and the filter that it has been given.
type recurrentState struct {
	*ssm.State
	filter *longmamba.Filter
	prompt int
}

func (st *recurrentState) Clone() LayerState { return st.clone() }

func (st *recurrentState) clone() *recurrentState {
	return &recurrentState{st.State.Clone(), st.filter, st.prompt}
}

func (st *recurrentState) CopyFrom(from LayerState) error {
	other, ok := from.(*recurrentState)
	if !ok {
		return check.Errorf(subquad.ErrState, "the state of another mixer")
	}
	st.filter, st.prompt = other.filter, other.prompt
	return st.State.CopyFrom(other.State)
}

func (st *recurrentState) Room(int) error { return nil }

// recurrentMark is a copy.
type recurrentMark struct{ *recurrentState }

func (m recurrentMark) Clone() Mark { return recurrentMark{m.clone()} }

func (st *recurrentState) NewMark() Mark { return recurrentMark{st.clone()} }

func (st *recurrentState) Save(mark Mark) {
	if err := mark.(recurrentMark).CopyFrom(st); err != nil {
		panic(err) // it is a clone
	}
}

// Restore comes back to a mark; a filter that was set since then stays.
func (st *recurrentState) Restore(mark Mark) error {
	saved := mark.(recurrentMark)
	if err := st.State.CopyFrom(saved.State); err != nil {
		return err
	}
	if st.filter == saved.filter && st.prompt == saved.prompt {
		return nil
	}
	return st.setFilter(st.filter, st.prompt)
}

func (st *recurrentState) CanTruncate(n int) bool { return n == st.Len() || n == 0 }

// setFilter gives the state the filter of its block, or none.
func (st *recurrentState) setFilter(f *longmamba.Filter, prompt int) error {
	var source ssm.FilterSource
	if f != nil {
		source = f
	}
	if err := st.State.SetFilter(source, prompt); err != nil {
		return err
	}
	st.filter, st.prompt = f, prompt
	return nil
}

// SetFilter gives the state another filter of the steps of its recurrent mixers, for a
// prompt of that many tokens; nil is for none. It has a block for each of those mixers. After
// an error, which matches longmamba.ErrCalibration where the filter is another model's and
// else ErrConfig or ErrState, the state is as it was.
func (st *State) SetFilter(filter ssm.FilterSource, prompt int) error {
	if st.fingerprint == 0 {
		return check.Errorf(subquad.ErrState, "%s: the state was not made by NewState", st.name())
	}
	f, ok := filter.(*longmamba.Filter)
	if filter != nil && !ok {
		return check.Errorf(subquad.ErrConfig, "%s: Filter is a %T, want a *longmamba.Filter", st.pkg, filter)
	}
	var list []*recurrentState
	for _, l := range st.layers {
		if r, ok := l.(*recurrentState); ok {
			list = append(list, r)
		}
	}
	if f != nil && f.Blocks() != len(list) {
		return check.Errorf(subquad.ErrConfig, "%s: Filter is of %d blocks, want %d, one for each layer", st.pkg, f.Blocks(), len(list))
	}
	before := make([]recurrentState, len(list))
	for i, r := range list {
		before[i] = *r
		one, err := f, error(nil)
		if f != nil {
			one, err = f.Block(i)
		}
		if err == nil {
			err = r.setFilter(one, prompt)
		}
		if err != nil {
			for j := range i {
				if undo := list[j].setFilter(before[j].filter, before[j].prompt); undo != nil {
					return undo // it had that filter before
				}
			}
			return fmt.Errorf("%s: layer %d: %w", st.pkg, i, err)
		}
	}
	return nil
}

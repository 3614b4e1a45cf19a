package lm

import (
	"context"
	"fmt"
	"io"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/ssm/delta"
)

// Delta is a block of package ssm/delta as a mixer. Those of RWKV7 hand the values of the
// first layer on from one to the next, within a piece of tokens.
type Delta struct{ delta.Block }

// deltaCall is what a call of a Delta needs.
type deltaCall struct {
	call   delta.BlockCall
	states []*delta.State
	first  []float32 // [n, D]: the first layer's values of the piece
}

// Mix implements Mixer.
func (m Delta) Mix(ctx context.Context, mix *Mix) error {
	c := &mix.delta
	c.states = c.states[:0]
	for _, st := range mix.States {
		c.states = append(c.states, st.(*deltaState).State)
	}
	c.call = delta.BlockCall{Dst: mix.X, X: mix.X, Offsets: mix.Offsets, States: c.states, Workers: mix.Workers}
	if _, ok := m.Block.(*delta.RWKV7); ok {
		c.first = scratch.Floats(c.first, mix.X.Rows*mix.X.Cols)
		c.call.First = mat.Of(c.first, mix.X.Rows, mix.X.Cols)
	}
	err := singly(mix, func(from, to int, offsets []int) error {
		if to-from < mix.X.Rows {
			c.call.Dst, c.call.X, c.call.Offsets = mat.Rows(mix.X, from, to), mat.Rows(mix.X, from, to), offsets
			if c.call.First.Rows > 0 {
				c.call.First = mat.Of(c.first[from*mix.X.Cols:], to-from, mix.X.Cols)
			}
		}
		return m.Block.Run(ctx, &c.call)
	})
	c.call = delta.BlockCall{}
	clear(c.states)
	return err
}

// ScratchBytes implements Mixer.
func (m Delta) ScratchBytes(tokens int) int64 {
	n := m.Block.ScratchBytes(tokens)
	if _, ok := m.Block.(*delta.RWKV7); ok {
		n += 4 * int64(min(max(tokens, 0), pieceTokens)) * int64(m.Dim())
	}
	return n
}

// Kind implements Mixer.
func (m Delta) Kind() string { return fmt.Sprintf("%T", m.Block) }

// Prepare implements Mixer: there is nothing to make ready.
func (m Delta) Prepare(context.Context, int) error { return nil }

// StateBytes implements Streamer: it does not depend on the tokens.
func (m Delta) StateBytes(tokens int) int64 { return m.Block.StateBytes(tokens) }

// NewState implements Streamer: a recurrence has room for any number of tokens, in float32.
func (m Delta) NewState(StateConfig) (LayerState, error) {
	st, err := m.Block.NewState(delta.StateConfig{})
	if err != nil {
		return nil, err
	}
	return &deltaState{st}, nil
}

// ReadState implements Streamer.
func (m Delta) ReadState(r io.Reader) (LayerState, error) {
	st, err := m.Block.ReadState(r)
	if err != nil {
		return nil, err
	}
	return &deltaState{st}, nil
}

// deltaState is the state of a block.
type deltaState struct{ *delta.State }

func (st *deltaState) Clone() LayerState { return &deltaState{st.State.Clone()} }

func (st *deltaState) CopyFrom(from LayerState) error {
	other, ok := from.(*deltaState)
	if !ok {
		return check.Errorf(subquad.ErrState, "the state of another mixer")
	}
	return st.State.CopyFrom(other.State)
}

func (st *deltaState) Room(int) error { return nil }

func (st *deltaState) CanTruncate(n int) bool { return n == st.Len() || n == 0 }

// deltaMark is a copy.
type deltaMark struct{ *delta.State }

func (m deltaMark) Clone() Mark { return deltaMark{m.State.Clone()} }

func (st *deltaState) NewMark() Mark { return deltaMark{st.State.Clone()} }

func (st *deltaState) Save(mark Mark) {
	if err := mark.(deltaMark).State.CopyFrom(st.State); err != nil {
		panic(err) // it is a clone
	}
}

func (st *deltaState) Restore(mark Mark) error { return st.State.CopyFrom(mark.(deltaMark).State) }

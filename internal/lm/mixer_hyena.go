package lm

import (
	"context"
	"io"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/hyena"
	"github.com/subquad/subquad/internal/check"
)

// Hyena is a Hyena operator as a mixer. A sequence that is there at once it reads whole.
type Hyena struct{ *hyena.Operator }

var _ WholeStreamer = Hyena{}

// Mix implements Mixer.
func (m Hyena) Mix(ctx context.Context, mix *Mix) error {
	if len(mix.States) == 0 {
		return m.Run(ctx, &hyena.OperatorCall{Dst: mix.X, X: mix.X, Workers: mix.Workers})
	}
	c := &mix.hyena
	c.States = c.States[:0]
	for _, st := range mix.States {
		c.States = append(c.States, HyenaStateOf(st))
	}
	*c = hyena.OperatorCall{Dst: mix.X, X: mix.X, Offsets: mix.Offsets, States: c.States, Workers: mix.Workers}
	err := m.Run(ctx, c)
	clear(c.States)
	*c = hyena.OperatorCall{States: c.States[:0]}
	return err
}

// Kind implements Mixer.
func (m Hyena) Kind() string { return "Hyena" }

// TakesWhole implements WholeStreamer.
func (m Hyena) TakesWhole() {}

// NewState implements Streamer.
func (m Hyena) NewState(cfg StateConfig) (LayerState, error) {
	return HyenaState(m.Operator.NewState(hyena.StateConfig{MaxTokens: cfg.MaxTokens}))
}

// ReadState implements Streamer.
func (m Hyena) ReadState(r io.Reader) (LayerState, error) {
	return HyenaState(m.Operator.ReadState(r))
}

// HyenaState returns a state of package hyena as that of a mixer.
func HyenaState(st *hyena.State, err error) (LayerState, error) {
	if err != nil {
		return nil, err
	}
	return &hyenaState{st}, nil
}

// HyenaStateOf returns the state that HyenaState was given.
func HyenaStateOf(st LayerState) *hyena.State { return st.(*hyenaState).State }

// hyenaState is the state of an operator of package hyena.
type hyenaState struct{ *hyena.State }

func (st *hyenaState) Clone() LayerState { return &hyenaState{st.State.Clone()} }

func (st *hyenaState) CopyFrom(from LayerState) error {
	other, ok := from.(*hyenaState)
	if !ok {
		return check.Errorf(subquad.ErrState, "the state of another mixer")
	}
	return st.State.CopyFrom(other.State)
}

func (st *hyenaState) Room(tokens int) error { return st.State.Room(tokens) }

// hyenaMark is a point that a state can come back to.
type hyenaMark struct{ *hyena.Mark }

func (m hyenaMark) Clone() Mark { return hyenaMark{m.Mark.Clone()} }

func (st *hyenaState) NewMark() Mark { return hyenaMark{new(hyena.Mark)} }

func (st *hyenaState) Save(mark Mark) { st.State.Save(mark.(hyenaMark).Mark) }

func (st *hyenaState) Restore(mark Mark) error { return st.State.Restore(mark.(hyenaMark).Mark) }

func (st *hyenaState) CanTruncate(n int) bool { return n == st.Len() || n == 0 }

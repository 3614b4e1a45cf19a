package transformer

import (
	"context"
	"fmt"
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// sideMixer is two mixers that read the same inputs, whose outputs are summed: attention and
// Mamba-2 in Falcon-H1.
type sideMixer struct {
	parts   [2]lm.Streamer
	dim     int
	scratch *scratch.List[sideRun]
}

var _ lm.Streamer = (*sideMixer)(nil)

// sideRun is the working memory of a call.
type sideRun struct {
	x   []float32 // [n, D]
	mix [2]lm.Mix
}

// Mix implements lm.Mixer.
func (m *sideMixer) Mix(ctx context.Context, mix *lm.Mix) error {
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	r.x = scratch.Floats(r.x, mix.X.Rows*m.dim)
	x := mat.Of(r.x, mix.X.Rows, m.dim)
	mat.Copy(x, mix.X)
	for i, part := range m.parts {
		own := &r.mix[i]
		own.X, own.Offsets, own.Workers, own.States = []blas32.General{mix.X, x}[i], mix.Offsets, mix.Workers, own.States[:0]
		for _, st := range mix.States {
			own.States = append(own.States, st.(*sideState).parts[i])
		}
		err := part.Mix(ctx, own)
		clear(own.States)
		own.X, own.Offsets = blas32.General{}, nil
		if err != nil {
			return err
		}
	}
	for t := range x.Rows {
		asm.Add(mat.Row(mix.X, t), mat.Row(mix.X, t), mat.Row(x, t))
	}
	return nil
}

// Kind implements lm.Mixer.
func (m *sideMixer) Kind() string {
	return fmt.Sprintf("%s beside %s", m.parts[0].Kind(), m.parts[1].Kind())
}

// Bytes implements lm.Mixer.
func (m *sideMixer) Bytes() int64 { return m.parts[0].Bytes() + m.parts[1].Bytes() }

// ScratchBytes implements lm.Mixer.
func (m *sideMixer) ScratchBytes(tokens int) int64 {
	return 4*int64(min(tokens, pieceTokens))*int64(m.dim) + m.parts[0].ScratchBytes(tokens) + m.parts[1].ScratchBytes(tokens)
}

// Prepare implements lm.Mixer: there is nothing to make ready.
func (m *sideMixer) Prepare(context.Context, int) error { return nil }

// Fingerprint implements lm.Streamer.
func (m *sideMixer) Fingerprint() uint64 {
	f := state.NewFingerprint("side by side")
	for _, part := range m.parts {
		f.Add(part.Fingerprint())
	}
	return uint64(f)
}

// StateBytes implements lm.Streamer.
func (m *sideMixer) StateBytes(tokens int) int64 {
	return m.parts[0].StateBytes(tokens) + m.parts[1].StateBytes(tokens)
}

// NewState implements lm.Streamer.
func (m *sideMixer) NewState(cfg lm.StateConfig) (lm.LayerState, error) {
	return m.states(func(part lm.Streamer) (lm.LayerState, error) { return part.NewState(cfg) })
}

// ReadState implements lm.Streamer.
func (m *sideMixer) ReadState(r io.Reader) (lm.LayerState, error) {
	return m.states(func(part lm.Streamer) (lm.LayerState, error) { return part.ReadState(r) })
}

// states puts a state of either mixer together.
func (m *sideMixer) states(of func(lm.Streamer) (lm.LayerState, error)) (lm.LayerState, error) {
	st := new(sideState)
	for i, part := range m.parts {
		var err error
		if st.parts[i], err = of(part); err != nil {
			return nil, err
		}
	}
	if a, b := st.parts[0].Len(), st.parts[1].Len(); a != b {
		return nil, check.Errorf(subquad.ErrState, "transformer: a stored state of %d tokens beside one of %d", a, b)
	}
	return st, nil
}

// sideState is the states of both mixers.
type sideState struct{ parts [2]lm.LayerState }

var _ lm.Planner = (*sideState)(nil)

func (st *sideState) Len() int     { return st.parts[0].Len() }
func (st *sideState) Bytes() int64 { return st.parts[0].Bytes() + st.parts[1].Bytes() }

func (st *sideState) Reset() {
	for _, part := range st.parts {
		part.Reset()
	}
}

// Plan implements lm.Planner.
func (st *sideState) Plan(tokens int) {
	for _, part := range st.parts {
		if p, ok := part.(lm.Planner); ok {
			p.Plan(tokens)
		}
	}
}

// Alike tells whether another state of the layer has the same StateConfig.
func (st *sideState) Alike(other lm.LayerState) bool {
	o, ok := other.(*sideState)
	for i, part := range st.parts {
		if like, asks := part.(interface{ Alike(lm.LayerState) bool }); ok && asks {
			ok = like.Alike(o.parts[i])
		}
	}
	return ok
}

// Clone implements lm.LayerState.
func (st *sideState) Clone() lm.LayerState {
	return &sideState{[2]lm.LayerState{st.parts[0].Clone(), st.parts[1].Clone()}}
}

// CopyFrom implements lm.LayerState.
func (st *sideState) CopyFrom(from lm.LayerState) error {
	other, ok := from.(*sideState)
	if !ok {
		return check.Errorf(subquad.ErrState, "the state of another mixer")
	}
	for i, part := range st.parts {
		if err := part.CopyFrom(other.parts[i]); err != nil {
			return err
		}
	}
	return nil
}

// WriteTo implements lm.LayerState.
func (st *sideState) WriteTo(w io.Writer) (n int64, err error) {
	for _, part := range st.parts {
		m, err := part.WriteTo(w)
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

// Room implements lm.LayerState.
func (st *sideState) Room(tokens int) error {
	for _, part := range st.parts {
		if err := part.Room(tokens); err != nil {
			return err
		}
	}
	return nil
}

// sideMark is a mark of either state.
type sideMark struct{ parts [2]lm.Mark }

func (m *sideMark) Bytes() int64 { return m.parts[0].Bytes() + m.parts[1].Bytes() }

func (m *sideMark) Clone() lm.Mark {
	return &sideMark{[2]lm.Mark{m.parts[0].Clone(), m.parts[1].Clone()}}
}

// NewMark implements lm.LayerState.
func (st *sideState) NewMark() lm.Mark {
	return &sideMark{[2]lm.Mark{st.parts[0].NewMark(), st.parts[1].NewMark()}}
}

// Save implements lm.LayerState.
func (st *sideState) Save(to lm.Mark) {
	for i, part := range st.parts {
		part.Save(to.(*sideMark).parts[i])
	}
}

// Restore implements lm.LayerState.
func (st *sideState) Restore(from lm.Mark) error {
	for i, part := range st.parts {
		if err := part.Restore(from.(*sideMark).parts[i]); err != nil {
			return err
		}
	}
	return nil
}

// CanTruncate implements lm.LayerState.
func (st *sideState) CanTruncate(n int) bool {
	return st.parts[0].CanTruncate(n) && st.parts[1].CanTruncate(n)
}

// Truncate implements lm.LayerState.
func (st *sideState) Truncate(n int) error {
	for _, part := range st.parts {
		if err := part.Truncate(n); err != nil {
			return err
		}
	}
	return nil
}

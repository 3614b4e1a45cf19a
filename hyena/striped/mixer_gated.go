package striped

import (
	"context"
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/hyena"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// gated is a gated convolution with its projections as a mixer:
//
//	z = In x + b;  y = Out gated(z) + b.
type gated struct {
	op      *hyena.Gated
	in, out *dense.Linear // D -> 3 D, D -> D
	scratch *scratch.List[gatedRun]
}

var _ lm.Streamer = (*gated)(nil)

// mixerRows is how many tokens a task takes through projections.
const mixerRows = 64

// gatedRun is the working memory of a call.
type gatedRun struct {
	m       *gated
	x, z, y blas32.General // [n, D], [n, 3 D], [n, D]
	floats  []float32      // of z and y
	group   parallel.Group
	call    hyena.GatedCall

	project, finish func(worker, task int)
}

// Mix implements lm.Mixer.
func (m *gated) Mix(ctx context.Context, mix *lm.Mix) error {
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	defer r.forget()
	if r.project == nil {
		r.project, r.finish = r.projectRows, r.finishRows
	}
	n, dim := mix.X.Rows, m.op.Dim()
	r.m, r.x = m, mix.X
	r.floats = scratch.Floats(r.floats, n*4*dim)
	r.z, r.y = mat.Of(r.floats, n, 3*dim), mat.Of(r.floats[n*3*dim:], n, dim)
	tasks := (n + mixerRows - 1) / mixerRows
	if err := r.group.Run(ctx, mix.Workers, tasks, r.project); err != nil {
		return err
	}
	states := r.call.States[:0]
	for _, st := range mix.States {
		states = append(states, lm.HyenaStateOf(st))
	}
	r.call = hyena.GatedCall{Dst: r.y, X: r.z, Offsets: mix.Offsets, States: states, Workers: mix.Workers}
	if err := m.op.Run(ctx, &r.call); err != nil {
		return err
	}
	return r.group.Run(ctx, mix.Workers, tasks, r.finish)
}

// forget drops what is the caller's.
func (r *gatedRun) forget() {
	clear(r.call.States)
	r.call = hyena.GatedCall{States: r.call.States[:0]}
	r.m, r.x = nil, blas32.General{}
}

// rowsOf are those of a task.
func rowsOf(x blas32.General, task int) blas32.General {
	return mat.Rows(x, task*mixerRows, min((task+1)*mixerRows, x.Rows))
}

func (r *gatedRun) projectRows(_, task int) {
	r.m.in.ForwardIn(&r.group, rowsOf(r.z, task), rowsOf(r.x, task))
}

func (r *gatedRun) finishRows(_, task int) {
	r.m.out.ForwardIn(&r.group, rowsOf(r.x, task), rowsOf(r.y, task))
}

// Kind implements lm.Mixer.
func (m *gated) Kind() string { return "gated" }

// Bytes implements lm.Mixer.
func (m *gated) Bytes() int64 { return m.op.Bytes() + int64(m.in.Bytes()) + int64(m.out.Bytes()) }

// pieceTokens is how many tokens of a call go through a layer together.
const pieceTokens = 512

// ScratchBytes implements lm.Mixer.
func (m *gated) ScratchBytes(tokens int) int64 {
	const rest = 16 << 10
	return m.op.ScratchBytes(tokens) + 16*int64(min(tokens, pieceTokens))*int64(m.op.Dim()) + rest
}

// Prepare implements lm.Mixer: there is nothing to make ready.
func (m *gated) Prepare(context.Context, int) error { return nil }

// Fingerprint implements lm.Streamer.
func (m *gated) Fingerprint() uint64 {
	f := state.NewFingerprint("gated", int64(m.op.Fingerprint()))
	f.Add(m.in.Fingerprint())
	f.Add(m.out.Fingerprint())
	return uint64(f)
}

// StateBytes implements lm.Streamer.
func (m *gated) StateBytes(tokens int) int64 { return m.op.StateBytes(tokens) }

// NewState implements lm.Streamer.
func (m *gated) NewState(cfg lm.StateConfig) (lm.LayerState, error) {
	return lm.HyenaState(m.op.NewState(hyena.StateConfig{MaxTokens: cfg.MaxTokens}))
}

// ReadState implements lm.Streamer.
func (m *gated) ReadState(r io.Reader) (lm.LayerState, error) {
	return lm.HyenaState(m.op.ReadState(r))
}

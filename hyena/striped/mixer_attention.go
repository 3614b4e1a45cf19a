package striped

import (
	"context"
	"fmt"
	"io"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/rope"
)

// attend is exact attention with rotary positions and its projections as a mixer:
//
//	[q | k | v] = QKV x + b;  y = Out attention(q, k, v) + b.
type attend struct {
	op                      *attention.Attention
	qkv, out                *dense.Linear
	rotation                rope.Config // the state's
	heads, kvHeads, headDim int
	scratch                 *scratch.List[attendRun]
}

var _ lm.Streamer = (*attend)(nil)

// attendRun is the working memory of a call.
type attendRun struct {
	m         *attend
	x, qkv, y blas32.General // [n, D], [n, (H + 2 KVH) HeadDim], [n, H HeadDim]
	floats    []float32      // of qkv and y
	group     parallel.Group
	call      attention.Call
	k, v      [1]blas32.General

	project, finish func(worker, task int)
}

// Mix implements lm.Mixer.
func (m *attend) Mix(ctx context.Context, mix *lm.Mix) error {
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	defer r.forget()
	if r.project == nil {
		r.project, r.finish = r.projectRows, r.finishRows
	}
	r.m, r.x = m, mix.X
	n, h, kv := mix.X.Rows, m.heads*m.headDim, m.kvHeads*m.headDim
	r.floats = scratch.Floats(r.floats, n*(2*h+2*kv))
	r.qkv, r.y = mat.Of(r.floats, n, h+2*kv), mat.Of(r.floats[n*(h+2*kv):], n, h)
	tasks := (n + mixerRows - 1) / mixerRows
	if err := r.group.Run(ctx, mix.Workers, tasks, r.project); err != nil {
		return err
	}
	r.k[0], r.v[0] = mat.Columns(r.qkv, h, kv), mat.Columns(r.qkv, h+kv, kv)
	past := r.call.States[:0]
	for _, st := range mix.States {
		past = append(past, st.(*cache).State)
	}
	r.call = attention.Call{Dst: r.y, Q: mat.Columns(r.qkv, 0, h), K: r.k[:], V: r.v[:], States: past, Offsets: mix.Offsets, Workers: mix.Workers}
	if err := m.op.Run(ctx, &r.call); err != nil {
		return err
	}
	return r.group.Run(ctx, mix.Workers, tasks, r.finish)
}

// forget drops what is the caller's.
func (r *attendRun) forget() {
	clear(r.call.States)
	r.call = attention.Call{States: r.call.States[:0]}
	r.m, r.x = nil, blas32.General{}
}

func (r *attendRun) projectRows(_, task int) {
	r.m.qkv.ForwardIn(&r.group, rowsOf(r.qkv, task), rowsOf(r.x, task))
}

func (r *attendRun) finishRows(_, task int) {
	r.m.out.ForwardIn(&r.group, rowsOf(r.x, task), rowsOf(r.y, task))
}

// Kind implements lm.Mixer: layers with the same operator share its working memory.
func (m *attend) Kind() string { return fmt.Sprintf("attention %p", m.op) }

// Bytes implements lm.Mixer.
func (m *attend) Bytes() int64 { return int64(m.qkv.Bytes()) + int64(m.out.Bytes()) }

// ScratchBytes implements lm.Mixer.
func (m *attend) ScratchBytes(tokens int) int64 {
	n := min(tokens, pieceTokens)
	const rest = 16 << 10
	own := 4*int64(n)*int64((2*m.heads+2*m.kvHeads)*m.headDim) + rest
	turned := 4 * int64(n) * int64((m.heads+m.kvHeads)*m.headDim)
	return own + turned + m.op.StepScratchBytes(n, tokens)
}

// Prepare implements lm.Mixer: there is nothing to make ready.
func (m *attend) Prepare(context.Context, int) error { return nil }

// Fingerprint implements lm.Streamer.
func (m *attend) Fingerprint() uint64 {
	scale := 1.0
	if s, ok := m.rotation.Scheme.(rope.Linear); ok {
		scale = s.Factor
	}
	f := state.NewFingerprint("attention", int64(m.heads), int64(m.kvHeads), int64(m.headDim), int64(math.Float64bits(m.rotation.Base)), int64(math.Float64bits(scale)))
	f.Add(m.qkv.Fingerprint())
	f.Add(m.out.Fingerprint())
	return uint64(f)
}

func (m *attend) stateConfig(cfg lm.StateConfig) attention.StateConfig {
	return attention.StateConfig{MaxTokens: cfg.MaxTokens, Format: cfg.Format, Rotation: &m.rotation}
}

// StateBytes implements lm.Streamer.
func (m *attend) StateBytes(tokens int) int64 {
	return m.op.StateBytes(m.stateConfig(lm.StateConfig{}), tokens)
}

// NewState implements lm.Streamer.
func (m *attend) NewState(cfg lm.StateConfig) (lm.LayerState, error) {
	st, err := m.op.NewState(m.stateConfig(cfg))
	if err != nil {
		return nil, err
	}
	return &cache{st}, nil
}

// ReadState implements lm.Streamer.
func (m *attend) ReadState(r io.Reader) (lm.LayerState, error) {
	st, err := m.op.ReadRotated(r, &m.rotation, rope.Fixed)
	if err != nil {
		return nil, err
	}
	if cfg := st.Config(); cfg.Window > 0 || cfg.SharedValues || cfg.LogWeights {
		return nil, check.Errorf(subquad.ErrState, "a stored layer with a Window, SharedValues or LogWeights, want none of them")
	}
	return &cache{st}, nil
}

// cache is the keys and values of a layer, a list of which the last can be taken back.
type cache struct{ *attention.State }

// Clone implements lm.LayerState.
func (c *cache) Clone() lm.LayerState { return &cache{c.State.Clone()} }

// CopyFrom implements lm.LayerState.
func (c *cache) CopyFrom(from lm.LayerState) error {
	other, ok := from.(*cache)
	if !ok {
		return check.Errorf(subquad.ErrState, "the state of another mixer")
	}
	return c.State.CopyFrom(other.State)
}

// Room implements lm.LayerState.
func (c *cache) Room(tokens int) error {
	if most := c.Config().MaxTokens; most > 0 && tokens > most-c.Len() {
		return check.Errorf(subquad.ErrFull, "%d tokens after %d, want at most MaxTokens = %d", tokens, c.Len(), most)
	}
	return nil
}

// mark is the length of a list.
type mark struct{ n int }

// Bytes implements lm.Mark.
func (m *mark) Bytes() int64 { return 8 }

// Clone implements lm.Mark.
func (m *mark) Clone() lm.Mark { return &mark{m.n} }

// NewMark implements lm.LayerState.
func (c *cache) NewMark() lm.Mark { return new(mark) }

// Save implements lm.LayerState.
func (c *cache) Save(to lm.Mark) { to.(*mark).n = c.Len() }

// Restore implements lm.LayerState.
func (c *cache) Restore(from lm.Mark) error { return c.Truncate(from.(*mark).n) }

// CanTruncate implements lm.LayerState.
func (c *cache) CanTruncate(int) bool { return true }

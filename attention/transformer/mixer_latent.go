package transformer

import (
	"context"
	"fmt"
	"io"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/mla"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/rope"
)

// latentMixer is multi-head latent attention of one layer. Its rotation is its own, of the
// length that the checkpoint's scheme has.
type latentMixer struct {
	op          *mla.MLA
	dim         int
	fingerprint uint64
	scratch     *scratch.List[latentRun]
}

var _ lm.Streamer = (*latentMixer)(nil)

// latentFingerprint tells layers with other weights or rotations apart.
func latentFingerprint(w *mla.Weights, rotation *rope.Config, scale float32) uint64 {
	f := state.NewFingerprint("latent", int64(math.Float32bits(scale)))
	f.Matrices(w.QA, w.QB, w.KVA, w.KVB, w.O)
	f.Floats(w.QANorm, w.KVANorm)
	addRotation(&f, rotation)
	return uint64(f)
}

// latentRun is the working memory of a call.
type latentRun struct {
	x      []float32 // [n, D]
	states []*attention.State
	call   mla.Call
}

// Mix implements lm.Mixer.
func (m *latentMixer) Mix(ctx context.Context, mix *lm.Mix) error {
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	r.x = scratch.Floats(r.x, mix.X.Rows*m.dim)
	x := mat.Of(r.x, mix.X.Rows, m.dim)
	mat.Copy(x, mix.X)
	r.states = r.states[:0]
	for _, st := range mix.States {
		r.states = append(r.states, st.(*cache).State)
	}
	r.call = mla.Call{Dst: mix.X, X: x, States: r.states, Offsets: mix.Offsets, Workers: mix.Workers}
	err := m.op.Run(ctx, &r.call)
	clear(r.states)
	r.call.Dst, r.call.Offsets = blas32.General{}, nil
	return err
}

// Kind implements lm.Mixer.
func (m *latentMixer) Kind() string { return fmt.Sprintf("latent %p", m.op) }

// Bytes implements lm.Mixer.
func (m *latentMixer) Bytes() int64 { return m.op.Bytes() }

// ScratchBytes implements lm.Mixer.
func (m *latentMixer) ScratchBytes(tokens int) int64 {
	n := min(tokens, pieceTokens)
	return 4*int64(n)*int64(m.dim) + m.op.StepScratchBytes(n, tokens)
}

// Prepare implements lm.Mixer: there is nothing to make ready.
func (m *latentMixer) Prepare(context.Context, int) error { return nil }

// Fingerprint implements lm.Streamer.
func (m *latentMixer) Fingerprint() uint64 { return m.fingerprint }

// StateBytes implements lm.Streamer.
func (m *latentMixer) StateBytes(tokens int) int64 {
	st, err := m.op.NewState(attention.StateConfig{MaxTokens: 1})
	if err != nil {
		return 0
	}
	return st.Bytes() * int64(tokens)
}

// stateConfig says how a state of the layer keeps its keys.
func (m *latentMixer) stateConfig(cfg lm.StateConfig) attention.StateConfig {
	c := attention.StateConfig{Format: cfg.Format, Window: cfg.Window, Keep: cfg.Keep}
	if c.Window == 0 {
		c.MaxTokens = cfg.MaxTokens
	}
	return c
}

// NewState implements lm.Streamer.
func (m *latentMixer) NewState(cfg lm.StateConfig) (lm.LayerState, error) {
	st, err := m.op.NewState(m.stateConfig(cfg))
	if err != nil {
		return nil, err
	}
	return &cache{State: st, most: cfg.MaxTokens, owner: m}, nil
}

// ReadState implements lm.Streamer.
func (m *latentMixer) ReadState(r io.Reader) (lm.LayerState, error) {
	c, err := readCache(r, m.fingerprint)
	if err != nil {
		return nil, err
	}
	if c.State, err = m.op.ReadState(r); err != nil {
		return nil, err
	}
	c.owner = m
	return c, nil
}

func (m *latentMixer) planned(int) (*attention.State, error) {
	return m.op.NewState(attention.StateConfig{})
}

func (m *latentMixer) depends() bool { return false }

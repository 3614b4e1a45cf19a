package transformer

import (
	"context"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/mla"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/rope"
)

// latentMixer is multi-head latent attention of one layer. Its rotation is its own: where that
// depends on the length of a sequence, there is an operator for each length.
type latentMixer struct {
	op          *mla.MLA
	rotation    rope.Config
	dim         int
	fingerprint uint64
	scratch     *scratch.List[latentRun]

	mu      sync.Mutex
	lengths map[int]*mla.MLA // some of them
}

var _ lm.Streamer = (*latentMixer)(nil)

// latentFingerprint tells layers with other weights or rotations apart.
func latentFingerprint(w *mla.Weights, rotation *rope.Config, scale float32) uint64 {
	f := state.NewFingerprint("latent", int64(math.Float32bits(scale)))
	f.Matrices(w.QA, w.QB, w.KVA, w.KVB, w.Out)
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
	defer r.forget()
	r.states = r.states[:0]
	alike := true
	for _, st := range mix.States {
		c := st.(*cache)
		r.states = append(r.states, c.State)
		alike = alike && c.length == mix.States[0].(*cache).length
	}
	if mix.Single && len(mix.States) == 1 {
		return r.runSingle(ctx, mix, x)
	}
	for i, st := range mix.States {
		op, err := m.of(st.(*cache).length)
		if err != nil {
			return err
		}
		r.call = mla.Call{Dst: mix.X, X: x, States: r.states, Offsets: mix.Offsets, Workers: mix.Workers}
		if !alike {
			from, to := mix.Offsets[i], mix.Offsets[i+1]
			r.call = mla.Call{Dst: mat.Rows(mix.X, from, to), X: mat.Rows(x, from, to), State: r.states[i], Workers: mix.Workers}
		}
		if err := op.Run(ctx, &r.call); err != nil || alike {
			return err
		}
	}
	return nil
}

// forget drops what is the caller's.
func (r *latentRun) forget() {
	clear(r.states)
	r.call = mla.Call{}
}

// of returns the operator for sequences of a length, 0 for one that is not known.
func (m *latentMixer) of(length int) (*mla.MLA, error) {
	if length == 0 || !m.depends() {
		return m.op, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if op := m.lengths[length]; op != nil {
		return op, nil
	}
	op, err := m.op.WithLength(int64(length))
	if err != nil {
		return nil, err
	}
	const most = 8
	if len(m.lengths) >= most || m.lengths == nil {
		m.lengths = map[int]*mla.MLA{}
	}
	m.lengths[length] = op
	return op, nil
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

// ofState returns the operator for states of a configuration.
func (m *latentMixer) ofState(cfg lm.StateConfig) (*mla.MLA, error) {
	if cfg.Policy != rope.Fixed && m.depends() {
		return nil, check.Errorf(ErrConfig, "Policy is %d, want rope.Fixed: keys of latent attention are kept rotated", cfg.Policy)
	}
	return m.of(cfg.Length)
}

// NewState implements lm.Streamer.
func (m *latentMixer) NewState(cfg lm.StateConfig) (lm.LayerState, error) {
	if cfg.Policies != nil {
		return nil, check.Errorf(subquad.ErrConfig, "Policies of a model with latent attention, whose keys are made anew from its latents: want nil")
	}
	op, err := m.ofState(cfg)
	if err != nil {
		return nil, err
	}
	st, err := op.NewState(m.stateConfig(cfg))
	if err != nil {
		return nil, err
	}
	return &cache{State: st, most: cfg.MaxTokens, length: cfg.Length, policy: cfg.Policy, owner: m}, nil
}

// ReadState implements lm.Streamer.
func (m *latentMixer) ReadState(r io.Reader) (lm.LayerState, error) {
	c, err := readCache(r, m.fingerprint)
	if err != nil {
		return nil, err
	}
	op, err := m.of(c.length)
	if err != nil {
		return nil, check.Errorf(ErrState, "%v", err)
	}
	if c.State, err = op.ReadState(r); err != nil {
		return nil, err
	}
	c.owner = m
	return c, c.checkRead(true)
}

func (m *latentMixer) planned(tokens int) (*attention.State, error) {
	op, err := m.of(tokens)
	if err != nil {
		return nil, err
	}
	return op.NewState(attention.StateConfig{})
}

func (m *latentMixer) depends() bool { return dependsOnLength(m.rotation.Scheme) }

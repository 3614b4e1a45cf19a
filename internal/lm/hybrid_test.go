package lm

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/rope"
	"github.com/subquad/subquad/ssm"
	"github.com/subquad/subquad/ssm/delta"
)

const (
	dim, vocab            = 16, 24
	heads, kvHeads, wide  = 4, 2, 8 // of attention, wide being a head's
	ssmHeads, ssmHeadDim  = 3, 8
	ssmStates, taps, rank = 6, 4, 2
)

// random makes weights.
type random struct{ *rand.Rand }

func (r random) vector(n int, scale, offset float64) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(offset + scale*r.NormFloat64())
	}
	return x
}

func (r random) matrix(rows, cols int, scale float64) blas32.General {
	return mat.Of(r.vector(rows*cols, scale, 0), rows, cols)
}

func (r random) linear(out, in int) *dense.Linear {
	return dense.NewLinear(asm.Float32, r.matrix(out, in, 0.3), r.vector(out, 0.1, 0))
}

func (r random) norm(rms bool) dense.Norm {
	n := dense.Norm{Weight: r.vector(dim, 0.1, 1), Eps: 1e-5, RMS: rms}
	if !rms {
		n.Bias = r.vector(dim, 0.1, 0)
	}
	return n
}

func (r random) mamba2(shared *ssm.Scratch) Mixer {
	const inner = ssmHeads * ssmHeadDim
	b, err := ssm.NewMamba2(ssm.Mamba2Config{States: ssmStates, HeadDim: ssmHeadDim, Scratch: shared}, ssm.Mamba2Weights{
		In: r.matrix(2*inner+2*ssmStates+ssmHeads, dim, 0.3), Conv: r.matrix(inner+2*ssmStates, taps, 0.5),
		DtBias: r.vector(ssmHeads, 1, -2), ALog: r.vector(ssmHeads, 1, 0), D: r.vector(ssmHeads, 1, 0),
		Norm: r.vector(inner, 0.1, 1), Out: r.matrix(dim, inner, 0.2),
	})
	if err != nil {
		panic(err)
	}
	return Recurrent{b}
}

func (r random) mamba(shared *ssm.Scratch) Mixer {
	const inner = ssmHeads * ssmHeadDim
	b, err := ssm.NewMamba(ssm.MambaConfig{Scratch: shared}, ssm.MambaWeights{
		In: r.matrix(2*inner, dim, 0.3), Conv: r.matrix(inner, taps, 0.5), X: r.matrix(rank+2*ssmStates, inner, 0.3),
		Dt: r.matrix(inner, rank, 0.5), DtBias: r.vector(inner, 1, -2), ALog: r.matrix(inner, ssmStates, 1),
		D: r.vector(inner, 1, 0), Out: r.matrix(dim, inner, 0.2),
	})
	if err != nil {
		panic(err)
	}
	return Recurrent{b}
}

func (r random) gatedDelta(shared *delta.Scratch) Mixer {
	const keyHeads, heads, key, value = 2, 4, 6, 5
	b, err := delta.NewGatedDelta(delta.GatedDeltaConfig{Heads: heads, KeyHeads: keyHeads, KeyDim: key, ValueDim: value, Scratch: shared}, delta.GatedDeltaWeights{
		InQKV: r.matrix(2*keyHeads*key+heads*value, dim, 0.3), InZ: r.matrix(heads*value, dim, 0.3), InB: r.matrix(heads, dim, 0.3), InA: r.matrix(heads, dim, 0.3),
		Conv: r.matrix(2*keyHeads*key+heads*value, taps, 0.5), ALog: r.vector(heads, 1, -1), DtBias: r.vector(heads, 1, -1),
		Norm: r.vector(value, 0.1, 1), Out: r.matrix(dim, heads*value, 0.2),
	})
	if err != nil {
		panic(err)
	}
	return Delta{b}
}

func (r random) rwkv7(shared *delta.Scratch, first bool) Mixer {
	v, full := func() []float32 { return r.vector(dim, 0.5, 0.5) }, func() blas32.General { return r.matrix(dim, dim, 0.2) }
	down, up := func() blas32.General { return r.matrix(dim, rank, 0.3) }, func() blas32.General { return r.matrix(rank, dim, 0.3) }
	b, err := delta.NewRWKV7(delta.RWKV7Config{HeadDim: 4, First: first, Scratch: shared}, delta.RWKV7Weights{
		XR: v(), XW: v(), XK: v(), XV: v(), XA: v(), XG: v(), W0: v(), A0: v(), V0: v(), W1: down(), W2: up(), A1: down(), A2: up(), V1: down(), V2: up(), G1: down(), G2: up(),
		KK: v(), KA: v(), RK: v(), Receptance: full(), Key: full(), Value: full(), Out: full(), Norm: v(), NormBias: v(),
	})
	if err != nil {
		panic(err)
	}
	return Delta{b}
}

func (r random) rwkv7FFN(shared *delta.Scratch) Mixer {
	b, err := delta.NewRWKV7FFN(delta.RWKV7FFNConfig{Scratch: shared}, delta.RWKV7FFNWeights{XK: r.vector(dim, 0.5, 0.5), Key: r.matrix(30, dim, 0.3), Value: r.matrix(dim, 30, 0.2)})
	if err != nil {
		panic(err)
	}
	return Delta{b}
}

// hybridConfig returns a model of Mamba-2, Mamba, attention, Gated DeltaNet and RWKV-7 layers
// that uses whatever a branch can have.
func hybridConfig(seed uint64) Config {
	r := random{rand.New(rand.NewPCG(seed, 1))}
	shared, states := new(ssm.Scratch), new(delta.Scratch)
	memory := new(scratch.List[attentionScratch])
	embedding := r.linear(vocab, dim)
	gated := func() MLP { return &dense.Gated{Up: r.linear(2*20, dim), Down: r.linear(dim, 20)} }
	plain := func() MLP { return &dense.MLP{Up: r.linear(24, dim), Down: r.linear(dim, 24)} }
	return Config{
		Package: "lm", Name: "hybrid",
		Embedding: dense.Embedding{Tied: embedding, Scale: 2},
		Layers: []Layer{
			{{Norm: r.norm(true), Mixer: r.mamba2(shared)}},
			{{Norm: r.norm(true), Mixer: r.attention(memory), Post: r.norm(true), Scale: 0.5}, {Norm: r.norm(true), MLP: gated(), Post: r.norm(true)}},
			{{Norm: r.norm(false), Mixer: r.mamba(shared)}},
			{{Norm: r.norm(false), Mixer: r.attention(memory)}, {MLP: plain(), Parallel: true}},
			{{Norm: r.norm(true), MLP: gated()}},
			{{Mixer: r.mamba2(shared), Post: r.norm(true)}}, // no norm before
			{{Norm: r.norm(true), Mixer: r.mamba2(shared), Scale: 0.5}, {Mixer: r.attention(memory), Parallel: true, Post: r.norm(true)}, {Norm: r.norm(true), MLP: gated()}},
			{{Norm: r.norm(true), Mixer: r.gatedDelta(states)}},
			{{Norm: r.norm(false), Mixer: r.rwkv7(states, true)}, {Norm: r.norm(false), Mixer: r.rwkv7FFN(states)}},
			{{Norm: r.norm(false), Mixer: r.rwkv7(states, false)}, {Norm: r.norm(false), Mixer: r.rwkv7FFN(states)}},
		},
		Norm: r.norm(true),
		Head: dense.Head{Weights: embedding, Scale: 0.5, Cap: 20},
	}
}

func hybrid(t testing.TB) *Model {
	t.Helper()
	m, err := New(hybridConfig(1))
	must(t, err)
	return m
}

// attentionMixer is exact attention with rotary positions, between projections.
type attentionMixer struct {
	qkv, out *dense.Linear
	op       *attention.Attention
	scratch  *scratch.List[attentionScratch]
}

type attentionScratch struct {
	qkv, y []float32
	call   attention.Call
	k, v   [1]blas32.General
}

func (r random) attention(memory *scratch.List[attentionScratch]) Mixer {
	op, err := attention.New(attention.Config{Heads: heads, KVHeads: kvHeads, HeadDim: wide, Causal: true})
	if err != nil {
		panic(err)
	}
	return &attentionMixer{r.linear((heads+2*kvHeads)*wide, dim), r.linear(dim, heads*wide), op, memory}
}

func (m *attentionMixer) Mix(ctx context.Context, mix *Mix) error {
	s := m.scratch.Get()
	defer m.scratch.Put(s)
	n := mix.X.Rows
	s.qkv, s.y = scratch.Floats(s.qkv, n*(heads+2*kvHeads)*wide), scratch.Floats(s.y, n*heads*wide)
	qkv, y := mat.Of(s.qkv, n, (heads+2*kvHeads)*wide), mat.Of(s.y, n, heads*wide)
	m.qkv.Forward(qkv, mix.X)
	s.k[0], s.v[0] = mat.Columns(qkv, heads*wide, kvHeads*wide), mat.Columns(qkv, (heads+kvHeads)*wide, kvHeads*wide)
	past := s.call.States[:0]
	for _, st := range mix.States {
		past = append(past, st.(*attentionState).State)
	}
	s.call = attention.Call{
		Dst: y, Q: mat.Columns(qkv, 0, heads*wide), K: s.k[:], V: s.v[:],
		States: past, Offsets: mix.Offsets, Workers: mix.Workers, Tree: mix.Tree,
	}
	if mix.Near.Recent > 0 {
		n := past[0].Len() + mix.X.Rows
		s.call.Select = []attention.Selection{{{From: max(0, n-mix.Near.Recent), To: n}}}
	}
	err := m.op.Run(ctx, &s.call)
	clear(past)
	m.out.Forward(mix.X, y)
	return err
}

func (m *attentionMixer) Kind() string                       { return fmt.Sprintf("attention %p", m) } // m.op's is its own
func (m *attentionMixer) Bytes() int64                       { return int64(m.qkv.Bytes() + m.out.Bytes()) }
func (m *attentionMixer) Prepare(context.Context, int) error { return nil }
func (m *attentionMixer) Fingerprint() uint64                { return m.qkv.Fingerprint() ^ m.out.Fingerprint() }

func (m *attentionMixer) ScratchBytes(tokens int) int64 {
	n := min(tokens, pieceTokens)
	return int64(4*n*(2*heads+2*kvHeads)*wide) + m.op.StepScratchBytes(n, tokens) + 1<<14
}

func (m *attentionMixer) NewState(cfg StateConfig) (LayerState, error) {
	st, err := m.op.NewState(stateConfig(cfg))
	return &attentionState{st, cfg.MaxTokens}, err
}

func stateConfig(cfg StateConfig) attention.StateConfig {
	return attention.StateConfig{MaxTokens: cfg.MaxTokens, Format: cfg.Format, Rotation: &rope.Config{HeadDim: wide}, Policy: rope.Fixed}
}

func (m *attentionMixer) StateBytes(tokens int) int64 {
	return m.op.StateBytes(stateConfig(StateConfig{}), tokens)
}

func (m *attentionMixer) ReadState(r io.Reader) (LayerState, error) {
	st, err := m.op.NewState(stateConfig(StateConfig{}))
	if err == nil {
		_, err = st.ReadFrom(r)
	}
	return &attentionState{st, 0}, err
}

// attentionState is a list of keys and values, of which the last can be taken back.
type attentionState struct {
	*attention.State
	most int
}

type length struct{ n int }

func (l *length) Bytes() int64 { return 8 }
func (l *length) Clone() Mark  { return &length{l.n} }

func (st *attentionState) Clone() LayerState { return &attentionState{st.State.Clone(), st.most} }
func (st *attentionState) CopyFrom(from LayerState) error {
	st.State = from.(*attentionState).State.Clone()
	return nil
}
func (st *attentionState) Reset() { _ = st.Truncate(0) }
func (st *attentionState) Room(tokens int) error {
	if st.most > 0 && tokens > st.most-st.Len() {
		return check.Errorf(subquad.ErrFull, "%d tokens more than %d of %d", tokens, st.Len(), st.most)
	}
	return nil
}
func (st *attentionState) NewMark() Mark           { return new(length) }
func (st *attentionState) Save(mark Mark)          { mark.(*length).n = st.Len() }
func (st *attentionState) Restore(mark Mark) error { return st.Truncate(mark.(*length).n) }
func (st *attentionState) CanTruncate(int) bool    { return true }
func (st *attentionState) Cuts() bool              { return true }
func (st *attentionState) Branches() bool          { return true }

func zeros(rows, cols int) blas32.General { return mat.New(rows, cols) }

func tokens(seed uint64, n int) []int32 {
	r := rand.New(rand.NewPCG(seed, 2))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(r.IntN(vocab))
	}
	return ids
}

func newState(t testing.TB, m *Model, cfg StateConfig) *State {
	t.Helper()
	st, err := m.NewState(cfg)
	must(t, err)
	return st
}

// byHand runs the branches one after the other over whole sequences, and returns the
// residual stream in front of every layer and after the last.
func byHand(t testing.TB, m *Model, ids []int32) (residuals []blas32.General) {
	t.Helper()
	n := len(ids)
	r := zeros(n, dim)
	for i, id := range ids {
		m.cfg.Embedding.Row(mat.Row(r, i), int(id))
	}
	add := func(b *Branch, y blas32.General) {
		for i := range n {
			x := mat.Row(y, i)
			b.Post.Row(x, x)
			for c, v := range x {
				if b.Scale != 0 {
					v *= b.Scale
				}
				mat.Row(r, i)[c] += v
			}
		}
	}
	var mix Mix // one for all: RWKV-7's layers hand values on in it
	for _, layer := range m.cfg.Layers {
		kept := zeros(n, dim)
		mat.Copy(kept, r)
		residuals = append(residuals, kept)
		var read blas32.General
		for i := range layer {
			b := &layer[i]
			if !b.Parallel {
				read = zeros(n, dim)
				for t := range n {
					b.Norm.Row(mat.Row(read, t), mat.Row(r, t))
				}
			}
			y := zeros(n, dim)
			mat.Copy(y, read)
			if b.MLP != nil {
				b.MLP.Forward(nil, y, read, zeros(n, b.MLP.Hidden()))
			} else {
				st, err := b.Mixer.(Streamer).NewState(StateConfig{})
				must(t, err)
				mix.X, mix.Offsets, mix.States, mix.Workers = y, []int{0, n}, []LayerState{st}, 1
				must(t, b.Mixer.Mix(t.Context(), &mix))
			}
			add(b, y)
		}
	}
	return append(residuals, r)
}

// TestByHand compares a call's outputs with the formulas.
func TestByHand(t *testing.T) {
	m := hybrid(t)
	for _, n := range []int{1, 63, 150} {
		ids := tokens(uint64(n), n)
		want := byHand(t, m, ids)
		call := &Call{Tokens: ids, Hidden: zeros(n, dim), Logits: zeros(n, vocab)}
		for range want {
			call.Residuals = append(call.Residuals, zeros(n, dim))
		}
		must(t, m.Run(t.Context(), call))
		for i, r := range want {
			near(t, fmt.Sprintf("%d tokens, residual %d", n, i), call.Residuals[i].Data, r.Data, 2e-5)
		}
		hidden, logits := zeros(n, dim), zeros(n, vocab)
		for i := range n {
			m.cfg.Norm.Row(mat.Row(hidden, i), mat.Row(want[len(want)-1], i))
		}
		m.cfg.Head.Forward(nil, logits, hidden)
		near(t, "hidden", call.Hidden.Data, hidden.Data, 2e-5)
		near(t, "logits", call.Logits.Data, logits.Data, 2e-5)
		for _, v := range logits.Data {
			if v > 20 || v < -20 {
				t.Fatalf("a logit is %v", v)
			}
		}
	}
}

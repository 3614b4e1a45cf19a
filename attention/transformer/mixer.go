package transformer

import (
	"context"
	"fmt"
	"io"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/rope"
)

// mixer is exact attention with the projections of one layer:
//
//	[q | k | v] = QKV x + b;  q, k = normed and rotated;  y = O attention(q, k, v) + b
//
// The rotation is the state's. With a gate QKV has a fourth part g, and what O reads is
// sigmoid(g) attention(q, k, v).
type mixer struct {
	op       *attention.Attention
	with     *Replacement // instead of op, or nil
	print    uint64       // of with
	qkv, out *dense.Linear
	q, k     dense.Norm   // of heads or of all of them, or none
	rotation *rope.Config // nil for none
	scratch  *scratch.List[mixerRun]

	heads, kvHeads, headDim int
	layer                   int // its number in the model

	gate   bool           // there is one
	whole  bool           // norms are of all heads together
	late   bool           // norms come after the rotation, which is the mixer's then
	before *rope.Rotation // the rotation that is the mixer's, also of a Replacement, after the norms then
	heat   temperature    // of queries; beta 0 for none
}

var _ lm.Streamer = (*mixer)(nil)

// mixerRun is the working memory of a call.
type mixerRun struct {
	m     *mixer
	x     blas32.General
	group parallel.Group
	call  attention.Call
	near  [2]attention.Run // what drafts read
	reads [1]attention.Selection
	k, v  [1]blas32.General
	one   [2]blas32.General // k and v of a sequence

	floats []float32
	qkv    blas32.General // [n, (H + 2 KVH) HeadDim], or with a gate [n, 2 (H + KVH) HeadDim]
	y      blas32.General // [n, H HeadDim]
	at     []int64        // positions of the rows
	block  int            // rows of a task

	project, finish func(worker, task int)
}

// Mix implements lm.Mixer.
func (m *mixer) Mix(ctx context.Context, mix *lm.Mix) error {
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	defer r.forget()
	if r.project == nil {
		r.project, r.finish = r.projectRows, r.finishRows
	}
	r.m, r.x = m, mix.X
	n, h, kv := mix.X.Rows, m.heads*m.headDim, m.kvHeads*m.headDim
	wide := m.columns()
	r.floats = scratch.Floats(r.floats, n*(wide+h))
	r.qkv, r.y = mat.Of(r.floats, n, wide), mat.Of(r.floats[n*wide:], n, h)
	r.place(mix)
	r.block = lm.BlockRows(n, mix.Workers)
	tasks := (n + r.block - 1) / r.block
	if err := r.group.Run(ctx, mix.Workers, tasks, r.project); err != nil {
		return err
	}
	r.k[0], r.v[0] = mat.Columns(r.qkv, h, kv), mat.Columns(r.qkv, h+kv, kv)
	past, alone := r.call.States[:0], false
	for _, st := range mix.States {
		if _, ok := st.(*policyState); ok {
			alone = true // each policy has an operator of its own
			break
		}
		past = append(past, st.(interface{ past() attention.Past }).past())
	}
	if alone {
		if err := r.mixPolicies(ctx, mix); err != nil {
			return err
		}
		return r.group.Run(ctx, mix.Workers, tasks, r.finish)
	}
	r.call = attention.Call{
		Dst: r.y, Q: mat.Columns(r.qkv, 0, h), K: r.k[:], V: r.v[:],
		States: past, Offsets: mix.Offsets, Prefill: !mix.Single, Workers: mix.Workers, Tree: mix.Tree,
	}
	r.selectNear(mix)
	op := attention.Operator(m.op)
	if m.with != nil {
		op = m.with.operator
	}
	if err := r.attend(ctx, op, mix); err != nil {
		return err
	}
	return r.group.Run(ctx, mix.Workers, tasks, r.finish)
}

// columns returns how many columns the first projection makes.
func (m *mixer) columns() int {
	n := m.heads + 2*m.kvHeads
	if m.gate {
		n += m.heads
	}
	return n * m.headDim
}

// forget drops what is the caller's.
func (r *mixerRun) forget() {
	clear(r.call.States)
	r.call = attention.Call{States: r.call.States[:0]}
	r.m, r.x = nil, blas32.General{}
}

// rows are those of a task.
func (r *mixerRun) rows(x blas32.General, task int) blas32.General {
	return mat.Rows(x, task*r.block, min((task+1)*r.block, x.Rows))
}

func (r *mixerRun) projectRows(_, task int) {
	m, qkv := r.m, r.rows(r.qkv, task)
	m.qkv.ForwardIn(&r.group, qkv, r.rows(r.x, task))
	q, k := mat.Columns(qkv, 0, m.heads*m.headDim), mat.Columns(qkv, m.heads*m.headDim, m.kvHeads*m.headDim)
	at := r.at[task*r.block:][:qkv.Rows]
	if m.late {
		m.turn(q, k, at)
	}
	m.normHeads(&m.q, q)
	m.normHeads(&m.k, k)
	if !m.late {
		m.turn(q, k, at)
	}
	if m.heat.beta != 0 {
		for t, p := range at {
			row := mat.Row(q, t)
			asm.Scale(row, float32(1+m.heat.beta*math.Log1p(float64(p/m.heat.original))), row)
		}
	}
}

// turn rotates queries and keys where the state does not.
func (m *mixer) turn(q, k blas32.General, at []int64) {
	if m.before == nil {
		return
	}
	for _, x := range [...]blas32.General{q, k} {
		if err := m.before.RotateAt(x, at); err != nil {
			panic(err) // positions are those of tokens
		}
	}
}

// place finds the positions of the rows.
func (r *mixerRun) place(mix *lm.Mix) {
	r.at = r.at[:0]
	for i, st := range mix.States {
		first := int64(st.Len())
		policy, _ := st.(*policyState)
		for t := range mix.Offsets[i+1] - mix.Offsets[i] {
			at := first + int64(t)
			if mix.Tree != nil && t > 0 {
				at = r.at[mix.Tree[t]] + 1
			}
			if policy != nil {
				at = policy.numbered(at)
			}
			r.at = append(r.at, at)
		}
	}
}

// normHeads norms the heads of rows, or rows; a norm with weights for all heads has some for
// each.
func (m *mixer) normHeads(norm *dense.Norm, x blas32.General) {
	if !norm.Given() {
		return
	}
	wide, one := m.headDim, *norm
	if m.whole {
		wide = x.Cols
	}
	for t := range x.Rows {
		for at := 0; at < x.Cols; at += wide {
			if len(norm.Weight) == x.Cols {
				one.Weight = norm.Weight[at : at+wide]
			}
			part := mat.Part(x, t, at, wide)
			one.Row(part, part)
		}
	}
}

func (r *mixerRun) finishRows(_, task int) {
	if m := r.m; m.gate {
		y, qkv := r.rows(r.y, task), r.rows(r.qkv, task)
		for t := range y.Rows {
			gate := mat.Part(qkv, t, qkv.Cols-y.Cols, y.Cols)
			asm.Sigmoid(gate, gate)
			asm.Mul(mat.Row(y, t), mat.Row(y, t), gate)
		}
	}
	r.m.out.ForwardIn(&r.group, r.rows(r.x, task), r.rows(r.y, task))
}

// Kind implements lm.Mixer: layers with the same operator share its working memory.
func (m *mixer) Kind() string {
	if m.with != nil {
		return fmt.Sprintf("attention %p", m.with)
	}
	return fmt.Sprintf("attention %p", m.op)
}

// Bytes implements lm.Mixer.
func (m *mixer) Bytes() int64 {
	var other int64
	if op, ok := m.scratchOf().(interface{ Bytes() int64 }); ok {
		other = op.Bytes()
	}
	return other + int64(m.qkv.Bytes()) + int64(m.out.Bytes()) + m.q.Bytes() + m.k.Bytes()
}

// ScratchBytes implements lm.Mixer.
func (m *mixer) ScratchBytes(tokens int) int64 {
	n := min(tokens, pieceTokens)
	const rest = 16 << 10
	var other int64
	if op, ok := m.scratchOf().(interface{ ScratchBytes(queries, keys int) int64 }); ok {
		other = op.ScratchBytes(n, tokens)
	}
	own := other + 4*int64(n)*int64(m.columns()+m.heads*m.headDim) + rest
	turned := 4 * int64(n) * int64((m.heads+m.kvHeads)*m.headDim)
	return own + turned + m.op.StepScratchBytes(n, tokens) + m.op.PrefillScratchBytes(n, tokens) + m.op.TurnedScratchBytes(n, tokens)
}

// scratchOf is the operator in place of op, or nil.
func (m *mixer) scratchOf() attention.Operator {
	if m.with == nil {
		return nil
	}
	return m.with.operator
}

// pieceTokens is how many tokens of a call go through a layer together.
const pieceTokens = 512

// Prepare implements lm.Mixer: there is nothing to make ready.
func (m *mixer) Prepare(context.Context, int) error { return nil }

// Fingerprint implements lm.Streamer.
func (m *mixer) Fingerprint() uint64 {
	cfg := m.op.Config()
	f := state.NewFingerprint("attention", int64(m.heads), int64(m.kvHeads), int64(m.headDim), int64(cfg.Window),
		int64(math.Float32bits(cfg.Scale)), int64(math.Float32bits(cfg.Softcap)))
	f.Add(m.qkv.Fingerprint())
	f.Add(m.out.Fingerprint())
	f.Floats(m.q.Weight, m.k.Weight, cfg.Sinks, []float32{m.q.Eps})
	f.Add(uint64(state.Bool(m.late)))
	if m.gate {
		f.Add(1)
	}
	if m.with != nil {
		f.Add(m.print)
	}
	f.Add(math.Float64bits(m.heat.beta))
	f.Add(uint64(m.heat.original))
	addRotation(&f, m.rotation)
	return uint64(f)
}

// addRotation adds what a rotation turns by.
func addRotation(f *state.Fingerprint, cfg *rope.Config) {
	if cfg == nil {
		return
	}
	r, err := rope.New(*cfg)
	if err != nil {
		return // newMixer has made one
	}
	whole := r.Config()
	f.Add(uint64(whole.Layout))
	f.Add(uint64(whole.Offset))
	f.Add(math.Float64bits(r.AttentionFactor()))
	for _, x := range r.Frequencies() {
		f.Add(math.Float64bits(x))
	}
	for _, c := range fmt.Sprint(whole.Scheme) {
		f.Add(uint64(c))
	}
}

// stateConfig says how a state of the layer keeps its keys.
func (m *mixer) stateConfig(cfg lm.StateConfig) attention.StateConfig {
	c := attention.StateConfig{Format: cfg.Format, Window: cfg.Window, Keep: cfg.Keep}
	if own := m.op.Config().Window; own > 0 && (cfg.WindowsOnly || cfg.Window > 0) && (c.Window == 0 || own <= c.Window) {
		c.Window, c.Keep = own, 0 // nothing before it is seen
	}
	if m.rotation != nil && !m.late {
		r := *m.rotation
		r.Length = int64(cfg.Length)
		c.Rotation, c.Policy = &r, cfg.Policy
	}
	if c.Window == 0 {
		c.MaxTokens = cfg.MaxTokens
	}
	return c
}

// StateBytes implements lm.Streamer.
func (m *mixer) StateBytes(tokens int) int64 {
	if m.with != nil {
		return m.with.stateBytes(m.heads*m.headDim, m.kvHeads*m.headDim, tokens)
	}
	return m.op.StateBytes(m.stateConfig(lm.StateConfig{}), tokens)
}

// NewState implements lm.Streamer.
func (m *mixer) NewState(cfg lm.StateConfig) (lm.LayerState, error) {
	if cfg.Policies != nil {
		if p := cfg.Policies(m.layer); p != nil {
			return m.newPolicy(cfg, *p)
		}
	}
	if m.with != nil {
		past, err := m.with.newState(cfg)
		if err != nil {
			return nil, err
		}
		return &replaced{past, cfg.MaxTokens, m.with}, nil
	}
	st, err := m.op.NewState(m.stateConfig(cfg))
	if err != nil {
		return nil, err
	}
	return &cache{State: st, most: cfg.MaxTokens, length: cfg.Length, policy: cfg.Policy, owner: m}, nil
}

// ReadState implements lm.Streamer.
func (m *mixer) ReadState(r io.Reader) (lm.LayerState, error) {
	if m.with != nil {
		return m.with.readState(r)
	}
	c, err := readCache(r, m.Fingerprint())
	if err != nil {
		return nil, err
	}
	sc := m.stateConfig(lm.StateConfig{Length: c.length, Policy: c.policy})
	if c.State, err = m.op.ReadRotated(r, sc.Rotation, sc.Policy); err != nil {
		return nil, err
	}
	c.owner = m
	return c, c.checkRead(false)
}

// planned returns an empty state for a sequence of a length, where that makes a difference.
func (m *mixer) planned(tokens int) (*attention.State, error) {
	return m.op.NewState(m.stateConfig(lm.StateConfig{Length: tokens}))
}

// depends tells whether the rotation depends on the length of a sequence.
func (m *mixer) depends() bool {
	return m.rotation != nil && !m.late && dependsOnLength(m.rotation.Scheme)
}

func dependsOnLength(scheme rope.Scheme) bool {
	switch s := scheme.(type) {
	case rope.LongRoPE, rope.DynamicNTK, rope.DynamicLinear:
		return true
	case rope.YaRN:
		return s.Dynamic
	}
	return false
}

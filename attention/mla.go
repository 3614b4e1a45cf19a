package attention

import (
	"context"
	"io"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/rope"
)

// MLAConfig fixes multi-head latent attention.
type MLAConfig struct {
	// Hidden is the width of a token.
	Hidden int
	Heads  int
	// QRank is the width that queries are made through (q_lora_rank), 0 for queries
	// made of the token at once; KVRank is that of the latent (kv_lora_rank).
	QRank, KVRank int
	// NopeDim and RopeDim are the features of a head's key without and with position
	// (qk_nope_head_dim, qk_rope_head_dim), ValueDim those of its value (v_head_dim).
	NopeDim, RopeDim, ValueDim int
	// Eps is that of the norms; 0 stands for 1e-6.
	Eps float32
	// Scale multiplies logits; 0 stands for 1/sqrt(NopeDim+RopeDim). YaRN's part in it
	// is rope.Config.SoftmaxFactor.
	Scale float32
	// Rotation turns the RopeDim features; its HeadDim is set. Published models use
	// rope.Interleaved.
	Rotation rope.Config
	// LongCat multiplies normed queries by sqrt(Hidden/QRank) and the latent by
	// sqrt(Hidden/KVRank), as LongCat-Flash does.
	LongCat bool
	// Format is how weights are stored.
	Format asm.Format
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// MLA is multi-head latent attention (DeepSeek-V2 2024, arXiv 2405.04434): keys and
// values of all heads are made of one latent c of KVRank features, and one key r of
// RopeDim features turned by position is shared by all heads:
//
//	q = QB norm(QA x), of each head [qn | qr];  [c | r] = KVA x;  c = norm(c)
//	[kn | v] = KVB c for each head
//	out = O [softmax(Scale (qn.kn + rot(qr).rot(r))) v]
//
// A state holds [c | r] for each token: KVRank+RopeDim numbers, whatever the number
// of heads, the value a prefix of the key. Forward is this naive form; Step
// absorbs KVB into the query and the output (qn.kn = (Wk^T qn).c), so that keys
// and values are never made. An MLA is immutable and safe for concurrent use.
type MLA struct {
	cfg      MLAConfig
	rotation *rope.Rotation
	naive    *Attention
	latent   *Attention // one key head, [c | r]

	qa, qb, kva, kvb, o *dense.Linear
	qNorm, kvNorm       []float32
	keys, values        []*asm.Matrix // of each head: nope -> latent, latent -> value

	scratch scratch.List[mlaRun]
}

// NewMLA packs the weights, or returns an error that matches ErrConfig or ErrShape.
func NewMLA(cfg MLAConfig, w *MLAWeights) (*MLA, error) {
	for _, n := range []struct {
		name  string
		value int
		least int
	}{
		{"Hidden", cfg.Hidden, 1}, {"Heads", cfg.Heads, 1}, {"QRank", cfg.QRank, 0}, {"KVRank", cfg.KVRank, 1},
		{"NopeDim", cfg.NopeDim, 1}, {"RopeDim", cfg.RopeDim, 2}, {"ValueDim", cfg.ValueDim, 1}, {"Workers", cfg.Workers, 0},
	} {
		if n.value < n.least || n.value > 1<<20 {
			return nil, check.Errorf(ErrConfig, "attention: MLA's %s is %d, want %d to 2^20", n.name, n.value, n.least)
		}
	}
	if cfg.Eps == 0 {
		cfg.Eps = 1e-6
	}
	switch {
	case !finite(cfg.Eps) || cfg.Eps < 0:
		return nil, check.Errorf(ErrConfig, "attention: MLA's Eps is %v, want a finite number, 0 or more", cfg.Eps)
	case cfg.Format > asm.Float16:
		return nil, check.Errorf(ErrConfig, "attention: MLA's Format is %d, want Float32, BFloat16, Int8 or Float16", uint8(cfg.Format))
	}
	if cfg.Scale == 0 {
		cfg.Scale = float32(1 / math.Sqrt(float64(cfg.NopeDim+cfg.RopeDim)))
	}
	cfg.Rotation.HeadDim, cfg.Rotation.Workers = cfg.RopeDim, 1
	m := &MLA{cfg: cfg}
	var err error
	if m.rotation, err = rope.New(cfg.Rotation); err != nil {
		return nil, check.Errorf(ErrConfig, "attention: MLA's Rotation: %v", err)
	}
	if m.rotation.Axes() != 1 || cfg.Rotation.XPos != nil {
		return nil, check.Errorf(ErrConfig, "attention: MLA's Rotation has several axes or xPos")
	}
	base := Config{Heads: cfg.Heads, Scale: cfg.Scale, Causal: true, Workers: cfg.Workers}
	naive, latent := base, base
	naive.HeadDim, naive.ValueDim = cfg.NopeDim+cfg.RopeDim, cfg.ValueDim
	latent.KVHeads, latent.HeadDim, latent.ValueDim = 1, cfg.KVRank+cfg.RopeDim, cfg.KVRank
	if m.naive, err = New(naive); err != nil {
		return nil, err
	}
	if m.latent, err = New(latent); err != nil {
		return nil, err
	}
	if err := m.pack(w); err != nil {
		return nil, err
	}
	return m, nil
}

// NewState returns an empty state; SharedValues is set, and Rotation is the MLA's
// own. See Attention.NewState.
func (m *MLA) NewState(cfg StateConfig) (*State, error) {
	if cfg.Rotation != nil {
		return nil, check.Errorf(ErrConfig, "attention: Rotation in the StateConfig of an MLA, which has its own")
	}
	cfg.SharedValues = true
	return m.latent.NewState(cfg)
}

// NewPages returns a pool for the MLA's states.
func (m *MLA) NewPages(cfg PagesConfig) (*Pages, error) {
	cfg.SharedValues = true
	return m.latent.NewPages(cfg)
}

// ReadState is Attention.ReadState.
func (m *MLA) ReadState(r io.Reader) (*State, error) { return m.latent.ReadState(r) }

// Forward sets dst [tokens, Hidden] from x [tokens, Hidden], one sequence from its
// beginning, in the naive form: keys and values of all heads are made, 4 Heads
// (NopeDim+RopeDim+ValueDim) bytes for each token while it runs. dst must not
// share elements with x.
func (m *MLA) Forward(dst, x blas32.General) error {
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	return r.run(context.Background(), m, dst, x, nil)
}

// Step appends tokens to a state and attends from them, in the absorbed form, which
// costs 2 Heads (2 KVRank + RopeDim) flop for each new token and token held.
func (m *MLA) Step(dst, x blas32.General, s *State) error {
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	r.single[0] = s
	return r.run(context.Background(), m, dst, x, r.single[:])
}

// StepBatch is Step for one token of each of many states: the weights are read once.
func (m *MLA) StepBatch(dst, x blas32.General, states []*State) error {
	if x.Rows != len(states) {
		return check.Errorf(ErrShape, "attention: x has %d rows, want one for each state = %d", x.Rows, len(states))
	}
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	return r.run(context.Background(), m, dst, x, states)
}

// mlaRun is the working memory of a call: a row for each token everywhere.
type mlaRun struct {
	m      *MLA
	dst, x blas32.General
	states []*State // nil for the naive form
	single [1]*State
	group  parallel.Group

	project, finish func(worker, task int)

	floats                               []float32
	qa, q, qr, kv, r, kvb, k, v, ql, out blas32.General
	at                                   []int64
}

func (r *mlaRun) run(ctx context.Context, m *MLA, dst, x blas32.General, states []*State) error {
	c := &m.cfg
	if err := check.Matrix(ErrShape, "attention", "x", x, -1, c.Hidden, "Hidden"); err != nil {
		return err
	}
	if err := check.Output(ErrShape, "attention", dst, x.Rows, c.Hidden, "Hidden", x, false); err != nil {
		return err
	}
	for i, s := range states {
		if s == nil || s.op != m.latent {
			return check.Errorf(ErrState, "attention: state %d is another operator's", i)
		}
	}
	r.m, r.dst, r.x, r.states = m, dst, x, states
	defer func() {
		r.dst, r.x, r.states = blas32.General{}, blas32.General{}, nil
		clear(r.single[:])
	}()
	if r.project == nil {
		r.project, r.finish = r.projectTask, r.finishTask
	}
	r.reserve()
	r.at = r.at[:0]
	for i := range x.Rows {
		switch {
		case states == nil:
			r.at = append(r.at, int64(i))
		case len(states) == 1:
			r.at = append(r.at, int64(states[0].n+i))
		default:
			r.at = append(r.at, int64(states[i].n))
		}
	}
	workers, tasks := parallel.Workers(c.Workers), (x.Rows+mlaRows-1)/mlaRows
	if err := r.group.Run(ctx, workers, tasks, r.project); err != nil {
		return wrap(ctx, err)
	}
	var err error
	if states == nil {
		err = m.naive.Forward(r.out, r.q, r.k, r.v)
	} else {
		err = m.latent.stepAll(ctx, r.v, r.ql, r.kv, states)
	}
	if err != nil {
		return err
	}
	if err := r.group.Run(ctx, workers, tasks, r.finish); err != nil {
		return wrap(ctx, err)
	}
	return nil
}

// mlaRows is how many tokens a task takes through the layers.
const mlaRows = 48

// reserve shapes the buffers of a call.
func (r *mlaRun) reserve() {
	c, n := &r.m.cfg, r.x.Rows
	naive := r.states == nil
	only := func(cols int, wanted bool) int {
		if wanted {
			return cols
		}
		return 0
	}
	list := [...]struct {
		m    *blas32.General
		cols int
	}{
		{&r.qa, c.QRank}, {&r.q, c.Heads * (c.NopeDim + c.RopeDim)}, {&r.qr, c.Heads * c.RopeDim},
		{&r.kv, c.KVRank + c.RopeDim}, {&r.r, c.RopeDim}, {&r.out, c.Heads * c.ValueDim},
		{&r.kvb, only(c.Heads*(c.NopeDim+c.ValueDim), naive)}, {&r.k, only(c.Heads*(c.NopeDim+c.RopeDim), naive)},
		{&r.v, c.Heads * max(only(c.ValueDim, naive), only(c.KVRank, !naive))}, // values, or sums of latents
		{&r.ql, only(c.Heads*(c.KVRank+c.RopeDim), !naive)},
	}
	total := 0
	for _, x := range list {
		total += n * x.cols
	}
	r.floats = scratch.Floats(r.floats, total)
	at := 0
	for _, x := range list {
		*x.m = mat.Of(r.floats[at:], n, x.cols)
		at += n * x.cols
	}
}

// projectTask takes some tokens to queries, keys and values.
func (r *mlaRun) projectTask(_, task int) {
	m, c := r.m, &r.m.cfg
	from := task * mlaRows
	n := min(mlaRows, r.x.Rows-from)
	of := func(x blas32.General) blas32.General { return mat.Rows(x, from, from+n) }
	x, q, kv := of(r.x), of(r.q), of(r.kv)
	if c.QRank > 0 {
		qa := of(r.qa)
		m.qa.Forward(qa, x)
		for i := range n {
			row := qa.Data[i*qa.Stride:][:qa.Cols]
			asm.RMSNorm(row, row, m.qNorm, c.Eps)
		}
		m.qb.Forward(q, qa)
	} else {
		m.qb.Forward(q, x)
	}
	m.kva.Forward(kv, x)
	turn := func(x, y blas32.General, heads, width, at int) { // part of each head of x, by way of y
		for i := range n {
			for h := range heads {
				copy(y.Data[i*y.Stride+h*c.RopeDim:][:c.RopeDim], x.Data[i*x.Stride+h*width+at:])
			}
		}
		if err := m.rotation.RotateAt(y, r.at[from:from+n]); err != nil {
			panic(err)
		}
		for i := range n {
			for h := range heads {
				copy(x.Data[i*x.Stride+h*width+at:][:c.RopeDim], y.Data[i*y.Stride+h*c.RopeDim:])
			}
		}
	}
	turn(q, of(r.qr), c.Heads, c.NopeDim+c.RopeDim, c.NopeDim)
	turn(kv, of(r.r), 1, 0, c.KVRank)
	for i := range n {
		row := kv.Data[i*kv.Stride:][:c.KVRank]
		asm.RMSNorm(row, row, m.kvNorm, c.Eps)
	}
	if r.states == nil {
		r.expand(of(r.kvb), of(r.k), of(r.v), kv)
		return
	}
	// Absorbed: the query of the latent.
	ql, width := of(r.ql), c.KVRank+c.RopeDim
	for h := range c.Heads {
		nope := mat.Columns(q, h*(c.NopeDim+c.RopeDim), c.NopeDim)
		asm.Gemm(mat.Columns(ql, h*width, c.KVRank), nope, m.keys[h], nil)
		for i := range n {
			copy(ql.Data[i*ql.Stride+h*width+c.KVRank:][:c.RopeDim], nope.Data[i*nope.Stride+c.NopeDim:])
		}
	}
}

// expand makes the keys and values of all heads.
func (r *mlaRun) expand(kvb, k, v, kv blas32.General) {
	m, c := r.m, &r.m.cfg
	m.kvb.Forward(kvb, mat.Columns(kv, 0, c.KVRank))
	for i := range kvb.Rows {
		for h := range c.Heads {
			x := kvb.Data[i*kvb.Stride+h*(c.NopeDim+c.ValueDim):]
			key := k.Data[i*k.Stride+h*(c.NopeDim+c.RopeDim):]
			copy(key[:c.NopeDim], x)
			copy(key[c.NopeDim:][:c.RopeDim], kv.Data[i*kv.Stride+c.KVRank:])
			copy(v.Data[i*v.Stride+h*c.ValueDim:][:c.ValueDim], x[c.NopeDim:])
		}
	}
}

// finishTask takes some tokens through the last layer, latents to values before it.
func (r *mlaRun) finishTask(_, task int) {
	m, c := r.m, &r.m.cfg
	from := task * mlaRows
	n := min(mlaRows, r.x.Rows-from)
	out := mat.Rows(r.out, from, from+n)
	if r.states != nil {
		sums := mat.Rows(r.v, from, from+n)
		for h := range c.Heads {
			asm.Gemm(mat.Columns(out, h*c.ValueDim, c.ValueDim), mat.Columns(sums, h*c.KVRank, c.KVRank), m.values[h], nil)
		}
	}
	m.o.Forward(mat.Rows(r.dst, from, from+n), out)
}

package mla

import (
	"io"
	"math"
	"slices"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/rope"
)

// Config fixes multi-head latent attention.
type Config struct {
	// Dim is the width of a token, Heads how many heads read and are read: each has its own
	// keys and values.
	Dim, Heads int
	// QRank is the width that queries are made through (q_lora_rank), 0 for queries
	// made of the token at once; KVRank is that of the latent (kv_lora_rank).
	QRank, KVRank int
	// NopeDim and RopeDim are the features of a head's key without and with position
	// (qk_nope_head_dim, qk_rope_head_dim), ValueDim those of its value (v_head_dim).
	NopeDim, RopeDim, ValueDim int
	// Eps is that of the norms; 0 stands for 1e-6.
	Eps float64
	// Scale multiplies logits; 0 stands for 1/sqrt(NopeDim+RopeDim). YaRN's part in it
	// is rope.Config.SoftmaxFactor.
	Scale float32
	// Rotation turns the RopeDim features; its HeadDim is set. Published models use
	// rope.Interleaved.
	Rotation rope.Config
	// LongCat multiplies normed queries by sqrt(Dim/QRank) and the latent by
	// sqrt(Dim/KVRank), as LongCat-Flash does.
	LongCat bool
	// Format is how weights are stored; 0 is Float32.
	Format asm.Format
	// Int8Products lets steps over states of Int8 round queries and weights and make their
	// products of integers where that is faster, as attention.Config says.
	Int8Products bool
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// MLA is multi-head latent attention (DeepSeek-V2 2024, arXiv 2405.04434): keys and
// values of all heads are made of one latent c of KVRank features, and one key r of
// RopeDim features turned by position is shared by all heads:
//
//	q = QB norm(QA x), of each head [qn | qr];  [c | r] = KVA x;  c = norm(c)
//	[kn | v] = KVB c for each head
//	out = Out [softmax(Scale (qn.kn + rot(qr).rot(r))) v]
//
// A state keeps [c | r] of each token: KVRank+RopeDim numbers, whatever the number
// of heads, the value a prefix of the key. Forward is this naive form; Step
// absorbs KVB into the query and the output (qn.kn = (Wk^T qn).c), so that keys
// and values are never made. An MLA is immutable and safe for concurrent use.
type MLA struct {
	cfg      Config
	rotation *rope.Rotation
	naive    *attention.Attention
	latent   *attention.Attention // one key head, [c | r]

	qa, qb, kva, kvb, o *dense.Linear
	qNorm, kvNorm       []float32
	keys, values        []*asm.Matrix // of each head: nope -> latent, latent -> value

	scratch scratch.List[run]
}

// New packs the weights, or returns an error that matches attention.ErrConfig or, where
// a weight has another shape than the Config says, attention.ErrShape.
func New(cfg Config, w Weights) (*MLA, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Eps == 0 {
		cfg.Eps = 1e-6
	}
	if cfg.Scale == 0 {
		cfg.Scale = float32(1 / math.Sqrt(float64(cfg.NopeDim+cfg.RopeDim)))
	}
	if err := check.Workers(attention.ErrConfig, "mla: Rotation", cfg.Rotation.Workers); err != nil {
		return nil, err
	}
	cfg.Rotation.HeadDim, cfg.Rotation.Workers = cfg.RopeDim, 1
	m := &MLA{cfg: cfg}
	var err error
	if m.rotation, err = rope.New(cfg.Rotation); err != nil {
		return nil, check.Errorf(attention.ErrConfig, "mla: Rotation: %v", err)
	}
	if m.rotation.Axes() != 1 || cfg.Rotation.XPos != nil {
		return nil, check.Errorf(attention.ErrConfig, "mla: Rotation has several axes or xPos")
	}
	if err := w.check(&cfg); err != nil {
		return nil, err
	}
	naive := attention.Config{Heads: cfg.Heads, Scale: cfg.Scale, Causal: true, Workers: cfg.Workers}
	latent := naive
	naive.HeadDim, naive.ValueDim = cfg.NopeDim+cfg.RopeDim, cfg.ValueDim
	latent.KVHeads, latent.HeadDim, latent.ValueDim = 1, cfg.KVRank+cfg.RopeDim, cfg.KVRank
	latent.Fingerprint, latent.Int8Products = m.fingerprint(&w), cfg.Int8Products
	if m.naive, err = attention.New(naive); err != nil {
		return nil, check.Named("mla", err)
	}
	if m.latent, err = attention.New(latent); err != nil {
		return nil, check.Named("mla", err)
	}
	m.pack(&w)
	return m, nil
}

// WithLength returns the MLA with the frequencies that its Rotation has for sequences of a
// length, where they depend on it: it shares the weights, and its states are its own. It is m
// itself where the frequencies are the same. Errors match attention.ErrConfig.
func (m *MLA) WithLength(length int64) (*MLA, error) {
	cfg := m.cfg
	cfg.Rotation.Length = length
	rotation, err := rope.New(cfg.Rotation)
	if err != nil {
		return nil, check.Errorf(attention.ErrConfig, "mla: Rotation: %v", err)
	}
	if rotation.AttentionFactor() == m.rotation.AttentionFactor() && slices.Equal(rotation.Frequencies(), m.rotation.Frequencies()) {
		return m, nil
	}
	latent := m.latent.Config()
	f := state.NewFingerprint("mla of another length", int64(latent.Fingerprint), int64(math.Float64bits(rotation.AttentionFactor())))
	for _, x := range rotation.Frequencies() {
		f.Add(math.Float64bits(x))
	}
	latent.Fingerprint, latent.LookAhead = uint64(f), nil
	other := &MLA{
		cfg: cfg, rotation: rotation, naive: m.naive, qa: m.qa, qb: m.qb, kva: m.kva, kvb: m.kvb, o: m.o,
		qNorm: m.qNorm, kvNorm: m.kvNorm, keys: m.keys, values: m.values,
	}
	if other.latent, err = attention.New(latent); err != nil {
		return nil, check.Named("mla", err)
	}
	return other, nil
}

func (cfg *Config) check() error {
	for _, n := range []struct {
		name  string
		value int
		least int
	}{
		{"Dim", cfg.Dim, 1}, {"Heads", cfg.Heads, 1}, {"QRank", cfg.QRank, 0}, {"KVRank", cfg.KVRank, 1},
		{"NopeDim", cfg.NopeDim, 1}, {"RopeDim", cfg.RopeDim, 2}, {"ValueDim", cfg.ValueDim, 1},
	} {
		if n.value < n.least || n.value > 1<<20 {
			return check.Errorf(attention.ErrConfig, "mla: %s is %d, want %d to 2^20", n.name, n.value, n.least)
		}
	}
	widest := max(cfg.NopeDim+max(cfg.RopeDim, cfg.ValueDim), cfg.KVRank+cfg.RopeDim)
	switch {
	case check.Product(math.MaxInt32, cfg.Heads, widest) < 0:
		return check.Errorf(attention.ErrConfig, "mla: %d Heads of up to %d features are more than a matrix can have", cfg.Heads, widest)
	case float32(cfg.Eps)-float32(cfg.Eps) != 0 || cfg.Eps < 0:
		return check.Errorf(attention.ErrConfig, "mla: Eps is %v, want a finite number, 0 or more", cfg.Eps)
	case cfg.Format > asm.Float16:
		return check.Errorf(attention.ErrConfig, "mla: Format is %d, want Float32, BFloat16, Int8 or Float16", uint8(cfg.Format))
	}
	return check.Workers(attention.ErrConfig, "mla", cfg.Workers)
}

// fingerprint hashes all that the latents and keys of a state depend on, and what is
// made of them: a state is of no use to other weights.
func (m *MLA) fingerprint(w *Weights) uint64 {
	c := &m.cfg
	f := state.NewFingerprint("mla", int64(math.Float32bits(float32(c.Eps))), state.Bool(c.LongCat), int64(c.Format), int64(c.NopeDim), int64(c.ValueDim),
		int64(m.rotation.Config().Layout), int64(math.Float64bits(m.rotation.AttentionFactor())))
	for _, x := range m.rotation.Frequencies() {
		f.Add(math.Float64bits(x))
	}
	f.Matrices(w.QA, w.QB, w.KVA, w.KVB, w.Out)
	f.Floats(w.QANorm, w.KVANorm)
	return uint64(f)
}

// Bytes returns the memory of the packed weights.
func (m *MLA) Bytes() int64 {
	n := 4 * int64(len(m.qNorm)+len(m.kvNorm))
	for _, l := range []*dense.Linear{m.qa, m.qb, m.kva, m.kvb, m.o} {
		if l != nil {
			n += int64(l.Bytes())
		}
	}
	for h := range m.keys {
		n += int64(m.keys[h].Bytes() + m.values[h].Bytes())
	}
	return n
}

// ScratchBytes returns the working memory that Forward needs for a sequence of that many
// tokens, at the most, besides its arguments.
func (m *MLA) ScratchBytes(tokens int) int64 {
	c := &m.cfg
	h := int64(c.Heads)
	row := int64(c.QRank+c.KVRank+2*c.RopeDim+2) + h*int64(3*c.NopeDim+3*c.RopeDim+3*c.ValueDim)
	const rest = 1 << 12
	return 4*int64(tokens)*row + m.naive.ScratchBytes(tokens, tokens) + rest
}

// StepScratchBytes is ScratchBytes for a step of that many new tokens, on one state or
// one for each of many, whose state has as many as held, the new ones included. Rows of
// Int8 that stand turned (see attention.StateConfig.Format) take more.
func (m *MLA) StepScratchBytes(tokens, held int) int64 {
	c := &m.cfg
	h := int64(c.Heads)
	row := int64(c.QRank+c.KVRank+2*c.RopeDim+2) + h*int64(c.NopeDim+3*c.RopeDim+2*c.KVRank+c.ValueDim)
	row += row / 8       // blocks that are scratch grow by steps
	const rest = 3 << 12 // lists and plans, and rounding of blocks up
	return 4*int64(tokens)*row + m.latent.StepScratchBytes(tokens, held) + m.latent.PrefillScratchBytes(tokens, held) + rest
}

// NewState returns an empty state; SharedValues is set, and Rotation is the MLA's
// own. See Attention.NewState. Errors match ErrConfig.
func (m *MLA) NewState(cfg attention.StateConfig) (*attention.State, error) {
	if cfg.Rotation != nil {
		return nil, check.Errorf(attention.ErrConfig, "mla: Rotation in the StateConfig of an MLA, which has its own")
	}
	cfg.SharedValues = true
	s, err := m.latent.NewState(cfg)
	return s, check.Named("mla", err)
}

// NewPages returns a pool for the MLA's states. Errors match ErrConfig.
func (m *MLA) NewPages(cfg attention.PagesConfig) (*attention.Pages, error) {
	cfg.SharedValues = true
	p, err := m.latent.NewPages(cfg)
	return p, check.Named("mla", err)
}

// ReadState reads a state that State.WriteTo wrote, of this MLA or of one with the same Config
// and weights. Errors match ErrState or are those of r.
func (m *MLA) ReadState(r io.Reader) (*attention.State, error) {
	s, err := m.latent.ReadState(r)
	if err != nil {
		return nil, check.Named("mla", err)
	}
	if !s.Config().SharedValues {
		return nil, check.Errorf(attention.ErrState, "mla: state: its values are not those of its latents")
	}
	return s, nil
}

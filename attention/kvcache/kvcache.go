package kvcache

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/rope"
)

// Positions says where queries and keys stand when they meet: which angle a Rotation
// gives them.
type Positions uint8

const (
	// AtOrigin leaves every token at the position that it came at.
	AtOrigin Positions = iota
	// InCache numbers the tokens that a query reads from 0 on, as if they were the whole
	// sequence (StreamingLLM, SirLLM, TokenSelect): no angle is ever larger than what is
	// read. Keys are held unrotated, but with the selector Window, which turns none again.
	InCache
	// Far leaves the last Recent tokens at their distances and puts all others at one
	// distance, Config.Distance (InfLLM, LM-Infinite). Keys are held unrotated.
	Far
	// FarInCache is Far with the far tokens numbered from 0 on and the query at
	// position Distance (the stream-llm baseline of InfLLM's code).
	FarInCache
	// Grouped leaves the last Recent tokens at their distances, and has Config.GroupSize
	// positions in a row share one beyond that (Self-Extend; Jin et al. 2024): with g of
	// them, query i meets key j as if they stood at floor(i/g) + Recent - floor(Recent/g)
	// and floor(j/g). No angle exceeds Recent + Len/g. Keys are held unrotated.
	Grouped
)

// far tells whether near and far tokens meet queries at angles of their own.
func (p Positions) far() bool { return p == Far || p == FarInCache || p == Grouped }

// Config fixes attention to a long past: its shape, what is always read, and the two
// policies.
type Config struct {
	// Heads, KVHeads, HeadDim, ValueDim, Scale and Softcap are those of attention.Config.
	Heads, KVHeads, HeadDim, ValueDim int
	Scale, Softcap                    float32
	// Sinks is a learned logit for each query head, as in attention.Config.
	Sinks []float32
	// Keep and Recent are the first and the last tokens: always read, never forgotten.
	// Recent counts from the end of a chunk of queries, a chunk's own among them. 0 is none.
	Keep, Recent int
	// Select says what to look at of the past; nil is all that is held.
	Select Selector
	// Evict says what to forget; nil is nothing. It goes with no Selector but All and
	// Window.
	Evict Evictor
	// Every is how many tokens beyond its budget an Evictor lets come before it acts. 0
	// is the policy's own: StreamingLLM and SirLLM make room before tokens come, H2O and
	// TOVA act after each call, all others only at State.Compact.
	Every int
	// Rotation turns queries and keys, which then come unrotated. It has one axis and no
	// xPos.
	Rotation *rope.Config
	// Positions says by which angles, 0 AtOrigin; Distance is that of Far, GroupSize that of Grouped.
	Positions Positions
	Distance  int
	GroupSize int
	// Chunk is how many queries of a longer step share a choice, counted from the step's
	// first; 0 stands for 512. However a sequence is cut into steps of whole chunks, it
	// gives the same. Recent should be at least two chunks: it counts from the chunk's
	// end, and the chunk's first queries see only what it leaves them.
	Chunk int
	// Dense is how many tokens, from the first on, are read by queries among them in full: a
	// prompt. 0 is none.
	Dense int
	// Int8Products lets steps over states of Int8 round queries and weights and make their
	// products of integers where that is faster, as attention.Config says.
	Int8Products bool
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Attention is causal attention to a past of which not all is read, or not all is held:
//
//	S(i) = the first Keep, the last Recent and what Select chooses, of what Evict left
//	out[i] = sum over j in S(i) of softmax over S(i) (Scale q[i].k[j]) v[j]
//
// It is immutable and safe for concurrent use; what changes is in a State.
type Attention struct {
	cfg      Config
	group    int                  // query heads of a key head
	op       *attention.Attention // of one key head: Heads is group
	rotation *rope.Rotation       // nil for none
	tile     kernel.DecodeTile
	print    state.Fingerprint
	scratch  scratch.List[run]
	scoring  scratch.List[scoring]
}

// most bounds numbers of tokens in a Config.
const most = 1 << 40

// New returns an operator, or an error that matches ErrConfig.
func New(cfg Config) (*Attention, error) {
	fail := func(format string, args ...any) (*Attention, error) {
		return nil, check.Errorf(ErrConfig, "kvcache: "+format, args...)
	}
	whole, err := attention.New(attention.Config{
		Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim,
		Scale: cfg.Scale, Softcap: cfg.Softcap, Sinks: cfg.Sinks, Causal: true, Workers: cfg.Workers,
	})
	if err != nil {
		return nil, named(err)
	}
	c := whole.Config() // with its checks and defaults
	cfg.KVHeads, cfg.ValueDim, cfg.Scale, cfg.Sinks = c.KVHeads, c.ValueDim, c.Scale, c.Sinks
	for _, x := range [...]struct {
		name string
		n    int
	}{{"Keep", cfg.Keep}, {"Recent", cfg.Recent}, {"Every", cfg.Every}, {"Distance", cfg.Distance}, {"GroupSize", cfg.GroupSize}, {"Chunk", cfg.Chunk}, {"Dense", cfg.Dense}} {
		if x.n < 0 || int64(x.n) > most {
			return fail("%s is %d, want 0 to 2^40", x.name, x.n)
		}
	}
	if cfg.Chunk == 0 {
		cfg.Chunk = 512
	}
	if cfg.Chunk > 1<<20 {
		return fail("Chunk is %d, want 0 to 2^20", cfg.Chunk)
	}
	if cfg.Positions > Grouped {
		return fail("Positions is %d, want AtOrigin, InCache, Far, FarInCache or Grouped", cfg.Positions)
	}
	if cfg.Positions.far() && cfg.Recent == 0 {
		return fail("Positions is Far or Grouped with Recent 0, want at least 1: the query's own token is near")
	}
	if (cfg.Positions == Grouped) != (cfg.GroupSize > 0) {
		return fail("GroupSize is %d with Positions %d, want 1 or more with Grouped, and 0 with all others", cfg.GroupSize, cfg.Positions)
	}
	a := &Attention{cfg: cfg, group: cfg.Heads / cfg.KVHeads, tile: kernel.NewDecodeTile()}
	if cfg.Rotation != nil {
		r := *cfg.Rotation
		if err := check.Workers(ErrConfig, "kvcache: Rotation", r.Workers); err != nil {
			return nil, err
		}
		r.Workers = 1
		a.cfg.Rotation = &r
		if r.HeadDim != cfg.HeadDim {
			return fail("Rotation.HeadDim is %d, want HeadDim = %d", r.HeadDim, cfg.HeadDim)
		}
		if r.XPos != nil || r.Learned != nil {
			return fail("Rotation with XPos or Learned frequencies, want one that depends on nothing but positions")
		}
		if a.rotation, err = rope.New(r); err != nil {
			return fail("Rotation: %v", err)
		}
		if a.rotation.Axes() != 1 {
			return fail("Rotation has %d axes, want one", a.rotation.Axes())
		}
	}
	a.op, err = attention.New(attention.Config{
		Heads: a.group, KVHeads: 1, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Scale: cfg.Scale, Softcap: cfg.Softcap, Causal: true, Int8Products: cfg.Int8Products, Workers: cfg.Workers,
	})
	if err != nil {
		return nil, named(err)
	}
	if cfg.Select != nil {
		if err := cfg.Select.check(&a.cfg); err != nil {
			return nil, err
		}
		switch cfg.Select.(type) {
		case All, Window:
		default:
			if cfg.Evict != nil {
				return fail("Select %T together with Evict %T, want one of them: what a selector knows of tokens does not follow what an evictor leaves", cfg.Select, cfg.Evict)
			}
		}
	}
	if cfg.Evict != nil {
		if err := cfg.Evict.check(&a.cfg); err != nil {
			return nil, err
		}
	}
	a.print = a.fingerprint()
	return a, nil
}

// fingerprint is that of the operator's states.
func (a *Attention) fingerprint() state.Fingerprint {
	cfg := a.cfg
	f := state.NewFingerprint("kvcache", int64(cfg.Heads), int64(cfg.KVHeads), int64(cfg.HeadDim), int64(cfg.ValueDim),
		int64(math.Float32bits(cfg.Scale)), int64(math.Float32bits(cfg.Softcap)), int64(cfg.Keep), int64(cfg.Recent), int64(cfg.Every),
		int64(cfg.Positions), int64(cfg.Distance), int64(cfg.Chunk), int64(cfg.Dense))
	if cfg.GroupSize > 0 {
		f.Add(uint64(cfg.GroupSize))
	}
	if a.windowed() { // its keys are held otherwise than those of other selectors
		f.Add(1)
	}
	f.Floats(cfg.Sinks)
	for _, policy := range [...]any{cfg.Select, cfg.Evict} {
		if w, ok := policy.(weighty); ok {
			f.Matrices(w.weights()...)
		}
		for _, c := range describe(policy) {
			f.Add(uint64(c))
		}
	}
	if a.rotation != nil {
		f.Add(uint64(a.rotation.Config().Layout))
		f.Add(math.Float64bits(a.rotation.AttentionFactor()))
		for _, x := range a.rotation.Frequencies() {
			f.Add(math.Float64bits(x))
		}
	}
	return f
}

// weighty is a policy that has matrices.
type weighty interface{ weights() []blas32.General }

// describe says which policy a value is, in words that tell its fields.
func describe(policy any) string {
	if d, ok := policy.(interface{ describe() string }); ok {
		return d.describe()
	}
	return fmt.Sprintf("%T%+v", policy, policy)
}

// Config returns the operator's configuration, with what zero values stand for.
func (a *Attention) Config() Config { return a.cfg }

// Bytes returns the memory of the operator's tables: its sinks and its rotation. States,
// pages and working memory count for themselves.
func (a *Attention) Bytes() int64 {
	n := 4 * int64(len(a.cfg.Sinks))
	if a.rotation != nil {
		n += a.rotation.Bytes()
	}
	return n
}

// workersFor is how many goroutines a call of so many multiply-adds is worth.
func (a *Attention) workersFor(call int, work int64) int {
	if work < 1<<18 {
		return 1
	}
	return parallel.Workers(parallel.Choose(a.cfg.Workers, call))
}

// rotatedHeld tells whether keys are held rotated, at the positions they came at.
func (a *Attention) rotatedHeld() bool {
	return a.rotation != nil && (a.cfg.Positions == AtOrigin || a.windowed())
}

// windowed tells whether tokens are numbered within a Window: the last Recent stand at their
// distances, and the first Keep at the numbers that they came with, so that no key is turned again.
func (a *Attention) windowed() bool {
	_, ok := a.cfg.Select.(Window)
	return ok && a.cfg.Positions == InCache && a.cfg.Dense == 0
}

package attention

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/internal/tile"
)

// Config fixes an attention operator.
type Config struct {
	// Heads is H, the number of query heads.
	Heads int
	// KVHeads is the number of key and value heads, a divisor of Heads: query head
	// h reads key head h / (Heads/KVHeads). 0 stands for Heads; 1 is multi-query
	// attention, anything between grouped-query attention.
	KVHeads int
	// HeadDim is D, the width of a query and a key.
	HeadDim int
	// ValueDim is the width of a value; 0 stands for HeadDim.
	ValueDim int
	// Scale multiplies q.k; 0 stands for 1/sqrt(HeadDim).
	Scale float32
	// Causal hides the keys after a query's own position.
	Causal bool
	// Window is how many keys a query sees at the most up to its own position,
	// that one included; 0 for all.
	Window int
	// LookAhead is how many keys a query sees after its own position; nil for all.
	// It is not used together with Causal.
	LookAhead *int
	// Softcap c bounds logits: c tanh(s/c), after Scale and before biases; 0 for none.
	Softcap float32
	// Sinks is a learned logit for each query head that takes part in the softmax
	// without a value (as in gpt-oss); nil for none. Scale does not apply to it.
	Sinks []float32
	// ReLU replaces the softmax: a weight is max(0, logit) divided by the number
	// of keys that Causal, Window, LookAhead and Call.Visible let the query see
	// (Guo et al. 2024, arXiv 2410.13835; Wortsman et al. 2023, arXiv 2309.08586).
	// There is no log-sum-exp then, no sink and no partial result.
	ReLU bool
	// Bias is added to the logits of keys (not of Call.Extra's), nil for none.
	Bias Bias
	// Skip lets whole tiles be left out which biases make negligible: a query may
	// lose up to this share of its weight in all, so that its output moves by at
	// most 2 Skip max|v|. 0 is exact; it must be less than 1.
	Skip float32
	// Precision is what the two products of Forward, q.k and the weights times the values, are
	// computed in: asm.Single, which is float32 and the default, or in parts of bfloat16,
	// faster on a matrix unit and far slower without one (asm.Precision.Unit tells). The
	// package's documentation has the errors. Steps are in float32 whatever it is, except those
	// that Call.Prefill gives to Forward's tiles.
	Precision asm.Precision
	// Int8Products lets steps over states of Int8 make their products of integers, where that is
	// faster: a step then rounds its queries, and the weights of 256 keys at a time, to 14 bits. It
	// is a permission, which the tier avx512 makes use of, the same to the bit on every processor;
	// other tiers, other states and states with a Policy of EachStep stay in float32. The package's
	// documentation has the errors.
	Int8Products bool
	// Fingerprint joins that of the operator: states belong to every operator with the
	// same Config, this number included. An operator that makes its keys with weights of
	// its own gives a hash of them here.
	Fingerprint uint64
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Attention is exact attention of whole sequences,
//
//	s[i][j] = softcap(Scale q[i].k[j]) + bias(i, j) + w[j]     (w the log-weights)
//	out[i]  = sum over visible j of exp(s[i][j]) v[j] / (exp(sink) + sum over visible j of exp(s[i][j]))
//
// for each head, computed tile by tile with an online softmax (Milakov and
// Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135), so that
// no more scores than a tile's are ever held.
//
// Query i of a sequence is at position i + keys - queries, key j at position j:
// the last query stands at the last key. A query that sees no key has 0 for its
// output and -Inf, or its sink, for its log-sum-exp.
//
// An Attention is immutable and safe for concurrent use.
type Attention struct {
	cfg      Config
	tile     kernel.AttentionTile
	split    kernel.SplitTile // of Config.Precision
	sizes    tile.Sizes
	forwards scratch.List[forwardRun]

	print state.Fingerprint // of the states that belong to it

	stepTile kernel.DecodeTile
	integers kernel.IntegerTile
	integer  bool // it is used
	steps    scratch.List[stepRun]
}

// New returns an operator, or an error that matches ErrConfig.
func New(cfg Config) (*Attention, error) {
	if cfg.KVHeads == 0 {
		cfg.KVHeads = cfg.Heads
	}
	if cfg.ValueDim == 0 {
		cfg.ValueDim = cfg.HeadDim
	}
	if err := cfg.checkConfig(); err != nil {
		return nil, err
	}
	if cfg.Scale == 0 {
		cfg.Scale = float32(1 / math.Sqrt(float64(cfg.HeadDim)))
	}
	if cfg.Causal {
		cfg.LookAhead = new(0)
	}
	cfg.Sinks = append([]float32(nil), cfg.Sinks...)
	t := kernel.NewAttentionTile()
	a := &Attention{cfg: cfg, tile: t, sizes: tile.New(t), stepTile: kernel.NewDecodeTile(), integers: kernel.NewIntegerTile()}
	a.integer = cfg.Int8Products && a.integers.Fast()
	if a.split = kernel.NewSplitTile(kernel.PrecisionFormat(uint8(cfg.Precision))); a.split.Split() {
		a.sizes = tile.New(a.split)
	}
	a.print = state.NewFingerprint("attention", a.fingerprint()...)
	return a, nil
}

func (cfg *Config) checkConfig() error {
	fail := func(format string, args ...any) error {
		return check.Errorf(ErrConfig, "attention: "+format, args...)
	}
	switch {
	case cfg.Heads <= 0:
		return fail("Heads is %d, want 1 or more", cfg.Heads)
	case cfg.KVHeads < 0 || cfg.Heads%cfg.KVHeads != 0:
		return fail("KVHeads is %d, want a divisor of Heads = %d", cfg.KVHeads, cfg.Heads)
	case cfg.HeadDim <= 0:
		return fail("HeadDim is %d, want 1 or more", cfg.HeadDim)
	case cfg.ValueDim < 0:
		return fail("ValueDim is %d, want 0 or more", cfg.ValueDim)
	case max(cfg.HeadDim, cfg.ValueDim) > maxDim:
		return fail("HeadDim is %d and ValueDim %d, want at most %d", cfg.HeadDim, cfg.ValueDim, maxDim)
	case cfg.Heads > maxDim:
		return fail("Heads is %d, want at most %d", cfg.Heads, maxDim)
	case !finite(cfg.Scale):
		return fail("Scale is %v, want a finite number", cfg.Scale)
	case cfg.Window < 0:
		return fail("Window is %d, want 0 or more", cfg.Window)
	case cfg.LookAhead != nil && *cfg.LookAhead < 0:
		return fail("LookAhead is %d, want 0 or more", *cfg.LookAhead)
	case cfg.LookAhead != nil && cfg.Causal && *cfg.LookAhead != 0:
		return fail("LookAhead is %d together with Causal", *cfg.LookAhead)
	case !finite(cfg.Softcap) || cfg.Softcap < 0:
		return fail("Softcap is %v, want a finite number, 0 or more", cfg.Softcap)
	case cfg.Sinks != nil && len(cfg.Sinks) != cfg.Heads:
		return fail("Sinks has %d elements, want Heads = %d", len(cfg.Sinks), cfg.Heads)
	case cfg.Sinks != nil && cfg.ReLU:
		return fail("Sinks together with ReLU")
	case !(cfg.Skip >= 0 && cfg.Skip < 1):
		return fail("Skip is %v, want at least 0 and less than 1", cfg.Skip)
	case cfg.Skip > 0 && cfg.ReLU:
		return fail("Skip together with ReLU")
	case cfg.Precision > asm.BFloat16x1:
		return fail("Precision is %d, want Single, BFloat16x3, BFloat16x6 or BFloat16x1", uint8(cfg.Precision))
	}
	if err := check.Workers(ErrConfig, "attention", cfg.Workers); err != nil {
		return err
	}
	if what := unfit(cfg.Bias, cfg.Heads); what != "" {
		return fail("Bias %s", what)
	}
	for h, s := range cfg.Sinks {
		if !finite(s) {
			return fail("Sinks[%d] is %v, want a finite number", h, s)
		}
	}
	return nil
}

// maxDim bounds the heads and their widths, so that sizes of tiles fit in an int
// of 32 bits.
const maxDim = 1 << 15

func finite(x float32) bool { return x-x == 0 }

// Forward attends over one sequence: q is [queries, Heads*HeadDim], k [keys,
// KVHeads*HeadDim], v [keys, KVHeads*ValueDim] and dst [queries,
// Heads*ValueDim], heads side by side. Inputs may overlap each other, dst none
// of them. After the first call of a shape nothing is allocated.
//
// It costs 2 (HeadDim + ValueDim) flop for each head and each visible pair of a
// query and a key, and ScratchBytes of memory. Errors match ErrShape.
func (a *Attention) Forward(dst, q, k, v blas32.General) error {
	r := a.forwards.Get()
	defer a.forwards.Put(r)
	r.one = [2]blas32.General{k, v}
	return r.forward(context.Background(), a, &Call{Dst: dst, Q: q, K: r.one[:1], V: r.one[1:]})
}

// Run is Forward, Step or StepBatch with everything optional, and an end: when ctx is
// done it returns ctx.Err() and leaves the outputs in an unspecified state. Of a Call
// it takes everything but Options. Errors about matrices match ErrShape, those about
// options ErrCall, those about states ErrState or ErrFull; all come before anything is
// written.
func (a *Attention) Run(ctx context.Context, call *Call) error {
	if err := check.Call("attention", ctx, call != nil); err != nil {
		return err
	}
	if call.State != nil || call.States != nil {
		return a.stepCall(ctx, call)
	}
	r := a.forwards.Get()
	defer a.forwards.Put(r)
	return r.forward(ctx, a, call)
}

// Config returns the operator's configuration, with what zero values stand for.
func (a *Attention) Config() Config {
	cfg := a.cfg
	cfg.Sinks = append([]float32(nil), cfg.Sinks...)
	return cfg
}

// Bytes returns the memory of the operator's tables, its sinks. States, pages and working
// memory count for themselves.
func (a *Attention) Bytes() int64 { return 4 * int64(len(a.cfg.Sinks)) }

// ScratchBytes returns the working memory that a call of one sequence needs, at
// the most, besides its arguments. Mass, Entropy and Stats take 4 bytes more for each
// query and head, and Stats for each key and head.
func (a *Attention) ScratchBytes(queries, keys int) int64 {
	return a.ScratchBytesWith(queries, keys, 0)
}

// ScratchBytesWith is ScratchBytes for a call with Extra: keys of heads heads each, of
// which the number that up to 8192 queries in a row see is given for each Extra.
func (a *Attention) ScratchBytesWith(queries, keys, heads int, extra ...int) int64 {
	size := int64(a.sizes.Keys)
	tiles := (int64(keys) + size - 1) / size
	for _, n := range extra {
		tiles += int64(n)/size + 2
	}
	kvHeads := max(a.cfg.KVHeads, heads)
	slot := int64(a.slot().size)
	blocks := int64(queries+a.sizes.Block-1) / int64(a.sizes.Block)
	together := int64(max(1, kvHeads/a.cfg.KVHeads)) // heads that must be packed together
	pack := max(int64(a.sizes.Pack), slot*together)
	packed := min(blocks*tiles*int64(kvHeads)*slot, pack)
	state := int64(0)
	if tiles*slot*together > pack {
		state = 2 * int64(min(queries, a.sizes.Block)) * int64(a.cfg.Heads)
	}
	rows := int64(a.sizes.Rows) * int64(a.cfg.HeadDim+a.outCols()+5+4*(len(extra)+2))
	strip := int64(a.height())*int64(a.scoreStride()) + int64(a.queryStrips()+a.weightStrip())
	const rest = 4096 // tileInfo, alignment, the call itself
	return 4*(packed+packed/slot*4+state+int64(parallel.Workers(a.cfg.Workers))*(rows+strip)) + rest
}

// workers is how many goroutines a call with that Workers uses for a number of
// multiply-adds.
func (a *Attention) workers(call int, work int64) int {
	if work <= int64(a.sizes.Alone) {
		return 1
	}
	return parallel.Choose(a.cfg.Workers, call)
}

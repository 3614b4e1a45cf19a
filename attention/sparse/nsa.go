package sparse

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// NSAConfig fixes Native Sparse Attention. Its zero values are the sizes of
// flash-linear-attention's implementation, whose compressed blocks are those that are
// chosen; the paper has Compress 32, Stride 16, Block 64, TopK 16, Keep 1, Local 2 and
// Window 512, and a Compressor that is learned.
type NSAConfig struct {
	// Heads, KVHeads, HeadDim, ValueDim and Scale are those of attention.Config.
	Heads, KVHeads, HeadDim, ValueDim int
	Scale                             float32
	// Block is how many tokens a block has that is chosen, or is not; 0 stands for 64.
	// Multiples of 32 are fastest; one that is narrower than a panel of 4 to 32 keys, by the
	// tier, takes the time and the memory of a panel.
	Block int
	// TopK is how many blocks a query reads at the most, its own and those of Keep and
	// Local among them; 0 stands for 16.
	TopK int
	// Keep is how many blocks at the beginning of a sequence every query reads; 0 is none.
	Keep int
	// Local is how many blocks up to a query's own it reads in any case, that one
	// included; 0 stands for 1, its own alone.
	Local int
	// Compress is how many tokens one compressed key and value stand for; 0 stands for
	// Block.
	Compress int
	// Stride is how many tokens lie between the first ones of two compressed keys that
	// follow each other, a divisor of Compress and of Block; 0 stands for Compress, where
	// that divides Block, and otherwise is an error.
	Stride int
	// Window is how many keys the window has, the query's own included; 0 stands for 512.
	Window int
	// Compressor makes compressed keys and values, as a learned map does; nil takes means.
	Compressor Compressor
	// Fingerprint joins that of the operator: states belong to every operator with the
	// same sizes and this number. With a Compressor it should be a hash of its weights.
	Fingerprint uint64
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Compressor makes one key and one value of a block's. Its methods are called by several
// goroutines at once, with as many rows as Compress; what they set depends on these alone.
type Compressor interface {
	// Keys sets dst [HeadDim] to the compressed key of keys [Compress, HeadDim] of a key
	// head. Positions within a block are its own to add, positions in the sequence are in
	// the keys already.
	Keys(dst []float32, keys blas32.General, head int)
	// Values sets dst [ValueDim] to the compressed value of values [Compress, ValueDim].
	Values(dst []float32, values blas32.General, head int)
}

// NSA is Native Sparse Attention (Yuan et al. 2025, arXiv 2502.11089): causal attention of
// three branches, each with a softmax of its own,
//
//	out[i] = c[i] cmp[i] + s[i] slc[i] + w[i] win[i]     (c, s, w the gates of a query and head)
//
//	cmp    over compressed keys: one for Compress tokens, each Stride tokens further, by
//	       default their mean. Compressed key b is seen once its tokens are past:
//	       b Stride + Compress - 1 <= i
//	slc    over the keys up to the query's own in TopK chosen blocks of Block tokens
//	win    over the last Window keys, the query's own included
//
// Blocks are chosen for all query heads of a key head together. A block's score is the
// weight that its tokens have in cmp, summed up over these heads,
//
//	score[B] = sum over heads h and compressed keys b of p[h][b] |tokens of b in B| / Stride
//
// (equation 9 of the paper, with indices that rise; with Stride = Compress = Block it is
// the sum of p[h][B]). The query's own block, and those of Keep and Local, are chosen in
// any case, then those with the largest scores, of equal ones the earlier.
//
// While there are no compressed keys in sight cmp is 0. Rotary positions are applied to q
// and k before; a NaN among scores counts as less than any number.
//
// An NSA is immutable and safe for concurrent use.
type NSA struct {
	cfg     NSAConfig
	print   state.Fingerprint    // of the states that belong to it
	one     *attention.Attention // of one key head and the query heads that read it: its states hold tokens
	engine                       // for blocks of keys
	scratch scratch.List[nsaRun]
}

// NewNSA returns an operator, or an error that matches ErrConfig.
func NewNSA(cfg NSAConfig) (*NSA, error) {
	fail := func(format string, args ...any) (*NSA, error) {
		return nil, check.Errorf(ErrConfig, "sparse: "+format, args...)
	}
	for _, x := range [...]struct {
		name    string
		n, most int
	}{
		{"Block", cfg.Block, maxTogether}, {"Compress", cfg.Compress, maxTogether}, {"Stride", cfg.Stride, maxTogether},
		{"TopK", cfg.TopK, maxBlock}, {"Keep", cfg.Keep, maxBlock}, {"Local", cfg.Local, maxBlock}, {"Window", cfg.Window, maxBlock},
	} {
		if x.n < 0 || x.n > x.most {
			return fail("%s is %d, want 0 to %d", x.name, x.n, x.most)
		}
	}
	or := func(x *int, def int) {
		if *x == 0 {
			*x = def
		}
	}
	or(&cfg.Block, 64)
	or(&cfg.TopK, 16)
	or(&cfg.Local, 1)
	or(&cfg.Compress, cfg.Block)
	or(&cfg.Stride, cfg.Compress)
	or(&cfg.Window, 512)
	switch {
	case cfg.Compress%cfg.Stride != 0 || cfg.Block%cfg.Stride != 0:
		return fail("Stride is %d, want a divisor of Compress = %d and Block = %d", cfg.Stride, cfg.Compress, cfg.Block)
	case cfg.Keep > cfg.TopK-cfg.Local:
		return fail("Keep is %d and Local %d, want no more than TopK = %d together", cfg.Keep, cfg.Local, cfg.TopK)
	}
	whole := attention.Config{
		Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Scale: cfg.Scale, Causal: true, Workers: cfg.Workers,
	}
	all, err := attention.New(whole)
	if err != nil {
		return nil, check.Named("sparse", err)
	}
	whole = all.Config() // with its checks and defaults
	cfg.KVHeads, cfg.ValueDim, cfg.Scale = whole.KVHeads, whole.ValueDim, whole.Scale
	whole.Heads, whole.KVHeads = cfg.Heads/cfg.KVHeads, 1
	one, err := attention.New(whole)
	if err != nil {
		return nil, check.Named("sparse", err)
	}
	a := &NSA{cfg: cfg, one: one, engine: newEngine(&whole, cfg.Block)}
	a.print = state.NewFingerprint("nsa", a.fingerprint()...)
	return a, nil
}

// maxTogether bounds the tokens of a block, which are packed or compressed without a look
// at the context.
const maxTogether = 1 << 16

// fingerprint tells operators apart whose states differ.
func (a *NSA) fingerprint() []int64 {
	cfg := &a.cfg
	return []int64{int64(cfg.Heads), int64(cfg.KVHeads), int64(cfg.HeadDim), int64(cfg.ValueDim), int64(math.Float32bits(cfg.Scale)),
		int64(cfg.Block), int64(cfg.TopK), int64(cfg.Keep), int64(cfg.Local), int64(cfg.Compress), int64(cfg.Stride), int64(cfg.Window),
		state.Bool(cfg.Compressor != nil), int64(cfg.Fingerprint)}
}

// Config returns the operator's configuration, with what zero values stand for.
func (a *NSA) Config() NSAConfig { return a.cfg }

// group is how many query heads share a key head.
func (a *NSA) group() int { return a.cfg.Heads / a.cfg.KVHeads }

// compressed is how many compressed keys there are of that many tokens.
func (a *NSA) compressed(tokens int) int {
	if tokens < a.cfg.Compress {
		return 0
	}
	return (tokens-a.cfg.Compress)/a.cfg.Stride + 1
}

// stripTokens and tileTokens are how many queries are done at a time: those of compressed
// keys and the window, and those of chosen blocks. Neither changes a bit.
func (a *NSA) stripTokens() int { return max(1, a.sizes.Rows/3/a.group()) }
func (a *NSA) tileTokens() int  { return max(1, 5*a.sizes.Rows/a.group()) }

// gatherTokens is how many queries are taken together to a chosen block.
func (a *NSA) gatherTokens() int { return max(1, a.sizes.Rows/a.group()) }

// tileKeys is up to how many keys of a block are done at a time, in whole panels, in a
// sequence of that many tokens.
func (a *NSA) tileKeys(tokens int) int {
	return a.tile.Panels(min(a.cfg.Block, a.sizes.Keys, tokens)) * a.tile.Panel()
}

// slotSize is how many float32 a packed block takes in a sequence of that many tokens.
func (a *NSA) slotSize(tokens int) int {
	keys := min(a.cfg.Block, tokens)
	return a.tile.Panels(keys)*a.tile.Panel()*a.cfg.HeadDim + keys*a.outCols()
}

// workersFor is how many goroutines to use for work multiply-adds in a call whose
// Workers are given.
func (a *NSA) workersFor(call int, work int64) int {
	if work <= int64(a.sizes.Alone) {
		return 1
	}
	return parallel.Choose(a.cfg.Workers, call)
}

// Bytes returns 0: the operator has neither weights nor tables. Its Compressor, states,
// pages and working memory count for themselves.
func (a *NSA) Bytes() int64 { return 0 }

// ScratchBytes returns the working memory that Forward takes for that many tokens, at the
// most, besides its arguments.
func (a *NSA) ScratchBytes(tokens int) int64 {
	cfg, panel, n := &a.cfg, int64(a.tile.Panel()), int64(a.compressed(tokens))
	kv, d, cols := int64(cfg.KVHeads), int64(cfg.HeadDim), int64(a.outCols())
	means := kv * (n*(d+int64(cfg.ValueDim)+cols) + int64(a.tile.Panels(int(n)))*panel*d)
	count := min(cfg.TopK, ceil(tokens, cfg.Block))
	stretch := int64(min(tokens, a.sizes.Block))
	blocks := kv * int64(ceil(tokens, cfg.Block))
	rows := int64(max(a.tileTokens(), a.stripTokens()) * a.group())
	few := int64(a.gatherTokens() * a.group())
	strip := int64(a.stripTokens() * a.group())
	means64 := int64(a.tile.Panels(int(n)))*panel + padding
	scores := max(int64(stripRows*a.tile.Rows())*int64(a.tileKeys(tokens)+padding), strip*means64)
	worker := (rows+few)*(d+cols+3) + scores + strip*(1+means64/int64(a.chunk())+1) + n + int64(tokens/cfg.Block)
	worker += n + 5*int64(tokens/cfg.Block)                                // of faint scores
	worker += int64(count) + blocks + int64(a.tileTokens())*int64(count+1) // of the choice
	const rest = 1 << 14
	return 4*(means+blocks*int64(a.slotSize(tokens))+stretch*kv*int64(count)+int64(parallel.Workers(cfg.Workers))*worker) + 16*blocks + rest
}

package attention

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/rope"
)

// LandmarkSelection is how the blocks that a query reads are chosen, by the
// softmax of its logits with the landmarks of all blocks.
type LandmarkSelection int

const (
	// PerTokenAndHead lets every query and head choose its own.
	PerTokenAndHead LandmarkSelection = iota
	// MaxOverHeads gives all heads of a query one choice: by the largest weight that
	// any head gives a block.
	MaxOverHeads
	// MaxOverTokens gives all queries of a step one choice in each head: by the
	// largest weight that any query gives a block.
	MaxOverTokens
)

// LandmarkConfig fixes Landmark attention.
type LandmarkConfig struct {
	// Heads, KVHeads, HeadDim, ValueDim and Scale are those of Config.
	Heads, KVHeads, HeadDim, ValueDim int
	Scale                             float32
	// Rotation rotates queries and keys, which come without positions; nil if they
	// are not to be rotated. It has one axis and no xPos.
	Rotation *rope.Rotation
	// Block is how many tokens stand before each landmark, the mem_freq of the
	// published code; 0 stands for 50. Only Step needs it: Forward is told where
	// landmarks are.
	Block int
	// TopK is how many earlier blocks a query of Step reads; 0 stands for 4.
	TopK int
	// Selection is how they are chosen.
	Selection LandmarkSelection
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Landmark is causal attention with landmark tokens (Mohtashami and Jaggi 2023,
// arXiv 2305.16300): a landmark ends a block of tokens and stands for it. The
// section of a query is the tokens after the last landmark before it. In one
// softmax the query sees the tokens of its section up to its own and the
// landmarks of earlier sections; what a landmark's weight is worth is then shared
// among its block's tokens,
//
//	p = softmax over j in the section and landmarks of Scale q.k[j]
//	out = sum over j in the section of p[j] v[j] + sum over earlier blocks b of p[landmark of b] o[b]
//	o[b] = sum over j in b of softmax over b (Scale q.k[j]) v[j]
//
// Values of landmarks are not read, nor is the landmark of the query's own
// section, even where it is the query itself.
//
// Forward reads every block, as in training, and costs as much as exact
// attention. Step reads the TopK blocks whose landmarks have the most weight.
//
// A Landmark is immutable and safe for concurrent use.
type Landmark struct {
	cfg     LandmarkConfig
	att     *Attention // its tiles, sizes and checks
	scratch scratch.List[landmarkRun]
}

// NewLandmark returns an operator, or an error that matches ErrConfig.
func NewLandmark(cfg LandmarkConfig) (*Landmark, error) {
	fail := func(format string, args ...any) (*Landmark, error) {
		return nil, check.Errorf(ErrConfig, "attention: "+format, args...)
	}
	const most = 1 << 20
	switch {
	case cfg.Block < 0 || cfg.Block > most:
		return fail("Block is %d, want 0 to 2^20", cfg.Block)
	case cfg.TopK < 0 || cfg.TopK > most:
		return fail("TopK is %d, want 0 to 2^20", cfg.TopK)
	case cfg.Selection < PerTokenAndHead || cfg.Selection > MaxOverTokens:
		return fail("Selection is %d, want PerTokenAndHead, MaxOverHeads or MaxOverTokens", cfg.Selection)
	}
	if r := cfg.Rotation; r != nil {
		switch c := r.Config(); {
		case c.HeadDim != cfg.HeadDim:
			return fail("Rotation is for heads of %d, want HeadDim = %d", c.HeadDim, cfg.HeadDim)
		case r.Axes() != 1 || c.XPos != nil || c.Learned != nil:
			return fail("Rotation is %s, want one with one axis, without learned frequencies and xPos", r)
		}
	}
	att, err := New(Config{
		Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Scale: cfg.Scale,
		Causal: true, Workers: cfg.Workers,
	})
	if err != nil {
		return nil, err
	}
	if cfg.Block == 0 {
		cfg.Block = 50
	}
	if cfg.TopK == 0 {
		cfg.TopK = 4
	}
	cfg.KVHeads, cfg.ValueDim, cfg.Scale = att.cfg.KVHeads, att.cfg.ValueDim, att.cfg.Scale
	return &Landmark{cfg: cfg, att: att}, nil
}

// period is how many positions a block and its landmark take.
func (l *Landmark) period() int { return l.cfg.Block + 1 }

// IsLandmark tells whether a landmark stands at a position where one follows
// every Block tokens, as Step wants it.
func (l *Landmark) IsLandmark(position int64) bool {
	return position%int64(l.period()) == int64(l.cfg.Block)
}

// Forward attends over one sequence: q is [tokens, Heads*HeadDim], k [tokens,
// KVHeads*HeadDim], v [tokens, KVHeads*ValueDim] and dst [tokens,
// Heads*ValueDim], heads side by side; landmarks tells which tokens are
// landmarks, which may stand anywhere and take positions like others. Inputs may
// overlap each other, dst none of them. After the first call of a shape nothing
// is allocated.
//
// It costs as much as exact causal attention, and memory for packed keys and
// values, and for rotated queries and keys where there is a Rotation.
func (l *Landmark) Forward(dst, q, k, v blas32.General, landmarks []bool) error {
	return l.Run(context.Background(), &LandmarkCall{Dst: dst, Q: q, K: k, V: v, Landmarks: landmarks})
}

// Step attends from the next tokens of a sequence, one or many: to each other
// and to the tokens since the last landmark as Forward does, and to the TopK
// blocks before them that they choose. A landmark follows every Block tokens.
//
// Positions do not grow with the sequence: the tokens stand right behind so many
// blocks as they can read, each chosen block at the place of its rank by age, and
// one further on if it is among the TopK latest. With TopK blocks or fewer all
// are read, each at its own place (the published code places these at and after
// the query's own).
//
// How a sequence is cut into steps therefore matters to what its tokens see.
// On an error the state is as before the call.
func (l *Landmark) Step(dst, q, k, v blas32.General, landmarks []bool, state *LandmarkState) error {
	if state == nil {
		return check.Errorf(ErrCall, "attention: state is nil, want one of NewState")
	}
	return l.Run(context.Background(), &LandmarkCall{Dst: dst, Q: q, K: k, V: v, Landmarks: landmarks, State: state})
}

// LandmarkCall is a call of Landmark with everything optional. Only Dst, Q, K, V
// and Landmarks are needed.
type LandmarkCall struct {
	// Dst, Q, K, V and Landmarks are as in Forward.
	Dst, Q, K, V blas32.General
	Landmarks    []bool
	// State, if not nil, holds the tokens before these, and takes these up.
	State *LandmarkState
	// LSE, [tokens, Heads], receives the logarithm of the denominator of p.
	LSE blas32.General
}

// Run is Forward or Step with everything optional, and an end: when ctx is done
// it returns ctx.Err() and leaves the outputs in an unspecified state. Errors
// about matrices match ErrShape, those about options ErrCall; both come before
// anything is written.
func (l *Landmark) Run(ctx context.Context, call *LandmarkCall) error {
	r := l.scratch.Get()
	defer l.scratch.Put(r)
	return r.run(ctx, l, call)
}

// ScratchBytes returns the working memory that Forward holds for so many tokens,
// at the most, besides its arguments; where landmarks stand closer than every few
// tokens, it is more.
func (l *Landmark) ScratchBytes(tokens int) int64 {
	a := l.att
	panel := int64(a.tile.Panel())
	sections := int64(tokens)/int64(l.period()) + 1
	n := int64(a.cfg.KVHeads) * (int64(tokens)*int64(a.outCols()) + (int64(tokens)+sections*panel)*int64(a.cfg.HeadDim))
	if l.cfg.Rotation != nil {
		n += int64(tokens) * int64(a.cfg.Heads+a.cfg.KVHeads) * int64(a.cfg.HeadDim)
	}
	rows := int64(a.sizes.rows+a.tile.Rows()) * int64(a.cfg.HeadDim+a.outCols()+5+int(panel))
	strip := int64(a.tile.Rows()) * int64(a.scoreStride()+a.outCols())
	const rest = 1 << 12
	return 4*(n+int64(parallel.Workers(a.cfg.Workers))*(rows+strip+panel*int64(a.cfg.HeadDim))) + 48*sections + rest
}

// check reports what is wrong with the call; nothing has been written.
func (r *landmarkRun) check() error {
	cfg, call := &r.op.cfg, &r.call
	n := call.Q.Rows
	for _, x := range [...]struct {
		name string
		m    blas32.General
		rows int
		cols int
		what string
	}{
		{"q", call.Q, -1, cfg.Heads * cfg.HeadDim, "Heads*HeadDim"},
		{"k", call.K, n, cfg.KVHeads * cfg.HeadDim, "KVHeads*HeadDim"},
		{"v", call.V, n, cfg.KVHeads * cfg.ValueDim, "KVHeads*ValueDim"},
	} {
		if err := check.Matrix(ErrShape, "attention", x.name, x.m, x.rows, x.cols, x.what); err != nil {
			return err
		}
	}
	if len(call.Landmarks) != n {
		return check.Errorf(ErrShape, "attention: landmarks has %d elements, want one for each token = %d", len(call.Landmarks), n)
	}
	if s := call.State; s != nil {
		if s.op != r.op {
			return check.Errorf(ErrState, "attention: the state is of another operator")
		}
		if s.length > maxPosition-int64(n) {
			return check.Errorf(ErrCall, "attention: the state has seen too many tokens")
		}
		for i, is := range call.Landmarks {
			if want := r.op.IsLandmark(s.length + int64(i)); is != want {
				return check.Errorf(ErrCall, "attention: landmarks[%d] is %v after %d tokens, want %v: a landmark after every %d tokens", i, is, s.length, want, cfg.Block)
			}
		}
	}
	outputs := [...]output{
		{"dst", call.Dst, n, cfg.Heads * cfg.ValueDim, "Heads*ValueDim", true},
		{"LSE", call.LSE, n, cfg.Heads, "Heads", false},
	}
	return checkOutputs(outputs[:], call.Q, call.K, call.V)
}

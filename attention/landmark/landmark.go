package landmark

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/tile"
	"github.com/subquad/subquad/rope"
)

// Selection is how the blocks that a query reads are chosen, by the
// softmax of its logits with the landmarks of all blocks.
type Selection int

const (
	// PerTokenAndHead lets every query and head choose its own.
	PerTokenAndHead Selection = iota
	// MaxOverHeads gives all heads of a query one choice: by the largest weight that
	// any head gives a block.
	MaxOverHeads
	// MaxOverTokens gives all queries of a step one choice in each head: by the
	// largest weight that any query gives a block.
	MaxOverTokens
)

// Config fixes Landmark attention.
type Config struct {
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
	Selection Selection
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
	cfg     Config
	tile    kernel.AttentionTile
	sizes   tile.Sizes
	scratch scratch.List[run]
}

// New returns an operator, or an error that matches attention.ErrConfig.
func New(cfg Config) (*Landmark, error) {
	fail := func(format string, args ...any) (*Landmark, error) {
		return nil, check.Errorf(attention.ErrConfig, "landmark: "+format, args...)
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
	att, err := attention.New(attention.Config{
		Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Scale: cfg.Scale,
		Causal: true, Workers: cfg.Workers,
	})
	if err != nil {
		return nil, check.Named("landmark", err)
	}
	if cfg.Block == 0 {
		cfg.Block = 50
	}
	if cfg.TopK == 0 {
		cfg.TopK = 4
	}
	same := att.Config() // with its checks and defaults
	cfg.KVHeads, cfg.ValueDim, cfg.Scale = same.KVHeads, same.ValueDim, same.Scale
	t := kernel.NewAttentionTile()
	return &Landmark{cfg: cfg, tile: t, sizes: tile.New(t)}, nil
}

// outCols is the width of a row of sums of values: that of whole panels.
func (l *Landmark) outCols() int { return l.tile.Panels(l.cfg.ValueDim) * l.tile.Panel() }

// scoreStride is from row to row of scores.
func (l *Landmark) scoreStride() int { return l.sizes.Keys + tile.Pad }

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
	r := l.scratch.Get()
	defer l.scratch.Put(r)
	return r.run(context.Background(), l, request{Dst: dst, Q: q, K: k, V: v, Landmarks: landmarks})
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
func (l *Landmark) Step(dst, q, k, v blas32.General, landmarks []bool, state *State) error {
	if state == nil {
		return check.Errorf(attention.ErrState, "landmark: state is nil, want one of NewState")
	}
	r := l.scratch.Get()
	defer l.scratch.Put(r)
	return r.run(context.Background(), l, request{Dst: dst, Q: q, K: k, V: v, Landmarks: landmarks, State: state})
}

// Options are what only Landmark has of a call: attention.Call.Options takes a pointer
// to one, and needs it.
type Options struct {
	// Landmarks tells which tokens are landmarks, as in Forward.
	Landmarks []bool
}

// request is a call, with its options.
type request struct {
	Dst, Q, K, V blas32.General
	Landmarks    []bool
	State        *State
	LSE          blas32.General
	workers      int
}

// Run is Forward or Step with everything optional, and an end: when ctx is done
// it returns ctx.Err() and leaves the outputs in an unspecified state. Of a Call it
// takes K and V of one segment, State, LSE, Workers and, always, a *Options for
// Options; any other option is an error. Errors about matrices match ErrShape, those
// about options ErrCall; both come before anything is written.
func (l *Landmark) Run(ctx context.Context, call *attention.Call) error {
	if err := check.Call("landmark", ctx, call != nil); err != nil {
		return err
	}
	if err := call.Honour("landmark", attention.UsesState|attention.UsesLSE); err != nil {
		return err
	}
	if err := call.One("landmark"); err != nil {
		return err
	}
	if call.States != nil {
		return check.Errorf(attention.ErrCall, "landmark: States, want State: one sequence a step")
	}
	o, _ := call.Options.(*Options)
	if o == nil {
		return check.Errorf(attention.ErrCall, "landmark: Options is a %T, want a *landmark.Options", call.Options)
	}
	q := request{Dst: call.Dst, Q: call.Q, K: call.K[0], V: call.V[0], Landmarks: o.Landmarks, LSE: call.LSE, workers: call.Workers}
	if call.State != nil {
		if q.State, _ = call.State.(*State); q.State == nil {
			return check.Errorf(attention.ErrState, "landmark: State is a %T, want a *landmark.State", call.State)
		}
	}
	r := l.scratch.Get()
	defer l.scratch.Put(r)
	return r.run(ctx, l, q)
}

// workersFor is how many goroutines to use for so many multiply-adds.
func (l *Landmark) workersFor(call int, work int64) int {
	if work <= int64(l.sizes.Alone) {
		return 1
	}
	return parallel.Choose(l.cfg.Workers, call)
}

// ScratchBytes returns the working memory that Forward holds for so many tokens,
// at the most, besides its arguments; where landmarks stand closer than every few
// tokens, it is more.
func (l *Landmark) ScratchBytes(tokens int) int64 {
	a := l
	panel := int64(a.tile.Panel())
	sections := int64(tokens)/int64(l.period()) + 1
	n := int64(a.cfg.KVHeads) * (int64(tokens)*int64(a.outCols()) + (int64(tokens)+sections*panel)*int64(a.cfg.HeadDim))
	if l.cfg.Rotation != nil {
		n += int64(tokens) * int64(a.cfg.Heads+a.cfg.KVHeads) * int64(a.cfg.HeadDim)
	}
	rows := int64(a.sizes.Rows+a.tile.Rows()) * int64(a.cfg.HeadDim+a.outCols()+5+int(panel))
	strip := int64(a.tile.Rows()) * int64(a.scoreStride()+a.outCols())
	const rest = 1 << 12
	return 4*(n+int64(parallel.Workers(a.cfg.Workers))*(rows+strip+panel*int64(a.cfg.HeadDim))) + 48*sections + rest
}

// check reports what is wrong with the call; nothing has been written.
func (r *run) check() error {
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
		if err := check.Matrix(attention.ErrShape, "landmark", x.name, x.m, x.rows, x.cols, x.what); err != nil {
			return err
		}
	}
	if len(call.Landmarks) != n {
		return check.Errorf(attention.ErrShape, "landmark: landmarks has %d elements, want one for each token = %d", len(call.Landmarks), n)
	}
	if s := call.State; s != nil {
		if s.op != r.op {
			return check.Errorf(attention.ErrState, "landmark: the state is of another operator")
		}
		if s.length > attention.MaxPosition-int64(n) {
			return check.Errorf(attention.ErrCall, "landmark: the state has seen too many tokens")
		}
		for i, is := range call.Landmarks {
			if want := r.op.IsLandmark(s.length + int64(i)); is != want {
				return check.Errorf(attention.ErrCall, "landmark: landmarks[%d] is %v after %d tokens, want %v: a landmark after every %d tokens", i, is, s.length, want, cfg.Block)
			}
		}
	}
	outputs := [...]check.Out{
		{Name: "dst", M: call.Dst, Rows: n, Cols: cfg.Heads * cfg.ValueDim, What: "Heads*ValueDim", Needed: true},
		{Name: "LSE", M: call.LSE, Rows: n, Cols: cfg.Heads, What: "Heads"},
	}
	return check.Outputs("landmark", outputs[:], call.Q, call.K, call.V)
}

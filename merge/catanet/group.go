package catanet

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// GroupConfig fixes a GroupAttention.
type GroupConfig struct {
	// Heads is the number of heads, HeadDim the width of a query and a key, ValueDim
	// that of a value, 0 standing for HeadDim.
	Heads, HeadDim, ValueDim int
	// GroupSize is the number of tokens of a group.
	GroupSize int
	// Scale multiplies q.k; 0 stands for 1/sqrt(HeadDim).
	Scale float32
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// GroupAttention is attention among tokens of like content (CATANet, Liu et al. 2025):
// tokens are sorted by their bucket, as a rule the centre that each is nearest to, those
// of a bucket in their order, and cut into groups; a group's queries see the keys of their
// own group and of the next one. Keys behind the last one are the last ones backwards.
//
// Attention to the centres, by a softmax of its own, is added where a call has them. It
// costs 4 n GroupSize (HeadDim + ValueDim) flop a head: linear in n. An operator is
// immutable and safe for concurrent use.
type GroupAttention struct {
	cfg     GroupConfig
	core    *attention.Attention
	scratch scratch.List[groupRun]
}

// NewGroupAttention returns an operator, or an error that matches ErrConfig.
func NewGroupAttention(cfg GroupConfig) (*GroupAttention, error) {
	if cfg.GroupSize <= 0 || cfg.GroupSize > maxTokens {
		return nil, check.Errorf(ErrConfig, "catanet: GroupSize is %d, want 1 or more", cfg.GroupSize)
	}
	if cfg.ValueDim == 0 {
		cfg.ValueDim = cfg.HeadDim
	}
	core, err := attention.New(attention.Config{Heads: cfg.Heads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Scale: cfg.Scale, Workers: cfg.Workers})
	if err != nil {
		return nil, check.Errorf(ErrConfig, "catanet: %v", err)
	}
	return &GroupAttention{cfg: cfg, core: core}, nil
}

// GroupCall is a call of GroupAttention. Centres and Offsets are optional.
type GroupCall struct {
	// Dst is [tokens, Heads*ValueDim], Q and K [tokens, Heads*HeadDim], V [tokens,
	// Heads*ValueDim]. Dst shares no element with the others.
	Dst, Q, K, V blas32.General
	// Bucket [tokens] is what tokens are sorted by: 0 or more. AssignCenters makes it.
	Bucket []int32
	// CenterK [centres, Heads*HeadDim] and CenterV [centres, Heads*ValueDim] are what
	// every query attends to besides its group.
	CenterK, CenterV blas32.General
	// Offsets packs several sequences, each sorted by itself.
	Offsets []int
}

// Forward attends over one sequence, without centres.
func (g *GroupAttention) Forward(dst, q, k, v blas32.General, bucket []int32) error {
	return g.Run(context.Background(), &GroupCall{Dst: dst, Q: q, K: k, V: v, Bucket: bucket})
}

// Run is Forward with everything optional. Errors match ErrShape or ErrCall, or are
// ctx.Err() when ctx is done; Dst is then unspecified.
func (g *GroupAttention) Run(ctx context.Context, call *GroupCall) error {
	r := g.scratch.Get()
	defer g.scratch.Put(r)
	return r.run(ctx, g, call)
}

// tokenGroup is the places from (included) to to (excluded) in the order of a sequence.
type tokenGroup struct{ seq, from, to int }

// groupRun is one call, and the memory that calls share.
type groupRun struct {
	op      *GroupAttention
	call    GroupCall
	group   parallel.Group
	offsets []int

	keys       []uint64 // bucket and token, sorted within each sequence
	qAt, kAt   []int    // where each group's queries and keys begin
	groups     []tokenGroup
	memory     []float32
	q, k, v    blas32.General // in order of groups
	out, extra blas32.General
	intra      attention.Call
	inter      attention.Call
	segments   [4]blas32.General
	gather     func(worker, i int)
	scatter    func(worker, i int)
}

func (r *groupRun) run(ctx context.Context, g *GroupAttention, call *GroupCall) error {
	if err := r.check(g, call); err != nil {
		return err
	}
	if r.gather == nil {
		r.gather, r.scatter = r.gatherGroup, r.scatterGroup
	}
	r.op, r.call = g, *call
	defer func() {
		r.call, r.intra, r.inter, r.segments = GroupCall{}, attention.Call{}, attention.Call{}, [4]blas32.General{}
	}()
	r.sort()
	if err := r.attend(ctx); err != nil {
		return fmt.Errorf("catanet: %w", err)
	}
	return nil
}

func (r *groupRun) check(g *GroupAttention, c *GroupCall) error {
	qk, cols, n := g.cfg.Heads*g.cfg.HeadDim, g.cfg.Heads*g.cfg.ValueDim, c.Q.Rows
	if n > maxTokens {
		return check.Errorf(ErrShape, "catanet: %d tokens, want at most %d", n, maxTokens)
	}
	err := errors.Join(
		check.Matrix(ErrShape, "catanet", "q", c.Q, -1, qk, "Heads*HeadDim"),
		check.Matrix(ErrShape, "catanet", "k", c.K, n, qk, "Heads*HeadDim"),
		check.Matrix(ErrShape, "catanet", "v", c.V, n, cols, "Heads*ValueDim"),
		check.Matrix(ErrShape, "catanet", "CenterK", c.CenterK, -1, ifRows(c.CenterK, qk), "Heads*HeadDim"),
		check.Matrix(ErrShape, "catanet", "CenterV", c.CenterV, c.CenterK.Rows, ifRows(c.CenterK, cols), "Heads*ValueDim"),
		check.Matrix(ErrShape, "catanet", "dst", c.Dst, n, cols, "Heads*ValueDim"))
	if err != nil {
		return err
	}
	for _, in := range [...]blas32.General{c.Q, c.K, c.V, c.CenterK, c.CenterV} {
		if mat.Overlap(c.Dst, in) {
			return check.Errorf(ErrShape, "catanet: dst shares elements with an input")
		}
	}
	if len(c.Bucket) != n {
		return check.Errorf(ErrShape, "catanet: Bucket has %d elements, want the rows of q = %d", len(c.Bucket), n)
	}
	if t := slices.IndexFunc(c.Bucket, func(b int32) bool { return b < 0 }); t >= 0 {
		return check.Errorf(ErrCall, "catanet: Bucket[%d] is %d, want 0 or more", t, c.Bucket[t])
	}
	if c.Offsets == nil {
		r.offsets = append(r.offsets[:0], 0, n)
		return nil
	}
	r.offsets = append(r.offsets[:0], c.Offsets...)
	return check.Offsets("catanet", "Offsets", c.Offsets, n, -1)
}

// ifRows is cols for a matrix that is there, and its own columns for one that is not.
func ifRows(m blas32.General, cols int) int {
	if m.Rows == 0 && m.Data == nil {
		return m.Cols
	}
	return cols
}

// sort orders the tokens of each sequence and cuts them into groups.
func (r *groupRun) sort() {
	r.keys = scratch.Sized(r.keys, r.call.Q.Rows)
	r.groups, r.qAt, r.kAt = r.groups[:0], append(r.qAt[:0], 0), append(r.kAt[:0], 0)
	for t, b := range r.call.Bucket {
		r.keys[t] = uint64(b)<<32 | uint64(t)
	}
	for i, from := range r.offsets[:len(r.offsets)-1] {
		n := r.offsets[i+1] - from
		slices.Sort(r.keys[from : from+n])
		size := min(n, r.op.cfg.GroupSize)
		for at := 0; at < n; at += size {
			r.groups = append(r.groups, tokenGroup{i, at, min(at+size, n)})
			r.qAt = append(r.qAt, from+min(at+size, n))
			r.kAt = append(r.kAt, r.kAt[len(r.kAt)-1]+2*size)
		}
	}
}

func (r *groupRun) attend(ctx context.Context) error {
	c, cfg := &r.call, &r.op.cfg
	n, keys := c.Q.Rows, r.kAt[len(r.kAt)-1]
	qk, cols := cfg.Heads*cfg.HeadDim, cfg.Heads*cfg.ValueDim
	r.memory = scratch.Floats(r.memory, n*(qk+2*cols)+keys*(qk+cols))
	rest := r.memory
	take := func(rows, cols int) blas32.General {
		m := mat.Of(rest, rows, cols)
		rest = rest[rows*cols:]
		return m
	}
	r.q, r.out, r.extra = take(n, qk), take(n, cols), take(n, cols)
	r.k, r.v = take(keys, qk), take(keys, cols)
	workers := parallel.Workers(cfg.Workers)
	if err := r.group.Run(ctx, workers, len(r.groups), r.gather); err != nil {
		return err
	}
	r.segments = [4]blas32.General{r.k, r.v, c.CenterK, c.CenterV}
	r.intra = attention.Call{Dst: r.out, Q: r.q, K: r.segments[:1], V: r.segments[1:2], QOffsets: r.qAt, KOffsets: r.kAt}
	if err := r.op.core.Run(ctx, &r.intra); err != nil {
		return err
	}
	if c.CenterK.Rows > 0 {
		r.inter = attention.Call{Dst: r.extra, Q: r.q, K: r.segments[2:3], V: r.segments[3:]}
		if err := r.op.core.Run(ctx, &r.inter); err != nil {
			return err
		}
	}
	return r.group.Run(ctx, workers, len(r.groups), r.scatter)
}

// token returns the token at a place of a sequence's order. Behind the end the order
// runs backwards, and forwards again as often as need be.
func (r *groupRun) token(seq, place int) int {
	from, n := r.offsets[seq], r.offsets[seq+1]-r.offsets[seq]
	if place %= 2 * n; place >= n {
		place = 2*n - 1 - place
	}
	return int(uint32(r.keys[from+place]))
}

func (r *groupRun) gatherGroup(_, i int) {
	t := r.groups[i]
	base := r.offsets[t.seq]
	for place := t.from; place < t.to; place++ {
		copy(mat.Row(r.q, base+place), mat.Row(r.call.Q, r.token(t.seq, place)))
	}
	for j := r.kAt[i]; j < r.kAt[i+1]; j++ {
		token := r.token(t.seq, t.from+j-r.kAt[i])
		copy(mat.Row(r.k, j), mat.Row(r.call.K, token))
		copy(mat.Row(r.v, j), mat.Row(r.call.V, token))
	}
}

func (r *groupRun) scatterGroup(_, i int) {
	t := r.groups[i]
	base := r.offsets[t.seq]
	for place := t.from; place < t.to; place++ {
		d := mat.Row(r.call.Dst, r.token(t.seq, place))
		if r.call.CenterK.Rows > 0 {
			asm.Add(d, mat.Row(r.out, base+place), mat.Row(r.extra, base+place))
		} else {
			copy(d, mat.Row(r.out, base+place))
		}
	}
}

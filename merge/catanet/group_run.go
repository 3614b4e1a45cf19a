package catanet

import (
	"context"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// groupRun is one call of a GroupAttention, and the memory that calls share. n are the
// tokens of the call, g those of a group; groups of all sequences stand one after the
// other, n rows of queries and up to 2 g rows of keys for each group.
type groupRun struct {
	op      *GroupAttention
	call    GroupCall
	workers parallel.Group
	offsets []int // the first token of each sequence, and at last n

	keys     []uint64          // [n] bucket << 32 | token, sorted within each sequence
	starts   []int32           // [buckets] where the next token of each goes, while a sequence is sorted
	groups   []tokenGroup      // of all sequences
	queryAt  []int             // [groups+1] the first row of each group in q
	keyAt    []int             // [groups+1] the first row of each group in k
	memory   []float32         // of the matrices below
	q        blas32.General    // [n, Heads*HeadDim], in the order of groups
	k        blas32.General    // [keys, Heads*HeadDim], a group's and the next one's
	v        blas32.General    // [keys, Heads*ValueDim], likewise
	grouped  blas32.General    // [n, Heads*ValueDim], attention within groups
	centred  blas32.General    // [n, Heads*ValueDim], attention to centres
	segments [4]blas32.General // k, v, CenterK and CenterV, as attention takes them
	intra    attention.Call
	inter    attention.Call

	gather, scatter func(worker, group int) // gatherGroup and scatterGroup
}

// tokenGroup is the places from (included) to to (excluded) in the order of a sequence.
type tokenGroup struct{ seq, from, to int }

// regroup runs a call.
func (r *groupRun) regroup(ctx context.Context, g *GroupAttention, call *GroupCall) error {
	if err := r.checkGroups(ctx, &g.cfg, call); err != nil {
		return err
	}
	if r.gather == nil {
		r.gather, r.scatter = r.gatherGroup, r.scatterGroup
	}
	r.op, r.call = g, *call
	defer func() {
		r.call, r.intra, r.inter, r.segments = GroupCall{}, attention.Call{}, attention.Call{}, [4]blas32.General{}
	}()
	if err := r.sort(ctx); err != nil {
		return err
	}
	return r.attend(ctx)
}

// sort orders the tokens of each sequence and cuts them into groups.
func (r *groupRun) sort(ctx context.Context) error {
	r.keys = scratch.Sized(r.keys, r.call.Q.Rows)
	r.groups, r.queryAt, r.keyAt = r.groups[:0], append(r.queryAt[:0], 0), append(r.keyAt[:0], 0)
	for i, from := range r.offsets[:len(r.offsets)-1] {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := r.offsets[i+1] - from
		r.order(from, from+n)
		size := min(n, r.op.cfg.GroupSize)
		for at := 0; at < n; at += size {
			r.groups = append(r.groups, tokenGroup{i, at, min(at+size, n)})
			r.queryAt = append(r.queryAt, from+min(at+size, n))
			r.keyAt = append(r.keyAt, r.keyAt[len(r.keyAt)-1]+2*size)
		}
	}
	return nil
}

// order sorts the tokens from (included) to to (excluded): by counting where buckets are
// not much more than tokens.
func (r *groupRun) order(from, to int) {
	n, top, keys := to-from, 0, r.keys[from:to]
	for _, b := range r.call.Bucket[from:to] {
		top = max(top, int(b))
	}
	key := func(t int) uint64 { return uint64(r.call.Bucket[t])<<32 | uint64(t) }
	if top >= manyBuckets(n) {
		for i := range keys {
			keys[i] = key(from + i)
		}
		slices.Sort(keys)
		return
	}
	r.starts = scratch.Sized(r.starts, top+1)
	clear(r.starts)
	for _, b := range r.call.Bucket[from:to] {
		r.starts[b]++
	}
	at := int32(0)
	for b, count := range r.starts {
		r.starts[b] = at
		at += count
	}
	for t := from; t < to; t++ {
		at := &r.starts[r.call.Bucket[t]]
		keys[*at] = key(t)
		*at++
	}
}

// manyBuckets is how many buckets of n tokens are too many to be counted.
func manyBuckets(n int) int { return 4*n + 1024 }

// attend gathers the groups, attends within each and to the centres, and puts the sums
// where the tokens stand.
func (r *groupRun) attend(ctx context.Context) error {
	c, cfg := &r.call, &r.op.cfg
	n, keys := c.Q.Rows, r.keyAt[len(r.keyAt)-1]
	qk, cols := cfg.Heads*cfg.HeadDim, cfg.Heads*cfg.ValueDim
	floats, err := room(int64(n)*int64(qk+2*cols) + int64(keys)*int64(qk+cols))
	if err != nil {
		return err
	}
	r.memory = scratch.Floats(r.memory, floats)
	cut := cutter{r.memory}
	r.q, r.grouped, r.centred = cut.take(n, qk), cut.take(n, cols), cut.take(n, cols)
	r.k, r.v = cut.take(keys, qk), cut.take(keys, cols)
	workers := parallel.Choose(cfg.Workers, c.Workers)
	if err := r.workers.RunAs(ctx, "catanet", workers, len(r.groups), r.gather); err != nil {
		return err
	}
	r.segments = [4]blas32.General{r.k, r.v, c.CenterK, c.CenterV}
	r.intra = attention.Call{Dst: r.grouped, Q: r.q, K: r.segments[:1], V: r.segments[1:2], Offsets: r.queryAt, KOffsets: r.keyAt, Workers: c.Workers}
	if err := within(ctx, r.op.core, &r.intra); err != nil {
		return err
	}
	if c.CenterK.Rows > 0 {
		r.inter = attention.Call{Dst: r.centred, Q: r.q, K: r.segments[2:3], V: r.segments[3:], Workers: c.Workers}
		if err := within(ctx, r.op.core, &r.inter); err != nil {
			return err
		}
	}
	return r.workers.RunAs(ctx, "catanet", workers, len(r.groups), r.scatter)
}

// token returns the token at a place of a sequence's order. After the end the order
// runs backwards, and forwards again as often as need be.
func (r *groupRun) token(seq, place int) int {
	from, n := r.offsets[seq], r.offsets[seq+1]-r.offsets[seq]
	return int(uint32(r.keys[from+mirror(place, n)]))
}

// gatherGroup copies the queries of a group, and the keys and values that they see.
func (r *groupRun) gatherGroup(_, group int) {
	t := r.groups[group]
	base := r.offsets[t.seq]
	for place := t.from; place < t.to; place++ {
		copy(mat.Row(r.q, base+place), mat.Row(r.call.Q, r.token(t.seq, place)))
	}
	for j := r.keyAt[group]; j < r.keyAt[group+1]; j++ {
		token := r.token(t.seq, t.from+j-r.keyAt[group])
		copy(mat.Row(r.k, j), mat.Row(r.call.K, token))
		copy(mat.Row(r.v, j), mat.Row(r.call.V, token))
	}
}

// scatterGroup writes the rows of Dst of the tokens of a group.
func (r *groupRun) scatterGroup(_, group int) {
	t := r.groups[group]
	base := r.offsets[t.seq]
	for place := t.from; place < t.to; place++ {
		dst := mat.Row(r.call.Dst, r.token(t.seq, place))
		if r.call.CenterK.Rows > 0 {
			asm.Add(dst, mat.Row(r.grouped, base+place), mat.Row(r.centred, base+place))
		} else {
			copy(dst, mat.Row(r.grouped, base+place))
		}
	}
}

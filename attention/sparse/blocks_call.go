package sparse

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// Forward attends over one sequence: q is [queries, Heads*HeadDim], k [keys,
// KVHeads*HeadDim], v [keys, KVHeads*ValueDim] and dst [queries, Heads*ValueDim], heads
// side by side; choice has lists for each block of queries. Inputs may overlap each other, dst
// none of them. After the first call of a shape nothing is allocated.
//
// It costs 2 (HeadDim + ValueDim) flop for each head and each pair of a query and a key of a
// chosen block, those after the query included but for blocks wholly after it, and the
// packing of each chosen block once. Errors match ErrShape or ErrCall.
func (b *Blocks) Forward(dst, q, k, v blas32.General, choice *Choice) error {
	r := b.scratch.Get()
	defer b.scratch.Put(r)
	r.one = [2]blas32.General{k, v}
	return r.serve(context.Background(), b, &attention.Call{Dst: dst, Q: q, K: r.one[:1], V: r.one[1:]}, choice)
}

// Run is Forward with everything optional, and an end: when ctx is done it returns ctx.Err()
// itself and leaves the outputs in an unspecified state. Of a Call it takes K and V of one
// segment, Offsets and KOffsets, QueryPos and KeyPos, LogWeights, LSE, Partial, Workers and,
// always, a *Choice for Options; any other option is an error. Sequences are done one after
// the other. Errors about matrices match ErrShape, those about options, the choice among
// them, ErrCall; all come before anything is written.
func (b *Blocks) Run(ctx context.Context, call *attention.Call) error {
	if err := check.Call("sparse", ctx, call != nil); err != nil {
		return err
	}
	const can = attention.UsesOffsets | attention.UsesKOffsets | attention.UsesQueryPos | attention.UsesKeyPos | attention.UsesLogWeights | attention.UsesLSE | attention.UsesPartial
	if err := call.Honor("sparse", can); err != nil {
		return err
	}
	if err := call.One("sparse"); err != nil {
		return err
	}
	choice, _ := call.Options.(*Choice)
	if choice == nil {
		return check.Errorf(ErrCall, "sparse: Options is a %T, want a *sparse.Choice", call.Options)
	}
	r := b.scratch.Get()
	defer b.scratch.Put(r)
	return r.serve(ctx, b, call, choice)
}

// serve checks a call and does it, sequence after sequence.
func (r *blocksRun) serve(ctx context.Context, b *Blocks, call *attention.Call, choice *Choice) error {
	r.op, r.call, r.choice = b, *call, choice
	defer r.forget()
	if r.pack == nil {
		r.pack, r.attend = r.wave.packTask, r.attendTask
		r.queryBlocks, r.keyBlocks = r.queryBlocksOf, r.keyBlocksOf
	}
	if err := r.check(ctx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r.list = 0
	for s := range len(r.offsets) - 1 {
		if err := r.sequence(ctx, s); err != nil {
			return err
		}
		r.list += r.queryBlocksOf(s) * choice.Heads
	}
	return nil
}

// forget drops what belongs to the caller.
func (r *blocksRun) forget() {
	r.call, r.choice, r.one = attention.Call{}, nil, [2]blas32.General{}
	r.q, r.dst, r.lse = blas32.General{}, blas32.General{}, blas32.General{}
	r.wave.forget()
}

// check reports what is wrong with a call, and finds its sequences. Nothing has been
// written.
func (r *blocksRun) check(ctx context.Context) error {
	cfg, c := &r.op.cfg, &r.call
	k, v := c.K[0], c.V[0]
	if err := check.QKV("sparse", c.Q, k, v, -1, cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.ValueDim); err != nil {
		return err
	}
	if w := c.LogWeights; mat.Given(w) {
		cols := w.Cols
		if cols != 1 {
			cols = cfg.KVHeads
		}
		if err := check.Matrix(ErrShape, "sparse", "LogWeights", w, k.Rows, cols, "1 or KVHeads"); err != nil {
			return err
		}
	}
	outputs := [...]check.Out{
		{Name: "dst", M: c.Dst, Rows: c.Q.Rows, Cols: cfg.Heads * cfg.ValueDim, What: "Heads*ValueDim", Needed: true},
		{Name: "LSE", M: c.LSE, Rows: c.Q.Rows, Cols: cfg.Heads, What: "Heads"},
	}
	if err := check.Outputs("sparse", outputs[:], c.Q, k, v, c.LogWeights); err != nil {
		return err
	}
	if err := r.checkOffsets(c, k.Rows); err != nil {
		return err
	}
	return r.choice.check(ctx, cfg.Heads, cfg.KVHeads, len(r.offsets)-1, r.queryBlocks, r.keyBlocks)
}

// checkOffsets finds the sequences and where they stand.
func (r *blocksRun) checkOffsets(c *attention.Call, keys int) error {
	r.offsets, r.kOffsets = append(r.offsets[:0], 0, c.Q.Rows), append(r.kOffsets[:0], 0, keys)
	switch {
	case c.Offsets != nil:
		if err := check.Offsets("sparse", "Offsets", c.Offsets, c.Q.Rows, -1); err != nil {
			return err
		}
		list, name := c.KOffsets, "KOffsets"
		if list == nil {
			list, name = c.Offsets, "Offsets, as KOffsets"
		}
		if err := check.Offsets("sparse", name, list, keys, len(c.Offsets)-1); err != nil {
			return err
		}
		r.offsets, r.kOffsets = append(r.offsets[:0], c.Offsets...), append(r.kOffsets[:0], list...)
	case c.KOffsets != nil:
		return check.Errorf(ErrCall, "sparse: KOffsets without Offsets")
	}
	for _, p := range [...]struct {
		name string
		list []int64
	}{{"QueryPos", c.QueryPos}, {"KeyPos", c.KeyPos}} {
		if p.list != nil && len(p.list) != len(r.offsets)-1 {
			return check.Errorf(ErrCall, "sparse: %s has %d elements, want one for each sequence = %d", p.name, len(p.list), len(r.offsets)-1)
		}
		for i, at := range p.list {
			if at < -attention.MaxPosition || at > attention.MaxPosition {
				return check.Errorf(ErrCall, "sparse: %s[%d] is %d, want between -2^60 and 2^60", p.name, i, at)
			}
		}
	}
	return nil
}

// queryBlocksOf and keyBlocksOf return how many blocks a sequence has.
func (r *blocksRun) queryBlocksOf(s int) int {
	return ceil(r.offsets[s+1]-r.offsets[s], r.op.cfg.QueryBlock)
}

func (r *blocksRun) keyBlocksOf(s int) int {
	return ceil(r.kOffsets[s+1]-r.kOffsets[s], r.op.cfg.KeyBlock)
}

// ceil is n / size, rounded up.
func ceil(n, size int) int { return n/size + (n%size+size-1)/size }

// place returns the position of a sequence's first query, its first key being at 0. Positions
// too far from keys to matter are brought nearer.
func (r *blocksRun) place(s int) int {
	queries, keys := int64(r.offsets[s+1]-r.offsets[s]), int64(r.kOffsets[s+1]-r.kOffsets[s])
	if !r.op.cfg.Causal {
		return int(keys)
	}
	at := keys - queries
	if c := &r.call; c.QueryPos != nil || c.KeyPos != nil {
		first := int64(0)
		if c.KeyPos != nil {
			first = c.KeyPos[s]
		}
		if c.QueryPos != nil {
			at = c.QueryPos[s] - first
		}
	}
	return int(max(min(at, keys), -queries))
}

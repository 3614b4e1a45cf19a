package transformer

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/kvcache"
	"github.com/subquad/subquad/attention/mla"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
)

// Cuts implements lm.Cutter.
func (c *cache) Cuts() bool { return !c.ring() }

// Branches implements lm.Brancher.
func (c *cache) Branches() bool {
	_, exact := c.owner.(*mixer)
	return exact && !c.ring()
}

// Cuts implements lm.Cutter: a policy that forgets goes back by copies, and so does one whose
// scores have taken up what came, or whose choice may be one for what is gone.
func (c *policyState) Cuts() bool {
	cfg := c.op.Config()
	_, cached := cfg.Select.(kvcache.Cached)
	return cfg.Evict == nil && !cached && c.CanTruncate(max(0, c.Len()-1))
}

// CanCopy tells whether CopyFrom would work.
func (c *policyState) CanCopy(from lm.LayerState) error {
	if other, ok := from.(*policyState); !ok || !c.op.Owns(other.State) {
		return errAnother
	}
	return nil
}

// CanCopy tells whether CopyFrom would work.
func (c *cache) CanCopy(from lm.LayerState) error {
	if _, ok := from.(*cache); !ok {
		return errAnother
	}
	return nil
}

// selectNear has drafts read a part of a past that has all of its tokens.
func (r *mixerRun) selectNear(mix *lm.Mix) {
	if mix.Near == (lm.Near{}) || len(mix.States) != 1 || r.m.with != nil {
		return
	}
	c, ok := mix.States[0].(*cache)
	if !ok || c.ring() {
		return
	}
	end := c.Len() + mix.Offsets[1]
	from := max(0, end-mix.Near.Recent)
	r.near = [2]attention.Run{{From: 0, To: min(mix.Near.Keep, from)}, {From: from, To: end}}
	r.reads[0] = r.near[:]
	r.call.Select = r.reads[:]
}

// stepKeys is how many keys make a tile of attention: queries of a call that all end within
// the same one have the bits that they have alone, and so has one that ends with it. The
// kernels of some tiers sum in another order for several queries than for one; those take
// aloneKeys keys query by query, and more together, for reading them is what takes time then.
const stepKeys, aloneKeys = 64, 1024

// piece returns how many tokens from a position on may go in one call so that each has the bits
// that it has alone: one where tiles begin at each query's own window.
func (c *cache) piece(at int, window bool) int {
	if window || c.ring() {
		return 1
	}
	if tier := asm.Active(); at < aloneKeys && tier != "avx512" && tier != "generic" {
		return 1
	}
	return max(1, stepKeys-1-at%stepKeys)
}

// attend runs the call of a layer, of drafts in pieces.
func (r *mixerRun) attend(ctx context.Context, op attention.Operator, mix *lm.Mix) error {
	if !mix.Single || mix.Tree != nil || len(mix.States) != 1 || mix.X.Rows == 1 {
		return op.Run(ctx, &r.call)
	}
	c, ok := mix.States[0].(*cache)
	if !ok { // of a Replacement
		return op.Run(ctx, &r.call)
	}
	call := r.call
	call.States, call.State, call.Offsets = nil, c.State, nil
	return r.inPieces(ctx, op, &call, func() int { return c.piece(c.Len(), r.m.op.Config().Window > 0) })
}

// inPieces runs a call of one state piece by piece; next tells how long the next may
// be.
func (r *mixerRun) inPieces(ctx context.Context, op attention.Operator, call *attention.Call, next func() int) error {
	dst, q, k, v := call.Dst, call.Q, call.K[0], call.V[0]
	for from := 0; from < q.Rows; {
		to := min(from+next(), q.Rows)
		call.Dst, call.Q = mat.Rows(dst, from, to), mat.Rows(q, from, to)
		r.one = [2]blas32.General{mat.Rows(k, from, to), mat.Rows(v, from, to)}
		call.K, call.V = r.one[:1], r.one[1:]
		if err := op.Run(ctx, call); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// latentRows is up to how many tokens latent attention projects as it does one.
const latentRows = 8

// runSingle runs the rows of drafts in pieces.
func (r *latentRun) runSingle(ctx context.Context, mix *lm.Mix, x blas32.General) error {
	c := mix.States[0].(*cache)
	op, err := c.owner.(*latentMixer).of(c.length)
	if err != nil {
		return err
	}
	for from := 0; from < x.Rows; {
		to := min(from+min(latentRows, c.piece(c.Len(), false)), x.Rows)
		r.call = mla.Call{Dst: mat.Rows(mix.X, from, to), X: mat.Rows(x, from, to), State: c.State, Workers: mix.Workers}
		if err := op.Run(ctx, &r.call); err != nil {
			return err
		}
		from = to
	}
	return nil
}

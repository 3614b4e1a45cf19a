package sparse

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
)

// Gates weigh the branches of NSA: [tokens, Heads] each, as they are to be multiplied
// with, after the sigmoid that models put their projections through. A branch whose gate
// is the zero General is left out, as if it were 0 everywhere; one must be given.
type Gates struct{ Compressed, Selected, Window blas32.General }

// NSAOptions are what only NSA has of a call: attention.Call.Options takes a pointer to
// one, and needs it.
type NSAOptions struct {
	Gates
	// Blocks, if not nil, receives the numbers of the blocks that each query and key head
	// chose, [tokens, KVHeads, TopK]: ascending, then -1 where there are fewer.
	Blocks []int32
}

// Forward attends over one sequence: q is [tokens, Heads*HeadDim], k [tokens,
// KVHeads*HeadDim], v [tokens, KVHeads*ValueDim] and dst [tokens, Heads*ValueDim], heads
// side by side. Inputs may overlap each other, dst none of them. After the first call of a
// shape nothing is allocated.
//
// A query reads n/Stride compressed keys, at most TopK Block keys and Window keys, where
// exact attention reads n: of 16384 tokens and more it is several times as fast, see the
// package's Cost. ScratchBytes tells the memory, that of packed keys and values. Errors match
// ErrShape.
func (a *NSA) Forward(dst, q, k, v blas32.General, gates Gates) error {
	r := a.scratch.Get()
	defer a.scratch.Put(r)
	return r.serveNSA(context.Background(), a, nsaRequest{dst: dst, q: q, k: k, v: v, gates: gates}, pack.Batch[*NSAState]{})
}

// Run is Forward, Step or StepBatch with everything optional, and an end: when ctx is done
// it returns ctx.Err() itself and leaves the outputs in an unspecified state. Of a Call it
// takes K and V of one segment, Offsets, State or States, Workers and, always, a
// *NSAOptions for Options; any other option is an error, LSE too: three softmaxes have no
// common denominator. Errors about matrices match ErrShape, those about options ErrCall,
// those about states ErrState or ErrFull; all but that of an exhausted pool of pages come
// before anything is written. After any error states are as before the call.
func (a *NSA) Run(ctx context.Context, call *attention.Call) error {
	if err := check.Call("sparse", ctx, call != nil); err != nil {
		return err
	}
	if err := call.Honor("sparse", attention.UsesState|attention.UsesOffsets); err != nil {
		return err
	}
	if err := call.One("sparse"); err != nil {
		return err
	}
	o, _ := call.Options.(*NSAOptions)
	if o == nil {
		return check.Errorf(ErrCall, "sparse: Options is a %T, want a *sparse.NSAOptions", call.Options)
	}
	r := a.scratch.Get()
	defer a.scratch.Put(r)
	defer func() { clear(r.list) }()
	batch, err := batchOf(call, &r.list)
	if err != nil {
		return err
	}
	return r.serveNSA(ctx, a, nsaRequest{call.Dst, call.Q, call.K[0], call.V[0], o.Gates, o.Blocks, call.Workers}, batch)
}

// nsaRequest is a call but for its states, with its options.
type nsaRequest struct {
	dst, q, k, v blas32.General
	gates        Gates
	blocks       []int32
	workers      int
}

// part returns rows of the call.
func (c *nsaRequest) part(from, to, blocks int) nsaRequest {
	p := nsaRequest{mat.Rows(c.dst, from, to), mat.Rows(c.q, from, to), mat.Rows(c.k, from, to), mat.Rows(c.v, from, to), c.gates, c.blocks, c.workers}
	for _, g := range [...]*blas32.General{&p.gates.Compressed, &p.gates.Selected, &p.gates.Window} {
		if mat.Given(*g) {
			*g = mat.Rows(*g, from, to)
		}
	}
	if c.blocks != nil {
		p.blocks = c.blocks[from*blocks : to*blocks]
	}
	return p
}

// checkShapes reports what is out of shape; nothing has been written.
func (c *nsaRequest) checkShapes(cfg *NSAConfig) error {
	n := c.q.Rows
	if err := check.QKV("sparse", c.q, c.k, c.v, n, cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.ValueDim); err != nil {
		return err
	}
	g := &c.gates
	for _, x := range [...]struct {
		name string
		m    blas32.General
	}{{"the gate Compressed", g.Compressed}, {"the gate Selected", g.Selected}, {"the gate Window", g.Window}} {
		if !mat.Given(x.m) {
			continue
		}
		if err := check.Matrix(ErrShape, "sparse", x.name, x.m, n, cfg.Heads, "Heads"); err != nil {
			return err
		}
	}
	if !mat.Given(g.Compressed) && !mat.Given(g.Selected) && !mat.Given(g.Window) {
		return check.Errorf(ErrCall, "sparse: none of the gates Compressed, Selected and Window is given, want one or more")
	}
	if c.blocks != nil && int64(len(c.blocks)) != check.Product(math.MaxInt64, n, cfg.KVHeads, cfg.TopK) {
		return check.Errorf(ErrShape, "sparse: Blocks has %d elements, want tokens*KVHeads*TopK = %d*%d*%d", len(c.blocks), n, cfg.KVHeads, cfg.TopK)
	}
	outputs := [...]check.Out{{Name: "dst", M: c.dst, Rows: n, Cols: cfg.Heads * cfg.ValueDim, What: "Heads*ValueDim", Needed: true}}
	return check.Outputs("sparse", outputs[:], c.q, c.k, c.v, g.Compressed, g.Selected, g.Window)
}

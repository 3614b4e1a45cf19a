package sparse

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// nsaRun is the working memory of one call of NSA, and the sequence of it that is being
// done: tokens that a state has, or none, and those of the call after them. It is done in
// stretches of queries: first all compressed keys and the choice of blocks, which fills
// chosen and sets dst, then what was chosen and the window, which add to dst.
type nsaRun struct {
	op     *NSA
	call   nsaRequest
	layout pack.Layout[*NSAState]
	list   []*NSAState                              // the states of attention.Call.States
	own    func(name string, state *NSAState) error // checkOwner

	seq    nsaRequest // of the sequence
	state  *NSAState  // that it goes on from, or nil
	past   int        // tokens before the sequence's first row
	from   int        // rows of the stretch
	to     int
	ranked bool // blocks are to be chosen
	count  int  // of them, at the most

	made     int          // compressed keys that are there before the call
	newMeans [2][]float32 // compressed keys, and values, of the call: [KVHeads][new][dim]
	means    [2][]float32 // all compressed keys, and values, packed: [KVHeads]
	finite   []bool       // [KVHeads][tiles of compressed keys]: no NaN and no Inf among values
	chosen   []int32      // [rows of the stretch][KVHeads][count]
	blocks   packedBlocks // of tokens
	append   appends
	steps    nsaSteps

	group                                      parallel.Group
	compress, packMeans, choose, fill, attends func(worker, task int)
	work                                       []nsaWorker
}

// nsaWorker is what one worker needs. Rows are those of a query's heads, query after query.
type nsaWorker struct {
	rows          rows      // of a tile or a strip
	some          rows      // of these, those that chose a block
	s             []float32 // scores of some rows
	tops          []float32 // [chunks, rows]: top after each chunk of compressed keys
	ones          []float32 // factors that change nothing
	scores        []float32 // of compressed keys, then of blocks, for one query
	faint         faintScores
	best          []int32   // blocks with the largest scores
	queries, ends []int32   // of a tile, by the blocks that they chose
	wide          []float32 // [tokens, HeadDim + ValueDim], of some that are not stored as float32
}

// serveNSA checks a call and does it, sequence after sequence.
func (r *nsaRun) serveNSA(ctx context.Context, a *NSA, call nsaRequest, batch pack.Batch[*NSAState]) error {
	r.op, r.call = a, call
	defer r.forgetNSA()
	if r.own == nil {
		r.own, r.compress, r.packMeans, r.choose, r.fill, r.attends = r.checkOwner, r.compressTask, r.packMeansTask, r.chooseTask, r.fillTask, r.attendTask
	}
	if err := r.call.checkShapes(&a.cfg); err != nil {
		return err
	}
	batch.Rows = r.call.q.Rows
	if err := r.layout.Lay("sparse", batch, r.own); err != nil {
		return err
	}
	if err := r.checkRooms(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(r.layout.States) > 0 {
		return r.advanceStates(ctx)
	}
	for _, x := range r.layout.Segments {
		if x.From == x.To {
			continue
		}
		r.seq, r.state, r.past = r.call.part(x.From, x.To, a.cfg.KVHeads*a.cfg.TopK), nil, 0
		if err := r.attendSequence(ctx); err != nil {
			return err
		}
	}
	return nil
}

// forgetNSA drops what belongs to the caller.
func (r *nsaRun) forgetNSA() {
	r.call, r.seq, r.state = nsaRequest{}, nsaRequest{}, nil
	r.layout.Clear()
	r.steps.forget()
}

// total is how many tokens the sequence has with the call's.
func (r *nsaRun) total() int { return r.past + r.seq.q.Rows }

// attendSequence attends from the sequence's rows, whose keys and values are at hand.
func (r *nsaRun) attendSequence(ctx context.Context) error {
	a, n := r.op, r.seq.q.Rows
	r.count = min(a.cfg.TopK, ceil(r.total(), a.cfg.Block))
	r.ranked = mat.Given(r.seq.gates.Selected) || r.seq.blocks != nil
	workers := r.workersOf(n)
	r.reserveWorkers(workers)
	if r.state == nil {
		r.made = 0
		if err := r.compressNew(ctx, workers); err != nil {
			return err
		}
	}
	if err := r.packAllMeans(ctx, workers); err != nil {
		return err
	}
	r.blocks.begin(a.cfg.KVHeads*ceil(r.total(), a.cfg.Block), a.slotSize(r.total()))
	for r.from = 0; r.from < n; r.from = r.to {
		r.to = min(r.from+a.sizes.Block, n)
		r.chosen = scratch.Sized(r.chosen, (r.to-r.from)*a.cfg.KVHeads*r.count)
		if err := r.group.RunAs(ctx, "sparse", workers, a.cfg.KVHeads*ceil(r.to-r.from, a.stripTokens()), r.choose); err != nil {
			return err
		}
		r.wantBlocks()
		if err := r.group.RunAs(ctx, "sparse", workers, ceil(len(r.blocks.wanted), a.cfg.atOnce(a.cfg.Block)), r.fill); err != nil {
			return err
		}
		if err := r.group.RunAs(ctx, "sparse", workers, a.cfg.KVHeads*ceil(r.to-r.from, a.tileTokens()), r.attends); err != nil {
			return err
		}
		if r.seq.blocks != nil {
			tell(r.seq.blocks[r.from*a.cfg.KVHeads*a.cfg.TopK:], r.chosen, a.cfg.TopK, r.count)
		}
	}
	return nil
}

// tell writes choices of count blocks each as lists of size.
func tell(dst, chosen []int32, size, count int) {
	for ; len(chosen) > 0; dst, chosen = dst[size:], chosen[count:] {
		n := copy(dst, chosen[:count])
		for i := n; i < size; i++ {
			dst[i] = -1
		}
	}
}

// workersOf is how many goroutines are used for n queries of the sequence.
func (r *nsaRun) workersOf(n int) int {
	cfg := &r.op.cfg
	keys := min(float64(r.total()), float64(cfg.TopK)*float64(cfg.Block)+float64(cfg.Window)) + float64(r.op.compressed(r.total()))
	work := float64(n) * keys * float64(cfg.Heads*(cfg.HeadDim+cfg.ValueDim))
	return r.op.workersFor(r.call.workers, int64(min(work, math.MaxInt32)))
}

func (r *nsaRun) reserveWorkers(workers int) {
	a := r.op
	for len(r.work) < workers {
		r.work = append(r.work, nsaWorker{})
	}
	rows := max(a.tileTokens(), a.stripTokens()) * a.group()
	strip := a.stripTokens() * a.group()
	// Scores are of some rows with a block, or of a strip with all compressed keys.
	scores := max(stripRows*a.tile.Rows()*r.tileStride(), strip*r.meansStride())
	for i := range r.work[:workers] {
		w := &r.work[i]
		w.rows.reserve(&a.engine, rows)
		w.some.reserve(&a.engine, a.gatherTokens()*a.group())
		w.s = scratch.Floats(w.s, scores)
		w.tops = scratch.Floats(w.tops, strip*ceil(r.meansStride(), r.op.chunk()))
		if w.ones == nil {
			w.ones = make([]float32, strip)
			for j := range w.ones {
				w.ones[j] = 1
			}
		}
	}
}

// tokensOf returns keys and values of a key head, where they stand or in the worker's
// memory.
func (r *nsaRun) tokensOf(w *nsaWorker, g, from, to int) (k, v blas32.General) {
	cfg := &r.op.cfg
	if r.state == nil {
		return mat.Columns(mat.Rows(r.seq.k, from, to), g*cfg.HeadDim, cfg.HeadDim), mat.Columns(mat.Rows(r.seq.v, from, to), g*cfg.ValueDim, cfg.ValueDim)
	}
	return w.held(r.state.tokens[g], from, to, cfg.HeadDim, cfg.ValueDim)
}

// held returns tokens of a state of one head likewise.
func (w *nsaWorker) held(s *attention.State, from, to, dim, valueDim int) (k, v blas32.General) {
	return heldRows(&w.wide, s, from, to, dim, valueDim)
}

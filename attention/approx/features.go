package approx

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// featureMap is phi, whose products phi(q).phi(k) are the weights of a featured attention.
// A row's features depend on no other row.
type featureMap interface {
	// queries sets dst [n, heads F] to the features of x [n, heads D].
	queries(w *featureWork, dst, x blas32.General, heads int)
	// keys likewise, given the keyTops of each head where phi is a topper.
	keys(w *featureWork, dst, x blas32.General, heads int, tops []float32)
}

// pairMap is a phi whose products are cheaper to have from queries and keys themselves.
type pairMap interface {
	// products sets dst [n, n] to phi(q) phi(k)^T of one head, given q [n, D], k^T [D, n] and
	// phi(k) [n, F], which has the weights of the keys in it and is 0 of hidden ones.
	products(w *featureWork, dst, q blas32.General, k *kernel.Matrix, phi blas32.General)
}

// topper is a phi whose features of keys depend on the largest of something over all keys
// of the sequence.
type topper interface {
	// top returns that of some keys of a head, x [n, D].
	top(w *featureWork, x blas32.General) float32
	// projected is how many float32 of featureWork.block top needs for a key.
	projected() int
}

// featureWork is what each worker has for a featureMap.
type featureWork struct {
	pace  pace // of the worker's task
	row   []float32
	ones  []float32 // of 1
	block []float32 // [rows, F]
}

// constant returns n elements of 1.
func (w *featureWork) constant(n int) []float32 {
	for len(w.ones) < n {
		w.ones = append(w.ones, 1)
	}
	return w.ones[:n]
}

// weigh multiplies the features of each key by its weight. Those of weight 0 become 0, even where
// they are Inf or NaN: the top of a Performer is of the keys that are seen alone.
func weigh(features blas32.General, weights []float32) {
	kernel.ScaleRows(features, weights, features)
	for i, s := range weights {
		if s == 0 {
			clear(mat.Row(features, i))
		}
	}
}

// eluPlusOne is the phi of Linear: elu(x) + 1, of each element.
type eluPlusOne struct{}

func (eluPlusOne) queries(w *featureWork, dst, x blas32.General, _ int) {
	for i := 0; i < x.Rows && !w.pace.stop(elsewhere*x.Cols); i++ {
		asm.ELUPlusOne(mat.Row(dst, i), mat.Row(x, i))
	}
}

func (e eluPlusOne) keys(w *featureWork, dst, x blas32.General, heads int, _ []float32) {
	e.queries(w, dst, x, heads)
}

// topRows is how many keys of a head are a task of keyTops.
const topRows = 1024

// keyTops finds the top of all keys that are seen, for each key head of each sequence.
type keyTops struct {
	sums    *sums
	call    *request
	keys    []int     // where sequences begin
	pieces  []int     // [sequences+1] where the pieces of each begin
	partial []float32 // [pieces, KVHeads]
	all     []float32 // [sequences, KVHeads]; empty where there is no topper
	workers parallel.Group
	work    []featureWork

	piece func(worker, task int) // pieceTask
}

// topsBytes bounds the memory of a call with one sequence of keys.
func (s *sums) topsBytes(keys int) int64 {
	if s.top == nil {
		return 0
	}
	return 4*(int64(keys)/topRows+3)*int64(s.kvHeads) + 4*int64(parallel.Workers(s.workers))*topRows*int64(s.top.projected())
}

// measure finds the tops of a call, whose sequences begin at keys; none without a topper.
func (t *keyTops) measure(ctx context.Context, s *sums, call *request, keys []int) error {
	t.all = t.all[:0]
	if s.top == nil {
		return nil
	}
	t.sums, t.call, t.keys = s, call, keys
	defer func() { t.call, t.keys = nil, nil }()
	t.pieces = append(t.pieces[:0], 0)
	for b := range len(keys) - 1 {
		t.pieces = append(t.pieces, t.pieces[b]+(keys[b+1]-keys[b]+topRows-1)/topRows)
	}
	count := t.pieces[len(keys)-1] * s.kvHeads
	t.partial = scratch.Floats(t.partial, count)
	workers := 1
	if int64(keys[len(keys)-1])*int64(s.kvHeads)*int64(s.dim)*int64(s.width) > aloneWork {
		workers = parallel.Choose(s.workers, call.Workers)
	}
	for len(t.work) < workers {
		t.work = append(t.work, featureWork{})
	}
	if t.piece == nil {
		t.piece = t.pieceTask
	}
	if err := t.workers.RunAs(ctx, "approx", workers, count, t.piece); err != nil {
		return err
	}
	t.all = scratch.Floats(t.all, (len(keys)-1)*s.kvHeads)
	for b := range len(keys) - 1 {
		own := t.all[b*s.kvHeads:][:s.kvHeads]
		for h := range own {
			own[h] = negInf
		}
		for p := t.pieces[b]; p < t.pieces[b+1]; p++ {
			asm.Maximum(own, own, t.partial[p*s.kvHeads:][:s.kvHeads])
		}
	}
	return nil
}

// pieceTask finds the top of one piece for one head.
func (t *keyTops) pieceTask(worker, task int) {
	s, w := t.sums, &t.work[worker]
	w.pace.begin(&t.workers)
	piece, head := task/s.kvHeads, task%s.kvHeads
	b := find(t.pieces, piece)
	from := t.keys[b] + (piece-t.pieces[b])*topRows
	end := min(from+topRows, t.keys[b+1])
	best := negInf
	for from < end { // stretches of keys that are seen
		if !t.call.seenBy(from, head) {
			from++
			continue
		}
		to := from + 1
		for to < end && t.call.seenBy(to, head) {
			to++
		}
		one := s.top.top(w, mat.Columns(mat.Rows(t.call.K, from, to), head*s.dim, s.dim))
		best = max(best, one) // NaN where there is one
		from = to
	}
	t.partial[task] = best
}

// of returns the tops of a set of key heads, of the sequence that has a row of the keys.
func (t *keyTops) of(keys []int, row int, set headSet) []float32 {
	if len(t.all) == 0 {
		return nil
	}
	heads := t.sums.kvHeads
	return t.all[find(keys, row)*heads:][set.from:set.to]
}

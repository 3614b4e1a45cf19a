package approx

import (
	"context"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// form is an approximation that sums the keys up in a matrix for each head, once,
// and multiplies every query by it.
type form interface {
	// add adds some keys, seen by w.gather, to the partial sums of the heads of a set.
	add(r *sumsRun, w *workspace, set headSet, part []float32)
	// join makes the matrices of a key head from the partial sums of a sequence of the
	// wave, by its number there.
	join(r *sumsRun, w *workspace, wave, head int)
	// apply writes rows from up to to of Dst for the heads of a set.
	apply(r *sumsRun, w *workspace, wave, from, to int, set headSet)
}

// sums runs a form. Tokens are cut into pieces and heads into sets; partial sums
// of a piece and a set are tasks, then the matrices of each head, then blocks of
// queries and sets. None of these sizes follows the number of workers.
type sums struct {
	shape
	form     form
	width    int    // rows of a key head's matrices: D, or how many features a key has
	part     int    // float32 of a partial sum of one key head
	matrices int    // that a key head has
	vector   int    // float32 that a key head keeps besides
	self     bool   // queries and keys are the same tokens
	top      topper // of features that depend on the largest of a sequence, nil of others
	workers  int    // the Config's
	scratch  scratch.List[sumsRun]
}

const (
	blockRows = 256     // tokens at a time
	setCols   = 256     // columns of a set of heads, about
	minPiece  = 1024    // tokens of a piece at least
	maxPieces = 64      // of a sequence
	heldWave  = 4 << 20 // float32 of sums and matrices held at a time, about
	aloneWork = 1 << 20 // multiply-adds up to which one goroutine does all
)

// headSet is key heads from up to to, and the query heads that read them.
type headSet struct{ from, to int }

func (s *sums) perSet() int {
	return max(1, setCols/(s.group()*max(s.width, s.dim, s.valueDim, 1)))
}

func (s *sums) sets() int { return (s.kvHeads + s.perSet() - 1) / s.perSet() }

func (s *sums) set(i int) headSet {
	return headSet{i * s.perSet(), min((i+1)*s.perSet(), s.kvHeads)}
}

// pieceOf is how many tokens of a sequence of n are in a piece: enough that the
// partial sums of all pieces stay within bounds.
func (s *sums) pieceOf(n int) int {
	most := max(1, min(maxPieces, heldWave/(s.kvHeads*s.part))) * blockRows
	return max(minPiece, (n-1)/most*blockRows+blockRows)
}

func (s *sums) pieces(n int) int { return (n + s.pieceOf(n) - 1) / s.pieceOf(n) }

// sumsRun is one call, and the memory that calls share.
type sumsRun struct {
	op       *sums
	call     request
	seqs     sequences
	workers  parallel.Group
	wave     []stretch       // sequences that are done together
	parts    []float32       // [pieces of the wave, KVHeads, part] partial sums
	matrices []kernel.Matrix // [wave, KVHeads, matrices]
	vectors  []float32       // [wave, KVHeads, vector]
	tops     keyTops         // of the keys of all sequences
	work     []workspace     // of each worker

	add, join, apply func(worker, task int) // addTask, joinTask and applyTask
}

// stretch is a sequence of the wave, and where its tasks begin.
type stretch struct {
	b             int // the sequence
	parts, blocks int // the first of its pieces of keys, and of its blocks of queries
}

// workspace is what each worker has for itself, for a block of up to blockRows tokens.
// Columns are those of a set of heads.
type workspace struct {
	rows    []int     // keys of the block that are seen
	e       []float32 // [rows, columns] features
	phi     featureWork
	k, v    []float32     // [rows, D] and [rows, Dv] a head's keys and values, where some are hidden
	scale   []float32     // [rows] weights, or sums
	top     []float32     // [columns] or [rows] largest elements
	shift   []float32     // [columns] what features are less, and then their sums
	row     []float32     // [columns] or [Dv]
	ones    []float32     // [columns] of 1
	factors []float32     // [rows] of kernel.AttentionTile.Weights
	right   kernel.Matrix // the right factor of a product
	m       []float32     // [part] the sum of a head's partial sums
}

// sumBytes bounds the working memory of a call of one sequence.
func (s *sums) sumBytes(keys int) int64 {
	heads, d, dv := int64(s.kvHeads), int64(max(s.width, s.dim)), int64(s.valueDim)
	held := heads * (int64(s.pieces(keys))*int64(s.part) + d*(dv+maxPanel)*int64(s.matrices) + int64(s.vector))
	wide := int64(min(s.perSet(), s.kvHeads)*s.group()) * max(d, dv)
	each := blockRows*(wide+2*d+2*dv+maxPanel+8) + int64(s.part) + 8*wide + d*(dv+maxPanel)
	const rest = 4096 // headers, alignment, the call itself
	return 4*(held+int64(parallel.Workers(s.workers))*each) + rest + 256*heads*int64(s.matrices) + s.topsBytes(keys)
}

// maxPanel is the width of the widest tier's panel, up to which matrices are
// filled up.
const maxPanel = 32

// sumUp runs a call.
func (s *sums) sumUp(ctx context.Context, call request) error {
	r := s.scratch.Get()
	defer s.scratch.Put(r)
	defer func() { r.call, r.seqs = request{}, sequences{} }()
	r.op, r.call = s, call
	if err := r.call.check(&s.shape); err != nil {
		return err
	}
	if err := r.seqs.lay(&r.call, s.self); err != nil {
		return err
	}
	if r.add == nil {
		r.add, r.join, r.apply = r.addTask, r.joinTask, r.applyTask
	}
	if err := r.tops.measure(ctx, s, &r.call, r.seqs.k); err != nil {
		return err
	}
	per := s.kvHeads * (s.matrices*s.width*s.valueDim + s.vector)
	held := 0
	r.wave = r.wave[:0]
	for b := range r.seqs.count() {
		n := r.seqs.k[b+1] - r.seqs.k[b]
		if held += per + s.pieces(n)*s.kvHeads*s.part; held > heldWave && len(r.wave) > 0 {
			if err := r.flush(ctx); err != nil {
				return err
			}
			held = per + s.pieces(n)*s.kvHeads*s.part
		}
		r.wave = append(r.wave, stretch{b: b})
	}
	return r.flush(ctx)
}

// flush does the sequences of the wave, and empties it.
func (r *sumsRun) flush(ctx context.Context) error {
	s := r.op
	parts, blocks, tokens := 0, 0, 0
	for i := range r.wave {
		w := &r.wave[i]
		w.parts, w.blocks = parts, blocks
		keys, queries := r.seqs.k[w.b+1]-r.seqs.k[w.b], r.seqs.q[w.b+1]-r.seqs.q[w.b]
		parts += s.pieces(keys)
		blocks += (queries + blockRows - 1) / blockRows
		tokens += keys + queries
	}
	r.parts = scratch.Floats(r.parts, parts*s.kvHeads*s.part)
	r.vectors = scratch.Floats(r.vectors, len(r.wave)*s.kvHeads*s.vector)
	for len(r.matrices) < len(r.wave)*s.kvHeads*s.matrices {
		r.matrices = append(r.matrices, kernel.Matrix{})
	}
	workers := 1
	if int64(tokens)*int64(s.heads*s.width)*int64(s.valueDim) > aloneWork {
		workers = parallel.Choose(s.workers, r.call.Workers)
	}
	for len(r.work) < workers {
		r.work = append(r.work, workspace{})
	}
	err := r.workers.RunAs(ctx, "approx", workers, parts*s.sets(), r.add)
	if err == nil {
		err = r.workers.RunAs(ctx, "approx", workers, len(r.wave)*s.kvHeads, r.join)
	}
	if err == nil {
		err = r.workers.RunAs(ctx, "approx", workers, blocks*s.sets(), r.apply)
	}
	r.wave = r.wave[:0]
	return err
}

// stretchOf returns the sequence of the wave that a task belongs to.
func (r *sumsRun) stretchOf(start func(*stretch) int, task int) *stretch {
	return &r.wave[parallel.Find(len(r.wave), task, func(i int) int { return start(&r.wave[i]) })]
}

// addTask sums up one piece for one set.
func (r *sumsRun) addTask(worker, task int) {
	s, w := r.op, &r.work[worker]
	w.phi.pace.begin(&r.workers)
	set, task := s.set(task%s.sets()), task/s.sets()
	at := r.stretchOf(func(w *stretch) int { return w.parts }, task)
	first, end := r.seqs.k[at.b], r.seqs.k[at.b+1]
	n := s.pieceOf(end - first)
	from := first + (task-at.parts)*n
	part := r.parts[task*s.kvHeads*s.part:][:s.kvHeads*s.part]
	clear(part[set.from*s.part : set.to*s.part])
	for to := min(from+n, end); from < to && !w.phi.pace.stop(elsewhere*blockRows*s.dim); from += blockRows {
		w.gather(r, from, min(from+blockRows, to))
		s.form.add(r, w, set, part)
	}
}

// partsOf returns the partial sums of a sequence of the wave, one for each piece,
// of a key head.
func (r *sumsRun) partsOf(wave, head int) (first, step, count int) {
	s, at := r.op, r.wave[wave]
	return (at.parts*s.kvHeads + head) * s.part, s.kvHeads * s.part, s.pieces(r.seqs.k[at.b+1] - r.seqs.k[at.b])
}

func (r *sumsRun) joinTask(worker, task int) {
	r.work[worker].phi.pace.begin(&r.workers)
	r.op.form.join(r, &r.work[worker], task/r.op.kvHeads, task%r.op.kvHeads)
}

// matrix returns a matrix of a key head of a sequence of the wave.
func (r *sumsRun) matrix(wave, head, i int) *kernel.Matrix {
	return &r.matrices[(wave*r.op.kvHeads+head)*r.op.matrices+i]
}

func (r *sumsRun) vector(wave, head int) []float32 {
	return r.vectors[(wave*r.op.kvHeads+head)*r.op.vector:][:r.op.vector]
}

func (r *sumsRun) applyTask(worker, task int) {
	s := r.op
	r.work[worker].phi.pace.begin(&r.workers)
	set, task := s.set(task%s.sets()), task/s.sets()
	at := r.stretchOf(func(w *stretch) int { return w.blocks }, task)
	from := r.seqs.q[at.b] + (task-at.blocks)*blockRows
	wave := at.b - r.wave[0].b
	s.form.apply(r, &r.work[worker], wave, from, min(from+blockRows, r.seqs.q[at.b+1]), set)
}

// gather notes the keys from up to to that are seen.
func (w *workspace) gather(r *sumsRun, from, to int) {
	w.rows = w.rows[:0]
	for j := from; j < to; j++ {
		if r.call.seen(j) {
			w.rows = append(w.rows, j)
		}
	}
}

// all tells whether the keys gathered stand in one stretch.
func (w *workspace) all() bool {
	return len(w.rows) > 0 && w.rows[len(w.rows)-1]-w.rows[0] == len(w.rows)-1
}

// gathered returns the rows gathered, columns from on, of m: a part of m, or a
// copy in memory.
func (w *workspace) gathered(memory *[]float32, m blas32.General, from, cols int) blas32.General {
	m = mat.Columns(m, from, cols)
	if w.all() {
		return mat.Rows(m, w.rows[0], w.rows[0]+len(w.rows))
	}
	*memory = scratch.Floats(*memory, len(w.rows)*cols)
	c := mat.Of(*memory, len(w.rows), cols)
	for i, j := range w.rows {
		copy(mat.Row(c, i), mat.Row(m, j))
	}
	return c
}

// gatheredBy is gathered for a key head, with zeros for the rows that log-weights hide from it:
// their weight is 0, and 0 times NaN is NaN.
func (w *workspace) gatheredBy(r *sumsRun, memory *[]float32, m blas32.General, head, from, cols int) blas32.General {
	if !r.call.veils() || !slices.ContainsFunc(w.rows, func(j int) bool { return r.call.logWeight(j, head) == negInf }) {
		return w.gathered(memory, m, from, cols)
	}
	m = mat.Columns(m, from, cols)
	*memory = scratch.Floats(*memory, len(w.rows)*cols)
	c := mat.Of(*memory, len(w.rows), cols)
	for i, j := range w.rows {
		if r.call.seenBy(j, head) {
			copy(mat.Row(c, i), mat.Row(m, j))
		} else {
			clear(mat.Row(c, i))
		}
	}
	return c
}

// weights sets w.scale to the log-weights of the keys gathered, for a head.
func (w *workspace) weights(r *sumsRun, head int) []float32 {
	w.scale = scratch.Floats(w.scale, len(w.rows))
	for i, j := range w.rows {
		w.scale[i] = r.call.logWeight(j, head)
	}
	return w.scale
}

// perWeight calls f with the columns of a set in parts that have log-weights of their
// own, from and to counted in key heads.
func (r *sumsRun) perWeight(set headSet, f func(from, to int)) {
	step := set.to - set.from
	if r.call.LogWeights.Cols > 1 {
		step = 1
	}
	for h := set.from; h < set.to; h += step {
		f(h, h+step)
	}
}

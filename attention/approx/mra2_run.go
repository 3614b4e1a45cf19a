package approx

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/topk"
)

const (
	meanBlocks = 8       // blocks whose means are a task
	mraRows    = 8       // blocks of queries that are a task of attending
	lowScores  = 1 << 18 // of low that a head computes between looks at the context, or a row
	waveBlocks = 1 << 10 // blocks of the sequences that are done together, about
)

// mraRun is one call, and the memory that calls share. Blocks of the sequences of a wave stand
// one after the other; a unit is one head of one sequence of the wave.
type mraRun struct {
	op      *MRA2
	call    request
	seqs    sequences
	workers parallel.Group

	wave    []mraSequence
	blocks  int            // of the wave
	row     int            // the first block of queries of each sequence that is compared now
	rows    int            // and how many are
	q, k, v blas32.General // [blocks, H D], [blocks, G D] and [blocks, G Dv] means
	memory  [3][]float32   // of q, k and v
	queries []int          // [blocks] queries that are there
	counts  []float32      // [G, blocks] keys that are seen
	bias    []float32      // [G, blocks] the logarithm of their mean weight, -Inf without keys
	packed  []mraPacked    // [sequences, G]
	choices []mraChoice    // of each unit
	work    []mraWork      // of each worker

	mean, pack, compare, settle, attend func(worker, task int)
}

// mraSequence is a sequence of the wave.
type mraSequence struct {
	b      int // the sequence
	first  int // its first block
	blocks int // how many it has
	means  int // its first task of means
	tasks  int // its first task of attending
}

// mraPacked is the means of keys and values of a key head, as they are multiplied by.
type mraPacked struct{ k, v kernel.Matrix }

// mraChoice is the pairs of a unit.
type mraChoice struct {
	stream topk.Stream
	pairs  []int32 // x blocks + y, ascending
	starts []int32 // [blocks+1] where those of each x begin
	lost   []bool  // [blocks] whether low[x] has NaN or Inf in it, by which nothing can be chosen
}

// mraWork is what each worker has for itself.
type mraWork struct {
	pace   pace
	low    []float32 // [rows, blocks]
	coarse []float32 // [mraRows, Dv] what a block of queries has of the pairs that are not exact
	den    []float32 // [mraRows] the sum of their weights
	top    []float32 // [mraRows] the largest of low
	exact  mraExact
}

// solve runs a call: some sequences together, many or long ones one after the other.
func (r *mraRun) solve(ctx context.Context, m *MRA2, call request) error {
	defer func() { r.call, r.seqs = request{}, sequences{} }()
	r.op, r.call = m, call
	if err := r.call.check(&m.shape); err != nil {
		return err
	}
	if err := r.seqs.lay(&r.call, true); err != nil {
		return err
	}
	for b := range r.seqs.count() {
		if n := m.blocks(r.seqs.q[b+1] - r.seqs.q[b]); n > maxBlocks {
			return check.Errorf(ErrShape, "approx: sequence %d has %d blocks of %d tokens, want at most %d", b, n, m.cfg.Block, maxBlocks)
		}
	}
	if r.mean == nil {
		r.mean, r.pack, r.compare, r.settle, r.attend = r.meanTask, r.packTask, r.compareTask, r.settleTask, r.attendTask
	}
	r.wave, r.blocks = r.wave[:0], 0
	for b := range r.seqs.count() {
		n := m.blocks(r.seqs.q[b+1] - r.seqs.q[b])
		if len(r.wave) > 0 && r.blocks+n > waveBlocks {
			if err := r.flush(ctx); err != nil {
				return err
			}
		}
		r.wave = append(r.wave, mraSequence{b: b, first: r.blocks, blocks: n})
		r.blocks += n
	}
	return r.flush(ctx)
}

// flush does the sequences of the wave, and empties it.
func (r *mraRun) flush(ctx context.Context) error {
	m, s := r.op, &r.op.shape
	of := func(i, cols int) blas32.General {
		r.memory[i] = scratch.Floats(r.memory[i], r.blocks*cols)
		return mat.Of(r.memory[i], r.blocks, cols)
	}
	r.q, r.k, r.v = of(0, s.heads*s.dim), of(1, s.kvHeads*s.dim), of(2, s.kvHeads*s.valueDim)
	r.queries = scratch.Sized(r.queries, r.blocks)
	r.counts, r.bias = scratch.Floats(r.counts, r.blocks*s.kvHeads), scratch.Floats(r.bias, r.blocks*s.kvHeads)
	for len(r.packed) < len(r.wave)*s.kvHeads {
		r.packed = append(r.packed, mraPacked{})
	}
	for len(r.choices) < len(r.wave)*s.heads {
		r.choices = append(r.choices, mraChoice{})
	}
	means, tasks, longest := 0, 0, 0
	var work int64
	for i := range r.wave {
		at := &r.wave[i]
		at.means, at.tasks = means, tasks
		means += (at.blocks + meanBlocks - 1) / meanBlocks
		tasks += (at.blocks + mraRows - 1) / mraRows * s.heads
		longest = max(longest, at.blocks)
		work += int64(m.pairs(at.blocks))*int64(m.cfg.Block)*int64(m.cfg.Block) + int64(at.blocks)*int64(at.blocks)
		for h := range s.heads {
			r.choices[i*s.heads+h].stream.Reset(m.pairs(at.blocks))
		}
	}
	workers := 1
	if work*int64(s.heads)*int64(s.dim+s.valueDim) > aloneWork {
		workers = parallel.Choose(m.cfg.Workers, r.call.Workers)
	}
	for len(r.work) < workers {
		r.work = append(r.work, mraWork{})
	}
	err := r.workers.RunAs(ctx, "approx", workers, means, r.mean)
	if err == nil {
		err = r.workers.RunAs(ctx, "approx", workers, len(r.wave)*s.kvHeads, r.pack)
	}
	r.rows = max(1, lowScores/max(longest, 1))
	for r.row = 0; err == nil && r.row < longest; r.row += r.rows {
		err = r.workers.RunAs(ctx, "approx", workers, len(r.wave)*s.heads, r.compare)
	}
	if err == nil {
		err = r.workers.RunAs(ctx, "approx", workers, len(r.wave)*s.heads, r.settle)
	}
	if err == nil {
		err = r.workers.RunAs(ctx, "approx", workers, tasks, r.attend)
	}
	r.wave, r.blocks = r.wave[:0], 0
	return err
}

// sequenceOf returns the sequence of the wave that a task belongs to.
func (r *mraRun) sequenceOf(task int, start func(*mraSequence) int) (wave int) {
	return parallel.Find(len(r.wave), task, func(i int) int { return start(&r.wave[i]) })
}

// tokens are those of a block of a sequence.
func (r *mraRun) tokens(at *mraSequence, block int) (from, to int) {
	from = r.seqs.q[at.b] + block*r.op.cfg.Block
	return from, min(from+r.op.cfg.Block, r.seqs.q[at.b+1])
}

// there tells whether a token is no padding.
func (r *mraRun) there(j int) bool { return r.call.Valid == nil || r.call.Valid[j] }

// meanTask makes the means of some blocks, for all heads.
func (r *mraRun) meanTask(worker, task int) {
	p := &r.work[worker].pace
	p.begin(&r.workers)
	at := &r.wave[r.sequenceOf(task, func(s *mraSequence) int { return s.means })]
	first := (task - at.means) * meanBlocks
	step := r.op.shape.kvHeads // key heads that have the same weights
	if r.call.LogWeights.Cols > 1 {
		step = 1
	}
	for block := first; block < min(first+meanBlocks, at.blocks); block++ {
		for g := 0; g < r.op.shape.kvHeads; g += step {
			if p.stop(elsewhere * r.op.cfg.Block * step * (r.op.shape.dim*(r.op.shape.group()+1) + r.op.shape.valueDim)) {
				return
			}
			r.blockMean(at, block, g, g+step)
		}
	}
}

// blockMean makes the means of a block, for key heads of the same weights.
func (r *mraRun) blockMean(at *mraSequence, block, g, end int) {
	s := &r.op.shape
	from, to := r.tokens(at, block)
	heads, row := end-g, at.first+block
	q := mat.Part(r.q, row, g*s.group()*s.dim, heads*s.group()*s.dim)
	k, v := mat.Part(r.k, row, g*s.dim, heads*s.dim), mat.Part(r.v, row, g*s.valueDim, heads*s.valueDim)
	clear(q)
	clear(k)
	clear(v)
	logWeight := func(j int) float32 {
		if !r.call.weighted() {
			return 0
		}
		return r.call.logWeight(j, g)
	}
	top, there, seen := negInf, 0, 0
	for j := from; j < to; j++ {
		if !r.there(j) {
			continue
		}
		there++
		if w := logWeight(j); w != negInf {
			top = max(top, w) // so that no weight overflows
			seen++
		}
	}
	total := float32(0)
	for j := from; j < to; j++ {
		if !r.there(j) {
			continue
		}
		weight := float32(1)
		if seen > 0 { // otherwise queries count alike
			if weight = float32(math.Exp(float64(logWeight(j) - top))); weight == 0 {
				continue
			}
			asm.Axpy(k, weight, mat.Part(r.call.K, j, g*s.dim, len(k)))
			asm.Axpy(v, weight, mat.Part(r.call.V, j, g*s.valueDim, len(v)))
		}
		total += weight
		asm.Axpy(q, weight, mat.Part(r.call.Q, j, g*s.group()*s.dim, len(q)))
	}
	if total != 0 {
		for _, mean := range [...][]float32{q, k, v} {
			asm.Scale(mean, 1/total, mean)
		}
	}
	bias := negInf
	if seen > 0 {
		bias = top + float32(math.Log(float64(total)/float64(seen)))
	}
	r.queries[row] = there
	for ; g < end; g++ {
		r.counts[g*r.blocks+row], r.bias[g*r.blocks+row] = float32(seen), bias
	}
}

// packTask packs the means of keys and values of a key head.
func (r *mraRun) packTask(_, task int) {
	s := &r.op.shape
	at, g := &r.wave[task/s.kvHeads], task%s.kvHeads
	rows := func(m blas32.General, dim int) blas32.General {
		return mat.Columns(mat.Rows(m, at.first, at.first+at.blocks), g*dim, dim)
	}
	r.packed[task].k.SetT(rows(r.k, s.dim))
	if !r.op.cfg.Sparse {
		r.packed[task].v.Set(rows(r.v, s.valueDim))
	}
}

// coarse returns low of some blocks of queries [to-from, blocks].
func (r *mraRun) coarse(w *mraWork, wave, h, from, to int) blas32.General {
	s, at := &r.op.shape, &r.wave[wave]
	g := h / s.group()
	w.low = scratch.Floats(w.low, (to-from)*at.blocks)
	low := mat.Of(w.low, to-from, at.blocks)
	w.pace.gemm(low, mat.Columns(mat.Rows(r.q, at.first+from, at.first+to), h*s.dim, s.dim), &r.packed[wave*s.kvHeads+g].k)
	for i := range low.Rows {
		row := mat.Row(low, i)
		asm.Scale(row, r.op.cfg.Scale, row)
		asm.Add(row, row, r.biasOf(at, g))
	}
	return low
}

// biasOf and countsOf are those of a sequence's blocks.
func (r *mraRun) biasOf(at *mraSequence, g int) []float32 {
	return r.bias[g*r.blocks+at.first:][:at.blocks]
}

func (r *mraRun) countsOf(at *mraSequence, g int) []float32 {
	return r.counts[g*r.blocks+at.first:][:at.blocks]
}

// compareTask puts the pairs of some blocks of queries to the choice of their unit.
func (r *mraRun) compareTask(worker, unit int) {
	wave, h := unit/r.op.shape.heads, unit%r.op.shape.heads
	at, from := &r.wave[wave], r.row
	to := min(from+r.rows, at.blocks)
	if from >= to {
		return
	}
	w := &r.work[worker]
	w.pace.begin(&r.workers)
	low := r.coarse(w, wave, h, from, to)
	reach := r.op.cfg.Diagonals / 2
	w.exact.one(at.blocks)
	c := &r.choices[unit]
	c.lost = scratch.Sized(c.lost, at.blocks)
	for x := from; x < to; x++ {
		row := mat.Row(low, x-from)
		top := asm.Max(row)
		c.lost[x] = top != negInf && !finite(top)
		if top != negInf && r.queries[at.first+x] > 0 {
			asm.Axpy(row, -top, w.exact.ones[:at.blocks])
		} else {
			for y := range row {
				row[y] = negInf
			}
		}
		for y := max(0, x-reach); r.op.cfg.Diagonals > 0 && y <= min(x+reach, at.blocks-1); y++ {
			// The published code adds 5000, which leaves few bits of a float32 to tell them apart.
			// Scores are 0 or less: these become more, in the same order.
			if row[y] != negInf {
				row[y] = 1 / (1 - row[y])
			}
		}
	}
	c.stream.Push(low.Data[:low.Rows*at.blocks], from*at.blocks)
}

// settleTask ends the choice of a unit.
func (r *mraRun) settleTask(_, unit int) {
	at, c := &r.wave[unit/r.op.shape.heads], &r.choices[unit]
	pairs, scores := c.stream.Selected()
	if r.op.given != nil {
		pairs, scores = r.op.given(unit%r.op.shape.heads), nil
	}
	c.pairs, c.starts = c.pairs[:0], append(c.starts[:0], 0)
	for i, pair := range pairs {
		if scores != nil && scores[i] == negInf {
			continue // nobody is there
		}
		for int(pair)/at.blocks >= len(c.starts) {
			c.starts = append(c.starts, int32(len(c.pairs)))
		}
		c.pairs = append(c.pairs, pair)
	}
	for len(c.starts) <= at.blocks {
		c.starts = append(c.starts, int32(len(c.pairs)))
	}
}

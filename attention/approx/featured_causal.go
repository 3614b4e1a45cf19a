package approx

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

const (
	chunkRows    = 64   // tokens of a chunk
	rowsTogether = 24   // rows of a chunk that see as much of it at most, a multiple of every tier's tile
	fewRows      = 8    // tokens up to which they go one by one
	mostRows     = 8192 // tokens of a sequence between looks at the context, at the most

	togetherFloats = 1 << 22 // of sums of sequences without states that are held at a time, roughly

	// Multiply-adds, times two or so, up to which a step is a few milliseconds in any tier
	// and is not interrupted.
	inPlaceWork = 1 << 22
)

// foldTokens is after how many tokens the sums of the latest go into those of all. A
// variable for tests.
var foldTokens = 4096

// causalRun is one call of causal attention by features, and the memory that calls share.
type causalRun struct {
	op      *featured
	call    request
	seqs    sequences
	states  []*LinearState // those of the call
	batch   pack.Layout[*LinearState]
	valid   func(name string, s *LinearState) error // of batch
	offsets []int                                   // of a row for each state
	workers parallel.Group
	memory  []float32   // of the sums of sequences that have none in a state
	first   int         // the first of the sequences that are done now
	sums    [][]float32 // of each of these, as LinearState.values
	start   []int       // of each of these, the tokens that its state has seen
	folded  []int       // of each of these, as LinearState.folded, at the beginning of a pass
	next    []int       // and at its end
	pass    int         // the first row of each sequence that is done now
	tops    keyTops
	work    []causalWork

	set func(worker, task int) // setTask
}

// causalWork is what each worker has for itself; C is chunkRows and F the features of a key.
type causalWork struct {
	phi     featureWork
	k       []float32       // [C, set F] phi(k) of a chunk for a set's heads
	left    []float32       // [C, set (F+C)] phi(q) and its products with phi(k), side by side
	scale   []float32       // [C]
	value   []float32       // [Dv] of one token
	older   []float32       // [Dv] what a token reads of the sums of all
	z       []float32       // [F] of all and of the latest tokens
	nothing []float32       // [F] of 0
	keys    kernel.Matrix   // [F, C] phi(k)^T of a head, or k^T
	right   []kernel.Matrix // of each head, [F+C, Dv]: S, and a chunk's values below it
}

// causalSet is how many key heads go together: few, since sets are what workers
// share.
func (s *sums) causalSet() int { return max(1, s.perSet()/2) }

func (s *sums) causalSets() int { return (s.kvHeads + s.causalSet() - 1) / s.causalSet() }

// passRows is how many tokens of a sequence are done between looks at the context: whole
// chunks, fewer where features are many.
func (s *sums) passRows() int {
	return max(1, min(mostRows, mostRows*s.dim/s.width)/chunkRows) * chunkRows
}

// leftCols is the stride of a set's left matrices, not a large power of 2.
func (s *sums) leftCols() int { return s.causalSet()*s.group()*(s.width+chunkRows) + 16 }

func (l *featured) causalBytes() int64 {
	s := &l.sums
	d, dv := int64(max(s.width, s.dim)), int64(s.valueDim)
	set := int64(s.causalSet())
	each := chunkRows*(set*d+int64(s.leftCols())+1) + d*(chunkRows+maxPanel) + set*((d+chunkRows)*(dv+maxPanel)+16) + 3*(d+dv) + 128
	return 4*(int64(l.stateSize())+int64(parallel.Workers(s.workers))*each) + 4096
}

// recur runs a call.
func (l *featured) recur(ctx context.Context, call request) error {
	r := l.scratch.Get()
	defer l.scratch.Put(r)
	defer r.forget()
	r.op, r.call = l, call
	if err := r.call.check(&l.sums.shape); err != nil {
		return err
	}
	if err := r.takeStates(); err != nil {
		return err
	}
	if err := r.seqs.lay(&r.call, true); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.set == nil {
		r.set = r.setTask
	}
	if err := r.tops.measure(ctx, &l.sums, &r.call, r.seqs.k); err != nil {
		return err
	}
	return r.decode(ctx)
}

// forget drops what is the caller's.
func (r *causalRun) forget() {
	r.call, r.seqs = request{}, sequences{}
	clear(r.states)
	r.states = r.states[:0]
	r.batch.Clear()
	clear(r.sums)
}

// takeStates lists the states of a call, each of which may be there once.
func (r *causalRun) takeStates() error {
	call := &r.call
	if call.State == nil && call.States == nil && call.batch == nil {
		return nil
	}
	batch := pack.Batch[*LinearState]{Rows: call.Q.Rows, Offsets: call.Offsets, State: call.State, States: call.batch}
	if call.States != nil {
		for i, past := range call.States {
			st, ok := past.(*LinearState)
			if !ok {
				return check.NoState[*LinearState]("approx", fmt.Sprintf("States[%d]", i), past)
			}
			r.states = append(r.states, st)
		}
		batch.States = r.states[:len(call.States):len(call.States)]
		if batch.States == nil {
			batch.States = []*LinearState{}
		}
	}
	if r.valid == nil {
		r.valid = func(name string, s *LinearState) error { return r.op.checkState(name, s) }
	}
	if err := r.batch.Lay("approx", batch, r.valid); err != nil {
		return err
	}
	for i, s := range r.batch.States {
		if rows := r.batch.Segments[i].To - r.batch.Segments[i].From; s.n > maxLen-rows {
			return check.Errorf(ErrFull, "approx: a state has seen %d tokens, want at most %d with %d more", s.n, int64(maxLen), rows)
		}
	}
	if call.Offsets == nil && batch.States != nil {
		r.offsets = r.offsets[:0]
		for i := range len(batch.States) + 1 {
			r.offsets = append(r.offsets, i)
		}
		call.Offsets = r.offsets
	}
	return nil
}

// decode takes the sequences through their tokens. Where little is to be done it works in
// the states themselves and to its end, so that no state is copied for a token; else in a
// copy, so that a done context leaves the states as they were.
func (r *causalRun) decode(ctx context.Context) error {
	s, states := &r.op.sums, r.batch.States
	longest := 0
	for b := range r.seqs.count() {
		longest = max(longest, r.seqs.q[b+1]-r.seqs.q[b])
	}
	work := int64(r.call.Q.Rows) * int64(s.heads*s.width) * int64(s.valueDim+r.op.made)
	inPlace := len(states) > 0 && work <= inPlaceWork && longest <= s.passRows()
	size := r.op.stateSize()
	workers := 1
	if work > aloneWork {
		workers = parallel.Choose(s.workers, r.call.Workers)
	}
	for len(r.work) < workers {
		r.work = append(r.work, causalWork{})
	}
	if inPlace {
		ctx = context.Background()
	}
	all, together := r.seqs.count(), r.seqs.count()
	if len(states) == 0 { // nobody sees the sums afterwards: of many short sequences not all are held
		together = max(togetherFloats/size, workers, 1)
	}
	for r.first = 0; r.first < all; r.first += together {
		if err := r.decodeSome(ctx, min(r.first+together, all), size, workers, inPlace); err != nil {
			return err
		}
	}
	for b, state := range states {
		if !inPlace {
			copy(state.values, r.sums[b])
		}
		state.folded = r.folded[b]
		state.advance(r.seqs.q[b+1] - r.seqs.q[b])
	}
	return nil
}

// decodeSome takes the sequences from r.first up to another through their tokens.
func (r *causalRun) decodeSome(ctx context.Context, to, size, workers int, inPlace bool) error {
	s, states := &r.op.sums, r.batch.States
	longest, copied := 0, 0
	if !inPlace {
		r.memory = scratch.Floats(r.memory, (to-r.first)*size)
	}
	r.sums, r.start, r.folded = r.sums[:0], r.start[:0], r.folded[:0]
	for b := r.first; b < to; b++ {
		longest = max(longest, r.seqs.q[b+1]-r.seqs.q[b])
		if len(states) > 0 {
			r.start, r.folded = append(r.start, states[b].n), append(r.folded, states[b].folded)
		} else {
			r.start, r.folded = append(r.start, 0), append(r.folded, 0)
		}
		if inPlace {
			r.sums = append(r.sums, states[b].values)
			continue
		}
		if copied += size; copied >= lookWork {
			if err := ctx.Err(); err != nil {
				return err
			}
			copied = 0
		}
		own := r.memory[(b-r.first)*size:][:size]
		if len(states) > 0 {
			copy(own, states[b].values)
		} else {
			clear(own)
		}
		r.sums = append(r.sums, own)
	}
	for r.pass = 0; r.pass < longest; r.pass += s.passRows() {
		r.next = append(r.next[:0], r.folded...)
		if err := r.workers.RunAs(ctx, "approx", workers, (to-r.first)*s.causalSets(), r.set); err != nil {
			return err
		}
		copy(r.folded, r.next)
	}
	return nil
}

// setTask takes a set of key heads of one sequence through the rows of the pass.
func (r *causalRun) setTask(worker, task int) {
	s, w := &r.op.sums, &r.work[worker]
	w.phi.pace.begin(&r.workers)
	slot, first := task/s.causalSets(), task%s.causalSets()*s.causalSet()
	b := r.first + slot
	set := headSet{first, min(first+s.causalSet(), s.kvHeads)}
	from := r.seqs.q[b] + r.pass
	to := min(from+s.passRows(), r.seqs.q[b+1])
	if from >= to {
		return
	}
	own := r.op.split(r.sums[slot])
	w.k, w.left = scratch.Floats(w.k, chunkRows*s.causalSet()*s.width), scratch.Floats(w.left, chunkRows*s.leftCols())
	w.scale, w.value = scratch.Floats(w.scale, chunkRows), scratch.Floats(w.value, s.valueDim)
	w.older, w.z = scratch.Floats(w.older, s.valueDim), scratch.Floats(w.z, s.width)
	position, folded := r.start[slot]-r.seqs.q[b], r.folded[slot]
	one, step := to-from <= fewRows, chunkRows
	if one {
		step = 1
	} else {
		for len(w.right) < s.causalSet() {
			w.right = append(w.right, kernel.Matrix{})
		}
		for h := range set.to - set.from {
			w.right[h].Reshape(s.width+chunkRows, s.valueDim)
		}
	}
	inPanels := false // whether the sums of the latest tokens stand where they are multiplied by
	for ; from < to && !w.phi.pace.stopped; from += step {
		if position+from-folded >= foldTokens {
			if inPanels {
				w.states(s, set, own.latest, func(state, panel blas32.General) { mat.Copy(state, panel) })
				inPanels = false
			}
			own.fold(set.from*s.part, set.to*s.part)
			folded = position + from
		}
		if one {
			w.token(r, set, from, own, folded > 0)
			continue
		}
		if folded == 0 && !inPanels {
			w.states(s, set, own.latest, func(state, panel blas32.General) { mat.Copy(panel, state) })
			inPanels = true
		}
		w.chunk(r, set, from, min(from+step, to), own, folded > 0)
	}
	if inPanels {
		w.states(s, set, own.latest, func(state, panel blas32.General) { mat.Copy(state, panel) })
	}
	if set.from == 0 {
		r.next[slot] = folded
	}
}

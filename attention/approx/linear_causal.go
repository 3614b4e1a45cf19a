package approx

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

const (
	chunkRows    = 64   // tokens of a chunk
	rowsTogether = 24   // rows of a chunk that see as much of it, a multiple of every tier's tile
	fewRows      = 8    // tokens up to which they go one by one
	passRows     = 8192 // tokens of a sequence between looks at the context

	// Multiply-adds, times two or so, up to which a step is a few milliseconds in any tier
	// and is not interrupted.
	inPlaceWork = 1 << 22
)

// foldTokens is after how many tokens the sums of the latest go into those of all. A
// variable for tests.
var foldTokens = 4096

// causalRun is one call of a causal Linear, and the memory that calls share.
type causalRun struct {
	op      *Linear
	call    request
	seqs    sequences
	states  []*LinearState // those of the call
	batch   pack.Layout[*LinearState]
	valid   func(name string, s *LinearState) error // of batch
	offsets []int                                   // of a row for each state
	workers parallel.Group
	memory  []float32   // of the sums of sequences that have none in a state
	sums    [][]float32 // of each sequence, as LinearState.values
	start   []int       // of each sequence, the tokens that its state has seen
	folded  []int       // of each sequence, as LinearState.folded, at the beginning of a pass
	next    []int       // and at its end
	pass    int         // the first row of each sequence that is done now
	work    []causalWork

	set func(worker, task int) // setTask
}

// causalWork is what each worker has for itself; C is chunkRows.
type causalWork struct {
	k       []float32       // [C, set D] phi(k) of a chunk for a set's heads
	left    []float32       // [C, set (D+C)] phi(q) and its products with phi(k), side by side
	scale   []float32       // [C]
	value   []float32       // [Dv] of one token
	older   []float32       // [Dv] what a token reads of the sums of all
	z       []float32       // [D] of all and of the latest tokens
	nothing []float32       // [D] of 0
	keys    kernel.Matrix   // [D, C] phi(k)^T of a head
	right   []kernel.Matrix // of each head, [D+C, Dv]: S, and a chunk's values below it
}

// causalSet is how many key heads go together: few, since sets are what workers
// share.
func (s *sums) causalSet() int { return max(1, s.perSet()/2) }

func (s *sums) causalSets() int { return (s.kvHeads + s.causalSet() - 1) / s.causalSet() }

// leftCols is the stride of a set's left matrices, not a large power of 2.
func (s *sums) leftCols() int { return s.causalSet()*s.group()*(s.dim+chunkRows) + 16 }

func (l *Linear) causalBytes() int64 {
	s := &l.sums
	d, dv := int64(s.dim), int64(s.valueDim)
	set := int64(s.causalSet())
	each := chunkRows*(set*d+int64(s.leftCols())+1) + d*(chunkRows+maxPanel) + set*((d+chunkRows)*(dv+maxPanel)+16) + 3*(d+dv) + 128
	return 4*(int64(l.stateSize())+int64(parallel.Workers(s.workers))*each) + 4096
}

// recur runs a call.
func (l *Linear) recur(ctx context.Context, call request) error {
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
	work := int64(r.call.Q.Rows) * int64(s.heads*s.dim) * int64(s.valueDim)
	inPlace := len(states) > 0 && work <= inPlaceWork && longest <= passRows
	size := r.op.stateSize()
	if inPlace {
		ctx = context.Background()
	} else {
		r.memory = scratch.Floats(r.memory, r.seqs.count()*size)
	}
	r.sums, r.start, r.folded = r.sums[:0], r.start[:0], r.folded[:0]
	for b := range r.seqs.count() {
		if len(states) > 0 {
			r.start, r.folded = append(r.start, states[b].n), append(r.folded, states[b].folded)
		} else {
			r.start, r.folded = append(r.start, 0), append(r.folded, 0)
		}
		if inPlace {
			r.sums = append(r.sums, states[b].values)
			continue
		}
		own := r.memory[b*size:][:size]
		if len(states) > 0 {
			copy(own, states[b].values)
		} else {
			clear(own)
		}
		r.sums = append(r.sums, own)
	}
	workers := 1
	if work > aloneWork {
		workers = parallel.Choose(s.workers, r.call.Workers)
	}
	for len(r.work) < workers {
		r.work = append(r.work, causalWork{})
	}
	for r.pass = 0; r.pass < longest; r.pass += passRows {
		r.next = append(r.next[:0], r.folded...)
		if err := r.workers.RunAs(ctx, "approx", workers, r.seqs.count()*s.causalSets(), r.set); err != nil {
			return err
		}
		copy(r.folded, r.next)
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

// setTask takes a set of key heads of one sequence through the rows of the pass.
func (r *causalRun) setTask(worker, task int) {
	s, w := &r.op.sums, &r.work[worker]
	b, first := task/s.causalSets(), task%s.causalSets()*s.causalSet()
	set := headSet{first, min(first+s.causalSet(), s.kvHeads)}
	from := r.seqs.q[b] + r.pass
	to := min(from+passRows, r.seqs.q[b+1])
	if from >= to {
		return
	}
	own := r.op.split(r.sums[b])
	w.k, w.left = scratch.Floats(w.k, chunkRows*s.causalSet()*s.dim), scratch.Floats(w.left, chunkRows*s.leftCols())
	w.scale, w.value = scratch.Floats(w.scale, chunkRows), scratch.Floats(w.value, s.valueDim)
	w.older, w.z = scratch.Floats(w.older, s.valueDim), scratch.Floats(w.z, s.dim)
	position, folded := r.start[b]-r.seqs.q[b], r.folded[b]
	one, step := to-from <= fewRows, chunkRows
	if one {
		step = 1
	} else {
		for len(w.right) < s.causalSet() {
			w.right = append(w.right, kernel.Matrix{})
		}
		for h := range set.to - set.from {
			w.right[h].Reshape(s.dim+chunkRows, s.valueDim)
		}
	}
	inPanels := false // whether the sums of the latest tokens stand where they are multiplied by
	for ; from < to; from += step {
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
		r.next[b] = folded
	}
}

// states calls f with the S of each head of a set, panel by panel, as it is kept
// and as it is multiplied by.
func (w *causalWork) states(s *sums, set headSet, values []float32, f func(state, panel blas32.General)) {
	for g := set.from; g < set.to; g++ {
		w.panels(s, set, g, values, f)
	}
}

// panels is states for one head.
func (w *causalWork) panels(s *sums, set headSet, g int, values []float32, f func(state, panel blas32.General)) {
	state := mat.Of(values[g*s.part:], s.dim, s.valueDim)
	for j := range s.panels() {
		panel := mat.Rows(w.right[g-set.from].Panel(j), 0, s.dim)
		f(mat.Columns(state, j*kernel.PanelCols(), panel.Cols), panel)
	}
}

func (s *sums) panels() int { return (s.valueDim + kernel.PanelCols() - 1) / kernel.PanelCols() }

// features sets w.k to s phi(k) of the rows, 0 where they are hidden.
func (w *causalWork) features(r *causalRun, set headSet, from, to int) blas32.General {
	d := r.op.sums.dim
	e := mat.Of(w.k, to-from, (set.to-set.from)*d)
	for i := range e.Rows {
		if !r.call.seen(from + i) {
			clear(mat.Row(e, i))
			continue
		}
		asm.ELUPlusOne(mat.Row(e, i), mat.Row(r.call.K, from+i)[set.from*d:][:e.Cols])
	}
	for g := set.from; r.call.weighted() && g < set.to; g++ {
		s := w.scale[:e.Rows]
		for i := range s {
			s[i] = 0
			if r.call.seen(from + i) {
				s[i] = r.call.logWeight(from+i, g)
			}
		}
		asm.Exp(s, s)
		own := mat.Columns(e, (g-set.from)*d, d)
		kernel.ScaleRows(own, s, own)
	}
	return e
}

// token is the recurrence, one token at a time:
//
//	S = S + phi(k) v^T;  z = z + phi(k);  out = phi(q) S / (phi(q).z + eps)
//
// where S and z are, if older is set, two sums each: of the latest tokens, and of all before.
func (w *causalWork) token(r *causalRun, set headSet, t int, sums causalSums, older bool) {
	s := &r.op.sums
	d, dv := s.dim, s.valueDim
	keys := mat.Row(w.features(r, set, t, t+1), 0)
	if len(w.nothing) < d {
		w.nothing = make([]float32, d)
	}
	v, q := w.value, w.left[:d]
	for g := set.from; g < set.to; g++ {
		own, all := sums.latest[g*s.part:][:s.part], sums.all[g*s.part:][:s.part]
		state, z, k := mat.Of(own, d, dv), own[d*dv:], keys[(g-set.from)*d:][:d]
		clear(v)
		if r.call.seen(t) {
			copy(v, mat.Row(r.call.V, t)[g*dv:])
		}
		asm.Add(z, z, k)
		for h := g * s.group(); h < (g+1)*s.group(); h++ {
			asm.ELUPlusOne(q, mat.Row(r.call.Q, t)[h*d:][:d])
			out := mat.Row(r.call.Dst, t)[h*dv:][:dv]
			kernel.OuterStep(out, state, 1, k, q, v)
			below := asm.Dot(q, z)
			if older {
				kernel.Combine(w.older, mat.Of(all, d, dv), q)
				asm.Add(out, out, w.older)
				below += asm.Dot(q, all[d*dv:])
			}
			asm.Scale(out, 1/(below+r.op.cfg.Eps), out)
			k = w.nothing[:d] // it has been taken up
		}
	}
}

// chunk computes a chunk by matrix products:
//
//	out = [phi(q) | tril(phi(q) phi(k)^T)] [S; v] / (phi(q).z + sum over j <= i of phi(q[i]).phi(k[j]) + eps)
//	S = S + phi(k)^T v;  z = z + sum over j of phi(k[j])
//
// If older is set, S and z are read with what earlier tokens have left, and added to without.
func (w *causalWork) chunk(r *causalRun, set headSet, from, to int, sums causalSums, older bool) {
	s := &r.op.sums
	n, d, dv, group, width := to-from, s.dim, s.valueDim, s.group(), kernel.PanelCols()
	keys := w.features(r, set, from, to)
	wide := blas32.General{Rows: n, Cols: s.leftCols(), Stride: s.leftCols(), Data: w.left}
	for i := range n {
		q := mat.Row(r.call.Q, from+i)
		for h := range (set.to - set.from) * group {
			asm.ELUPlusOne(mat.Row(wide, i)[h*(d+chunkRows):][:d], q[(set.from*group+h)*d:][:d])
		}
	}
	for g := set.from; g < set.to; g++ {
		k, right := mat.Columns(keys, (g-set.from)*d, d), &w.right[g-set.from]
		latest, all := sums.latest[g*s.part:][:s.part], sums.all[g*s.part:][:s.part]
		z, zRead := latest[d*dv:], latest[d*dv:]
		if older {
			zRead = w.z
			asm.Add(zRead, z, all[d*dv:])
			at := mat.Of(all, d, dv)
			w.panels(s, set, g, sums.latest, func(state, panel blas32.General) {
				for i := range d {
					asm.Add(mat.Row(panel, i), mat.Row(state, i), mat.Row(at, i)[:panel.Cols])
				}
				at.Data = at.Data[min(kernel.PanelCols(), len(at.Data)):]
			})
		}
		w.keys.SetT(k) // [D, n]
		for j := range s.panels() {
			below := mat.Rows(right.Panel(j), d, d+n)
			v := mat.Columns(mat.Rows(r.call.V, from, to), g*dv+j*width, below.Cols)
			for i := range n {
				if r.call.seen(from + i) {
					copy(mat.Row(below, i), mat.Row(v, i))
				} else {
					clear(mat.Row(below, i))
				}
			}
		}
		for h := g * group; h < (g+1)*group; h++ {
			left := mat.Columns(wide, (h-set.from*group)*(d+chunkRows), d+n)
			q, products := mat.Columns(left, 0, d), mat.Columns(left, d, n)
			kernel.Gemm(products, q, &w.keys, nil)
			for i := range n {
				p := mat.Row(products, i)
				clear(p[i+1:])
				w.scale[i] = 1 / (asm.Dot(mat.Row(q, i), zRead) + asm.Sum(p[:i+1]) + r.op.cfg.Eps)
			}
			kernel.ScaleRows(left, w.scale[:n], left)
			dst := mat.Columns(mat.Rows(r.call.Dst, from, to), h*dv, dv)
			for t := 0; t < n; t += rowsTogether {
				end := min(t+rowsTogether, n)
				for j := range s.panels() {
					part := right.PanelRows(j, 0, d+end)
					_, cols := part.Dims()
					kernel.Gemm(mat.Columns(mat.Rows(dst, t, end), j*width, cols), mat.Columns(mat.Rows(left, t, end), 0, d+end), &part, nil)
				}
			}
		}
		for j := range s.panels() {
			v := right.PanelRows(j, d, d+n)
			into := mat.Rows(right.Panel(j), 0, d)
			if older {
				into = mat.Columns(mat.Of(latest, d, dv), j*width, into.Cols)
			}
			kernel.GemmTAdd(into, k, &v)
		}
		for i := range n {
			asm.Add(z, z, mat.Row(k, i))
		}
	}
}

package delta

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// work is the working memory of a call. A task takes one sequence's rows through the
// states of some key heads that stand side by side, a piece of rows after the other: what is
// read of a row is then in one place. Where there are fewer key heads than goroutines it
// takes them through some of the states of one.
type work struct {
	group    parallel.Group
	segments segments // of a call of the Recurrence itself

	op      *Recurrence
	call    Call
	list    []segment
	keys    int // key heads of a task
	parts   int // tasks of a sequence and a key head, where keys is 1
	workers []headWork
	task    func(worker, i int)
}

// headWork is the working memory of a goroutine. Matrices are [n, K] unless they say
// otherwise, of the n tokens of a piece.
type headWork struct {
	k      []float32 // keys
	q      []float32 // scaled queries of the heads that read a state, one after the other
	decay  []float32 // exp(g)
	read   []float32 // what the state in front of the decay is read with for the erasure
	ask    []float32 // and what for the output
	beta   []float32 // [n]
	by     []float32 // [n]: one over the lengths of keys or queries, times their scale
	kq, bq []float32 // [n]: k . q and, of a pair, b . q
	u      []float32 // [panelWidth]: a gated value
	own    []float32 // [heads of a task, K, V]: states that nobody keeps
	chunk  chunkWork
}

// soloWork is up to how many multiply-adds one goroutine does alone: some ten
// microseconds. Tests lower it.
var soloWork = int64(1 << 18)

// sweep takes the rows of segments through the recurrence and brings their values up to
// date.
func (s *work) sweep(ctx context.Context, op *Recurrence, call *Call, list []segment, workers int) error {
	if s.task == nil {
		s.task = s.sweepTask
	}
	s.op, s.call, s.list = op, *call, list
	defer func() { s.call, s.list = Call{}, nil }()
	if int64(call.V.Rows) <= soloWork/op.kind.Work {
		workers = 1
	}
	s.keys, s.parts = op.taskKeys(len(list), workers)
	tasks := len(list) * s.tasksOf() * s.parts
	for len(s.workers) < min(workers, tasks) {
		s.workers = append(s.workers, headWork{})
	}
	return s.group.RunAs(ctx, "delta", workers, tasks, s.task)
}

// taskBytes is how much of a processor's second cache the states of a task take, with what
// is below them in chunks. Tests change it.
var taskBytes = isa.SecondCache() / 8 * 3

// taskKeys returns how many key heads a task has, and into how many tasks a key head is cut.
func (op *Recurrence) taskKeys(sequences, workers int) (keys, parts int) {
	c := &op.cfg
	heads, all := c.Heads/c.KeyHeads, max(sequences*c.KeyHeads, 1)
	if all < workers {
		return 1, min((workers+all-1)/all, heads)
	}
	size := 4 * int64(heads) * int64(c.KeyDim+pieceTokens) * int64(c.ValueDim)
	return int(max(min(int64(taskBytes)/size, int64(c.KeyHeads), int64(all/workers)), 1)), 1
}

// tasksOf returns how many tasks of whole key heads a sequence has.
func (s *work) tasksOf() int { return (s.op.cfg.KeyHeads + s.keys - 1) / s.keys }

// sweepTask takes a sequence through some heads.
func (s *work) sweepTask(worker, i int) {
	part := i % s.parts
	i /= s.parts
	heads, g := s.op.cfg.Heads/s.op.cfg.KeyHeads, s.list[i/s.tasksOf()]
	key := i % s.tasksOf() * s.keys
	end := min(key+s.keys, s.op.cfg.KeyHeads)
	from, to := key*heads+part*heads/s.parts, (end-1)*heads+(part+1)*heads/s.parts
	if g.From == g.To || from == to {
		return
	}
	w := &s.workers[worker]
	size := s.op.cfg.KeyDim * s.op.cfg.ValueDim
	values := w.stateValues(g.Values, from*size, (to-from)*size)
	w.chunk.begin(to - from)
	for t, pos := g.From, g.Pos; t < g.To && !s.group.Stopped(); {
		n := pack.Cut(pos, g.To-t, pieceTokens)
		pos += n
		for k := key; k < end; k++ {
			p := piece{t: t, n: n, key: k, first: from, heads: to - from}
			if end-key > 1 {
				p.first, p.heads = k*heads, heads
			}
			p.before = p.first - from
			p.values = values[p.before*size:][:p.heads*size]
			if p.next = (rowsAhead{t, n, k + 1, p.first + p.heads}); k+1 == end {
				p.next = rowsAhead{t + n, min(pieceTokens, g.To-t-n), key, from}
			}
			s.sweepPiece(w, p)
			if pos%Chunk == 0 {
				w.chunk.flush(s.op, p)
			}
			if t+n == g.To {
				w.chunk.unload(s.op, p)
			}
		}
		t += n
	}
}

// sweepPiece takes a piece through the states of a key head.
func (s *work) sweepPiece(w *headWork, p piece) {
	if s.op.chunked(p.n) {
		w.sweepChunk(s.op, &s.call, p)
		return
	}
	w.sweepTokens(s.op, &s.call, p)
}

// piece is a part of a chunk that some heads with one key go through.
type piece struct {
	t, n         int // rows of the call
	key          int // the key head
	first, heads int
	before       int       // heads of the task before the first one
	values       []float32 // the heads' states
	next         rowsAhead
}

// rowsAhead are the rows that a task reads after a piece: those of a key head, and of as
// many heads from first on as the piece has.
type rowsAhead struct{ t, n, key, first int }

// stateValues returns the states of some heads.
func (w *headWork) stateValues(values []float32, from, n int) []float32 {
	if values != nil {
		return values[from:][:n]
	}
	w.own = scratch.Floats(w.own, n)
	clear(w.own)
	return w.own
}

// normalized copies n rows of a head of keys or queries, times a scale, and divides them
// by their lengths where the Config says so.
func (w *headWork) normalized(op *Recurrence, dst []float32, x blas32.General, p piece, head int, scale float32) {
	width := op.cfg.KeyDim
	w.by = scratch.Floats(w.by, p.n)
	rows := mat.Columns(mat.Rows(x, p.t, p.t+p.n), head*width, width)
	if op.cfg.Normalize {
		kernel.RowScales(w.by, scale, rows, op.cfg.NormEps)
	} else {
		fill(w.by, scale)
	}
	kernel.ScaleRows(mat.Of(dst, p.n, width), w.by, rows)
}

// queryHead returns the first query head that reads state h.
func (op *Recurrence) queryHead(h int) int {
	if op.cfg.QueryHeads >= op.cfg.Heads {
		return h * op.each
	}
	return h / (op.cfg.Heads / op.cfg.QueryHeads)
}

// betas sets w.beta to the betas of head h.
func (w *headWork) betas(op *Recurrence, call *Call, p piece, h int) {
	w.beta = scratch.Floats(w.beta, p.n)
	for t := range p.n {
		switch {
		case !mat.Given(call.Beta):
			w.beta[t] = 1
		case call.Beta.Cols == 1:
			w.beta[t] = mat.Row(call.Beta, p.t+t)[0]
		default:
			w.beta[t] = mat.Row(call.Beta, p.t+t)[h]
		}
	}
}

// decays sets w.decay to exp(g) of head h, for each key channel.
func (w *headWork) decays(op *Recurrence, call *Call, p piece, h int) {
	width := op.cfg.KeyDim
	w.decay = scratch.Floats(w.decay, p.n*width)
	for t := range p.n {
		row := w.decay[t*width:][:width]
		if op.cfg.Decay == KeyDecay {
			copy(row, mat.Part(call.Decay, p.t+t, h*width, width))
			continue
		}
		by := float32(1)
		switch op.cfg.Decay {
		case ConstantDecay:
			by = float32(math.Exp(float64(op.cfg.LogDecay[h])))
		case HeadDecay:
			by = float32(math.Exp(float64(mat.Row(call.Decay, p.t+t)[h])))
		}
		fill(row, by)
	}
	if op.cfg.Decay == KeyDecay {
		asm.Exp(w.decay, w.decay)
	}
	kernel.Flush(w.decay) // subnormal numbers take many times as long to multiply
}

// eraser returns row t of what the state of head h is read with for the erasure, in front
// of any decay; dst is memory for it.
func (w *headWork) eraser(op *Recurrence, call *Call, p piece, h, t int, dst []float32) []float32 {
	width := op.cfg.KeyDim
	k := w.k[t*width:][:width]
	switch op.cfg.Erase {
	case EraseKey:
		return k
	case EraseGated:
		asm.Mul(dst, k, mat.Part(call.Erase, p.t+t, h*width, width))
		return dst
	}
	return mat.Part(call.Erase, p.t+t, h*width, width)
}

// queries sets w.q to the scaled queries that read state h, one head after the other.
func (w *headWork) queries(op *Recurrence, call *Call, p piece, h int) {
	size := p.n * op.cfg.KeyDim
	w.q = scratch.Floats(w.q, op.each*size)
	for j := range op.each {
		w.normalized(op, w.q[j*size:][:size], call.Q, p, op.queryHead(h)+j, op.cfg.Scale)
	}
}

// readings sets w.read to what the state of head h in front of the decays is read with for
// the erasure, of all tokens of a piece.
func (w *headWork) readings(op *Recurrence, call *Call, p piece, h int) {
	switch {
	case op.cfg.Erase == NoErase:
		clear(w.read)
		return
	case op.cfg.Erase == EraseKey:
		copy(w.read, w.k)
	default:
		width := op.cfg.KeyDim
		for t := range p.n {
			row := w.read[t*width:][:width]
			if e := w.eraser(op, call, p, h, t, row); &e[0] != &row[0] {
				copy(row, e)
			}
		}
	}
	if !op.cfg.EraseFirst {
		asm.Mul(w.read, w.read, w.decay)
	}
}

// sweepTokens takes a piece through the recurrence, token by token.
func (w *headWork) sweepTokens(op *Recurrence, call *Call, p piece) {
	w.k = scratch.Floats(w.k, p.n*op.cfg.KeyDim)
	w.normalized(op, w.k, call.K, p, p.key, 1)
	for i := range p.heads {
		h := p.first + i
		w.betas(op, call, p, h)
		w.queries(op, call, p, h)
		w.sweepHead(op, call, p, i)
	}
}

// sweepHead takes a head of a piece through the recurrence, token by token. With p what the
// state is read with for the erasure, times exp(g) unless EraseFirst, and P the old state,
//
//	r = P^T p;  u = beta (v - r);  S = Diag(exp g) P + k u^T
//	y = S^T q = P^T (exp(g) q) + (k . q) u
//
// so that a state is read once and written once. Of a pair u is v, and b r^T is written,
// too.
func (w *headWork) sweepHead(op *Recurrence, call *Call, p piece, i int) {
	n, width, h := p.n, op.cfg.KeyDim, p.first+i
	w.chunk.unloadHead(op, p, i)
	w.kq, w.bq = scratch.Floats(w.kq, n), scratch.Floats(w.bq, n)
	w.read, w.ask = scratch.Floats(w.read, n*width), scratch.Floats(w.ask, n*width)
	w.decays(op, call, p, h)
	w.readings(op, call, p, h)
	asm.Mul(w.ask, w.q[:n*width], w.decay)
	for t := range n {
		q := w.q[t*width:][:width]
		w.kq[t] = asm.Dot(w.k[t*width:][:width], q)
		if op.cfg.Erase == ErasePair {
			w.bq[t] = asm.Dot(mat.Part(call.Insert, p.t+t, h*width, width), q)
		}
	}
	rows := func(x []float32) blas32.General { return mat.Of(x, n, width) }
	steps := kernel.DeltaSteps{Read: rows(w.read), Ask: rows(w.ask), Decay: rows(w.decay), K: rows(w.k), Beta: w.beta, KQ: w.kq, BQ: w.bq, Keep: op.cfg.Erase == NoErase}
	if op.cfg.Erase == ErasePair {
		steps.B = mat.Columns(mat.Rows(call.Insert, p.t, p.t+n), h*width, width)
	}
	for from := 0; from < op.cfg.ValueDim; from += panelWidth {
		w.prefetch(op, call, p, i, from, min(from+panelWidth, op.cfg.ValueDim), op.cfg.ValueDim)
		w.tokens(op, call, p, h, from, &steps)
	}
}

// prefetch asks for some of the rows that are next after a piece, from of steps to to of
// steps, so that they come while the piece is computed: those of one head stand far apart.
func (w *headWork) prefetch(op *Recurrence, call *Call, p piece, head, from, to, steps int) {
	k, v, h := op.cfg.KeyDim, op.cfg.ValueDim, p.next.first+head
	for t := p.next.t + p.next.n*from/steps; t < p.next.t+p.next.n*to/steps; t++ {
		kernel.Prefetch(mat.Part(call.V, t, h*v, v))
		kernel.Prefetch(mat.Part(call.Dst, t, h*op.each*v, op.each*v))
		if head == 0 {
			kernel.Prefetch(mat.Part(call.K, t, p.next.key*k, k))
			kernel.Prefetch(mat.Part(call.Q, t, op.queryHead(h)*k, op.each*k))
		}
		if op.cfg.Decay == KeyDecay {
			kernel.Prefetch(mat.Part(call.Decay, t, h*k, k))
		}
		if op.cfg.Erase >= EraseGated {
			kernel.Prefetch(mat.Part(call.Erase, t, h*k, k))
		}
		if op.cfg.Erase == ErasePair {
			kernel.Prefetch(mat.Part(call.Insert, t, h*k, k))
		}
	}
}

// tokens takes the columns from from on of a head's state through the recurrence, by steps of
// which all but the values are the same for all columns.
func (w *headWork) tokens(op *Recurrence, call *Call, p piece, h, from int, steps *kernel.DeltaSteps) {
	n, width := p.n, op.cfg.KeyDim
	s := op.panel(p.values, h-p.first, from)
	if n == 1 { // the next panel comes from memory while this one is computed
		next := (h-p.first)*width*op.cfg.ValueDim + width*from + len(s.Data)
		kernel.Prefetch(p.values[next:min(next+width*panelWidth, len(p.values))])
	}
	at := h*op.cfg.ValueDim + from
	setPart(&steps.V, &call.V, p, at, s.Cols)
	if mat.Given(call.WriteGate) {
		w.u = scratch.Floats(w.u, n*s.Cols)
		u := mat.Of(w.u, n, s.Cols)
		for t := range n {
			asm.Mul(mat.Row(u, t), mat.Row(steps.V, t), mat.Part(call.WriteGate, p.t+t, at, s.Cols))
		}
		steps.V = u
	}
	var y blas32.General
	setPart(&y, &call.Dst, p, h*op.each*op.cfg.ValueDim+from, s.Cols)
	if op.each == 1 {
		steps.Run(y, s)
		return
	}
	for t := range n { // other queries read the state after each token
		one := kernel.DeltaSteps{
			Read: mat.Rows(steps.Read, t, t+1), Ask: mat.Rows(steps.Ask, t, t+1), Decay: mat.Rows(steps.Decay, t, t+1), K: mat.Rows(steps.K, t, t+1), V: mat.Rows(steps.V, t, t+1),
			Beta: w.beta[t : t+1], KQ: w.kq[t : t+1], BQ: w.bq[t : t+1], Keep: steps.Keep,
		}
		if op.cfg.Erase == ErasePair {
			one.B = mat.Rows(steps.B, t, t+1)
		}
		one.Run(mat.Rows(y, t, t+1), s)
		for j := 1; j < op.each; j++ {
			kernel.Combine(mat.Part(call.Dst, p.t+t, (h*op.each+j)*op.cfg.ValueDim+from, s.Cols), s, w.q[(j*n+t)*width:][:width])
		}
	}
}

// setPart sets to to columns of a piece's rows of m, field by field: a matrix that is copied
// right after it was made waits for its own memory.
func setPart(to, m *blas32.General, p piece, from, cols int) {
	to.Rows, to.Cols, to.Stride = p.n, cols, m.Stride
	to.Data = m.Data[p.t*m.Stride+from:]
}

func fill(x []float32, v float32) {
	for i := range x {
		x[i] = v
	}
}

package kvcache

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// work is what a worker needs.
type work struct {
	r         *run
	key       int   // the task's key head
	near, far []Run // what its queries read of it
	pieces    []piece
	keys      []float32 // of rows that are copied, [rows][kCols]
	values    []float32
	used      int // rows of keys and values that are taken
	scores    []float32
	head      []float32 // scaled queries of a block, [rows][kCols]
	packed    []float32
	out       []float32 // [rows][vCols]
	top       []float32
	ones      []float32
	sums      []float32
}

// piece is keys and values that stand in a row, the first of them number at of a part.
type piece struct {
	k, v kernel.Strided
	at   int
}

// part is some of the tokens that the queries of a task read, all at angles of one rule.
type part struct {
	pieces  [2]int // from, to: of work.pieces
	keys    int
	weights []float32 // log-weights, or nil
	seen    seeing
	at      int // position of the first query, where it is to be turned
	turn    turning
}

// seeing says which of a part's keys a query sees.
type seeing uint8

const (
	everything seeing = iota
	causally          // all but those after itself
	nearby            // the last Recent, itself included
	farAway           // those before the last Recent
)

// sees returns which keys of a part the chunk's query i sees, from (included) to
// (excluded), by their numbers.
func (w *work) sees(p *part, i int) (from, to int) {
	r := w.r
	s, recent := r.state, r.op.cfg.Recent
	switch p.seen {
	case causally:
		return 0, p.keys - r.x + 1 + i
	case nearby:
		return max(0, s.rowsBefore(w.key, r.first+i-recent+1)-w.near[0].From), s.rowsBefore(w.key, r.first+i+1) - w.near[0].From
	case farAway:
		return 0, rowsBelow(w.far, s.rowsBefore(w.key, r.first+i-recent+1))
	}
	return 0, p.keys
}

// turning says how the queries of a part are turned.
type turning uint8

const (
	asHeld turning = iota // as they are, or were turned when they came
	along                 // each to its own position, from part.at on
	fixed                 // all to part.at
)

// inPlace is how many rows in a row are read where they stand; fewer are copied together.
const inPlace = 8

// blockRows is how many rows of queries are done together.
const blockRows = 64

func (r *run) kCols() int { return whole(r.op.cfg.HeadDim, r.op.tile.Unit()) }
func (r *run) vCols() int { return whole(r.op.cfg.ValueDim, r.op.tile.Unit()) }

func whole(n, unit int) int { return (n + unit - 1) / unit * unit }

// readChosen attends to what has been chosen.
func (r *run) readChosen(s *State) error {
	cfg := &r.op.cfg
	h := cfg.KVHeads
	r.units = h
	if !r.choice.All {
		r.units = len(r.choice.Lists)
	}
	tasks := max(r.units, h)
	for len(r.runs) < tasks {
		r.runs, r.fars = append(r.runs, nil), append(r.fars, nil)
	}
	for len(r.weights) < h {
		r.weights, r.lists = append(r.weights, nil), append(r.lists, nil)
	}
	total := int64(0)
	for i := range tasks {
		head := i * h / tasks
		r.compose(i, head)
		n := runRows(r.runs[i]) + runRows(r.fars[i])
		total += int64(n)
		if tasks == h {
			r.count(head, n, s.heads[head].Held())
		} else {
			r.countShare(head, n, s.heads[head].Held(), tasks/h)
		}
	}
	workers := r.op.workersFor(r.call.Workers, total*int64(r.x*r.op.group*(cfg.HeadDim+cfg.ValueDim)))
	for len(r.works) < workers {
		r.works = append(r.works, work{})
	}
	return r.group.RunAs(r.ctx, "kvcache", workers, tasks, r.attend)
}

// countShare is count for one of several query heads that read for themselves.
func (r *run) countShare(head, read, held, of int) {
	before := r.report.Held
	r.count(head, read, held)
	r.report.Held = before
	if of > 0 && head*of < r.op.cfg.Heads {
		r.report.Held += int64(held) / int64(of)
	}
}

// compose makes the runs of a task: what is read near, and far.
func (r *run) compose(task, head int) {
	s, cfg := r.state, &r.op.cfg
	held := s.heads[head].Held()
	near, far := r.runs[task][:0], r.fars[task][:0]
	var chosen []Run
	if !r.choice.All {
		chosen = r.choice.Lists[min(task, len(r.choice.Lists)-1)]
	}
	keep := s.rowsBefore(head, cfg.Keep)
	tail := s.rowsBefore(head, r.tail)
	if cfg.Positions.far() {
		near = append(near, Run{s.rowsBefore(head, r.first-cfg.Recent+1), held})
		end := s.rowsBefore(head, s.n-cfg.Recent)
		if r.choice.All {
			far = addRun(far, Run{0, end})
		} else {
			far = addRun(far, Run{0, min(keep, end)})
			for _, x := range chosen {
				far = addRun(far, Run{max(x.From, keep), min(x.To, tail, end)})
			}
			far = addRun(far, Run{max(keep, tail), end})
		}
	} else if r.choice.All {
		near = addRun(near, Run{0, held})
	} else {
		near = addRun(near, Run{0, keep})
		for _, x := range chosen {
			near = addRun(near, Run{max(x.From, keep), min(x.To, tail)})
		}
		near = addRun(near, Run{max(keep, tail), held})
	}
	r.runs[task], r.fars[task] = near, far
}

// addRun appends a run that comes after those of a list, unless it is empty.
func addRun(list []Run, x Run) []Run {
	if n := len(list); n > 0 {
		x.From = max(x.From, list[n-1].To)
	}
	if x.From >= x.To {
		return list
	}
	if n := len(list); n > 0 && list[n-1].To == x.From {
		list[n-1].To = x.To
		return list
	}
	return append(list, x)
}

func runRows(list []Run) (n int) {
	for _, x := range list {
		n += x.To - x.From
	}
	return n
}

// attendTask attends from the query heads of a task, those of a key head or a single one.
func (r *run) attendTask(worker, task int) {
	w := &r.works[worker]
	w.r = r
	cfg := &r.op.cfg
	tasks := max(r.units, cfg.KVHeads)
	head := task * cfg.KVHeads / tasks
	heads := cfg.Heads / tasks // query heads of the task
	first := task * heads
	near, far := r.runs[task], r.fars[task]
	turned := r.op.rotation != nil && !r.op.rotatedHeld()
	w.pieces, w.used = w.pieces[:0], 0
	rows := runRows(near) + runRows(far)
	w.keys, w.values = grown(w.keys, rows*r.kCols()), grown(w.values, rows*r.vCols())

	s := r.state
	var parts [3]part
	n := 0
	p := &parts[n]
	w.key, w.near, w.far = head, near, far
	w.take(p, head, near, turned, 0)
	p.seen = causally
	if cfg.Positions.far() {
		p.seen = nearby
		if turned {
			p.turn, p.at = along, r.first-s.position(head, near[0].From)
		}
		n++
		f := &parts[n]
		w.take(f, head, far, turned && cfg.Positions == FarInCache, -1)
		f.seen = farAway
		if turned {
			f.turn, f.at = fixed, cfg.Distance
		}
	} else if turned {
		p.turn, p.at = along, p.keys-r.x
	}
	n++
	if u := min(task, len(r.choice.Estimates)-1); u >= 0 {
		w.takeEstimate(&parts[n], &r.choice.Estimates[u])
		n++
	}
	var weights []float32
	if r.needsWeights() {
		total := 0
		for i := range parts[:n] {
			total += parts[i].keys
		}
		r.weights[head] = grown(r.weights[head], total*heads)
		weights = r.weights[head][:total*heads]
		clear(weights)
		r.lists[head] = append(append(r.lists[head][:0], near...), far...)
	}
	w.blocks(parts[:n], first, heads, weights)
}

// rowsBelow is how many rows of a list are below a row.
func rowsBelow(list []Run, row int) (n int) {
	for _, x := range list {
		n += min(max(row-x.From, 0), x.To-x.From)
	}
	return n
}

// take makes the pieces of a part of the rows of a key head. Keys that are to be turned
// are numbered: from 0 on, or where number is less than 0 from 0 on among themselves.
func (w *work) take(p *part, head int, list []Run, turn bool, number int) {
	r := w.r
	s, cfg := r.state, &r.op.cfg
	p.pieces[0], p.keys = len(w.pieces), 0
	kc, vc := r.kCols(), r.vCols()
	st := s.heads[head]
	float := st.Config().Format == asm.Float32 && kc == cfg.HeadDim && vc == cfg.ValueDim && !turn
	from := w.used
	distances, base := number == 0 && len(list) > 0 && cfg.Positions.far(), 0
	flush := func() {
		if n := w.used - from; n > 0 {
			w.pieces = append(w.pieces, piece{w.view(w.keys, from, n, kc), w.view(w.values, from, n, vc), p.keys - n})
			from = w.used
		}
	}
	if distances {
		base = s.position(head, list[0].From)
	}
	for _, x := range list {
		for row := x.From; row < x.To; {
			g, ok := st.Segment(s.position(head, row))
			if !ok {
				panic("kvcache: a row that is not held")
			}
			n := min(g.Tokens, x.To-row)
			if float && n >= inPlace {
				flush()
				k, v, _ := g.Float32()
				w.pieces = append(w.pieces, piece{strided(mat.Rows(k, 0, n)), strided(mat.Rows(v, 0, n)), p.keys})
			} else {
				k := blas32.General{Rows: n, Cols: cfg.HeadDim, Stride: kc, Data: w.keys[w.used*kc:][:n*kc]}
				v := blas32.General{Rows: n, Cols: cfg.ValueDim, Stride: vc, Data: w.values[w.used*vc:][:n*vc]}
				if kc != cfg.HeadDim {
					clear(k.Data)
				}
				if vc != cfg.ValueDim {
					clear(v.Data)
				}
				if err := g.Keys(k, 0, 0); err != nil {
					panic(err)
				}
				if err := g.Values(v, 0, 0); err != nil {
					panic(err)
				}
				if turn {
					at := p.keys
					if distances {
						at = s.position(head, row) - base
					}
					if err := r.op.rotation.Rotate(k, int64(at)); err != nil {
						panic(err)
					}
				}
				w.used += n
			}
			row += n
			p.keys += n
		}
	}
	flush()
	p.pieces[1] = len(w.pieces)
}

func (w *work) view(memory []float32, from, n, cols int) kernel.Strided {
	return kernel.Strided{Rows: n, Cols: cols, Stride: cols, Float32: memory[from*cols:][:n*cols]}
}

func strided(m blas32.General) kernel.Strided {
	return kernel.Strided{Rows: m.Rows, Cols: m.Cols, Stride: m.Stride, Float32: m.Data}
}

// takeEstimate makes a part of clusters.
func (w *work) takeEstimate(p *part, e *Estimate) {
	p.pieces[0] = len(w.pieces)
	p.keys, p.weights = e.K.Rows, e.LogWeights
	if e.K.Rows > 0 {
		w.pieces = append(w.pieces, piece{strided(e.K), strided(e.V), 0})
	}
	p.pieces[1] = len(w.pieces)
}

// blocks attends from the queries of some query heads, a block of rows at a time: one
// softmax over the keys of all parts.
func (w *work) blocks(parts []part, first, heads int, weights []float32) {
	r := w.r
	cfg := &r.op.cfg
	dv, kc, vc := cfg.ValueDim, r.kCols(), r.vCols()
	keys := 0
	for i := range parts {
		keys += parts[i].keys
	}
	stride := keys + 16
	queries := max(1, blockRows/heads)
	rows := min(queries, r.x) * heads
	w.scores, w.head, w.packed = grown(w.scores, rows*stride), scratch.Floats(w.head, rows*kc), scratch.Floats(w.packed, rows*kc)
	w.out, w.top, w.sums = scratch.Floats(w.out, rows*vc), scratch.Floats(w.top, rows), scratch.Floats(w.sums, rows)
	for len(w.ones) < rows {
		w.ones = append(w.ones, 1)
	}
	for i0 := 0; i0 < r.x; i0 += queries {
		i1 := min(i0+queries, r.x)
		rows := (i1 - i0) * heads
		s := blas32.General{Rows: rows, Cols: keys, Stride: stride, Data: w.scores}
		at := 0
		for n := range parts {
			p := &parts[n]
			if p.keys > 0 {
				w.pack(p, i0, i1, first, heads)
				for _, x := range w.pieces[p.pieces[0]:p.pieces[1]] {
					r.op.tile.Scores(mat.Columns(s, at+x.at, x.k.Rows), w.packed[:rows*kc], x.k, nil)
				}
			}
			for j := range rows {
				w.hide(p, mat.Row(s, j)[at:at+p.keys], i0+j/heads)
			}
			at += p.keys
		}
		out := blas32.General{Rows: rows, Cols: vc, Stride: vc, Data: w.out[:rows*vc]}
		clear(out.Data)
		for j := range rows {
			w.soften(mat.Row(s, j), j, first+j%heads)
		}
		at = 0
		for n := range parts {
			p := &parts[n]
			for _, x := range w.pieces[p.pieces[0]:p.pieces[1]] {
				r.op.tile.Values(out, mat.Columns(s, at+x.at, x.v.Rows), x.v, w.ones[:rows], nil)
			}
			at += p.keys
		}
		for j := range rows {
			i, h := i0+j/heads, first+j%heads
			o, sum := mat.Row(out, j)[:dv], w.sums[j]
			if !finite(o) {
				w.careful(parts, mat.Row(s, j), o)
			}
			to := mat.Part(r.dst, i, h*dv, dv)
			if sum == 0 {
				clear(to)
			} else {
				asm.Scale(to, 1/sum, o)
			}
			if r.lse.Rows > 0 {
				mat.Row(r.lse, i)[h] = w.top[j] + float32(math.Log(float64(sum)))
			}
			if weights != nil && sum > 0 {
				asm.Axpy(weights[j%heads*keys:][:keys], 1/sum, mat.Row(s, j))
			}
		}
	}
}

// pack scales, turns and packs queries i0 to i1 of some heads.
func (w *work) pack(p *part, i0, i1, first, heads int) {
	r := w.r
	cfg := &r.op.cfg
	d, kc := cfg.HeadDim, r.kCols()
	q := r.q
	if p.turn != asHeld {
		q = r.qRaw
	}
	rows := (i1 - i0) * heads
	m := blas32.General{Rows: rows, Cols: kc, Stride: kc, Data: w.head[:rows*kc]}
	if kc != d {
		clear(m.Data)
	}
	for i := i0; i < i1; i++ {
		block := blas32.General{Rows: heads, Cols: d, Stride: kc, Data: w.head[(i-i0)*heads*kc:]}
		for h := range heads {
			copy(mat.Row(block, h), mat.Part(q, i, (first+h)*d, d))
		}
		if p.turn != asHeld {
			at := p.at
			if p.turn == along {
				at += i
			}
			for h := range heads {
				if err := r.op.rotation.Rotate(mat.Rows(block, h, h+1), int64(at)); err != nil {
					panic(err)
				}
			}
		}
		for h := range heads {
			asm.Scale(mat.Row(block, h), cfg.Scale, mat.Row(block, h))
		}
	}
	r.op.tile.PackQueries(w.packed[:rows*kc], m)
}

var negInf = float32(math.Inf(-1))

// hide caps the scores of a query and sets those that it does not see to -Inf.
func (w *work) hide(p *part, s []float32, query int) {
	if c := w.r.op.cfg.Softcap; c > 0 {
		asm.Softcap(s, c, s)
	}
	for j, x := range p.weights {
		s[j] += x
	}
	from, to := w.sees(p, query)
	from, to = min(max(from, 0), len(s)), min(max(to, 0), len(s))
	for j := range s[:from] {
		s[j] = negInf
	}
	if r := w.r; r.window && p.seen == causally {
		keep := r.state.rowsBefore(w.key, r.op.cfg.Keep)
		gone := rowsBelow(w.near, r.state.rowsBefore(w.key, r.first+query-r.op.cfg.Recent+1))
		for j := keep; j < gone; j++ {
			s[j] = negInf
		}
	}
	for j := max(from, to); j < len(s); j++ {
		s[j] = negInf
	}
}

// soften makes weights, not yet divided by their sum, of the scores of a query.
func (w *work) soften(s []float32, row, head int) {
	top := negInf
	for _, x := range s {
		if x > top || x != x {
			top = x
		}
	}
	if sinks := w.r.op.cfg.Sinks; sinks != nil && sinks[head] > top {
		top = sinks[head]
	}
	if top == negInf {
		clear(s)
		w.top[row], w.sums[row] = top, 0
		return
	}
	sum := kernel.ExpSum(s, s, top)
	if sinks := w.r.op.cfg.Sinks; sinks != nil {
		sum += float32(math.Exp(float64(sinks[head] - top)))
	}
	w.top[row], w.sums[row] = top, sum
}

func finite(x []float32) bool {
	for _, v := range x {
		if v-v != 0 {
			return false
		}
	}
	return true
}

// careful makes the sum of values again, without those that have no weight.
func (w *work) careful(parts []part, s, o []float32) {
	clear(o)
	at := 0
	for n := range parts {
		p := &parts[n]
		for _, x := range w.pieces[p.pieces[0]:p.pieces[1]] {
			for i, weight := range s[at+x.at:][:x.v.Rows] {
				if weight == 0 {
					continue
				}
				for j, v := range x.v.Float32[i*x.v.Stride:][:len(o)] {
					o[j] += float32(weight * v)
				}
			}
		}
		at += p.keys
	}
}

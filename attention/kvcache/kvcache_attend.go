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
	places    []int64 // of keys that are turned
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
	asHeld  turning = iota // as they are, or were turned when they came
	along                  // each to its own position, from part.at on
	fixed                  // all to part.at
	grouped                // each to what its group of positions shares
	within                 // each to its number among the first Keep and its last Recent
)

// blockRows is how many rows of queries are done together.
const blockRows = 64

func (r *run) kCols() int { return whole(r.op.cfg.HeadDim, r.op.tile.Unit()) }
func (r *run) vCols() int { return whole(r.op.cfg.ValueDim, r.op.tile.Unit()) }

func whole(n, unit int) int { return (n + unit - 1) / unit * unit }

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
	distances := byOrder
	if r.apart() {
		distances = byDistance
	}
	w.take(p, head, near, turned, distances)
	p.seen = causally
	if r.apart() {
		p.seen = nearby
		if turned {
			p.turn, p.at = along, r.first-s.position(head, near[0].From)
		}
		n++
		f := &parts[n]
		f.turn, f.at = fixed, cfg.Distance
		switch {
		case cfg.Positions == Grouped:
			f.turn = grouped
			w.take(f, head, far, turned, byGroup)
		case r.numbered:
			f.turn = within
			w.take(f, head, far, turned, byOrder)
		default:
			w.take(f, head, far, turned && cfg.Positions == FarInCache, byOrder)
		}
		f.seen = farAway
		if r.op.rotation == nil || !turned && !r.numbered {
			f.turn = asHeld
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
		if r.group.Stopped() {
			return
		}
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
			switch p.turn {
			case along:
				at += i
			case grouped:
				at = (r.first+i)/cfg.GroupSize + cfg.Recent - cfg.Recent/cfg.GroupSize
			case within:
				at = min(r.first+i, cfg.Keep+cfg.Recent-1)
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

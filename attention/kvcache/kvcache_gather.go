package kvcache

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
)

// inPlace is how many rows in a row are read where they stand; fewer are copied together.
const inPlace = 8

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
		s.noteRows(i, tasks, r.fars[i], r.runs[i])
		n := runRows(r.runs[i]) + runRows(r.fars[i])
		total += int64(n)
		if tasks == h {
			r.count(head, n, s.heads[head].Held())
		} else {
			r.countShare(head, n, s.heads[head].Held(), tasks/h)
		}
	}
	workers := r.op.workersFor(r.call.Workers, total*int64(r.x*r.op.group*(cfg.HeadDim+cfg.ValueDim)))
	r.works = atLeast(r.works, workers)
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
	if r.apart() {
		near = append(near, Run{From: s.rowsBefore(head, r.first-cfg.Recent+1), To: held})
		end := s.rowsBefore(head, s.n-cfg.Recent)
		if r.choice.All {
			far = addRun(far, Run{From: 0, To: end})
		} else {
			far = addRun(far, Run{From: 0, To: min(keep, end)})
			for _, x := range chosen {
				far = addRun(far, Run{From: max(x.From, keep), To: min(x.To, tail, end)})
			}
			far = addRun(far, Run{From: max(keep, tail), To: end})
		}
	} else if r.choice.All {
		near = addRun(near, Run{From: 0, To: held})
	} else {
		near = addRun(near, Run{From: 0, To: keep})
		for _, x := range chosen {
			near = addRun(near, Run{From: max(x.From, keep), To: min(x.To, tail)})
		}
		near = addRun(near, Run{From: max(keep, tail), To: held})
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

// rowsBelow is how many rows of a list are below a row.
func rowsBelow(list []Run, row int) (n int) {
	for _, x := range list {
		n += min(max(row-x.From, 0), x.To-x.From)
	}
	return n
}

// numbering says to which positions keys are turned.
type numbering uint8

const (
	byOrder    numbering = iota // 0, 1, 2 ... among a part's
	byDistance                  // their own, less the first's
	byGroup                     // their own, divided by Config.GroupSize
)

// take makes the pieces of a part of the rows of a key head, with keys turned as they are
// numbered, or as they are held.
func (w *work) take(p *part, head int, list []Run, turn bool, number numbering) {
	r := w.r
	s, cfg := r.state, &r.op.cfg
	p.pieces[0], p.keys = len(w.pieces), 0
	kc, vc := r.kCols(), r.vCols()
	st := s.heads[head]
	float := st.Config().Format == asm.Float32 && kc == cfg.HeadDim && vc == cfg.ValueDim && !turn
	from := w.used
	base := 0
	flush := func() {
		if n := w.used - from; n > 0 {
			w.pieces = append(w.pieces, piece{w.view(w.keys, from, n, kc), w.view(w.values, from, n, vc), p.keys - n})
			from = w.used
		}
	}
	if number == byDistance && len(list) > 0 {
		base = s.position(head, list[0].From)
	}
	var g attention.Segment // the one that rows are read from, and its first row
	first := 0
	var k, v blas32.General // its keys and values, where they can be read where they stand
	whole := false
	for _, x := range list {
		for row := x.From; row < x.To; {
			if g.Tokens == 0 || row < first || row-first >= g.Tokens {
				ok := false
				if g, ok = st.Segment(s.position(head, row)); !ok {
					panic("kvcache: a row that is not held")
				}
				first = row
				k, v, whole = g.Float32()
			}
			at := row - first
			n := min(g.Tokens-at, x.To-row)
			if float && n >= inPlace {
				flush()
				w.pieces = append(w.pieces, piece{strided(mat.Rows(k, at, at+n)), strided(mat.Rows(v, at, at+n)), p.keys})
			} else {
				toK := blas32.General{Rows: n, Cols: cfg.HeadDim, Stride: kc, Data: w.keys[w.used*kc:][:n*kc]}
				toV := blas32.General{Rows: n, Cols: cfg.ValueDim, Stride: vc, Data: w.values[w.used*vc:][:n*vc]}
				if kc != cfg.HeadDim {
					clear(toK.Data)
				}
				if vc != cfg.ValueDim {
					clear(toV.Data)
				}
				if whole {
					mat.Copy(toK, mat.Rows(k, at, at+n))
					mat.Copy(toV, mat.Rows(v, at, at+n))
				} else {
					if err := g.Keys(toK, 0, at); err != nil {
						panic(err)
					}
					if err := g.Values(toV, 0, at); err != nil {
						panic(err)
					}
				}
				if turn {
					place := p.keys
					if number != byOrder {
						place = s.position(head, row) - base
					}
					w.turnKeys(toK, place, number)
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

// turnKeys turns keys of positions that follow each other.
func (w *work) turnKeys(k blas32.General, place int, number numbering) {
	var err error
	if r := w.r.op; number == byGroup {
		w.places = w.places[:0]
		for i := range k.Rows {
			w.places = append(w.places, int64((place+i)/r.cfg.GroupSize))
		}
		err = r.rotation.RotateAt(k, w.places)
	} else {
		err = r.rotation.Rotate(k, int64(place))
	}
	if err != nil {
		panic(err) // of what New should have refused
	}
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

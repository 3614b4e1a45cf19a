package attention

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// diagnosingStep tells whether weights are asked for.
func (d *stepRun) diagnosingStep() bool {
	return d.call.Mass.Rows > 0 || d.call.Entropy.Rows > 0 || d.call.Weights != nil
}

// checkMass checks that Mass is asked of one state that is not a ring, whose tokens have
// a row at their position.
func (d *stepRun) checkMass() error {
	c := &d.call
	if c.Mass.Rows == 0 && c.Mass.Data == nil {
		return nil
	}
	if len(d.states) != 1 || d.states[0].cfg.Window > 0 {
		return check.Errorf(ErrCall, "attention: Mass with %d states or a ring, want one state that is none", len(d.states))
	}
	return nil
}

// beginMass readies the outputs of weights.
func (d *stepRun) beginMass() {
	c, heads := &d.call, d.op.cfg.Heads
	d.lse = c.LSE
	for _, w := range c.Weights {
		clear(w)
	}
	if d.diagnosingStep() && d.lse.Rows == 0 {
		d.lses = scratch.Floats(d.lses, c.Q.Rows*heads)
		d.lse = mat.Of(d.lses, c.Q.Rows, heads)
	}
}

// clearMass clears the rows of Mass that the first queries will not set: those of tokens
// that they do not read.
func (d *stepRun) clearMass() {
	out, at := d.call.Mass, 0
	if len(d.jobs) > 0 && out.Rows > 0 {
		for _, x := range d.spans[d.jobs[0].spans[0]:d.jobs[0].spans[1]] {
			for i := range x.n {
				for ; at < x.at(i); at++ {
					clear(mat.Row(out, at))
				}
				at++
				if x.list == nil {
					at = x.end()
					break
				}
			}
		}
	}
	for ; at < out.Rows; at++ {
		clear(mat.Row(out, at))
	}
}

// splitMassTask makes the scores of a split again, now that their denominators are
// known. What it finds of the entropy waits in the split's sums.
func (d *stepRun) splitMassTask(worker, task int) {
	w := &d.work[worker]
	split := w.takeTask(d, task)
	if w.j.source > 0 {
		return
	}
	_, sum, _ := w.results(split, w.heads[0], w.heads[1])
	clear(sum)
	from, to := w.keysOf(split)
	for t := from; t < to; t += d.op.sizes.StepTile {
		end := min(t+d.op.sizes.StepTile, to)
		if !w.cut(t, end) {
			w.noMass()
			continue
		}
		w.products()
		for h := w.heads[0]; h < w.heads[1]; h++ {
			s := w.scoresOf(h, 0, end-t)
			w.adjust(s, h)
			_, sum, _ := w.results(split, h, h+1)
			w.weigh(s, h, sum)
		}
	}
}

// noMass sets Mass to 0 for pieces that none of the first queries sees.
func (w *stepWork) noMass() {
	out := w.d.call.Mass
	if out.Rows == 0 || w.j.node > 0 {
		return
	}
	group := w.d.groupOf(w.j)
	for n := range w.pieces {
		p := &w.pieces[n]
		for k := range p.n {
			clear(mat.Part(out, p.at(k), w.heads[0]*group, (w.heads[1]-w.heads[0])*group))
		}
	}
}

// weigh adds the weights that the logits of one key head stand for.
func (w *stepWork) weigh(s blas32.General, h int, entropy []float32) {
	d, j := w.d, w.j
	group, part := d.groupOf(j), w.mass[:s.Cols]
	for g := range group {
		head := h*group + g
		clear(part)
		for i := g; i < s.Rows; i += group {
			logits, denominator := mat.Row(s, i), mat.Row(d.lse, j.from+i/group)[head]
			switch {
			case d.op.cfg.ReLU:
				for k, x := range logits {
					part[k] += float32(max(x, 0) * denominator) // max keeps NaN
				}
			case !math.IsInf(float64(denominator), -1):
				entropy[i] += d.op.tile.Mass(part, logits, denominator)
			}
		}
		if d.call.Weights != nil {
			w.addWeights(head, part)
		}
		if out := d.call.Mass; out.Rows > 0 {
			for n := range w.pieces {
				p := &w.pieces[n]
				for k, x := range part[p.tile:][:p.n] {
					if to := &mat.Row(out, p.at(k))[head]; j.node == 0 {
						*to = x
					} else {
						*to += x
					}
				}
			}
		}
	}
}

// entropies adds up what the splits found.
func (d *stepRun) entropies() {
	out, heads := d.call.Entropy, d.op.cfg.Heads
	if out.Rows == 0 {
		return
	}
	for n := range d.jobs {
		j := &d.jobs[n]
		if j.source > 0 {
			continue
		}
		group, rows := d.groupOf(j), d.rowsOf(j)
		for i := range j.queries() {
			for h := range heads {
				at, total := j.part+h/group*rows+i*group+h%group, float32(0)
				for range j.splits {
					total -= d.sum[at]
					at += j.queries() * heads
				}
				mat.Row(out, j.from+i)[h] = total
			}
		}
	}
}

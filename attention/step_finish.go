package attention

import (
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
)

// finishTask puts the splits of one key head's rows together, those of extra keys
// included.
func (d *stepRun) finishTask(worker, task int) {
	j := parallel.Find(len(d.jobs), task, func(i int) int { return d.jobs[i].finish })
	g, group := task-d.jobs[j].finish, d.groupOf(&d.jobs[j])
	for i := range d.rowsOf(&d.jobs[j]) {
		d.work[worker].joinSplits(d.jobs[j:][:len(d.probe.src)], i/group, g*group+i%group)
	}
}

// joinSplits puts together what the jobs of a state found for one head of a query.
func (w *stepWork) joinSplits(jobs []job, query, head int) {
	d := w.d
	cfg, cols := &d.op.cfg, d.oCols()
	parts := w.parts[:0]
	for i := range jobs {
		j := &jobs[i]
		group := d.groupOf(j)
		at := j.part + head/group*d.rowsOf(j) + query*group + head%group
		for range j.splits {
			parts = append(parts, at)
			at += j.queries() * cfg.Heads
		}
	}
	top, sum := d.top[parts[0]], d.sum[parts[0]]
	o := d.o[parts[0]*cols:][:cols]
	if len(parts) > 1 {
		f, sums := w.factors[:len(parts)], w.sums[:len(parts)]
		for i, at := range parts {
			f[i], sums[i] = d.top[at], d.sum[at]
			if cfg.ReLU {
				f[i] = 0 // sums of values are added as they are
			}
		}
		top, sum = combine(f, sums)
		asm.Scale(o, f[0], o)
		for i, at := range parts[1:] {
			if d.sum[at] == 0 && !cfg.ReLU {
				continue
			}
			asm.Axpy(o, f[1+i], d.o[at*cols:][:cols])
		}
	}
	if d.turnedValues {
		sums := o[d.vCols():][:cfg.ValueDim]
		turn(sums)
		asm.Add(o[:cfg.ValueDim], o[:cfg.ValueDim], sums)
	}
	var factor, lse float32
	switch {
	case cfg.ReLU:
		n := 0
		for i := range jobs {
			n += d.countInSight(&jobs[i], query)
		}
		factor = 1 / float32(max(1, n))
		lse = factor // for what Mass makes of it
	case cfg.Sinks != nil && !d.call.Partial:
		factor, lse = denominator(top, sum, &cfg.Sinks[head], &w.exp2, d.lse.Rows > 0)
	default:
		factor, lse = denominator(top, sum, nil, &w.exp2, d.lse.Rows > 0)
	}
	token := jobs[0].from + query
	dst := mat.Part(d.call.Dst, token, head*cfg.ValueDim, cfg.ValueDim)
	asm.Scale(dst, factor, o[:cfg.ValueDim])
	if d.lse.Rows > 0 {
		mat.Row(d.lse, token)[head] = lse
	}
}

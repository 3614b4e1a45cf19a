package attention

import (
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/rope"
)

// plan adds the jobs of n queries of a state, after done ones of the wave.
func (d *stepRun) plan(b, done, n int) {
	a, s := d.op, d.states[b]
	j := job{st: s, seq: b, heads: a.cfg.KVHeads, from: d.offsets[b] + d.done[b] + done, base: s.n, total: s.n, node: done}
	j.to, j.window = j.from+n, s.cfg.Window
	if w := a.cfg.Window; w > 0 && (j.window == 0 || w < j.window) {
		j.window = w
	}
	if d.look {
		j.first = s.n - d.taken[b] + done
	} else {
		j.first, j.total = s.n+done, s.n+d.taken[b]
	}
	last := j.first + n // what causality lets them see
	if d.call.Tree != nil {
		j.first, last = s.n, j.total
	}
	from := 0
	if j.window > 0 {
		from = max(0, j.first-j.window+1)
		if d.call.Tree != nil {
			from = min(from, s.n)
		}
	}
	j.spans[0] = len(d.spans)
	if last > 0 {
		d.seenSpans(b, min(from, last), last)
	}
	if s.schedule != nil && s.cfg.Policy == rope.EachStep {
		j.rot = s.rotation
	}
	unit := a.stepTile.Unit()
	j.wide = j.rot != nil || a.cfg.HeadDim%unit != 0 || a.cfg.ValueDim%unit != 0
	d.divide(j)
	d.countRead(&d.jobs[len(d.jobs)-1])
	j.window, j.rot = 0, nil
	j.wide = a.cfg.HeadDim%unit != 0 || a.cfg.ValueDim%unit != 0
	for i := 1; i < len(d.probe.src); i++ {
		j.source, j.heads, j.spans[0] = i, d.probe.src[i].heads, len(d.spans)
		d.extraSpans(i, b)
		d.divide(j)
	}
}

// divide adds a job whose spans are the last, and divides their keys.
func (d *stepRun) divide(j job) {
	sizes := &d.op.sizes
	j.spans[1], j.keys, j.split, j.turned, j.short, j.integer = len(d.spans), 0, 0, false, false, false
	for i := j.spans[0]; i < j.spans[1]; i++ {
		d.spans[i].first = j.keys
		j.keys += d.spans[i].n
		j.short = j.short || j.source == 0 && i > j.spans[0] && d.spans[i].n < gatherBelow
		if b := d.spans[i].b; b.k.format == asm.Int8 && !j.wide {
			j.split, j.turned, j.integer = b.k.value, j.turned || b.k.turned, d.op.takesIntegers()
			d.turnedValues = d.turnedValues || b.valueStore().turned
		}
	}
	j.size = max(sizes.StepKeys, whole((j.keys+63)/64, sizes.StepTile))
	j.splits = max(1, (j.keys+j.size-1)/j.size)
	d.jobs = append(d.jobs, j)
}

// view makes blocks of extra keys, where they stand.
func (d *stepRun) view() {
	d.views = d.views[:0]
	cfg := &d.op.cfg
	for i := 1; i < len(d.probe.src); i++ {
		src := &d.probe.src[i]
		for n := range src.k {
			d.views = append(d.views, block{k: storeOf(src.k[n], src.heads, cfg.HeadDim), v: storeOf(src.v[n], src.heads, cfg.ValueDim)})
		}
	}
}

// extraSpans adds those of a source's keys that belong to a state.
func (d *stepRun) extraSpans(source, state int) {
	at := 0 // of the views
	for i := 1; i < source; i++ {
		at += len(d.probe.src[i].k)
	}
	src := &d.probe.src[source]
	if src.states != nil {
		s := src.states[state]
		n := len(d.spans)
		d.spans = s.spans(d.spans, 0, s.n)
		for i := n; i < len(d.spans); i++ {
			d.spans[i].kept = true
		}
		return
	}
	from, to := src.offsets[state], src.offsets[state+1]
	for n, start := range src.starts {
		if lo, hi := max(from, start), min(to, start+src.k[n].Rows); lo < hi {
			d.spans = append(d.spans, span{b: &d.views[at+n], row: lo - start, n: hi - lo, pos: lo - from, kept: true})
		}
	}
}

package hyena

import (
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// spectrumLen returns how many float32 the spectrum of a unit takes.
func (p *plan) spectrumLen(phases bool) int {
	if phases {
		return 2 * p.n * p.row()
	}
	return p.n * p.row()
}

// transformKernels transforms the kernels of a unit into dst: as many taps as the plan
// has elements, whatever the sequence's length, for taps out of its reach only
// add to the imaginary parts. If group is stopped it ends before that. The kernels stand in
// w.work, and are transformed in dst.
//
// The anticausal taps r[m] stand at z^-m = -i z^(n-m): they are the imaginary
// part of the kernel, backwards. The skip term is a tap at z^0.
func (p *plan) transformKernels(group *parallel.Group, dst []float32, k kernels, u unit, w *convWorker) {
	lanes := p.Lanes()
	elements := p.n
	if u.phases {
		elements *= lanes
	}
	w.work = scratch.Floats(w.work, p.n*p.row())
	rows, work := w.work[:p.n*lanes], dst[:p.n*p.row()]
	put := func(t, c int, v float32) {
		if u.phases {
			rows[t] = v
		} else {
			rows[t*lanes+c] = v
		}
	}
	clear(rows)
	for t := range min(max(k.causal.Rows-k.lag, 0), elements) {
		if t%stopRows == 0 && group.Stopped() {
			return
		}
		for c, v := range mat.Part(k.causal, k.lag+t, u.channel-k.first, u.channels) {
			put(t, c, v)
		}
	}
	if k.skip != nil {
		for c, v := range k.skip[u.channel:][:u.channels] {
			put(0, c, rows[c]+v)
		}
	}
	if k.reverse.Rows > 0 {
		for c, v := range mat.Part(k.reverse, 0, u.channel, u.channels) {
			put(0, c, rows[c]+v)
		}
	}
	p.transform(group, rows, lanes, p.n, work)
	if ahead := k.ahead(); ahead > 1 {
		w.spare = scratch.Floats(w.spare, p.n*p.row())
		clear(rows)
		for m := 1; m < min(ahead, elements); m++ {
			if m%stopRows == 0 && group.Stopped() {
				return
			}
			for c, v := range k.tapAhead(m, u) {
				put(elements-m, c, -v)
			}
		}
		p.transform(group, rows, lanes, p.n, w.spare)
		for at := 0; at < len(work); at += 2 * lanes { // work + i spare
			for i := at; i < at+lanes; i++ {
				re, im := w.spare[i], w.spare[i+lanes]
				work[i], work[i+lanes] = work[i]-im, work[i+lanes]+re
			}
		}
	}
	p.scaleSpectrum(group, dst, u.phases)
}

// scaleSpectrum divides a transform, the beginning of x, by n and lays it out as the product
// takes it.
func (p *plan) scaleSpectrum(group *parallel.Group, x []float32, phases bool) {
	lanes, scale := p.Lanes(), 1/float32(p.n)
	if !phases {
		for from := 0; from < len(x) && !group.Stopped(); from += stopRows * 2 * lanes {
			to := min(from+stopRows*2*lanes, len(x))
			asm.Scale(x[from:to], scale, x[from:to])
		}
		return
	}
	// The layout of kernel.Butterflies.Ring: zeta times the row, and the row. That is twice as
	// much, so that the last row goes first.
	for at := p.n - 1; at >= 0; at-- {
		if at%stopRows == 0 && group.Stopped() {
			return
		}
		sin, cos := math.Sincos(math.Pi * (0.5 - 2*float64(p.frequency(at))) / float64(p.n))
		row, out := x[at*2*lanes:], x[at*4*lanes:][:4*lanes]
		for i := range lanes {
			re, im := row[i], row[lanes+i]
			x, y := float64(re), float64(im)
			out[i], out[2*lanes+i] = float32(x*cos-y*sin)*scale, float32(x*sin+y*cos)*scale
			out[lanes+i], out[3*lanes+i] = re*scale, im*scale
		}
	}
}

// ahead returns how many taps of later inputs there are, with that of the same place.
func (k *kernels) ahead() int {
	if k.lag > 0 {
		return k.lag + 1
	}
	return k.reverse.Rows
}

// tapAhead returns the tap of an input m places later.
func (k *kernels) tapAhead(m int, u unit) []float32 {
	switch {
	case k.lag == 0:
		return mat.Part(k.reverse, m, u.channel, u.channels)
	case k.lag-m < k.causal.Rows:
		return mat.Part(k.causal, k.lag-m, u.channel-k.first, u.channels)
	}
	return nil // beyond the kernel's end
}

package kvcache

import (
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// meanOf returns the mean of the keys of a head's first block, 0 where it is not finite.
func (w *shadowRun) meanOf(head int) []float32 {
	cfg := &w.x.op.cfg
	w.reserve(1)
	work := &w.works[0]
	work.k = scratch.Floats(work.k, shadowBlockTokens*cfg.HeadDim)
	k := mat.Of(work.k, shadowBlockTokens, cfg.HeadDim)
	w.fetch(k, mat.Of(nil, 0, 0), head, 0)
	mean := make([]float32, cfg.HeadDim)
	for d := range mean {
		sum := 0.0
		for i := range k.Rows {
			sum += float64(mat.Row(k, i)[d])
		}
		if m := float32(sum / shadowBlockTokens); finite1(float64(m)) {
			mean[d] = m
		}
	}
	return mean
}

// buildTask copies a block of keys, and takes the means of its values.
func (w *shadowRun) buildTask(worker, task int) {
	head, n := w.jobs[task][0], w.jobs[task][1]
	h, work, cfg := &w.x.heads[head], &w.works[worker], &w.x.op.cfg
	d, dv := cfg.HeadDim, cfg.ValueDim
	groups, vCols := kernel.ShadowGroups(d), w.r.vCols()
	work.k, work.v = scratch.Floats(work.k, shadowBlockTokens*d), scratch.Floats(work.v, shadowBlockTokens*dv)
	k, v := mat.Of(work.k, shadowBlockTokens, d), mat.Of(work.v, shadowBlockTokens, dv)
	w.fetch(k, v, head, n*shadowBlockTokens)
	b := &shadow{values: make([]uint16, shadowBlockPages*vCols)}
	blocks, four := kernel.ShadowBlocks(d), w.x.policy.Bits == 4
	if four {
		b.halves, b.scale = make([]uint8, shadowBlockTokens*16*blocks), make([]float32, shadowBlockTokens*blocks)
	} else {
		b.keys, b.scale = make([]int8, shadowBlockTokens*4*groups), make([]float32, shadowBlockTokens)
	}
	h.blocks[n] = b
	off, reach, value := 0.0, 0.0, 0.0
	for i := range k.Rows {
		x := mat.Row(k, i)
		asm.Scale(work.row, -1, h.mean)
		asm.Add(work.row, work.row, x)
		page, l := i/kernel.ShadowPanel, i%kernel.ShadowPanel
		var square, length float64
		if four {
			square, length = kernel.QuantizeNibbles(b.halves[page*kernel.ShadowPanel*16*blocks:][:kernel.ShadowPanel*16*blocks], b.scale[page*kernel.ShadowPanel*blocks:][:kernel.ShadowPanel*blocks], l, work.row)
		} else {
			square, length = work.copyKey(b, i, groups, x, h.mean)
		}
		off, reach = max(off, square), max(reach, length) // keep NaN
		square = 0
		for _, y := range mat.Row(v, i) {
			square += float64(y) * float64(y)
		}
		value = max(value, square)
	}
	const up = 1 + 1e-6 // so that roundings are outward
	b.off, b.reach, b.value = float32(math.Sqrt(off)*up), float32(math.Sqrt(reach)*up), float32(math.Sqrt(value)*up)
	b.wild = !finite1(float64(b.off)) || !finite1(float64(b.reach)) || !finite1(float64(b.value))
	for p := range shadowBlockPages {
		for c := range dv {
			sum := float32(0)
			for i := range kernel.ShadowPanel {
				sum += v.Data[(p*kernel.ShadowPanel+i)*dv+c]
			}
			b.values[p*vCols+c] = asm.BFloat16Bits(sum / kernel.ShadowPanel)
		}
	}
}

// copyKey copies a token's key, of which row has what it differs from the mean by, and
// returns the squares of the copy's error and of its length.
func (work *shadowWorker) copyKey(b *shadow, i, groups int, x, mean []float32) (square, length float64) {
	scale := asm.QuantizeInt8(work.eight, work.row)
	b.scale[i] = scale
	page := b.keys[i/kernel.ShadowPanel*kernel.ShadowPanel*4*groups+i%kernel.ShadowPanel*4:]
	for c := 0; c < len(x); c += 4 {
		copy(page[c*kernel.ShadowPanel:][:4], work.eight[c:])
	}
	for c, q := range work.eight {
		copied := float64(scale) * float64(q)
		e := float64(x[c]) - float64(mean[c]) - copied
		square += e * e
		length += copied * copied
	}
	return square, length
}

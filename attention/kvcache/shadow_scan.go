package kvcache

import (
	"math"
	"slices"
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/topk"
)

// finds are the best tokens that a query head found.
type finds struct{ topk.Stream }

// look takes up the scores of a block's pages, whose first token is number first. A page
// has none that counts where even its sum, of exp(score - largest), is less than the
// exponential of what a score must exceed.
func (t *finds) look(s, sums []float32, largest float32, first int) {
	cut, full := t.Cut()
	if full && largest <= cut {
		return
	}
	least := float32(0)
	if full {
		least = float32(math.Exp(float64(cut-largest)) * .999)
	}
	for p := 0; p*kernel.ShadowPanel < len(s); p++ {
		if sums[p] < least {
			continue
		}
		at := p * kernel.ShadowPanel
		t.Push(s[at:][:kernel.ShadowPanel], first+at)
		if now, some := t.Cut(); some && (now != cut || !full) {
			cut, full = now, true
			least = float32(math.Exp(float64(cut-largest)) * .999)
		}
	}
}

// begin packs the queries. It is false where there is nothing to estimate, or the
// queries are not finite.
func (w *shadowRun) begin() bool {
	r, x := w.r, w.x
	cfg, g := &x.op.cfg, x.op.group
	for len(w.heads) < cfg.KVHeads {
		w.heads = append(w.heads, shadowFound{})
	}
	w.wild.Store(false)
	some := false
	for i := range cfg.KVHeads {
		f, h := &w.heads[i], &x.heads[i]
		f.scaled = scratch.Floats(f.scaled, g*cfg.HeadDim)
		asm.Scale(f.scaled, cfg.Scale, mat.Part(r.q, 0, i*g*cfg.HeadDim, g*cfg.HeadDim))
		if !finite(f.scaled) {
			return false
		}
		if q := mat.Of(f.scaled, g, cfg.HeadDim); x.policy.Bits == 4 {
			x.tile.PackNibbles(&f.queries, q)
		} else {
			x.tile.Pack(&f.queries, q)
		}
		s := r.state
		held := s.heads[i].Held()
		f.limit = max(0, min(len(h.blocks)*shadowBlockTokens, s.rowsBefore(i, s.n-cfg.Recent), held-1)) / kernel.ShadowPanel * kernel.ShadowPanel
		f.blocks = (f.limit + shadowBlockTokens - 1) / shadowBlockTokens
		some = some || f.limit > x.policy.TopK
	}
	return some
}

// scan finds the best tokens of each query head and the weights of the pages.
func (w *shadowRun) scan(top int) error {
	r, g, heads := w.r, w.x.op.group, w.x.op.cfg.KVHeads
	w.top = top
	work := int64(0)
	for i := range heads {
		f := &w.heads[i]
		pages := f.blocks * shadowBlockPages
		f.sums, f.tops, f.mass = scratch.Floats(f.sums, g*pages), scratch.Floats(f.tops, g*f.blocks), scratch.Floats(f.mass, f.blocks)
		f.tail = scratch.Floats(f.tail, g*r.vCols())
		for len(f.rest) < g {
			f.rest, f.most = append(f.rest, 0), append(f.most, 0)
		}
		work += int64(f.limit) * int64(g*w.x.op.cfg.HeadDim) / 4
	}
	workers := w.reserve(w.x.op.workersFor(r.call.Workers, work))
	w.ranges = 1
	if workers > 1 {
		w.ranges = (4*workers + heads - 1) / heads
	}
	for i := range heads {
		f := &w.heads[i]
		for len(f.finds) < w.ranges*g {
			f.finds = append(f.finds, finds{})
		}
		for n := range f.finds[:w.ranges*g] {
			f.finds[n].Reset(top)
		}
	}
	if err := r.group.RunAs(r.ctx, "kvcache", workers, heads*w.ranges, w.look); err != nil {
		return err
	}
	if w.wild.Load() {
		return nil
	}
	return r.group.RunAs(r.ctx, "kvcache", workers, heads, w.join)
}

// scanTask scans a range of a head's blocks.
func (w *shadowRun) scanTask(worker, task int) {
	head, part := task/w.ranges, task%w.ranges
	f, h, g := &w.heads[head], &w.x.heads[head], w.x.op.group
	from, to := part*f.blocks/w.ranges, (part+1)*f.blocks/w.ranges
	scores := mat.Of(w.works[worker].scores, g, shadowBlockTokens)
	pages := f.blocks * shadowBlockPages
	for n := from; n < to && !w.r.group.Stopped(); n++ {
		b := h.blocks[n]
		for i := range g {
			f.tops[i*f.blocks+n] = negInf
			clear(f.sums[i*pages+n*shadowBlockPages:][:shadowBlockPages])
		}
		if b.wild {
			continue
		}
		var next *shadow
		if n+1 < to {
			next = h.blocks[n+1]
		}
		w.x.score(scores, &f.queries, b, 0, next)
		first := n * shadowBlockTokens
		for i := range g {
			s := mat.Row(scores, i)
			for j := max(0, f.limit-first); j < len(s); j++ {
				s[j] = negInf
			}
			largest := asm.Max(s)
			if !finite1(float64(largest)) {
				w.wild.Store(true)
				return
			}
			f.tops[i*f.blocks+n] = largest
			sums := f.sums[i*pages+n*shadowBlockPages:][:shadowBlockPages]
			w.x.tile.Weights(sums, s, largest)
			f.finds[part*g+i].look(s[:min(len(s), f.limit-first)], sums, largest, first)
		}
	}
}

// joinTask puts what was found of a head together: the tokens that it reads exactly, whose
// weights leave the pages', and the mean of the values of all pages.
func (w *shadowRun) joinTask(worker, task int) {
	f, h, g := &w.heads[task], &w.x.heads[task], w.x.op.group
	w.unite(f, h, task)
	w.takeOut(f, h, &w.works[worker])
	cfg, vCols, pages := &w.x.op.cfg, w.r.vCols(), f.blocks*shadowBlockPages
	clear(f.tail)
	clear(f.mass)
	f.value = 0
	for i := range g {
		largest := asm.Max(f.tops[i*f.blocks:][:f.blocks])
		q := f.scaled[i*cfg.HeadDim:][:cfg.HeadDim]
		length := float64(0)
		for _, v := range q {
			length += float64(v) * float64(v)
		}
		length = math.Sqrt(length)
		turn := float64(f.queries.Error(i)) * math.Sqrt(float64(cfg.HeadDim))
		mean := math.Sqrt(dot64(h.mean, h.mean))
		sum, most := 0.0, 0.0
		for n, b := range h.blocks[:f.blocks] {
			top := f.tops[i*f.blocks+n]
			if top == negInf {
				continue
			}
			part := f.sums[i*pages+n*shadowBlockPages:][:shadowBlockPages]
			factor := math.Exp(float64(top - largest))
			asm.Scale(part, float32(factor), part)
			block := 0.0
			for _, x := range part {
				block += float64(x)
			}
			// What logits may be off by: the key's copy, the query's, float32.
			away := length*float64(b.off) + turn*float64(b.reach) + float64(cfg.HeadDim)*0x1p-22*length*(float64(b.reach+b.off)+mean)
			sum += block
			most += block*math.Exp(away) + shadowBlockTokens*0x1p-22*factor
			f.mass[n] += float32(block)
			f.value = max(f.value, b.value)
		}
		shift := float64(largest) + dot64(q, h.mean)
		f.rest[i], f.most[i] = math.Log(sum)+shift, math.Log(most)+shift
		if sum > 0 {
			for n := range h.blocks[:f.blocks] {
				part := f.sums[i*pages+n*shadowBlockPages:][:shadowBlockPages]
				asm.Scale(part, float32(1/sum), part)
			}
		}
	}
	if w.x.policy.Drop {
		return
	}
	tail := mat.Of(f.tail, g, vCols)
	for n, b := range h.blocks[:f.blocks] {
		if f.mass[n] == 0 {
			continue
		}
		var next *byte
		if n+1 < f.blocks {
			next = (*byte)(unsafe.Pointer(&h.blocks[n+1].values[0]))
		}
		weights := blas32.General{Rows: g, Cols: shadowBlockPages, Stride: pages, Data: f.sums[n*shadowBlockPages:]}
		w.x.op.tile.Values(tail, weights, kernel.Strided{Format: kernel.BFloat16, Rows: shadowBlockPages, Cols: vCols, Stride: vCols, Half: b.values}, w.works[worker].ones, next)
	}
}

// unite lists the tokens that a key head reads exactly: the best of each of its query heads,
// the first Keep, and those of blocks that are not estimated.
func (w *shadowRun) unite(f *shadowFound, h *shadowHead, head int) {
	g := w.x.op.group
	f.exact = f.exact[:0]
	for i := range g {
		rows, _ := f.finds[i].Selected()
		if w.ranges > 1 {
			f.best.Reset(w.top)
			for part := range w.ranges {
				rows, scores := f.finds[part*g+i].Selected()
				for n, row := range rows {
					f.best.Push(scores[n:n+1], int(row))
				}
			}
			rows, _ = f.best.Selected()
		}
		f.exact = append(f.exact, rows...)
	}
	for row := range min(w.r.state.rowsBefore(head, w.x.op.cfg.Keep), f.limit) {
		f.exact = append(f.exact, int32(row))
	}
	for n, b := range h.blocks[:f.blocks] {
		for row := n * shadowBlockTokens; b.wild && row < min((n+1)*shadowBlockTokens, f.limit); row++ {
			f.exact = append(f.exact, int32(row))
		}
	}
	slices.Sort(f.exact)
	f.exact = slices.Compact(f.exact)
}

// takeOut takes the weights of tokens that are read exactly out of the pages'.
func (w *shadowRun) takeOut(f *shadowFound, h *shadowHead, work *shadowWorker) {
	g, pages := w.x.op.group, f.blocks*shadowBlockPages
	scores := mat.Of(work.scores, g, kernel.ShadowPanel)
	for at := 0; at < len(f.exact); {
		page := int(f.exact[at]) / kernel.ShadowPanel
		n, p := page/shadowBlockPages, page%shadowBlockPages
		b := h.blocks[n]
		end := at
		for end < len(f.exact) && int(f.exact[end])/kernel.ShadowPanel == page {
			end++
		}
		if b.wild {
			at = end
			continue
		}
		w.x.score(scores, &f.queries, b, p, nil)
		for i := range g {
			sum, top := &f.sums[i*pages+page], f.tops[i*f.blocks+n]
			if end-at == kernel.ShadowPanel {
				*sum = 0
				continue
			}
			for _, row := range f.exact[at:end] {
				*sum -= float32(math.Exp(float64(mat.Row(scores, i)[row%kernel.ShadowPanel] - top)))
			}
			*sum = max(*sum, 0)
		}
		at = end
	}
}

func dot64(a, b []float32) (sum float64) {
	for i, x := range a {
		sum += float64(x) * float64(b[i])
	}
	return sum
}

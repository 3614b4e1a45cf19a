package kvcache

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// tokenCopyIndex is TokenSelect's with a copy of the keys in 8 or 4 bits, that of a Shadow.
type tokenCopyIndex struct {
	still
	p    TokenSelect
	copy *shadowIndex
	ids  []int32 // of candidates
}

func newTokenCopy(p TokenSelect, a *Attention) *tokenCopyIndex {
	return &tokenCopyIndex{p: p, copy: Shadow{Bits: p.Bits}.newIndex(a).(*shadowIndex)}
}

func (x *tokenCopyIndex) append(r *run) error { return x.copy.append(r) }
func (x *tokenCopyIndex) bytes() int64        { return x.copy.bytes() }
func (x *tokenCopyIndex) clone() index {
	return &tokenCopyIndex{p: x.p, copy: x.copy.clone().(*shadowIndex)}
}
func (x *tokenCopyIndex) truncate(s *State, n int, try bool) bool { return x.copy.truncate(s, n, try) }

// candidates is how many tokens are looked at exactly to choose n of them.
func candidates(n int) int { return n + n/4 + 64 }

func (x *tokenCopyIndex) choose(r *run) error {
	from, to := r.middle(0)
	if to-from <= x.p.TopK {
		return nil
	}
	q, err := r.lookup()
	if err != nil {
		return err
	}
	if !finite(q) { // of which a copy tells nothing
		return tokenIndex{p: x.p}.choose(r)
	}
	if err := x.scanCopies(r, q, from, to); err != nil {
		return err
	}
	rows, err := r.bestVotes(candidates(x.p.TopK))
	if err != nil {
		return err
	}
	x.ids = append(x.ids[:0], rows...)
	votes := x.votesOf(r, q, from)
	r.choose1(1)
	rows = r.sel.best.Ascending(votes, x.p.TopK)
	for i, j := range rows {
		rows[i] = x.ids[j]
	}
	r.choice.Lists[0] = addRows(r.choice.Lists[0], rows, from)
	return nil
}

// scanCopies sets the scores of rows from ... to by the copy, or where there is none by the
// keys.
func (x *tokenCopyIndex) scanCopies(r *run, q []float32, from, to int) error {
	cfg, g, w := &r.op.cfg, r.op.group, r.shadowWork(x.copy)
	for len(w.heads) < cfg.KVHeads {
		w.heads = append(w.heads, shadowFound{})
	}
	for i := range cfg.KVHeads {
		some := mat.Of(q[i*g*cfg.HeadDim:], g, cfg.HeadDim)
		if x.copy.policy.Bits == 4 {
			x.copy.tile.PackNibbles(&w.heads[i].queries, some)
		} else {
			x.copy.tile.Pack(&w.heads[i].queries, some)
		}
		for _, b := range x.copy.heads[i].blocks {
			r.report.Index += b.bytes() - 2*int64(len(b.values))
		}
	}
	n := to - from
	r.sel.log = grown(r.sel.log, cfg.Heads*n)
	r.sel.from, r.sel.to, r.sel.query = from, to, q
	workers := w.reserve(r.op.workersFor(r.call.Workers, int64(n)*int64(cfg.Heads*cfg.HeadDim)/4))
	r.works = atLeast(r.works, workers)
	if r.scanCopy == nil {
		r.scanCopy = r.scanCopyTask
	}
	return r.group.RunAs(r.ctx, "kvcache", workers, cfg.KVHeads, r.scanCopy)
}

// scanCopyTask scores the copies of one key head.
func (r *run) scanCopyTask(worker, head int) {
	w, shadow, cfg, g := &r.works[worker], r.shadow, &r.op.cfg, r.op.group
	x := shadow.x
	h, q := &x.heads[head], r.sel.query[head*g*cfg.HeadDim:][:g*cfg.HeadDim]
	n := r.sel.to - r.sel.from
	scores := mat.Of(shadow.works[worker].scores, g, shadowBlockTokens)
	packed := false
	for row := r.sel.from; row < r.sel.to && !r.group.Stopped(); {
		block := row / shadowBlockTokens
		end := min(r.sel.to, (block+1)*shadowBlockTokens)
		to := blas32.General{Rows: g, Cols: end - row, Stride: n, Data: r.sel.log[head*g*n+row-r.sel.from:]}
		if block < len(h.blocks) && !h.blocks[block].wild {
			next := h.blocks[block]
			if block+1 < len(h.blocks) {
				next = h.blocks[block+1]
			}
			x.score(scores, &shadow.heads[head].queries, h.blocks[block], 0, next)
			for i := range g {
				shift := float32(dot64(q[i*cfg.HeadDim:][:cfg.HeadDim], h.mean))
				to := mat.Row(to, i)
				copy(to, mat.Row(scores, i)[row-block*shadowBlockTokens:])
				asm.Axpy(to, shift, voteOnes[:len(to)])
			}
		} else {
			if !packed {
				w.r, packed = r, true
				w.packQuery(q, g, cfg.HeadDim)
			}
			w.scanRows(to, head, row)
		}
		row = end
	}
}

// votesOf returns the logarithm of the votes of the candidates by their keys, and by sums of
// the copies' scores.
func (x *tokenCopyIndex) votesOf(r *run, q []float32, from int) []float32 {
	cfg, g, d := &r.op.cfg, r.op.group, r.op.cfg.HeadDim
	r.sel.group = grown(r.sel.group, cfg.Heads*len(x.ids))
	w := &r.works[0]
	w.keys = scratch.Floats(w.keys, d)
	k := mat.Of(w.keys, 1, d)
	r.report.Index += int64(len(x.ids)) * int64(cfg.KVHeads*d) * elementBytes(r.state.cfg.Format)
	for head := range cfg.KVHeads {
		for i, id := range x.ids {
			r.state.readKeys(k, head, from+int(id))
			for h := head * g; h < (head+1)*g; h++ {
				r.sel.group[h*len(x.ids)+i] = asm.Dot(q[h*d:][:d], k.Data) - r.sel.sums[h]
			}
		}
	}
	r.sel.pooled = slices.Grow(r.sel.pooled[:0], len(x.ids))
	for i := range x.ids {
		top, sum := negInf, 0.0
		for h := range cfg.Heads {
			if s := r.sel.group[h*len(x.ids)+i]; s > top || s != s {
				top = s
			}
		}
		for h := range cfg.Heads {
			sum += math.Exp(float64(r.sel.group[h*len(x.ids)+i] - top))
		}
		if !math.IsInf(float64(top), -1) {
			top += float32(math.Log(sum))
		}
		r.sel.pooled = append(r.sel.pooled, top)
	}
	return r.sel.pooled
}

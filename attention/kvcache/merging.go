package kvcache

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// Merging leaves what a policy forgets a trace in what it keeps (kvpress; after D2O, Wan et
// al. 2024): the value of a forgotten token e joins that of the kept token t whose key is
// most like its own, by the cosine c between the keys as they are held:
//
//	w[e] = c |v[e]| / (|v[e]| + |v[t]|)
//	v[t] = (v[t] + sum over e of w[e] v[e]) / (1 + sum over e of w[e])
//
// Keys stay. It takes forgotten times kept products of keys. State.Clone and Snapshots have
// values as they were; a value has what was merged into it for as long as it is held.
type Merging struct {
	// Evict is the policy: any but StreamingLLM and SirLLM, whose tokens go before others
	// come.
	Evict Evictor
	// Similarity is the least cosine, 0 to 1; tokens like none of those kept are dropped.
	Similarity float64
}

func (p Merging) check(cfg *Config) error {
	switch {
	case !(p.Similarity >= 0 && p.Similarity <= 1):
		return check.Errorf(ErrConfig, "kvcache: Merging.Similarity is %v, want 0 to 1", p.Similarity)
	case p.Evict == nil:
		return check.Errorf(ErrConfig, "kvcache: Merging.Evict is nil")
	}
	if err := p.Evict.check(cfg); err != nil {
		return err
	}
	if u := p.Evict.rule(cfg); u.before || u.merge != nil {
		return check.Errorf(ErrConfig, "kvcache: Merging.Evict is a %T, want a policy that scores tokens", p.Evict)
	}
	return nil
}

func (p Merging) weights() []blas32.General { return weightsOf(p.Evict) }
func (p Merging) describe() string {
	return "Merging " + describe(p.Similarity) + describe(p.Evict)
}

func (p Merging) rule(cfg *Config) rule {
	u := p.Evict.rule(cfg)
	u.merge = p.mergeValues
	return u
}

func (p Merging) score(dst [][]float32, o *Observation) error { return p.Evict.score(dst, o) }

// mergeBlock is how many forgotten tokens are compared at a time.
const mergeBlock = 64

// mergeValues gives the rows of a head that stay the values of those that go.
func (p Merging) mergeValues(o *Observation, head int, stay []int32) error {
	k, v := o.Keys(head), o.Values(head)
	gone := k.Rows - len(stay)
	if len(stay) == 0 || gone == 0 {
		return nil
	}
	m := o.room()
	kept := o.matrix(len(stay), k.Cols) // of length 1
	for i, r := range stay {
		unit(mat.Row(kept, i), mat.Row(k, int(r)))
	}
	m.packed.SetT(kept)
	some, cosines := o.matrix(mergeBlock, k.Cols), o.matrix(mergeBlock, len(stay))
	sums, weights := o.matrix(len(stay), v.Cols), o.vector(len(stay))
	m.rows = scratch.Sized(m.rows, mergeBlock)
	n, next := 0, 0 // rows of the block; the next of those that stay
	for row := range k.Rows {
		if next < len(stay) && int(stay[next]) == row {
			next++
		} else {
			unit(mat.Row(some, n), mat.Row(k, row))
			m.rows[n] = int32(row)
			n++
		}
		if n == mergeBlock || row == k.Rows-1 && n > 0 {
			asm.Gemm(mat.Rows(cosines, 0, n), mat.Rows(some, 0, n), &m.packed, nil)
			for i, r := range m.rows[:n] {
				p.join(sums, weights, mat.Row(cosines, i), v, int(r), stay)
			}
			n = 0
		}
	}
	// What has taken something up is stored.
	m.order = m.order[:0]
	n = 0
	for i, w := range weights {
		if w == 0 {
			continue
		}
		to := mat.Row(sums, n)
		asm.Add(to, mat.Row(sums, i), mat.Row(v, int(stay[i])))
		asm.Scale(to, 1/(1+w), to)
		m.order = append(m.order, stay[i])
		n++
	}
	return named(o.s.heads[head].SetValues(m.order, mat.Rows(sums, 0, n)))
}

// join adds the value of a row to that of the row it is most like.
func (p Merging) join(sums blas32.General, weights, cosines []float32, v blas32.General, row int, stay []int32) {
	to, best := -1, negInf
	for i, c := range cosines {
		if c > best {
			to, best = i, c
		}
	}
	if to < 0 || float64(best) < p.Similarity {
		return
	}
	own := norm(mat.Row(v, row))
	w := min(best, 1) * own / (own + norm(mat.Row(v, int(stay[to]))))
	if !(w > 0) || math.IsInf(float64(own), 0) { // nothing to add, or nothing finite
		return
	}
	asm.Axpy(mat.Row(sums, to), w, mat.Row(v, row))
	weights[to] += w
}

// unit sets dst to x at length 1, or to zeros where x has no length.
func unit(dst, x []float32) {
	if n := norm(x); n > 0 && !math.IsInf(float64(n), 0) {
		asm.Scale(dst, 1/n, x)
		return
	}
	clear(dst)
}

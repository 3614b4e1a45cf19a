package kvcache

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// CriticalKV keeps half of a budget by a policy's scores, and the rest by what a token
// would change in the layer's output (Feng et al. 2025, arXiv 2502.03805): (score + 1e-4)
// times the mean, over the query heads of a key head, of |Wo_h v|, the sum of absolute
// values.
type CriticalKV struct {
	// Evict is the policy whose scores and budget it goes by; it must be given.
	Evict Evictor
	// Out [Width, Heads*ValueDim] is the layer's output projection, a row for each
	// output.
	Out blas32.General
}

func (p CriticalKV) check(cfg *Config) error {
	if err := check.Matrix(ErrConfig, "kvcache", "CriticalKV.Out", p.Out, -1, cfg.Heads*cfg.ValueDim, "Heads*ValueDim"); err != nil {
		return err
	}
	return checkWrapped("CriticalKV", p.Evict, cfg)
}

func (p CriticalKV) weights() []blas32.General {
	return append([]blas32.General{p.Out}, weightsOf(p.Evict)...)
}

func (p CriticalKV) describe() string { return "CriticalKV " + describe(p.Evict) }

func (p CriticalKV) rule(cfg *Config) rule {
	u := p.Evict.rule(cfg)
	u.keeps = p.pick
	return u
}

func (p CriticalKV) score(dst [][]float32, o *Observation) error { return p.Evict.score(dst, o) }

// criticalFloor is what a score counts at least.
const criticalFloor = 1e-4

// pick keeps the rows of a key head.
func (p CriticalKV) pick(dst []int32, o *Observation, head int, scores []float32, budget int) []int32 {
	inf := float32(math.Inf(1))
	dst = best(dst, scores, budget/2)
	x := o.vector(len(scores))
	v := o.Values(head)
	for i, s := range scores {
		if math.IsInf(float64(s), 1) {
			x[i] = inf
			continue
		}
		x[i] = (s + criticalFloor) * p.effect(mat.Row(v, i), head, o.group())
	}
	for _, r := range dst {
		x[r] = inf
	}
	return best(dst, x, budget)
}

// effect is the mean over query heads of the sum of |Wo_h v|.
func (p CriticalKV) effect(v []float32, head, group int) float32 {
	sum := 0.0
	for h := range group {
		at := (head*group + h) * len(v)
		for i := range p.Out.Rows {
			dot := 0.0
			for j, w := range mat.Part(p.Out, i, at, len(v)) {
				dot += float64(w) * float64(v[j])
			}
			sum += math.Abs(dot)
		}
	}
	return float32(sum / float64(group))
}

// Block chooses from the past block after block: what was kept so far and the next Length
// tokens compete for the budget, by scores that a policy gives to these alone (kvpress's
// BlockPress, and KeyDiff's way with little memory). A policy that scores a token by
// itself, as Knorm, gives the same as without.
type Block struct {
	// Evict is the policy whose scores and budget it goes by; it must be given.
	Evict Evictor
	// Length is how many tokens come at a time; 0 stands for 128.
	Length int
}

func (p Block) length() int {
	if p.Length == 0 {
		return 128
	}
	return p.Length
}

func (p Block) check(cfg *Config) error {
	if p.Length < 0 || p.Length > 1<<20 {
		return check.Errorf(ErrConfig, "kvcache: Block.Length is %d, want 0 to 2^20", p.Length)
	}
	if err := checkWrapped("Block", p.Evict, cfg); err != nil {
		return err
	}
	if u := p.Evict.rule(cfg); u.mass || u.importance || u.queries > 0 {
		return check.Errorf(ErrConfig, "kvcache: Block.Evict is a %T, want a policy that goes by keys and values alone", p.Evict)
	}
	return nil
}

func (p Block) weights() []blas32.General { return weightsOf(p.Evict) }
func (p Block) describe() string          { return "Block " + describe(p.length()) + describe(p.Evict) }

func (p Block) rule(cfg *Config) rule {
	u := p.Evict.rule(cfg)
	u.keeps = p.pick
	return u
}

// score gives every token 0: pick scores.
func (Block) score(dst [][]float32, _ *Observation) error {
	for _, x := range dst {
		clear(x)
	}
	return nil
}

// pick keeps the rows of a key head.
func (p Block) pick(dst []int32, o *Observation, head int, scores []float32, budget int) []int32 {
	k, v := o.Keys(head), o.Values(head)
	dst = dst[:0]
	for at := 0; at < len(scores); {
		to := min(at+p.length(), len(scores))
		if len(dst) == 0 {
			to = min(max(budget, p.length()), len(scores))
		}
		for i := at; i < to; i++ {
			dst = append(dst, int32(i))
		}
		at = to
		if len(dst) <= budget {
			continue
		}
		// The policy sees one key head of these tokens alone.
		floats, doubles := o.taken()
		m := o.room()
		m.cfg = *o.cfg
		m.cfg.Heads, m.cfg.KVHeads = o.group(), 1
		m.some, m.scores = [2]blas32.General{o.matrix(len(dst), k.Cols), o.matrix(len(dst), v.Cols)}, [1][]float32{o.vector(len(dst))}
		m.part = Observation{cfg: &m.cfg, keys: m.some[:1], values: m.some[1:], memory: m}
		for i, r := range dst {
			copy(mat.Row(m.some[0], i), mat.Row(k, int(r)))
			copy(mat.Row(m.some[1], i), mat.Row(v, int(r)))
		}
		x := m.scores[0]
		if err := p.Evict.score(m.scores[:], &m.part); err != nil {
			return best(dst, scores, budget)
		}
		for i, r := range dst {
			if math.IsInf(float64(scores[r]), 1) {
				x[i] = scores[r]
			}
		}
		m.order = best(m.order, x, budget)
		for i, r := range m.order {
			dst[i] = dst[r]
		}
		dst = dst[:len(m.order)]
		m.part, m.cfg = Observation{}, Config{}
		o.release(floats, doubles)
	}
	return dst
}

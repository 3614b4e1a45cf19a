package kvcache

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/topk"
)

// AdaKV divides one budget among the key heads of a layer by the scores of a policy (Feng
// et al. 2024, arXiv 2407.11550): of all heads together the highest stay, but of each at
// least a share Safe of its own budget. Heads then really hold different numbers of
// tokens, and memory falls with them.
type AdaKV struct {
	// Evict is the policy whose scores and budget it goes by; it must be given.
	Evict Evictor
	// Safe is the share of a head's budget that it keeps; 0 stands for 0.2.
	Safe float64
}

func (p AdaKV) safe() float64 {
	if p.Safe == 0 {
		return 0.2
	}
	return p.Safe
}

func (p AdaKV) check(cfg *Config) error {
	if !(p.Safe >= 0 && p.Safe <= 1) {
		return check.Errorf(ErrConfig, "kvcache: AdaKV.Safe is %v, want 0 to 1", p.Safe)
	}
	return checkWrapped("AdaKV", p.Evict, cfg)
}

// checkWrapped reports an evictor that another cannot wrap.
func checkWrapped(name string, e Evictor, cfg *Config) error {
	if e == nil {
		return check.Errorf(ErrConfig, "kvcache: %s.Evict is nil", name)
	}
	if err := e.check(cfg); err != nil {
		return err
	}
	if u := e.rule(cfg); u.before || u.shares != nil || u.keeps != nil || u.merge != nil {
		return check.Errorf(ErrConfig, "kvcache: %s.Evict is a %T, want a policy that only scores tokens", name, e)
	}
	return nil
}

func (p AdaKV) weights() []blas32.General { return weightsOf(p.Evict) }

func weightsOf(e Evictor) []blas32.General {
	if w, ok := e.(weighty); ok {
		return w.weights()
	}
	return nil
}

func (p AdaKV) describe() string { return "AdaKV " + describe(p.safe()) + describe(p.Evict) }

func (p AdaKV) rule(cfg *Config) rule {
	u := p.Evict.rule(cfg)
	u.shares = p.share
	return u
}

func (p AdaKV) score(dst [][]float32, o *Observation) error { return p.Evict.score(dst, o) }

// share keeps of all heads' rows those of the highest scores.
func (p AdaKV) share(keep [][]int32, o *Observation, scores [][]float32, budget int) {
	m := o.room()
	from := m.ranks[:0]
	all, drop := 0, 0
	for _, x := range scores {
		from = append(from, all)
		all += len(x)
		drop += len(x) - min(budget, len(x))
	}
	m.ranks = from
	// The lowest go, of equal ones the first: all but the highest of the list turned around.
	turned := o.vector(all)
	for g, x := range scores {
		last := all - 1 - from[g]
		for i, y := range x {
			turned[last-i] = y
		}
		m.order = topk.Select(m.order, x, int(p.safe()*float64(min(budget, len(x)))))
		for _, r := range m.order {
			turned[last-int(r)] = float32(math.Inf(1))
		}
	}
	for g := range keep {
		keep[g] = keep[g][:0]
	}
	m.order = topk.Select(m.order, turned, all-drop)
	for _, i := range m.order {
		at := all - 1 - int(i)
		g := len(from) - 1
		for from[g] > at {
			g--
		}
		keep[g] = append(keep[g], int32(at-from[g]))
	}
	for _, rows := range keep {
		slices.Sort(rows)
	}
}

// Chunk keeps whole stretches of tokens by the mean of a policy's scores, summed over the
// key heads, which then hold the same tokens (Liu et al. 2025, arXiv 2502.00299). The last
// stretch may be shorter.
type Chunk struct {
	// Evict is the policy whose scores and budget it goes by; it must be given.
	Evict Evictor
	// Length is how many tokens a stretch has; 0 stands for 20.
	Length int
}

func (p Chunk) length() int {
	if p.Length == 0 {
		return 20
	}
	return p.Length
}

func (p Chunk) check(cfg *Config) error {
	if p.Length < 0 || p.Length > 1<<20 {
		return check.Errorf(ErrConfig, "kvcache: Chunk.Length is %d, want 0 to 2^20", p.Length)
	}
	return checkWrapped("Chunk", p.Evict, cfg)
}

func (p Chunk) weights() []blas32.General { return weightsOf(p.Evict) }
func (p Chunk) describe() string          { return "Chunk " + describe(p.length()) + describe(p.Evict) }

func (p Chunk) rule(cfg *Config) rule {
	u := p.Evict.rule(cfg)
	u.shares = p.share
	return u
}

func (p Chunk) score(dst [][]float32, o *Observation) error { return p.Evict.score(dst, o) }

// share keeps, beside what must stay, as many stretches as fit the budget.
func (p Chunk) share(keep [][]int32, o *Observation, scores [][]float32, budget int) {
	n := len(scores[0])
	chunks := (n + p.length() - 1) / p.length()
	rows := p.rows(o, scores, max(1, chunks*min(budget, n)/max(n, 1)))
	for g, x := range scores {
		keep[g] = keep[g][:0]
		for r := range x {
			_, in := slices.BinarySearch(rows, int32(r))
			if in || math.IsInf(float64(x[r]), 1) {
				keep[g] = append(keep[g], int32(r))
			}
		}
	}
}

// rows returns those of the n stretches with the highest scores.
func (p Chunk) rows(o *Observation, scores [][]float32, n int) (rows []int32) {
	held := len(scores[0])
	means := o.vector((held + p.length() - 1) / p.length())
	for c := range means {
		from := c * p.length()
		to, sum := min(from+p.length(), held), float64(0)
		for i := from; i < to; i++ {
			for _, x := range scores {
				if i < len(x) && !math.IsInf(float64(x[i]), 1) {
					sum += float64(x[i])
				}
			}
		}
		means[c] = float32(sum / float64(to-from))
	}
	m := o.room()
	m.order = best(m.order, means, n)
	rows = m.rows[:0]
	for _, c := range m.order {
		for i := int(c) * p.length(); i < min((int(c)+1)*p.length(), held); i++ {
			rows = append(rows, int32(i))
		}
	}
	m.rows = rows
	return rows
}

// PyramidBudgets returns how many past tokens each of a model's layers holds, beside the
// window of its last queries, where capacity tokens, window included, is the mean (Cai et
// al. 2024, arXiv 2406.02069): more in the first layers, by equal steps to a beta-th of
// the mean in the last. tokens is the prompt's length; 0 for beta stands for 20.
func PyramidBudgets(layers, tokens, capacity, window, beta int) []int {
	list := make([]int, max(layers, 0))
	for l := range list {
		list[l] = pyramidBudget(l, layers, tokens, capacity, window, beta)
	}
	return list
}

// pyramidBudget is that of one layer.
func pyramidBudget(layer, layers, tokens, capacity, window, beta int) int {
	if beta <= 0 {
		beta = 20
	}
	past := max(0, capacity-window)
	least := past / beta
	top := 2*past - least
	if top >= tokens-window {
		top = max(0, tokens-window)
		least = 2*past - top
	}
	switch {
	case tokens < 2*past:
		return past
	case layers > 1:
		return top - layer*((top-least)/(layers-1))
	}
	return top
}

// PyramidShares returns how many tokens each layer holds in kvpress's reading of
// PyramidKV: the share 1 - ratio of the tokens on average, the window's among them.
func PyramidShares(layers, tokens int, ratio float64, window, beta int) []int {
	if beta <= 0 {
		beta = 20
	}
	n, w := float64(tokens), float64(window)
	past := n * (1 - ratio)
	least := past / float64(beta)
	top := 2*past - least
	if top >= n-w {
		top = n - w
		least = 2*past - top
	}
	list := make([]int, max(layers, 0))
	for l := range list {
		if !(n >= top && top >= least && least >= w) {
			list[l] = int(math.RoundToEven(n * (1 - ratio)))
			continue
		}
		step := 0.0
		if layers > 1 {
			step = (top - least) / float64(layers-1)
		}
		list[l] = int(math.RoundToEven(top - float64(l)*step))
	}
	return list
}

// Pyramid is SnapKV with the budget that PyramidBudgets gives a layer.
type Pyramid struct {
	// SnapKV is the policy; its Budget is the mean of all layers.
	SnapKV SnapKV
	// Layer is the layer's number, of Layers.
	Layer, Layers int
	// Beta is how many times less than the mean the last layer holds; 0 stands for 20.
	Beta int
}

func (p Pyramid) check(cfg *Config) error {
	if p.Layers < 1 || p.Layer < 0 || p.Layer >= p.Layers || p.Layers > 1<<16 || p.Beta < 0 {
		return check.Errorf(ErrConfig, "kvcache: Pyramid.Layer is %d of %d, Beta %d", p.Layer, p.Layers, p.Beta)
	}
	return p.SnapKV.check(cfg)
}

func (p Pyramid) rule(cfg *Config) rule {
	u := p.SnapKV.rule(cfg)
	u.keeps = func(dst []int32, o *Observation, head int, scores []float32, budget int) []int32 {
		w := p.SnapKV.window()
		n := pyramidBudget(p.Layer, p.Layers, len(scores), min(budget, p.SnapKV.Budget), w, p.Beta) + w
		return best(dst, scores, max(n, cfg.Keep+cfg.Recent))
	}
	return u
}

func (p Pyramid) score(dst [][]float32, o *Observation) error { return p.SnapKV.score(dst, o) }

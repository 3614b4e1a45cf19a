package kvcache

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// GroupRule says where SnapKV puts the query heads of a key head together.
type GroupRule uint8

const (
	// GroupBeforePool takes the mean over the group before pooling (KVCache-Factory).
	GroupBeforePool GroupRule = iota
	// GroupAfterPool takes it after pooling, and the mean over the window (kvpress).
	GroupAfterPool
)

// SnapKV holds the tokens that the last Window queries of a prompt weigh most, smoothed
// over neighbours, besides that window (Li et al. 2024, arXiv 2404.14469). State.Compact
// at the end of the prompt does it; heads hold different tokens.
type SnapKV struct {
	// Budget is how many tokens a key head holds, the window, Keep and Recent among them.
	Budget int
	// Window is how many queries look; 0 stands for 32.
	Window int
	// Kernel is how many neighbours a score is pooled over, an odd number; 0 stands for 5.
	Kernel int
	// Pool says what of them; 0 is AveragePool.
	Pool Pooling
	// Group says when the query heads of a key head are put together; 0 is GroupBeforePool.
	Group GroupRule
}

func (p SnapKV) window() int {
	if p.Window == 0 {
		return 32
	}
	return p.Window
}

func (p SnapKV) kernel() int {
	if p.Kernel == 0 {
		return 5
	}
	return p.Kernel
}

func (p SnapKV) check(cfg *Config) error {
	switch {
	case p.Window < 0 || p.window() > 1<<16:
		return check.Errorf(ErrConfig, "kvcache: SnapKV.Window is %d, want 0 to 65,536", p.Window)
	case p.Budget < p.window():
		return check.Errorf(ErrConfig, "kvcache: SnapKV.Budget is %d, want at least Window = %d", p.Budget, p.window())
	case p.Kernel < 0 || p.kernel()%2 == 0 || p.Kernel > 1<<16:
		return check.Errorf(ErrConfig, "kvcache: SnapKV.Kernel is %d, want an odd number", p.Kernel)
	case p.Pool > NoPool || p.Group > GroupAfterPool:
		return check.Errorf(ErrConfig, "kvcache: SnapKV.Pool is %d and Group %d", p.Pool, p.Group)
	}
	return checkBudget("SnapKV", p.Budget, cfg)
}

func (p SnapKV) rule(*Config) rule { return rule{queries: p.window(), budget: p.Budget} }

func (p SnapKV) score(dst [][]float32, o *Observation) error {
	w := min(p.window(), o.Queries.Rows)
	weights := windowWeights(o, w)
	top := float32(0)
	for g := range dst {
		n := p.scoreHead(o, dst[g], weights[g*o.group():(g+1)*o.group()], w)
		for _, x := range dst[g][:n] {
			top = max(top, x)
		}
	}
	for g := range dst {
		for j := max(0, len(dst[g])-w); j < len(dst[g]); j++ {
			dst[g][j] = top + 1
		}
	}
	return nil
}

// scoreHead scores the tokens before the window by the weights [window, held] of the query
// heads of a key head, and returns how many there are.
func (p SnapKV) scoreHead(o *Observation, dst []float32, weights []blas32.General, w int) (n int) {
	n = max(0, len(dst)-w)
	sum, pooled := o.vector(n), o.vector(n)
	clear(dst)
	add := func(m blas32.General) {
		for i := range m.Rows {
			for j, x := range mat.Row(m, i)[:n] {
				sum[j] += x
			}
		}
	}
	mean := 1 / float32(len(weights))
	if p.Group == GroupBeforePool {
		for _, m := range weights {
			add(m)
		}
		pool(dst[:n], sum, p.kernel(), p.Pool)
	} else {
		mean /= float32(max(w, 1))
		for _, m := range weights {
			clear(sum)
			add(m)
			pool(pooled, sum, p.kernel(), p.Pool)
			for j, x := range pooled {
				dst[j] += x
			}
		}
	}
	asm.Scale(dst[:n], mean, dst[:n])
	return n
}

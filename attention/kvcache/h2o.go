package kvcache

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/topk"
)

// H2O holds the heavy hitters: after each chunk of queries, the tokens that have received
// the most weight from all queries since they came, summed over the query heads of a key
// head, besides the last Config.Recent (Zhang et al. 2023, arXiv 2306.14048). Heads hold
// different tokens.
type H2O struct {
	// Budget is how many tokens a key head holds, Keep and Recent among them.
	Budget int
}

func (p H2O) check(cfg *Config) error { return checkBudget("H2O", p.Budget, cfg) }
func (p H2O) rule(*Config) rule       { return rule{mass: true, each: true, budget: p.Budget} }

func (H2O) score(dst [][]float32, o *Observation) error {
	for g := range dst {
		copy(dst[g], o.Mass[g])
	}
	return nil
}

// ObservedAttention is H2O's weight divided by the number of queries that could see a
// token, which does not favour the oldest (kvpress).
type ObservedAttention struct{ Budget int }

func (p ObservedAttention) check(cfg *Config) error {
	return checkBudget("ObservedAttention", p.Budget, cfg)
}
func (p ObservedAttention) rule(*Config) rule { return rule{mass: true, budget: p.Budget} }

func (ObservedAttention) score(dst [][]float32, o *Observation) error {
	for g := range dst {
		for i, x := range o.Mass[g] {
			dst[g][i] = x / float32(o.s.n-o.s.position(g, i)) / float32(o.group())
		}
	}
	return nil
}

// TOVA holds the tokens that the last query weighed most, on average over all query
// heads: the same for every key head (Oren et al. 2024, arXiv 2401.06104).
type TOVA struct {
	// Budget is how many tokens a key head holds, Keep and Recent among them.
	Budget int
}

func (p TOVA) check(cfg *Config) error { return checkBudget("TOVA", p.Budget, cfg) }
func (p TOVA) rule(*Config) rule       { return rule{queries: 1, each: true, budget: p.Budget} }

func (TOVA) score(dst [][]float32, o *Observation) error {
	if o.Queries.Rows == 0 {
		return check.Errorf(ErrState, "kvcache: TOVA of a state without queries")
	}
	p := windowWeights(o, 1)
	for g := range dst {
		if len(dst[g]) != len(dst[0]) {
			return check.Errorf(ErrCall, "kvcache: TOVA of heads that hold different numbers of tokens")
		}
		clear(dst[g])
	}
	// One list for all: the mean.
	for h := range p {
		for i, x := range mat.Row(p[h], 0) {
			dst[0][i] += x / float32(len(p))
		}
	}
	x := dst[0]
	if n := len(x); n > 0 {
		top := float32(0)
		for _, y := range x {
			top = max(top, y)
		}
		x[n-1] = top + 1
	}
	for g := range dst[1:] {
		copy(dst[g+1], x)
	}
	return nil
}

// HeavyHitters returns which keys each query of a whole sequence would see under H2O with
// a budget, from the causal weights p [tokens, tokens] of full attention: the simulation
// of the published evaluation. The first budget queries see the first budget keys, which
// a causal mask is to cut; every other itself and the budget-1 keys that have gathered
// the most weight, and what is dropped once stays so.
func HeavyHitters(p blas32.General, budget int) attention.MatrixMask {
	n := min(p.Rows, p.Cols)
	m := attention.MatrixMask{Queries: n, Keys: n, Seen: make([]bool, n*n)}
	mass := make([]float32, n)
	for i := range n {
		seen := m.Seen[i*n:][:n]
		if i < budget {
			for j := range min(budget, n) {
				seen[j] = true
			}
			asm.Add(mass, mass, mat.Row(p, i)[:n])
			continue
		}
		for _, j := range topk.Select(nil, mass, budget-1) {
			seen[j] = true
		}
		seen[i] = true
		for j, x := range mat.Row(p, i)[:n] {
			mass[j] += x
			if !seen[j] {
				mass[j] = 0
			}
		}
	}
	return m
}

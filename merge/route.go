package merge

import (
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/scratch"
)

// SetRoute makes p the plan that keeps the tokens whose route is path and leaves the others
// out. A layer of several paths (a big and a small MLP, and none at all, in Duo-LLM, Alizadeh
// et al. 2024, arXiv 2410.10846) makes a plan for each, applies it, computes the few tokens
// that it leaves, and adds what Unmerge gives to all: where a token was left out that is 0,
// so that a token without a path skips the layer. Errors are those of SetKeep.
func (p *Plan) SetRoute(route []int32, path int32) error {
	if len(route) > maxTokens {
		return check.Errorf(ErrShape, "merge: %d tokens, want 0 to %d", len(route), maxTokens)
	}
	keep := scratch.Sized(p.spare.keep, len(route))
	p.spare.keep = keep
	for t, r := range route {
		keep[t] = r == path
	}
	return p.SetKeep(keep)
}

// RouteCost returns what tokens of a route cost, cost[path] being what one costs that takes
// a path, in any unit; other routes cost nothing.
func RouteCost(route []int32, cost []float64) (sum float64) {
	for _, r := range route {
		if r >= 0 && int(r) < len(cost) {
			sum += cost[r]
		}
	}
	return sum
}

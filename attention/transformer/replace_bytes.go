package transformer

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
)

// triedTokens is how many tokens tell what a Replacement's state of more takes.
const triedTokens = 1024

// stateBytes returns what a state of tokens takes, whose queries have q columns and keys kv: what
// it does take, or where these are many as much more as the second half of a few take.
func (r *Replacement) stateBytes(q, kv, tokens int) int64 {
	if tokens <= triedTokens {
		return r.tryState(q, kv, max(tokens, 0))
	}
	half, whole := r.tryState(q, kv, triedTokens/2), r.tryState(q, kv, triedTokens)
	each := float64(max(whole-half, 0)) / (triedTokens / 2)
	return whole + int64(min(each*float64(tokens-triedTokens), 1<<62))
}

// tryState returns what a state of some tokens takes, or 0 where none can be made.
func (r *Replacement) tryState(q, kv, tokens int) int64 {
	st, err := r.newState(StateConfig{MaxTokens: tokens})
	if err != nil {
		return 0
	}
	if tokens > 0 {
		x := mat.New(tokens, 2*q+2*kv)
		call := attention.Call{
			Dst: mat.Columns(x, 0, q), Q: mat.Columns(x, q, q), K: []blas32.General{mat.Columns(x, 2*q, kv)}, V: []blas32.General{mat.Columns(x, 2*q+kv, kv)},
			State: st, Workers: 1,
		}
		if err := r.operator.Run(context.Background(), &call); err != nil {
			return 0
		}
	}
	return st.Bytes()
}

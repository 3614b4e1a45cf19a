package attention

import (
	"math"

	"github.com/subquad/subquad/internal/check"
	"gonum.org/v1/gonum/blas/blas32"
)

// View is a State of keys and values that stand elsewhere, in matrices of the caller's:
// a step without keys looks at them as it would at those of a State, where they stand.
// The zero value is ready. It is for Call.State alone, and cannot take up tokens.
type View struct {
	state State
	block block
	list  [1]*block
}

// Of sets the view to keys [tokens, KVHeads*HeadDim] and values [tokens,
// KVHeads*ValueDim], the first of them at a position, for a; it returns the view's
// state, which is valid until the next Of. Errors match ErrShape or ErrCall.
func (x *View) Of(a *Attention, k, v blas32.General, first int64) (*State, error) {
	if a == nil {
		return nil, check.Errorf(ErrCall, "attention: the operator of a view is nil")
	}
	cfg := &a.cfg
	if err := check.Matrix(ErrShape, "attention", "k", k, -1, cfg.KVHeads*cfg.HeadDim, "KVHeads*HeadDim"); err != nil {
		return nil, err
	}
	if err := check.Matrix(ErrShape, "attention", "v", v, k.Rows, cfg.KVHeads*cfg.ValueDim, "KVHeads*ValueDim"); err != nil {
		return nil, err
	}
	if first < 0 || first > MaxPosition || first > int64(math.MaxInt-k.Rows) {
		return nil, check.Errorf(ErrCall, "attention: a view from position %d on, want 0 to 2^60", first)
	}
	x.block = block{k: storeOf(k, cfg.KVHeads, cfg.HeadDim), v: storeOf(v, cfg.KVHeads, cfg.ValueDim)}
	x.list[0] = &x.block
	n := int(first) + k.Rows
	x.state = State{op: a, cfg: StateConfig{MaxTokens: max(k.Rows, 1)}, n: n, first: int(first), floor: int(first), blocks: x.list[:]}
	return &x.state, nil
}

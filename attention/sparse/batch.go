package sparse

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
)

// batchOf is what a call says of its sequences, for an operator whose states are S; list is
// memory for those of the call.
func batchOf[S interface {
	comparable
	attention.Past
}](call *attention.Call, list *[]S) (b pack.Batch[S], err error) {
	var none S
	b.Offsets = call.Offsets
	if call.State != nil {
		if b.State, _ = call.State.(S); b.State == none {
			return b, check.NoState[S]("sparse", "State", call.State)
		}
	}
	if call.States == nil {
		return b, nil
	}
	*list = append((*list)[:0], none)[:0] // not nil, even where there are none
	for i, x := range call.States {
		s, _ := x.(S)
		if s == none {
			return b, check.NoState[S]("sparse", fmt.Sprintf("States[%d]", i), x)
		}
		*list = append(*list, s)
	}
	b.States = *list
	return b, nil
}

// appends puts tokens into states of single key heads; it holds the call for that.
type appends struct {
	call attention.Call
	one  [2]blas32.General
}

// to has the states, one for each key head, take up keys and values, or some of the states some
// of them after an error.
func (a *appends) to(ctx context.Context, states []*attention.State, op *attention.Attention, k, v blas32.General) error {
	defer func() { *a = appends{} }()
	cfg := op.Config()
	for g, s := range states {
		a.one = [2]blas32.General{mat.Columns(k, g*cfg.HeadDim, cfg.HeadDim), mat.Columns(v, g*cfg.ValueDim, cfg.ValueDim)}
		a.call = attention.Call{K: a.one[:1], V: a.one[1:], State: s}
		if err := op.Run(ctx, &a.call); err != nil {
			return named(err)
		}
	}
	return nil
}

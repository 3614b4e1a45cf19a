package sparse

import (
	"fmt"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
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

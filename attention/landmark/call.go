package landmark

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/state"
)

// tokens are the rows of a call of Landmark or Meta, whose operators share how they are
// called.
type tokens struct {
	dst, q, k, v, lse blas32.General
	marks             []bool // the tokens that are landmarks, or meta-tokens
	workers           int
}

// rows returns a sequence of the tokens.
func (t *tokens) rows(x pack.Segment) tokens {
	part := tokens{
		mat.Rows(t.dst, x.From, x.To), mat.Rows(t.q, x.From, x.To), mat.Rows(t.k, x.From, x.To), mat.Rows(t.v, x.From, x.To), t.lse,
		t.marks[x.From:x.To], t.workers,
	}
	if t.lse.Rows > 0 {
		part.lse = mat.Rows(t.lse, x.From, x.To)
	}
	return part
}

// check reports what is out of shape; name is that of the marks. Nothing has been
// written.
func (t *tokens) check(name string, heads, kvHeads, headDim, valueDim int) error {
	n := t.q.Rows
	if err := check.QKV("landmark", t.q, t.k, t.v, n, heads, kvHeads, headDim, valueDim); err != nil {
		return err
	}
	if len(t.marks) != n {
		return check.Errorf(attention.ErrShape, "landmark: %s has %d elements, want one for each token = %d", name, len(t.marks), n)
	}
	outputs := [...]check.Out{
		{Name: "dst", M: t.dst, Rows: n, Cols: heads * valueDim, What: "Heads*ValueDim", Needed: true},
		{Name: "LSE", M: t.lse, Rows: n, Cols: heads, What: "Heads"},
	}
	return check.Outputs("landmark", outputs[:], t.q, t.k, t.v)
}

// begin reports a call that uses what the operator cannot do, and returns its options,
// which it must have.
func begin[O any](ctx context.Context, call *attention.Call, can attention.Uses) (*O, error) {
	if err := check.Call("landmark", ctx, call != nil); err != nil {
		return nil, err
	}
	if err := call.Honor("landmark", can); err != nil {
		return nil, err
	}
	if err := call.One("landmark"); err != nil {
		return nil, err
	}
	o, _ := call.Options.(*O)
	if o == nil {
		return nil, check.Errorf(attention.ErrCall, "landmark: Options is a %T, want a %T", call.Options, o)
	}
	return o, nil
}

// past is a *State or a *MetaState.
type past interface {
	comparable
	attention.Past
	owner() state.Fingerprint // of the operators that the state belongs to
}

// states are those of a call.
type states[S past] struct {
	layout pack.Layout[S]
	list   []S                              // of attention.Call.States
	print  state.Fingerprint                // of the operator
	own    func(name string, state S) error // checkOwner
}

// batch is what a call says of its sequences.
func (t *states[S]) batch(call *attention.Call) (b pack.Batch[S], err error) {
	var none S
	b.Offsets = call.Offsets
	if call.State != nil {
		if b.State, _ = call.State.(S); b.State == none {
			return b, check.NoState[S]("landmark", "State", call.State)
		}
	}
	if call.States == nil {
		return b, nil
	}
	t.list = append(t.list[:0], none)[:0] // not nil, even where States is empty
	for i, x := range call.States {
		s, _ := x.(S)
		if s == none {
			return b, check.NoState[S]("landmark", fmt.Sprintf("States[%d]", i), x)
		}
		t.list = append(t.list, s)
	}
	b.States = t.list
	return b, nil
}

// lay lays out a batch of that many rows for an operator.
func (t *states[S]) lay(b pack.Batch[S], rows int, print state.Fingerprint) error {
	if t.own == nil {
		t.own = t.checkOwner
	}
	b.Rows, t.print = rows, print
	return t.layout.Lay("landmark", b, t.own)
}

// checkOwner reports a state that is not one of the operator's.
func (t *states[S]) checkOwner(name string, s S) error {
	var none S
	switch {
	case s == none:
		return check.NilState("landmark", name)
	case s.owner() != t.print:
		return check.Errorf(attention.ErrState, "landmark: %s is of another operator", name)
	}
	return nil
}

// stateOf returns the state of a sequence, or nil.
func (t *states[S]) stateOf(sequence int) (s S) {
	if len(t.layout.States) > 0 {
		s = t.layout.States[sequence]
	}
	return s
}

// clear forgets the caller's states.
func (t *states[S]) clear() {
	t.layout.Clear()
	clear(t.list)
}

// named gives an error of package attention this package's name.
func named(err error) error {
	if err == nil {
		return nil
	}
	return check.Named("landmark", err)
}

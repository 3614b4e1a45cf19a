// Package pack lays out packed batches: it turns the Offsets, State and States of a
// call into segments, the rows of one sequence each with the state they go on from,
// and cuts segments at chunk borders. Operators and models share it, so that a batch
// means the same in all of them.
package pack

import (
	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

// Batch is what a call says of its sequences. S is the package's pointer to a state.
type Batch[S comparable] struct {
	// Rows is the number of tokens in all.
	Rows int
	// Offsets is the first row of each sequence and at last Rows; nil for one sequence,
	// or, with States, for one row each.
	Offsets []int
	// State goes with a single sequence, States with one each. The zero value, or a nil
	// States, is for none.
	State  S
	States []S
}

// Segment is the rows From (included) to To (excluded), of one sequence.
type Segment struct{ From, To int }

// Layout is a laid out batch. It is reused from call to call without allocation. The
// zero value is ready.
type Layout[S comparable] struct {
	Segments []Segment
	// States has a state for each segment, or none at all.
	States []S

	seen map[S]struct{}
}

// Lay checks a batch and lays it out. Errors name the package and match ErrCall, or
// ErrState for a state given twice and whatever valid returns for one that is not the
// operator's. valid is asked about every state.
func (l *Layout[S]) Lay(pkg string, b Batch[S], valid func(name string, state S) error) error {
	l.Clear()
	if err := l.lay(pkg, b, valid); err != nil {
		l.Clear()
		return err
	}
	return nil
}

func (l *Layout[S]) lay(pkg string, b Batch[S], valid func(name string, state S) error) error {
	var none S
	switch {
	case b.State != none && b.States != nil:
		return check.Errorf(subquad.ErrCall, "%s: State is given together with States", pkg)
	case b.State != none && b.Offsets != nil && len(b.Offsets) != 2:
		return check.Errorf(subquad.ErrCall, "%s: State is given with Offsets of %d sequences, want States", pkg, len(b.Offsets)-1)
	case b.Offsets == nil && b.States != nil:
		if len(b.States) != b.Rows {
			return check.Errorf(subquad.ErrCall, "%s: %d States for %d rows, want one for each row, or Offsets", pkg, len(b.States), b.Rows)
		}
		for t := range b.Rows {
			l.Segments = append(l.Segments, Segment{t, t + 1})
		}
	case b.Offsets == nil:
		l.Segments = append(l.Segments, Segment{0, b.Rows})
	default:
		if err := check.Offsets(pkg, "Offsets", b.Offsets, b.Rows, -1); err != nil {
			return err
		}
		for i, from := range b.Offsets[:len(b.Offsets)-1] {
			l.Segments = append(l.Segments, Segment{from, b.Offsets[i+1]})
		}
		if b.States != nil && len(b.States) != len(l.Segments) {
			return check.Errorf(subquad.ErrCall, "%s: %d States for %d sequences", pkg, len(b.States), len(l.Segments))
		}
	}
	if b.State != none {
		l.States = append(l.States, b.State)
		return valid("State", b.State)
	}
	return l.take(pkg, b.States, valid)
}

// take keeps the states, each of which may be there once.
func (l *Layout[S]) take(pkg string, states []S, valid func(name string, state S) error) error {
	if len(states) > 1 && l.seen == nil {
		l.seen = map[S]struct{}{}
	}
	for i, st := range states {
		if err := valid("a state of States", st); err != nil {
			return err
		}
		if len(states) > 1 {
			if l.seen[st] = struct{}{}; len(l.seen) != i+1 {
				return check.Errorf(subquad.ErrState, "%s: States[%d] is given twice", pkg, i)
			}
		}
		l.States = append(l.States, st)
	}
	return nil
}

// Clear forgets the batch, so that the states of a caller are not kept.
func (l *Layout[S]) Clear() {
	l.Segments = l.Segments[:0]
	clear(l.States)
	l.States = l.States[:0]
	clear(l.seen)
}

// EachRow is the States of a StepBatch: a row for each, none for none.
func EachRow[S any](states []S) []S {
	if states == nil {
		return []S{}
	}
	return states
}

// Cut returns how many of n tokens, the first of which is at an absolute position, there
// are up to the next border: a position that chunk divides. Cutting there, wherever a
// call begins, gives every split of a sequence the same chunks.
func Cut(position, n, chunk int) int { return min(n, chunk-position%chunk) }

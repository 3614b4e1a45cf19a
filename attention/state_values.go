package attention

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// SetValues replaces the values of some of the tokens held: those of rows, numbered as in
// Keep, become the rows of v [len(rows), KVHeads*ValueDim], in the type they are stored in.
// Keys and positions stay. Pages that other states share are copied first.
//
// Errors match ErrCall, for rows that are not ascending numbers below Held, a ring, or
// SharedValues; ErrShape; or ErrFull, where the pool has no page to copy to. They change
// nothing.
func (s *State) SetValues(rows []int32, v blas32.General) error {
	switch {
	case s.cfg.Window > 0:
		return check.Errorf(ErrCall, "attention: SetValues of a ring, whose rows have no fixed numbers")
	case s.cfg.SharedValues:
		return check.Errorf(ErrCall, "attention: SetValues of a state whose values are part of its keys")
	}
	if err := s.checkHeld("SetValues", rows); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "attention", "v", v, len(rows), s.op.cfg.KVHeads*s.op.cfg.ValueDim, "KVHeads*ValueDim"); err != nil {
		return err
	}
	if len(rows) == 0 {
		return nil
	}
	if err := s.own(s.skip+int(rows[0]), s.skip+int(rows[len(rows)-1])+1); err != nil {
		return err
	}
	for i, r := range rows {
		b, at, _ := s.rowPlace(int(r))
		b.v.put(at, mat.Rows(v, i, i+1))
	}
	return nil
}

// checkHeld reports rows that are not ascending numbers of tokens held.
func (s *State) checkHeld(call string, rows []int32) error {
	held := s.Held()
	for i, r := range rows {
		if int(r) >= held || r < 0 || i > 0 && r <= rows[i-1] {
			return check.Errorf(ErrCall, "attention: %s: rows[%d] is %d, want ascending numbers below Held = %d", call, i, r, held)
		}
	}
	return nil
}

package attention

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
)

// Segment is a stretch of a state's keys and values in their order, where they
// stand: rows of tokens that follow each other from Position on.
type Segment struct {
	Position, Tokens int
	row              int
	b                *block
	heads            int
	valueDim         int
}

// Segments appends to list what the state holds, oldest first.
func (s *State) Segments(list []Segment) []Segment {
	for _, x := range s.spans(nil, 0, s.n) {
		x.runs(func(i, n int) {
			list = append(list, Segment{x.at(i), n, x.row + i, x.b, s.op.cfg.KVHeads, s.op.cfg.ValueDim})
		})
	}
	return list
}

// Float32 returns the keys [Tokens, KVHeads*HeadDim] and the values [Tokens,
// KVHeads*ValueDim] themselves, to be read and not kept over the next step, or
// false where they are stored in another type or values are part of the keys, and of a
// Segment{}.
func (g Segment) Float32() (k, v blas32.General, ok bool) {
	if g.b == nil || g.b.k.format != asm.Float32 || g.b.shared {
		return k, v, false
	}
	of := func(s *store) blas32.General {
		cols := s.heads * s.dim
		return blas32.General{Rows: g.Tokens, Cols: cols, Stride: cols, Data: s.float32[g.row*cols:][:g.Tokens*cols]}
	}
	return of(&g.b.k), of(&g.b.v), true
}

// Keys sets dst [n, HeadDim] to the keys of one head from token from of the segment
// on, as they are stored: rotated or not, read back from their storage type. Errors match
// ErrShape or ErrCall.
func (g Segment) Keys(dst blas32.General, head, from int) error {
	if g.b == nil {
		return g.none()
	}
	return g.readHead(dst, &g.b.k, head, from, g.b.k.dim, "HeadDim")
}

// Values sets dst [n, ValueDim] likewise. Errors match ErrShape or ErrCall.
func (g Segment) Values(dst blas32.General, head, from int) error {
	if g.b == nil {
		return g.none()
	}
	return g.readHead(dst, g.b.valueStore(), head, from, g.valueDim, "ValueDim")
}

// LogWeights sets dst [n] to the log-weights of the keys of one head from token from
// of the segment on: zeros for a state that keeps none. Errors match ErrCall.
func (g Segment) LogWeights(dst []float32, head, from int) error {
	if g.b == nil {
		return g.none()
	}
	if err := g.checkRange(head, from, len(dst)); err != nil {
		return err
	}
	clear(dst)
	if len(g.b.weights) > 0 {
		copy(dst, g.b.logWeights(head, g.row+from, len(dst)))
	}
	return nil
}

// none is the error of a Segment{}, as State.Segment returns with false.
func (g Segment) none() error {
	return check.Errorf(ErrState, "attention: the segment is of no state")
}

func (g Segment) checkRange(head, from, n int) error {
	if head < 0 || head >= g.heads || from < 0 || from > g.Tokens || n > g.Tokens-from {
		return check.Errorf(ErrCall, "attention: head %d, tokens %d to %d of a segment of %d heads and %d tokens", head, from, from+n, g.heads, g.Tokens)
	}
	return nil
}

func (g Segment) readHead(dst blas32.General, s *store, head, from, cols int, what string) error {
	if err := check.Matrix(ErrShape, "attention", "dst", dst, -1, cols, what); err != nil {
		return err
	}
	if err := g.checkRange(head, from, dst.Rows); err != nil {
		return err
	}
	if dst.Rows > 0 {
		s.widen(dst, head, g.row+from)
	}
	return nil
}

package merge

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// Mode is how the rows of the tokens that become one are put together.
type Mode int

const (
	// Mean is the mean of the rows, each counted once.
	Mean Mode = iota
	// Sum is their sum.
	Sum
	// Max is the largest of each column, NaN where one is NaN.
	Max
	// First and Last are the row of the first and of the last token.
	First
	Last
	// Kept is the row of the token whose place the merged token takes, Plan.Kept: the
	// destination of the matching, and for a cache of keys that must not be mixed.
	Kept
)

// String returns the mode's name.
func (m Mode) String() string {
	if m < Mean || m > Kept {
		return "unknown mode"
	}
	return [...]string{"mean", "sum", "max", "first", "last", "kept"}[m]
}

// Apply sets dst [Len, columns] from x [Tokens, columns]: a row of dst is made of
// those of its tokens, in their order. The row of a token that is alone is copied.
// dst shares no element with x. It costs O(Tokens columns), and allocates nothing. Errors
// match ErrShape or ErrCall.
func (p *Plan) Apply(dst, x blas32.General, mode Mode) error {
	if mode < Mean || mode > Kept {
		return check.Errorf(ErrCall, "merge: mode %d, want Mean to Kept", mode)
	}
	if err := p.checkRows(dst, p.Len(), "Len", x, p.Tokens(), "Tokens"); err != nil {
		return err
	}
	for j := range dst.Rows {
		d, t := mat.Row(dst, j), p.member(j, mode)
		copy(d, mat.Row(x, t))
		if p.count[j] == 1 || mode > Max {
			continue
		}
		for t := p.next[t]; t >= 0; t = p.next[t] {
			r := mat.Row(x, int(t))
			if mode != Max {
				asm.Add(d, d, r)
				continue
			}
			for c, v := range r {
				d[c] = max(d[c], v)
			}
		}
		if mode == Mean {
			asm.Scale(d, 1/float32(p.count[j]), d)
		}
	}
	return nil
}

// member returns the token of merged token j that a mode begins with.
func (p *Plan) member(j int, mode Mode) int {
	t := p.first[j]
	switch mode {
	case Kept:
		t = p.kept[j]
	case Last:
		for p.next[t] >= 0 {
			t = p.next[t]
		}
	}
	return int(t)
}

// ApplyWeighted sets dst [Len, columns] to the size-weighted means of x [Tokens,
// columns], and total [Len] to the sizes of the result:
//
//	total[j] = sum of size[t],  dst[j] = sum of size[t] x[t] / total[j]
//
// over the tokens t of j, with positive sizes [Tokens], or nil where each is 1. The
// sum of size times row is conserved. dst and total share no element with x and size.
// The row of a token that is alone is copied. It allocates nothing. Errors match ErrShape or
// ErrCall.
func (p *Plan) ApplyWeighted(dst, x blas32.General, total, size []float32) error {
	if err := p.checkRows(dst, p.Len(), "Len", x, p.Tokens(), "Tokens"); err != nil {
		return err
	}
	if err := p.ApplySizes(total, size); err != nil {
		return err
	}
	for j := range dst.Rows {
		d, t := mat.Row(dst, j), p.first[j]
		if p.count[j] == 1 {
			copy(d, mat.Row(x, int(t)))
			continue
		}
		clear(d)
		for ; t >= 0; t = p.next[t] {
			s := float32(1)
			if size != nil {
				s = size[t]
			}
			asm.Axpy(d, s/total[j], mat.Row(x, int(t)))
		}
	}
	return nil
}

// ApplySizes sets total [Len] to the sums of the sizes [Tokens] of tokens that become
// one, nil where each is 1. Sizes are positive and finite; ErrCall is matched otherwise, and
// ErrShape by other lengths.
func (p *Plan) ApplySizes(total, size []float32) error {
	if err := check.Vector(ErrShape, "merge", "total", total, p.Len(), "the plan's Len"); err != nil {
		return err
	}
	if size == nil {
		for j, n := range p.count {
			total[j] = float32(n)
		}
		return nil
	}
	if err := check.Vector(ErrShape, "merge", "size", size, p.Tokens(), "the plan's Tokens"); err != nil {
		return err
	}
	if mat.OverlapVectors(total, size) {
		return check.Errorf(ErrShape, "merge: total shares elements with size")
	}
	if err := check.Positive(ErrCall, "merge", "size", size); err != nil {
		return err
	}
	clear(total)
	for t, j := range p.index {
		if j >= 0 {
			total[j] += size[t]
		}
	}
	return nil
}

// ApplyPositions sets dst [Len] to the positions of merged tokens, from those of the
// tokens: for Mean weighted by size [Tokens], or each counted once where it is nil;
// Max, First, Last or Kept. The result is what rope.Positions takes as Fractional. Errors
// match ErrShape or ErrCall.
func (p *Plan) ApplyPositions(dst []float64, positions []int64, mode Mode, size []float32) error {
	switch {
	case mode < Mean || mode > Kept || mode == Sum:
		return check.Errorf(ErrCall, "merge: mode %v of positions, want mean, max, first, last or kept", mode)
	case len(positions) != p.Tokens():
		return check.Errorf(ErrShape, "merge: positions has %d elements, want the plan's Tokens = %d", len(positions), p.Tokens())
	case len(dst) != p.Len():
		return check.Errorf(ErrShape, "merge: dst has %d elements, want the plan's Len = %d", len(dst), p.Len())
	case size != nil && mode != Mean:
		return check.Errorf(ErrCall, "merge: sizes together with mode %v, want mean", mode)
	case size != nil && len(size) != p.Tokens():
		return check.Errorf(ErrShape, "merge: size has %d elements, want the plan's Tokens = %d", len(size), p.Tokens())
	}
	if err := check.Positive(ErrCall, "merge", "size", size); err != nil {
		return err
	}
	for j := range dst {
		first := p.member(j, mode)
		at, sum, total := positions[first], 0.0, 0.0
		for t := p.first[j]; t >= 0 && mode <= Max; t = p.next[t] {
			if mode == Max {
				at = max(at, positions[t])
				continue
			}
			s := 1.0
			if size != nil {
				s = float64(size[t])
			}
			sum += float64(s * float64(positions[t]-at))
			total += s
		}
		dst[j] = float64(at)
		if mode == Mean {
			dst[j] += sum / total
		}
	}
	return nil
}

// ApplyMask sets dst[j] [Len] to whether mask [Tokens] is true of any token of j: a
// merged token is there when one of its tokens is. Errors match ErrShape.
func (p *Plan) ApplyMask(dst, mask []bool) error {
	if len(mask) != p.Tokens() || len(dst) != p.Len() {
		return check.Errorf(ErrShape, "merge: dst has %d and mask %d elements, want the plan's Len = %d and Tokens = %d", len(dst), len(mask), p.Len(), p.Tokens())
	}
	for j := range dst {
		any := false
		for t := p.first[j]; t >= 0; t = p.next[t] {
			any = any || mask[t]
		}
		dst[j] = any
	}
	return nil
}

// Unmerge sets dst [Tokens, columns] from y [Len, columns]: every token gets a copy of
// the row of its merged token, and 0 where it was left out. dst shares no element with y.
// Errors match ErrShape.
func (p *Plan) Unmerge(dst, y blas32.General) error {
	if err := p.checkRows(dst, p.Tokens(), "Tokens", y, p.Len(), "Len"); err != nil {
		return err
	}
	for t, j := range p.index {
		if j < 0 {
			clear(mat.Row(dst, t))
			continue
		}
		copy(mat.Row(dst, t), mat.Row(y, int(j)))
	}
	return nil
}

// checkRows returns an error unless from and to have these rows, the same columns and no
// element in common.
func (p *Plan) checkRows(to blas32.General, toRows int, toWhat string, from blas32.General, fromRows int, fromWhat string) error {
	if from.Rows != fromRows {
		return check.Errorf(ErrShape, "merge: the matrix has %d rows, want the plan's %s = %d", from.Rows, fromWhat, fromRows)
	}
	if to.Rows != toRows {
		return check.Errorf(ErrShape, "merge: dst has %d rows, want the plan's %s = %d", to.Rows, toWhat, toRows)
	}
	if err := check.Matrix(ErrShape, "merge", "the matrix", from, fromRows, max(from.Cols, 0), "columns"); err != nil {
		return err
	}
	return check.Output(ErrShape, "merge", to, toRows, from.Cols, "the matrix's columns", from, false)
}

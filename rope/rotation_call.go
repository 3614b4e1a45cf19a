package rope

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// Rotate rotates x in place, its first row standing at position start and every
// other one position on. x is [tokens, heads * HeadDim] for any number of heads:
// queries, keys, or the columns of a fused buffer that hold both. Positions with
// several axes are the same on all of them. start may be negative.
//
// It costs 3 flop for each feature and, for each row, the cosines and sines of
// RotaryDim/2 angles. After the first call of a shape it allocates nothing. Errors match
// ErrShape.
func (r *Rotation) Rotate(x blas32.General, start int64) error {
	return r.Run(context.Background(), &Call{X: x, Positions: Positions{Start: start}})
}

// RotateAt rotates x in place, row t standing at position positions[t], or with
// several axes at positions[t*Axes : (t+1)*Axes]. Errors match ErrShape.
func (r *Rotation) RotateAt(x blas32.General, positions []int64) error {
	return r.Run(context.Background(), &Call{X: x, Positions: Positions{At: positions}})
}

// Shift moves keys that were rotated by r, at any positions, by delta positions
// (on every axis): a K-shift. The attention factor is not applied again. It works
// on what Rotate left, so that in float32 each shift adds a rounding of 1e-7;
// where keys are shifted many times, keep their positions and shift once, or
// cache them unrotated. Errors match ErrShape.
func (r *Rotation) Shift(k blas32.General, delta int64) error {
	return r.Run(context.Background(), &Call{X: k, Positions: Positions{Start: delta, still: true}, From: r, FromPositions: Positions{still: true}})
}

// Positions says where the rows of a matrix stand. The zero value is 0, 1, 2, ...
type Positions struct {
	// Start is the position of the first row, where neither At nor Fractional is given.
	Start int64
	// At has an element for each row and axis, [tokens, Axes].
	At []int64
	// Fractional is the same for positions that are not integers.
	Fractional []float64

	still bool // all rows stand at Start
}

// Call is a call of Rotation with everything optional.
type Call struct {
	// X is [tokens, heads * HeadDim]. Dst is X itself where it is not given;
	// otherwise it is of the same shape, and X itself or apart from it.
	Dst, X blas32.General
	Positions
	// Inverse takes back what the same call without it does.
	Inverse bool
	// From says that X holds keys already rotated by another scheme, or by the same
	// at other positions: they are brought from FromPositions in From to Positions in
	// this rotation, attention factors included. Widths and layouts must agree.
	From          *Rotation
	FromPositions Positions
	// Keys and Center are for xPos: whether X holds keys, and the position from which
	// the decay counts.
	Keys   bool
	Center int64
	// Workers is how many goroutines the call may use, 0 for the Config's.
	Workers int
}

// Run does what a Call says. When ctx is done it returns ctx.Err(), some rows
// being rotated and others not; after any other error nothing was written. Errors
// match ErrShape or ErrCall.
func (r *Rotation) Run(ctx context.Context, call *Call) error {
	if err := check.Call("rope", ctx, call != nil); err != nil {
		return err
	}
	c := *call
	if err := r.checkMatrices(&c); err != nil {
		return err
	}
	if err := r.checkOptions(&c); err != nil { // goes through the rows of X
		return err
	}
	if c.X.Rows == 0 || c.X.Cols == 0 {
		return ctx.Err()
	}
	if r.pairs == 0 {
		if !mat.Same(c.Dst, c.X) {
			mat.Copy(c.Dst, c.X)
		}
		return ctx.Err()
	}
	s := r.scratch.Get()
	defer r.scratch.Put(s)
	return s.rotateAll(ctx, r, c)
}

// checkMatrices looks at X and Dst, and fills Dst in.
func (r *Rotation) checkMatrices(c *Call) error {
	headDim := r.cfg.HeadDim
	if err := check.Matrix(ErrShape, "rope", "x", c.X, -1, c.X.Cols, "itself"); err != nil {
		return err
	}
	switch {
	case c.X.Cols < 0 || c.X.Cols%headDim != 0:
		return check.Errorf(ErrShape, "rope: x has %d columns, want a multiple of HeadDim = %d", c.X.Cols, headDim)
	case r.heads > 1 && c.X.Cols != r.heads*headDim:
		return check.Errorf(ErrShape, "rope: x has %d columns, want heads*HeadDim = %d", c.X.Cols, r.heads*headDim)
	}
	if !mat.Given(c.Dst) {
		c.Dst = c.X
		return nil
	}
	return check.Output(ErrShape, "rope", c.Dst, c.X.Rows, c.X.Cols, "x's", c.X, true)
}

// checkOptions looks at everything but the matrices.
func (r *Rotation) checkOptions(c *Call) error {
	rows := c.X.Rows
	if err := first(check.Workers(ErrCall, "rope", c.Workers), c.Positions.checkRows("Positions", rows, r.axes)); err != nil {
		return err
	}
	if r.decay != nil && c.X.Cols > 0 { // without columns X may have any number of rows
		if err := r.checkXPos(c, rows); err != nil {
			return err
		}
	}
	f := c.From
	if f == nil {
		return nil
	}
	switch {
	case f.cfg.HeadDim != r.cfg.HeadDim || f.cfg.RotaryDim != r.cfg.RotaryDim || f.cfg.Offset != r.cfg.Offset || f.cfg.Layout != r.cfg.Layout:
		return callErrorf("From rotates %d of %d features from %d on, %v, want %d of %d from %d on, %v",
			f.cfg.RotaryDim, f.cfg.HeadDim, f.cfg.Offset, f.cfg.Layout, r.cfg.RotaryDim, r.cfg.HeadDim, r.cfg.Offset, r.cfg.Layout)
	case f.heads > 1 && f.heads != r.heads:
		return callErrorf("From has frequencies for %d heads, want %d", f.heads, r.heads)
	case f.decay != nil || r.decay != nil:
		return callErrorf("From cannot be used with xPos, whose keys are kept unrotated")
	}
	return c.FromPositions.checkRows("FromPositions", rows, f.axes)
}

// checkRows returns an error unless there are positions for each row.
func (p *Positions) checkRows(name string, rows, axes int) error {
	for _, list := range []struct {
		field string
		n     int
		given bool
	}{{"At", len(p.At), p.At != nil}, {"Fractional", len(p.Fractional), p.Fractional != nil}} {
		if list.given && (list.n%axes != 0 || list.n/axes != rows) {
			return check.Errorf(ErrShape, "rope: %s.%s has %d elements, want %d rows * %d axes", name, list.field, list.n, rows, axes)
		}
	}
	if p.At != nil && p.Fractional != nil {
		return callErrorf("both %s.At and %s.Fractional are given", name, name)
	}
	for i, v := range p.Fractional {
		if _, _, ok := split(v); !ok {
			return callErrorf("%s.Fractional[%d] is %v, want a number of magnitude below 2^63", name, i, v)
		}
	}
	return nil
}

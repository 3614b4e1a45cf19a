package ssm

import (
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// SISOState is what a SISO remembers, for Read and Write.
type SISOState struct {
	H      blas32.General // [H P, N]: S, a row for each channel
	B      blas32.General // [H, N]: k of the last token
	X      blas32.General // [H, P]: x of the last token
	Angles blas32.General // [H, Angles]
}

// NewState returns an empty state. Errors match ErrConfig.
func (op *SISO) NewState(cfg StateConfig) (*State, error) { return op.kind.newState(cfg) }

// ReadState reads a state that WriteTo wrote of this SISO, or of one with the same
// fingerprint. Errors match ErrState or are those of r.
func (op *SISO) ReadState(r io.Reader) (*State, error) { return op.kind.readState(r) }

// Read sets the matrices of to to what the state has. Errors match ErrShape or ErrState.
func (op *SISO) Read(to SISOState, st *State) error {
	return op.moveState(to, st, func(a, b *float32) { *a = *b })
}

// Write makes the matrices of from what the state has; Len stays. It makes a snapshot where
// the state keeps any. Errors match ErrShape or ErrState.
func (op *SISO) Write(st *State, from SISOState) error {
	if err := op.moveState(from, st, func(a, b *float32) { *b = *a }); err != nil {
		return err
	}
	st.fixed.Written()
	return nil
}

// moveState calls f with every element of m and its place in the state.
func (op *SISO) moveState(m SISOState, st *State, f func(m, value *float32)) error {
	if err := op.kind.accept("State", st); err != nil {
		return err
	}
	h, p, n := op.cfg.Heads, op.cfg.HeadDim, op.cfg.States
	for _, c := range []struct {
		name       string
		m          blas32.General
		rows, cols int
		what       string
	}{{"H", m.H, h * p, n, "States"}, {"B", m.B, h, n, "States"}, {"X", m.X, h, p, "HeadDim"}, {"Angles", m.Angles, h, op.cfg.Angles, "Angles"}} {
		if err := check.Matrix(ErrShape, "ssm", c.name, c.m, c.rows, c.cols, c.what); err != nil {
			return err
		}
	}
	for i := range h {
		head := op.headOf(st.fixed.Values, i)
		for c := range p {
			row := mat.Row(m.H, i*p+c)
			for r := range row {
				f(&row[r], &head.s.Data[r*p+c])
			}
		}
		for _, v := range []struct {
			m blas32.General
			x []float32
		}{{m.B, head.k}, {m.X, head.x}, {m.Angles, head.angles}} {
			row := mat.Row(v.m, i)
			for j := range row {
				f(&row[j], &v.x[j])
			}
		}
	}
	return nil
}

// headState is the part of a state that belongs to one head.
type headState struct {
	s      blas32.General // [N, P]: S
	k, x   []float32      // [N], [P]: k' and x', of the token before
	angles []float32      // [Angles]
}

// headOf returns the part of a state that belongs to a head.
func (op *SISO) headOf(values []float32, head int) (p headState) {
	n, width, angles := op.cfg.States, op.cfg.HeadDim, op.cfg.Angles
	v := values[head*(n*width+n+width+angles):]
	take := func(size int) []float32 { x := v[:size]; v = v[size:]; return x }
	p.s = mat.Of(take(n*width), n, width)
	p.k, p.x, p.angles = take(n), take(width), take(angles)
	return p
}

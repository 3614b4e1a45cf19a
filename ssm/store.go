package ssm

import (
	"io"
	"math"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

const stateKind = "sqSSM\x00\x00\x02"

// WriteTo stores the state, without its snapshots and filter. It implements
// io.WriterTo.
func (st *State) WriteTo(w io.Writer) (int64, error) {
	if st.kind == nil {
		return 0, check.Errorf(ErrShape, "ssm: the state was not made by NewState")
	}
	f := state.NewWriter(w, stateKind, nil)
	f.Ints(int64(st.kind.hash), int64(st.n))
	f.Floats(st.values)
	n, err := f.End()
	return n, wrap(err)
}

// readState reads a state that WriteTo wrote.
func (k *kind) readState(r io.Reader) (*State, error) {
	f := state.NewReader(r, "ssm", ErrState, stateKind, nil)
	hash, n := f.Int(), f.Int()
	switch {
	case uint64(hash) != k.hash:
		f.Fail("it is of another operator than this %s, or of other weights", k.name)
	case n < 0 || n > math.MaxInt:
		f.Fail("it is behind %d tokens", n)
	}
	st := &State{kind: k, values: f.Floats(int64(k.size)), n: int(n)}
	if err := f.End(); err != nil {
		return nil, err
	}
	return st, nil
}

// ReadState reads a state that WriteTo wrote of this convolution, or of one with
// the same weights. Errors match ErrState or are those of r.
func (op *Conv) ReadState(r io.Reader) (*State, error) { return op.kind.readState(r) }

// ReadState reads a state that WriteTo wrote of this scan, or of one with the same
// weights. Errors match ErrState or are those of r.
func (op *Scan) ReadState(r io.Reader) (*State, error) { return op.kind.readState(r) }

// ReadState reads a state that WriteTo wrote of this SSD, or of one with the same
// weights. Errors match ErrState or are those of r.
func (op *SSD) ReadState(r io.Reader) (*State, error) { return op.kind.readState(r) }

// ReadState reads a state that WriteTo wrote of this SISO, or of one with the same
// weights. Errors match ErrState or are those of r.
func (op *SISO) ReadState(r io.Reader) (*State, error) { return op.kind.readState(r) }

// ReadState reads a state that WriteTo wrote of this block, or of one with the same
// weights. Errors match ErrState or are those of r.
func (b *block) ReadState(r io.Reader) (*State, error) { return b.kind.readState(r) }

package ssm

import (
	"io"

	"gonum.org/v1/gonum/blas/blas32"
)

// NewState returns an empty state. Errors match ErrConfig or are those of the filter's
// source.
func (op *SSD) NewState(cfg StateConfig) (*State, error) { return op.kind.newState(cfg) }

// ReadState reads a state that WriteTo wrote of this SSD, or of one with the same
// fingerprint. Errors match ErrState or are those of r.
func (op *SSD) ReadState(r io.Reader) (*State, error) { return op.kind.readState(r) }

// Read sets h [H P, N] to what the state has, a row for each channel. Errors match
// ErrShape or ErrState.
func (op *SSD) Read(h blas32.General, st *State) error {
	if err := op.checkState(h, st); err != nil {
		return err
	}
	op.readStates(h, st.fixed.Values)
	return nil
}

// Write makes h [H P, N] what the state has; Len stays. It is how a sequence
// begins with an initial state, and makes a snapshot where the state keeps any. Errors match
// ErrShape or ErrState.
func (op *SSD) Write(st *State, h blas32.General) error {
	if err := op.checkState(h, st); err != nil {
		return err
	}
	op.each(func(row, state, at int) { st.fixed.Values[at] = h.Data[row*h.Stride+state] })
	st.fixed.Written()
	return nil
}

func (op *SSD) checkState(h blas32.General, st *State) error {
	return op.kind.acceptRead(st, "h", h, op.cfg.Heads*op.cfg.HeadDim, op.cfg.States, "States")
}

// readStates sets h [H P, N] to the states in values.
func (op *SSD) readStates(h blas32.General, values []float32) {
	op.each(func(row, state, at int) { h.Data[row*h.Stride+state] = values[at] })
}

// each calls f with every channel and state, and their place in a state's values:
// heads of [N, P].
func (op *SSD) each(f func(row, state, at int)) {
	at := 0
	for h := range op.cfg.Heads {
		for n := range op.cfg.States {
			for p := range op.cfg.HeadDim {
				f(h*op.cfg.HeadDim+p, n, at)
				at++
			}
		}
	}
}

package ssm

import (
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
)

// NewState returns an empty state. Errors match ErrConfig or are those of the filter's
// source.
func (op *Scan) NewState(cfg StateConfig) (*State, error) { return op.kind.newState(cfg) }

// ReadState reads a state that WriteTo wrote of this scan, or of one with the same
// fingerprint. Errors match ErrState or are those of r.
func (op *Scan) ReadState(r io.Reader) (*State, error) { return op.kind.readState(r) }

// Read sets h [D, N] to what the state has. Errors match ErrShape or ErrState.
func (op *Scan) Read(h blas32.General, st *State) error {
	if err := op.checkState(h, st); err != nil {
		return err
	}
	op.readStates(h, st.fixed.Values)
	return nil
}

// Write makes h [D, N] what the state has; Len stays. It is how a scan begins
// with an initial state, and makes a snapshot where the state keeps any. Errors match
// ErrShape or ErrState.
func (op *Scan) Write(st *State, h blas32.General) error {
	if err := op.checkState(h, st); err != nil {
		return err
	}
	op.each(func(channel, at int) {
		for n, v := range mat.Row(h, channel) {
			st.fixed.Values[at+n*kernel.ScanBlock] = v
		}
	})
	st.fixed.Written()
	return nil
}

func (op *Scan) checkState(h blas32.General, st *State) error {
	return op.kind.acceptRead(st, "h", h, op.cfg.Channels, op.cfg.States, "States")
}

// readStates sets h [D, N] to the states in values.
func (op *Scan) readStates(h blas32.General, values []float32) {
	op.each(func(channel, at int) {
		row := mat.Row(h, channel)
		for n := range row {
			row[n] = values[at+n*kernel.ScanBlock]
		}
	})
}

package hyena

import "io"

// NewState returns an empty state, from which Step goes on. Errors match ErrConfig, or
// ErrCall for a convolution with a Reverse kernel: its outputs depend on later inputs.
func (c *Conv) NewState(cfg StateConfig) (*State, error) { return c.kind.newState(cfg) }

// ReadState reads a state that WriteTo wrote of this convolution, or of one with the same
// fingerprint. Errors match ErrState or are those of r.
func (c *Conv) ReadState(r io.Reader) (*State, error) { return c.kind.readState(r) }

// Fingerprint tells convolutions with other kernels apart: a state belongs to all of one.
func (c *Conv) Fingerprint() uint64 { return c.kind.hash }

// StateBytes returns the memory of a state of that many tokens, without snapshots.
func (c *Conv) StateBytes(tokens int) int64 { return c.streamBytes(max(tokens, 0)) }

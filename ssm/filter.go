package ssm

import (
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// DeltaFilter changes the steps dt of one token, after softplus and limits: those
// of channels (of heads, in Mamba-2) from first on. position is the token's in its
// sequence, from 0. A dt of 0 makes a channel pass over the token.
//
// It is called from several goroutines at once. Where it panics the call returns an
// error.
type DeltaFilter func(position, first int, dt []float32)

// FilterSource makes the filters of states, each for the operator that the state is
// of. A longmamba.Filter is one.
type FilterSource interface {
	// Bind returns the filter of an operator's steps, for a prompt of that many tokens,
	// or nil where it would change none. It returns an error where the source is for
	// another operator.
	Bind(op Identity, prompt int) (DeltaFilter, error)
}

// Identity says which operator steps belong to.
type Identity struct {
	// Name is the operator and its shape, for errors: "scan of 8 channels …".
	Name string
	// Channels is how many steps a token has: the channels of a Scan or Mamba, the heads
	// of an SSD or Mamba2. 0 is for operators without steps that a filter could change.
	Channels int
	// Fingerprint is that of the Config and the weights. Operators with the same one can
	// take each other's states and calibrations.
	Fingerprint uint64
}

// RecordSteps returns a filter that changes nothing and copies the steps of token t
// to row t of dst [n, channels], as they are after softplus, limits, and the filter of
// a state. It panics, so that the call fails, where dst has no such row or channel.
func RecordSteps(dst blas32.General) DeltaFilter {
	return func(position, first int, dt []float32) { copy(stepsAt(dst, position, first, len(dt)), dt) }
}

// ReplaySteps returns a filter that sets the steps of token t to row t of a matrix
// [n, channels], such as recorded ones that have been changed. It panics, so that the
// call fails, where the matrix has no such row or channel.
func ReplaySteps(from blas32.General) DeltaFilter {
	return func(position, first int, dt []float32) { copy(dt, stepsAt(from, position, first, len(dt))) }
}

func stepsAt(m blas32.General, position, first, n int) []float32 {
	if position >= m.Rows || first+n > m.Cols {
		panic(fmt.Sprintf("ssm: steps of token %d, channels %d to %d, and a matrix of %d x %d", position, first, first+n-1, m.Rows, m.Cols))
	}
	return mat.Part(m, position, first, n)
}

// ScaleSteps returns a filter that multiplies all steps by ratio: usually the length of
// the training's sequences over that of the sequence at hand.
func ScaleSteps(ratio float32) DeltaFilter {
	return func(_, _ int, dt []float32) { asm.Scale(dt, ratio, dt) }
}

// ChainFilters returns a filter that applies several, one after the other. Those that
// are nil are left out; of none it is nil.
func ChainFilters(filters ...DeltaFilter) DeltaFilter {
	var list []DeltaFilter
	for _, f := range filters {
		if f != nil {
			list = append(list, f)
		}
	}
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	return func(position, first int, dt []float32) {
		for _, f := range list {
			f(position, first, dt)
		}
	}
}

// SetFilter gives the state another filter, for a prompt of that many tokens, as
// StateConfig does; nil is for none. A stored state is without its filter, and gets it
// back by this. After an error, which matches ErrConfig or ErrState or is the source's
// own, the state is as it was.
func (st *State) SetFilter(f FilterSource, prompt int) error {
	if err := st.fixed.Made("ssm"); err != nil {
		return err
	}
	filter, err := st.kind.bind(f, prompt)
	if err != nil {
		return err
	}
	st.filter = filter
	return nil
}

// Filtered tells whether the state has a filter that may change a step.
func (st *State) Filtered() bool { return st.filter != nil }

// bind returns the filter of a state of k.
func (k *kind) bind(f FilterSource, prompt int) (DeltaFilter, error) {
	switch {
	case prompt < 0 || prompt > maxTokens:
		return nil, check.Errorf(ErrConfig, "ssm: Prompt is %d, want 0 to %d", prompt, maxTokens)
	case f == nil:
		return nil, nil
	case k.channels == 0:
		return nil, check.Errorf(ErrConfig, "ssm: Filter is given, but a %s has no steps that it could filter", k.Name)
	}
	return f.Bind(k.identity(), prompt)
}

func (k *kind) identity() Identity { return Identity{k.Name, k.channels, k.Hash} }

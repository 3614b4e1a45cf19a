package mamba

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/ssm"
)

// Call runs a model over tokens. Outputs that are left zero are not made.
type Call struct {
	// Tokens are those of a sequence or, with Offsets, of several.
	Tokens []int32
	// State is what comes before the tokens, and is brought up to date; nil is
	// nothing, and nothing kept.
	State *State
	// Offsets packs several sequences into one call: the first token of each and at
	// last len(Tokens). States, if given, has a state for each.
	Offsets []int
	States  []*State

	// Hidden is set to the hidden states [n, D], behind the last norm.
	Hidden blas32.General
	// Logits is set to the logits [n, V] of the token behind each one.
	Logits blas32.General
	// Last is set to the logits behind the last token of each sequence, [sequences,
	// V]: all that generation needs of a prompt. Each must have a token.
	Last blas32.General
	// LogLikelihood is set to the natural logarithm of the probability of each
	// target, of which it has as many elements as there are: softmax over all V.
	LogLikelihood []float32
	// Targets are the tokens to predict, the first behind Tokens[0]; at most n, and
	// a negative one is left out, with 0 for its LogLikelihood. nil stands for
	// Tokens[1:].
	Targets []int32

	// Filter, if given, returns the filter of dt of a layer, or nil.
	Filter func(layer int) ssm.DeltaFilter
	// Workers is how many goroutines the call may use, 0 for the configuration's.
	Workers int

	each bool // a token for each of States
}

// target returns the token that the one at t predicts.
func (c *Call) target(t int) int32 {
	if c.Targets == nil {
		return c.Tokens[t+1]
	}
	return c.Targets[t]
}

// sequences returns how many there are.
func (c *Call) sequences() int {
	switch {
	case c.each:
		return len(c.Tokens)
	case c.Offsets != nil:
		return len(c.Offsets) - 1
	}
	return 1
}

// bounds returns the tokens of sequence i.
func (c *Call) bounds(i int) (from, to int) {
	switch {
	case c.each:
		return i, i + 1
	case c.Offsets != nil:
		return c.Offsets[i], c.Offsets[i+1]
	}
	return 0, len(c.Tokens)
}

// state returns that of sequence i, or nil.
func (c *Call) state(i int) *State {
	if c.States != nil {
		return c.States[i]
	}
	return c.State
}

// Forward sets dst [n, V] to the logits behind each of a sequence's tokens.
//
// Working memory does not depend on n, and after the first call nothing is
// allocated.
func (m *Model) Forward(dst blas32.General, tokens []int32) error {
	return m.Run(context.Background(), &Call{Tokens: tokens, Logits: dst})
}

// Step sets dst [n, V] to the logits behind each of the next tokens, one or many,
// after those the state has seen. Any split gives what Forward gives, to about 1e-6
// of the largest logit, and the same split the same bits.
func (m *Model) Step(dst blas32.General, tokens []int32, st *State) error {
	if err := m.checkState(st); err != nil {
		return err
	}
	return m.Run(context.Background(), &Call{Tokens: tokens, Logits: dst, State: st})
}

// StepBatch sets dst [states, V] to the logits behind one more token for each of
// many states; weights are read once. Each gives what it gives alone, to the bit.
func (m *Model) StepBatch(dst blas32.General, tokens []int32, states []*State) error {
	if len(states) != len(tokens) {
		return check.Errorf(ErrShape, "mamba: %d states for %d tokens", len(states), len(tokens))
	}
	call := Call{Tokens: tokens, States: states, Logits: dst, each: true}
	return m.Run(context.Background(), &call)
}

// Run is Forward, Step and StepBatch with everything optional. Errors match
// ErrShape or, once ctx is done, ctx.Err(); outputs are then unspecified, and states
// stand behind a whole number of the call's pieces of tokens, in all layers: Len
// tells where.
func (m *Model) Run(ctx context.Context, call *Call) error {
	if err := m.check(call); err != nil {
		return err
	}
	s := m.scratch.Get()
	defer m.scratch.Put(s)
	return s.run(ctx, m, call, parallel.Workers(first(call.Workers, m.cfg.Workers)))
}

// check returns an error where a call does not fit the model.
func (m *Model) check(c *Call) error {
	n, v := len(c.Tokens), m.cfg.Vocab
	for t, id := range c.Tokens {
		if id < 0 || int(id) >= v {
			return check.Errorf(ErrShape, "mamba: Tokens[%d] is %d, want 0 to %d", t, id, v-1)
		}
	}
	if err := m.checkSequences(c); err != nil {
		return err
	}
	for _, o := range []struct {
		name string
		m    blas32.General
		rows int
		cols int
		what string
	}{
		{"Hidden", c.Hidden, n, m.cfg.Dim, "Dim"},
		{"Logits", c.Logits, n, v, "Vocab"},
		{"Last", c.Last, c.sequences(), v, "Vocab"},
	} {
		if !given(o.m) {
			continue
		}
		if err := check.Matrix(ErrShape, "mamba", o.name, o.m, o.rows, o.cols, o.what); err != nil {
			return err
		}
	}
	if given(c.Last) {
		for i := range c.sequences() {
			if from, to := c.bounds(i); from == to {
				return check.Errorf(ErrShape, "mamba: Last is wanted, but sequence %d has no tokens", i)
			}
		}
	}
	if c.Workers < 0 {
		return check.Errorf(ErrShape, "mamba: Workers is %d, want 0 or more", c.Workers)
	}
	return c.checkTargets(v)
}

// given tells whether an output is wanted.
func given(m blas32.General) bool { return m.Rows != 0 || m.Cols != 0 || m.Data != nil }

func (m *Model) checkSequences(c *Call) error {
	n := len(c.Tokens)
	switch {
	case c.each:
	case c.Offsets != nil:
		k := len(c.Offsets) - 1
		if k < 0 || c.Offsets[0] != 0 || c.Offsets[k] != n {
			return check.Errorf(ErrShape, "mamba: Offsets is %v, want the begin of each sequence and at last the number of tokens, %d", c.Offsets, n)
		}
		for i := range k {
			if c.Offsets[i+1] < c.Offsets[i] {
				return check.Errorf(ErrShape, "mamba: Offsets[%d] is %d, less than the one before it", i+1, c.Offsets[i+1])
			}
		}
		if c.State != nil {
			return check.Errorf(ErrShape, "mamba: State is given with Offsets; want States")
		}
		if c.States != nil && len(c.States) != k {
			return check.Errorf(ErrShape, "mamba: States has %d elements, want one for each sequence, %d", len(c.States), k)
		}
	case c.States != nil:
		return check.Errorf(ErrShape, "mamba: States is given without Offsets")
	case c.State != nil:
		return m.checkState(c.State)
	}
	for i, st := range c.States {
		if err := m.checkState(st); err != nil {
			return err
		}
		for _, other := range c.States[:i] {
			if st == other {
				return check.Errorf(ErrShape, "mamba: one state stands for two sequences")
			}
		}
	}
	return nil
}

func (c *Call) checkTargets(vocab int) error {
	n := len(c.Tokens)
	if c.Targets == nil {
		if len(c.LogLikelihood) != 0 && len(c.LogLikelihood) != n-1 {
			return check.Errorf(ErrShape, "mamba: LogLikelihood has %d elements, want len(Tokens)-1 = %d", len(c.LogLikelihood), n-1)
		}
		return nil
	}
	if len(c.Targets) > n {
		return check.Errorf(ErrShape, "mamba: Targets has %d elements, want at most len(Tokens) = %d", len(c.Targets), n)
	}
	for t, id := range c.Targets {
		if int(id) >= vocab {
			return check.Errorf(ErrShape, "mamba: Targets[%d] is %d, want less than %d", t, id, vocab)
		}
	}
	return check.Vector(ErrShape, "mamba", "LogLikelihood", c.LogLikelihood, len(c.Targets), "len(Targets)")
}

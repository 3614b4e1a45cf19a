package rwkv

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/lm"
)

// Call runs a model over tokens. Outputs that are left zero are not made.
type Call struct {
	// Tokens are those of a sequence or, with Offsets or States, of several.
	Tokens []int32
	// State is what comes before the tokens, and is brought up to date; nil is
	// nothing, and nothing kept.
	State *State
	// Offsets packs several sequences into one call: the first token of each and at
	// last len(Tokens). States, if given, has a state for each; without Offsets the
	// sequences have a token each.
	Offsets []int
	States  []*State

	// Hidden is set to the hidden states [n, D], after the last norm.
	Hidden blas32.General
	// Residuals, Layers + 1 matrices [n, D] of which some may be left zero, are set to the
	// normed embeddings and to r after each layer.
	Residuals []blas32.General
	// Logits is set to the logits [n, V] of the token after each one.
	Logits blas32.General
	// Last is set to the logits after the last token of each sequence, [sequences,
	// V]: all that generation needs of a prompt. Each must have a token.
	Last blas32.General
	// LogLikelihood is set to the natural logarithm of the probability of each
	// target, of which it has as many elements as there are: softmax over all V.
	LogLikelihood []float32
	// Targets are the tokens to predict, the first after Tokens[0]; at most n, and
	// a negative one is left out, with 0 for its LogLikelihood. nil stands for
	// Tokens[1:].
	Targets []int32

	// Pooled is set to one vector of D for each sequence, one after the other: of this
	// call's tokens, not of those that a state has seen before.
	Pooled []float32
	// Pooling says how; the zero value is the mean.
	Pooling Pooling
	// Mask [n] says which tokens count for Pooled; nil is all. The model itself reads
	// all tokens. Where none counts the vector is 0.
	Mask []bool
	// Workers is how many goroutines the call may use, 0 for the configuration's.
	Workers int
}

func (c *Call) general() lm.Call {
	return lm.Call{
		Tokens: c.Tokens, State: c.State, Offsets: c.Offsets, States: c.States,
		Hidden: c.Hidden, Residuals: c.Residuals, Logits: c.Logits, Last: c.Last, LogLikelihood: c.LogLikelihood, Targets: c.Targets,
		Pooled: c.Pooled, Pooling: c.Pooling, Mask: c.Mask, Workers: c.Workers,
	}
}

// Pooling makes one vector of a sequence's hidden states.
type Pooling = lm.Pooling

const (
	Mean  = lm.Mean  // the mean
	Sum   = lm.Sum   // the sum
	Max   = lm.Max   // the largest of each column
	First = lm.First // the first token's
	Last  = lm.Last  // the last token's
)

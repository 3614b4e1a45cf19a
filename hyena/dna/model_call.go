package dna

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/lm"
)

// Call runs a model over one sequence or, with Offsets, over several. Outputs that are
// left zero are not made.
type Call struct {
	// Tokens are the sequence, at most MaxLen of them, special ones included.
	Tokens []int32
	// Offsets packs several sequences into one call: the first token of each and at last
	// len(Tokens). They run one after the other; RunBatch is faster for short ones.
	Offsets []int
	// State is where the sequence goes on from, and is brought up to date. States has a state
	// for each sequence; without Offsets each is for one token.
	State  *State
	States []*State

	// Hidden is set to the hidden states [n, D], after the last norm.
	Hidden blas32.General
	// Residuals, Layers + 1 matrices [n, D] of which some may be left zero, are set to the
	// embeddings and to r after each block.
	Residuals []blas32.General
	// Logits is set to the logits [n, V] of the token after each one.
	Logits blas32.General
	// LogLikelihood is set to the natural logarithm of the probability of each
	// target, of which it has as many elements as there are: softmax over all V.
	LogLikelihood []float32
	// Targets are the tokens to predict, the first after Tokens[0]; at most n, and
	// a negative one is left out, with 0 for its LogLikelihood. nil stands for
	// Tokens[1:].
	Targets []int32

	// Pooled is set to one vector of D for each sequence, one after the other.
	Pooled []float32
	// Pooling says how; the zero value is the mean.
	Pooling Pooling
	// Mask [n] says which tokens count for Pooled and, with a head that reads the
	// mean, for Classes; nil is all. The model itself reads all tokens. Where none counts
	// the vector is 0.
	Mask []bool
	// Classes is set to the scores of the checkpoint's classification head, for each
	// sequence one after the other: of the mean of the hidden states
	// (head.output_transform), or of the last token that is not padding (score).
	Classes []float32

	// Workers is how many goroutines the call may use, 0 for the configuration's.
	Workers int
}

// general returns the call as the stack takes it.
func (c *Call) general() lm.Call {
	return lm.Call{
		Tokens: c.Tokens, Offsets: c.Offsets, State: c.State, States: c.States,
		Hidden: c.Hidden, Residuals: c.Residuals, Logits: c.Logits, LogLikelihood: c.LogLikelihood, Targets: c.Targets,
		Pooled: c.Pooled, Pooling: c.Pooling, Mask: c.Mask, Classes: c.Classes, Workers: c.Workers,
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

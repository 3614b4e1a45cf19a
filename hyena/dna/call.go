package dna

import (
	"context"
	"errors"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/parallel"
)

// Call runs a model over one sequence. Outputs that are left zero are not made.
type Call struct {
	// Tokens are the sequence, at most MaxLen of them, special ones included.
	Tokens []int32

	// Hidden is set to the hidden states [n, D], behind the last norm.
	Hidden blas32.General
	// Residuals, Layers + 1 matrices [n, D], are set to the embeddings and to r
	// behind each block.
	Residuals []blas32.General
	// Logits is set to the logits [n, V] of the token behind each one.
	Logits blas32.General
	// LogLikelihood is set to the natural logarithm of the probability of each
	// target, of which it has as many elements as there are: softmax over all V.
	LogLikelihood []float32
	// Targets are the tokens to predict, the first behind Tokens[0]; at most n, and
	// a negative one is left out, with 0 for its LogLikelihood. nil stands for
	// Tokens[1:].
	Targets []int32

	// Pooled is set to one vector of D for the sequence.
	Pooled []float32
	// Pooling says how; the zero value is the mean.
	Pooling Pooling
	// Mask [n] says which tokens count for Pooled and, with a head that reads the
	// mean, for Classes; nil is all. The model itself reads all tokens.
	Mask []bool
	// Classes is set to the scores of the checkpoint's classification head: of the
	// mean of the hidden states (head.output_transform), or of the last token that
	// is not padding (score).
	Classes []float32

	// Workers is how many goroutines the call may use, 0 for the configuration's.
	Workers int
}

// target returns the token that the one at t predicts.
func (c *Call) target(t int) int32 {
	if c.Targets == nil {
		return c.Tokens[t+1]
	}
	return c.Targets[t]
}

// Forward sets dst [n, D] to the hidden states of tokens.
//
// It costs about 24 Layers D^2 flop for each token (with Inner = 4 D), besides the
// long convolutions, and as working memory 16 D bytes for each. After the first
// call of a length it allocates nothing; the first computes the filters.
func (m *Model) Forward(dst blas32.General, tokens []int32) error {
	return m.Run(context.Background(), &Call{Tokens: tokens, Hidden: dst})
}

// EmbedInto sets emb [D] to the mean of the hidden states of a DNA sequence: its
// letters in upper or lower case, without special tokens.
func (m *Model) EmbedInto(ctx context.Context, emb []float32, sequence string) error {
	if err := check.Vector(ErrShape, "dna", "emb", emb, m.cfg.Dim, "Dim"); err != nil {
		return err
	}
	s := m.scratch.Get()
	defer m.scratch.Put(s)
	s.tokens = m.letters.Append(s.tokens[:0], sequence)
	call := &Call{Tokens: s.tokens, Pooled: emb}
	if err := m.check(call); err != nil {
		return err
	}
	return s.run(ctx, m, call, parallel.Workers(m.cfg.Workers))
}

// Run runs one call. Errors match ErrShape, ErrTooLong or, once ctx is done,
// ctx.Err(); the last leaves outputs in an unspecified state.
func (m *Model) Run(ctx context.Context, call *Call) error {
	if err := m.check(call); err != nil {
		return err
	}
	return m.runChecked(ctx, call, parallel.Workers(first(call.Workers, m.cfg.Workers)))
}

func (m *Model) runChecked(ctx context.Context, call *Call, workers int) error {
	s := m.scratch.Get()
	defer m.scratch.Put(s)
	return s.run(ctx, m, call, workers)
}

// sharedTokens is the length from which a sequence of a batch gets all workers.
const sharedTokens = 8 * dense.BlockRows

// RunBatch runs many calls: short sequences side by side, long ones one after the
// other. Each gives what it gives alone, to the bit, whatever the others' lengths.
// All are checked before any is run. Workers of a call count for itself, as many
// as the configuration has for the batch.
func (m *Model) RunBatch(ctx context.Context, calls []*Call) error {
	for i, call := range calls {
		if err := m.check(call); err != nil {
			return fmt.Errorf("dna: call %d: %w", i, err)
		}
	}
	var short []*Call
	for _, call := range calls {
		if len(call.Tokens) < sharedTokens {
			short = append(short, call)
		} else if err := m.Run(ctx, call); err != nil {
			return err
		}
	}
	errs := make([]error, len(short))
	var group parallel.Group
	err := group.Run(ctx, parallel.Workers(m.cfg.Workers), len(short), func(_, i int) {
		errs[i] = m.runChecked(ctx, short[i], 1)
	})
	return errors.Join(append(errs, wrap(err))...)
}

// check returns an error where a call does not fit the model.
func (m *Model) check(c *Call) error {
	n, v := len(c.Tokens), m.cfg.Vocab
	if n > m.cfg.MaxLen {
		return check.Errorf(ErrTooLong, "dna: Tokens has %d elements, more than MaxLen = %d", n, m.cfg.MaxLen)
	}
	for t, id := range c.Tokens {
		if id < 0 || int(id) >= v {
			return check.Errorf(ErrShape, "dna: Tokens[%d] is %d, want 0 to %d", t, id, v-1)
		}
	}
	if c.Residuals != nil && len(c.Residuals) != m.cfg.Layers+1 {
		return check.Errorf(ErrShape, "dna: Residuals has %d elements, want Layers+1 = %d", len(c.Residuals), m.cfg.Layers+1)
	}
	for _, r := range c.Residuals {
		if err := check.Matrix(ErrShape, "dna", "Residuals", r, n, m.cfg.Dim, "Dim"); err != nil {
			return err
		}
	}
	if err := optional("Hidden", c.Hidden, n, m.cfg.Dim, "Dim"); err != nil {
		return err
	}
	if err := optional("Logits", c.Logits, n, v, "Vocab"); err != nil {
		return err
	}
	if err := c.checkTargets(v); err != nil {
		return err
	}
	switch {
	case c.Pooled != nil && len(c.Pooled) != m.cfg.Dim:
		return check.Errorf(ErrShape, "dna: Pooled has %d elements, want Dim = %d", len(c.Pooled), m.cfg.Dim)
	case c.Mask != nil && len(c.Mask) != n:
		return check.Errorf(ErrShape, "dna: Mask has %d elements, want len(Tokens) = %d", len(c.Mask), n)
	case c.Pooling > Last:
		return check.Errorf(ErrShape, "dna: Pooling is %d, want Mean, Sum, Max, First or Last", c.Pooling)
	case c.Classes != nil && m.head == nil:
		return check.Errorf(ErrShape, "dna: Classes is wanted, but the checkpoint has no head")
	case c.Classes != nil && len(c.Classes) != m.classes:
		return check.Errorf(ErrShape, "dna: Classes has %d elements, want %d", len(c.Classes), m.classes)
	case c.Workers < 0:
		return check.Errorf(ErrShape, "dna: Workers is %d, want 0 or more", c.Workers)
	}
	return nil
}

func (c *Call) checkTargets(vocab int) error {
	n := len(c.Tokens)
	if c.Targets == nil {
		if len(c.LogLikelihood) != 0 && len(c.LogLikelihood) != n-1 {
			return check.Errorf(ErrShape, "dna: LogLikelihood has %d elements, want len(Tokens)-1 = %d", len(c.LogLikelihood), n-1)
		}
		return nil
	}
	if len(c.Targets) > n {
		return check.Errorf(ErrShape, "dna: Targets has %d elements, want at most len(Tokens) = %d", len(c.Targets), n)
	}
	for t, id := range c.Targets {
		if int(id) >= vocab {
			return check.Errorf(ErrShape, "dna: Targets[%d] is %d, want less than %d", t, id, vocab)
		}
	}
	return check.Vector(ErrShape, "dna", "LogLikelihood", c.LogLikelihood, len(c.Targets), "len(Targets)")
}

// optional checks a matrix that may be left out.
func optional(name string, m blas32.General, rows, cols int, what string) error {
	if m.Rows == 0 && m.Cols == 0 && m.Data == nil {
		return nil
	}
	return check.Matrix(ErrShape, "dna", name, m, rows, cols, what)
}

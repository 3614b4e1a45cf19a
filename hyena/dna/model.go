package dna

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/scratch"
)

// Model is a HyenaDNA model. It is immutable and safe for concurrent use.
type Model struct {
	cfg        Config
	vocabulary Vocabulary
	letters    *Tokenizer // of EmbedInto
	stack      *lm.Model
	tokens     scratch.List[[]int32] // of EmbedInto
}

// Config returns the model's configuration, complete.
func (m *Model) Config() Config { return m.cfg }

// Vocabulary returns the numbering of tokens that the checkpoint uses.
func (m *Model) Vocabulary() Vocabulary { return m.vocabulary }

// Tokenizer returns a tokenizer for the model, with the vocabulary of its
// checkpoint, that takes lower case for upper case and U for T and, as in training, has no
// limit on the length.
func (m *Model) Tokenizer(special Special) *Tokenizer {
	t, err := NewTokenizer(TokenizerConfig{Vocabulary: m.vocabulary, Special: special, UpperCase: true, RNA: true})
	if err != nil {
		panic(err) // only an unknown Special is left to be wrong
	}
	return t
}

// Classes returns the number of classes of the checkpoint's head, 0 if it has none.
func (m *Model) Classes() int { return m.stack.Classes() }

// Bytes returns the memory that the model takes now: its weights, and the filters and
// spectra that calls and Prepare have made.
func (m *Model) Bytes() int64 { return m.stack.Bytes() }

// ScratchBytes returns the working memory that a call of one sequence of that many tokens
// takes, at the most, beside Bytes, when every worker is busy.
func (m *Model) ScratchBytes(tokens int) int64 { return m.stack.ScratchBytes(tokens) }

// Prepare computes what a first call of that many tokens would compute and keep: the filters,
// and their spectra as far as Config.SpectraBytes allows. Bytes counts them. Errors match
// ErrCall or ErrTooLong, or are ctx.Err() once ctx is done; what is ready is kept.
func (m *Model) Prepare(ctx context.Context, tokens int) error { return m.stack.Prepare(ctx, tokens) }

// Forward sets dst [n, D] to the hidden states of tokens.
//
// It costs about 24 Layers D^2 flop for each token (with Inner = 4 D), besides the
// long convolutions, and as working memory 16 D bytes for each. After the first
// call of a length it allocates nothing; the first computes the filters. Errors match
// ErrShape.
func (m *Model) Forward(dst blas32.General, tokens []int32) error {
	return m.Run(context.Background(), &Call{Tokens: tokens, Hidden: dst})
}

// EmbedInto sets emb [D] to the mean of the hidden states of a sequence of DNA or RNA: its
// letters in upper or lower case, U as T, without special tokens. A character that is no
// nucleotide code, white space and the names of special tokens included, is an error that
// matches ErrCall, unless Config.AnyText allows it. Other errors match ErrShape, ErrTooLong among
// it, or are ctx.Err().
func (m *Model) EmbedInto(ctx context.Context, emb []float32, sequence string) error {
	if err := check.Vector(ErrShape, "dna", "emb", emb, m.cfg.Dim, "Dim"); err != nil {
		return err
	}
	tokens := m.tokens.Get()
	defer m.tokens.Put(tokens)
	if m.cfg.AnyText {
		*tokens = m.letters.Append((*tokens)[:0], sequence)
	} else {
		var err error
		if *tokens, err = m.letters.AppendDNA((*tokens)[:0], sequence); err != nil {
			return err
		}
	}
	return m.Run(ctx, &Call{Tokens: *tokens, Pooled: emb})
}

// Run runs one call. Errors match ErrShape, ErrCall, ErrTooLong, ErrState or ErrFull or, once
// ctx is done, are ctx.Err(); the last leaves outputs in an unspecified state, and the call's
// State or States as they were, in all layers, for those sequences that were not done.
func (m *Model) Run(ctx context.Context, call *Call) error {
	if err := check.Call("dna", ctx, call != nil); err != nil {
		return err
	}
	c := call.general()
	return m.stack.Run(ctx, &c)
}

// RunBatch runs many calls: short sequences side by side, long ones one after the
// other. Each gives what it gives alone, to the bit, whatever the others' lengths.
// All are checked before any is run. Workers of a call count for itself, as many
// as the configuration has for the batch. Errors match those of Run.
func (m *Model) RunBatch(ctx context.Context, calls []*Call) error { return m.runBatch(ctx, calls, 0) }

// runBatch is RunBatch on as many goroutines as workers says, 0 for the configuration's.
func (m *Model) runBatch(ctx context.Context, calls []*Call, workers int) error {
	list := make([]*lm.Call, len(calls))
	for i, call := range calls {
		if call != nil {
			c := call.general()
			list[i] = &c
		}
	}
	return m.stack.RunBatchOn(ctx, list, workers)
}

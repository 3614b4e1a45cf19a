package dna

import (
	"context"
	"iter"

	"github.com/subquad/subquad/internal/lm"
)

// SampleConfig says how the next token is chosen of logits. The zero value takes the
// likeliest token. What it asks for is done in this order, that of Hugging Face's
// transformers; each filter works with the probabilities that those before it leave.
//
//	RepetitionPenalty  divides logits above 0, and multiplies others, of tokens that are
//	                   there already: in the prompt, in GenerateConfig.Seen, generated
//	                   (Keskar et al. 2019, arXiv 1909.05858); 0 or 1 for none
//	Temperature        divides the logits; 0 takes the likeliest token
//	TopK               keeps the TopK likeliest tokens, of equals the first; 0 for all
//	TopP               keeps the likeliest tokens that together reach TopP; 0 for all
//	                   (Holtzman et al. 2020, arXiv 1904.09751)
//	MinP               keeps tokens with MinP of the likeliest one's probability; 0 for all
//	                   (Nguyen et al. 2024, arXiv 2407.01082)
//	Seed               begins the random numbers: the same seed makes the same choices
type SampleConfig = lm.SampleConfig

// Sampler chooses tokens: Sample(logits) returns one of as many as there are logits, and
// See(tokens...) tells of those that RepetitionPenalty counts. It must not be used by two
// goroutines at once.
type Sampler = lm.Sampler

// NewSampler returns a sampler, or an error that matches ErrConfig.
func NewSampler(cfg SampleConfig) (*Sampler, error) { return lm.NewSampler("dna", cfg) }

// GenerateConfig says how a text goes on: as its SampleConfig says, and
//
//	MaxTokens  for so many tokens at the most; 0 is no limit
//	Stop       until a token of these, which is not part of the text
//	Words      with the tokens of a Tokenizer alone, though the model may have rows for more
//	StopText   until one of these texts, wherever in tokens it begins and ends, which is not
//	           part of the text; it needs Words
//	Seen       with these tokens before the prompt, for RepetitionPenalty
//	LogProbs   with Piece.LogProb, which costs an exponential for each of the V tokens
//	Draft      with tokens that a drafter of package transformer proposes, at most Drafts (0 for
//	           5) at a time, which the model looks at in one call; the text is the same
type GenerateConfig = lm.GenerateConfig

// Words turns tokens into text, one after the other: a Tokenizer does.
type Words = lm.Words

// Piece is what Stream yields: one for each token, and a last one that tells why the text
// ended.
//
//	Token    the token, -1 in the last piece
//	LogProb  the natural logarithm of its probability by the model: softmax over all V logits
//	         as they are, before penalty, temperature and filters
//	Text     what can be told of the text now, valid until the loop goes on: whole characters,
//	         nothing that might become a text of StopText. All of them are the text
//	End      why the text ended, in the last piece
type Piece = lm.Piece

// End is why a text ended.
type End = lm.End

const (
	Going     = lm.Going     // it has not
	AtLimit   = lm.AtLimit   // after MaxTokens
	AtToken   = lm.AtToken   // at a token of Stop
	AtText    = lm.AtText    // at one of StopText
	AtLongest = lm.AtLongest // at the model's longest sequence
)

// Generate continues a prompt after what the state has seen, and yields the tokens one by
// one. The prompt is not yielded. It must have a token, for what follows is predicted from
// its last one. When the loop ends, the state has seen the prompt and the yielded tokens,
// of which the last one only where a token of Stop came after it. n tokens cost n log2(n)^2
// in the long convolutions (see State).
//
// It ends as GenerateConfig says, at MaxLen, or with an error: of the arguments, matching
// ErrShape, ErrCall, ErrState, ErrTooLong or ErrConfig, or ctx.Err() once ctx is done. A
// checkpoint without a head for tokens is ErrCall.
func (m *Model) Generate(ctx context.Context, prompt []int32, st *State, cfg GenerateConfig) iter.Seq2[int32, error] {
	return m.stack.Generate(ctx, prompt, st, cfg)
}

// Stream is Generate with what there is to tell of each token, its text and how likely it
// was, and at last of why the text ended.
func (m *Model) Stream(ctx context.Context, prompt []int32, st *State, cfg GenerateConfig) iter.Seq2[Piece, error] {
	return m.stack.Stream(ctx, prompt, st, cfg)
}

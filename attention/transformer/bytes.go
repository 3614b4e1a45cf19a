package transformer

import (
	"github.com/subquad/subquad/internal/lm"
)

// ByteVocabulary is what exact probabilities of bytes need of a tokenizer: Vocabulary of
// package text's Tokenizer.
type ByteVocabulary = lm.Vocabulary

// ByteConfig says how exact they are, and how far a stream can go back.
type ByteConfig = lm.ByteConfig

// ByteModel is a model with its tokenizer, as a model of bytes. It is immutable and safe for
// concurrent use.
//
//	b, err := m.NewBytes(vocabulary, transformer.ByteConfig{})
//	s, err := b.NewStream(ctx)
//	err = s.Feed(ctx, []byte("a prompt that ends within a to")...)
//	next, err := s.Next(ctx) // of the 256 bytes, and the special tokens
type ByteModel = lm.ByteModel

// ByteStream is a text that grows byte by byte, and the exact distribution of its next byte by
// a tokenised model (Phan et al., "Exact Byte-Level Probabilities from Tokenized Language
// Models", ICLR 2025, arXiv 2410.09303; implemented from the formulas). A sequence of tokens is
// valid if it is the canonical encoding of its own bytes; with cover(y) the valid sequences of
// which the last token is the first to reach the end of y,
//
//	P(y) = sum over cover(y) of the product of the model's P(token | tokens before)
//	next(b | x) = P(x b) / (sum over all bytes and special tokens)
//
// A byte takes one step of the model, and one or two more where the tokenizer splits text by
// what follows (blank lines before a word). Its methods:
//
//	Next           the probabilities of the 256 bytes, and after them of the special tokens
//	Feed           adds bytes; one that has no probability matches ErrCall and stays out
//	LogLikelihood  adds a text, and gives the logarithm of each byte's probability
//	Truncate       goes back, by at most ByteConfig.History bytes
//	Clone, Len, Covers
//
// It must not be used by two goroutines at once.
type ByteStream = lm.ByteStream

// NewBytes returns the model as a model of bytes. Where the tokenizer does not say what a text
// begins with, the checkpoint's BOS or first EOS is taken. Errors match ErrConfig.
func (m *Model) NewBytes(words ByteVocabulary, cfg ByteConfig) (*ByteModel, error) {
	if words.Begin < 0 {
		if words.Begin = m.shape.BOS; words.Begin < 0 && len(m.shape.EOS) > 0 {
			words.Begin = m.shape.EOS[0]
		}
	}
	return m.stack.NewBytes(words, cfg)
}

package mamba

import (
	"github.com/subquad/subquad/internal/lm"
)

// Source is a model and a sequence that it reads, which can go back: what decodes together
// with another (Together of package transformer).
type Source = lm.Source

// NewSource returns a Source of the model that has read nothing. It goes back by copies of the
// state after each of the last 32 tokens. Errors are those of NewState.
func (m *Model) NewSource() (Source, error) { return m.stack.NewSource() }

// ByteVocabulary is what exact probabilities of bytes need of a tokenizer: Vocabulary of
// package text's Tokenizer.
type ByteVocabulary = lm.Vocabulary

// ByteConfig says how exact they are, and how far a stream can go back.
type ByteConfig = lm.ByteConfig

// ByteModel is a model with its tokenizer, as a model of bytes; NewStream gives a ByteStream.
type ByteModel = lm.ByteModel

// ByteStream is a text that grows byte by byte, and the exact distribution of its next byte:
// see ByteStream of package transformer.
type ByteStream = lm.ByteStream

// NewBytes returns the model as a model of bytes. words.Begin must be the token that texts of
// the training begin with. Errors match ErrConfig.
func (m *Model) NewBytes(words ByteVocabulary, cfg ByteConfig) (*ByteModel, error) {
	return m.stack.NewBytes(words, cfg)
}

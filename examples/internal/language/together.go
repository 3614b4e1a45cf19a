package language

import (
	"errors"

	"github.com/subquad/subquad/attention/transformer"
)

// ByBytes returns the model as one of bytes; its tokenizer must be a BPE.
func (m *Model) ByBytes() (*transformer.ByteModel, error) {
	model, ok := m.streamer.(interface {
		NewBytes(words transformer.ByteVocabulary, cfg transformer.ByteConfig) (*transformer.ByteModel, error)
	})
	words, known := m.Words.(tokenizer)
	if !ok || !known {
		return nil, errors.New("exact probabilities of bytes are for a transformer or a Mamba with a tokenizer of its own")
	}
	v, err := words.Vocabulary()
	if err != nil {
		return nil, err
	}
	return model.NewBytes(v, transformer.ByteConfig{})
}

// NewSource returns a sequence of the model that has read nothing, to decode together with
// another's.
func (m *Model) NewSource() (transformer.Source, error) {
	if model, ok := m.streamer.(interface {
		NewSource() (transformer.Source, error)
	}); ok {
		return model.NewSource()
	}
	return nil, ErrNoState
}

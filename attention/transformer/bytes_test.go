package transformer

import (
	"errors"
	"math"
	"path/filepath"
	"testing"

	"github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/text"
)

// TestBitsPerByte: by bytes a text is likelier than by its canonical tokens alone, 1.0730
// bits of a byte and 1.1319.
func TestBitsPerByte(t *testing.T) {
	if testing.Short() {
		t.Skip("428 steps of a model: not with -short")
	}
	golden := filepath.Join("..", "..", "testdata", "golden")
	f, err := weights.Open(filepath.Join(golden, "transformer_stories260K.safetensors"))
	must(t, err)
	defer f.Close()
	folder := filepath.Join(golden, "transformer_stories260K")
	m, err := Open(folder, Config{})
	must(t, err)
	words, err := text.Open(filepath.Join(folder, "tok512.bin"))
	must(t, err)
	v, err := words.Vocabulary()
	must(t, err)
	story := []byte(f.Metadata["ids_text"])
	for eps, tolerance := range map[float64]float64{0: 1e-4, 1e-6: 2e-4} {
		b, err := m.NewBytes(v, ByteConfig{Eps: eps})
		must(t, err)
		s, err := b.NewStream(t.Context())
		must(t, err)
		sum, err := s.LogLikelihood(t.Context(), nil, story)
		must(t, err)
		if got := -sum / math.Ln2 / float64(len(story)); len(story) != 427 || math.Abs(got-1.0730) > tolerance {
			t.Errorf("Eps %v: %.5f bits per byte of %d, want 1.0730 of 427", eps, got, len(story))
		}
	}
}

// TestByteVocabularies: a tokenizer that says nothing of what a text begins with takes the
// checkpoint's token; one without an encoding is an error.
func TestByteVocabularies(t *testing.T) {
	folder := filepath.Join("..", "..", "testdata", "golden", "transformer_stories260K")
	m, err := Open(folder, Config{})
	must(t, err)
	v, err := text.Bytes().Vocabulary()
	must(t, err)
	b, err := m.NewBytes(v, ByteConfig{})
	must(t, err)
	s, err := b.NewStream(t.Context())
	must(t, err)
	next, err := s.Next(t.Context())
	must(t, err)
	sum := 0.0
	for _, p := range next {
		sum += p
	}
	if len(next) != 256 || math.Abs(sum-1) > 1e-9 {
		t.Errorf("%d probabilities, of a sum of %v", len(next), sum)
	}
	v.Encode = nil
	if _, err := m.NewBytes(v, ByteConfig{}); !errors.Is(err, ErrConfig) {
		t.Errorf("no encoding: error %v", err)
	}
}

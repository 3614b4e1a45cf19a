package tokenizer

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/weights/weightstest"
)

// TestHostileFiles reads files that another program has changed: there is an error that matches
// ErrCheckpoint, or a tokenizer that takes any text.
func TestHostileFiles(t *testing.T) {
	stages := `{"added_tokens": [{"id": 9, "content": "aa", "normalized": true, "lstrip": true, "rstrip": true, "single_word": true}],
		"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
			{"type": "BertNormalizer", "lowercase": true}, {"type": "Strip", "strip_left": true}, {"type": "StripAccents"}]},
		"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, {"type": "Split", "pattern": {"String": "b"}, "behavior": "MergedWithNext", "invert": false},
			{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}, {"type": "Punctuation"}, {"type": "CharDelimiterSplit", "delimiter": "c"}, {"type": "ByteLevel", "add_prefix_space": true}]},
		"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "aa", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {"aa": {"id": "aa", "ids": [9], "tokens": ["aa"]}}},
		"decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}, {"type": "Metaspace", "replacement": "▁"}]},
		"model": {"type": "WordPiece", "unk_token": "u", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": {"u": 0, "a": 1, "##b": 2, "aa": 3}}}`
	texts := []string{stages}
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		texts = append(texts, kinds[name])
	}
	for i, text := range texts {
		m := weightstest.Mutator{Rand: rand.New(rand.NewPCG(3, uint64(i)))}
		if _, err := Read([]byte(text)); err != nil {
			t.Fatal(err)
		}
		m.Each(func() {
			file := m.JSON([]byte(text))
			m.Try(t, len(file), func() error {
				tok, err := Read(file)
				if err != nil && !errors.Is(err, subquad.ErrCheckpoint) {
					return err
				}
				if err != nil {
					return nil
				}
				for _, s := range []string{"", "in the <|end|> x", "\xff\xfe é ▁ 日本 12345", "aab  ab a,b"} {
					ids, err := tok.Encode(s, true)
					if err != nil && !errors.Is(err, subquad.ErrCall) {
						return err
					}
					for _, id := range ids {
						if id < 0 {
							return fmt.Errorf("token %d", id)
						}
					}
					tok.Decode(ids)
				}
				tok.Decode([]int32{-1, 0, 1 << 30})
				tok.Missing(100)
				tok.Vocabulary()
				return nil
			})
		})
	}
}

package tokenizer

import (
	"errors"
	"strings"
	"testing"

	"github.com/subquad/subquad"
)

// TestGrowth: stages that could each make a text longer, so that all of them make more of it than
// there is memory, are not read.
func TestGrowth(t *testing.T) {
	list := func(n int, stage string) string {
		return strings.TrimSuffix(strings.Repeat(stage+", ", n), ", ")
	}
	const model = `"added_tokens": [{"id": 9, "content": "aa", "normalized": true}], "model": {"type": "WordLevel", "vocab": {"a": 0}}}`
	const double, letters = `{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}`, `{"type": "ByteLevel"}`
	const wanted = "times as long"
	for text, want := range map[string]string{
		`{"normalizer": {"type": "Sequence", "normalizers": [` + list(60, double) + `]}, ` + model:                                                                                                                                           wanted,
		`{"normalizer": {"type": "Sequence", "normalizers": [` + list(60, letters) + `]}, ` + model:                                                                                                                                          wanted,
		`{"normalizer": {"type": "Sequence", "normalizers": [` + list(60, `{"type": "Sequence", "normalizers": [`+double+`]}`) + `]}, ` + model:                                                                                              wanted,
		`{"normalizer": {"type": "Replace", "pattern": {"Regex": "."}, "content": "` + strings.Repeat("b", 5000) + `"}, ` + model:                                                                                                            wanted,
		`{"pre_tokenizer": {"type": "Sequence", "pretokenizers": [` + list(60, letters) + `]}, ` + model:                                                                                                                                     wanted,
		`{"decoder": {"type": "Sequence", "decoders": [` + list(60, double) + `]}, ` + model:                                                                                                                                                 wanted,
		`{"pre_tokenizer": {"type": "Metaspace", "replacement": "  "}, ` + model:                                                                                                                                                             "want one",
		`{"normalizer": ` + strings.Repeat(`{"type": "Sequence", "normalizers": [`, 900) + double + strings.Repeat(`]}`, 900) + `, ` + model:                                                                                                 "deep",
		`{"added_tokens": [{"id": 9, "content": "` + strings.Repeat("a", 5000) + `"}], "model": {"type": "WordLevel", "vocab": {"a": 0}}}`:                                                                                                   "5000 bytes",
		`{"normalizer": {"type": "Sequence", "normalizers": [` + list(9, double) + `]}, "added_tokens": [{"id": 9, "content": "` + strings.Repeat("a", 4000) + `", "normalized": true}], "model": {"type": "WordLevel", "vocab": {"a": 0}}}`: "when it is normalized",
		`{"normalizer": {"type": "Sequence", "normalizers": [` + list(8, double) + `]}, ` + model:                                                                                                                                            "",
		`{"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}, ` + model:                                                           "",
	} {
		tok, err := Read([]byte(text))
		if want == "" && err != nil || want != "" && (!errors.Is(err, subquad.ErrCheckpoint) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.200s: error %v", text, err)
		}
		if err == nil {
			tok.Encode("a b", true)
		}
	}
}

// TestLongWords: a word of any length takes no longer than its tokens can.
func TestLongWords(t *testing.T) {
	const n = 50_000
	word := strings.Repeat("a", n)
	for _, text := range []string{
		`{"model": {"type": "WordPiece", "unk_token": "u", "max_input_chars_per_word": 1000000000, "vocab": {"u": 0, "a": 1, "##a": 2, "##` + word + `": 3}}}`,
		`{"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["a", -2], ["b` + word + `", -1]]}}`,
	} {
		tok, err := Read([]byte(text))
		must(t, err)
		ids, err := tok.Encode(word, false)
		must(t, err)
		if len(ids) != n {
			t.Errorf("%d tokens, want %d", len(ids), n)
		}
	}
}

// TestTemplateTokens: no template has tokens that are none, or so many that they fill the memory.
func TestTemplateTokens(t *testing.T) {
	const model = `"model": {"type": "WordLevel", "vocab": {"a": 0}}}`
	single := func(times int, ids string) string {
		list := strings.TrimSuffix(strings.Repeat(`{"SpecialToken": {"id": "a"}}, `, times), ", ")
		return `{"post_processor": {"type": "TemplateProcessing", "single": [` + list + `], "special_tokens": {"a": {"ids": [` + ids + `]}}}, ` + model
	}
	for text, want := range map[string]string{
		single(3, "0, 0"): "",
		single(9000, "0"+strings.Repeat(", 0", 4000)): "more than",
		single(1, "-1"): "token -1",
		`{"post_processor": {"type": "BertProcessing", "sep": ["a", 0], "cls": ["a", 1e300]}, ` + model: "token 1e+300",
		`{"post_processor": {"type": "BertProcessing", "sep": ["a", -1], "cls": ["a", 0]}, ` + model:    "token -1",
	} {
		tok, err := Read([]byte(text))
		if want == "" && err != nil || want != "" && (!errors.Is(err, subquad.ErrCheckpoint) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.200s: error %v", text, err)
		}
		if err == nil {
			tok.Encode("a", true)
		}
	}
}

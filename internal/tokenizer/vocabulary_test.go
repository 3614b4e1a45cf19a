package tokenizer

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad"
)

// fallbackFile is a tokenizer of characters with bytes for others, runs of blanks as added
// tokens (as Gemma's), and more of a file.
func fallbackFile(more string) string {
	var vocab strings.Builder
	for i := range 256 {
		fmt.Fprintf(&vocab, `"<0x%02X>": %d, `, i, 3+i)
	}
	return `{"model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, ` + vocab.String() +
		`"▁": 259, "▁▁": 260, "a": 261, "B": 262, "b": 263, "▁a": 264, "c": 265, "7": 266}, "merges": ["▁ ▁", "▁ a"]},
		"added_tokens": [{"id": 1, "content": "<s>", "special": true}, {"id": 260, "content": "▁▁", "normalized": false}]` + more + "}"
}

// TestVocabulary: what bytes tokens stand for, with blanks that are added tokens; what changes
// text, puts several tokens before it or asks for more memory than its file is refused.
func TestVocabulary(t *testing.T) {
	const spaces = `{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}`
	read := func(file string) (Vocabulary, error) {
		tok, err := Read([]byte(file))
		must(t, err)
		return tok.Vocabulary()
	}
	v, err := read(fallbackFile(`, "normalizer": ` + spaces))
	must(t, err)
	if !slices.Equal(v.Specials, []int32{1}) || string(v.Bytes[260]) != "  " || string(v.Bytes[264]) != " a" || v.Bytes[1] != nil || len(v.Prefix) != 0 {
		t.Errorf("specials %v, token 260 is %q, 264 %q, prefix %q", v.Specials, v.Bytes[260], v.Bytes[264], v.Prefix)
	}
	if got := v.Encode(nil, []byte("  é a")); !slices.Equal(got, []int32{260, 3 + 0xc3, 3 + 0xa9, 264}) {
		t.Errorf("encoded %v", got)
	}
	if v, err = read(fallbackFile(`, "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, ` + spaces + `]}`)); err != nil || string(v.Prefix) != " " {
		t.Errorf("with a blank before: %q, error %v", v.Prefix, err)
	}
	letters := func(prefix, more string) string {
		return `{"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": ` + prefix + `}, "model": {"type": "BPE", "vocab": ` + letterVocab("ab") + `, "merges": ["a b"]}` + more + "}"
	}
	if v, err = read(letters("false", "")); err != nil || string(v.Bytes[256]) != "ab" || string(v.Bytes[' ']) != " " {
		t.Errorf("a tokenizer of bytes: error %v", err)
	}
	template := `, "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}, {"Sequence": {}}], "special_tokens": {"x": {"ids": [1, 2]}}}`
	for name, file := range map[string]string{
		"lower case":       fallbackFile(`, "normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, ` + spaces + `]}`),
		"words":            fallbackFile(`, "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "never"}`),
		"blank before all": letters("true", ""),
		"two before":       letters("false", template),
		"a large number":   letters("false", `, "added_tokens": [{"id": 2147483646, "content": "x"}]`),
	} {
		if _, err := read(file); !errors.Is(err, subquad.ErrCall) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := Read([]byte(letters("false", `, "added_tokens": [{"id": 2147483647, "content": "x"}]`))); !errors.Is(err, subquad.ErrCheckpoint) {
		t.Errorf("the largest number: error %v", err)
	}
}

// TestVocabularySpells: with the real tokenizer of GPT-NeoX the bytes of the tokens of a text
// are the text.
func TestVocabularySpells(t *testing.T) {
	v, err := neox(t).Vocabulary()
	must(t, err)
	text, err := os.ReadFile("../../examples/generate/testdata/heldout.txt")
	must(t, err)
	text = append(text[:min(len(text), 1<<14)], "\n\n\t  x<|endoftext|> \xe4\xbd"...)
	var got []byte
	for _, id := range v.Encode(nil, text) {
		got = append(got, v.Bytes[id]...)
	}
	if string(got) != string(text) {
		t.Errorf("%d bytes became %d", len(text), len(got))
	}
}

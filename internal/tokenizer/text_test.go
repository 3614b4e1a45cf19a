package tokenizer

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad"
)

// kinds has a tokenizer.json of each kind of decoder.
var kinds = map[string]string{
	"byte level": small,
	"llama": `{"added_tokens": [{"id": 0, "content": "<unk>", "special": true, "normalized": false}, {"id": 1, "content": "<s>", "special": true, "normalized": false}],
		"decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
		"model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "vocab": {"<unk>": 0, "<s>": 1, "<0xC3>": 2, "<0xA9>": 3, "▁": 4, "a": 5, "b": 6, "▁a": 7, "▁ab": 8}, "merges": ["▁ a", "▁a b"]}}`,
	"metaspace":  `{"decoder": {"type": "Metaspace"}, "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["▁", -3], ["a", -2], ["▁ab", -1]]}}`,
	"word piece": `{"decoder": {"type": "WordPiece"}, "model": {"type": "WordPiece", "unk_token": "u", "vocab": {"u": 0, "em": 1, "##bed": 2, ",": 3}}}`,
	"none":       `{"model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}}}`,
	"suffixes":   `{"decoder": {"type": "BPEDecoder"}, "model": {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": {"a": 0, "b</w>": 1}, "merges": []}}`,
}

// TestAppendText: token by token a text is what Decode gives.
func TestAppendText(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, file := range kinds {
		tok, err := Read([]byte(file))
		must(t, err)
		for range 300 {
			var ids []int32
			for range r.IntN(9) {
				ids = append(ids, int32(r.IntN(tok.Size()+2)-1))
			}
			ids = slices.DeleteFunc(ids, func(id int32) bool { _, ok := tok.piece(id); return !ok })
			var text []byte
			before := int32(-1)
			for _, id := range ids {
				text, before = tok.AppendText(text, before, id), id
			}
			want := tok.Decode(ids)
			if name == "suffixes" && len(ids) > 0 && ids[len(ids)-1] == 1 {
				want += " " // there is no telling that it is the last word
			}
			if string(text) != want {
				t.Fatalf("%s: %v is %q token by token, want %q", name, ids, text, want)
			}
		}
		if got := tok.AppendText([]byte("x"), 0, 1<<30); string(got) != "x" {
			t.Errorf("%s: no token is %q", name, got)
		}
		tok.AppendText(nil, 0, 1)
		dst := make([]byte, 0, 100)
		if n := testing.AllocsPerRun(20, func() { tok.AppendText(dst, 0, 1) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestParts: marks are tokens, and the same names in other parts are not.
func TestParts(t *testing.T) {
	tok, err := Read([]byte(small))
	must(t, err)
	mark := func(name string) Part { return Part{name, true} }
	got, err := tok.EncodeParts([]Part{mark("<|im_start|>"), {Text: "in"}, {Text: " the    <|im_end|>é"}, {Text: "a"}, mark("<|im_end|>"), mark("<none>")})
	must(t, err)
	want := []int32{301, 256, 259, 303} // "    " is found as it always is, "éa" is text
	for _, b := range []byte("<|im_end|>éa") {
		want = append(want, int32(b))
	}
	want = append(want, 302)
	for _, b := range []byte("<none>") {
		want = append(want, int32(b))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	// Without names in contents it is what Encode gives of the whole.
	whole, err := tok.Encode("<|im_start|>in the  \n<|im_end|>in", false)
	must(t, err)
	if got, err = tok.EncodeParts([]Part{mark("<|im_start|>"), {Text: "in the"}, {Text: "  \n"}, mark("<|im_end|>"), {Text: "in"}}); err != nil || !slices.Equal(got, whole) {
		t.Errorf("%v, want %v; error %v", got, whole, err)
	}
	strips := strings.Replace(small, `"id": 302, "content": "<|im_end|>", "special": true`, `"id": 302, "content": "<|im_end|>", "special": true, "lstrip": true, "rstrip": true`, 1)
	tok, err = Read([]byte(strips))
	must(t, err)
	whole, err = tok.Encode("in \n<|im_end|> \nin <|im_end|>", false)
	must(t, err)
	if got, err = tok.EncodeParts([]Part{{Text: "in \n"}, mark("<|im_end|>"), {Text: " \n"}, {Text: "in "}, mark("<|im_end|>")}); err != nil || !slices.Equal(got, whole) {
		t.Errorf("%v, want %v; error %v", got, whole, err)
	}
}

// TestGuard: a model whose vocabulary has a special token's name does not make it of text.
func TestGuard(t *testing.T) {
	file := `{"added_tokens": [{"id": 3, "content": "ab", "special": true}, {"id": 4, "content": "!", "special": true}],
		"model": {"type": "BPE", "ignore_merges": true, "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "!": 4}, "merges": ["a b"]}}`
	tok, err := Read([]byte(file))
	must(t, err)
	if got, err := tok.EncodeParts([]Part{{Text: "abc"}, {"ab", true}, {Text: "ab"}}); err != nil || !slices.Equal(got, []int32{0, 1, 2, 3, 0, 1}) {
		t.Errorf("%v, error %v", got, err)
	}
	if got, err := tok.EncodeParts([]Part{{Text: "a!"}}); !errors.Is(err, subquad.ErrCall) {
		t.Errorf("%v, error %v", got, err)
	}
}

package tokenizer

import (
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/subquad/subquad"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// neox is the tokenizer of GPT-NeoX and of most Mamba checkpoints, where it is at hand.
func neox(t testing.TB) *Tokenizer {
	t.Helper()
	text, err := os.ReadFile("../../../shared/data/tokenizers/gpt-neox-20b.json")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("left out, for its file is not here: gpt-neox-20b.json")
	}
	must(t, err)
	tok, err := Read(text)
	must(t, err)
	return tok
}

// letterVocab writes a vocabulary of all bytes, numbered from 0, and more tokens.
func letterVocab(more ...string) string {
	var list []string
	for b := range 256 {
		list = append(list, quote(string(byteLetters[b]))+":"+itoa(b))
	}
	for i, token := range more {
		list = append(list, quote(token)+":"+itoa(256+i))
	}
	return "{" + strings.Join(list, ",") + "}"
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

// small is a byte-level BPE with chat tokens and runs of spaces.
var small = `{"added_tokens": [
	{"id": 300, "content": "<|end|>", "special": true, "normalized": false},
	{"id": 301, "content": "<|im_start|>", "special": true, "normalized": false},
	{"id": 302, "content": "<|im_end|>", "special": true, "normalized": false},
	{"id": 303, "content": "    ", "special": false, "normalized": true},
	{"id": 304, "content": "  ", "special": false, "normalized": true},
	{"id": 305, "content": "éa", "special": false, "normalized": true}],
	"normalizer": {"type": "NFC"},
	"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
	"decoder": {"type": "ByteLevel"},
	"model": {"type": "BPE", "vocab": ` + letterVocab("in", "he", "Ġt", "Ġthe", "aa", "aaaa") + `,
	"merges": ["i n", "h e", "Ġ t", ["Ġt", "he"], "a a", "aa aa"]}}`

func TestNeoX(t *testing.T) {
	tok := neox(t)
	for text, want := range map[string][]int32{
		"def f(x):\n    return x":     {1545, 269, 9, 89, 2262, 187, 50274, 2309, 1269},
		"<|endoftext|>":               {0},
		"Hello<|endoftext|>  world":   {12092, 0, 50276, 10186},
		strings.Repeat(" ", 24):       {50254},
		strings.Repeat(" ", 25) + "x": {50254, 1269},
		"In the beginning":            {688, 253, 5068},
		"":                            nil,
	} {
		got, err := tok.Encode(text, true)
		must(t, err)
		if !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
		if back := tok.Decode(got); back != text {
			t.Errorf("%q came back as %q", text, back)
		}
	}
	if got := tok.Decode([]int32{50274}); got != "    " {
		t.Errorf("50274 is %q", got)
	}
	if id, ok := tok.Lookup("<|endoftext|>"); !ok || id != 0 || tok.Size() != 50277 {
		t.Errorf("the end of text is %d, %v, of %d", id, ok, tok.Size())
	}
	if got := tok.Decode([]int32{-1, 50277, 1 << 30}); got != "" {
		t.Errorf("no tokens are %q", got)
	}
}

// TestRoundTrip: what is decoded is what was encoded.
func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	toy, err := Read([]byte(small))
	must(t, err)
	tokenizers := map[string]*Tokenizer{"small": toy}
	if _, err := os.Stat("../../../shared/data/tokenizers/gpt-neox-20b.json"); err == nil {
		tokenizers["gpt-neox-20b"] = neox(t)
	}
	parts := []string{"<|endoftext|>", "<|im_start|>", "<|end|>", "<|end", "|>", " ", "  ", "    ", "\n", "\t", "\r\n", "\x00", "def", " the", "in", "é", "e\u0301", "éa", "世界", "🙂", "\u200d", "\u00a0", "'s", "'ll", "123", "ﬁ", "\ufffd"}
	for name, tok := range tokenizers {
		for range 3000 {
			var b strings.Builder
			for range r.IntN(30) {
				switch kind := r.IntN(4); {
				case kind == 0:
					b.WriteRune(rune(r.IntN(0x3000)))
				case kind == 1 && name == "small": // the other knows valid UTF-8 only
					b.WriteByte(byte(r.IntN(256)))
				default:
					b.WriteString(parts[r.IntN(len(parts))])
				}
			}
			text := b.String()
			ids, err := tok.Encode(text, false)
			must(t, err)
			if back := tok.Decode(ids); back != norm.NFC.String(text) {
				t.Fatalf("%s: %q came back as %q by %v", name, text, back, ids)
			}
			// Decoding is the same in pieces: a stream of text may be written as it comes.
			var streamed strings.Builder
			for _, id := range ids {
				streamed.WriteString(tok.Decode([]int32{id}))
			}
			if streamed.String() != norm.NFC.String(text) {
				t.Fatalf("%s: %q came in pieces as %q", name, text, streamed.String())
			}
		}
	}
}

// TestLong takes time that grows with the text and not with its square.
func TestLong(t *testing.T) {
	tok, err := Read([]byte(small))
	must(t, err)
	for _, text := range []string{strings.Repeat("a", 1<<18), strings.Repeat(" ", 1<<18) + "x", strings.Repeat("in the ", 1<<15), strings.Repeat("\u0301", 1000)} {
		ids, err := tok.Encode(text, false)
		must(t, err)
		if tok.Decode(ids) != text {
			t.Errorf("%.10q… came back as something else", text)
		}
	}
}

func TestAdded(t *testing.T) {
	file := func(added, rest string) string {
		return `{"added_tokens": [` + added + `], ` + rest + ` "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
			"decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": ` + letterVocab() + `, "merges": []}}`
	}
	for _, c := range []struct{ added, rest, text, want string }{
		{`{"id": 300, "content": "<a>"}, {"id": 301, "content": "<a><b>"}`, "", "x<a><b><a>y", "x|301|300|y"}, // the longest
		{`{"id": 300, "content": "ab"}, {"id": 301, "content": "bcd"}`, "", "abcd", "300|cd"},                 // leftmost
		{`{"id": 300, "content": "<a>", "lstrip": true}`, "", "x \n<a> y", "x|300| y"},
		{`{"id": 300, "content": "<a>", "rstrip": true}`, "", "x <a> \n y", "x |300|y"},
		{`{"id": 300, "content": "<a>", "lstrip": true, "rstrip": true}`, "", " <a> <a> ", "300|300"},
		{`{"id": 300, "content": "<a>", "rstrip": true}, {"id": 301, "content": " "}`, "", "<a>  x y", "300|x|301|y"},
		{`{"id": 300, "content": "the", "single_word": true}`, "", "the other, the_ the", "300| other, the_ |300"},
		{`{"id": 300, "content": "A", "normalized": true}`, `"normalizer": {"type": "Lowercase"},`, "AbA", "300|b|300"},
		{`{"id": 300, "content": "A", "normalized": false}`, `"normalizer": {"type": "Lowercase"},`, "Aba", "300|ba"},
		{`{"id": 300, "content": "A", "special": true}`, `"normalizer": {"type": "Lowercase"},`, "Aba", "300|ba"},
		{`{"id": 300, "content": "Ġ"}`, "", "xĠ", "x|300"}, // a letter that stands for a byte
		{`{"id": 300, "content": ""}`, "", "x", "x"},
	} {
		tok, err := Read([]byte(file(c.added, c.rest)))
		must(t, err)
		ids, err := tok.Encode(c.text, true)
		must(t, err)
		var got []string
		text := false
		for _, id := range ids {
			switch {
			case id >= 300:
				got = append(got, itoa(int(id)))
			case text:
				got[len(got)-1] += string([]byte{byte(id)})
			default:
				got = append(got, string([]byte{byte(id)}))
			}
			text = id < 300
		}
		if s := strings.Join(got, "|"); s != c.want {
			t.Errorf("%s: %q: %s, want %s", c.added, c.text, s, c.want)
		}
	}
	tok, err := Read([]byte(file(`{"id": 300, "content": "Ġ"}, {"id": 301, "content": "<a>", "special": true}`, "")))
	must(t, err)
	if got := tok.Decode([]int32{'x', 300, 301, 300}); got != "xĠ<a>Ġ" {
		t.Errorf("decoded %q", got)
	}
}

// TestKinds runs small tokenizers of each kind.
func TestKinds(t *testing.T) {
	llama := `{"added_tokens": [{"id": 0, "content": "<unk>", "special": true, "normalized": false}, {"id": 1, "content": "<s>", "special": true, "normalized": false}],
		"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
		"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
			"special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
		"decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
		"model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
			"vocab": {"<unk>": 0, "<s>": 1, "<0xC3>": 2, "<0xA9>": 3, "▁": 4, "a": 5, "b": 6, "▁a": 7, "▁ab": 8}, "merges": ["▁ a", "▁a b"]}}`
	meta := `{"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}, "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
		"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["▁", -3], ["a", -2], ["b", -2], ["▁ab", -1], ["ab", -5], ["▁a", -1]]}}`
	bert := `{"normalizer": {"type": "BertNormalizer"}, "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": {"type": "WordPiece"},
		"post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 9], "cls": ["[CLS]", 8]},
		"added_tokens": [{"id": 8, "content": "[CLS]", "special": true}, {"id": 9, "content": "[SEP]", "special": true}],
		"model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "em": 1, "##bed": 2, "##ding": 3, ",": 4, "cafe": 5, "世": 6}}}`
	words := `{"pre_tokenizer": {"type": "Whitespace"}, "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "In": 1, "the": 2, "!": 3}}}`
	qwen := `{"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
			{"type": "Split", "pattern": {"Regex": "(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated"},
			{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]},
		"decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "ignore_merges": true, "vocab": ` + letterVocab("ab", "Ġab", "12", "ĠĠ", "a1") + `, "merges": ["a b", "1 2", "Ġ ab", "Ġ Ġ", "a 1"]}}`
	bytes := `{"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "ByteLevel"}]}, "decoder": {"type": "ByteLevel"},
		"added_tokens": [{"id": 400, "content": "<e>", "normalized": true}], "model": {"type": "BPE", "vocab": ` + letterVocab("ab") + `, "merges": ["a b"]}}`
	for _, c := range []struct {
		name, file, text string
		want             []int32
		back             string
	}{
		{"llama", llama, "ab a", []int32{1, 8, 7}, "<s> ab a"},
		{"llama", llama, "é?!b", []int32{1, 4, 2, 3, 0, 6}, "<s> é<unk>b"},
		{"llama", llama, "<s>a", []int32{1, 1, 7}, "<s><s> a"},
		{"metaspace", meta, "ab  a", []int32{4, 1, 6}, "ab  a"},
		{"metaspace", meta, "b??b", []int32{1, 3, 0, 3}, "b<unk>b"},
		{"bert", bert, "Embedding, Café 世", []int32{8, 1, 2, 3, 4, 5, 6, 9}, "[CLS] embedding, cafe 世 [SEP]"},
		{"bert", bert, "emx", []int32{8, 0, 9}, "[CLS] [UNK] [SEP]"},
		{"words", words, "In the!x", []int32{1, 2, 3, 0}, "In the ! [UNK]"},
		{"bytes", bytes, "é <e>ab", []int32{0xc3, 0xa9, ' ', 400, 256}, "é <e>ab"},
		{"words", words, "the !", []int32{2, 3}, "the !"},
		{"qwen", qwen, "ab ab12\n   ab", []int32{256, 257, '1', '2', '\n', 259, 257}, "ab ab12\n   ab"},
	} {
		tok, err := Read([]byte(c.file))
		must(t, err)
		got, err := tok.Encode(c.text, true)
		must(t, err)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s, %q: %v, want %v", c.name, c.text, got, c.want)
		}
		if back := tok.Decode(got); back != c.back {
			t.Errorf("%s: %v came back as %q, want %q", c.name, got, back, c.back)
		}
	}
}

func TestSplits(t *testing.T) {
	for _, c := range []struct{ file, text, want string }{
		{`{"type": "Split", "pattern": {"String": "-"}, "behavior": "Removed"}`, "a-b--c", "a|b|c"},
		{`{"type": "Split", "pattern": {"String": "-"}, "behavior": "Isolated"}`, "a-b--c", "a|-|b|-|-|c"},
		{`{"type": "Split", "pattern": {"String": "-"}, "behavior": "Contiguous"}`, "a-b--c", "a|-|b|--|c"},
		{`{"type": "Split", "pattern": {"String": "-"}, "behavior": "MergedWithPrevious"}`, "a-b--c", "a-|b-|-|c"},
		{`{"type": "Split", "pattern": {"String": "-"}, "behavior": "MergedWithNext"}`, "a-b--c", "a|-b|-|-c"},
		{`{"type": "Split", "pattern": {"Regex": "[a-z]+"}, "behavior": "Removed", "invert": true}`, "ab1cd", "ab|cd"},
		{`{"type": "Split", "pattern": {"Regex": " ?[^(\\s|[.,!?…。])]+"}, "behavior": "Isolated"}`, "ab, c|d", "ab|,| c|||d"},
		{`{"type": "Digits", "individual_digits": true}`, "a12b", "a|1|2|b"},
		{`{"type": "Digits", "individual_digits": false}`, "a12b", "a|12|b"},
		{`{"type": "WhitespaceSplit"}`, " a \u00a0b! ", "a|b!"},
		{`{"type": "Punctuation"}`, "a,b«c", "a|,|b|«|c"},
		{`{"type": "CharDelimiterSplit", "delimiter": "_"}`, "a_b", "a|b"},
		{`{"type": "Metaspace"}`, "a b  c", "▁a|▁b|▁|▁c"},
		{`{"type": "ByteLevel", "add_prefix_space": true}`, "a  b's\u00a0\u00a0c", "Ġa|Ġ|Ġb|'s|Âł|Âł|c"},
	} {
		var s section
		must(t, s.UnmarshalJSON([]byte(c.file)))
		f, err := newSplit(&s)
		must(t, err)
		if got := strings.Join(f([]string{c.text}, true), "|"); got != c.want {
			t.Errorf("%s: %q, want %q", c.file, got, c.want)
		}
	}
}

func TestErrors(t *testing.T) {
	vocab := `"model": {"type": "WordLevel", "vocab": {"a": 0}}`
	for text, want := range map[string]string{
		"":                              "unexpected end of JSON input",
		"{}":                            "there is no model: this is not a tokenizer.json",
		`{"model": {"type": "Neural"}}`: `the model is of type "Neural", which is not known`,
		`{"normalizer": {"type": "Precompiled"}, ` + vocab + `}`:                                                              `the normalizer is of type "Precompiled", which is not known`,
		`{"pre_tokenizer": {"type": "X"}, ` + vocab + `}`:                                                                     `the pre_tokenizer is of type "X", which is not known`,
		`{"decoder": {"type": "X"}, ` + vocab + `}`:                                                                           `the decoder is of type "X", which is not known`,
		`{"post_processor": {"type": "X"}, ` + vocab + `}`:                                                                    `the post_processor is of type "X", which is not known`,
		`{"added_tokens": [{"id": -1, "content": "x"}], ` + vocab + `}`:                                                       `added token "x" has number -1`,
		`{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}`:                                                    `BPE: merges[0] is of "a" and "b", and these or what they make is no token`,
		`{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}`:                                                        `token "a" has number -1`,
		`{"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a(?=b)"}, "behavior": "Isolated"}, ` + vocab + `}`:         "is not supported",
		`{"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[\\p{L}&&[^a]]"}, "behavior": "Isolated"}, ` + vocab + `}`: "is not supported",
	} {
		if _, err := Read([]byte(text)); !errors.Is(err, subquad.ErrCheckpoint) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %s", text, err, want)
		}
	}
	tok, err := Read([]byte("{" + vocab + "}"))
	must(t, err)
	if _, err := tok.Encode("b", false); !errors.Is(err, subquad.ErrCall) || err.Error() != `tokenizer: "b" has no token, and there is none for unknown text` {
		t.Errorf("error %v", err)
	}
}

func BenchmarkEncode(b *testing.B) {
	tok := neox(b)
	text, err := os.ReadFile("../../examples/generate/testdata/heldout.txt")
	must(b, err)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := tok.Encode(string(text), false); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzRead wants an error or a tokenizer that takes any text.
func FuzzRead(f *testing.F) {
	f.Add([]byte(small), "in the <|end|>")
	f.Add([]byte(`{"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0]]}}`), "a")
	f.Fuzz(func(t *testing.T, file []byte, text string) {
		tok, err := Read(file)
		if err != nil {
			return
		}
		if ids, err := tok.Encode(text, true); err == nil {
			tok.Decode(ids)
		}
	})
}

// FuzzRoundTrip wants the text back.
func FuzzRoundTrip(f *testing.F) {
	f.Add("in the <|end|>    x")
	tok, err := Read([]byte(small))
	must(f, err)
	f.Fuzz(func(t *testing.T, text string) {
		ids, err := tok.Encode(text, false)
		must(t, err)
		if back := tok.Decode(ids); utf8.ValidString(text) && norm.NFC.IsNormalString(text) && back != text {
			t.Fatalf("%q came back as %q", text, back)
		}
	})
}

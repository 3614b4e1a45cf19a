package tokenizer

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// patterns are those of published tokenizers (gpt2's is a constant of the package).
var patterns = map[string]string{
	"gpt2":      gpt2,
	"llama3":    `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
	"qwen2":     `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
	"gpt-oss":   `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
	"digits":    `\p{N}{1,3}`,
	"ideograms": `[一-龥぀-ゟ゠-ヿ]+`,
	"deepseek":  "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
	"words":     `\w+|[^\w\s]+`,
	"counts":    `a{2}b?|\d{2,}|x+y*z|\S`,
}

// TestScan: characters one by one are cut as regular expressions cut them.
func TestScan(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	parts := []string{"a", "B", "ab", "Ab", "aB'S", "'ll", "'ſ", "'re", "'", "1", "23", "４", "½", " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2028", "\u3000", "é", "e\u0301", "世界", "ゟ", "ǅ", "ʰ",
		"-", "!", "/", "\\", "]", "^", "«", "€", "🙂", "\u200d", "\ufffd", "\xff", "\x85", "xxy", "xyz", "xz", "_"}
	for name, pattern := range patterns {
		fast, err := compile(pattern)
		must(t, err)
		slow, err := compileGroups(pattern)
		must(t, err)
		if fast.scan == nil {
			t.Errorf("%s: needs regular expressions", name)
			continue
		}
		for range 2000 {
			var b strings.Builder
			for range r.IntN(40) {
				b.WriteString(parts[r.IntN(len(parts))])
			}
			cut := func(m *matcher) (list []string) {
				m.cut(b.String(), func(part string, matched bool) {
					if !matched {
						part = "not " + part
					}
					list = append(list, part)
				})
				return list
			}
			if got, want := strings.Join(cut(fast), "|"), strings.Join(cut(slow), "|"); got != want {
				t.Fatalf("%s: %q is cut as %q, want %q", name, b.String(), got, want)
			}
		}
	}
	for _, pattern := range []string{`a*`, `(a|b)+`, `a++`, `a+?`, `a.`, `[[a]b]`, `[a&&b]`, `\x{41}`, `[a`, `(?i:a`, `\pL`, `a{b}`, `(?=a)`, ``} {
		if _, ok := newAlternative(pattern); ok {
			t.Errorf("%q is read", pattern)
		}
	}
}

// TestJoin: a word is joined alike by looking at all its pairs and by a queue.
func TestJoin(t *testing.T) {
	tok, err := Read([]byte(`{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "aa": 3, "aab": 4, "ba": 5, "abab": 6, "bb": 7},
		"merges": ["a b", "a a", "aa b", "b a", "ab ab", "b b"]}}`))
	must(t, err)
	b := tok.model.(*bpe)
	r := rand.New(rand.NewPCG(3, 1))
	for range 5000 {
		word := make([]int32, r.IntN(fewTokens+1))
		for i := range word {
			word[i] = int32(r.IntN(2))
		}
		few, many := append([]int32(nil), word...), append([]int32(nil), word...)
		if n, m := b.joinFew(few), b.join(many); n != m || string(asRunes(few[:n])) != string(asRunes(many[:m])) {
			t.Fatalf("%v: %v, want %v", word, few[:n], many[:m])
		}
	}
}

func asRunes(ids []int32) (list []rune) { return append(list, ids...) }

package rwkv

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// lines are some of the published file's kinds.
const lines = `1 '\x00' 1
2 '\x01' 1
33 ' ' 1
66 'A' 1
98 'a' 1
99 'b' 1
100 "'" 1
101 '"' 1
102 '\\' 1
129 b'\x80' 1
196 b'\xc3' 1
257 '\t\n' 2
258 'ab' 2
259 ' a' 2
260 'abab' 4
261 'é' 2
262 b'\xe2\x82' 2
263 '\u200b' 3
`

func vocabulary(t testing.TB, text string) *Vocabulary {
	t.Helper()
	v, err := ReadVocabulary(strings.NewReader(text))
	must(t, err)
	return v
}

func TestVocabulary(t *testing.T) {
	v := vocabulary(t, lines)
	if v.Size() != 264 {
		t.Errorf("Size is %d", v.Size())
	}
	for text, want := range map[string][]int32{
		"":           nil,
		"ab":         {258},
		"aba":        {258, 98},
		"ababab":     {260, 258},
		"bab ab":     {99, 258, 259, 99},
		"é\xc3\x80":  {261, 196, 129},
		"\u200b\t\n": {263, 257},
		"'\"\\\x00":  {100, 101, 102, 1},
		"\xe2\x82":   {262},
	} {
		got, err := v.Encode(text)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v: %v", text, got, want, err)
		}
		var back []byte
		for _, token := range got {
			back = v.AppendText(back, -1, token)
		}
		if string(back) != text {
			t.Errorf("%q becomes %q", text, back)
		}
	}
	if _, err := v.Encode("az"); !errors.Is(err, ErrShape) || !strings.Contains(err.Error(), "byte 1 of the text, 0x7a") {
		t.Errorf("error %v of a byte that is no token", err)
	}
	for _, token := range []int32{-1, 0, 5, 264} {
		if got := v.AppendText(nil, -1, token); len(got) != 0 {
			t.Errorf("token %d is %q", token, got)
		}
	}
	path := filepath.Join(t.TempDir(), "vocab.txt")
	must(t, os.WriteFile(path, []byte(lines), 0o600))
	if read, err := OpenVocabulary(path); err != nil || read.Size() != v.Size() {
		t.Errorf("the file: %v", err)
	}
	if _, err := OpenVocabulary(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v of no file", err)
	}
}

// TestLongest compares with a search through all tokens.
func TestLongest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	text := ""
	seen := map[string]int{}
	for n := 1; n < 300; n++ {
		word := ""
		for range 1 + r.IntN(5) {
			word += string("abc"[r.IntN(3)])
		}
		if seen[word] == 0 {
			seen[word] = n
			text += strings.Join([]string{itoa(n), "'" + word + "'", itoa(len(word))}, " ") + "\n"
		}
	}
	v := vocabulary(t, text)
	for range 1000 {
		s := ""
		for range r.IntN(9) {
			s += string("abcd"[r.IntN(4)])
		}
		want, n := 0, 0
		for word, token := range seen {
			if strings.HasPrefix(s, word) && len(word) > n {
				want, n = token, len(word)
			}
		}
		if token, m := v.longest(s); int(token) != want || m != n {
			t.Fatalf("%q begins with token %d of %d bytes, want %d of %d", s, token, m, want, n)
		}
	}
}

func itoa(n int) string {
	return string(strings.TrimLeft(string([]byte{byte('0' + n/100), byte('0' + n/10%10), byte('0' + n%10)}), "0"))
}

func TestHostileVocabularies(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "no tokens",
		"1":                        "want a number, a text and its length",
		"x 'a' 1":                  "token",
		"0 'a' 1":                  "token",
		"-1 'a' 1":                 "token",
		"999999999 'a' 1":          "token",
		"1 'a' 2":                  "a token of 1 bytes",
		"1 '' 0":                   "a token of 0 bytes",
		"1 a 1":                    "no text in quotes",
		"1 'a\" 1":                 "no text in quotes",
		"1 '\\' 1":                 "escape",
		"1 '\\q' 1":                "escape",
		"1 '\\x1' 1":               "escape",
		"1 '\\xzz' 1":              "escape",
		"1 b'\\u0041' 1":           "escape",
		"1 '\\UFFFFFFFF' 1":        "escape",
		"1 '\\ud800' 3":            "escape", // half of a character
		"1 'a' 1\n1 'b' 1":         "token 1 is there twice",
		"1 'a' 1\n2 'a' 1":         "the same text",
		strings.Repeat("x", 2<<20): "longer",
	} {
		if _, err := ReadVocabulary(strings.NewReader(text)); !errors.Is(err, ErrCheckpoint) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.50q: error %v, want %s", text, err, want)
		}
	}
}

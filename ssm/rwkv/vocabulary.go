package rwkv

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/weights"
)

// Vocabulary is the tokens of RWKV's World models: each is some bytes, and a text is cut from
// its beginning on into the longest tokens that there are. Token 0 ends a text and has no
// bytes. It is immutable and safe for concurrent use, and can be a GenerateConfig's Words.
type Vocabulary struct {
	texts  map[int32]string // by token
	sorted []word
	size   int
}

type word struct {
	text  string
	token int32
}

// mostWords and mostWord bound the tokens of a vocabulary and the bytes of one.
const (
	mostWords = 1 << 22
	mostWord  = 1 << 16
)

// OpenVocabulary reads a file like rwkv_vocab_v20230424.txt. Errors match ErrCheckpoint or
// come from the file system.
func OpenVocabulary(path string) (*Vocabulary, error) {
	text, err := weights.ReadFile(path, weights.MaxText)
	if err != nil {
		return nil, fmt.Errorf("rwkv: %w", err)
	}
	return ReadVocabulary(bytes.NewReader(text))
}

// ReadVocabulary reads a vocabulary: a line for each token, its number, its text as Python
// writes a str or bytes, and the number of its bytes. Errors match ErrCheckpoint and name the
// line, or are those of r.
func ReadVocabulary(r io.Reader) (*Vocabulary, error) {
	if r == nil {
		return nil, check.Errorf(ErrCheckpoint, "rwkv: the reader is nil")
	}
	v := &Vocabulary{texts: map[int32]string{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16*mostWord)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSuffix(lines.Text(), "\r")
		if line == "" {
			continue
		}
		token, text, err := parseWord(line)
		if err != nil {
			return nil, check.Errorf(ErrCheckpoint, "rwkv: vocabulary: line %d: %v", n, err)
		}
		if v.texts[token] != "" {
			return nil, check.Errorf(ErrCheckpoint, "rwkv: vocabulary: line %d: token %d is there twice", n, token)
		}
		v.texts[token], v.size = text, max(v.size, int(token)+1)
		v.sorted = append(v.sorted, word{text, token})
	}
	if err := lines.Err(); err != nil {
		if err == bufio.ErrTooLong {
			return nil, check.Errorf(ErrCheckpoint, "rwkv: vocabulary: a line is longer than %d bytes", 16*mostWord)
		}
		return nil, fmt.Errorf("rwkv: %w", err)
	}
	if len(v.sorted) == 0 {
		return nil, check.Errorf(ErrCheckpoint, "rwkv: vocabulary: there are no tokens")
	}
	sort.SliceStable(v.sorted, func(i, j int) bool { return v.sorted[i].text < v.sorted[j].text })
	for i := 1; i < len(v.sorted); i++ {
		if a, b := v.sorted[i-1], v.sorted[i]; a.text == b.text {
			return nil, check.Errorf(ErrCheckpoint, "rwkv: vocabulary: tokens %d and %d are the same text", a.token, b.token)
		}
	}
	return v, nil
}

// parseWord reads a line.
func parseWord(line string) (token int32, text string, err error) {
	first, last := strings.IndexByte(line, ' '), strings.LastIndexByte(line, ' ')
	if first < 0 || first == last {
		return 0, "", fmt.Errorf("%.100q, want a number, a text and its length", line)
	}
	number, err := strconv.Atoi(line[:first])
	if err != nil || number < 1 || number >= mostWords {
		return 0, "", fmt.Errorf("token %.100q, want 1 to %d", line[:first], mostWords-1)
	}
	if text, err = parseLiteral(line[first+1 : last]); err != nil {
		return 0, "", err
	}
	if want := line[last+1:]; want != strconv.Itoa(len(text)) || len(text) == 0 || len(text) > mostWord {
		return 0, "", fmt.Errorf("a token of %d bytes, want %.100q, 1 to %d", len(text), want, mostWord)
	}
	return int32(number), text, nil
}

// escapes are those of one letter.
var escapes = map[byte]byte{'\\': '\\', '\'': '\'', '"': '"', 'n': '\n', 'r': '\r', 't': '\t', 'a': '\a', 'b': '\b', 'f': '\f', 'v': '\v', '0': 0}

// parseLiteral reads a str or bytes as Python's repr writes it.
func parseLiteral(s string) (string, error) {
	whole := s
	s, raw := strings.CutPrefix(s, "b")
	if len(s) < 2 || s[0] != '\'' && s[0] != '"' || s[len(s)-1] != s[0] {
		return "", fmt.Errorf("%.100q is no text in quotes", whole)
	}
	var out []byte
	for s = s[1 : len(s)-1]; s != ""; {
		if s[0] != '\\' {
			out, s = append(out, s[0]), s[1:]
			continue
		}
		if len(s) < 2 {
			return "", fmt.Errorf("%.100q ends in an escape", whole)
		}
		digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[1]]
		if digits == 0 {
			c, ok := escapes[s[1]]
			if !ok {
				return "", fmt.Errorf("%.100q has an escape that is not read, %q", whole, s[:2])
			}
			out, s = append(out, c), s[2:]
			continue
		}
		if len(s) < 2+digits {
			return "", fmt.Errorf("%.100q ends in an escape", whole)
		}
		code, err := strconv.ParseUint(s[2:2+digits], 16, 32)
		switch {
		case err != nil || raw && digits != 2 || !utf8.ValidRune(rune(code)):
			return "", fmt.Errorf("%.100q has an escape that is not read, %q", whole, s[:2+digits])
		case raw:
			out = append(out, byte(code))
		default:
			out = utf8.AppendRune(out, rune(code))
		}
		s = s[2+digits:]
	}
	return string(out), nil
}

// Size is one more than the largest token.
func (v *Vocabulary) Size() int { return v.size }

// AppendText appends the bytes of a token to dst, none where it has none; before, the token
// before it, makes no difference.
func (v *Vocabulary) AppendText(dst []byte, before, token int32) []byte {
	return append(dst, v.texts[token]...)
}

// Encode returns the tokens of a text. It returns an error that matches ErrShape where a byte
// of it begins no token, or that is longer than 2^31-1 bytes.
func (v *Vocabulary) Encode(text string) (tokens []int32, err error) {
	if len(text) > math.MaxInt32 {
		return nil, check.Errorf(ErrShape, "rwkv: the text has %d bytes, want at most %d", len(text), math.MaxInt32)
	}
	for at := 0; at < len(text); {
		token, n := v.longest(text[at:])
		if n == 0 {
			return nil, check.Errorf(ErrShape, "rwkv: byte %d of the text, %#02x, begins no token", at, text[at])
		}
		tokens, at = append(tokens, token), at+n
	}
	return tokens, nil
}

// longest returns the longest token that a text begins with, and its bytes; none is 0.
func (v *Vocabulary) longest(text string) (token int32, n int) {
	list := v.sorted // those that begin with the first k bytes, shorter ones first
	for k := range len(text) {
		c := text[k]
		from := sort.Search(len(list), func(i int) bool { return len(list[i].text) > k && list[i].text[k] >= c })
		list = list[from:]
		list = list[:sort.Search(len(list), func(i int) bool { return list[i].text[k] > c })]
		if len(list) == 0 {
			break
		}
		if len(list[0].text) == k+1 {
			token, n = list[0].token, k+1
		}
	}
	return token, n
}

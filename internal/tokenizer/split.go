package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// split cuts parts of a text into words. first tells whether it is the text's beginning.
type split func(parts []string, first bool) []string

// gpt2 is how GPT-2 cuts text, which a ByteLevel pre-tokenizer does where it is not told
// otherwise.
const gpt2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

func newSplit(s *section) (split, error) {
	if s == nil {
		return func(parts []string, _ bool) []string { return parts }, nil
	}
	switch s.Type {
	case "ByteLevel":
		cut, err := newByteLevel(s)
		return func(parts []string, first bool) []string {
			parts = cut(parts, first)
			for i, part := range parts {
				parts[i] = toLetters(part)
			}
			return parts
		}, err
	case "Metaspace":
		return newMetaspace(s)
	case "Split":
		f, err := as[struct {
			Pattern  json.RawMessage
			Behavior string
			Invert   bool
		}](s)
		if err != nil {
			return nil, err
		}
		m, err := newMatcher(f.Pattern)
		if err != nil {
			return nil, err
		}
		return m.split(f.Behavior, f.Invert)
	case "Digits":
		f, err := as[struct {
			Individual bool `json:"individual_digits"`
		}](s)
		if err != nil {
			return nil, err
		}
		if f.Individual {
			return pieces(`\p{N}`, "Isolated")
		}
		return pieces(`\p{N}+`, "Isolated")
	case "Whitespace":
		m, err := compile(`\w+|[^\w\s]+`)
		if err != nil {
			return nil, err
		}
		return m.split("Removed", true)
	case "WhitespaceSplit":
		return pieces(`\s+`, "Removed")
	case "Punctuation":
		f, err := as[struct{ Behavior string }](s)
		if err != nil {
			return nil, err
		}
		if f.Behavior == "" {
			f.Behavior = "Isolated"
		}
		return pieces(punctuation, f.Behavior)
	case "BertPreTokenizer":
		space, err := pieces(`\s+`, "Removed")
		if err != nil {
			return nil, err
		}
		marks, err := pieces(punctuation, "Isolated")
		return func(parts []string, first bool) []string { return marks(space(parts, first), first) }, err
	case "CharDelimiterSplit":
		f, err := as[struct{ Delimiter string }](s)
		if err != nil {
			return nil, err
		}
		return func(parts []string, _ bool) (list []string) {
			for _, part := range parts {
				list = append(list, strings.FieldsFunc(part, func(r rune) bool { return string(r) == f.Delimiter })...)
			}
			return list
		}, nil
	case "Sequence":
		f, err := as[struct{ Pretokenizers []*section }](s)
		if err != nil {
			return nil, err
		}
		return newSequence(f.Pretokenizers)
	}
	return nil, fmt.Errorf("the pre_tokenizer is of type %q, which is not known", s.Type)
}

func newSequence(sections []*section) (split, error) {
	all := make([]split, len(sections))
	for i, part := range sections {
		var err error
		if all[i], err = newSplit(part); err != nil {
			return nil, err
		}
	}
	return func(parts []string, first bool) []string {
		for _, s := range all {
			parts = s(parts, first)
		}
		return parts
	}, nil
}

// newWords is newSplit but for a last stage that writes a character for every byte, which is
// left to the caller and told by letters: a word that comes again need not be written again.
func newWords(s *section) (f split, letters bool, err error) {
	switch {
	case s != nil && s.Type == "ByteLevel":
		f, err = newByteLevel(s)
		return f, true, err
	case s != nil && s.Type == "Sequence":
		list, err := as[struct{ Pretokenizers []*section }](s)
		last := len(list.Pretokenizers) - 1
		if err != nil || last < 0 || list.Pretokenizers[last] == nil || list.Pretokenizers[last].Type != "ByteLevel" {
			break
		}
		before, err := newSequence(list.Pretokenizers[:last])
		if err != nil {
			return nil, false, err
		}
		cut, err := newByteLevel(list.Pretokenizers[last])
		return func(parts []string, first bool) []string { return cut(before(parts, first), first) }, true, err
	}
	f, err = newSplit(s)
	return f, false, err
}

const punctuation = "[!-/:-@\\[-`{-~\\p{P}]"

func pieces(pattern, behavior string) (split, error) {
	m, err := compile(pattern)
	if err != nil {
		return nil, err
	}
	return m.split(behavior, false)
}

// split cuts at matches, or with invert at what is between them. The behavior says what
// becomes of these.
func (m *matcher) split(behavior string, invert bool) (split, error) {
	var join func(last, this bool) bool // whether a part goes with the one before
	switch behavior {
	case "Removed", "Isolated":
		join = func(_, _ bool) bool { return false }
	case "Contiguous":
		join = func(last, this bool) bool { return last == this }
	case "MergedWithPrevious":
		join = func(last, this bool) bool { return this && !last }
	case "MergedWithNext":
		join = func(last, this bool) bool { return last && !this }
	default:
		return nil, fmt.Errorf("the behavior of a split is %q, which is not known", behavior)
	}
	return func(parts []string, _ bool) (list []string) {
		for _, part := range parts {
			begin, last := len(list), false
			m.cut(part, func(text string, matched bool) {
				cutAt := matched != invert
				switch {
				case cutAt && behavior == "Removed":
				case len(list) > begin && join(last, cutAt):
					list[len(list)-1] += text
				default:
					list = append(list, text)
				}
				last = cutAt
			})
		}
		return list
	}, nil
}

// newByteLevel cuts as GPT-2 does; its words are yet to be written with a character for every
// byte (toLetters).
func newByteLevel(s *section) (split, error) {
	f, err := as[struct {
		Prefix bool  `json:"add_prefix_space"`
		Regex  *bool `json:"use_regex"`
	}](s)
	if err != nil {
		return nil, err
	}
	cut, err := pieces(gpt2, "Isolated")
	return func(parts []string, first bool) []string {
		if f.Prefix {
			for i, part := range parts {
				if !strings.HasPrefix(part, " ") && strings.IndexFunc(part, unicode.IsSpace) != 0 {
					parts[i] = " " + part
				}
			}
		}
		if f.Regex == nil || *f.Regex {
			parts = cut(parts, first)
		}
		return parts
	}, err
}

// newMetaspace writes "▁" for spaces, and cuts before it.
func newMetaspace(s *section) (split, error) {
	f, err := as[struct {
		Replacement string
		Prefix      *bool  `json:"add_prefix_space"`
		Scheme      string `json:"prepend_scheme"`
		Split       *bool
	}](s)
	if err != nil {
		return nil, err
	}
	if f.Replacement == "" {
		f.Replacement = "▁"
	}
	if n := utf8.RuneCountInString(f.Replacement); n != 1 {
		return nil, fmt.Errorf("Metaspace: the replacement has %d characters, want one", n)
	}
	if f.Scheme == "" {
		f.Scheme = "always"
		if f.Prefix != nil && !*f.Prefix {
			f.Scheme = "never"
		}
	}
	return func(parts []string, first bool) (list []string) {
		for i, part := range parts {
			part = strings.ReplaceAll(part, " ", f.Replacement)
			if (f.Scheme == "always" || f.Scheme == "first" && first && i == 0) && !strings.HasPrefix(part, f.Replacement) {
				part = f.Replacement + part
			}
			if f.Split != nil && !*f.Split {
				list = append(list, part)
				continue
			}
			for part != "" {
				end := len(part)
				if at := strings.Index(part[min(len(f.Replacement), len(part)):], f.Replacement); at >= 0 && strings.HasPrefix(part, f.Replacement) {
					end = at + len(f.Replacement)
				} else if at := strings.Index(part, f.Replacement); at > 0 {
					end = at
				}
				list, part = append(list, part[:end]), part[end:]
			}
		}
		return list
	}, nil
}

// byteLetters are the characters that stand for bytes: printable ones of Latin-1 for
// themselves, others for those from U+0100 on. letterBytes is the way back.
var byteLetters, letterBytes = func() (letters [256]rune, bytes map[rune]byte) {
	bytes = map[rune]byte{}
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		if !('!' <= r && r <= '~' || 0xa1 <= r && r <= 0xac || 0xae <= r && r <= 0xff) {
			r = next
			next++
		}
		letters[b], bytes[r] = r, byte(b)
	}
	return letters, bytes
}()

func toLetters(text string) string {
	var b strings.Builder
	b.Grow(2 * len(text))
	for i := range len(text) {
		b.WriteRune(byteLetters[text[i]])
	}
	return b.String()
}

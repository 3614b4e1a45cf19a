package tokenizer

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// matcher finds the matches of a pattern, a regular expression of Oniguruma's kind or plain
// text. Go's expressions lack what those of tokenizers have in one place, the alternative
// \s+(?!\S): white space, without its last character where a word follows.
type matcher struct {
	scan   []alternative // in their order, or nil where one of them needs
	groups []group       // regular expressions: alternatives in their order
}

// group is some alternatives, or where it is nil \s+(?!\S).
type group struct{ re *regexp.Regexp }

const lookahead = `\s+(?!\S)`

// newMatcher reads {"Regex": "…"} or {"String": "…"}.
func newMatcher(text json.RawMessage) (*matcher, error) {
	var f struct{ Regex, String *string }
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("pattern: %w", err)
	}
	switch {
	case f.String != nil && *f.String != "":
		return compile(regexp.QuoteMeta(*f.String))
	case f.Regex != nil && *f.Regex != "":
		return compile(*f.Regex)
	}
	return nil, fmt.Errorf("pattern %s: want a Regex or a String", text)
}

func compile(pattern string) (*matcher, error) {
	m, err := compileGroups(pattern)
	if err != nil {
		return nil, err
	}
	for _, part := range alternativesOf(pattern) {
		a, ok := newAlternative(part)
		if !ok {
			m.scan = nil
			break
		}
		m.scan = append(m.scan, a)
	}
	return m, nil
}

func compileGroups(pattern string) (*matcher, error) {
	m := &matcher{}
	var alternatives []string
	flush := func() error {
		if len(alternatives) == 0 {
			return nil
		}
		translated, err := translate(strings.Join(alternatives, "|"))
		if err != nil {
			return err
		}
		re, err := regexp.Compile(`^(?:` + translated + `)`)
		if err != nil {
			return fmt.Errorf("pattern %q is not supported: %w", pattern, err)
		}
		m.groups, alternatives = append(m.groups, group{re}), nil
		return nil
	}
	for _, alternative := range alternativesOf(pattern) {
		if alternative != lookahead {
			alternatives = append(alternatives, alternative)
			continue
		}
		if err := flush(); err != nil {
			return nil, err
		}
		m.groups = append(m.groups, group{})
	}
	return m, flush()
}

// alternativesOf cuts an expression at each | that stands in no brackets.
func alternativesOf(pattern string) (list []string) {
	depth, class, from := 0, 0, 0
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\':
			i++
		case c == '[':
			class++
		case class > 0 && c == ']':
			class--
		case class > 0:
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == '|' && depth == 0:
			list, from = append(list, pattern[from:i]), i+1
		}
	}
	return append(list, pattern[from:])
}

// classes are Oniguruma's, which are of all of Unicode where Go's are of ASCII.
var classes = map[byte]string{
	's': `\t-\r\x{85}\p{Z}`, 'd': `\p{Nd}`, 'w': `\p{L}\p{M}\p{N}\p{Pc}`,
}

// translate writes an expression for Go: the classes of white space, digits and words, and
// classes within classes, which Go takes for characters. What else differs is an error.
func translate(pattern string) (string, error) {
	fail := func(what string) (string, error) {
		return "", fmt.Errorf("pattern %q is not supported: %s", pattern, what)
	}
	var b strings.Builder
	class := 0 // depth
	for i := 0; i < len(pattern); i++ {
		c := pattern[i]
		if c == '\\' && i+1 < len(pattern) {
			i++
			next := pattern[i]
			set, lower := classes[next|0x20], next >= 'a'
			switch {
			case set == "":
				b.WriteString(pattern[i-1 : i+1])
			case class > 0 && lower:
				b.WriteString(set)
			case class > 0:
				return fail(`\` + string(next) + " in a class")
			case lower:
				b.WriteString("[" + set + "]")
			default:
				b.WriteString("[^" + set + "]")
			}
			continue
		}
		rest := pattern[i:]
		switch {
		case class > 0 && strings.HasPrefix(rest, "[:"):
			end := strings.Index(rest, ":]")
			if end < 0 {
				return fail("[: without its end")
			}
			b.WriteString(rest[:end+2])
			i += end + 1
			continue
		case class > 0 && (strings.HasPrefix(rest, "[^") || strings.HasPrefix(rest, "&&")):
			return fail("what classes have in common")
		case c == '[':
			if class++; class > 1 {
				continue
			}
		case class > 0 && c == ']':
			if class--; class > 0 {
				continue
			}
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

// window is how much of a text is looked at first: what an expression costs grows with what
// it is given.
const window = 64

// match returns the length of the match at the beginning of text, 0 for none.
func (m *matcher) match(text string) int {
	for i := range m.scan {
		if n := m.scan[i].match(text); n > 0 {
			return n
		}
	}
	if m.scan != nil {
		return 0
	}
	for size := window; ; size *= 4 {
		part := text
		if size < len(text) {
			for size < len(text) && !utf8.RuneStart(text[size]) {
				size++
			}
			part = text[:size]
		}
		length, open := m.matchAll(part)
		if !open || len(part) == len(text) {
			return length
		}
	}
}

// matchAll returns the length of the match at the beginning of text, and whether it might be
// another if text went on.
func (m *matcher) matchAll(text string) (length int, open bool) {
	for _, g := range m.groups {
		if g.re != nil {
			if at := g.re.FindStringIndex(text); at != nil && at[1] > 0 {
				return at[1], at[1] == len(text)
			}
			continue
		}
		if n := beforeWord(text); n > 0 {
			return n, n == len(text)
		}
	}
	return 0, false
}

// isSpace tells whether a character is white space by Unicode's property.
func isSpace(r rune) bool {
	switch {
	case r < 0x80:
		return r == ' ' || '\t' <= r && r <= '\r'
	case r == 0x85, r == 0xa0, r == 0x1680, 0x2000 <= r && r <= 0x200a, r == 0x2028, r == 0x2029, r == 0x202f, r == 0x205f, r == 0x3000:
		return true
	}
	return false
}

// cut calls f for the matches of a text and what is between them, in their order.
func (m *matcher) cut(text string, f func(part string, matched bool)) {
	from := 0
	for at := 0; at < len(text); {
		n := m.match(text[at:])
		if n == 0 {
			_, size := utf8.DecodeRuneInString(text[at:])
			at += size
			continue
		}
		if from < at {
			f(text[from:at], false)
		}
		f(text[at:at+n], true)
		at += n
		from = at
	}
	if from < len(text) {
		f(text[from:], false)
	}
}

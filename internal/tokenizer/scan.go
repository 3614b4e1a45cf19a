package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// alternative is an alternative of a pattern of the kind that tokenizers have: sets of
// characters one after the other, each so and so often. Matching one costs a look at each
// character where a regular expression costs several hundred nanoseconds.
type alternative struct {
	items []item
	ahead bool // it is \s+(?!\S)
}

// item is a set of characters, least to most times, or one of some words whatever their case.
type item struct {
	set         *set
	least, most int // most is -1 for any number
	words       []string
}

// set is a set of characters.
type set struct {
	ascii  [2]uint64
	chars  []rune // pairs, from and to
	tables []*unicode.RangeTable
	space  bool
	not    bool
	sets   []*set // that are in it
}

// has tells whether a character beyond ASCII is in the set.
func (s *set) has(r rune) bool { return s.in(r) != s.not }

func (s *set) in(r rune) bool {
	for i := 0; i < len(s.chars); i += 2 {
		if s.chars[i] <= r && r <= s.chars[i+1] {
			return true
		}
	}
	if s.space && isSpace(r) {
		return true
	}
	for _, t := range s.tables {
		if unicode.Is(t, r) {
			return true
		}
	}
	for _, other := range s.sets {
		if other.has(r) {
			return true
		}
	}
	return false
}

// seal makes the set's table of ASCII.
func (s *set) seal() *set {
	for r := range rune(utf8.RuneSelf) {
		if s.has(r) {
			s.ascii[r>>6] |= 1 << (r & 63)
		}
	}
	return s
}

// span returns how many bytes and characters text begins with that are in the set, at most
// most characters.
func (s *set) span(text string, most int) (bytes, chars int) {
	for bytes < len(text) && chars != most {
		c := text[bytes]
		if c < utf8.RuneSelf {
			if s.ascii[c>>6]>>(c&63)&1 == 0 {
				break
			}
			bytes++
		} else {
			r, size := utf8.DecodeRuneInString(text[bytes:])
			if !s.has(r) {
				break
			}
			bytes += size
		}
		chars++
	}
	return bytes, chars
}

// match returns the length of what text begins with, -1 where it does not match.
func (a *alternative) match(text string) int {
	if a.ahead {
		return beforeWord(text)
	}
	return matchItems(a.items, text)
}

// beforeWord is \s+(?!\S): white space, without its last character where a word follows.
func beforeWord(text string) int {
	n := len(text) - len(strings.TrimLeftFunc(text, isSpace))
	if n > 0 && n < len(text) {
		_, last := utf8.DecodeLastRuneInString(text[:n])
		n -= last
	}
	if n == 0 {
		return -1
	}
	return n
}

func matchItems(items []item, text string) int {
	if len(items) == 0 {
		return 0
	}
	first, rest := &items[0], items[1:]
	if first.words != nil {
		return matchWords(first, rest, text)
	}
	bytes, chars := first.set.span(text, first.most)
	for ; chars >= first.least; chars-- {
		if n := matchItems(rest, text[bytes:]); n >= 0 {
			return bytes + n
		}
		if chars > 0 {
			_, last := utf8.DecodeLastRuneInString(text[:bytes])
			bytes -= last
		}
	}
	return -1
}

// matchWords matches the first of some words that leads on, or none where none is needed.
func matchWords(first *item, rest []item, text string) int {
	for _, word := range first.words {
		if n := foldPrefix(text, word); n >= 0 {
			if m := matchItems(rest, text[n:]); m >= 0 {
				return n + m
			}
		}
	}
	if first.least == 0 {
		return matchItems(rest, text)
	}
	return -1
}

// foldPrefix returns the length of what text begins with that is word but for case, or -1.
func foldPrefix(text, word string) int {
	at := 0
	for _, want := range word {
		r, size := utf8.DecodeRuneInString(text[at:])
		if size == 0 || r != want && !fold(r, want) {
			return -1
		}
		at += size
	}
	return at
}

func fold(a, b rune) bool {
	for r := unicode.SimpleFold(a); r != a; r = unicode.SimpleFold(r) {
		if r == b {
			return true
		}
	}
	return false
}

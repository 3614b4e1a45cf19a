package lm

import (
	"bytes"
	"unicode/utf8"
)

// held is a text that is on its way: bytes of tokens come in, and what can be told goes out.
// What might become one of stops, or a character, is kept until that is known.
type held struct {
	stops [][]byte
	text  []byte // not told yet
	told  int    // of text, by the last ready
	ended bool   // by a stop
}

// add takes the text of a token, and returns whether the text ends with it, at a stop.
func (h *held) add(words Words, before, token int32) bool {
	if h.told > 0 {
		h.text = h.text[:copy(h.text, h.text[h.told:])]
		h.told = 0
	}
	from := len(h.text)
	h.text = words.AppendText(h.text, before, token)
	if len(h.text) < from {
		h.text = h.text[:from:from] // never, by the contract
	}
	// A stop that ends within the bytes that are new may begin in the old ones, which
	// are no longer than a stop. The one that begins first ends the text.
	first := -1
	for _, stop := range h.stops {
		if at := bytes.Index(h.text, stop); at >= 0 && (first < 0 || at < first) {
			first = at
		}
	}
	if first >= 0 {
		h.text, h.ended = h.text[:first], true
	}
	return h.ended
}

// ready returns what can be told, valid until the next add.
func (h *held) ready() []byte {
	if h.ended {
		h.told = len(h.text)
		return h.text
	}
	n := len(h.text)
	for _, stop := range h.stops {
		n = min(n, begun(h.text, stop))
	}
	n = wholeRunes(h.text[:n])
	h.told = n
	return h.text[:n]
}

// rest returns what has not been told, once no more will come.
func (h *held) rest() []byte { return h.text[h.told:] }

// begun returns where the longest end of text begins that is the beginning of stop, or the
// length of text.
func begun(text, stop []byte) int {
	for n := min(len(stop)-1, len(text)); n > 0; n-- {
		if bytes.Equal(text[len(text)-n:], stop[:n]) {
			return len(text) - n
		}
	}
	return len(text)
}

// wholeRunes returns the length of text without the bytes at its end that may yet become a
// character.
func wholeRunes(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if at := len(text) - n; utf8.RuneStart(text[at]) {
			if !utf8.FullRune(text[at:]) {
				return at
			}
			break
		}
	}
	return len(text)
}

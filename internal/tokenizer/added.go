package tokenizer

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is a token beside the model's.
type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // not within a word
	LStrip     bool   `json:"lstrip"`      // white space before it goes with it
	RStrip     bool   `json:"rstrip"`      // and after it
	Normalized *bool  `json:"normalized"`  // found in normalised text; nil is !Special
	Special    bool   `json:"special"`
}

// added finds tokens in text.
type added struct {
	first [256][]pattern // by the first byte, the longest first
}

type pattern struct {
	text  string
	token addedToken
}

// mostAdded bounds the bytes of an added token.
const mostAdded = 1 << 12

// add takes the added tokens.
func (t *Tokenizer) add(list []addedToken) error {
	t.raw, t.normalized, t.blankRaw, t.blankNormalized = new(added), new(added), new(added), new(added)
	t.added = map[int32]addedToken{}
	for _, x := range list {
		if x.ID < 0 || x.ID == math.MaxInt32 {
			return fmt.Errorf("added token %q has number %d", x.Content, x.ID)
		}
		if x.Content == "" {
			continue // it would be everywhere
		}
		if len(x.Content) > mostAdded {
			return fmt.Errorf("added token %.40q has %d bytes, want at most %d", x.Content, len(x.Content), mostAdded)
		}
		t.contents[x.ID], t.ids[x.Content], t.added[x.ID] = x.Content, x.ID, x
		text, in, blank := x.Content, t.raw, t.blankRaw
		if x.Normalized != nil && *x.Normalized || x.Normalized == nil && !x.Special {
			if text, in, blank = t.normalize(text), t.normalized, t.blankNormalized; text == "" {
				continue
			}
			if len(text) > 16*mostAdded {
				return fmt.Errorf("added token %.40q has %d bytes when it is normalized, want at most %d", x.Content, len(text), 16*mostAdded)
			}
		}
		in.first[text[0]] = append(in.first[text[0]], pattern{text, x})
		if !x.Special && strings.TrimSpace(x.Content) == "" {
			blank.first[text[0]] = append(blank.first[text[0]], pattern{text, x})
		}
	}
	for _, a := range []*added{t.raw, t.normalized, t.blankRaw, t.blankNormalized} {
		for _, patterns := range a.first {
			slices.SortStableFunc(patterns, func(x, y pattern) int { return -cmp.Compare(len(x.text), len(y.text)) })
		}
	}
	return nil
}

// cut calls f for the parts of a text in their order: with the number of a token, or with
// text between tokens and -1.
func (a *added) cut(text string, f func(part string, id int32) error) error {
	from := 0 // of what has not been given to f
	for at := 0; at < len(text); {
		found := a.at(text[at:])
		if found == nil {
			at++
			continue
		}
		begin, end := at, at+len(found.text)
		at = end
		if found.token.SingleWord && (inWord(utf8.DecodeLastRuneInString(text[:begin])) || inWord(utf8.DecodeRuneInString(text[end:]))) {
			continue
		}
		if found.token.LStrip {
			begin = max(from, len(strings.TrimRightFunc(text[:begin], unicode.IsSpace)))
		}
		if found.token.RStrip {
			end = len(text) - len(strings.TrimLeftFunc(text[end:], unicode.IsSpace))
			at = end
		}
		if from < begin {
			if err := f(text[from:begin], -1); err != nil {
				return err
			}
		}
		if err := f("", found.token.ID); err != nil {
			return err
		}
		from = end
	}
	if from < len(text) {
		return f(text[from:], -1)
	}
	return nil
}

// at returns the longest token that text begins with, or nil.
func (a *added) at(text string) *pattern {
	patterns := a.first[text[0]]
	for i := range patterns {
		if strings.HasPrefix(text, patterns[i].text) {
			return &patterns[i]
		}
	}
	return nil
}

// inWord tells whether a character, with its length, is part of a word.
func inWord(r rune, size int) bool {
	return size > 0 && (r == '_' || unicode.In(r, unicode.L, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc))
}

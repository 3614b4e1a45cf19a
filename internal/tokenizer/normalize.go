package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// normalize changes the characters of a text.
type normalize func(string) string

func newNormalize(s *section) (normalize, error) {
	same := func(text string) string { return text }
	if s == nil {
		return same, nil
	}
	switch s.Type {
	case "NFC":
		return form(norm.NFC), nil
	case "NFD":
		return form(norm.NFD), nil
	case "NFKC":
		return form(norm.NFKC), nil
	case "NFKD":
		return form(norm.NFKD), nil
	case "Lowercase":
		return strings.ToLower, nil
	case "ByteLevel":
		return toLetters, nil
	case "StripAccents":
		return stripAccents, nil
	case "Prepend":
		f, err := as[struct{ Prepend string }](s)
		return func(text string) string {
			if text == "" {
				return text
			}
			return f.Prepend + text
		}, err
	case "Strip":
		f, err := as[struct {
			Left  bool `json:"strip_left"`
			Right bool `json:"strip_right"`
		}](s)
		return func(text string) string {
			if f.Left {
				text = strings.TrimLeftFunc(text, unicode.IsSpace)
			}
			if f.Right {
				text = strings.TrimRightFunc(text, unicode.IsSpace)
			}
			return text
		}, err
	case "Replace":
		return newReplace(s)
	case "BertNormalizer":
		return newBertNormalize(s)
	case "Sequence":
		f, err := as[struct{ Normalizers []*section }](s)
		if err != nil {
			return nil, err
		}
		all := make([]normalize, len(f.Normalizers))
		for i, part := range f.Normalizers {
			if all[i], err = newNormalize(part); err != nil {
				return nil, err
			}
		}
		return func(text string) string {
			for _, n := range all {
				text = n(text)
			}
			return text
		}, nil
	}
	return nil, fmt.Errorf("the normalizer is of type %q, which is not known", s.Type)
}

// form returns a Unicode normal form. The package that makes it puts a joiner (U+034F) into
// runs of more than 30 accents; a text of such is left as it is.
func form(f norm.Form) normalize {
	return func(text string) string {
		const joiner = "\u034f"
		if made := f.String(text); strings.Count(made, joiner) == strings.Count(text, joiner) {
			return made
		}
		return text
	}
}

func stripAccents(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Mn, r) {
			return -1
		}
		return r
	}, text)
}

func newReplace(s *section) (normalize, error) {
	f, err := as[struct {
		Pattern json.RawMessage
		Content string
	}](s)
	if err != nil {
		return nil, err
	}
	p, err := newMatcher(f.Pattern)
	if err != nil {
		return nil, err
	}
	return func(text string) string {
		var b strings.Builder
		p.cut(text, func(part string, matched bool) {
			if matched {
				part = f.Content
			}
			b.WriteString(part)
		})
		return b.String()
	}, nil
}

// newBertNormalize cleans text, puts spaces around Chinese characters, and takes case and
// accents away.
func newBertNormalize(s *section) (normalize, error) {
	f, err := as[struct {
		Clean   *bool `json:"clean_text"`
		Chinese *bool `json:"handle_chinese_chars"`
		Accents *bool `json:"strip_accents"`
		Lower   *bool `json:"lowercase"`
	}](s)
	is := func(b *bool) bool { return b == nil || *b }
	lower := is(f.Lower)
	return func(text string) string {
		var b strings.Builder
		for _, r := range text {
			switch {
			case is(f.Clean) && (r == 0 || r == unicode.ReplacementChar || unicode.In(r, unicode.Cc, unicode.Cf) && !unicode.IsSpace(r)):
			case is(f.Clean) && unicode.IsSpace(r):
				b.WriteByte(' ')
			case is(f.Chinese) && unicode.Is(chinese, r):
				b.WriteString(" " + string(r) + " ")
			default:
				b.WriteRune(r)
			}
		}
		text = b.String()
		if f.Accents != nil && *f.Accents || f.Accents == nil && lower {
			text = stripAccents(norm.NFD.String(text))
		}
		if lower {
			text = strings.ToLower(text)
		}
		return text
	}, err
}

// chinese are the characters that BERT takes for words.
var chinese = &unicode.RangeTable{
	R16: []unicode.Range16{{Lo: 0x3400, Hi: 0x4dbf, Stride: 1}, {Lo: 0x4e00, Hi: 0x9fff, Stride: 1}, {Lo: 0xf900, Hi: 0xfaff, Stride: 1}},
	R32: []unicode.Range32{{Lo: 0x20000, Hi: 0x2a6df, Stride: 1}, {Lo: 0x2a700, Hi: 0x2ceaf, Stride: 1}, {Lo: 0x2f800, Hi: 0x2fa1f, Stride: 1}},
}

package tokenizer

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// piece is a token's text on its way back. That of an added token is fixed: it is as it
// should be.
type piece struct {
	text  string
	fixed bool
}

// decode changes the pieces of a text.
type decode func([]piece) []piece

// each is a decode that changes each piece that is not fixed.
func each(f func(i int, text string) string) decode {
	return func(list []piece) []piece {
		for i := range list {
			if !list[i].fixed {
				list[i].text = f(i, list[i].text)
			}
		}
		return list
	}
}

func newDecoders(s *section) ([]decode, error) {
	if s == nil {
		return nil, nil
	}
	if s.Type == "Sequence" {
		f, err := as[struct{ Decoders []*section }](s)
		if err != nil {
			return nil, err
		}
		var all []decode
		for _, part := range f.Decoders {
			list, err := newDecoders(part)
			if err != nil {
				return nil, err
			}
			all = append(all, list...)
		}
		return all, nil
	}
	d, err := newDecode(s)
	return []decode{d}, err
}

func newDecode(s *section) (decode, error) {
	switch s.Type {
	case "ByteLevel":
		return each(func(_ int, text string) string { return toBytes(text) }), nil
	case "ByteFallback":
		return each(func(_ int, text string) string {
			if len(text) == 6 && strings.HasPrefix(text, "<0x") && text[5] == '>' {
				if b, err := strconv.ParseUint(text[3:5], 16, 8); err == nil {
					return string([]byte{byte(b)})
				}
			}
			return text
		}), nil
	case "Fuse":
		return fuse, nil
	case "Metaspace":
		f, err := as[struct {
			Replacement string
			Prefix      *bool  `json:"add_prefix_space"`
			Scheme      string `json:"prepend_scheme"`
		}](s)
		if f.Replacement == "" {
			f.Replacement = "▁"
		}
		prefix := f.Scheme != "never" && (f.Scheme != "" || f.Prefix == nil || *f.Prefix)
		return each(func(i int, text string) string {
			if i == 0 && prefix {
				text = strings.TrimPrefix(text, f.Replacement)
			}
			return strings.ReplaceAll(text, f.Replacement, " ")
		}), err
	case "Replace":
		f, err := as[struct {
			Pattern json.RawMessage
			Content string
		}](s)
		if err != nil {
			return nil, err
		}
		m, err := newMatcher(f.Pattern)
		return each(func(_ int, text string) string {
			var b strings.Builder
			m.cut(text, func(part string, matched bool) {
				if matched {
					part = f.Content
				}
				b.WriteString(part)
			})
			return b.String()
		}), err
	case "Strip":
		f, err := as[struct {
			Content     string
			Start, Stop int
		}](s)
		if f.Content == "" {
			f.Content = " "
		}
		return each(func(_ int, text string) string {
			for range min(f.Start, len(text)) {
				text = strings.TrimPrefix(text, f.Content)
			}
			for range min(f.Stop, len(text)) {
				text = strings.TrimSuffix(text, f.Content)
			}
			return text
		}), err
	case "WordPiece":
		return newWordPieceDecode(s)
	case "BPEDecoder":
		f, err := as[struct{ Suffix string }](s)
		if f.Suffix == "" {
			f.Suffix = "</w>"
		}
		return func(list []piece) []piece {
			return each(func(i int, text string) string {
				if i == len(list)-1 {
					return strings.ReplaceAll(text, f.Suffix, "")
				}
				return strings.ReplaceAll(text, f.Suffix, " ")
			})(list)
		}, err
	}
	return nil, fmt.Errorf("the decoder is of type %q, which is not known", s.Type)
}

// fuse makes one piece of all.
func fuse(list []piece) []piece {
	var b strings.Builder
	fixed := true
	for _, p := range list {
		b.WriteString(p.text)
		fixed = fixed && p.fixed
	}
	return append(list[:0], piece{b.String(), fixed})
}

// newWordPieceDecode puts spaces between words, and with cleanup none before marks.
func newWordPieceDecode(s *section) (decode, error) {
	f, err := as[struct {
		Prefix  *string
		Cleanup *bool
	}](s)
	prefix := "##"
	if f.Prefix != nil {
		prefix = *f.Prefix
	}
	clean := strings.NewReplacer(" .", ".", " ?", "?", " !", "!", " ,", ",", " ' ", "'", " n't", "n't", " 'm", "'m", " 's", "'s", " 've", "'ve", " 're", "'re", " do not", " don't")
	return func(list []piece) []piece {
		for i := range list {
			p := &list[i]
			if rest, ok := strings.CutPrefix(p.text, prefix); ok && i > 0 && !p.fixed {
				p.text = rest
			} else if i > 0 {
				p.text = " " + p.text
			}
			if !p.fixed && (f.Cleanup == nil || *f.Cleanup) {
				p.text = clean.Replace(p.text)
			}
		}
		return list
	}, err
}

// toBytes returns the bytes that characters stand for, or text as it is where one stands for none.
func toBytes(text string) string {
	made := make([]byte, 0, len(text))
	for _, r := range text {
		b, ok := letterBytes[r]
		if !ok {
			return text
		}
		made = append(made, b)
	}
	return string(made)
}

package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// bpe joins neighbours, of all that can be joined those with the lowest rank first.
type bpe struct {
	vocabulary
	merges map[uint64]merge // by both tokens
	unk    int32
	fuse   bool // a run of unknown characters is one token
	bytes  bool // characters without a token are their bytes
	whole  bool // a word that is a token is not joined from its characters
	prefix string
	suffix string
}

type merge struct{ rank, id int32 }

func newBPE(s *section) (model, error) {
	f, err := as[struct {
		Vocab  map[string]int32
		Merges []json.RawMessage
		Unk    *string `json:"unk_token"`
		Fuse   bool    `json:"fuse_unk"`
		Bytes  bool    `json:"byte_fallback"`
		Whole  bool    `json:"ignore_merges"`
		Prefix *string `json:"continuing_subword_prefix"`
		Suffix *string `json:"end_of_word_suffix"`
	}](s)
	if err != nil {
		return nil, err
	}
	v, err := newVocabulary(f.Vocab)
	if err != nil {
		return nil, err
	}
	b := &bpe{vocabulary: v, merges: make(map[uint64]merge, len(f.Merges)), unk: v.unknown(f.Unk), fuse: f.Fuse, bytes: f.Bytes, whole: f.Whole}
	if f.Prefix != nil {
		b.prefix = *f.Prefix
	}
	if f.Suffix != nil {
		b.suffix = *f.Suffix
	}
	for i, text := range f.Merges {
		var pair [2]string
		if err := readPair(&pair, text); err != nil {
			return nil, fmt.Errorf("BPE: merges[%d]: %w", i, err)
		}
		left, ok := v.ids[pair[0]]
		right, ok2 := v.ids[pair[1]]
		id, ok3 := v.ids[pair[0]+strings.TrimPrefix(pair[1], b.prefix)]
		if !ok || !ok2 || !ok3 {
			return nil, fmt.Errorf("BPE: merges[%d] is of %q and %q, and these or what they make is no token", i, pair[0], pair[1])
		}
		b.merges[both(left, right)] = merge{int32(i), id}
	}
	return b, nil
}

// readPair reads "left right" or ["left", "right"].
func readPair(pair *[2]string, text json.RawMessage) error {
	if text[0] == '[' {
		var list []string
		if err := json.Unmarshal(text, &list); err != nil {
			return err
		}
		if len(list) != 2 {
			return fmt.Errorf("%s, want two", text)
		}
		*pair = [2]string(list)
		return nil
	}
	var both string
	if err := json.Unmarshal(text, &both); err != nil {
		return err
	}
	left, right, ok := strings.Cut(both, " ")
	if !ok {
		return fmt.Errorf("%q, want two with a space between", both)
	}
	*pair = [2]string{left, right}
	return nil
}

// both is a pair of tokens as a key.
func both(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) }

func (b *bpe) encode(dst []int32, word string) ([]int32, error) {
	if b.whole {
		if id, ok := b.ids[word]; ok {
			return append(dst, id), nil
		}
	}
	begin := len(dst)
	dst, err := b.characters(dst, word)
	if err != nil {
		return dst, err
	}
	joined := 0
	if word := dst[begin:]; len(word) <= fewTokens {
		joined = b.joinFew(word)
	} else {
		joined = b.join(word)
	}
	return dst[:begin+joined], nil
}

// characters appends the tokens of the characters of a word.
func (b *bpe) characters(dst []int32, word string) ([]int32, error) {
	unknown := false // the last one was
	for at := 0; at < len(word); {
		_, size := utf8.DecodeRuneInString(word[at:])
		char := word[at : at+size]
		token := char
		if at > 0 {
			token = b.prefix + token
		}
		if at += size; at == len(word) {
			token += b.suffix
		}
		if id, ok := b.ids[token]; ok {
			dst, unknown = append(dst, id), false
			continue
		}
		if b.bytes {
			if list, ok := b.bytesOf(dst, char); ok {
				dst, unknown = list, false
				continue
			}
		}
		switch {
		case b.unk < 0:
			return dst, errUnknown(char)
		case !unknown || !b.fuse:
			dst = append(dst, b.unk)
		}
		unknown = true
	}
	return dst, nil
}

package tokenizer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

// Vocabulary is a tokenizer as exact probabilities of bytes need it: what bytes each token
// stands for, and how bytes become tokens wherever they stand.
type Vocabulary struct {
	// Bytes[t] are the bytes that token t stands for, none where it is a special token.
	Bytes [][]byte
	// Specials are tokens without bytes whose probabilities are told beside those of the
	// bytes, in this order.
	Specials []int32
	// Begin is the token that every text begins with, negative for none.
	Begin int32
	// Prefix is what a text has before its first byte, a blank or nothing: part of the text to
	// a model.
	Prefix []byte
	// Fallback has, where characters without a token are their bytes (SentencePiece), the
	// token of each byte; nil otherwise.
	Fallback []int32
	// Encode appends the tokens of bytes, without Begin, Prefix or anything else that is not
	// in them. Its result must be the canonical one: that of training. It is called by several
	// goroutines at once.
	Encode func(dst []int32, text []byte) []int32
}

// Vocabulary returns the tokenizer as a vocabulary of bytes: for llama2.c's, the unknown
// token, BOS and EOS are special.
func (t *Llama2C) Vocabulary() Vocabulary {
	v := Vocabulary{Bytes: make([][]byte, len(t.pieces)), Begin: llama2cBOS, Prefix: []byte(" "), Fallback: make([]int32, 256)}
	if _, ok := t.ids[" "]; !ok {
		v.Prefix = nil
	}
	for id, piece := range t.pieces {
		switch {
		case id < llama2cBytes:
			v.Specials = append(v.Specials, int32(id))
		case id < llama2cBytes+len(v.Fallback):
			b := byte(id - llama2cBytes)
			v.Bytes[id], v.Fallback[b] = []byte{b}, int32(id)
		case t.ids[piece] == int32(id): // of equal pieces only the first is ever made
			v.Bytes[id] = []byte(piece)
		}
	}
	v.Encode = func(dst []int32, text []byte) []int32 {
		return append(dst, t.merge(t.characters(nil, string(text)))...)
	}
	return v
}

// blank is how SentencePiece writes one.
const blank = "▁"

// Vocabulary returns the tokenizer as a vocabulary of bytes. It must be a BPE of bytes, or of
// characters with bytes for those without a token, with at most one token before a text; others,
// whose encodings of a beginning say too little of those of the whole, match subquad.ErrCall.
func (t *Tokenizer) Vocabulary() (Vocabulary, error) {
	fail := func(format string, args ...any) (Vocabulary, error) {
		return Vocabulary{}, check.Errorf(subquad.ErrCall, "tokenizer: no exact probabilities of bytes: %s", fmt.Sprintf(format, args...))
	}
	b, ok := t.model.(*bpe)
	if !ok {
		return fail("the model is no BPE")
	}
	if b.prefix != "" || b.suffix != "" {
		return fail("tokens are marked with %q and %q", b.prefix, b.suffix)
	}
	if len(t.before) > 1 {
		return fail("%d special tokens stand before a text, want at most one", len(t.before))
	}
	// Some files leave gaps between numbers; few large numbers do not ask for much memory.
	const gaps, spare = 16, 1 << 16
	if tokens := len(b.tokens) + len(t.added); (t.Size()-spare)/gaps > tokens {
		return fail("%d tokens have numbers of up to %d", tokens, t.Size()-1)
	}
	v := Vocabulary{Bytes: make([][]byte, t.Size()), Begin: -1}
	switch {
	case t.letters:
		for id, piece := range b.tokens {
			v.Bytes[id] = []byte(toBytes(piece))
		}
		v.Encode = func(dst []int32, text []byte) []int32 {
			e := encoding{t: t, ids: dst, begun: true, guarded: true}
			if err := e.guard(string(text)); err != nil {
				return dst
			}
			return e.ids
		}
	case b.bytes:
		v.Fallback = make([]int32, 256)
		for i := range v.Fallback {
			id, ok := b.ids[fmt.Sprintf("<0x%02X>", i)]
			if !ok {
				return fail("byte %#02x has no token", i)
			}
			v.Fallback[i], v.Bytes[id] = id, []byte{byte(i)}
		}
		for id, piece := range b.tokens {
			if v.Bytes[id] == nil {
				v.Bytes[id] = []byte(strings.ReplaceAll(piece, blank, " "))
			}
		}
		if words := t.split([]string{t.normalize("a")}, true); len(words) == 1 && strings.HasPrefix(words[0], blank) {
			v.Prefix = []byte(" ")
		}
		v.Encode = func(dst []int32, text []byte) []int32 {
			ids, err := b.encode(dst, strings.ReplaceAll(string(text), " ", blank))
			if err != nil {
				return dst
			}
			return ids
		}
	default:
		return fail("its words are of characters, and one without a token is unknown")
	}
	for id, x := range t.added {
		text := x.Content
		if b.bytes && !t.letters {
			text = strings.ReplaceAll(text, blank, " ")
		}
		if v.Bytes[id] = []byte(text); x.Special || strings.TrimSpace(text) != "" {
			v.Bytes[id] = nil // names, which no text becomes
			v.Specials = append(v.Specials, id)
		}
	}
	for _, probe := range []string{"a B\n é7", "a  b \n\n\tc  "} {
		ids, err := t.Encode(probe, false)
		text := append(slices.Clone(v.Prefix), probe...)
		got := v.Encode(nil, text)
		var spelled []byte
		for _, id := range got {
			spelled = append(spelled, v.Bytes[id]...)
		}
		if err == nil && (!slices.Equal(got, ids) || !slices.Equal(spelled, text)) {
			return fail("its normalizer or pre-tokenizer makes tokens %d of %q, the model alone %d", ids, probe, got)
		}
	}
	slices.Sort(v.Specials)
	if len(t.before) > 0 {
		v.Begin = t.before[len(t.before)-1]
	}
	return v, nil
}

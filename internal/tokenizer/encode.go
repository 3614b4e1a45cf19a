package tokenizer

import (
	"fmt"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

// Encode returns the tokens of a text. Names of added tokens in it, "<|im_start|>" for
// instance, stand for these tokens. template adds what the post-processor puts before and
// after a text. Errors match subquad.ErrCall.
func (t *Tokenizer) Encode(text string, template bool) (ids []int32, err error) {
	e := encoding{t: t}
	if template {
		e.ids = append(e.ids, t.before...)
	}
	err = t.raw.cut(text, func(part string, id int32) error {
		if id >= 0 {
			e.take(id)
			return nil
		}
		return e.plain(t.normalized, part)
	})
	if err != nil {
		return nil, check.Errorf(subquad.ErrCall, "tokenizer: %v", err)
	}
	if template {
		e.ids = append(e.ids, t.after...)
	}
	return e.ids, nil
}

// encoding is a text on its way to tokens.
type encoding struct {
	t     *Tokenizer
	ids   []int32
	begun bool           // there is something before
	known map[string]run // words that came before

	guarded bool // no text may become a special token
}

// run is where the tokens of a word are in ids.
type run struct{ from, to int32 }

// mostKnown bounds the words that are remembered of a text.
const mostKnown = 1 << 16

func (e *encoding) take(id int32) { e.ids, e.begun = append(e.ids, id), true }

// guard encodes text that nobody vouches for.
func (e *encoding) guard(text string) error {
	if text == "" {
		return nil
	}
	err := e.t.blankRaw.cut(text, func(part string, id int32) error {
		if id >= 0 {
			e.take(id)
			return nil
		}
		return e.plain(e.t.blankNormalized, part)
	})
	if err != nil {
		return check.Errorf(subquad.ErrCall, "tokenizer: %v", err)
	}
	return nil
}

// plain encodes a part, of which no tokens but those of normalized are found.
func (e *encoding) plain(normalized *added, part string) error {
	return normalized.cut(e.t.normalize(part), func(part string, id int32) error {
		if id >= 0 {
			e.take(id)
			return nil
		}
		words := e.t.split([]string{part}, !e.begun)
		e.begun = true
		for _, word := range words {
			if err := e.word(word, len(words) > 1); err != nil {
				return err
			}
		}
		return nil
	})
}

// word encodes a word, from memory where it has come before.
func (e *encoding) word(word string, remember bool) error {
	if at, ok := e.known[word]; ok {
		e.ids = append(e.ids, e.ids[at.from:at.to]...)
		return nil
	}
	from, text := len(e.ids), word
	if e.t.letters {
		text = toLetters(word)
	}
	ids, err := e.t.model.encode(e.ids, text)
	if err == nil && e.guarded && e.t.special(ids[from:]) {
		ids, err = e.apart(ids[:from], word)
	}
	if err != nil {
		return err
	}
	if e.ids = ids; remember && len(e.known) < mostKnown && len(ids) <= 1<<30 {
		if e.known == nil {
			e.known = map[string]run{}
		}
		e.known[word] = run{int32(from), int32(len(ids))}
	}
	return nil
}

// apart encodes a word whose tokens together would be a special one: its characters each by
// itself.
func (e *encoding) apart(ids []int32, word string) ([]int32, error) {
	for _, r := range word {
		text, from := string(r), len(ids)
		if e.t.letters {
			text = toLetters(text)
		}
		var err error
		if ids, err = e.t.model.encode(ids, text); err != nil {
			return ids, err
		}
		if e.t.special(ids[from:]) {
			return ids, fmt.Errorf("%q has no token but a special one", r)
		}
	}
	return ids, nil
}

package tokenizer

import (
	"slices"
	"strings"
)

// Decode returns the text of tokens. Added tokens, special ones included, are their content;
// a number that is no token is nothing. Text that ends within a character ends so.
func (t *Tokenizer) Decode(ids []int32) string {
	var list []piece
	for _, id := range ids {
		if p, ok := t.piece(id); ok {
			list = append(list, p)
		}
	}
	return t.join(list)
}

func (t *Tokenizer) piece(id int32) (piece, bool) {
	if content, ok := t.contents[id]; ok {
		return piece{content, true}, true
	}
	token, ok := t.model.token(id)
	return piece{token, false}, ok
}

// join runs the decoders.
func (t *Tokenizer) join(list []piece) string {
	for _, d := range t.decoders {
		list = d(list)
	}
	n := 0
	for _, p := range list {
		n += len(p.text)
	}
	text := make([]byte, 0, n)
	for i, p := range list {
		if len(t.decoders) == 0 && i > 0 {
			text = append(text, ' ') // as the library does without a decoder
		}
		text = append(text, p.text...)
	}
	return string(text)
}

// AppendText appends the text that a token adds to a text, after the token before or, where
// that is negative, as the first one. All of them one after the other are what Decode gives,
// but for what a decoder does at the end of a text (BPEDecoder's blank after the last word).
func (t *Tokenizer) AppendText(dst []byte, before, token int32) []byte {
	if before < 0 {
		return append(dst, t.within(token, true)...)
	}
	t.mutex.RLock()
	text, ok := t.inner[token]
	t.mutex.RUnlock()
	if !ok {
		text = t.within(token, false)
		t.mutex.Lock()
		if t.inner == nil {
			t.inner = map[int32]string{}
		}
		if _, real := t.piece(token); real { // others would be without a bound
			t.inner[token] = text
		}
		t.mutex.Unlock()
	}
	return append(dst, text...)
}

// within returns the text of a token with others after it and, unless it is the first,
// before it.
func (t *Tokenizer) within(token int32, first bool) string {
	const mark = "x"
	p, ok := t.piece(token)
	if !ok {
		return ""
	}
	var list []piece
	if !first {
		list = append(list, piece{mark, true})
	}
	if list = append(list, p); t.lastDiffers {
		list = append(list, piece{mark, true})
	}
	text := t.join(list)
	if !first {
		text = strings.TrimPrefix(text, mark)
	}
	if t.lastDiffers {
		text = strings.TrimSuffix(text, mark)
	}
	return text
}

// Missing returns the numbers below n that are no tokens: some files leave gaps.
func (t *Tokenizer) Missing(n int) []int32 {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if n = max(n, 0); n == t.counted {
		return t.gaps
	}
	t.counted, t.gaps = n, nil
	for id := int32(0); int(id) < n; id++ {
		if _, ok := t.piece(id); !ok {
			t.gaps = append(t.gaps, id)
		}
	}
	return t.gaps
}

// Part is a part of a text with marks: a conversation as a model was trained on it, say.
type Part struct {
	Text string
	// Mark tells that Text stands for the added token of that name, if there is one.
	Mark bool
}

// EncodeParts returns the tokens of a text of which the marks alone may be special tokens:
// names of added tokens in other parts are text like any other, but for such as are white
// space. White space that a mark takes with it (lstrip, rstrip) goes. Nothing is put before
// and after. Errors match subquad.ErrCall.
func (t *Tokenizer) EncodeParts(parts []Part) ([]int32, error) {
	e := encoding{t: t, guarded: true}
	var text strings.Builder
	strips := false // the mark before takes white space with it
	flush := func(more bool) error {
		s := text.String()
		text.Reset()
		if strips {
			s = strings.TrimLeftFunc(s, isSpace)
		}
		if more {
			s = strings.TrimRightFunc(s, isSpace)
		}
		return e.guard(s)
	}
	for _, p := range parts {
		id, ok := int32(0), false
		if p.Mark {
			id, ok = t.ids[p.Text]
		}
		if !ok {
			text.WriteString(p.Text)
			continue
		}
		if err := flush(t.added[id].LStrip); err != nil {
			return nil, err
		}
		e.take(id)
		strips = t.added[id].RStrip
	}
	if err := flush(false); err != nil {
		return nil, err
	}
	return e.ids, nil
}

// IsAdded tells whether there is an added token of that name.
func (t *Tokenizer) IsAdded(name string) bool {
	_, ok := t.ids[name]
	return ok
}

// special tells whether one of some tokens is special.
func (t *Tokenizer) special(ids []int32) bool {
	return slices.ContainsFunc(ids, func(id int32) bool { return t.added[id].Special })
}

package lm

import (
	"bytes"
	"context"
	"math"
	"slices"
)

// turn is an encoding of the text, or of a beginning of it, that a byte after it makes of it,
// and the log-probabilities of the token after.
type turn struct {
	tokens *node
	logP   []float64
}

// tailTokens is how many of the last tokens are encoded again with a byte after them; all are
// where these do not stand for themselves.
const tailTokens = 8

// looksAhead tells whether a byte after a token changes how that is encoded, or joins it.
func (b *Bytes) looksAhead(last int32, c byte) bool {
	if b.words.Fallback != nil || last < 0 || len(b.byByte[c]) == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	row := b.row(last)
	word, bit := c/64, uint64(1)<<(c%64)
	if row.asked[word]&bit == 0 {
		row.asked[word] |= bit
		text := append(slices.Clone(b.words.Bytes[last]), c)
		if got := b.words.Encode(nil, text); len(got) != 2 || got[0] != last {
			row.ahead[word] |= bit
		}
	}
	return row.ahead[word]&bit != 0
}

// otherwise returns what covers the text and byte c, which nothing that covers the text goes on
// with, by the encoding of both: that first, without which there is nothing.
func (s *ByteStream) otherwise(ctx context.Context, c byte) (covers []cover, err error) {
	at, ids := s.encodedWith(c)
	if len(ids) == 0 {
		return nil, nil
	}
	end := len(ids) - 1
	for _, id := range ids[:end] {
		logP, err := s.after(ctx, at)
		if err != nil {
			return nil, err
		}
		at = s.turn(at, id, logP[id])
	}
	logP, err := s.after(ctx, at)
	if err != nil {
		return nil, err
	}
	rest := s.bytes.words.Bytes[ids[end]]
	add := func(t int32) {
		if p := at.logP + logP[t]; p > math.Inf(-1) {
			covers = append(covers, cover{tokens: at, token: t, used: len(rest), logP: p})
		}
	}
	if add(ids[end]); len(covers) == 0 {
		return nil, nil
	}
	for i, t := range s.bytes.byByte[rest[0]] {
		if (i+1)%asking == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if text := s.bytes.words.Bytes[t]; len(text) > len(rest) && bytes.HasPrefix(text, rest) && s.bytes.follows(s.lastOf(at), t, nil) {
			add(t)
		}
	}
	return covers, nil
}

// encodedWith returns the encoding of the text and a byte as tokens after one of the text's,
// none where there is no such.
func (s *ByteStream) encodedWith(c byte) (at *node, ids []int32) {
	words := &s.bytes.words
	for most := tailTokens; ; most = math.MaxInt {
		var nodes []*node
		for at = s.now.tokens; len(nodes) < most && at != nil && (at.before != nil || words.Begin < 0); at = at.before {
			nodes = append(nodes, at)
		}
		slices.Reverse(nodes)
		all := at == nil || at.before == nil && words.Begin >= 0
		var tail []int32
		var text []byte
		for _, n := range nodes {
			tail, text = append(tail, n.token), append(text, words.Bytes[n.token]...)
		}
		if !all && !slices.Equal(words.Encode(nil, text), tail) {
			continue
		}
		text = append(text, c)
		ids = words.Encode(nil, text)
		for _, id := range ids {
			if id < 0 || int(id) >= len(words.Bytes) || len(words.Bytes[id]) == 0 || !bytes.HasPrefix(text, words.Bytes[id]) {
				return nil, nil // it is of another text, a normalised one
			}
			text = text[len(words.Bytes[id]):]
		}
		if len(text) > 0 {
			return nil, nil
		}
		if !all && ids[0] != tail[0] {
			continue
		}
		same := 0
		for same < min(len(ids)-1, len(tail)) && ids[same] == tail[same] {
			at = nodes[same]
			same++
		}
		return at, ids[same:]
	}
}

// turn returns the node of a token after others, the same for the same.
func (s *ByteStream) turn(at *node, token int32, logP float64) *node {
	for _, t := range s.turns {
		if t.tokens.before == at && t.tokens.token == token {
			return t.tokens
		}
	}
	return at.with(token, at.logP+logP)
}

// after returns the log-probabilities of the token after others, and remembers them until the
// text changes. What is known of the token after the text stays.
func (s *ByteStream) after(ctx context.Context, at *node) ([]float64, error) {
	if at == s.now.tokens {
		return s.logP, nil
	}
	for _, t := range s.turns {
		if t.tokens == at {
			return t.logP, nil
		}
	}
	own := s.logP
	s.logP = make([]float64, len(own))
	err := s.readTo(ctx, at)
	logP := s.logP
	if s.logP = own; err != nil {
		return nil, err
	}
	s.turns = append(s.turns, turn{at, logP})
	return logP, nil
}

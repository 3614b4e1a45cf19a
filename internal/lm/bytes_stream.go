package lm

import (
	"context"
	"math"
	"slices"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// ByteStream is a text that grows byte by byte, and the exact distribution of its next byte
// by a tokenised model (Phan et al., "Exact Byte-Level Probabilities from Tokenized Language
// Models", ICLR 2025, arXiv 2410.09303; implemented from the formulas).
//
// A sequence of tokens is valid if it is the canonical encoding of its own bytes. With
// cover(y) the valid sequences of which the last token is the first to reach the end of y,
//
//	P(y) = sum over cover(y) of the product of the model's P(token | tokens before)
//	next(b | x) = P(x b) / (sum over all bytes and specials)
//
// Exactly one of cover(y) ends where y does, Encode(y); each other is Encode(y[:i]) and one
// token that reaches beyond the end. So a byte takes one step of the model, and no search. A
// special token may come where the text ends a character (anywhere, in a vocabulary of
// bytes). What the model gives to sequences that are not valid is left out by the division.
//
// That two tokens may stand side by side is what is asked of the whole sequence: for BPE the
// same thing. A tokenizer may split text by what follows (GPT-2's splits blank lines before a
// word): where nothing that covers x goes on with b, Encode(x b) without its last token stands
// for Encode(x). It takes a step of the model or two more.
//
// A ByteStream must not be used by two goroutines at once.
type ByteStream struct {
	bytes  *Bytes
	source Source
	text   []byte
	now    cover   // Encode(text), which ends where the text does
	covers []cover // the others

	read    *node // what the source has read
	reading []int32
	logits  []float32
	logP    []float64 // of the token after now, where ready
	ready   bool
	next    []float64
	turns   []turn   // what the model says after other encodings of the text
	history []moment // before each of the last bytes
}

// node is a token of a canonical encoding, and the ones before.
type node struct {
	before *node
	token  int32
	depth  int     // of it and those before
	logP   float64 // of all
}

// cover is a sequence that covers the text: tokens of a canonical encoding, and token beyond
// them, of which used bytes are in the text.
type cover struct {
	tokens *node
	token  int32
	used   int
	logP   float64
}

// moment is what a stream was before a byte.
type moment struct {
	now    cover
	covers []cover
}

// NewStream returns the stream of an empty text, after the vocabulary's Prefix; source has read
// nothing, and is the stream's from now on. Errors are those of the model.
func (b *Bytes) NewStream(ctx context.Context, source Source) (*ByteStream, error) {
	s := &ByteStream{bytes: b, source: source, logits: make([]float32, source.Vocab()), logP: make([]float64, source.Vocab())}
	if b.words.Begin >= 0 {
		s.now.tokens = &node{token: b.words.Begin, depth: 1}
	}
	if err := s.Feed(ctx, b.words.Prefix...); err != nil {
		return nil, err
	}
	s.history = nil
	return s, nil
}

// Len returns the number of bytes of the text.
func (s *ByteStream) Len() int { return len(s.text) - len(s.bytes.words.Prefix) }

// Covers returns how many sequences of tokens cover the text.
func (s *ByteStream) Covers() int { return len(s.covers) + 1 }

// Next returns the probabilities of the 256 bytes after the text and, after them, of the
// Vocabulary's specials, which sum to 1. It is valid until the next call, and costs a step
// of the model and V exponentials; what it has found out Feed takes up. Errors are those of
// the model.
func (s *ByteStream) Next(ctx context.Context) ([]float64, error) {
	if err := check.Call(s.bytes.pkg, ctx, true); err != nil {
		return nil, err
	}
	return s.distribution(ctx, s.least())
}

// distribution is Next without tokens whose log-probability is below least.
func (s *ByteStream) distribution(ctx context.Context, least float64) ([]float64, error) {
	if err := s.step(ctx); err != nil {
		return nil, err
	}
	largest := s.now.logP
	for _, c := range s.covers {
		largest = max(largest, c.logP)
	}
	s.next = append(s.next[:0], make([]float64, 256+len(s.bytes.words.Specials))...)
	for _, c := range s.covers {
		s.next[s.rest(c)[0]] += math.Exp(c.logP - largest)
	}
	last, open := s.last(), s.bytes.open(s.text)
	base := s.now.logP - largest
	looked := 0
	for first, list := range s.bytes.byByte {
		for _, t := range list {
			if looked++; looked%asking == 0 && ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if s.logP[t] >= least && s.bytes.follows(last, t, open) {
				s.next[first] += math.Exp(base + s.logP[t])
			}
		}
	}
	if len(open) == 0 {
		for i, t := range s.bytes.words.Specials {
			s.next[256+i] = math.Exp(base + s.logP[t])
		}
	}
	for c := range s.bytes.byByte {
		if s.next[c] > 0 || !s.bytes.looksAhead(last, byte(c)) {
			continue
		}
		list, err := s.otherwise(ctx, byte(c))
		if err != nil {
			return nil, err
		}
		for _, next := range list {
			s.next[c] += math.Exp(next.logP - largest)
		}
	}
	sum := 0.0
	for _, p := range s.next {
		sum += p
	}
	if !(sum > 0) || math.IsInf(sum, 1) {
		return nil, check.Errorf(subquad.ErrCall, "%s: no byte has a probability after %d bytes", s.bytes.pkg, s.Len())
	}
	for i := range s.next {
		s.next[i] /= sum
	}
	return s.next, nil
}

// asking is after how many tokens a context is asked whether it is done.
const asking = 1 << 11

// least is the log-probability below which tokens are left out.
func (s *ByteStream) least() float64 {
	if s.bytes.cfg.Eps == 0 {
		return math.Inf(-1)
	}
	return math.Log(s.bytes.cfg.Eps / float64(len(s.logP)))
}

// rest is what of a cover is beyond the text.
func (s *ByteStream) rest(c cover) []byte { return s.bytes.words.Bytes[c.token][c.used:] }

// last is the last token of the text's encoding, -1 for none.
func (s *ByteStream) last() int32 { return s.lastOf(s.now.tokens) }

// lastOf is the last token of a text's encoding, -1 for none.
func (s *ByteStream) lastOf(n *node) int32 {
	if n != nil && !(n.before == nil && s.bytes.words.Begin >= 0) {
		return n.token
	}
	return -1
}

// step has the model read the text's encoding.
func (s *ByteStream) step(ctx context.Context) error {
	if s.ready {
		return nil
	}
	if s.now.tokens == nil {
		return check.Errorf(subquad.ErrCall, "%s: a text of no bytes after no token has no distribution: Vocabulary.Begin is negative", s.bytes.pkg)
	}
	if err := s.readTo(ctx, s.now.tokens); err != nil {
		return err
	}
	s.ready = true
	return nil
}

// readTo has the model read tokens and keeps the log-probabilities of the one after.
func (s *ByteStream) readTo(ctx context.Context, to *node) error {
	// The tokens after what both have in common.
	a, b := s.read, to
	s.reading = s.reading[:0]
	for a != b {
		if b == nil || a != nil && a.depth >= b.depth {
			a = a.before
		} else {
			s.reading = append(s.reading, b.token)
			b = b.before
		}
	}
	keep := 0
	if a != nil {
		keep = a.depth
	}
	if len(s.reading) == 0 { // the same, or less: its last token is read again
		s.reading = append(s.reading, to.token)
		keep--
	}
	slices.Reverse(s.reading)
	s.read = nil // after an error
	row := mat.Of(s.logits, 1, len(s.logits))
	if err := s.source.Continue(ctx, row, keep, s.reading); err != nil {
		return err
	}
	s.read = to
	logSoftmax(s.logP, s.logits)
	return nil
}

// logSoftmax sets dst to the logarithm of the softmax of logits.
func logSoftmax(dst []float64, logits []float32) {
	largest := math.Inf(-1)
	for _, v := range logits {
		largest = max(largest, float64(v))
	}
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v) - largest)
	}
	norm := largest + math.Log(sum)
	for i, v := range logits {
		dst[i] = float64(v) - norm
	}
}

// Feed adds bytes to the text. A byte that has no probability is an error that matches
// ErrCall, and stays out with those after it. It takes a step of the model for each byte
// that Next has not been asked about.
func (s *ByteStream) Feed(ctx context.Context, text ...byte) error {
	if err := check.Call(s.bytes.pkg, ctx, true); err != nil {
		return err
	}
	for _, c := range text {
		if err := s.feed(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (s *ByteStream) feed(ctx context.Context, c byte) error {
	if err := s.step(ctx); err != nil {
		return err
	}
	before := moment{s.now, s.covers}
	var now *cover
	var covers []cover
	take := func(next cover) {
		if next.used++; next.used < len(s.bytes.words.Bytes[next.token]) {
			covers = append(covers, next)
		} else if now == nil {
			now = &next
		}
	}
	for _, next := range s.covers {
		if s.rest(next)[0] == c {
			take(next)
		}
	}
	last, open := s.last(), s.bytes.open(s.text)
	for i, t := range s.bytes.byByte[c] {
		if (i+1)%asking == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if p := s.logP[t]; p > math.Inf(-1) && s.bytes.follows(last, t, open) {
			take(cover{tokens: s.now.tokens, token: t, logP: s.now.logP + p})
		}
	}
	if now == nil { // a tokenizer that looks ahead takes back what it made of the end
		list, err := s.otherwise(ctx, c)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return check.Errorf(subquad.ErrCall, "%s: byte %d, %#02x, has no probability after the %d before it", s.bytes.pkg, s.Len(), c, s.Len())
		}
		if now = &list[0]; len(covers) == 0 {
			covers = list[1:]
		}
	}
	now.tokens = now.tokens.with(now.token, now.logP)
	if s.history = append(s.history, before); len(s.history) > s.bytes.cfg.History {
		s.history = slices.Delete(s.history, 0, 1)
	}
	s.text, s.now, s.covers, s.ready, s.turns = append(s.text, c), *now, covers, false, nil
	return nil
}

// with returns the tokens and one more.
func (n *node) with(token int32, logP float64) *node {
	depth := 1
	if n != nil {
		depth += n.depth
	}
	return &node{n, token, depth, logP}
}

// LogLikelihood adds a text, and sets dst, of as many elements or nil, to the natural
// logarithms of the bytes' probabilities, each after those before it, without regard to
// ByteConfig.Eps. It returns their sum. As in Feed a byte that has no probability is an error
// and stays out with those after it, and the sum is that of those before.
func (s *ByteStream) LogLikelihood(ctx context.Context, dst []float64, text []byte) (sum float64, err error) {
	if dst != nil && len(dst) != len(text) {
		return 0, check.Errorf(subquad.ErrShape, "%s: dst has %d elements, want the text's %d", s.bytes.pkg, len(dst), len(text))
	}
	if err := check.Call(s.bytes.pkg, ctx, true); err != nil {
		return 0, err
	}
	for i, c := range text {
		next, err := s.distribution(ctx, math.Inf(-1))
		if err != nil {
			return sum, err
		}
		p := math.Log(next[c])
		if err := s.feed(ctx, c); err != nil {
			return sum, err
		}
		if dst != nil {
			dst[i] = p
		}
		sum += p
	}
	return sum, nil
}

// Truncate goes back to the first n bytes, by at most ByteConfig.History.
func (s *ByteStream) Truncate(n int) error {
	back := s.Len() - n
	switch {
	case n < 0 || back < 0:
		return check.Errorf(subquad.ErrState, "%s: n is %d, want 0 to Len = %d", s.bytes.pkg, n, s.Len())
	case back > len(s.history):
		return check.Errorf(subquad.ErrState, "%s: n is %d, want at least %d: the last %d bytes are known", s.bytes.pkg, n, s.Len()-len(s.history), len(s.history))
	case back == 0:
		return nil
	}
	at := len(s.history) - back
	s.now, s.covers, s.ready = s.history[at].now, s.history[at].covers, false
	s.turns = nil
	s.history, s.text = s.history[:at], s.text[:len(s.text)-back]
	return nil
}

// Clone returns a stream that goes on by itself from the same text.
func (s *ByteStream) Clone() *ByteStream {
	c := *s
	c.source = s.source.Clone()
	c.text, c.covers, c.history = slices.Clone(s.text), slices.Clip(s.covers), slices.Clone(s.history)
	c.logits, c.logP, c.next, c.reading, c.turns = slices.Clone(s.logits), slices.Clone(s.logP), nil, nil, nil
	return &c
}

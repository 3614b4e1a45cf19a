package lm

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/tokenizer"
)

// Vocabulary is what byte probabilities need of a tokenizer.
type Vocabulary = tokenizer.Vocabulary

// ByteConfig says how exact byte probabilities are.
type ByteConfig struct {
	// Eps, if not 0, leaves out tokens that are less likely than Eps/V after a text, before
	// it is found out whether they may stand there: at most Eps of the mass of a step. A
	// large vocabulary is much faster with 1e-6. Feed and LogLikelihood leave nothing out.
	Eps float64
	// History is how many bytes a stream can go back (Truncate), 0 for 256.
	History int
}

// Bytes is a tokenised model as a model of bytes: see ByteStream. It is safe for concurrent
// use.
type Bytes struct {
	pkg     string
	cfg     ByteConfig
	words   Vocabulary
	byByte  [256][]int32 // tokens by their first byte
	isByte  []bool       // token is one of Fallback
	mu      sync.Mutex
	rows    map[int32]*pairs // what may follow a token, -1 being the beginning
	pending [][]int32
}

// pairs are the tokens that may follow one, and the bytes that change how it is encoded: two
// bits each, filled when asked for.
type pairs struct {
	known, valid []uint64
	asked, ahead [4]uint64
}

// pairBytes bounds the memory of all pairs.
const pairBytes = 64 << 20

// NewBytes returns what streams of a vocabulary share. v is the number of the model's
// logits. Errors match ErrConfig.
func NewBytes(pkg string, v int, words Vocabulary, cfg ByteConfig) (*Bytes, error) {
	switch {
	case words.Encode == nil:
		return nil, check.Errorf(subquad.ErrConfig, "%s: Vocabulary.Encode is nil", pkg)
	case len(words.Bytes) == 0 || len(words.Bytes) > v:
		return nil, check.Errorf(subquad.ErrConfig, "%s: Vocabulary.Bytes has %d tokens, want 1 to the model's %d", pkg, len(words.Bytes), v)
	case int(words.Begin) >= v:
		return nil, check.Errorf(subquad.ErrConfig, "%s: Vocabulary.Begin is %d, want less than %d", pkg, words.Begin, v)
	case words.Begin < 0 && len(words.Prefix) > 0:
		return nil, check.Errorf(subquad.ErrConfig, "%s: Vocabulary.Begin is %d, want a token, which the Prefix comes after", pkg, words.Begin)
	case words.Fallback != nil && len(words.Fallback) != 256:
		return nil, check.Errorf(subquad.ErrConfig, "%s: Vocabulary.Fallback has %d tokens, want 256 or none", pkg, len(words.Fallback))
	case !(cfg.Eps >= 0 && cfg.Eps < 1):
		return nil, check.Errorf(subquad.ErrConfig, "%s: Eps is %v, want 0 to 1", pkg, cfg.Eps)
	case cfg.History < 0:
		return nil, check.Errorf(subquad.ErrConfig, "%s: History is %d, want 0 or more", pkg, cfg.History)
	}
	if cfg.History == 0 {
		cfg.History = 256
	}
	b := &Bytes{pkg: pkg, cfg: cfg, words: words, isByte: make([]bool, len(words.Bytes)), rows: map[int32]*pairs{}}
	told := make([]bool, v)
	for _, t := range words.Specials {
		switch {
		case t < 0 || int(t) >= v:
			return nil, check.Errorf(subquad.ErrConfig, "%s: Vocabulary.Specials has %d, want 0 to %d", pkg, t, v-1)
		case int(t) < len(words.Bytes) && len(words.Bytes[t]) > 0:
			return nil, check.Errorf(subquad.ErrConfig, "%s: Vocabulary.Specials has %d, which has bytes: it would count twice", pkg, t)
		case told[t]:
			return nil, check.Errorf(subquad.ErrConfig, "%s: Vocabulary.Specials has %d twice", pkg, t)
		}
		told[t] = true
	}
	for i, t := range words.Fallback {
		if t < 0 {
			continue
		}
		if int(t) >= len(words.Bytes) || !bytes.Equal(words.Bytes[t], []byte{byte(i)}) {
			return nil, check.Errorf(subquad.ErrConfig, "%s: Vocabulary.Fallback[%d] is token %d, whose bytes are others", pkg, i, t)
		}
		b.isByte[t] = true
	}
	for t, text := range words.Bytes {
		if len(text) > 0 {
			b.byByte[text[0]] = append(b.byByte[text[0]], int32(t))
		}
	}
	return b, nil
}

// ByteModel is a model with its tokenizer, as a model of bytes. It is immutable and safe for
// concurrent use.
type ByteModel struct {
	model *Model
	bytes *Bytes
}

// NewBytes returns the model as a model of bytes. Errors match ErrConfig, or ErrCall where the
// model cannot go on from a state.
func (m *Model) NewBytes(words Vocabulary, cfg ByteConfig) (*ByteModel, error) {
	if _, err := m.NewState(StateConfig{}); err != nil {
		return nil, err
	}
	b, err := NewBytes(m.cfg.Package, m.vocab, words, cfg)
	if err != nil {
		return nil, err
	}
	return &ByteModel{m, b}, nil
}

// NewStream returns the stream of an empty text. It runs the model once, where the tokenizer
// puts a blank before a text; errors are those of the model.
func (b *ByteModel) NewStream(ctx context.Context) (*ByteStream, error) {
	if err := check.Call(b.bytes.pkg, ctx, true); err != nil {
		return nil, err
	}
	source, err := b.model.NewSource()
	if err != nil {
		return nil, err
	}
	return b.bytes.NewStream(ctx, source)
}

// follows tells whether token t may stand after a canonical text that ends with token last
// (-1 for none), the bytes of an unfinished character being open.
func (b *Bytes) follows(last, t int32, open []byte) bool {
	if b.isByte[t] {
		return b.fallback(b.words.Bytes[t][0], open)
	}
	if len(open) > 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	row := b.row(last)
	word, bit := t/64, uint64(1)<<(t%64)
	if row.known[word]&bit == 0 {
		row.known[word] |= bit
		if b.canonical(last, t) {
			row.valid[word] |= bit
		}
	}
	return row.valid[word]&bit != 0
}

// row returns what is known of the tokens after one.
func (b *Bytes) row(last int32) *pairs {
	row := b.rows[last]
	if row == nil {
		words := (len(b.words.Bytes) + 63) / 64
		if (len(b.rows)+1)*16*(words+8) > pairBytes {
			clear(b.rows)
		}
		row = &pairs{known: make([]uint64, words), valid: make([]uint64, words)}
		b.rows[last] = row
	}
	return row
}

// canonical tells whether the bytes of two tokens (of one, where last is -1) are encoded as
// these.
func (b *Bytes) canonical(last, t int32) bool {
	for len(b.pending) < 2 {
		b.pending = append(b.pending, nil)
	}
	text := make([]byte, 0, 64)
	want := b.pending[0][:0]
	// A byte that completed a character stands for one without a token, which nothing joins.
	if last >= 0 && !b.isByte[last] {
		text, want = append(text, b.words.Bytes[last]...), append(want, last)
	}
	text, want = append(text, b.words.Bytes[t]...), append(want, t)
	got := b.words.Encode(b.pending[1][:0], text)
	b.pending[0], b.pending[1] = want, got
	return slices.Equal(got, want)
}

// fallback tells whether a byte's own token may stand after the open bytes of an unfinished
// character: where all are a proper beginning of one, or a whole one that has no token.
func (b *Bytes) fallback(c byte, open []byte) bool {
	text := append(open[:len(open):len(open)], c)
	if !utf8.FullRune(text) {
		return true
	}
	if _, n := utf8.DecodeRune(text); n != len(text) || !utf8.Valid(text) || c == ' ' {
		return false
	}
	got := b.words.Encode(nil, text)
	return len(got) == len(text) && got[0] == b.words.Fallback[text[0]]
}

// open returns the bytes at the end of a text that begin a character and do not end it, of a
// vocabulary of characters: one of bytes knows of none.
func (b *Bytes) open(text []byte) []byte {
	if b.words.Fallback == nil {
		return nil
	}
	return text[wholeRunes(text):]
}

package lm

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "internal/lm", map[string]func(*testing.T, *golden.File){
		"transformer.byte_probabilities": goldenBytes,
		"transformer.contrast":           goldenContrast,
		"transformer.collaborate":        goldenTogether,
		"transformer.speculative":        goldenSpeculative,
		"transformer.drift":              goldenDrift,
	})
}

// toy is the model of the vectors: h = rho h + embed[token] from 0, logits = out h.
type toy struct {
	rho        float64
	embed, out blas32.General
	states     [][]float64 // after each token
	steps      int
}

func newToy(f *golden.File, name string) *toy {
	return &toy{rho: f.Number("rho", 0), embed: f.Matrix(name + "embed"), out: f.Matrix(name + "out")}
}

func (m *toy) Vocab() int { return m.out.Rows }

func (m *toy) Clone() Source {
	c := *m
	c.states = slices.Clone(m.states)
	return &c
}

func (m *toy) Continue(_ context.Context, logits blas32.General, keep int, tokens []int32) error {
	if keep < 0 || keep > len(m.states) || len(tokens) == 0 || logits.Rows > len(tokens) {
		return fmt.Errorf("%d tokens after %d of %d, %d rows", len(tokens), keep, len(m.states), logits.Rows)
	}
	m.states = m.states[:keep]
	for i, token := range tokens {
		h := make([]float64, m.embed.Cols)
		if n := len(m.states); n > 0 {
			for j, v := range m.states[n-1] {
				h[j] = m.rho * v
			}
		}
		for j, v := range mat.Row(m.embed, int(token)) {
			h[j] += float64(v)
		}
		m.states = append(m.states, h)
		m.steps++
		if row := i - (len(tokens) - logits.Rows); row >= 0 {
			for v := range m.out.Rows {
				sum := 0.0
				for j, w := range mat.Row(m.out, v) {
					sum += float64(w) * h[j]
				}
				mat.Row(logits, row)[v] = float32(sum)
			}
		}
	}
	return nil
}

// pairTokenizer is that of the vectors: pieces with scores, the best pair first, or merges by
// their rank.
type pairTokenizer struct {
	Vocabulary
	ids    map[string]int32
	scores []float32
	ranks  map[[2]int32]int32
	space  bool // a blank is U+2581
}

func (v *pairTokenizer) encode(dst []int32, text []byte) []int32 {
	begin := len(dst)
	for at := 0; at < len(text); {
		n := 1
		if v.ranks == nil {
			_, n = utf8.DecodeRune(text[at:])
		}
		piece := string(text[at : at+n])
		if piece == " " && v.space {
			piece = "\u2581"
		}
		if id, ok := v.ids[piece]; ok {
			dst = append(dst, id)
		} else {
			for _, c := range text[at : at+n] {
				dst = append(dst, v.Fallback[c])
			}
		}
		at += n
	}
	for {
		best, at, joined := float32(math.Inf(-1)), -1, int32(0)
		for i := begin; i+1 < len(dst); i++ {
			if id, score, ok := v.joins(dst[i], dst[i+1]); ok && score > best {
				best, at, joined = score, i, id
			}
		}
		if at < 0 {
			return dst
		}
		dst[at] = joined
		dst = slices.Delete(dst, at+1, at+2)
	}
}

func (v *pairTokenizer) joins(a, b int32) (id int32, score float32, ok bool) {
	if v.ranks != nil {
		rank, ok := v.ranks[[2]int32{a, b}]
		return 256 + rank, -float32(rank), ok
	}
	if slices.Contains(v.Fallback, a) || slices.Contains(v.Fallback, b) {
		return 0, 0, false
	}
	text := string(v.Bytes[a]) + string(v.Bytes[b])
	if v.space {
		text = strings.ReplaceAll(text, " ", "\u2581")
	}
	id, ok = v.ids[text]
	if ok {
		score = v.scores[id]
	}
	return id, score, ok
}

// scored reads a vocabulary of pieces.
func scored(f *golden.File, space bool) *pairTokenizer {
	v := &pairTokenizer{ids: map[string]int32{}, scores: f.Float32("vocab.scores"), space: space}
	data, offsets, types := f.Int64("vocab.bytes"), f.Int64("vocab.offsets"), f.Int64("vocab.types")
	v.Fallback = make([]int32, 256)
	for i := range v.Fallback {
		v.Fallback[i] = -1
	}
	const normal, byteType = 1, 6
	for t, kind := range types {
		var piece []byte
		for _, c := range data[int(offsets[t]):int(offsets[t+1])] {
			piece = append(piece, byte(c))
		}
		switch kind {
		case normal:
			v.ids[string(piece)] = int32(t)
			if space {
				piece = []byte(strings.ReplaceAll(string(piece), "\u2581", " "))
			}
		case byteType:
			c, err := strconv.ParseUint(string(piece[3:5]), 16, 8)
			if err != nil {
				panic(err)
			}
			v.Fallback[c], piece = int32(t), []byte{byte(c)}
		default:
			piece = nil
		}
		v.Bytes = append(v.Bytes, piece)
	}
	v.Encode = v.encode
	return v
}

// merged reads a vocabulary of merges.
func merged(f *golden.File, size int) *pairTokenizer {
	v := &pairTokenizer{ids: map[string]int32{}, ranks: map[[2]int32]int32{}}
	for i := range 256 {
		v.Bytes = append(v.Bytes, []byte{byte(i)})
		v.ids[string([]byte{byte(i)})] = int32(i)
	}
	list := f.Int64("merges")
	for i := range len(list) / 2 {
		a, b := int32(list[2*i]), int32(list[2*i+1])
		v.ranks[[2]int32{a, b}] = int32(i)
		v.Bytes = append(v.Bytes, slices.Concat(v.Bytes[a], v.Bytes[b]))
	}
	for len(v.Bytes) < size {
		v.Bytes = append(v.Bytes, nil)
	}
	v.Encode = v.encode
	return v
}

func goldenBytes(t *testing.T, f *golden.File) {
	ctx := context.Background()
	for _, e := range f.Entries() {
		p := e.Prefix
		m := newToy(f, "lm.")
		var v *pairTokenizer
		if f.Has("merges") {
			v = merged(f, m.Vocab())
		} else {
			v = scored(f, e.Text("space") == "byte")
		}
		v.Begin = int32(f.Number("bos", -1))
		for _, s := range strings.FieldsFunc(f.Meta("specials"), func(r rune) bool { return strings.ContainsRune("[], ", r) }) {
			id, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			v.Specials = append(v.Specials, int32(id))
		}
		b, err := NewBytes("lm", m.Vocab(), v.Vocabulary, ByteConfig{})
		if err != nil {
			t.Fatal(err)
		}
		var text []byte
		for _, c := range f.Int64(p + "text") {
			text = append(text, byte(c))
		}
		if n := e.Int("text_bytes", 0); n != len(text) {
			t.Fatalf("the text has %d bytes, want %d", len(text), n)
		}
		s, err := b.NewStream(context.Background(), m)
		must(t, err)
		if f.Meta("dummy_prefix") == "True" {
			blank := []byte("\u2581")
			if v.space {
				blank = []byte(" ")
			}
			if err := s.Feed(ctx, blank...); err != nil {
				t.Fatal(err)
			}
		}
		from := e.Int("from", 0)
		e.Done()
		if err := s.Feed(ctx, text[:from]...); err != nil {
			t.Fatal(err)
		}
		var next []float64
		var covers []int64
		for i := from; ; i++ {
			list, err := s.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			next, covers = append(next, list...), append(covers, int64(s.Covers()))
			if i == len(text) {
				break
			}
			if err := s.Feed(ctx, text[i]); err != nil {
				t.Fatal(err)
			}
		}
		f.Compare64(p+"expected.next", next)
		f.CompareInts(p+"expected.covers", covers)
		if m.steps > 3*len(text)+10 {
			t.Errorf("%d steps of the model for %d bytes", m.steps, len(text))
		}
	}
}

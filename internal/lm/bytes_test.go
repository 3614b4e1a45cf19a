package lm

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/mat"
)

// randomToy is a toy model of v tokens.
func randomToy(seed uint64, v int) *toy {
	r := rand.New(rand.NewPCG(seed, 1))
	m := &toy{rho: 0.5, embed: mat.New(v, 4), out: mat.New(v, 4)}
	for i := range m.embed.Data {
		m.embed.Data[i], m.out.Data[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
	}
	return m
}

// abWords is a vocabulary of the letters a and b, of ab, aba and bb, and of begin and end.
func abWords() *pairTokenizer {
	v := &pairTokenizer{ranks: map[[2]int32]int32{}}
	v.Bytes = [][]byte{[]byte("a"), []byte("b"), []byte("ab"), []byte("aba"), []byte("bb"), nil, nil}
	v.Begin, v.Specials = 5, []int32{6}
	v.Encode = func(dst []int32, text []byte) []int32 {
		begin := len(dst)
		for _, c := range text {
			dst = append(dst, int32(c-'a'))
		}
		for _, m := range [][3]int32{{0, 1, 2}, {2, 0, 3}, {1, 1, 4}} { // by rank
			for i := begin; i+1 < len(dst); i++ {
				if dst[i] == m[0] && dst[i+1] == m[1] {
					dst[i] = m[2]
					dst = slices.Delete(dst, i+1, i+2)
				}
			}
		}
		return dst
	}
	return v
}

// probability is P(text) by its definition: all sequences of tokens are tried.
func probability(m *toy, v *pairTokenizer, text string) (sum float64) {
	var try func(tokens []int32, made string, p float64)
	try = func(tokens []int32, made string, p float64) {
		if len(made) >= len(text) {
			if made[:len(text)] == text && slices.Equal(v.Encode(nil, []byte(made)), tokens[1:]) {
				sum += p
			}
			return
		}
		if text[:len(made)] != made {
			return
		}
		logits := mat.New(1, m.Vocab())
		if err := (&toy{rho: m.rho, embed: m.embed, out: m.out}).Continue(context.Background(), logits, 0, tokens); err != nil {
			panic(err)
		}
		logP := make([]float64, m.Vocab())
		logSoftmax(logP, logits.Data)
		for t, piece := range v.Bytes {
			if len(piece) > 0 {
				try(append(slices.Clone(tokens), int32(t)), made+string(piece), p*math.Exp(logP[t]))
			}
		}
	}
	try([]int32{v.Begin}, "", 1)
	return sum
}

// TestBytesByDefinition: after any text the shares of the next byte are those of the
// probabilities of the texts, by all sequences of tokens.
func TestBytesByDefinition(t *testing.T) {
	ctx, v := context.Background(), abWords()
	m := randomToy(3, len(v.Bytes))
	b, err := NewBytes("lm", m.Vocab(), v.Vocabulary, ByteConfig{})
	must(t, err)
	for _, text := range []string{"", "a", "ab", "aba", "abab", "bbb", "abba", "ababb"} {
		s, err := b.NewStream(context.Background(), m.Clone())
		must(t, err)
		must(t, s.Feed(ctx, []byte(text)...))
		next, err := s.Next(ctx)
		must(t, err)
		sum := 0.0
		for _, p := range next {
			sum += p
		}
		if math.Abs(sum-1) > 1e-12 {
			t.Errorf("after %q all sum to %v", text, sum)
		}
		want := probability(m, v, text+"a") / probability(m, v, text+"b")
		if got := next['a'] / next['b']; math.Abs(got-want) > 1e-6*want {
			t.Errorf("after %q a is %v times as likely as b, want %v", text, got, want)
		}
	}
}

// TestBytesAlone: with a vocabulary of bytes alone the shares are the model's own softmax.
func TestBytesAlone(t *testing.T) {
	ctx := context.Background()
	v := Vocabulary{Begin: 256, Encode: func(dst []int32, text []byte) []int32 {
		for _, c := range text {
			dst = append(dst, int32(c))
		}
		return dst
	}}
	for c := range 256 {
		v.Bytes = append(v.Bytes, []byte{byte(c)})
	}
	m := randomToy(4, 257)
	b, err := NewBytes("lm", m.Vocab(), v, ByteConfig{})
	must(t, err)
	s, err := b.NewStream(context.Background(), m.Clone())
	must(t, err)
	text := []byte{7, 200, 0, 255}
	must(t, s.Feed(ctx, text...))
	got, err := s.Next(ctx)
	must(t, err)
	logits, want := mat.New(1, 257), make([]float64, 256)
	must(t, m.Continue(ctx, logits, 0, []int32{256, 7, 200, 0, 255}))
	logSoftmax(want, logits.Data[:256])
	for c, l := range want {
		if math.Abs(got[c]-math.Exp(l)) > 1e-9 {
			t.Fatalf("byte %d has %v, want %v", c, got[c], math.Exp(l))
		}
	}
}

// TestByteStream: chain rule, Truncate, Clone, one step of the model a byte, and a byte that
// cannot come.
func TestByteStream(t *testing.T) {
	ctx, v := context.Background(), abWords()
	m := randomToy(5, len(v.Bytes))
	b, err := NewBytes("lm", m.Vocab(), v.Vocabulary, ByteConfig{History: 4})
	must(t, err)
	s, err := b.NewStream(context.Background(), m)
	must(t, err)
	text := []byte("abbabaababbaab")
	each := make([]float64, len(text))
	sum, err := s.LogLikelihood(ctx, each, text)
	must(t, err)
	total := 0.0
	for _, p := range each {
		total += p
	}
	if math.Abs(sum-total) > 1e-12 || s.Len() != len(text) || m.steps > 2*len(text) {
		t.Errorf("%v, of single bytes %v, %d bytes, %d steps", sum, total, s.Len(), m.steps)
	}
	c := s.Clone()
	want, err := s.Next(ctx)
	must(t, err)
	want = slices.Clone(want)
	must(t, c.Truncate(s.Len()-3))
	must(t, c.Feed(ctx, text[len(text)-3:]...))
	if got, err := c.Next(ctx); err != nil || !slices.Equal(got, want) {
		t.Errorf("back and forth: %v, want %v, error %v", got, want, err)
	}
	if err := s.Truncate(2); !errors.Is(err, subquad.ErrState) {
		t.Errorf("beyond what is known: error %v", err)
	}
	if err := s.Feed(ctx, 'x'); !errors.Is(err, subquad.ErrCall) || s.Len() != len(text) {
		t.Errorf("a byte that cannot come: error %v, %d bytes", err, s.Len())
	}
	if got, err := s.Next(ctx); err != nil || !slices.Equal(got, want) {
		t.Errorf("after an error: %v, want %v, error %v", got, want, err)
	}
	// Tokens that are left out cost at most what is said.
	rough, err := NewBytes("lm", m.Vocab(), v.Vocabulary, ByteConfig{Eps: 0.01})
	must(t, err)
	r, err := rough.NewStream(context.Background(), m.Clone())
	must(t, err)
	must(t, r.Feed(ctx, text[:1]...))
	if p, err := r.Next(ctx); err != nil || math.Abs(p['a']-exact(t, b, m, text[:1])['a']) > 0.02 {
		t.Errorf("with Eps: %v, error %v", p['a'], err)
	}
}

func exact(t *testing.T, b *Bytes, m *toy, text []byte) []float64 {
	s, err := b.NewStream(context.Background(), &toy{rho: m.rho, embed: m.embed, out: m.out})
	must(t, err)
	must(t, s.Feed(context.Background(), text...))
	next, err := s.Next(context.Background())
	must(t, err)
	return next
}

// TestAcceptExact: over all drafts and a fine grid of random numbers, the first token is
// distributed as the target's.
func TestAcceptExact(t *testing.T) {
	q := []float64{0.5, 0.3, 0.2}
	p := [][]float64{{0.2, 0.3, 0.5}, {0.1, 0.6, 0.3}}
	const grid = 400
	got := make([]float64, 3)
	for d, share := range q {
		for i := range grid {
			for j := range grid {
				u := []float64{(float64(i) + 0.5) / grid, (float64(j) + 0.5) / grid}
				tokens, err := Accept("lm", nil, []int32{int32(d)}, [][]float64{q}, p, u, false)
				if err != nil {
					t.Fatal(err)
				}
				got[tokens[0]] += share / (grid * grid)
			}
		}
	}
	for v, want := range p[0] {
		if math.Abs(got[v]-want) > 2.0/grid {
			t.Errorf("token %d comes with %v, want %v", v, got[v], want)
		}
	}
}

// TestTogetherLaws: what methods and routers have in common.
func TestTogetherLaws(t *testing.T) {
	ctx := context.Background()
	run := func(cfg TogetherConfig) (text []int32) {
		m := &Together{Large: randomToy(6, 30), Small: randomToy(7, 28), Tuned: randomToy(7, 28)}
		cfg.MaxTokens = 20
		for token, err := range m.Generate(ctx, "lm", []int32{3, 4}, cfg, nil) {
			must(t, err)
			text = append(text, token)
		}
		return text
	}
	large, small := run(TogetherConfig{Method: Oracle}), run(TogetherConfig{Method: Oracle, Router: Never})
	for name, c := range map[string]struct {
		cfg  TogetherConfig
		want []int32
	}{
		"speculative":            {TogetherConfig{Drafts: 3}, large},
		"speculative, long":      {TogetherConfig{Drafts: 40}, large},
		"never":                  {TogetherConfig{Router: Never}, small},
		"contrast 1":             {TogetherConfig{Method: Contrastive, Beta: 1}, large},
		"contrast 0":             {TogetherConfig{Method: Contrastive}, small},
		"proxy of what is tuned": {TogetherConfig{Method: ProxyTuned, Alpha: 1}, large},
		"always sure":            {TogetherConfig{Method: Oracle, Router: Unsure}, small},
		"never sure":             {TogetherConfig{Method: Oracle, Router: Unsure, Threshold: 1}, large},
	} {
		if got := run(c.cfg); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if len(large) != 20 || slices.Equal(large, small) {
		t.Errorf("the models give %v and %v", large, small)
	}
	m := &Together{Large: randomToy(6, 30)}
	for _, err := range m.Generate(ctx, "lm", []int32{1}, TogetherConfig{}, nil) {
		if !errors.Is(err, subquad.ErrCall) {
			t.Errorf("no small model: error %v", err)
		}
	}
}

// counted is a Source that remembers the longest text that it has read.
type counted struct {
	Source
	longest int
}

func (c *counted) Continue(ctx context.Context, logits blas32.General, keep int, tokens []int32) error {
	c.longest = max(c.longest, keep+len(tokens))
	return c.Source.Continue(ctx, logits, keep, tokens)
}

// TestTogetherVocabularies: no model is given a token that another alone has, whichever is
// the shorter one, and none reads far beyond MaxTokens.
func TestTogetherVocabularies(t *testing.T) {
	ctx := context.Background()
	for _, sizes := range [][3]int{{30, 9, 20}, {9, 30, 20}, {30, 20, 9}, {9, 30, 30}} {
		for method := range ProxyTuned + 1 {
			for router := range lastRouter + 1 {
				for seed := range uint64(4) {
					large := &counted{Source: randomToy(6+seed, sizes[0])}
					m := &Together{Large: large, Small: randomToy(17+seed, sizes[1]), Tuned: randomToy(28+seed, sizes[2])}
					cfg := TogetherConfig{Method: method, Router: router, Threshold: 0.3, Alpha: 0.1, Beta: 0.5, MaxTokens: 9}
					for token, err := range m.Generate(ctx, "lm", []int32{3, 4}, cfg, nil) {
						if err != nil || token >= 9 {
							t.Fatalf("vocabularies of %v, method %d, router %d: token %d, error %v", sizes, method, router, token, err)
						}
					}
					if large.longest > 2+9 {
						t.Errorf("method %d, router %d: %d tokens are read, want at most those of the text", method, router, large.longest)
					}
				}
			}
		}
	}
	m := &Together{Large: randomToy(6, 30), Small: randomToy(6, 30)}
	for _, err := range m.Generate(nil, "lm", []int32{1}, TogetherConfig{MaxTokens: 1}, nil) { //nolint:staticcheck // what is tested
		if !errors.Is(err, subquad.ErrCall) {
			t.Errorf("a nil context: error %v", err)
		}
	}
}

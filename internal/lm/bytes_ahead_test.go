package lm

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/subquad/subquad"
)

// lineWords is a vocabulary of a, b, line ends, aa, bb and two line ends, which are two tokens
// before a letter: as GPT-2's tokenizer splits text.
func lineWords() *pairTokenizer {
	v := &pairTokenizer{ranks: map[[2]int32]int32{}}
	v.Bytes = [][]byte{[]byte("a"), []byte("b"), []byte("\n"), []byte("aa"), []byte("bb"), []byte("\n\n"), nil, nil}
	v.Begin, v.Specials = 6, []int32{7}
	v.Encode = func(dst []int32, text []byte) []int32 {
		for i := 0; i < len(text); {
			end := i + 1
			for end < len(text) && text[end] == text[i] {
				end++
			}
			n := end - i // of a run
			whole := n
			if text[i] == '\n' && end < len(text) {
				whole-- // the last line end before a letter stands alone
			}
			one := map[byte]int32{'a': 0, 'b': 1, '\n': 2}[text[i]]
			for ; whole >= 2; whole, n = whole-2, n-2 {
				dst = append(dst, one+3)
			}
			for ; n > 0; n-- {
				dst = append(dst, one)
			}
			i = end
		}
		return dst
	}
	return v
}

// TestBytesAhead: text that a tokenizer splits by what follows has the probability of its
// encoding, by all sequences of tokens, and can be fed, scored and gone back over.
func TestBytesAhead(t *testing.T) {
	ctx, v := context.Background(), lineWords()
	m := randomToy(9, len(v.Bytes))
	b, err := NewBytes("lm", m.Vocab(), v.Vocabulary, ByteConfig{})
	must(t, err)
	for _, text := range []string{"\n\n", "a\n\n", "aab\n\n", "a\n\n\n\n", "a\n\nb", "a\n\nbb\n\n", "abababababab\n\n"} {
		s, err := b.NewStream(ctx, m.Clone())
		must(t, err)
		must(t, s.Feed(ctx, []byte(text)...))
		next, err := s.Next(ctx)
		must(t, err)
		for _, c := range []string{"a", "\n"} {
			want := probability(m, v, text+c) / probability(m, v, text+"b")
			if got := next[c[0]] / next['b']; !(math.Abs(got-want) <= 1e-5*want) {
				t.Errorf("after %q %q is %v times as likely as b, want %v", text, c, got, want)
			}
		}
	}
	s, err := b.NewStream(ctx, m)
	must(t, err)
	text := []byte("ab\n\nba\n\n\n\nbbbba")
	sum, err := s.LogLikelihood(ctx, nil, text)
	must(t, err)
	c := s.Clone()
	must(t, c.Truncate(3))
	again, err := c.LogLikelihood(ctx, nil, text[3:])
	must(t, err)
	must(t, s.Truncate(0))
	first, err := s.LogLikelihood(ctx, nil, text[:3])
	must(t, err)
	if math.IsInf(sum, 0) || math.Abs(first+again-sum) > 1e-6 {
		t.Errorf("%v and %v, all at once %v", first, again, sum)
	}
}

// TestBytesHostile: a vocabulary whose encodings are no tokens, or of another text, and a model
// that says nothing, end in an error; a nil context too, and no call runs on.
func TestBytesHostile(t *testing.T) {
	ctx := context.Background()
	for _, made := range [][]int32{{-1}, {100}, {7}, {0}, nil} {
		v := lineWords()
		encode := v.Encode
		v.Encode = func(dst []int32, text []byte) []int32 {
			if len(text) > 1 {
				return append(dst, made...)
			}
			return encode(dst, text)
		}
		m := randomToy(9, 12)
		b, err := NewBytes("lm", m.Vocab(), v.Vocabulary, ByteConfig{})
		must(t, err)
		s, err := b.NewStream(ctx, m)
		must(t, err)
		must(t, s.Feed(ctx, 'a'))
		if err := s.Feed(ctx, []byte("bab")...); !errors.Is(err, subquad.ErrCall) {
			t.Errorf("encodings are %v: error %v", made, err)
		}
	}
	v, m := lineWords(), randomToy(9, 8)
	for _, specials := range [][]int32{{0}, {7, 7}, {8}, {-1}} {
		v.Specials = specials
		if _, err := NewBytes("lm", m.Vocab(), v.Vocabulary, ByteConfig{}); !errors.Is(err, subquad.ErrConfig) {
			t.Errorf("specials %v: error %v", specials, err)
		}
	}
	v.Specials = []int32{7}
	b, err := NewBytes("lm", m.Vocab(), v.Vocabulary, ByteConfig{})
	must(t, err)
	s, err := b.NewStream(ctx, m)
	must(t, err)
	_, err = s.Next(ctx)
	must(t, err)
	_, nextErr := s.Next(nil)                                     //nolint:staticcheck // what is tested
	_, scoreErr := s.LogLikelihood(nil, nil, nil)                 //nolint:staticcheck // what is tested
	for _, err := range []error{nextErr, scoreErr, s.Feed(nil)} { //nolint:staticcheck // what is tested
		if !errors.Is(err, subquad.ErrCall) {
			t.Errorf("a nil context: error %v", err)
		}
	}
	for i := range m.out.Data {
		m.out.Data[i] = float32(math.NaN())
	}
	if s, err = b.NewStream(ctx, m); err == nil {
		_, err = s.Next(ctx)
	}
	if !errors.Is(err, subquad.ErrCall) {
		t.Errorf("a model without numbers: error %v", err)
	}
}

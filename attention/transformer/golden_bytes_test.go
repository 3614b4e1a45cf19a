package transformer

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/text"
)

// goldenByteText reads a text byte by byte with a trained model.
func goldenByteText(t *testing.T, f *golden.File) {
	folder := f.Beside("checkpoint")
	m, err := Open(folder, Config{})
	must(t, err)
	words, err := text.Open(filepath.Join(folder, "tok512.bin"))
	must(t, err)
	v, err := words.Vocabulary()
	must(t, err)
	b, err := m.NewBytes(v, ByteConfig{})
	must(t, err)
	s, err := b.NewStream(t.Context())
	must(t, err)
	var bytes []byte
	for _, c := range f.Int64("text") {
		bytes = append(bytes, byte(c))
	}
	tokens, err := words.Encode(string(bytes), true)
	must(t, err)
	f.CompareInts("tokens", wide(tokens))
	at := f.Int64("at")
	var logp, next []float64
	var covers []int64
	sum := 0.0
	for i := 0; ; i++ {
		p, err := s.Next(t.Context())
		must(t, err)
		if len(at) > 0 && at[0] == int64(i) {
			next, at = append(next, p...), at[1:]
		}
		if i == len(bytes) {
			break
		}
		c := bytes[i]
		covers, logp = append(covers, int64(s.Covers())), append(logp, math.Log(p[c]))
		sum -= math.Log2(p[c])
		must(t, s.Feed(t.Context(), c))
	}
	f.Compare64("expected.logprob", logp)
	f.Compare64("expected.next", next)
	f.CompareInts("expected.covers", covers)
	if want, got := f.Number("bits_per_byte", -1), sum/float64(len(bytes)); want >= 0 && math.Abs(got-want) > 1e-4 {
		t.Errorf("%v bits per byte, want %v", got, want)
	}
}

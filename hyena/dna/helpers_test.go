package dna

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/weights/weightstest"
)

// state is a checkpoint under construction.
type state struct{ weightstest.State }

func (s state) renamed(name func(string) string) state { return state{s.Renamed(name)} }

func (s state) model(t testing.TB, cfg Config) *Model {
	t.Helper()
	m, err := s.read(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (s state) read(cfg Config) (*Model, error) {
	b := s.File()
	return Read(bytes.NewReader(b), int64(len(b)), cfg)
}

// shape of a random model.
type dims struct {
	dim, layers, inner, vocab, maxLen, order, hidden int
	inners                                           int // inner layers of the filters' MLP; 0 is 1
}

var small = dims{dim: 12, layers: 2, inner: 20, vocab: 16, maxLen: 700, order: 2, hidden: 8}

// random returns a random checkpoint under the standalone file's names, without
// stored grids.
func (d dims) random(seed uint64) state {
	r := rand.New(rand.NewPCG(seed, 1))
	s := state{weightstest.State{}}
	put := func(name string, scale, offset float64, shape ...int) {
		s.Put(r, "backbone."+name, scale, offset, shape...)
	}
	norm := func(name string) {
		put(name+".weight", 0.1, 1, d.dim)
		put(name+".bias", 0.1, 0, d.dim)
	}
	linear := func(name string, out, in int) {
		put(name+".weight", 1/math.Sqrt(float64(in)), 0, out, in)
		put(name+".bias", 0.1, 0, out)
	}
	put(wordEmbeddings, 1, 0, d.vocab, d.dim)
	norm("ln_f")
	for i := range d.layers {
		p := fmt.Sprintf("layers.%d.", i)
		norm(p + "norm1")
		norm(p + "norm2")
		linear(p+"mlp.fc1", d.inner, d.dim)
		linear(p+"mlp.fc2", d.dim, d.inner)
		wide, channels := (d.order+1)*d.dim, (d.order-1)*d.dim
		linear(p+"mixer.in_proj", wide, d.dim)
		linear(p+"mixer.out_proj", d.dim, d.dim)
		put(p+"mixer.short_filter.weight", 0.5, 0, wide, 1, 3)
		put(p+"mixer.short_filter.bias", 0.1, 0, wide)
		put(p+"mixer.filter_fn.bias", 1, 0, channels)
		f := p + "mixer.filter_fn.implicit_filter."
		linear(f+"0", d.hidden, 5)
		at := 2
		for ; at <= 2*max(d.inners, 1); at += 2 {
			linear(fmt.Sprint(f, at), d.hidden, d.hidden)
		}
		put(fmt.Sprint(f, at, ".weight"), 0.1, 0, channels, d.hidden)
		put(f+"1.freq", 0.1, 2, 1, d.hidden)
	}
	return s
}

// bases returns n random tokens.
func bases(seed uint64, n int) []int32 {
	r := rand.New(rand.NewPCG(seed, 2))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = 7 + int32(r.IntN(4))
	}
	return ids
}

func zeros(rows, cols int) blas32.General {
	return mat.Of(make([]float32, rows*cols), rows, cols)
}

func (d dims) config() Config { return Config{MaxLen: d.maxLen} }

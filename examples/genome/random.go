package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
)

// shape is that of a published model.
type shape struct{ dim, inner, vocab, maxLen, embDim, filterOrder int }

// large is hyenadna-large-1m, which has 8 layers.
var large = shape{dim: 256, inner: 1024, vocab: 16, maxLen: 1_000_002, embDim: 5, filterOrder: 64}

const largeLayers = 8

// random returns a checkpoint of random weights, a safetensors file with the names and tensors
// that the published one has, its filters' grids included.
func (s shape) random(layers int) string {
	type entry struct {
		Dtype   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	header := map[string]entry{}
	var body strings.Builder
	r := rand.New(rand.NewPCG(1, 2))
	add := func(name string, value func(i int) float64, shape ...int) {
		n, from := 1, body.Len()
		for _, d := range shape {
			n *= d
		}
		var b [4]byte
		for i := range n {
			binary.LittleEndian.PutUint32(b[:], math.Float32bits(float32(value(i))))
			body.Write(b[:])
		}
		header["hyena."+name] = entry{"F32", shape, [2]int{from, body.Len()}}
	}
	normal := func(scale float64) func(int) float64 { return func(int) float64 { return scale * r.NormFloat64() } }
	same := func(v float64) func(int) float64 { return func(int) float64 { return v } }
	linear := func(name string, out, in int) {
		add(name+".weight", normal(1/math.Sqrt(float64(in))), out, in)
		add(name+".bias", normal(0.1), out)
	}
	norm := func(name string) {
		add(name+".weight", same(1), s.dim)
		add(name+".bias", same(0), s.dim)
	}
	add("backbone.embeddings.word_embeddings.weight", normal(1), s.vocab, s.dim)
	norm("backbone.ln_f")
	for i := range layers {
		layer := fmt.Sprintf("backbone.layers.%d.", i)
		norm(layer + "norm1")
		norm(layer + "norm2")
		linear(layer+"mlp.fc1", s.inner, s.dim)
		linear(layer+"mlp.fc2", s.dim, s.inner)
		linear(layer+"mixer.in_proj", 3*s.dim, s.dim)
		linear(layer+"mixer.out_proj", s.dim, s.dim)
		add(layer+"mixer.short_filter.weight", normal(0.5), 3*s.dim, 1, 3)
		add(layer+"mixer.short_filter.bias", normal(0.1), 3*s.dim)
		s.addFilter(layer+"mixer.filter_fn.", add, linear, normal(0.01), normal(1))
	}
	text, err := json.Marshal(header)
	if err != nil {
		panic(err) // it has nothing but names and numbers
	}
	return string(binary.LittleEndian.AppendUint64(nil, uint64(len(text)))) + string(text) + body.String()
}

// addFilter adds what makes the filter of a layer: the grid of positions, an MLP with sines, the
// window's decays.
func (s shape) addFilter(name string, add func(string, func(int) float64, ...int), linear func(string, int, int), small, one func(int) float64) {
	bands := (s.embDim - 1) / 2
	position := func(i int) float64 { return float64(i) / float64(s.maxLen-1) }
	add(name+"bias", one, s.dim)
	add(name+"pos_emb.t", position, 1, s.maxLen, 1)
	add(name+"pos_emb.z", func(i int) float64 {
		at, column := i/s.embDim, i%s.embDim
		if column == 0 {
			return position(at)
		}
		band := float64((column - 1) % bands)
		sin, cos := math.Sincos(2 * math.Pi * float64(at) / float64(s.maxLen) * (1e-4 + band*(float64(bands-1)-1e-4)/float64(bands-1)))
		if column <= bands {
			return cos
		}
		return -sin
	}, 1, s.maxLen, s.embDim)
	mlp := name + "implicit_filter."
	linear(mlp+"0", s.filterOrder, s.embDim)
	linear(mlp+"2", s.filterOrder, s.filterOrder)
	linear(mlp+"4", s.filterOrder, s.filterOrder)
	add(mlp+"1.freq", func(int) float64 { return 10 }, 1, s.filterOrder)
	add(mlp+"6.weight", small, s.dim, s.filterOrder)
	add(name+"modulation.deltas", func(i int) float64 {
		first, last := math.Log(0.01)/1.5, math.Log(0.01)/0.3
		return first + (last-first)*float64(i)/float64(s.dim-1)
	}, 1, 1, s.dim)
}

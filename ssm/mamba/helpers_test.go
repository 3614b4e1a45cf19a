package mamba

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/subquad/subquad/internal/weights/weightstest"
	"github.com/subquad/subquad/ssm"
)

// state is a checkpoint under construction.
type state struct{ weightstest.State }

func (s state) read(cfg Config) (*Model, error) {
	b := s.File()
	return Read(bytes.NewReader(b), int64(len(b)), cfg)
}

func (s state) model(t testing.TB, cfg Config) *Model {
	t.Helper()
	m, err := s.read(cfg)
	must(t, err)
	return m
}

const (
	dim, vocab     = 12, 24
	heads, headDim = 3, 8
	states, taps   = 6, 4
)

var small = Config{States: states, HeadDim: headDim}

// random returns a random checkpoint of blocks of the versions given, under the
// original names, with MLPs where mlp.
func random(mlp bool, versions ...int) state {
	r := rand.New(rand.NewPCG(1, 2))
	s := state{weightstest.State{}}
	put := func(name string, scale, offset float64, shape ...int) {
		s.Put(r, "backbone."+name, scale, offset, shape...)
	}
	const inner, rank = heads * headDim, 2
	put(wordEmbedding, 1, 0, vocab, dim)
	put("norm_f.weight", 0.1, 1, dim)
	for i, version := range versions {
		p := fmt.Sprintf("layers.%d.", i)
		put(p+"norm.weight", 0.1, 1, dim)
		m := p + "mixer."
		put(m+"out_proj.weight", 0.2, 0, dim, inner)
		if version == 1 {
			put(m+"in_proj.weight", 0.3, 0, 2*inner, dim)
			put(m+"conv1d.weight", 0.5, 0, inner, 1, taps)
			put(m+"conv1d.bias", 0.1, 0, inner)
			put(m+"x_proj.weight", 0.3, 0, rank+2*states, inner)
			put(m+"dt_proj.weight", 0.5, 0, inner, rank)
			put(m+"dt_proj.bias", 1, -2, inner)
			put(m+"A_log", 1, 0, inner, states)
			put(m+"D", 1, 0, inner)
		} else {
			put(m+"in_proj.weight", 0.3, 0, 2*inner+2*states+heads, dim)
			put(m+"conv1d.weight", 0.5, 0, inner+2*states, 1, taps)
			put(m+"conv1d.bias", 0.1, 0, inner+2*states)
			put(m+"dt_bias", 1, -2, heads)
			put(m+"A_log", 1, 0, heads)
			put(m+"D", 1, 0, heads)
			put(m+"norm.weight", 0.1, 1, inner)
		}
		if mlp {
			put(p+"norm2.weight", 0.1, 1, dim)
			put(p+"mlp.fc1.weight", 0.3, 0, 2*10, dim)
			put(p+"mlp.fc2.weight", 0.3, 0, dim, 10)
		}
	}
	return s
}

// models of every kind of block.
func models(t testing.TB) map[string]*Model {
	list := map[string]*Model{}
	for name, s := range checkpoints() {
		list[name] = s.model(t, small)
	}
	return list
}

// checkpoints of every kind of block.
func checkpoints() map[string]state {
	return map[string]state{
		"Mamba-1": random(false, 1, 1),
		"Mamba-2": random(false, 2, 2),
		"hybrid":  random(true, 1, 2, 1),
	}
}

func tokens(seed uint64, n int) []int32 {
	r := rand.New(rand.NewPCG(seed, 2))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(r.IntN(vocab))
	}
	return ids
}

func newState(t testing.TB, m *Model, snapshots int) *State {
	t.Helper()
	st, err := m.NewState(ssm.StateConfig{Snapshots: snapshots})
	must(t, err)
	return st
}

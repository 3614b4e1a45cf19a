package main

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad/attention/transformer"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/weights"
)

// TestCases compares every policy with what two independent programs made of one sequence.
func TestCases(t *testing.T) {
	f, err := weights.Open("testdata/cases.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ints := func(name string) []int64 {
		x, err := f.Tensor(name).Int64()
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	var tokens []int32
	for _, id := range ints("long.ids") {
		tokens = append(tokens, int32(id))
	}
	isatest.Run(t, func(t *testing.T) {
		for _, p := range policies {
			name := "long." + p.name + ".logits"
			if f.Tensor(name) == nil {
				continue
			}
			t.Run(p.name, func(t *testing.T) {
				want, err := f.Tensor(name).Float64()
				if err != nil {
					t.Fatal(err)
				}
				m, err := p.open(len(tokens), 0)
				if err != nil {
					t.Fatal(err)
				}
				var held [][]int64
				got, err := p.answers(t.Context(), m, tokens, func(st *transformer.State) {
					for l := range m.Shape().Layers {
						if s := transformer.Past(st, l); s != nil {
							for g := range m.Shape().KVHeads {
								held = append(held, s.Positions(nil, g))
							}
						}
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				worst := 0.0
				for i, w := range want {
					worst = max(worst, math.Abs(float64(got.Data[i])-w))
				}
				if !(worst <= 1e-3) {
					t.Errorf("logits differ by %.2g", worst)
				}
				name := "long." + p.name + ".selected"
				if f.Tensor(name) == nil {
					return
				}
				heads := m.Shape().Layers * m.Shape().KVHeads
				list := ints(name)
				at, add, count := 0, int64(-1), heads
				switch p.name {
				case "h2o": // before the first answer, and its own token
					at, add = 1, int64(len(tokens)-queryTokens+1)
				case "sirllm":
					at, count = 1, 1
				case "snapkv_yarn_late":
				default:
					return // what is read, not what is held
				}
				each := len(list) / count
				for i := range count {
					want := slices.DeleteFunc(slices.Clone(list[i*each:][:each]), func(x int64) bool { return x < 0 })
					slices.Sort(want)
					got := slices.Clone(held[at*heads+i])
					if add >= 0 {
						got = append(got, add)
					}
					if !slices.Equal(got, want) {
						t.Errorf("head %d holds %d tokens that differ from the %d wanted", i, len(got), len(want))
					}
				}
			})
		}
		// Short sequences, all answers.
		for _, name := range f.Names() {
			short, _, ok := strings.Cut(name, ".logits")
			if !ok || strings.HasPrefix(name, "long.") {
				continue
			}
			ids, at := ints(short+".ids"), ints(short+".answer_pos")
			want, err := f.Tensor(name).Float64()
			if err != nil {
				t.Fatal(err)
			}
			n := len(ids) / 2
			for b := range 2 {
				m, err := policies[0].open(n, 0)
				if err != nil {
					t.Fatal(err)
				}
				var x []int32
				for _, id := range ids[b*n:][:n] {
					x = append(x, int32(id))
				}
				v := m.Shape().Vocab
				logits := matrix(n, v)
				if err := m.Forward(logits, x); err != nil {
					t.Fatal(err)
				}
				for i, p := range at[b*pairs:][:pairs] {
					for j := range v {
						if d := math.Abs(float64(logits.Data[int(p)*v+j]) - want[((b*pairs+i)*v)+j]); !(d <= 1e-3) {
							t.Fatalf("%s: sequence %d, answer %d differs by %.2g", short, b, i, d)
						}
					}
				}
			}
		}
	})
}

package sparse

import (
	"context"
	"errors"
	"math"
	"slices"
	"sort"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
)

// lists returns the lists of a choice.
func lists(c *Choice) (all [][]int32) {
	for i := range c.Lists() {
		all = append(all, c.List(i))
	}
	return all
}

func TestPatterns(t *testing.T) {
	causal := mustBlocks(t, BlocksConfig{Heads: 2, HeadDim: 4, Causal: true, QueryBlock: 4, KeyBlock: 2})
	full := mustBlocks(t, BlocksConfig{Heads: 2, HeadDim: 4, QueryBlock: 4, KeyBlock: 2})
	wide := mustBlocks(t, BlocksConfig{Heads: 2, HeadDim: 4, Causal: true, QueryBlock: 8, KeyBlock: 1})
	for _, x := range []struct {
		name          string
		op            *Blocks
		p             Pattern
		queries, keys int
		want          [][]int32
	}{
		{"nothing", causal, Pattern{}, 8, 8, [][]int32{{}, {}}},
		{"own", causal, Pattern{Window: 1}, 10, 10, [][]int32{{0, 1}, {2, 3}, {4}}},
		{"window", causal, Pattern{Window: 2}, 10, 10, [][]int32{{0, 1}, {1, 2, 3}, {3, 4}}},
		{"window, both sides", full, Pattern{Window: 2}, 10, 10, [][]int32{{0, 1, 2}, {1, 2, 3, 4}, {3, 4}}},
		{"sinks, after a past", causal, Pattern{Window: 1, Keep: 1}, 4, 12, [][]int32{{0, 4, 5}}},
		{"before all keys", causal, Pattern{Window: 1, Keep: 1}, 12, 4, [][]int32{{}, {}, {0, 1}}},
		{"stride", causal, Pattern{Stride: 2}, 8, 8, [][]int32{{1}, {1, 3}}},
		{"all, for each head", causal, Pattern{Share: 1}, 8, 9, [][]int32{{0, 1, 2}, {0, 1, 2}, {0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}}},
		{"last queries", causal, Pattern{Keep: 1, LastQueries: 1}, 12, 12, [][]int32{{0}, {0}, {0, 1, 2, 3, 4, 5}}},
		{"first queries", full, Pattern{Keep: 1, FirstQueries: 1}, 12, 12, [][]int32{{0, 1, 2, 3, 4, 5}, {0}, {0}}},
		{"a sink of queries over many blocks", wide, Pattern{Keep: 1}, 16, 16, [][]int32{{0}, {0}}},
		{"no tokens", causal, Pattern{Window: 1}, 0, 0, nil},
	} {
		var c Choice
		if err := x.op.Choose(&c, x.p, x.queries, x.keys); err != nil {
			t.Fatal(err)
		}
		if got := lists(&c); !slices.EqualFunc(got, x.want, slices.Equal[[]int32]) {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}

// TestDraws: as many as asked for, the same again, others for another seed and head, all
// equally often.
func TestDraws(t *testing.T) {
	b := mustBlocks(t, BlocksConfig{Heads: 2, HeadDim: 4, QueryBlock: 4, KeyBlock: 2})
	draw := func(p Pattern) *Choice {
		var c Choice
		if err := b.Choose(&c, p, 400, 40); err != nil {
			t.Fatal(err)
		}
		return &c
	}
	c := draw(Pattern{Keep: 1, Random: 3, Seed: 1})
	count := make([]int, 20)
	for _, list := range lists(c) {
		if len(list) != 4 || list[0] != 0 {
			t.Fatalf("list %v, want 4 blocks and 0 among them", list)
		}
		for _, x := range list {
			count[x]++
		}
	}
	for x, n := range count[1:] {
		if n < 10 || n > 60 { // of 200 lists, 3 in 19
			t.Errorf("block %d was drawn %d times", x+1, n)
		}
	}
	if !slices.Equal(draw(Pattern{Keep: 1, Random: 3, Seed: 1}).Blocks, c.Blocks) {
		t.Error("other draws with the same seed")
	}
	if slices.Equal(draw(Pattern{Keep: 1, Random: 3, Seed: 2}).Blocks, c.Blocks) {
		t.Error("the same draws with another seed")
	}
	if list := draw(Pattern{Keep: 2, Share: 0.26}).List(0); len(list) != 6 { // 5.2 of 20
		t.Errorf("a share of 0.26 is %v", list)
	}
	if err := b.Choose(c, Pattern{Keep: 1}, 4, 4); !errors.Is(err, ErrCall) {
		t.Errorf("lists for all heads after lists for each: %v", err)
	}
}

// TestTop compares with means in float64; a second sequence goes after the first.
func TestTop(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const top, n, m, d = 3, 50, 70, 8
		b := mustBlocks(t, BlocksConfig{Heads: 4, KVHeads: 2, HeadDim: d, Causal: true, QueryBlock: 8, KeyBlock: 4})
		q, k := matrix(1, n, 4*d), matrix(2, m, 2*d)
		var c Choice
		for range 2 {
			if err := b.ChooseBy(context.Background(), &c, Pattern{TopK: top}, q, k); err != nil {
				t.Fatal(err)
			}
		}
		all := lists(&c)
		if half := len(all) / 2; half != 7*4 || !slices.EqualFunc(all[:half], all[half:], slices.Equal[[]int32]) {
			t.Fatalf("%d lists, want 28 twice", len(all))
		}
		for a := range 7 {
			for h := range 4 {
				last := m - n + min(a*8+8, n) - 1
				var scores []float64
				var order []int32
				for x := range last/4 + 1 {
					s := 0.0
					for i := a * 8; i < min(a*8+8, n); i++ {
						for j := x * 4; j < min(x*4+4, m); j++ {
							s += mattest.Dot(mat.Part(q, i, h*d, d), mat.Part(k, j, h/2*d, d)) / float64(min(x*4+4, m)-x*4)
						}
					}
					scores, order = append(scores, s), append(order, int32(x))
				}
				sort.SliceStable(order, func(i, j int) bool { return scores[order[i]] > scores[order[j]] })
				want := slices.Sorted(slices.Values(order[:min(top, len(order))]))
				if got := c.List(a*4 + h); !slices.Equal(got, want) {
					t.Errorf("block %d, head %d: %v, want %v of %v", a, h, got, want, scores)
				}
			}
		}
	})
}

func TestPatternErrors(t *testing.T) {
	b := mustBlocks(t, BlocksConfig{Heads: 2, HeadDim: 4})
	var c Choice
	for _, p := range []Pattern{{Window: -1}, {Keep: -1}, {Stride: -1}, {Random: -1}, {TopK: -1}, {TopK: 1}, {FirstQueries: -1}, {LastQueries: -1}, {Share: -0.1}, {Share: 1.1}, {Share: math.NaN()}} {
		if err := b.Choose(&c, p, 4, 4); !errors.Is(err, ErrCall) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.ChooseBy(ctx, &c, Pattern{TopK: 1}, matrix(1, 4, 8), matrix(1, 4, 8)); err != context.Canceled || c.Lists() != 0 {
		t.Errorf("a done context: %v, %d lists", err, c.Lists())
	}
}

package sparse

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestScored: scores that are those of means choose what ChooseBy chooses, with windows and draws
// besides, for any number of workers.
func TestScored(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n, m, d, heads, kv, size = 250, 270, 8, 4, 2, 2
		q, k := matrix(1, n, heads*d), matrix(2, m, kv*d)
		for _, causal := range []bool{false, true} {
			for _, p := range []Pattern{{TopK: 3}, {TopK: 2, Window: 1, Random: 2, Seed: 7}, {TopK: 1, FirstQueries: 1, LastQueries: 2}, {TopK: 100}, {TopK: 10, Keep: 1}} {
				for _, workers := range []int{1, 4} {
					b := mustBlocks(t, BlocksConfig{Heads: heads, KVHeads: kv, HeadDim: d, Causal: causal, QueryBlock: size, KeyBlock: 4, Workers: workers})
					qMeans, err := blockMeans(context.Background(), q, size)
					if err != nil {
						t.Fatal(err)
					}
					kMeans, err := blockMeans(context.Background(), k, 4)
					if err != nil {
						t.Fatal(err)
					}
					var want, got Choice
					if err := b.ChooseBy(context.Background(), &want, p, q, k); err != nil {
						t.Fatal(err)
					}
					var calls atomic.Int32
					err = b.ChooseScored(context.Background(), &got, p, n, m, heads, func(scores []float32, block, head int) {
						calls.Add(1)
						seen := kMeans.Rows
						if causal {
							seen = ceil(m-n+min(size*block+size, n), 4)
						}
						if len(scores) != seen || cap(scores) != seen || slices.Max(scores) != 0 || seen <= p.TopK || block < p.FirstQueries || block >= qMeans.Rows-p.LastQueries {
							t.Errorf("asked for %d scores, the largest %v, of block %d, which sees %d", len(scores), slices.Max(scores), block, seen)
						}
						for x := range scores {
							scores[x] = float32(mattest.Dot(mat.Part(qMeans, block, head*d, d), mat.Part(kMeans, x, head/2*d, d)))
						}
					})
					if err != nil {
						t.Fatal(err)
					}
					if got.Heads != want.Heads || !slices.Equal(got.Offsets, want.Offsets) || !slices.Equal(got.Blocks, want.Blocks) {
						t.Errorf("%+v: %v, want %v", p, lists(&got), lists(&want))
					}
					if p.TopK > 20 && calls.Load() != 0 {
						t.Errorf("%d calls where all blocks are chosen", calls.Load())
					}
				}
			}
		}
	})
}

// TestScoredLists: one list for all heads, of equal scores the earlier, no NaN while there are
// numbers; a second sequence goes after the first.
func TestScoredLists(t *testing.T) {
	b := mustBlocks(t, BlocksConfig{Heads: 4, KVHeads: 2, HeadDim: 4, QueryBlock: 4, KeyBlock: 2, Causal: true})
	var c Choice
	for range 2 {
		err := b.ChooseScored(context.Background(), &c, Pattern{TopK: 2, Window: 1}, 8, 8, 1, func(scores []float32, block, head int) {
			if block != 1 || head != 0 || len(scores) != 4 {
				t.Errorf("block %d, head %d, %d scores", block, head, len(scores))
			}
			copy(scores, []float32{-1, -1, nan, -1})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	want := [][]int32{{0, 1}, {0, 1, 2, 3}, {0, 1}, {0, 1, 2, 3}}
	if got := lists(&c); c.Heads != 1 || !slices.EqualFunc(got, want, slices.Equal[[]int32]) {
		t.Errorf("%d heads, lists %v, want %v", c.Heads, got, want)
	}
}

// TestScoredErrors: mistakes, a panic and the end of the context are errors that leave the choice
// as it was.
func TestScoredErrors(t *testing.T) {
	b := mustBlocks(t, BlocksConfig{Heads: 4, KVHeads: 2, HeadDim: 4, QueryBlock: 4, KeyBlock: 2})
	ctx, fine := context.Background(), func([]float32, int, int) {}
	var c Choice
	for name, f := range map[string]func() error{
		"ctx is nil":          func() error { return b.ChooseScored(nil, &c, Pattern{TopK: 1}, 8, 8, 1, fine) }, //nolint:staticcheck
		"score is nil":        func() error { return b.ChooseScored(ctx, &c, Pattern{TopK: 1}, 8, 8, 1, nil) },
		"choice is nil":       func() error { return b.ChooseScored(ctx, nil, Pattern{TopK: 1}, 8, 8, 1, fine) },
		"Pattern.TopK is 0":   func() error { return b.ChooseScored(ctx, &c, Pattern{Keep: 1}, 8, 8, 1, fine) },
		"Pattern.TopK is -1":  func() error { return b.ChooseScored(ctx, &c, Pattern{TopK: -1}, 8, 8, 1, fine) },
		"heads is 3":          func() error { return b.ChooseScored(ctx, &c, Pattern{TopK: 1}, 8, 8, 3, fine) },
		"-1 queries and 8":    func() error { return b.ChooseScored(ctx, &c, Pattern{TopK: 1}, -1, 8, 1, fine) },
		"8 queries and -1":    func() error { return b.ChooseScored(ctx, &c, Pattern{TopK: 1}, 8, -1, 1, fine) },
		"blocks of queries a": func() error { return b.ChooseScored(ctx, &c, Pattern{TopK: 1}, 1<<23, 8, 1, fine) },
	} {
		if err := f(); !errors.Is(err, ErrCall) || !strings.Contains(err.Error(), name) || !strings.HasPrefix(err.Error(), "sparse: ") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	err := b.ChooseScored(ctx, &c, Pattern{TopK: 1}, 8, 8, 1, func(scores []float32, _, _ int) { _ = append(scores, 1)[len(scores)+1] })
	if err == nil || !strings.HasPrefix(err.Error(), "sparse: ") {
		t.Errorf("a panic: error %v", err)
	}
	for left := range 4 {
		ctx := &statetest.Ending{Context: ctx, Left: left}
		if err := b.ChooseScored(ctx, &c, Pattern{TopK: 1}, 8, 8, 1, fine); err != context.Canceled {
			t.Errorf("after %d looks: %v", left, err)
		}
	}
	if c.Lists() != 0 || c.Heads != 0 {
		t.Errorf("%d lists of %d heads after errors", c.Lists(), c.Heads)
	}
	if err := b.ChooseScored(ctx, &c, Pattern{TopK: 1}, 8, 8, 2, fine); err != nil || c.Lists() != 4 || !slices.Equal(c.Blocks, []int32{0, 0, 0, 0}) {
		t.Errorf("error %v, lists %v", err, lists(&c))
	}
}

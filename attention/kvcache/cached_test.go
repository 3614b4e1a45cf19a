package kvcache

import (
	"math"
	"slices"
	"testing"

	"github.com/subquad/subquad/internal/mat"
)

// TestCached (law 10): a similarity of more than 1 is no cache; of -1 the first choice stays,
// but for what the last tokens and Follow add; MaxAge makes it anew; and the report counts.
func TestCached(t *testing.T) {
	const n, dense = 60, 30
	cfg := Config{Heads: 4, KVHeads: 2, HeadDim: 8, Keep: 2, Recent: 5, Chunk: 1, Dense: dense}
	inner := []Selector{TokenSelect{TopK: 6}, Top{TopK: 6, Group: Alone}, Quest{Page: 4, Budget: 12}, Landmarks{Block: 4, TopK: 2}}
	for _, p := range inner {
		cfg.Select = p
		plain := operator(t, cfg)
		x := newText(30, &plain.cfg, n)
		want := x.run(t, plain, newState(t, plain, StateConfig{}), 0, n)
		for _, c := range []struct {
			p    Cached
			made int // choices
		}{
			{Cached{Select: p, Similarity: 1.5}, n - dense},
			{Cached{Select: p, Similarity: -1}, 1},
			{Cached{Select: p, Similarity: -1, Follow: true}, 1},
			{Cached{Select: p, Similarity: -1, MaxAge: 4}, (n - dense + 4) / 5},
		} {
			cfg.Select = c.p
			a := operator(t, cfg)
			s := newState(t, a, StateConfig{})
			s.Trace(true)
			out := x.run(t, a, s, 0, dense)
			made, reused := 0, 0
			var first []int64
			for i := dense; i < n; i++ {
				var report Report
				dst := mat.New(1, want.Cols)
				call := callOf(dst, mat.Rows(x.q, i, i+1), mat.Rows(x.k, i, i+1), mat.Rows(x.v, i, i+1))
				call.State, call.Options = s, &Options{Report: &report}
				must(t, a.Run(t.Context(), call))
				out.Data = append(out.Data, dst.Data...)
				made, reused = made+report.Refreshed, reused+report.Reused
				reads := s.Reads(nil, 0)
				switch {
				case i == dense:
					first = reads
				case c.made == 1:
					// What the first choice read, less what has left the last tokens: all of
					// the middle that is read now was read then.
					old := map[int64]bool{}
					for _, p := range first {
						old[p] = true
					}
					for _, p := range reads {
						if late := p > dense-int64(cfg.Recent); !old[p] && (p <= int64(i-cfg.Recent) && !(c.p.Follow && late)) {
							t.Fatalf("%T, %+v: query %d read %d, not chosen at first", p, c.p, i, p)
						}
					}
				}
			}
			if made != c.made || reused != n-dense-c.made {
				t.Errorf("%+v: %d choices and %d used again, want %d and %d", c.p, made, reused, c.made, n-dense-c.made)
			}
			if out.Rows = n; c.p.Similarity > 1 {
				bitsAgree(t, "no cache", out, want)
			}
		}
	}
	// A query of zeros is like no other.
	cfg.Select = Cached{Select: TokenSelect{TopK: 6}, Similarity: -1}
	a := operator(t, cfg)
	x := newText(31, &a.cfg, n)
	for i := 40; i < n; i++ {
		clear(mat.Row(x.q, i))
	}
	s := newState(t, a, StateConfig{})
	x.run(t, a, s, 0, n)
	if c := s.index.(*cachedIndex); c.hit || !math.IsNaN(c.cosine) {
		t.Errorf("a query of zeros has cosine %v, and uses a choice again: %v", c.cosine, c.hit)
	}
}

// TestCachedLandmarks: of a choice that is used again are the tokens of the block that was
// unfinished when it was made.
func TestCachedLandmarks(t *testing.T) {
	a := operator(t, Config{Heads: 2, HeadDim: 8, Recent: 1, Chunk: 1, Dense: 14, Select: Cached{Select: Landmarks{Block: 4, TopK: 1}, Similarity: -1}})
	x := newText(51, &a.cfg, 16)
	s := newState(t, a, StateConfig{})
	s.Trace(true)
	x.run(t, a, s, 0, 15)
	first := s.Reads(nil, 0)
	x.run(t, a, s, 15, 16)
	if again := s.Reads(nil, 0); len(first) != 7 || !slices.Equal(again[:6], first[:6]) || again[6] != 15 {
		t.Errorf("read %v, then %v: want the same but for the token itself", first, again)
	}
}

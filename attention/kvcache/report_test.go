package kvcache

import (
	"fmt"
	"math"
	"testing"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/rope"
)

// TestSeen (law 6): the share that a policy says it has read is that of all weight, in
// float64, where it looks at every key; RetroInfer, by centroids, says no less.
func TestSeen(t *testing.T) {
	sinks := []float32{0.5, -1, 2, 0, 1, 3}
	for i, c := range []struct {
		p     Selector
		turns bool
		sinks []float32
		least bool
		blind bool
	}{
		{p: Top{TopK: 12}}, {p: Top{TopK: 12, Group: Alone}, turns: true}, {p: Top{TopK: 12, Group: GroupMax}, sinks: sinks},
		{p: TokenSelect{TopK: 12}, turns: true}, {p: TokenSelect{TopK: 12, Kernel: 3}},
		{p: RetroInfer{Segment: 32, Read: .2, Estimate: .3}, turns: true, least: true},
		{p: Window{}, blind: true}, {p: Landmarks{Block: 4, TopK: 2}, blind: true},
	} {
		t.Run(fmt.Sprintf("%d %T", i, c.p), func(t *testing.T) {
			cfg := Config{Heads: 6, KVHeads: 2, HeadDim: 8, Keep: 2, Recent: 5, Chunk: 1, Select: c.p, Sinks: c.sinks}
			if c.turns {
				cfg.Rotation = &rope.Config{HeadDim: 8}
			}
			a := operator(t, cfg)
			const n = 150
			x := newText(29, &a.cfg, n)
			s := newState(t, a, StateConfig{})
			x.run(t, a, s, 0, n-1)
			s.Trace(true)
			var report Report
			call := callOf(mat.New(1, 48), mat.Rows(x.q, n-1, n), mat.Rows(x.k, n-1, n), mat.Rows(x.v, n-1, n))
			call.State, call.Options = s, &Options{Report: &report}
			must(t, a.Run(t.Context(), call))
			if c.blind {
				if !math.IsNaN(report.Seen) || report.Missing != 1 || !math.IsInf(report.Error, 1) {
					t.Errorf("%+v", report)
				}
				return
			}
			want := 1.0
			for h := range 6 {
				read := map[int64]bool{}
				for _, p := range s.Reads(nil, h) {
					read[p] = true
				}
				all, seen := 0.0, 0.0
				if c.sinks != nil {
					all = math.Exp(float64(c.sinks[h]))
					seen = all
				}
				for j := range n {
					q, k := mat.Part(x.q, n-1, h*8, 8), mat.Part(x.k, j, h/3*8, 8)
					distance := 0.0
					if c.turns {
						distance = float64(n - 1 - j)
					}
					e := math.Exp(turnedProduct(q, k, distance) / math.Sqrt(8))
					if all += e; read[int64(j)] {
						seen += e
					}
				}
				want = min(want, seen/all)
			}
			switch {
			case c.least && (report.Seen < want-1e-5 || report.Seen > want+0.3):
				t.Errorf("Seen is %v, of %v", report.Seen, want)
			case !c.least && math.Abs(report.Seen-want) > 1e-5:
				t.Errorf("Seen is %v, want %v", report.Seen, want)
			}
		})
	}
}

// TestQuestBounds: what Quest says is missing at most holds, in float64, for keys of all
// kinds, and says something where neighbours are alike.
func TestQuestBounds(t *testing.T) {
	const n, dim = 200, 16
	for _, group := range []GroupChoice{GroupSum, GroupMax, Alone} {
		a := operator(t, Config{Heads: 4, KVHeads: 2, HeadDim: dim, Keep: 2, Recent: 5, Chunk: 1, Select: Quest{Page: 4, Budget: 40, Group: group}})
		for name, change := range map[string]func(x *lawText){
			"normal": func(*lawText) {},
			"alike": func(x *lawText) {
				for i := range n {
					for j := range mat.Row(x.k, i) {
						mat.Row(x.k, i)[j] = float32(math.Sin(float64(i/4*j))) * 3
					}
				}
			},
			"large": func(x *lawText) {
				for i := range x.k.Data {
					x.k.Data[i] *= 1e4
				}
			},
			"equal": func(x *lawText) {
				for i := range n {
					copy(mat.Row(x.k, i), mat.Row(x.k, 0))
				}
			},
			"tiny": func(x *lawText) {
				for i := range x.k.Data {
					x.k.Data[i] *= 1e-38
				}
			},
		} {
			x := newText(39, &a.cfg, n)
			change(&x)
			s := newState(t, a, StateConfig{})
			x.run(t, a, s, 0, n-1)
			s.Trace(true)
			var report Report
			call := callOf(mat.New(1, 4*dim), mat.Rows(x.q, n-1, n), mat.Rows(x.k, n-1, n), mat.Rows(x.v, n-1, n))
			call.State, call.Options = s, &Options{Report: &report}
			must(t, a.Run(t.Context(), call))
			missing := 0.0
			for h := range 4 {
				read := map[int64]bool{}
				for _, p := range s.Reads(nil, h) {
					read[p] = true
				}
				top, logits := math.Inf(-1), [n]float64{}
				for j := range n {
					logits[j] = dot64(mat.Part(x.q, n-1, h*dim, dim), mat.Part(x.k, j, h/2*dim, dim)) / math.Sqrt(dim)
					top = max(top, logits[j])
				}
				all, rest := 0.0, 0.0
				for j, l := range logits {
					if all += math.Exp(l - top); !read[int64(j)] {
						rest += math.Exp(l - top)
					}
				}
				missing = max(missing, rest/all)
			}
			if !(missing <= report.Missing && report.Missing <= 1) || report.Seen != 1-report.Missing {
				t.Errorf("%s, Group %d: %v is missing, Missing is %v, Seen %v", name, group, missing, report.Missing, report.Seen)
			}
			if name == "equal" && report.Missing > missing+5e-3 || name == "alike" && group == Alone && report.Missing > .9 {
				t.Errorf("%s, Group %d: %v is missing, Missing is %v", name, group, missing, report.Missing)
			}
		}
	}
}

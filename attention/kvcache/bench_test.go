package kvcache

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/needles"
)

// BenchmarkStep is a step of one token after n others, by policies that look at a long past,
// in turns with the library's exact step over the same float32 keys and values, on one core.
// ms and exact-ms are the fastest of each; error is the median over 16 queries for needles
// and all heads, recall the share of them after which the next needle's code is found, MB
// what a step reads. 1,048,576 tokens take 11 GB; with -short there are 16,384.
func BenchmarkStep(b *testing.B) {
	sizes := []int{1 << 16, 1 << 18, 1 << 20}
	if testing.Short() {
		sizes = []int{1 << 14}
	}
	for _, n := range sizes {
		var x *needleText // made for the first that is asked for
		for _, c := range []struct {
			name   string
			policy Selector
		}{
			{"Shadow8", Shadow{}},
			{"Shadow4", Shadow{Bits: 4}},
			{"Quest", Quest{Budget: 2048}},
			{"QuestAlone", Quest{Budget: 2048, Group: Alone}},
			{"Top", Top{Tokens: 2048}},
			{"TokenSelect", TokenSelect{Tokens: 2048}},
			{"Cached", Cached{Select: TokenSelect{Tokens: 2048}, Similarity: 0.9}},
			{"Landmarks", Landmarks{Block: 64, Blocks: 32}},
			{"Window", Window{}},
		} {
			b.Run(fmt.Sprintf("%s/h=%d/kv=%d/d=%d/n=%d", c.name, benchHeads, benchKV, benchDim, n), func(b *testing.B) {
				if x == nil {
					x = newNeedles(b, n)
				}
				x.run(b, c.policy)
			})
		}
	}
}

const benchHeads, benchKV, benchDim = 32, 8, 128

// needleText is a state full of needles, and queries for them.
type needleText struct {
	n         int
	text      *needles.Text
	heads     []*attention.State
	past      []attention.Past
	exact     *attention.Attention
	q, k, v   blas32.General
	dst, want blas32.General
}

func newNeedles(b *testing.B, n int) *needleText {
	const group = benchHeads / benchKV
	x := &needleText{n: n, dst: mat.New(1, benchHeads*benchDim), want: mat.New(1, benchHeads*benchDim), q: mat.New(16, benchHeads*benchDim)}
	x.text = needles.New(needles.Config{
		Seed: 1, Tokens: n, Dim: benchDim, Group: group, Sigma: 3, Mass: .9, Threads: 4, Hops: 4, Width: 1, Topic: .7, Segment: 64, RetrievalHeads: group,
	})
	x.k, x.v = normalMatrix(3, 1, benchKV*benchDim), normalMatrix(4, 1, benchKV*benchDim)
	for i := range 16 {
		one := make([]float32, group*benchDim)
		x.text.Query(one, i)
		for g := range benchKV {
			copy(mat.Row(x.q, i)[g*len(one):], one)
		}
	}
	a, err := New(Config{Heads: benchHeads, KVHeads: benchKV, HeadDim: benchDim})
	must(b, err)
	s := newState(b, a, StateConfig{MaxTokens: n + 1})
	const piece = 1 << 12
	k, v := mat.New(piece, benchDim), mat.New(piece, benchDim)
	for at := 0; at < n; at += piece {
		x.text.Fill(k, v, at)
		for _, st := range s.heads { // the same keys, at different places of memory
			must(b, st.Append(k, v))
		}
	}
	x.heads = s.heads
	for _, st := range s.heads {
		x.past = append(x.past, st)
	}
	x.exact, err = attention.New(attention.Config{Heads: group, KVHeads: 1, HeadDim: benchDim, Causal: true})
	must(b, err)
	return x
}

// whole is the exact step of query i.
func (x *needleText) whole(b *testing.B, i int) {
	must(b, x.exact.Run(context.Background(), &attention.Call{
		States: x.past, Dst: mat.Of(x.want.Data, benchKV, benchHeads/benchKV*benchDim), Q: mat.Of(mat.Row(x.q, i%16), benchKV, benchHeads/benchKV*benchDim), Workers: 1,
	}))
}

func (x *needleText) run(b *testing.B, policy Selector) {
	a, err := New(Config{Heads: benchHeads, KVHeads: benchKV, HeadDim: benchDim, Keep: 4, Recent: 256, Select: policy})
	must(b, err)
	s := newState(b, a, StateConfig{})
	s.heads, s.n = x.heads, x.n
	switch index := s.index.(type) { // what an index would know by now
	case *questIndex:
		index.load(nil, s)
	case *landmarkIndex:
		index.extend(s, whole(benchDim, a.tile.Unit()))
	}
	step := func(i int, report *Report) {
		c := &attention.Call{State: s, Dst: x.dst, Q: mat.Rows(x.q, i%16, i%16+1), K: []blas32.General{x.k}, V: []blas32.General{x.v}, Workers: 1}
		if report != nil {
			c.Options = &Options{Report: report}
		}
		must(b, a.Run(context.Background(), c))
		must(b, s.Truncate(x.n))
	}
	step(0, nil)
	least := [2]time.Duration{math.MaxInt64, math.MaxInt64}
	i := 0
	for b.Loop() {
		start := time.Now()
		step(i, nil)
		least[0] = min(least[0], time.Since(start))
		b.StopTimer()
		start = time.Now()
		x.whole(b, i)
		least[1] = min(least[1], time.Since(start))
		b.StartTimer()
		i++
	}
	b.StopTimer()
	b.ReportMetric(float64(least[0])/1e6, "ms")
	b.ReportMetric(float64(least[1])/1e6, "exact-ms")
	b.ReportMetric(float64(least[1])/float64(least[0]), "times-exact")
	var off []float64
	right, report := 0, Report{}
	for i := range 16 {
		x.whole(b, i)
		step(i, &report)
		for h := range benchHeads {
			want := make([]float64, benchDim)
			for c, y := range x.want.Data[h*benchDim:][:benchDim] {
				want[c] = float64(y)
			}
			d, length := distance(x.dst.Data[h*benchDim:][:benchDim], want)
			off = append(off, d/length)
		}
		group := benchHeads / benchKV * benchDim
		if x.text.Decode(x.dst.Data[:group]) == x.text.Decode(x.want.Data[:group]) {
			right++
		}
	}
	slices.Sort(off)
	b.ReportMetric(off[len(off)/2], "error")
	b.ReportMetric(float64(right)/16, "recall")
	b.ReportMetric(float64(report.Bytes+report.Index)/1e6, "MB")
}

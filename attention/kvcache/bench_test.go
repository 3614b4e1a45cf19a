package kvcache

import (
	"context"
	"errors"
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
	shape := benchShape{32, 8, 128}
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
			{"Top", Top{TopK: 2048}},
			{"TokenSelect", TokenSelect{TopK: 2048}},
			{"TokenSelect8", TokenSelect{TopK: 2048, Bits: 8}},
			{"Cached", Cached{Select: TokenSelect{TopK: 2048}, Similarity: 0.9}},     // no two queries are alike
			{"CachedAgain", Cached{Select: TokenSelect{TopK: 2048}, Similarity: -1}}, // all are: one needle's choice for all
			{"Landmarks", Landmarks{Block: 64, TopK: 32}},
			{"Window", Window{}},
		} {
			b.Run(fmt.Sprintf("%s/h=%d/kv=%d/d=%d/n=%d", c.name, shape.heads, shape.kv, shape.dim, n), func(b *testing.B) {
				if x == nil {
					x = newNeedles(b, shape, n, false)
				}
				x.run(b, c.policy)
			})
		}
	}
}

// BenchmarkMillion is BenchmarkStep after 1,048,576 tokens in a gigabyte: 8 heads over 2 key
// heads of 64, on the heap, or in pages of a file, of which a selector leaves most untouched.
// With -short there are 16,384.
func BenchmarkMillion(b *testing.B) {
	n, shape := 1<<20, benchShape{8, 2, 64}
	if testing.Short() {
		n = 1 << 14
	}
	for _, place := range []string{"heap", "file"} {
		var x *needleText
		for _, c := range []struct {
			name   string
			policy Selector
		}{
			{"Shadow8", Shadow{}},
			{"Quest", Quest{Budget: 2048}},
			{"TokenSelect", TokenSelect{TopK: 2048}},
			{"TokenSelect8", TokenSelect{TopK: 2048, Bits: 8}},
			{"Landmarks", Landmarks{Block: 64, TopK: 32}},
			{"Window", Window{}},
		} {
			b.Run(fmt.Sprintf("%s/%s/h=%d/kv=%d/d=%d/n=%d", place, c.name, shape.heads, shape.kv, shape.dim, n), func(b *testing.B) {
				if x == nil {
					x = newNeedles(b, shape, n, place == "file")
				}
				x.run(b, c.policy)
			})
		}
	}
}

// benchMore is how many tokens come before a state goes back.
const benchMore = 16

// benchShape is query heads, key heads, and their width.
type benchShape struct{ heads, kv, dim int }

// pages returns a pool in a file, whose memory is the system's to take back, or none.
func (x *needleText) pages(b *testing.B, a *Attention, filed bool) *attention.Pages {
	if !filed {
		return nil
	}
	p, err := a.NewPages(attention.PagesConfig{PageTokens: 1024, Folder: b.TempDir()})
	if errors.Is(err, errors.ErrUnsupported) {
		b.Skip(err)
	}
	must(b, err)
	return p
}

// needleText is a state full of needles, and queries for them.
type needleText struct {
	benchShape
	n         int
	text      *needles.Text
	states    []*attention.State
	past      []attention.Past
	exact     *attention.Attention
	q, k, v   blas32.General
	dst, want blas32.General
}

func newNeedles(b *testing.B, shape benchShape, n int, filed bool) *needleText {
	group := shape.heads / shape.kv
	x := &needleText{benchShape: shape, n: n, dst: mat.New(1, shape.heads*shape.dim), want: mat.New(1, shape.heads*shape.dim), q: mat.New(16, shape.heads*shape.dim)}
	x.text = needles.New(needles.Config{
		Seed: 1, Tokens: n, Dim: x.dim, Group: group, Sigma: 3, Mass: .9, Threads: 4, Hops: 4, Width: 1, Topic: .7, Segment: 64, RetrievalHeads: group,
	})
	x.k, x.v = normalMatrix(3, 1, x.kv*x.dim), normalMatrix(4, 1, x.kv*x.dim)
	for i := range 16 {
		one := make([]float32, group*x.dim)
		x.text.Query(one, i)
		for g := range x.kv {
			copy(mat.Row(x.q, i)[g*len(one):], one)
		}
	}
	a, err := New(Config{Heads: x.benchShape.heads, KVHeads: x.kv, HeadDim: x.dim})
	must(b, err)
	cfg := StateConfig{Pages: x.pages(b, a, filed)}
	if cfg.Pages == nil {
		cfg.MaxTokens = n + benchMore + 1
	}
	s := newState(b, a, cfg)
	const piece = 1 << 12
	k, v := mat.New(piece, x.dim), mat.New(piece, x.dim)
	for at := 0; at < n; at += piece {
		x.text.Fill(k, v, at)
		for _, st := range s.heads { // the same keys, at different places of memory
			must(b, st.Append(k, v))
		}
	}
	x.states = s.heads
	for _, st := range s.heads {
		x.past = append(x.past, st)
	}
	x.exact, err = attention.New(attention.Config{Heads: group, KVHeads: 1, HeadDim: x.dim, Causal: true})
	must(b, err)
	return x
}

// whole is the exact step of query i.
func (x *needleText) whole(b *testing.B, i int) {
	must(b, x.exact.Run(context.Background(), &attention.Call{
		States: x.past, Dst: mat.Of(x.want.Data, x.kv, x.benchShape.heads/x.kv*x.dim), Q: mat.Of(mat.Row(x.q, i%16), x.kv, x.benchShape.heads/x.kv*x.dim), Workers: 1,
	}))
}

func (x *needleText) run(b *testing.B, policy Selector) {
	a, err := New(Config{Heads: x.benchShape.heads, KVHeads: x.kv, HeadDim: x.dim, Keep: 4, Recent: 256, Select: policy})
	must(b, err)
	s := newState(b, a, StateConfig{})
	s.heads, s.n = x.states, x.n
	switch index := s.index.(type) { // what an index would know by now
	case *questIndex:
		index.load(nil, s)
	case *landmarkIndex:
		index.extend(s)
	}
	step := func(i int, report *Report) {
		c := &attention.Call{State: s, Dst: x.dst, Q: mat.Rows(x.q, i%16, i%16+1), K: []blas32.General{x.k}, V: []blas32.General{x.v}, Workers: 1}
		if report != nil {
			c.Options = &Options{Report: report}
		}
		must(b, a.Run(context.Background(), c))
		if _, cached := s.index.(*cachedIndex); !cached || s.n == x.n+benchMore { // whose choice would go with its token
			must(b, s.Truncate(x.n))
		}
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
		for h := range x.benchShape.heads {
			want := make([]float64, x.dim)
			for c, y := range x.want.Data[h*x.dim:][:x.dim] {
				want[c] = float64(y)
			}
			d, length := distance(x.dst.Data[h*x.dim:][:x.dim], want)
			off = append(off, d/length)
		}
		group := x.benchShape.heads / x.kv * x.dim
		if x.text.Decode(x.dst.Data[:group]) == x.text.Decode(x.want.Data[:group]) {
			right++
		}
	}
	slices.Sort(off)
	b.ReportMetric(off[len(off)/2], "error")
	b.ReportMetric(float64(right)/16, "recall")
	b.ReportMetric(float64(report.Bytes+report.Index)/1e6, "MB")
	must(b, s.Truncate(x.n))
}

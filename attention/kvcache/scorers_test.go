package kvcache

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/subquad/subquad/attention"
	imat "github.com/subquad/subquad/internal/mat"
)

// shown shows random keys, values and queries of two key heads to a scorer.
func shown(n int) *Observation {
	cfg := &Config{Heads: 4, KVHeads: 2, HeadDim: 6, ValueDim: 6, Scale: 0.4}
	x := newText(20, cfg, n)
	o := &Observation{cfg: cfg, Queries: x.q}
	for g := range 2 {
		o.keys = append(o.keys, imat.Columns(x.k, g*6, 6))
		o.values = append(o.values, imat.Columns(x.v, g*6, 6))
	}
	return o
}

// TestLeverage: scores are the diagonal of a projection: with few enough features, whatever
// the sketch, that of the keys themselves.
func TestLeverage(t *testing.T) {
	o := shown(40)
	k := o.Keys(0)
	centred := mat.NewDense(40, 6, nil)
	for j := range 6 {
		mean := 0.0
		for i := range 40 {
			mean += float64(imat.Row(k, i)[j]) / 40
		}
		for i := range 40 {
			centred.Set(i, j, float64(imat.Row(k, i)[j])-mean)
		}
	}
	var gram, inverse, hat mat.Dense
	gram.Mul(centred.T(), centred)
	if err := inverse.Inverse(&gram); err != nil {
		t.Fatal(err)
	}
	hat.Product(centred, &inverse, centred.T())
	got := make([]float32, 40)
	o.leverage(got, k)
	for i, x := range got {
		if math.Abs(float64(x)-hat.At(i, i)) > 0.02 { // of the jitter
			t.Errorf("token %d: %v, want %v", i, x, hat.At(i, i))
		}
	}
}

// TestExpectedAttention: without a spread of queries it is the softmax of one query.
func TestExpectedAttention(t *testing.T) {
	o := shown(30)
	for i := range o.Queries.Rows {
		copy(imat.Row(o.Queries, i), imat.Row(o.Queries, 0))
	}
	got := scoresOf(t, ExpectedAttention{}, o)
	one := *o
	one.Queries = imat.Rows(o.Queries, 0, 1)
	p := windowWeights(&one, 1)
	for g := range got {
		for i := sinkTokens; i < 30; i++ {
			want := (imat.Row(p[2*g], 0)[i] + imat.Row(p[2*g+1], 0)[i]) / 2 * norm(imat.Row(o.Values(g), i))
			if math.Abs(float64(got[g][i]-want)) > 1e-5 {
				t.Fatalf("head %d, token %d: %v, want %v", g, i, got[g][i], want)
			}
		}
	}
}

// TestCUR: scores of whole stretches add up, whatever the scale of keys and values.
func TestCUR(t *testing.T) {
	o := shown(48)
	a := scoresOf(t, CUR{}, o)
	for g := range o.keys {
		for i := range o.keys[g].Rows {
			for j := range imat.Row(o.keys[g], i) {
				imat.Row(o.keys[g], i)[j] *= 3
			}
		}
	}
	b := scoresOf(t, CUR{}, o)
	for g := range a {
		for i := range a[g] {
			if math.Abs(float64(a[g][i]-b[g][i])) > 1e-6 {
				t.Fatalf("head %d, token %d: %v, scaled %v", g, i, a[g][i], b[g][i])
			}
		}
	}
}

// TestBlockOfKnorm: scores that look at one token only choose the same block after block.
func TestBlockOfKnorm(t *testing.T) {
	o := shown(50)
	norms := scoresOf(t, Knorm{}, o)
	for g := range norms {
		got := Block{Evict: Knorm{}, Length: 7}.pick(nil, o, g, make([]float32, 50), 20)
		if want := best(nil, norms[g], 20); !slices.Equal(got, want) {
			t.Errorf("head %d: %v, want %v", g, got, want)
		}
	}
}

// TestBudgets (law 11): budgets of heads add up, each has its share, and memory falls.
func TestBudgets(t *testing.T) {
	a := operator(t, Config{Heads: 4, KVHeads: 4, HeadDim: 8, Evict: AdaKV{Evict: Knorm{Budget: 40}}})
	p, err := a.NewPages(attention.PagesConfig{PageTokens: 4})
	must(t, err)
	s := newState(t, a, StateConfig{Pages: p})
	x := newText(21, &a.cfg, 200)
	for i := range 200 { // keys of one head are long
		for j := range 8 {
			imat.Row(x.k, i)[j] *= 4
		}
	}
	x.run(t, a, s, 0, 200)
	before := p.Used()
	must(t, s.Compact(0))
	sum := 0
	for g := range 4 {
		sum += s.Held(g)
		if s.Held(g) < 8 {
			t.Errorf("head %d holds %d tokens, want at least 8", g, s.Held(g))
		}
	}
	if sum != 160 || s.Held(0) == s.Held(1) {
		t.Errorf("heads hold %d, %d, %d and %d tokens, want 160 in all and not the same", s.Held(0), s.Held(1), s.Held(2), s.Held(3))
	}
	if after := p.Used(); after > (160+4*4)/4 || after >= before {
		t.Errorf("%d pages, before %d", after, before)
	}
	sum = 0
	for _, n := range PyramidBudgets(8, 1<<20, 128, 8, 0) {
		sum += n
	}
	if want := 8 * 120; sum < want-8*8 || sum > want+8*8 {
		t.Errorf("a pyramid of %d tokens, want about %d", sum, want)
	}
}

// TestReport (law 13): tokens and bytes are those that were read.
func TestReport(t *testing.T) {
	const n, page = 400, 16
	a := operator(t, Config{Heads: 8, KVHeads: 2, HeadDim: 16, Select: Quest{Page: page, Budget: 64}, Dense: n - 1, Chunk: 1})
	s := newState(t, a, StateConfig{})
	x := newText(22, &a.cfg, n)
	x.run(t, a, s, 0, n-1)
	var r Report
	c := callOf(imat.New(1, 128), imat.Rows(x.q, n-1, n), imat.Rows(x.k, n-1, n), imat.Rows(x.v, n-1, n))
	c.State, c.Options = s, &Options{Report: &r}
	must(t, a.Run(t.Context(), c))
	pages := n / page
	if want := int64(2 * 4 * page); r.Tokens != want || r.Bytes != want*2*16*4 || r.Held != 2*n || r.Index != int64(pages-1)*2*2*16*4 {
		t.Errorf("read %d tokens of %d, %d bytes and %d of the index", r.Tokens, r.Held, r.Bytes, r.Index)
	}
}

package merge

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

func random(seed uint64, rows, cols int) blas32.General {
	rng := rand.New(rand.NewPCG(seed, 1))
	m := mat.New(rows, cols)
	for i := range m.Data {
		m.Data[i] = float32(rng.NormFloat64())
	}
	return m
}

func sizes(seed uint64, n int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 2))
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(1 + rng.IntN(5))
	}
	return s
}

// matchers are one of each method, for n tokens, with a number of tokens to merge away.
func matchers(n int) []Config {
	return []Config{
		{}, {Order: Published}, {ClassToken: true}, {ClassToken: true, Order: Published},
		{ClassToken: true, DistillToken: true, Order: Published},
		{Method: Local}, {Method: Local, Window: 2}, {Method: Local, Window: 7}, {Method: Local, Window: n + 1},
		{Method: KTh, Every: 3}, {Method: KTh, Every: 3, Order: Published},
		{Method: Grid, Height: max(n/7, 1), Width: 7}, {Method: Grid, Height: max(n/7, 1), Width: 7, CellHeight: 3, CellWidth: 2, Order: Published},
	}
}

// TestLaws: sums and size-weighted means are conserved, unmerge of merge is constant on
// clusters, and nothing merges for r = 0.
func TestLaws(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, n := range []int{0, 1, 2, 3, 7, 28, 98, 301} {
			for i, cfg := range matchers(n) {
				if cfg.Method == Grid && n%7 != 0 || n == 0 && cfg.Method == Grid {
					continue
				}
				m := newMatcher(t, cfg)
				metric, x, size := random(uint64(n), n, 12), random(uint64(n)+1, n, 5), sizes(uint64(n), n)
				var p Plan
				c := Call{Plan: &p, Metric: metric, R: n / 3, AtMost: true}
				if cfg.Method == KTh {
					c.R = 0
				}
				must(t, m.Run(context.Background(), &c))
				if cfg.Method != KTh && n-p.Len() > n/3 {
					t.Fatalf("%d: %d of %d tokens merged away", i, n-p.Len(), n)
				}
				laws(t, &p, x, size)
				c.R = 0
				if cfg.Method == KTh {
					continue
				}
				must(t, m.Run(context.Background(), &c))
				out := mat.New(n, x.Cols)
				must(t, p.Apply(out, x, Mean))
				if p.Len() != n || !slices.Equal(out.Data, x.Data) {
					t.Fatalf("%d: r = 0 is not the identity", i)
				}
			}
		}
	})
}

func laws(t *testing.T, p *Plan, x blas32.General, size []float32) {
	t.Helper()
	out, back, total := mat.New(p.Len(), x.Cols), mat.New(p.Tokens(), x.Cols), make([]float32, p.Len())
	sum := func(m blas32.General, s []float32) (sums []float64) {
		sums = make([]float64, m.Cols)
		for i := range m.Rows {
			w := 1.0
			if s != nil {
				w = float64(s[i])
			}
			for c := range sums {
				sums[c] += w * float64(m.Data[i*m.Stride+c])
			}
		}
		return sums
	}
	near := func(what string, got, want []float64) {
		t.Helper()
		for c := range want {
			if math.Abs(got[c]-want[c]) > 1e-4*(1+math.Abs(want[c])) {
				t.Fatalf("%s: %v, want %v", what, got, want)
			}
		}
	}
	must(t, p.Apply(out, x, Sum))
	near("sum", sum(out, nil), sum(x, nil))
	must(t, p.ApplyWeighted(out, x, total, size))
	near("size-weighted mean", sum(out, total), sum(x, size))
	must(t, p.Unmerge(back, out))
	counts := make([]int32, p.Len())
	for i, j := range p.Map() {
		counts[j]++
		if !slices.Equal(mat.Row(back, i), mat.Row(out, int(j))) {
			t.Fatalf("token %d is not a copy of its merged token", i)
		}
	}
	if !slices.Equal(counts, p.Counts()) {
		t.Fatalf("counts %v, want %v", p.Counts(), counts)
	}
	for j, k := range p.Kept() {
		if int(p.Map()[k]) != j {
			t.Fatalf("merged token %d has the place of token %d, which is not its own", j, k)
		}
		members := slices.Collect(p.Members(j))
		if len(members) != int(counts[j]) || members[0] != int(p.First()[j]) || !slices.IsSorted(members) {
			t.Fatalf("merged token %d has members %v", j, members)
		}
	}
}

// TestCompose: two plans in turn are their composition.
func TestCompose(t *testing.T) {
	m := newMatcher(t, Config{Order: Published})
	x, size := random(1, 101, 6), sizes(1, 101)
	var all, first, second Plan
	must(t, all.SetIdentity(101))
	metric, sz := x, size
	for range 4 {
		must(t, m.Match(&second, metric, metric.Rows/4))
		must(t, first.Compose(&all, &second))
		must(t, all.Compose(&all, &second))
		if !slices.Equal(all.Map(), first.Map()) || !slices.Equal(all.Kept(), first.Kept()) || !slices.Equal(all.Counts(), first.Counts()) {
			t.Fatal("composing into the first plan gives another one")
		}
		out, total := mat.New(second.Len(), x.Cols), make([]float32, second.Len())
		must(t, second.ApplyWeighted(out, metric, total, sz))
		metric, sz = out, total
	}
	out, total := mat.New(all.Len(), x.Cols), make([]float32, all.Len())
	must(t, all.ApplyWeighted(out, x, total, size))
	for i, v := range out.Data {
		if d := math.Abs(float64(v - metric.Data[i])); d > 1e-5 {
			t.Fatalf("element %d is %v, in turn %v", i, v, metric.Data[i])
		}
	}
	if !slices.Equal(total, sz) {
		t.Errorf("sizes %v, in turn %v", total, sz)
	}
	var other Plan
	must(t, other.SetIdentity(3))
	if err := all.Compose(&all, &other); !errors.Is(err, ErrShape) {
		t.Errorf("error %v", err)
	}
}

// TestSetKeep packs and puts back.
func TestSetKeep(t *testing.T) {
	var p Plan
	must(t, p.SetKeep([]bool{true, false, true, true, false}))
	x := random(1, 5, 3)
	out, back := mat.New(3, 3), random(2, 5, 3)
	must(t, p.Apply(out, x, Mean))
	must(t, p.Unmerge(back, out))
	for i, k := range []bool{true, false, true, true, false} {
		want := mat.Row(x, i)
		if !k {
			want = make([]float32, 3)
		}
		if !slices.Equal(mat.Row(back, i), want) {
			t.Errorf("row %d is %v, want %v", i, mat.Row(back, i), want)
		}
	}
}

// TestSetMap takes clusters, and says what is wrong with others.
func TestSetMap(t *testing.T) {
	var p Plan
	must(t, p.SetMap([]int32{1, 0, -1, 1}, 2))
	if !slices.Equal(p.Counts(), []int32{1, 2}) || !slices.Equal(p.Kept(), []int32{1, 0}) {
		t.Errorf("counts %v, kept %v", p.Counts(), p.Kept())
	}
	for _, bad := range []struct {
		index  []int32
		merged int
	}{{[]int32{0, 2}, 2}, {[]int32{0, -2}, 1}, {[]int32{0, 0}, 2}, {[]int32{0}, -1}, {nil, 1}} {
		if err := p.SetMap(bad.index, bad.merged); !errors.Is(err, ErrShape) {
			t.Errorf("%v of %d: error %v", bad.index, bad.merged, err)
		}
	}
	if p.Len() != 2 {
		t.Error("an error changed the plan")
	}
}

// TestApplyErrors: bad input is an error that says what is wrong, and nothing is written.
func TestApplyErrors(t *testing.T) {
	var p Plan
	must(t, p.SetMap([]int32{0, 0, 1, 1}, 2))
	x, out := random(1, 4, 3), mat.New(2, 3)
	total, size := make([]float32, 2), []float32{1, 1, 1, 1}
	for _, c := range []struct {
		err  error
		kind error
		text string
	}{
		{p.Apply(out, random(1, 5, 3), Mean), ErrShape, "the matrix has 5 rows, want the plan's Tokens = 4"},
		{p.Apply(mat.New(3, 3), x, Mean), ErrShape, "dst has 3 rows, want the plan's Len = 2"},
		{p.Apply(mat.New(2, 4), x, Mean), ErrShape, "dst has 4 columns, want the matrix's columns = 3"},
		{p.Apply(mat.Of(x.Data, 2, 3), x, Mean), ErrShape, "shares elements"},
		{p.Apply(out, x, Mode(9)), ErrCall, "mode 9"},
		{p.ApplyWeighted(out, x, total, []float32{1, 1, 0, 1}), ErrCall, "size[2] is 0, want a positive number"},
		{p.ApplyWeighted(out, x, total, []float32{1, -1, 1, 1}), ErrCall, "size[1] is -1"},
		{p.ApplyWeighted(out, x, total, []float32{1, 1, 1, float32(math.NaN())}), ErrCall, "size[3] is NaN"},
		{p.ApplyWeighted(out, x, total[:1], size), ErrShape, "total has 1 elements"},
		{p.ApplyWeighted(out, x, total, size[:3]), ErrShape, "size has 3 elements"},
		{p.Unmerge(mat.New(4, 3), mat.New(3, 3)), ErrShape, "the matrix has 3 rows, want the plan's Len = 2"},
		{p.ApplyMask(make([]bool, 2), make([]bool, 3)), ErrShape, "mask 3 elements"},
		{p.ApplyPositions(make([]float64, 2), make([]int64, 3), Mean, nil), ErrShape, "positions has 3 elements"},
		{p.ApplyPositions(make([]float64, 2), make([]int64, 4), Sum, nil), ErrCall, "mode sum"},
		{p.SetIdentity(-1), ErrShape, "-1 tokens"},
	} {
		if !errors.Is(c.err, c.kind) || !strings.Contains(c.err.Error(), c.text) {
			t.Errorf("error %v, want %q", c.err, c.text)
		}
	}
	if slices.ContainsFunc(out.Data, func(v float32) bool { return v != 0 }) {
		t.Error("a failed call wrote")
	}
}

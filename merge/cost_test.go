package merge

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// vit is a vision transformer's layer of exact attention.
func vit(dim, layers int) Workload {
	d := float64(dim)
	return Workload{Dim: dim, Layers: layers, PairFlop: 4 * d, TokenFlop: 24 * d * d}
}

// TestEstimate: what is known to pay pays and what is known not to does not, in every
// tier, and a call heeds it.
func TestEstimate(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		bipartite, local := newMatcher(t, Config{}), newMatcher(t, Config{Method: Local})
		for _, c := range []struct {
			what   string
			m      *Matcher
			tokens int
			r      int
			w      Workload
			pays   bool
		}{
			{"ViT-L at 384, twelve layers left", bipartite, 577, 23, vit(1024, 12), true},
			{"no layer left", bipartite, 577, 23, vit(1024, 0), false},
			{"nothing merges", bipartite, 577, 0, vit(1024, 12), false},
			{"one token in front of a layer of linear attention without an MLP", bipartite, 16384, 1, Workload{Dim: 64, Layers: 1, TokenFlop: 8 * 64 * 64}, false},
			{"the same, half the tokens, by a linear matching", local, 16384, 8192, Workload{Dim: 64, Layers: 12, TokenFlop: 24 * 64 * 64}, true},
			{"a tenth of an image's tokens around one attention", bipartite, 4096, 40, Workload{Dim: 320, Layers: 1, TokenFlop: 8 * 64 * 64, Unmerge: true}, false},
		} {
			e, err := c.m.Estimate(c.tokens, 64, c.r, c.w)
			must(t, err)
			if e.Pays() != c.pays || e.Cost < 0 || e.Saving < 0 {
				t.Errorf("%s: %+v", c.what, e)
			}
		}
		metric := random(1, 100, 8)
		for _, c := range []struct {
			w    Workload
			left int
		}{{vit(256, 12), 80}, {Workload{Dim: 8, Layers: 1, TokenFlop: 1}, 100}} {
			var p Plan
			must(t, bipartite.Run(context.Background(), &Call{Plan: &p, Metric: metric, Counts: []int{15, 5}, Offsets: []int{0, 60, 100}, Workload: &c.w}))
			if p.Len() != c.left || p.Offsets()[2] != c.left || p.Offsets()[1] != c.left*60/100-3*(100-c.left)/20 {
				t.Errorf("%d tokens are left, want %d; offsets %v", p.Len(), c.left, p.Offsets())
			}
		}
	})
	m := newMatcher(t, Config{})
	for _, err := range []error{
		second(m.Estimate(-1, 4, 0, Workload{})), second(m.Estimate(4, 4, 5, Workload{})),
		second(m.Estimate(4, 4, 1, Workload{Layers: -1})), second(m.Estimate(4, 4, 1, Workload{TokenFlop: math.Inf(1)})),
	} {
		if !errors.Is(err, ErrCall) {
			t.Errorf("error %v", err)
		}
	}
}

func second(_ Estimate, err error) error { return err }

// TestScratchBytes: the memory grows with the tokens, not with their square.
func TestScratchBytes(t *testing.T) {
	for _, cfg := range every() {
		cfg.Workers = 1
		m := newMatcher(t, cfg)
		for _, n := range []int{40, 500} {
			if cfg.Method == Grid && n != 500 {
				continue
			}
			var p Plan
			c := callFor(cfg, &p, random(1, n, 16))
			must(t, m.Run(context.Background(), &c))
			r := m.scratch.Get()
			var held int64
			for _, n := range []int{cap(r.packed), cap(r.work[0].rows), cap(r.work[0].score), cap(r.work[0].best), cap(r.work[0].place), cap(r.inverse), cap(r.score),
				cap(r.target), cap(r.src), cap(r.dst), cap(r.from), cap(r.cand), cap(r.head), cap(r.tail), cap(r.all), cap(r.to), cap(r.order), 2 * cap(r.ranked), 2 * cap(r.energy)} {
				held += 4 * int64(n)
			}
			m.scratch.Put(r)
			if said := m.ScratchBytes(n, 16); held > said {
				t.Errorf("%v, %d tokens: %d bytes are held, ScratchBytes is %d", cfg.Method, n, held, said)
			}
		}
		if a, b := m.ScratchBytes(1<<16, 64), m.ScratchBytes(1<<17, 64); b > 2*a {
			t.Errorf("%v: twice the tokens take %d bytes for %d", cfg.Method, b, a)
		}
	}
}

func TestSchedule(t *testing.T) {
	for _, c := range []struct {
		layers, r int
		inflect   float64
		want      []int
	}{{3, 5, 0, []int{5, 5, 5}}, {3, 5, -1, []int{10, 5, 0}}, {3, 5, 1, []int{0, 5, 10}}, {1, 5, -1, []int{5}}, {0, 5, 0, []int{}}} {
		got, err := Schedule(c.layers, c.r, c.inflect)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
	got, err := ScheduleRatio(3, 41, 0.5)
	if err != nil || !slices.Equal(got, []int{20, 10, 5}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, err := range []error{
		err0(Schedule(-1, 1, 0)), err0(Schedule(math.MaxInt, 1, 0)), err0(Schedule(1, -1, 0)), err0(Schedule(1, 1, 1.5)), err0(Schedule(1, 1, math.NaN())),
		err0(ScheduleRatio(-1, 1, 0)), err0(ScheduleRatio(math.MaxInt, 1, 0)), err0(ScheduleRatio(1, 1, 2)), err0(ScheduleRatio(1, 1, math.NaN())),
	} {
		if !errors.Is(err, ErrConfig) {
			t.Errorf("error %v", err)
		}
	}
}

func err0(_ []int, err error) error { return err }

func TestPartitions(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	src, dst, err := RandomPartition(20, 7, rng)
	must(t, err)
	all := slices.Concat(src, dst)
	slices.Sort(all)
	if len(src) != 7 || len(all) != 20 || all[0] != 0 || all[19] != 19 || len(slices.Compact(all)) != 20 {
		t.Errorf("sources %v, destinations %v", src, dst)
	}
	src, dst, err = GridPartition(5, 7, 2, 3, rng)
	must(t, err)
	cells := map[int]bool{}
	for _, d := range dst {
		cells[d/7/2*2+d%7/3] = d/7 < 4 && d%7 < 6
	}
	if len(dst) != 4 || len(cells) != 4 || len(src) != 31 || !slices.IsSorted(src) || !slices.IsSorted(dst) {
		t.Errorf("sources %v, destinations %v", src, dst)
	}
	for _, ok := range cells {
		if !ok {
			t.Errorf("a destination outside of cells: %v", dst)
		}
	}
	var p Plan
	must(t, newMatcher(t, Config{Method: Given}).Run(context.Background(), &Call{Plan: &p, Metric: random(1, 35, 4), R: 31, Sources: src, Destinations: dst}))
	if p.Len() != 4 {
		t.Errorf("%d tokens are left", p.Len())
	}
	for _, bad := range [][2]int{{-1, 0}, {3, 3}, {3, -1}, {3, 4}} {
		if _, _, err := RandomPartition(bad[0], bad[1], rng); !errors.Is(err, ErrCall) {
			t.Errorf("%v: error %v", bad, err)
		}
	}
	if _, _, err := GridPartition(2, 2, 0, 1, rng); !errors.Is(err, ErrCall) {
		t.Errorf("error %v", err)
	}
	if _, _, err := RandomPartition(2, 1, nil); !errors.Is(err, ErrCall) {
		t.Errorf("error %v of no generator", err)
	}
	for range p.Members(4) {
		t.Error("a merged token that is not there has members")
	}
	if err := p.Compose(&p, nil); !errors.Is(err, ErrCall) {
		t.Errorf("error %v of no plan", err)
	}
}

// TestApplied: what else a plan is applied to.
func TestApplied(t *testing.T) {
	var p Plan
	must(t, p.SetMap([]int32{0, 1, 0, 1, 2, 1}, 3))
	copy(p.kept, []int32{2, 5, 4})
	x := mat.Of([]float32{1, 5, 2, 7, 3, float32(math.NaN())}, 6, 1)
	nan := float32(math.NaN())
	for _, c := range []struct {
		mode Mode
		want []float32
	}{{Mean, []float32{1.5, nan, 3}}, {Sum, []float32{3, nan, 3}}, {Max, []float32{2, nan, 3}}, {First, []float32{1, 5, 3}}, {Last, []float32{2, nan, 3}}, {Kept, []float32{2, nan, 3}}} {
		out := mat.New(3, 1)
		must(t, p.Apply(out, x, c.mode))
		for j, w := range c.want {
			if got := out.Data[j]; got != w && (got == got || w == w) {
				t.Errorf("%v: %v, want %v", c.mode, out.Data, c.want)
			}
		}
	}
	at, positions := make([]float64, 3), []int64{10, 11, 12, 13, 1 << 40, 15}
	for _, c := range []struct {
		mode Mode
		size []float32
		want []float64
	}{{Mean, nil, []float64{11, 13, 1 << 40}}, {Mean, []float32{3, 1, 1, 1, 1, 2}, []float64{10.5, 13.5, 1 << 40}}, {Max, nil, []float64{12, 15, 1 << 40}},
		{First, nil, []float64{10, 11, 1 << 40}}, {Last, nil, []float64{12, 15, 1 << 40}}, {Kept, nil, []float64{12, 15, 1 << 40}}} {
		must(t, p.ApplyPositions(at, positions, c.mode, c.size))
		if !slices.Equal(at, c.want) {
			t.Errorf("%v: positions %v, want %v", c.mode, at, c.want)
		}
	}
	mask := make([]bool, 3)
	must(t, p.ApplyMask(mask, []bool{false, false, false, true, false, false}))
	if !slices.Equal(mask, []bool{false, true, false}) {
		t.Errorf("mask %v", mask)
	}
	// Without columns there is nothing to do, and nothing to trip over.
	must(t, p.Apply(blas32.General{Rows: 3}, blas32.General{Rows: 6}, Mean))
	must(t, p.Unmerge(blas32.General{Rows: 6}, blas32.General{Rows: 3}))
	mean := mat.New(6, 2)
	must(t, MeanHeads(mean, random(1, 6, 8), 4))
	if err := MeanHeads(mean, random(1, 6, 8), 3); !errors.Is(err, ErrShape) {
		t.Errorf("error %v", err)
	}
	for _, err := range []error{MeanHeads(mean, random(1, 6, 8), 0), LogSizes([]float32{0}, []float32{0})} {
		if !errors.Is(err, ErrCall) {
			t.Errorf("error %v", err)
		}
	}
}

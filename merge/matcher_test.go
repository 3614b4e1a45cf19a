package merge

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// nearest64 is the search in float64, one pair after the other.
func nearest64(metric blas32.General, sources, destinations []int, allowed func(s, d int) bool) (to []int, score, gap []float64) {
	unit := func(t int) []float64 {
		x, sum := make([]float64, metric.Cols), 0.0
		for c, v := range mat.Row(metric, t) {
			x[c] = float64(v)
			sum += x[c] * x[c]
		}
		for c := range x {
			x[c] /= max(math.Sqrt(sum), 1e-12)
		}
		return x
	}
	var units [][]float64
	for _, d := range destinations {
		units = append(units, unit(d))
	}
	for _, s := range sources {
		best, second, at := math.Inf(-1), math.Inf(-1), -1
		a := unit(s)
		for i, d := range destinations {
			if !allowed(s, d) {
				continue
			}
			dot := 0.0
			for c, v := range units[i] {
				dot += a[c] * v
			}
			if dot > best {
				best, second, at = dot, best, d
			} else {
				second = max(second, dot)
			}
		}
		to, score, gap = append(to, at), append(score, best), append(gap, best-second)
	}
	return to, score, gap
}

// TestSearch compares the search with float64, at sizes that cross every edge of tiles,
// blocks and windows.
func TestSearch(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		lengths := []int{2, 3, 26, 101, 700}
		if testing.Short() {
			lengths = lengths[:4]
		}
		for _, n := range lengths {
			for _, dim := range []int{1, 3, 20} {
				metric := random(uint64(n*dim), n, dim)
				for _, cfg := range []Config{{}, {Method: Local}, {Method: Local, Window: 2}, {Method: Local, Window: 3}, {Method: Local, Window: 9}, {Method: Local, Window: 40}, {Method: Local, Window: 150}, {Method: Local, Window: n}, {Method: Local, Window: math.MaxInt}, {Method: KTh, Every: 4}} {
					for _, shift := range []bool{false, true} {
						if shift && cfg.Method == KTh {
							continue
						}
						var p Plan
						var r matchRun
						must(t, r.match(context.Background(), newMatcher(t, cfg), &Call{Plan: &p, Metric: metric, Shift: shift}))
						begin := 0
						if shift {
							begin = 1
						}
						allowed := func(s, d int) bool {
							if cfg.Method != Local {
								return true
							}
							i, j := (s-begin)/2, (d-begin)/2
							return max(i-j, j-i) < max(cfg.Window, 1)
						}
						var src, dst []int
						for _, s := range r.from {
							src = append(src, int(s))
						}
						for _, d := range r.cand {
							dst = append(dst, int(d))
						}
						to, score, gap := nearest64(metric, src, dst, allowed)
						for i := range src {
							got := -1
							if r.to[i] != none {
								got = int(r.cand[r.to[i]])
							}
							if got != to[i] && gap[i] > 1e-5 || got >= 0 && math.Abs(float64(r.score[i])-score[i]) > 1e-5 {
								t.Fatalf("%v window %d n=%d dim=%d shift %v: source %d goes to %d by %v, want %d by %v", cfg.Method, cfg.Window, n, dim, shift, src[i], got, r.score[i], to[i], score[i])
							}
						}
					}
				}
			}
		}
	})
}

// every lists Configs of all methods, to go with calls by callFor.
func every() []Config {
	return []Config{{}, {Order: Published, ClassToken: true}, {Method: Local, Window: 1}, {Method: Local, Window: 20}, {Method: KTh, Every: 3},
		{Method: Grid, Height: 20, Width: 25}, {Method: Given}, {Method: PiToMe}, {Method: PiToMeText, ClassToken: true}, {Method: PiToMeBSM, Order: Published}}
}

func callFor(cfg Config, p *Plan, metric blas32.General) Call {
	c := Call{Plan: p, Metric: metric, R: metric.Rows / 4}
	switch cfg.Method {
	case KTh:
		c.R = 0
	case Given:
		rng := rand.New(rand.NewPCG(1, 1))
		tokens := rng.Perm(metric.Rows)
		c.Sources, c.Destinations = tokens[:metric.Rows/2], tokens[metric.Rows/2:metric.Rows-7]
	case PiToMe, PiToMeText, PiToMeBSM:
		c.Margin = 0.4
	}
	return c
}

func same(t *testing.T, what string, a, b *Plan) {
	t.Helper()
	if !slices.Equal(a.Map(), b.Map()) || !slices.Equal(a.Kept(), b.Kept()) || !slices.Equal(a.Offsets(), b.Offsets()) {
		t.Fatalf("%s: the plans differ", what)
	}
}

// TestWorkers: the plan does not depend on how many there are, nor on what a Matcher has
// done before.
func TestWorkers(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		metric := random(3, 500, 24)
		for _, cfg := range every() {
			var one, many Plan
			m := newMatcher(t, cfg)
			c := callFor(cfg, &one, metric)
			c.Workers = 1
			must(t, m.Run(context.Background(), &c))
			for _, workers := range []int{2, 5} {
				c.Plan, c.Workers = &many, workers
				must(t, m.Run(context.Background(), &c))
				same(t, fmt.Sprintf("%v, %d workers", cfg.Method, workers), &many, &one)
			}
		}
	})
}

// TestPacked: sequences of a packed call merge as each does by itself.
func TestPacked(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		offsets := []int{0, 0, 61, 62, 140, 340}
		counts := []int{0, 7, 0, 39, 2}
		metric := random(4, 340, 16)
		for _, cfg := range every() {
			if cfg.Method == Grid || cfg.Method == Given {
				continue
			}
			m := newMatcher(t, cfg)
			var p, one Plan
			c := callFor(cfg, &p, metric)
			c.Offsets = offsets
			if cfg.Method != KTh {
				c.R, c.Counts, c.AtMost = 0, counts, true
			}
			must(t, m.Run(context.Background(), &c))
			for i, from := range offsets[:5] {
				part := mat.Rows(metric, from, offsets[i+1])
				o := callFor(cfg, &one, part)
				if cfg.Method != KTh {
					o.R, o.AtMost = counts[i], true
				}
				must(t, m.Run(context.Background(), &o))
				begin := p.Offsets()[i]
				if p.Offsets()[i+1]-begin != one.Len() {
					t.Fatalf("%v: sequence %d has %d tokens, by itself %d", cfg.Method, i, p.Offsets()[i+1]-begin, one.Len())
				}
				for t0, j := range one.Map() {
					if int(p.Map()[from+t0]) != begin+int(j) {
						t.Fatalf("%v: sequence %d differs", cfg.Method, i)
					}
				}
			}
		}
	})
}

// TestProtected: protected tokens, padding and tokens that are not finite stay alone,
// and the others merge as if these were not there.
func TestProtected(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, cfg := range every() {
			metric := random(5, 500, 16)
			alone := map[int]bool{}
			protect, valid := make([]bool, 500), make([]bool, 500)
			for i := range valid {
				valid[i] = i < 490
				protect[i] = i%11 == 3
				if protect[i] || !valid[i] {
					alone[i] = true
				}
			}
			for i := 17; i < 500; i += 40 {
				mat.Row(metric, i)[i%16] = []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))}[i%3]
				alone[i] = true
			}
			var p Plan
			c := callFor(cfg, &p, metric)
			c.Protect, c.Valid, c.AtMost = protect, valid, true
			must(t, newMatcher(t, cfg).Run(context.Background(), &c))
			for i := range alone {
				if p.Counts()[p.Map()[i]] != 1 {
					t.Fatalf("%v: token %d is not alone", cfg.Method, i)
				}
			}
			if p.Len() > 450 {
				t.Errorf("%v: %d tokens are left", cfg.Method, p.Len())
			}
			laws(t, &p, random(6, 500, 3), sizes(6, 500))
		}
	})
}

// TestTies: of equal destinations the first is taken and of equal sources the first, and
// zeros, which are as similar to everything, are no exception.
func TestTies(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, zero := range []bool{false, true} {
			for _, n := range []int{10, 301} {
				metric := mat.New(n, 5)
				for i := range metric.Data {
					if !zero {
						metric.Data[i] = float32(i%5 + 1)
					}
				}
				for _, window := range []int{0, 1, 2, 30} {
					cfg := Config{}
					if window > 0 {
						cfg = Config{Method: Local, Window: window}
					}
					var p Plan
					must(t, newMatcher(t, cfg).Match(&p, metric, 4))
					for s := 0; s < n; s += 2 {
						want := s
						switch {
						case s >= 8:
						case window == 0:
							want = 1
						default:
							want = max(1, s+1-2*(window-1))
						}
						if got := int(p.Kept()[p.Map()[s]]); got != want {
							t.Fatalf("zero %v, window %d: token %d went to %d, want %d", zero, window, s, got, want)
						}
					}
				}
			}
		}
	})
}

// TestScale: the lengths of the metric's rows do not matter, however large.
func TestScale(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		metric := random(7, 64, 8)
		var want, got Plan
		m := newMatcher(t, Config{})
		must(t, m.Match(&want, metric, 16))
		for i := range metric.Rows {
			for c := range metric.Cols {
				mat.Row(metric, i)[c] *= float32(math.Ldexp(1, i%3*60))
			}
		}
		must(t, m.Match(&got, metric, 16))
		same(t, "scaled", &got, &want)
	})
}

// TestAmounts: numbers, ratios, thresholds and the least number of tokens.
func TestAmounts(t *testing.T) {
	metric := random(8, 41, 6)
	m, local := newMatcher(t, Config{}), newMatcher(t, Config{Method: Local, Window: 50})
	for _, c := range []struct {
		m    *Matcher
		call Call
		left int
	}{
		{m, Call{R: 20}, 21},
		{m, Call{R: 21, AtMost: true}, 21},
		{local, Call{R: 21}, 20},
		{m, Call{Ratio: 0.5}, 21},
		{m, Call{Ratio: 0.25}, 31},
		{m, Call{Ratio: 1}, 21},
		{m, Call{R: 20, MinTokens: 35}, 35},
		{m, Call{R: 20, MinTokens: 350}, 41},
		{m, Call{Above: new(float32(-2))}, 21},
		{m, Call{Above: new(float32(2))}, 41},
		{m, Call{R: 3, Above: new(float32(-1))}, 38},
		{m, Call{Counts: []int{7}}, 34},
	} {
		var p Plan
		c.call.Plan, c.call.Metric = &p, metric
		must(t, c.m.Run(context.Background(), &c.call))
		if p.Len() != c.left {
			t.Errorf("%+v: %d tokens are left, want %d", c.call, p.Len(), c.left)
		}
	}
	// A threshold is exceeded, not met.
	pair := mat.Of([]float32{1, 0, 1, 0}, 2, 2)
	var p Plan
	for _, c := range []struct {
		above float32
		left  int
	}{{1, 2}, {0.999, 1}} {
		must(t, m.Run(context.Background(), &Call{Plan: &p, Metric: pair, Above: &c.above}))
		if p.Len() != c.left {
			t.Errorf("above %v: %d are left, want %d", c.above, p.Len(), c.left)
		}
	}
}

// TestAllocations: nothing is allocated after the first call.
func TestAllocations(t *testing.T) {
	metric, size := random(10, 500, 24), sizes(1, 500)
	for _, cfg := range every() {
		for _, workers := range []int{1, 4} {
			cfg.Workers = workers
			m := newMatcher(t, cfg)
			var p, all Plan
			c := callFor(cfg, &p, metric)
			out, back, total := mat.New(500, 24), mat.New(500, 24), make([]float32, 500)
			if n := isatest.Allocations(func() {
				must(t, m.Run(context.Background(), &c))
				must(t, all.SetIdentity(500))
				must(t, all.Compose(&all, &p))
				o := mat.Rows(out, 0, p.Len())
				must(t, p.ApplyWeighted(o, metric, total[:p.Len()], size))
				must(t, p.Apply(o, metric, Max))
				must(t, p.Unmerge(back, o))
			}); n != 0 {
				t.Errorf("%v, %d workers: %v allocations", cfg.Method, workers, n)
			}
		}
	}
}

// TestSmallest finds the smallest in any arrangement.
func TestSmallest(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{0, 1, 16, 17, 100, 1000} {
		for kind := range 3 {
			for _, want := range []int{0, 1, n / 3, n - 1, n} {
				x := make([]uint64, n)
				for i := range x {
					switch kind {
					case 0:
						x[i] = uint64(i)
					case 1:
						x[i] = uint64(n - i)
					default:
						x[i] = rng.Uint64()
					}
				}
				sorted := slices.Sorted(slices.Values(x))
				want = min(max(want, 0), n)
				smallest(x, want)
				slices.Sort(x[:want])
				if !slices.Equal(x[:want], sorted[:want]) {
					t.Fatalf("the %d smallest of %d, kind %d, are wrong", want, n, kind)
				}
			}
		}
	}
}

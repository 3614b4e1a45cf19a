package catanet

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// softmax64 adds attention of one query to keys to out.
func softmax64(out []float64, q []float32, keys, values [][]float32, scale float64) {
	sum, mean := 0.0, make([]float64, len(out))
	for j, k := range keys {
		dot := 0.0
		for d, v := range q {
			dot += float64(v) * float64(k[d])
		}
		w := math.Exp(dot * scale)
		sum += w
		for c, v := range values[j] {
			mean[c] += w * float64(v)
		}
	}
	for c, v := range mean {
		out[c] += v / sum
	}
}

// TestGroupAttention compares with float64, also where the published code fails: keys
// that run out more than once before the groups do.
func TestGroupAttention(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const heads, dim, width = 2, 3, 4
		for _, size := range []int{1, 3, 8, 50} {
			for _, n := range []int{0, 1, 2, 7, 8, 9, 10, 11, 12, 13, 16, 17, 40} {
				for _, centers := range []int{0, 1, 5} {
					q, k, v := random(1, n, heads*dim), random(2, n, heads*dim), random(3, n, heads*width)
					ck, cv := random(4, centers, heads*dim), random(5, centers, heads*width)
					bucket := make([]int32, n)
					for i := range bucket {
						bucket[i] = int32(i * 7 % 5)
					}
					op, err := NewGroupAttention(GroupConfig{Heads: heads, HeadDim: dim, ValueDim: width, GroupSize: size})
					must(t, err)
					got := mat.New(n, heads*width)
					must(t, op.Run(context.Background(), &GroupCall{Dst: got, Q: q, K: k, V: v, Bucket: bucket, CenterK: ck, CenterV: cv}))
					order := make([]int, n)
					for i := range order {
						order[i] = i
					}
					slices.SortStableFunc(order, func(a, b int) int { return int(bucket[a] - bucket[b]) })
					side := min(size, n)
					for place, token := range order {
						for h := range heads {
							head := func(m blas32.General, t, w int) []float32 { return mat.Row(m, t)[h*w:][:w] }
							var keys, values [][]float32
							for at := place / side * side; at < place/side*side+2*side; at++ {
								mirror := at % (2 * n)
								if mirror >= n {
									mirror = 2*n - 1 - mirror
								}
								keys, values = append(keys, head(k, order[mirror], dim)), append(values, head(v, order[mirror], width))
							}
							want := make([]float64, width)
							softmax64(want, head(q, token, dim), keys, values, 1/math.Sqrt(dim))
							if centers > 0 {
								keys, values = nil, nil
								for j := range centers {
									keys, values = append(keys, head(ck, j, dim)), append(values, head(cv, j, width))
								}
								softmax64(want, head(q, token, dim), keys, values, 1/math.Sqrt(dim))
							}
							for c, w := range want {
								if g := float64(head(got, token, width)[c]); math.Abs(g-w) > 1e-5 {
									t.Fatalf("n=%d size=%d centres=%d token %d: %v, want %v", n, size, centers, token, g, w)
								}
							}
						}
					}
				}
			}
		}
	})
}

// TestGroupPacked: sequences of a packed call are as each by itself, for any Workers.
func TestGroupPacked(t *testing.T) {
	offsets := []int{0, 13, 13, 40, 41}
	q, k, v := random(1, 41, 6), random(2, 41, 6), random(3, 41, 6)
	bucket := make([]int32, 41)
	for i := range bucket {
		bucket[i] = int32(i % 3)
	}
	for _, workers := range []int{1, 4} {
		op, err := NewGroupAttention(GroupConfig{Heads: 2, HeadDim: 3, GroupSize: 8, Workers: workers})
		must(t, err)
		all, part := mat.New(41, 6), mat.New(41, 6)
		c := GroupCall{Dst: all, Q: q, K: k, V: v, Bucket: bucket, Offsets: offsets}
		must(t, op.Run(context.Background(), &c))
		for i, from := range offsets[:4] {
			to := offsets[i+1]
			cut := func(m blas32.General) blas32.General { return mat.Rows(m, from, to) }
			must(t, op.Forward(cut(part), cut(q), cut(k), cut(v), bucket[from:to]))
		}
		if !slices.Equal(all.Data, part.Data) {
			t.Errorf("%d workers: packed sequences differ from those alone", workers)
		}
		if n := isatest.Allocations(func() { must(t, op.Run(context.Background(), &c)) }); n != 0 {
			t.Errorf("%d workers: %v allocations", workers, n)
		}
	}
}

func TestGroupErrors(t *testing.T) {
	op, err := NewGroupAttention(GroupConfig{Heads: 2, HeadDim: 3, GroupSize: 4})
	must(t, err)
	x := random(1, 5, 6)
	base := GroupCall{Dst: mat.New(5, 6), Q: x, K: x, V: x, Bucket: make([]int32, 5)}
	for _, c := range []struct {
		change func(*GroupCall)
		kind   error
		text   string
	}{
		{func(c *GroupCall) { c.Q = mat.New(5, 5) }, ErrShape, "q has 5 columns, want Heads*HeadDim = 6"},
		{func(c *GroupCall) { c.K = mat.New(4, 6) }, ErrShape, "k has 4 rows, want 5"},
		{func(c *GroupCall) { c.V = mat.New(5, 7) }, ErrShape, "v has 7 columns"},
		{func(c *GroupCall) { c.Dst = c.Q }, ErrShape, "dst shares elements"},
		{func(c *GroupCall) { c.Bucket = c.Bucket[:4] }, ErrShape, "Bucket has 4 elements"},
		{func(c *GroupCall) { c.Bucket = []int32{0, 0, -3, 0, 0} }, ErrCall, "Bucket[2] is -3"},
		{func(c *GroupCall) { c.Offsets = []int{0, 4} }, ErrCall, "Offsets ends with 4, want the number of rows = 5"},
		{func(c *GroupCall) { c.Offsets = []int{0, 4, 3, 5} }, ErrCall, "Offsets runs backwards, from 4 to 3 at 2"},
		{func(c *GroupCall) { c.CenterK = mat.New(2, 6) }, ErrShape, "CenterV has 0 rows, want 2"},
		{func(c *GroupCall) { c.CenterK, c.CenterV = mat.New(2, 5), mat.New(2, 6) }, ErrShape, "CenterK has 5 columns"},
	} {
		call := base
		c.change(&call)
		if err := op.Run(context.Background(), &call); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("error %v, want %q", err, c.text)
		}
	}
	for _, cfg := range []GroupConfig{{Heads: 1, HeadDim: 1}, {HeadDim: 1, GroupSize: 1}, {Heads: 1, GroupSize: 1}, {Heads: 1, HeadDim: 1, GroupSize: -1}, {Heads: 1, HeadDim: 1, GroupSize: 1, Scale: float32(math.Inf(1))}} {
		if _, err := NewGroupAttention(cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: error %v", cfg, err)
		}
	}
}

func tabWeights(cfg TABConfig, means bool) TABWeights {
	seed := uint64(100)
	m := func(rows, cols int) blas32.General {
		seed++
		w := random(seed, rows, cols)
		for i := range w.Data {
			w.Data[i] *= 0.3
		}
		return w
	}
	v := func(n int) []float32 { return m(1, n).Data }
	norm := func() NormWeights { return NormWeights{v(cfg.Dim), v(cfg.Dim)} }
	w := TABWeights{
		Norm: norm(), CenterKey: m(cfg.QKDim, cfg.Dim), CenterValue: m(cfg.Dim, cfg.Dim),
		Query: m(cfg.QKDim, cfg.Dim), Key: m(cfg.QKDim, cfg.Dim), Value: m(cfg.Dim, cfg.Dim), Proj: m(cfg.Dim, cfg.Dim), Conv: m(cfg.Dim, cfg.Dim),
		FFN: ConvFFNWeights{Norm: norm(), FC1: m(cfg.MLPDim, cfg.Dim), FC1Bias: v(cfg.MLPDim), FC2: m(cfg.Dim, cfg.MLPDim), FC2Bias: v(cfg.Dim), Conv: m(cfg.MLPDim, 25), ConvBias: v(cfg.MLPDim)},
	}
	if means {
		w.Means = m(cfg.Centers, cfg.Dim)
	}
	return w
}

// TestImages: TAB and LRSA give each image what it gets alone, in place too, for any
// Workers, without allocating; also images of fewer pixels than centres, windows and
// groups.
func TestImages(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, size := range [][2]int{{1, 1}, {1, 7}, {3, 4}, {9, 11}, {1, 230}} {
			h, w := size[0], size[1]
			cfg := TABConfig{Dim: 8, QKDim: 4, MLPDim: 6, Heads: 2, Centers: 5, GroupSize: 8}
			weights := tabWeights(cfg, true)
			x := random(uint64(h*w), 2*h*w, 8)
			var tabs, lrsas []blas32.General
			for _, workers := range []int{1, 4} {
				cfg.Workers = workers
				tab, err := NewTAB(cfg, weights)
				must(t, err)
				lrsa, err := NewLRSA(LRSAConfig{Dim: 8, QKDim: 4, MLPDim: 6, Heads: 2, Window: 5, Workers: workers},
					LRSAWeights{Norm: weights.Norm, Query: weights.Query, Key: weights.Key, Value: weights.Value, Proj: weights.Proj, FFN: weights.FFN})
				must(t, err)
				for i, op := range []interface {
					Run(context.Context, *ImageCall) error
				}{tab, lrsa} {
					both, alone, here := mat.New(2*h*w, 8), mat.New(2*h*w, 8), mat.Of(slices.Clone(x.Data), 2*h*w, 8)
					run := func(dst, x blas32.General) {
						t.Helper()
						must(t, op.Run(context.Background(), &ImageCall{Dst: dst, X: x, Height: h, Width: w}))
					}
					run(both, x)
					run(here, here)
					for image := range 2 {
						run(mat.Rows(alone, image*h*w, (image+1)*h*w), mat.Rows(x, image*h*w, (image+1)*h*w))
					}
					if !slices.Equal(both.Data, here.Data) {
						t.Fatalf("%d: %d x %d in place differs", i, h, w)
					}
					if !slices.Equal(both.Data, alone.Data) {
						t.Fatalf("%d: %d x %d: images together differ from those alone", i, h, w)
					}
					if i == 0 {
						tabs = append(tabs, both)
					} else {
						lrsas = append(lrsas, both)
					}
					call := &ImageCall{Dst: both, X: x, Height: h, Width: w}
					if n := isatest.Allocations(func() { must(t, op.Run(context.Background(), call)) }); n != 0 {
						t.Errorf("%d, %d workers: %v allocations", i, workers, n)
					}
				}
			}
			if !slices.Equal(tabs[0].Data, tabs[1].Data) || !slices.Equal(lrsas[0].Data, lrsas[1].Data) {
				t.Fatalf("%d x %d: the result depends on Workers", h, w)
			}
			// Centres made of the tokens: finite, also of images that repeat to fill them.
			cfg.Workers = 1
			own, err := NewTAB(cfg, tabWeights(cfg, false))
			must(t, err)
			out := mat.New(2*h*w, 8)
			must(t, own.Forward(out, x, h, w))
			if slices.ContainsFunc(out.Data, func(v float32) bool { return v-v != 0 }) {
				t.Fatalf("%d x %d: own centres give a result that is not finite", h, w)
			}
			must(t, own.Forward(mat.New(0, 8), mat.New(0, 8), h, w))
			call := &ImageCall{Dst: out, X: x, Height: h, Width: w}
			if n := isatest.Allocations(func() { must(t, own.Run(context.Background(), call)) }); n != 0 {
				t.Errorf("own centres: %v allocations", n)
			}
		}
	})
}

func TestImageErrors(t *testing.T) {
	cfg := TABConfig{Dim: 8, QKDim: 4, MLPDim: 6, Heads: 2, Centers: 5, GroupSize: 8}
	tab, err := NewTAB(cfg, tabWeights(cfg, true))
	must(t, err)
	x := random(1, 12, 8)
	for _, c := range []struct {
		err  error
		text string
	}{
		{tab.Forward(mat.New(12, 8), x, 3, 5), "x has 12 rows, want a multiple of 3 x 5"},
		{tab.Forward(mat.New(12, 8), x, 0, 5), "an image of 0 x 5"},
		{tab.Forward(mat.New(12, 8), x, math.MaxInt, 5), "an image of"},
		{tab.Forward(mat.New(11, 8), x, 3, 4), "dst has 11 rows, want 12"},
		{tab.Forward(mat.New(12, 8), random(1, 12, 7), 3, 4), "x has 7 columns, want Dim = 8"},
		{tab.Forward(mat.Of(x.Data[8:], 11, 8), mat.Of(x.Data, 11, 8), 1, 11), "shares elements"},
	} {
		if !errors.Is(c.err, ErrShape) || !strings.Contains(c.err.Error(), c.text) {
			t.Errorf("error %v, want %q", c.err, c.text)
		}
	}
	for _, change := range []func(*TABConfig, *TABWeights){
		func(c *TABConfig, _ *TABWeights) { c.Dim = 0 },
		func(c *TABConfig, _ *TABWeights) { c.Heads = 3 },
		func(c *TABConfig, _ *TABWeights) { c.Centers = -1 },
		func(c *TABConfig, _ *TABWeights) { c.Workers = -1 },
		func(_ *TABConfig, w *TABWeights) { w.Norm.Bias = nil },
		func(_ *TABConfig, w *TABWeights) { w.Query = mat.New(8, 4) },
		func(_ *TABConfig, w *TABWeights) { w.FFN.Conv = mat.New(6, 9) },
		func(_ *TABConfig, w *TABWeights) { w.Means = mat.New(4, 8) },
	} {
		c, w := cfg, tabWeights(cfg, true)
		change(&c, &w)
		if _, err := NewTAB(c, w); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: error %v", c, err)
		}
	}
	for _, c := range []LRSAConfig{{}, {Dim: 8, QKDim: 4, MLPDim: 6, Heads: 3, Window: 5}, {Dim: 8, QKDim: 4, MLPDim: 6, Heads: 2, Window: 5, Step: 6}, {Dim: 8, QKDim: 4, MLPDim: 6, Heads: 2, Window: 5}} {
		if _, err := NewLRSA(c, LRSAWeights{}); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: error %v", c, err)
		}
	}
}

// TestCenters: fitting moves centres to clusters, and leaves one without tokens.
func TestCenters(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n, dim = 60, 4
		x := mat.New(n, dim)
		for i := range n {
			mat.Row(x, i)[i%2] = 1 + float32(i)
			mat.Row(x, i)[2] = 0.01 * float32(i%3-1)
		}
		start := mat.Of([]float32{1, 0.3, 0, 0, 0.2, 1, 0, 0, 0, 0, 0, -7}, 3, dim)
		fitted := mat.New(3, dim)
		must(t, FitCenters(fitted, x, start, 5))
		for i, want := range [][]float32{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 0, -1}} {
			for c, v := range mat.Row(fitted, i) {
				if math.Abs(float64(v-want[c])) > 0.01 {
					t.Errorf("centre %d is %v, want %v", i, mat.Row(fitted, i), want)
				}
			}
		}
		bucket := make([]int32, n)
		must(t, AssignCenters(bucket, x, fitted))
		for i, b := range bucket {
			if int(b) != i%2 {
				t.Fatalf("token %d is in bucket %d", i, b)
			}
		}
	})
	for _, err := range []error{
		AssignCenters(make([]int32, 3), mat.New(4, 2), mat.New(2, 2)),
		AssignCenters(make([]int32, 4), mat.New(4, 2), mat.New(2, 3)),
		AssignCenters(make([]int32, 4), mat.New(4, 2), mat.New(0, 2)),
		FitCenters(mat.New(2, 3), mat.New(4, 2), mat.New(2, 2), 1),
		MoveCenters(mat.New(2, 2), mat.New(3, 2), 0.5),
	} {
		if !errors.Is(err, ErrShape) {
			t.Errorf("error %v", err)
		}
	}
	if err := FitCenters(mat.New(2, 2), mat.New(4, 2), mat.New(2, 2), -1); !errors.Is(err, ErrCall) {
		t.Errorf("error %v", err)
	}
	if err := MoveCenters(mat.New(2, 2), mat.New(2, 2), 2); !errors.Is(err, ErrCall) {
		t.Errorf("error %v", err)
	}
}

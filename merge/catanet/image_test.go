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
	w := TABWeights{
		Norm: v(cfg.Dim), NormBias: v(cfg.Dim), CenterK: m(cfg.QKDim, cfg.Dim), CenterV: m(cfg.Dim, cfg.Dim),
		Q: m(cfg.QKDim, cfg.Dim), K: m(cfg.QKDim, cfg.Dim), V: m(cfg.Dim, cfg.Dim), Out: m(cfg.Dim, cfg.Dim), Conv: m(cfg.Dim, cfg.Dim),
		FFN: ConvFFNWeights{Norm: v(cfg.Dim), NormBias: v(cfg.Dim), Up: m(cfg.Inner, cfg.Dim), UpBias: v(cfg.Inner), Down: m(cfg.Dim, cfg.Inner), DownBias: v(cfg.Dim), Conv: m(cfg.Inner, 25), ConvBias: v(cfg.Inner)},
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
			cfg := TABConfig{Dim: 8, QKDim: 4, Inner: 6, Heads: 2, Centers: 5, GroupSize: 8}
			weights := tabWeights(cfg, true)
			x := random(uint64(h*w), 2*h*w, 8)
			var tabs, lrsas []blas32.General
			for _, workers := range []int{1, 4} {
				cfg.Workers = workers
				tab, err := NewTAB(cfg, weights)
				must(t, err)
				lrsa, err := NewLRSA(LRSAConfig{Dim: 8, QKDim: 4, Inner: 6, Heads: 2, Window: 5, Workers: workers},
					LRSAWeights{Norm: weights.Norm, NormBias: weights.NormBias, Q: weights.Q, K: weights.K, V: weights.V, Out: weights.Out, FFN: weights.FFN})
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
	cfg := TABConfig{Dim: 8, QKDim: 4, Inner: 6, Heads: 2, Centers: 5, GroupSize: 8}
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
		func(_ *TABConfig, w *TABWeights) { w.NormBias = nil },
		func(_ *TABConfig, w *TABWeights) { w.Q = mat.New(8, 4) },
		func(_ *TABConfig, w *TABWeights) { w.FFN.Conv = mat.New(6, 9) },
		func(_ *TABConfig, w *TABWeights) { w.Means = mat.New(4, 8) },
	} {
		c, w := cfg, tabWeights(cfg, true)
		change(&c, &w)
		if _, err := NewTAB(c, w); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: error %v", c, err)
		}
	}
	for _, c := range []LRSAConfig{{}, {Dim: 8, QKDim: 4, Inner: 6, Heads: 3, Window: 5}, {Dim: 8, QKDim: 4, Inner: 6, Heads: 2, Window: 5, Step: 6}, {Dim: 8, QKDim: 4, Inner: 6, Heads: 2, Window: 5}} {
		if _, err := NewLRSA(c, LRSAWeights{}); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: error %v", c, err)
		}
	}
}

// TestWindows: windows that are too many to be held are an error.
func TestWindows(t *testing.T) {
	norm, bias := []float32{1}, []float32{0}
	one := random(1, 1, 1)
	op, err := NewLRSA(LRSAConfig{Dim: 1, QKDim: 1, Inner: 1, Heads: 1, Window: 1 << 15, Step: 1},
		LRSAWeights{Norm: norm, NormBias: bias, Q: one, K: one, V: one, Out: one, FFN: ConvFFNWeights{Norm: norm, NormBias: bias, Up: one, Down: one, Conv: random(1, 1, 25)}})
	must(t, err)
	x := mat.New(1<<16, 1)
	if err := op.Forward(x, x, 1<<16, 1); !errors.Is(err, ErrShape) || !strings.Contains(err.Error(), "too many windows") {
		t.Errorf("error %v", err)
	}
}

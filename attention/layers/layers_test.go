package layers

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

const (
	dim, frequencies, bins     = 8, 6, 10
	heads, headDim, contextDim = 2, 4, 5
	side, wide                 = 5, 20
)

func head(t *testing.T, workers int) *FourierHead {
	s := newSource(1)
	h, err := NewFourierHead(FourierConfig{Dim: dim, Bins: bins, Frequencies: frequencies, Workers: workers},
		FourierWeights{Weight: s.matrix(2*(frequencies+1), dim), Bias: s.vector(2 * (frequencies + 1))})
	must(t, err)
	return h
}

func gated(t *testing.T, cross bool, workers int) *Gated {
	s := newSource(2)
	from := dim
	w := GatedWeights{Norm1: s.vector(dim), Norm1Bias: s.vector(dim), Norm2: s.vector(dim), Norm2Bias: s.vector(dim), Q: s.matrix(dim, dim),
		Out: s.matrix(dim, dim), OutBias: s.vector(dim), Up: s.matrix(8*dim, dim), UpBias: s.vector(8 * dim), Down: s.matrix(dim, 4*dim), DownBias: s.vector(dim),
		AlphaAttention: 0.3, AlphaDense: -0.2}
	if cross {
		from = contextDim
	} else {
		w.Context, w.ContextBias = s.matrix(dim, contextDim), s.vector(dim)
	}
	w.K, w.V = s.matrix(dim, from), s.matrix(dim, from)
	g, err := NewGated(GatedConfig{Heads: heads, HeadDim: headDim, ContextDim: contextDim, Cross: cross, Workers: workers}, w)
	must(t, err)
	return g
}

func tokensLayer(t *testing.T, workers int) *Tokens {
	s := newSource(3)
	const feature, hidden = 6, 7
	mlp := func() TokensMLP {
		return TokensMLP{First: s.matrix(hidden, feature+16), FirstBias: s.vector(hidden), Second: s.matrix(hidden, hidden), SecondBias: s.vector(hidden), Third: s.matrix(dim, hidden), ThirdBias: s.vector(dim)}
	}
	l, err := NewTokens(TokensConfig{FeatureDim: feature, Dim: dim, Inner: hidden, MaxInteractions: 4, Frequencies: 2, Workers: workers},
		TokensWeights{Things: mlp(), Actions: mlp(), NullThing: s.vector(feature), NullAction: s.vector(feature), NullBox: s.vector(16), Interactions: s.matrix(4, dim), Roles: s.matrix(3, dim)})
	must(t, err)
	return l
}

func (s source) batchNorm(n int) BatchNorm {
	b := BatchNorm{s.vector(n), s.vector(n), s.vector(n), s.vector(n)}
	for i, v := range b.Variance {
		b.Variance[i] = 0.1 + v*v
	}
	return b
}

func strip(t *testing.T, workers int) *Strip {
	s := newSource(4)
	const half, hidden = dim / 2, 3
	l, err := NewStrip(StripConfig{Dim: dim, Side: side, Workers: workers}, StripWeights{Norm: s.batchNorm(dim), Conv: s.matrix(dim, 9),
		Mix: StripMixWeights{MLP: s.matrix(dim, dim), MLPBias: s.vector(dim), MLPNorm: s.batchNorm(dim), PosH: s.matrix(2*side+1, half), PosW: s.matrix(2*side+1, half),
			ProjH: s.matrix(side, 3*side), ProjHBias: s.vector(side), ProjW: s.matrix(side, 3*side), ProjWBias: s.vector(side),
			FuseH: s.matrix(half, dim), FuseW: s.matrix(half, dim), Norm: s.batchNorm(half), LocalH: s.matrix(half, 21), LocalW: s.matrix(half, 21),
			Reweight1: s.matrix(hidden, half), Reweight1Bias: s.vector(hidden), Reweight2: s.matrix(3*half, hidden), Reweight2Bias: s.vector(3 * half), Fuse: s.matrix(dim, dim)},
		Conv7: s.matrix(dim, 49), LayerNorm: s.vector(dim), LayerNormBias: s.vector(dim), Up: s.matrix(wide, dim), UpBias: s.vector(wide), Down: s.matrix(dim, wide), DownBias: s.vector(dim),
		Gamma: s.vector(wide), Beta: s.vector(wide)})
	must(t, err)
	return l
}

// call is one of a layer.
type call struct {
	dst   blas32.General
	run   func(ctx context.Context, workers int) error
	bytes int64 // of its working memory, by ScratchBytes
}

func calls(t *testing.T, workers int) map[string]call {
	s := newSource(5)
	list := map[string]call{}
	{
		h, x, dst := head(t, workers), s.matrix(70, dim), mat.New(70, bins)
		c := &FourierCall{X: x, Logits: dst}
		list["FourierHead"] = call{dst, func(ctx context.Context, w int) error { c.Workers = w; return h.Run(ctx, c) }, h.ScratchBytes()}
	}
	for name, cross := range map[string]bool{"Gated": false, "Gated/cross": true} {
		g, x, dst, objects := gated(t, cross, workers), s.matrix(500, dim), mat.New(500, dim), s.matrix(9, contextDim)
		c := &GatedCall{Dst: dst, X: x, Objects: objects, Offsets: []int{0, 210, 210, 500}, ObjectOffsets: []int{0, 4, 6, 9}}
		list[name] = call{dst, func(ctx context.Context, w int) error { c.Workers = w; return g.Run(ctx, c) }, g.ScratchBytes(500, 9)}
	}
	{
		l, dst := tokensLayer(t, workers), mat.New(3*12, dim)
		c := &TokensCall{Dst: dst, Subjects: s.matrix(12, 6), Actions: s.matrix(12, 6), Objects: s.matrix(12, 6), SubjectBoxes: s.matrix(12, 4), ObjectBoxes: s.matrix(12, 4), Interactions: 3,
			Masked: []bool{3: true, 11: true}}
		list["Tokens"] = call{dst, func(ctx context.Context, w int) error { c.Workers = w; return l.Run(ctx, c) }, l.ScratchBytes()}
	}
	{
		l, x, dst := strip(t, workers), s.matrix(6*side*side, dim), mat.New(6*side*side, dim)
		c := &StripCall{Dst: dst, X: x}
		list["Strip"] = call{dst, func(ctx context.Context, w int) error { c.Workers = w; return l.Run(ctx, c) }, l.ScratchBytes()}
	}
	return list
}

// TestCalls: the workers of a call change no bit, a call that has run allocates nothing, its
// first takes no more memory than is said, and a context that ends stops it at any question.
func TestCalls(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for name, c := range calls(t, 3) {
			ctx := context.Background()
			if took := allocated(func() { must(t, c.run(ctx, 3)) }); took > c.bytes+1<<14 {
				t.Errorf("%s: a first call takes %d bytes, ScratchBytes is %d", name, took, c.bytes)
			}
			want := slices.Clone(c.dst.Data)
			for _, workers := range []int{1, 0, 5} {
				clear(c.dst.Data)
				must(t, c.run(ctx, workers))
				if !slices.Equal(c.dst.Data, want) {
					t.Errorf("%s: %d workers change the result", name, workers)
				}
			}
			for _, v := range want {
				if v-v != 0 {
					t.Fatalf("%s: a result is %v", name, v)
				}
			}
			if a := testing.AllocsPerRun(5, func() { must(t, c.run(ctx, 1)) }); a > 0 {
				t.Errorf("%s: %v allocations", name, a)
			}
			for asked := 0; ; asked++ {
				err := c.run(&statetest.Ending{Context: ctx, Left: asked}, 1)
				if err == nil {
					break
				}
				if err != context.Canceled {
					t.Fatalf("%s: error %v of a context that is done after %d questions", name, err, asked)
				}
			}
		}
	})
}

// TestGated: a sequence of a batch is what it is alone, prepared grounding changes no bit,
// closed gates change nothing, and the layer works in place.
func TestGated(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, cross := range []bool{false, true} {
			g, s := gated(t, cross, 2), newSource(6)
			x, objects, dst := s.matrix(40, dim), s.matrix(7, contextDim), mat.New(40, dim)
			ctx := context.Background()
			must(t, g.Run(ctx, &GatedCall{Dst: dst, X: x, Objects: objects, Offsets: []int{0, 15, 40}, ObjectOffsets: []int{0, 7, 7}}))
			for i, cut := range [][4]int{{0, 15, 0, 7}, {15, 40, 7, 7}} {
				alone := mat.New(cut[1]-cut[0], dim)
				must(t, g.Forward(alone, mat.Rows(x, cut[0], cut[1]), mat.Rows(objects, cut[2], cut[3])))
				if !slices.Equal(alone.Data, dst.Data[cut[0]*dim:cut[1]*dim]) {
					t.Errorf("cross %v: sequence %d is not what it is alone", cross, i)
				}
			}
			p, err := g.Ground(objects)
			must(t, err)
			want, got := mat.New(40, dim), mat.New(40, dim)
			must(t, g.Forward(want, x, objects))
			must(t, g.Run(ctx, &GatedCall{Dst: got, X: x, Grounding: p}))
			if !slices.Equal(got.Data, want.Data) {
				t.Errorf("cross %v: prepared grounding changes the result", cross)
			}
			mat.Copy(got, x)
			must(t, g.Forward(got, got, objects))
			if !slices.Equal(got.Data, want.Data) {
				t.Errorf("cross %v: in place the result is another", cross)
			}
			var closed float32
			must(t, g.Run(ctx, &GatedCall{Dst: got, X: x, Grounding: p, Scale: &closed}))
			if !slices.Equal(got.Data, x.Data) {
				t.Errorf("cross %v: closed gates change the tokens", cross)
			}
			if err := gated(t, cross, 1).Run(ctx, &GatedCall{Dst: got, X: x, Grounding: p}); !errors.Is(err, ErrCall) {
				t.Errorf("cross %v: another layer's grounding: error %v", cross, err)
			}
			if g.Bytes() < 4*16*dim*dim {
				t.Errorf("the weights take %d bytes", g.Bytes())
			}
		}
	})
}

// TestDistribution: a density is at least 0 and its integral is the CDF, whose inverse is
// Quantile; the bins of a call are what the closed form says; an input of 0 gives 1/2
// everywhere, and one of 1e30 what a smaller one does.
func TestDistribution(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		h, s := head(t, 1), newSource(7)
		d, err := h.Distribution(s.vector(dim))
		must(t, err)
		const steps = 20000
		sum := 0.0
		for i := range steps {
			z := -1 + (2*float64(i)+1)/steps
			v := d.Density(z)
			if v < 0 {
				t.Fatalf("density %v at %v", v, z)
			}
			if sum += v * 2 / steps; i%1000 == 0 && !near(sum, d.CDF(z+1.0/steps), 1e-6) {
				t.Errorf("the integral to %v is %v, CDF %v", z, sum, d.CDF(z+1.0/steps))
			}
		}
		for _, u := range []float64{0, 1e-9, 0.2, 0.9, 1} {
			if z := d.Quantile(u); !near(d.CDF(z), u, 1e-12) {
				t.Errorf("CDF of the quantile %v of %v is %v", z, u, d.CDF(z))
			}
		}
		if d.Density(1.5) != 0 || d.CDF(-2) != 0 || d.CDF(3) != 1 || !math.IsNaN(d.Quantile(math.NaN())) {
			t.Error("outside [-1, 1] there is something")
		}

		none, err := NewFourierHead(FourierConfig{Dim: dim, Bins: 3, Frequencies: 2}, FourierWeights{Weight: mat.New(6, dim), Bias: make([]float32, 6)})
		must(t, err)
		p := mat.New(1, 3)
		must(t, none.Run(context.Background(), &FourierCall{X: mat.New(1, dim), Probabilities: p}))
		if u, err := none.Distribution(make([]float32, dim)); err != nil || p.Data[0] != p.Data[2] || !near(float64(p.Data[1]), 1./3, 1e-6) || u.Density(0.3) != 0.5 || u.CDF(0.5) != 0.75 {
			t.Errorf("without coefficients: %v, error %v", p.Data, err)
		}

		large, err := NewFourierHead(FourierConfig{Dim: dim, Bins: bins, Frequencies: frequencies}, FourierWeights{Weight: newSource(1).matrix(2*(frequencies+1), dim), Bias: make([]float32, 2*(frequencies+1))})
		must(t, err)
		x, a, b := s.matrix(1, dim), mat.New(1, bins), mat.New(1, bins)
		must(t, large.Forward(a, x))
		for i := range x.Data {
			x.Data[i] *= 0x1p100
		}
		must(t, large.Forward(b, x))
		for i, v := range a.Data {
			if !near(float64(v), float64(b.Data[i]), 1e-5) {
				t.Errorf("logit %d is %v, of a larger input %v", i, v, b.Data[i])
			}
		}
	})
}

// TestStrip: an image of a batch is what it is alone, also in place; mistakes are named.
func TestStrip(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		l := strip(t, 2)
		x, dst, alone := newSource(8).matrix(3*side*side, dim), mat.New(3*side*side, dim), mat.New(side*side, dim)
		must(t, l.Forward(dst, x))
		must(t, l.Forward(alone, mat.Rows(x, side*side, 2*side*side)))
		if !slices.Equal(alone.Data, dst.Data[side*side*dim:2*side*side*dim]) {
			t.Error("an image of a batch is not what it is alone")
		}
		must(t, l.Forward(x, x))
		if !slices.Equal(x.Data, dst.Data) {
			t.Error("in place the result is another")
		}
		if err := l.Forward(mat.New(7, dim), mat.New(7, dim)); !errors.Is(err, ErrShape) {
			t.Errorf("seven pixels: error %v", err)
		}
		if l.Bytes() < 4*int64(dim*(dim*2+2*wide)) {
			t.Errorf("the weights take %d bytes", l.Bytes())
		}
	})
	if _, err := NewStrip(StripConfig{Dim: 12, Side: 3}, StripWeights{}); !errors.Is(err, ErrConfig) {
		t.Errorf("12 channels: error %v", err)
	}
}

// TestVanishingBins: where the density is 0 at the centre of every bin, all are alike.
func TestVanishingBins(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, c := range []struct {
			bins int
			a    []float32 // real parts and imaginary ones of a_0 …
		}{{1, []float32{1, -1, 0, 0}}, {2, []float32{1, 0, 1, 0, 0, 0}}} {
			n := len(c.a) / 2
			h, err := NewFourierHead(FourierConfig{Dim: 1, Bins: c.bins, Frequencies: n - 1}, FourierWeights{Weight: mat.New(2*n, 1), Bias: c.a})
			must(t, err)
			p := mat.New(1, c.bins)
			must(t, h.Run(context.Background(), &FourierCall{X: mat.New(1, 1), Probabilities: p}))
			for _, v := range p.Data {
				if !near(float64(v), 1/float64(c.bins), 1e-6) {
					t.Errorf("a = %v: %v", c.a, p.Data)
				}
			}
		}
	})
}

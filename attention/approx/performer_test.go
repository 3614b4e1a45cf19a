package approx

import (
	"context"
	"errors"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// TestProjection: rows of a block are orthogonal and as long as normal vectors are, another
// seed gives another projection, and one that is given and one that is made are the same.
func TestProjection(t *testing.T) {
	const d, features = 8, 2000
	make := func(cfg PerformerConfig) blas32.General {
		cfg.Heads, cfg.HeadDim = 1, d
		return value[*Performer](t)(NewPerformer(cfg)).Projection()
	}
	w := make(PerformerConfig{Features: features})
	square := 0.0
	for i := range features {
		x := vectorOf(w, i, 0, d)
		square += dot(x, x) / features
		for j := i / d * d; j < i; j++ {
			if p := dot(x, vectorOf(w, j, 0, d)); math.Abs(p) > 1e-5 {
				t.Fatalf("rows %d and %d of a block have the product %v", i, j, p)
			}
		}
	}
	if math.Abs(square-d) > 0.3 { // four standard deviations
		t.Errorf("the mean squared length is %v, want about %d", square, d)
	}
	sameBits(t, "given", make(PerformerConfig{Projection: w}), w)
	sameBits(t, "again", make(PerformerConfig{Features: features}), w)
	if other := make(PerformerConfig{Features: features, Seed: 1}); other.Data[0] == w.Data[0] {
		t.Error("another seed gives the same numbers")
	}
	for dim, want := range map[int]int{1: 1, 2: 1, 8: 16, 64: 266} {
		p := value[*Performer](t)(NewPerformer(PerformerConfig{Heads: 1, HeadDim: dim}))
		if p.Projection().Rows != want {
			t.Errorf("HeadDim %d: %d features, want %d", dim, p.Projection().Rows, want)
		}
	}
}

// TestStabilizer: a Stabilizer that is the largest of the keys' exponents gives what is
// published, whose results with a small Eps, not causal, hardly depend on it.
func TestStabilizer(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, causal := range []bool{false, true} {
			cfg := PerformerConfig{Heads: 1, HeadDim: 8, Causal: causal, Eps: 1e-7}
			p := value[*Performer](t)(NewPerformer(cfg))
			c := randomCall(1, p.sums.shape, 100, 100)
			run := func(p *Performer) blas32.General {
				c.Dst = mat.New(100, 8)
				if err := p.Run(context.Background(), c.call()); err != nil {
					t.Fatal(err)
				}
				return c.Dst
			}
			want := run(p)
			top := p.phi.(topper).top(new(featureWork), c.K)
			for _, fixed := range []float32{top, 0} {
				cfg.Stabilizer = &fixed
				got := run(value[*Performer](t)(NewPerformer(cfg)))
				tol := 1e-5
				if fixed == 0 {
					if causal {
						continue // what is added to z counts for more
					}
					tol = 1e-3
				}
				for i, x := range want.Data {
					if d := math.Abs(float64(got.Data[i] - x)); !(d <= tol) {
						t.Fatalf("Stabilizer %v: element %d is %v, want %v", fixed, i, got.Data[i], x)
					}
				}
			}
		}
	})
}

// TestForeignStates: a state belongs to operators of the same kind, shape and options alone.
func TestForeignStates(t *testing.T) {
	const h, d = 2, 4
	performer := func(change func(*PerformerConfig)) *featured {
		cfg := PerformerConfig{Heads: h, HeadDim: d, Causal: true, Stabilizer: new(float32)}
		if change != nil {
			change(&cfg)
		}
		return &value[*Performer](t)(NewPerformer(cfg)).featured
	}
	one := float32(1)
	all := []*featured{
		&value[*Linear](t)(NewLinear(LinearConfig{Heads: h, HeadDim: d, Causal: true})).featured,
		&value[*Based](t)(NewBased(BasedConfig{Heads: h, HeadDim: d})).featured,
		&value[*Based](t)(NewBased(BasedConfig{Heads: h, HeadDim: d, Eps: 1e-6})).featured,
		performer(nil),
		performer(func(c *PerformerConfig) { c.Seed = 1 }),
		performer(func(c *PerformerConfig) { c.Features = d }),
		performer(func(c *PerformerConfig) { c.Eps = 1e-3 }),
		performer(func(c *PerformerConfig) { c.Stabilizer = &one }),
		performer(func(c *PerformerConfig) { c.Stabilizer, c.ReLU = nil, true }),
	}
	for i, of := range all {
		st := value[*LinearState](t)(of.newState(StateConfig{}))
		for j, l := range all {
			m := normal(1, 1, h*d)
			err := l.step(mat.New(1, h*d), m, m, m, st)
			if (i == j) != (err == nil) || err != nil && !errors.Is(err, ErrState) {
				t.Errorf("a state of %d in %d: error %v", i, j, err)
			}
		}
	}
	if st := value[*LinearState](t)(performer(func(c *PerformerConfig) { c.Workers = 3 }).newState(StateConfig{})); performer(nil).checkState("State", st) != nil {
		t.Error("a state does not belong to an operator of the same Config")
	}
}

// meanError is |got - want| / |want|, mean over rows and heads.
func meanError(got, want blas32.General, heads int) float64 {
	sum, d := 0.0, want.Cols/heads
	for i := range want.Rows {
		for h := range heads {
			x, y := vectorOf(got, i, h, d), vectorOf(want, i, h, d)
			off := 0.0
			for e := range x {
				off += (x[e] - y[e]) * (x[e] - y[e])
			}
			sum += math.Sqrt(off / dot(y, y))
		}
	}
	return sum / float64(want.Rows*heads)
}

// scaled returns m times a.
func scaled(m blas32.General, a float32) blas32.General {
	for i := range m.Data {
		m.Data[i] *= a
	}
	return m
}

// TestPerformerError measures the approximation against exact attention for data as those of
// TestNystromError, the noise at several sizes of queries and keys. The documentation has what it prints.
func TestPerformerError(t *testing.T) {
	const heads, d = 2, 32
	n, features := 2048, []int{32, 110, 256, 1024}
	if testing.Short() {
		n, features = 256, []int{32, 110}
	}
	exact := value[*attention.Attention](t)(attention.New(attention.Config{Heads: heads, HeadDim: d}))
	noise := func(seed uint64) blas32.General { return normal(seed, n, heads*d) }
	for _, data := range []struct {
		name string
		make func(seed uint64) blas32.General
		size float32
		most float64
	}{
		{"smooth", func(seed uint64) blas32.General { return smooth(seed, n, heads*d) }, 1, 2},
		{"noise", noise, 0.25, 0.2},
		{"noise", noise, 0.5, 0.7},
		{"noise", noise, 1, 3},
	} {
		q, k, v := scaled(data.make(1), data.size), scaled(data.make(2), data.size), data.make(3)
		want, got := mat.New(n, heads*d), mat.New(n, heads*d)
		if err := exact.Forward(want, q, k, v); err != nil {
			t.Fatal(err)
		}
		for _, f := range features {
			for _, fixed := range []*float32{nil, new(float32)} {
				p := value[*Performer](t)(NewPerformer(PerformerConfig{Heads: heads, HeadDim: d, Features: f, Stabilizer: fixed}))
				if err := p.Forward(got, q, k, v); err != nil {
					t.Fatal(err)
				}
				mean := meanError(got, want, heads)
				t.Logf("%s of %v, %d features, Stabilizer 0 %v: %.2g", data.name, data.size, f, fixed != nil, mean)
				if !(mean <= data.most) {
					t.Errorf("%s of %v, %d features: %v, want at most %v", data.name, data.size, f, mean, data.most)
				}
			}
		}
	}
}

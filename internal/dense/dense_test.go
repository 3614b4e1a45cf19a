package dense

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

const rows, dim, inner = 70, 12, 20

func random(r *rand.Rand, rows, cols int) blas32.General {
	m := mat.New(rows, cols)
	for i := range m.Data {
		m.Data[i] = float32(r.NormFloat64())
	}
	return m
}

func linear(r *rand.Rand, out, in int) (*Linear, func(x []float32) []float64) {
	w, b := random(r, out, in), random(r, 1, out).Data
	return NewLinear(asm.Float32, w, b), func(x []float32) []float64 {
		y := make([]float64, out)
		for o := range y {
			y[o] = float64(b[o])
			for i, v := range mat.Row(w, o) {
				y[o] += float64(v) * float64(x[i])
			}
		}
		return y
	}
}

func near(t *testing.T, what string, got []float32, want []float64) {
	t.Helper()
	largest := 1.0
	for _, v := range want {
		largest = max(largest, math.Abs(v))
	}
	for i, v := range want {
		if d := math.Abs(float64(got[i]) - v); !(d <= 2e-6*largest) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], v)
		}
	}
}

func narrow(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(v)
	}
	return y
}

// TestLayers compares linear layers and both MLPs with the formulas, some rows and all.
func TestLayers(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		x := random(r, rows, dim)
		up, upBy := linear(r, inner, dim)
		both, bothBy := linear(r, 2*inner, dim)
		down, downBy := linear(r, dim, inner)
		plain, gated := &MLP{Up: up, Down: down}, &Gated{Up: both, Down: down}
		if plain.Hidden() != inner || gated.Hidden() != 2*inner || gated.Bytes() <= plain.Bytes() {
			t.Errorf("Hidden %d and %d", plain.Hidden(), gated.Hidden())
		}
		y, z, some := mat.New(rows, dim), mat.New(rows, dim), mat.New(3, dim)
		plain.Forward(nil, y, x, mat.New(rows, inner))
		gated.Forward(nil, z, x, mat.New(rows, 2*inner))
		gated.Forward(nil, some, mat.Rows(x, 5, 8), mat.New(3, 2*inner))
		for i, v := range some.Data {
			if v != mat.Rows(z, 5, 8).Data[i] {
				t.Fatalf("element %d of some rows is %v, of all %v", i, v, mat.Rows(z, 5, 8).Data[i])
			}
		}
		for t1 := range rows {
			h := upBy(mat.Row(x, t1))
			for i, v := range h {
				h[i] = 0.5 * v * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v)))
			}
			near(t, "MLP", mat.Row(y, t1), downBy(narrow(h)))
			g := bothBy(mat.Row(x, t1))
			for i := range inner {
				g[i] *= g[inner+i] / (1 + math.Exp(-g[inner+i]))
			}
			near(t, "Gated", mat.Row(z, t1), downBy(narrow(g[:inner])))
		}
	})
}

func TestNorms(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		x, w, b := random(r, 1, dim).Data, random(r, 1, dim).Data, random(r, 1, dim).Data
		var mean, square float64
		for _, v := range x {
			mean += float64(v) / dim
			square += float64(v) * float64(v) / dim
		}
		layer, rms := make([]float64, dim), make([]float64, dim)
		for i, v := range x {
			layer[i] = (float64(v)-mean)/math.Sqrt(square-mean*mean+0.01)*float64(w[i]) + float64(b[i])
			rms[i] = float64(v) / math.Sqrt(square+0.01) * float64(w[i])
		}
		got := make([]float32, dim)
		(&Norm{Weight: w, Bias: b, Eps: 0.01}).Row(got, x)
		near(t, "LayerNorm", got, layer)
		(&Norm{Weight: w, Eps: 0.01, RMS: true}).Row(got, x)
		near(t, "RMSNorm", got, rms)
		var none Norm
		if none.Row(got, x); got[3] != x[3] || none.Given() {
			t.Errorf("no norm makes %v of %v", got, x)
		}
	})
}

// TestVocabulary compares embeddings, a head's scale and cap, and likelihoods.
func TestVocabulary(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const vocab = 30
		r := rand.New(rand.NewPCG(1, 2))
		table := random(r, vocab, dim)
		weights := NewLinear(asm.Float32, table, nil)
		got, want := make([]float32, dim), mat.Row(table, 7)
		for name, e := range map[string]*Embedding{"table": {Table: table}, "tied": {Tied: weights}} {
			if v, d := e.Dims(); v != vocab || d != dim {
				t.Errorf("%s: %d x %d", name, v, d)
			}
			for _, scale := range []float32{0, 3} {
				e.Scale = scale
				e.Row(got, 7)
				for i, v := range want {
					if got[i] != v*max(scale, 1) {
						t.Errorf("%s: element %d is %v, want %v", name, i, got[i], v*max(scale, 1))
					}
				}
			}
		}
		x, z := random(r, 2, dim), mat.New(2, vocab)
		plain := mat.New(2, vocab)
		weights.Forward(plain, x)
		(&Head{Weights: weights, Scale: 0.5, Cap: 3}).Forward(nil, z, x)
		capped, exp := make([]float64, vocab), make([]float32, vocab)
		var sum float64
		for i, v := range mat.Row(plain, 1) {
			capped[i] = 3 * math.Tanh(0.5*float64(v)/3)
			sum += math.Exp(float64(v))
		}
		near(t, "capped", mat.Row(z, 1), capped)
		for i, v := range mat.Row(plain, 1) {
			if l := float64(LogSoftmaxAt(mat.Row(plain, 1), i, exp)); math.Abs(l-(float64(v)-math.Log(sum))) > 1e-5 {
				t.Errorf("ln p of %d is %v, want %v", i, l, float64(v)-math.Log(sum))
			}
		}
	})
}

// TestFingerprint: layers of other weights, bias or format have other fingerprints.
func TestFingerprint(t *testing.T) {
	make := func(change float32, format asm.Format, bias []float32) uint64 {
		w := random(rand.New(rand.NewPCG(1, 2)), inner, dim)
		w.Data[17] += change
		return NewLinear(format, w, bias).Fingerprint()
	}
	same := make(0, asm.Float32, nil)
	if make(0, asm.Float32, nil) != same {
		t.Error("the same layer has two fingerprints")
	}
	for i, other := range []uint64{make(1, asm.Float32, nil), make(0, asm.Int8, nil), make(0, asm.Float32, mat.New(1, inner).Data)} {
		if other == same {
			t.Errorf("layer %d has the fingerprint of another", i)
		}
	}
}

// TestActivations compares the gates with their formulas.
func TestActivations(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		u, g := random(r, 1, 40).Data, random(r, 1, 40).Data
		for i := range u {
			u[i], g[i] = 5*u[i], 5*g[i]
		}
		for act, by := range map[Activation]func(u, g float64) float64{
			SiLU: func(u, g float64) float64 { return u * g / (1 + math.Exp(-g)) },
			GELU: func(u, g float64) float64 { return u * 0.5 * g * (1 + math.Erf(g/math.Sqrt2)) },
			GELUTanh: func(u, g float64) float64 {
				return u * 0.5 * g * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(g+0.044715*g*g*g)))
			},
			ClampedSiLU: func(u, g float64) float64 {
				g = min(g, 7)
				return (max(-7, min(7, u)) + 1) * g / (1 + math.Exp(-1.702*g))
			},
		} {
			got, gate, want := append([]float32(nil), u...), append([]float32(nil), g...), make([]float64, len(u))
			for i := range u {
				want[i] = by(float64(u[i]), float64(g[i]))
			}
			(&Gated{Activation: act, Limit: 7}).gate(got, gate)
			near(t, "gate", got, want)
		}
	})
}

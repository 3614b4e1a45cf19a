package hyena

import (
	"errors"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
)

func TestFilterErrors(t *testing.T) {
	layer := FilterLayer{small(1, 8, 5), random(2, 8), random(3, 8)}
	good := FilterWeights{Layers: []FilterLayer{layer}, Out: small(4, 6, 8)}
	bad := math.NaN()
	for want, change := range map[string]func(c *FilterConfig, w *FilterWeights){
		"hyena: Channels is 0, want more than 0":                                        func(c *FilterConfig, w *FilterWeights) { c.Channels = 0 },
		"hyena: MaxLen is -1, want more than 0":                                         func(c *FilterConfig, w *FilterWeights) { c.MaxLen = -1 },
		"hyena: EmbDim is 4, want an odd number from 3":                                 func(c *FilterConfig, w *FilterWeights) { c.EmbDim = 4 },
		"hyena: Shift is NaN, want a finite number":                                     func(c *FilterConfig, w *FilterWeights) { c.Shift = &bad },
		"hyena: filter's T has 3 elements, want MaxLen = 20":                            func(c *FilterConfig, w *FilterWeights) { w.T = make([]float32, 3) },
		"hyena: filter's Z has 3 elements, want MaxLen*EmbDim = 100":                    func(c *FilterConfig, w *FilterWeights) { w.Z = make([]float32, 3) },
		"hyena: filter's Deltas has 1 elements, want Channels = 6":                      func(c *FilterConfig, w *FilterWeights) { w.Deltas = make([]float32, 1) },
		"hyena: filter layer's weight has 5 columns, want the layer's input = 7":        func(c *FilterConfig, w *FilterWeights) { c.EmbDim = 7 },
		"hyena: filter's output weight has 8 columns, want the last layer's output = 5": func(c *FilterConfig, w *FilterWeights) { w.Layers = nil },
	} {
		cfg, w := FilterConfig{Channels: 6, MaxLen: 20}, good
		change(&cfg, &w)
		if _, err := NewFilter(cfg, w); !errors.Is(err, ErrConfig) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	for _, cfg := range []FilterConfig{
		{Channels: math.MaxInt/2 + 1, MaxLen: 1}, {Channels: 1 << 24, MaxLen: 1}, {Channels: 6, MaxLen: math.MaxInt},
		{Channels: 6, MaxLen: 20, EmbDim: math.MaxInt}, {Channels: 6, MaxLen: 20, Target: 2}, {Channels: 6, MaxLen: 20, FastDecay: bad},
		{Channels: 6, MaxLen: 20, SlowDecay: -1},
	} {
		if _, err := NewFilter(cfg, good); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: error %v", cfg, err)
		}
	}
	f, err := NewFilter(FilterConfig{Channels: 6, MaxLen: 20}, good)
	if err != nil {
		t.Fatal(err)
	}
	k := matrix(1, 10, 6, 0)
	if err := f.Kernel(k, 11); !errors.Is(err, ErrTooLong) || err.Error() != "hyena: dst is 10 rows of a kernel from row 11, more than MaxLen = 20" {
		t.Errorf("error %v", err)
	}
	if err := f.Kernel(k, 10); err != nil {
		t.Error(err)
	}
}

// TestFilterRows checks that a row does not depend on what else is asked for.
func TestFilterRows(t *testing.T) {
	f := testFilter(t, 7, 400)
	whole := matrix(1, 400, 7, 0)
	if err := f.Kernel(whole, 0); err != nil {
		t.Fatal(err)
	}
	for from := 0; from < 400; from += 37 {
		part := matrix(2, min(37, 400-from), 7, 2)
		if err := f.Kernel(part, from); err != nil {
			t.Fatal(err)
		}
		for i := range part.Rows {
			for c := range 7 {
				if part.Data[i*part.Stride+c] != whole.Data[(from+i)*7+c] {
					t.Fatalf("row %d, channel %d is %v, of the whole %v", from+i, c, part.Data[i*part.Stride+c], whole.Data[(from+i)*7+c])
				}
			}
		}
	}
}

// TestFilterWindow compares decays and normalization with their definitions.
func TestFilterWindow(t *testing.T) {
	const channels, n = 5, 9
	w := FilterWeights{Layers: []FilterLayer{{small(1, 8, 5), random(2, 8), random(3, 8)}}, Out: small(4, channels, 8)}
	kernel := func(cfg FilterConfig) blas32.General {
		cfg.Channels, cfg.MaxLen = channels, n
		f, err := NewFilter(cfg, w)
		if err != nil {
			t.Fatal(err)
		}
		k := matrix(1, n, channels, 0)
		if err := f.Kernel(k, 0); err != nil {
			t.Fatal(err)
		}
		return k
	}
	none := new(float64)
	plain := kernel(FilterConfig{NoModulation: true})
	got := kernel(FilterConfig{Shift: none, FastDecay: 0.5, SlowDecay: 2, Target: 0.1})
	normalized := kernel(FilterConfig{NoModulation: true, Normalized: true})
	for i := range n {
		sum := 0.0
		for c := range channels {
			sum += math.Abs(float64(plain.Data[i*channels+c]))
		}
		for c := range channels {
			at := i*channels + c
			delta := math.Log(0.1)/2 + (math.Log(0.1)/0.5-math.Log(0.1)/2)*float64(c)/(channels-1)
			want := float64(plain.Data[at]) * math.Exp(float64(i)/(n-1)*delta)
			if math.Abs(float64(got.Data[at])-want) > 1e-6 {
				t.Errorf("row %d, channel %d is %v, want %v", i, c, got.Data[at], want)
			}
			if want := float64(plain.Data[at]) / sum; math.Abs(float64(normalized.Data[at])-want) > 1e-6 {
				t.Errorf("normalized: row %d, channel %d is %v, want %v", i, c, normalized.Data[at], want)
			}
		}
	}
	// The defaults, said.
	usual, said := kernel(FilterConfig{}), kernel(FilterConfig{FastDecay: 0.3, SlowDecay: 1.5, Target: 0.01})
	for i, v := range usual.Data {
		if v != said.Data[i] {
			t.Fatalf("element %d is %v, with the defaults said %v", i, v, said.Data[i])
		}
	}
}

// TestActivation applies each function before the output projection.
func TestActivation(t *testing.T) {
	const dim, n = 6, 40
	w := testWeights(t, dim, 2, 3, n)
	identity := unitMatrix(dim)
	w.Out, w.OutBias = identity, make([]float32, dim)
	x := matrix(3, n, dim, 0)
	plain := clone(x)
	if err := mustOperator(t, OperatorConfig{Dim: dim}, w).Forward(plain, x); err != nil {
		t.Fatal(err)
	}
	for a, f := range map[Activation]func(x float64) float64{
		GELU:        func(x float64) float64 { return x / 2 * math.Erfc(-x/math.Sqrt2) },
		SiLU:        func(x float64) float64 { return x / (1 + math.Exp(-x)) },
		ReLU:        func(x float64) float64 { return max(x, 0) },
		SquaredReLU: func(x float64) float64 { return max(x, 0) * max(x, 0) },
		Tanh:        math.Tanh,
		Sigmoid:     func(x float64) float64 { return 1 / (1 + math.Exp(-x)) },
		Softplus:    func(x float64) float64 { return math.Log1p(math.Exp(-math.Abs(x))) + max(x, 0) },
	} {
		dst := clone(x)
		if err := mustOperator(t, OperatorConfig{Dim: dim, Activation: a}, w).Forward(dst, x); err != nil {
			t.Fatal(err)
		}
		for i, v := range dst.Data {
			if want := f(float64(plain.Data[i])); math.Abs(float64(v)-want) > 1e-5*(1+math.Abs(want)) {
				t.Fatalf("activation %d of %v is %v, want %v", a, plain.Data[i], v, want)
			}
		}
	}
	if _, err := NewOperator(OperatorConfig{Dim: dim, Activation: Softplus + 1, Format: asm.Float32}, w); !errors.Is(err, ErrConfig) {
		t.Errorf("error %v", err)
	}
}

// unitMatrix returns the unit matrix.
func unitMatrix(n int) blas32.General {
	m := general(make([]float32, n*n), n, n)
	for i := range n {
		m.Data[i*n+i] = 1
	}
	return m
}

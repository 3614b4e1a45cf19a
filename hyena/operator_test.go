package hyena

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
)

// small returns a random matrix of a layer's scale.
func small(seed uint64, rows, cols int) blas32.General {
	m := matrix(seed, rows, cols, 0)
	for i := range m.Data {
		m.Data[i] /= float32(math.Sqrt(float64(cols)))
	}
	return m
}

func testFilter(t testing.TB, channels, maxLen int) *Filter {
	t.Helper()
	const hidden = 16
	ones := make([]float32, hidden)
	for i := range ones {
		ones[i] = 1
	}
	f, err := NewFilter(FilterConfig{Channels: channels, MaxLen: maxLen}, FilterWeights{
		Layers: []FilterLayer{{small(1, hidden, 5), random(2, hidden), ones}, {small(3, hidden, hidden), random(4, hidden), ones}},
		Out:    small(5, channels, hidden),
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func testWeights(t testing.TB, dim, order, taps, maxLen int) OperatorWeights {
	t.Helper()
	wide := (order + 1) * dim
	return OperatorWeights{
		In: small(11, wide, dim), InBias: random(12, wide), Short: small(13, wide, taps), ShortBias: random(14, wide),
		Filter: testFilter(t, (order-1)*dim, maxLen), Skip: random(15, (order-1)*dim), Out: small(16, dim, dim), OutBias: random(17, dim),
	}
}

func mustOperator(t testing.TB, cfg OperatorConfig, w OperatorWeights) *Operator {
	t.Helper()
	op, err := NewOperator(cfg, w)
	if err != nil {
		t.Fatal(err)
	}
	return op
}

// operator64 is the definition, in float64.
func operator64(w OperatorWeights, dim, order int, x blas32.General) []float64 {
	n, wide, taps := x.Rows, (order+1)*dim, w.Short.Cols
	u, c := make([]float64, n*wide), make([]float64, n*wide)
	for t := range n {
		for i := range wide {
			u[t*wide+i] = float64(w.InBias[i])
			for j := range dim {
				u[t*wide+i] += float64(w.In.Data[i*dim+j]) * float64(x.Data[t*x.Stride+j])
			}
		}
	}
	for t := range n {
		for i := range wide {
			c[t*wide+i] = float64(w.ShortBias[i])
			for j := range taps {
				if s := t - taps + 1 + j; s >= 0 {
					c[t*wide+i] += float64(w.Short.Data[i*taps+j]) * u[s*wide+i]
				}
			}
		}
	}
	k := matrix(0, n, (order-1)*dim, 0)
	if err := w.Filter.Kernel(k, 0); err != nil {
		panic(err)
	}
	v := make([]float64, n*dim)
	for t := range n {
		copy(v[t*dim:(t+1)*dim], c[t*wide+order*dim:])
	}
	for o := range order - 1 {
		gated := make([]float64, n*dim)
		for t := range n {
			for d := range dim {
				gated[t*dim+d] = v[t*dim+d] * c[t*wide+(order-1-o)*dim+d]
			}
		}
		for t := range n {
			for d := range dim {
				sum := float64(w.Skip[o*dim+d]) * gated[t*dim+d]
				for m := range t + 1 {
					sum += float64(k.Data[m*k.Stride+o*dim+d]) * gated[(t-m)*dim+d]
				}
				v[t*dim+d] = sum
			}
		}
	}
	y := make([]float64, n*dim)
	for t := range n {
		for i := range dim {
			y[t*dim+i] = float64(w.OutBias[i])
			for d := range dim {
				y[t*dim+i] += float64(w.Out.Data[i*dim+d]) * v[t*dim+d] * c[t*wide+d]
			}
		}
	}
	return y
}

// TestOperator compares with the definition across blocks of tokens, orders and
// short kernels longer than what comes before, and expects the same bits of every
// number of workers, in place too.
func TestOperator(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, c := range []struct{ n, dim, order, taps int }{{1, 5, 2, 3}, {30, 8, 2, 3}, {201, 17, 2, 3}, {420, 4, 3, 4}, {390, 3, 4, 1}, {400, 3, 2, 250}} {
			w := testWeights(t, c.dim, c.order, c.taps, 500)
			x := matrix(20, c.n, c.dim, 3)
			want := operator64(w, c.dim, c.order, x)
			var largest float64 // a transform's error is relative to the largest of all
			for _, v := range want {
				largest = max(largest, math.Abs(v))
			}
			var first []float32
			for _, workers := range []int{1, 3, 8} {
				op := mustOperator(t, OperatorConfig{Dim: c.dim, Order: c.order, Workers: workers, SpectraBytes: int64(workers) << 10}, w)
				dst := matrix(21, c.n, c.dim, 1)
				if err := op.Forward(dst, x); err != nil {
					t.Fatal(err)
				}
				same := clone(x)
				if err := op.Forward(same, same); err != nil {
					t.Fatal(err)
				}
				for i, v := range want {
					got := dst.Data[i/c.dim*dst.Stride+i%c.dim]
					if math.Abs(float64(got)-v) > 1e-4*(1+math.Abs(v))+2e-6*largest {
						t.Fatalf("%+v: element %d is %v, want %v", c, i, got, v)
					}
					if got != same.Data[i/c.dim*same.Stride+i%c.dim] {
						t.Fatalf("%+v: element %d differs in place", c, i)
					}
					if first != nil && got != first[i/c.dim*dst.Stride+i%c.dim] {
						t.Fatalf("%+v, %d workers: element %d has other bits", c, workers, i)
					}
				}
				first = dst.Data
			}
		}
	})
}

// TestOperatorPrefix checks causality: a prefix gives the prefix of the whole,
// by whatever transform sizes the two take.
func TestOperatorPrefix(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const dim, n = 6, 300
		op := mustOperator(t, OperatorConfig{Dim: dim}, testWeights(t, dim, 2, 3, n))
		x := matrix(20, n, dim, 0)
		whole := clone(x)
		if err := op.Forward(whole, whole); err != nil {
			t.Fatal(err)
		}
		for _, m := range []int{1, 2, 31, 33, 100, 257, 299} {
			part := clone(x)
			part.Rows = m
			if err := op.Forward(part, part); err != nil {
				t.Fatal(err)
			}
			for i := range m * dim {
				if d := math.Abs(float64(part.Data[i] - whole.Data[i])); d > 2e-5 {
					t.Fatalf("%d tokens: element %d is %v, of the whole %v", m, i, part.Data[i], whole.Data[i])
				}
			}
		}
	})
}

func TestOperatorFormats(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const dim, n = 32, 100
		w := testWeights(t, dim, 2, 3, n)
		x := matrix(20, n, dim, 0)
		exact := operator64(w, dim, 2, x)
		for format, limit := range map[asm.Format]float64{asm.Float32: 1e-4, asm.BFloat16: 0.03, asm.Float16: 0.004, asm.Int8: 0.06} {
			op := mustOperator(t, OperatorConfig{Dim: dim, Format: format}, w)
			dst := clone(x)
			if err := op.Forward(dst, dst); err != nil {
				t.Fatal(err)
			}
			var diff, size float64
			for i, v := range exact {
				diff += (float64(dst.Data[i]) - v) * (float64(dst.Data[i]) - v)
				size += v * v
			}
			if e := math.Sqrt(diff / size); !(e < limit) {
				t.Errorf("%v: relative error %v", format, e)
			}
		}
	})
}

// TestScratch expects the same bits from operators that share working memory, one
// after the other and at once.
func TestScratch(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		var shared Scratch
		var wg sync.WaitGroup
		for i, s := range []struct{ dim, order, n int }{{12, 2, 400}, {30, 3, 90}, {12, 2, 700}} {
			w := testWeights(t, s.dim, s.order, 3, s.n)
			own, sharing := mustOperator(t, OperatorConfig{Dim: s.dim, Order: s.order}, w), mustOperator(t, OperatorConfig{Dim: s.dim, Order: s.order, Scratch: &shared}, w)
			x := matrix(uint64(i), s.n, s.dim, 0)
			want, got := matrix(8, s.n, s.dim, 0), matrix(9, s.n, s.dim, 0)
			if err := errors.Join(own.Forward(want, x), sharing.Forward(got, x)); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.Data, want.Data) {
				t.Errorf("operator %d: another result", i)
			}
			for range 4 {
				wg.Go(func() {
					y := clone(x)
					if err := sharing.Forward(y, y); err != nil || !slices.Equal(y.Data, want.Data) {
						t.Errorf("operator %d, at once with others: another result, error %v", i, err)
					}
				})
			}
		}
		wg.Wait()
	})
}

func TestOperatorAllocations(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, workers := range []int{1, 4} {
			op := mustOperator(t, OperatorConfig{Dim: 20, Order: 3, Workers: workers}, testWeights(t, 20, 3, 3, 500))
			x := matrix(20, 500, 20, 0)
			if a := isatest.Allocations(func() { op.Forward(x, x) }); a != 0 {
				t.Errorf("%d workers: %v allocations a call", workers, a)
			}
		}
	})
}

func TestOperatorErrors(t *testing.T) {
	good := testWeights(t, 4, 2, 3, 50)
	for want, change := range map[string]func(c *OperatorConfig, w *OperatorWeights){
		"hyena: Dim is 0, want more than 0":                                                 func(c *OperatorConfig, w *OperatorWeights) { c.Dim = 0 },
		"hyena: Order is 1 and Dim 4, want an order from 2 to 1000 and a Dim up to 2145338": func(c *OperatorConfig, w *OperatorWeights) { c.Order = 1 },
		"hyena: Workers is -1, want 0 to 65536":                                             func(c *OperatorConfig, w *OperatorWeights) { c.Workers = -1 },
		"hyena: Filter is nil":                                                              func(c *OperatorConfig, w *OperatorWeights) { w.Filter = nil },
		"hyena: In has 11 rows, want 12":                                                    func(c *OperatorConfig, w *OperatorWeights) { w.In.Rows = 11 },
		"hyena: Short has 0 columns, want a tap or more":                                    func(c *OperatorConfig, w *OperatorWeights) { w.Short.Cols = 0 },
		"hyena: OutBias has 3 elements, want Dim = 4":                                       func(c *OperatorConfig, w *OperatorWeights) { w.OutBias = w.OutBias[:3] },
		"hyena: Skip has 0 elements, want (Order-1)*Dim = 4":                                func(c *OperatorConfig, w *OperatorWeights) { w.Skip = nil },
		"hyena: Filter has 8 channels, want (Order-1)*Dim = 4":                              func(c *OperatorConfig, w *OperatorWeights) { w.Filter = testFilter(t, 8, 50) },
		"hyena: Out is 4 x 4 with stride 4 but has only 15 elements":                        func(c *OperatorConfig, w *OperatorWeights) { w.Out.Data = w.Out.Data[:15] },
		"hyena: Format is 9, want one of the constants":                                     func(c *OperatorConfig, w *OperatorWeights) { c.Format = 9 },
	} {
		cfg, w := OperatorConfig{Dim: 4}, good
		change(&cfg, &w)
		if _, err := NewOperator(cfg, w); !errors.Is(err, ErrConfig) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	op := mustOperator(t, OperatorConfig{Dim: 4}, good)
	long := matrix(1, 51, 4, 0)
	if err := op.Forward(long, long); !errors.Is(err, ErrTooLong) || err.Error() != "hyena: x has 51 rows, more than MaxLen = 50" {
		t.Errorf("error %v", err)
	}
	if err := op.Forward(matrix(1, 5, 4, 0), matrix(1, 5, 3, 0)); !errors.Is(err, ErrShape) {
		t.Errorf("error %v", err)
	}
	if err := op.Forward(blas32.General{Cols: 4}, blas32.General{Cols: 4}); err != nil {
		t.Errorf("no tokens: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	x := matrix(1, 40, 4, 0)
	if err := op.Run(ctx, &OperatorCall{Dst: x, X: x}); err != context.Canceled {
		t.Errorf("error %v", err)
	}
	if err := op.Forward(x, x); err != nil {
		t.Errorf("after a cancelled call: %v", err)
	}
}

func BenchmarkOperator(b *testing.B) {
	const n, dim = 1024, 128
	op := mustOperator(b, OperatorConfig{Dim: dim}, testWeights(b, dim, 2, 3, n))
	x, dst := matrix(1, n, dim, 0), matrix(2, n, dim, 0)
	op.Forward(dst, x)
	b.ReportAllocs()
	for b.Loop() {
		op.Forward(dst, x)
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}

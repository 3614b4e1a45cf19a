package longmamba

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
	"github.com/subquad/subquad/ssm"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func value[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func second[T any](_ T, err error) error { return err }

// wants fails the test unless err matches kind and reads as it should.
func wants(t *testing.T, err, kind error, text string) {
	t.Helper()
	if !errors.Is(err, kind) || err.Error() != text {
		t.Errorf("error %q, want %q", err, text)
	}
}

// same fails the test unless got and want are equal, and numbers.
var same = mattest.Same

// near fails the test unless got and want differ by at most tol of the largest value.
var near = mattest.NearLargest

func zeros(rows, cols int) blas32.General { return mat.New(rows, cols) }

func normal(seed uint64, scale, offset float64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(offset + scale*r.NormFloat64())
	}
	return x
}

func random(seed uint64, rows, cols int, scale, offset float64) blas32.General {
	return mat.Of(normal(seed, scale, offset, rows*cols), rows, cols)
}

// decays returns n random negative rates, exp of a normal distribution.
func decays(seed uint64, n int) []float32 {
	a := normal(seed, 1, 1, n)
	for i, v := range a {
		a[i] = -float32(math.Exp(float64(v)))
	}
	return a
}

// batch is what a call says of its sequences.
type batch struct {
	state   *ssm.State
	offsets []int
	states  []*ssm.State
}

// stepper is an operator over rows of one input.
type stepper struct {
	op       Operator
	in, out  int     // columns
	exact    bool    // any split gives the same bits
	tol      float64 // else this much of the largest value
	newState func(cfg ssm.StateConfig) (*ssm.State, error)
	run      func(ctx context.Context, dst, x blas32.General, b batch, filter ssm.DeltaFilter, workers int) error
}

func (s *stepper) name() string { return s.op.Identity().Name }

func (s *stepper) forward(t testing.TB, x blas32.General) blas32.General {
	t.Helper()
	dst := zeros(x.Rows, s.out)
	must(t, s.run(t.Context(), dst, x, batch{}, nil, 1))
	return dst
}

func (s *stepper) compare(t testing.TB, what string, got, want []float32) {
	t.Helper()
	if s.exact {
		same(t, s.name()+": "+what, got, want)
	} else {
		near(t, s.name()+": "+what, got, want, s.tol)
	}
}

// columns cuts x into matrices of the given widths.
func columns(x blas32.General, widths ...int) (list [5]blas32.General) {
	at := 0
	for i, w := range widths {
		list[i] = mat.Columns(x, at, w)
		at += w
	}
	return list
}

func testScan(t testing.TB, channels, states, groups int) stepper {
	op := value[*ssm.Scan](t)(ssm.NewScan(ssm.ScanConfig{Channels: channels, States: states, Groups: groups, Softplus: true, DtMin: 0.001, DtMax: 5},
		ssm.ScanWeights{A: mat.Of(decays(1, channels*states), channels, states), D: normal(2, 1, 0, channels), DtBias: normal(3, 1, -2, channels)}))
	w := []int{channels, channels, groups * states, groups * states, channels}
	return stepper{
		op: op, in: 3*channels + 2*groups*states, out: channels, exact: true, newState: op.NewState,
		run: func(ctx context.Context, dst, x blas32.General, b batch, filter ssm.DeltaFilter, workers int) error {
			c := columns(x, w...)
			return op.Run(ctx, &ssm.ScanCall{
				Dst: dst, X: c[0], Dt: c[1], B: c[2], C: c[3], Z: c[4], Filter: filter, Workers: workers,
				State: b.state, Offsets: b.offsets, States: b.states,
			})
		},
	}
}

func testSSD(t testing.TB, heads, width, states, groups int) stepper {
	op := value[*ssm.SSD](t)(ssm.NewSSD(ssm.SSDConfig{Heads: heads, HeadDim: width, States: states, Groups: groups, Softplus: true},
		ssm.SSDWeights{A: decays(1, heads), D: normal(2, 1, 0, heads), DtBias: normal(3, 2, -2, heads)}))
	w := []int{heads * width, heads, groups * states, groups * states, heads * width}
	return stepper{
		op: op, in: 2*heads*width + heads + 2*groups*states, out: heads * width, tol: 2e-5, newState: op.NewState,
		run: func(ctx context.Context, dst, x blas32.General, b batch, filter ssm.DeltaFilter, workers int) error {
			c := columns(x, w...)
			return op.Run(ctx, &ssm.SSDCall{
				Dst: dst, X: c[0], Dt: c[1], B: c[2], C: c[3], Z: c[4], Filter: filter, Workers: workers,
				State: b.state, Offsets: b.offsets, States: b.states,
			})
		},
	}
}

func mambaWeights(dim, inner, states, rank, taps int) ssm.MambaWeights {
	return ssm.MambaWeights{
		In: random(1, 2*inner, dim, 0.3, 0), InBias: normal(2, 0.1, 0, 2*inner), Conv: random(3, inner, taps, 0.5, 0), ConvBias: normal(4, 0.1, 0, inner),
		X: random(5, rank+2*states, inner, 0.3, 0), Dt: random(6, inner, rank, 0.5, 0), DtBias: normal(7, 1, -2, inner),
		ALog: random(8, inner, states, 1, 0), D: normal(9, 1, 0, inner), Out: random(10, dim, inner, 0.3, 0), OutBias: normal(11, 0.1, 0, dim),
	}
}

func mamba2Weights(dim, heads, width, states, groups, taps int) ssm.Mamba2Weights {
	wide, shared := heads*width, 2*groups*states
	return ssm.Mamba2Weights{
		In: random(1, 2*wide+shared+heads, dim, 0.3, 0), Conv: random(3, wide+shared, taps, 0.5, 0), ConvBias: normal(4, 0.1, 0, wide+shared),
		DtBias: normal(7, 1, -2, heads), ALog: normal(8, 1, 0, heads), D: normal(9, 1, 0, heads), Norm: normal(12, 0.1, 1, wide),
		Out: random(10, dim, wide, 0.3, 0),
	}
}

// blocks are one of each kind.
func blocks(t testing.TB) map[string]ssm.Block {
	return map[string]ssm.Block{
		"Mamba":  value[*ssm.Mamba](t)(ssm.NewMamba(ssm.MambaConfig{}, mambaWeights(12, 24, 5, 3, 4))),
		"Mamba2": value[*ssm.Mamba2](t)(ssm.NewMamba2(ssm.Mamba2Config{States: 6, HeadDim: 8, Groups: 2}, mamba2Weights(12, 4, 8, 6, 2, 4))),
	}
}

func testBlock(b ssm.Block, tol float64) stepper {
	call := new(ssm.BlockCall) // one for all: behind an interface each would be allocated
	return stepper{
		op: b, in: b.Dim(), out: b.Dim(), exact: tol == 0, tol: tol, newState: b.NewState,
		run: func(ctx context.Context, dst, x blas32.General, p batch, filter ssm.DeltaFilter, workers int) error {
			*call = ssm.BlockCall{Dst: dst, X: x, Filter: filter, Workers: workers, State: p.state, Offsets: p.offsets, States: p.states}
			return b.Run(ctx, call)
		},
	}
}

// filtered are the operators that take a filter.
func filtered(t testing.TB) []stepper {
	list := blocks(t)
	return []stepper{
		testScan(t, 40, 7, 1), testScan(t, 300, 16, 1), testScan(t, 42, 4, 3), testScan(t, 1, 1, 1),
		testSSD(t, 3, 5, 7, 1), testSSD(t, 4, 40, 16, 2), testSSD(t, 1, 64, 128, 1),
		testBlock(list["Mamba"], 0), testBlock(list["Mamba2"], 2e-5),
	}
}

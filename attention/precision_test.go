package attention

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/isa/isatest"
)

var precisions = []asm.Precision{asm.Single, asm.BFloat16x3, asm.BFloat16x6, asm.BFloat16x1}

// inPrecisions runs f under every tier in every precision; in a short run the portable form does
// one part alone.
func inPrecisions(t *testing.T, f func(t *testing.T, precision asm.Precision)) {
	t.Helper()
	isatest.Run(t, func(t *testing.T) {
		for _, p := range precisions {
			if testing.Short() && p.Unit() == "none" && p != asm.Single && p != asm.BFloat16x1 {
				continue
			}
			t.Run(p.String(), func(t *testing.T) { f(t, p) })
		}
	})
}

// goldenPrecision is what the golden vectors are computed in, goldenWider by how much a
// precision's tolerances are wider than float32's.
var (
	goldenPrecision asm.Precision
	goldenReach     = 1.0 // of the logits, as logitReach tells
	goldenWider     = map[asm.Precision]float64{asm.Single: 1, asm.BFloat16x3: 30, asm.BFloat16x6: 1, asm.BFloat16x1: 6000}
)

func widened(t golden.Tolerance) golden.Tolerance {
	wider := goldenWider[goldenPrecision]
	if wider > 1 {
		wider *= goldenReach
	}
	t.Abs, t.Rel = wider*t.Abs, wider*t.Rel
	return t
}

// everyPrecision tests golden vectors in parts of bfloat16, within the tolerance of float32 in three
// parts, 3e-4 in two and .06 in one, and then in float32.
func everyPrecision(f func(*testing.T, *golden.File)) func(*testing.T, *golden.File) {
	return func(t *testing.T, file *golden.File) {
		defer func() { goldenPrecision = asm.Single }()
		for _, goldenPrecision = range precisions[1:] {
			f(t, file)
		}
		goldenPrecision = asm.Single
		f(t, file)
	}
}

// TestPrecisionOracle compares random calls, with any options, with float64; without the
// unit they have the same bits.
func TestPrecisionOracle(t *testing.T) {
	inPrecisions(t, func(t *testing.T, precision asm.Precision) {
		if precision == asm.Single {
			return // TestOracle
		}
		tol := map[asm.Precision]float64{asm.BFloat16x3: 5e-4, asm.BFloat16x6: 5e-5, asm.BFloat16x1: 0.1}[precision]
		n := uint64(100)
		if testing.Short() || precision.Unit() == "none" {
			n = 12
		}
		for seed := range n {
			a, c, name := randomCall(t, seed)
			cfg, tight := a.Config(), a.sizes.Block == 13
			cfg.Precision = precision
			a = must(t, cfg)
			if tight {
				small(a)
			}
			run := func() {
				outputs(a, c)
				if err := a.Run(context.Background(), c); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			run()
			want := oracle(a, c)
			near(t, name+": dst", c.Dst, want.out, tol)
			near(t, name+": mass", c.Mass, want.mass, 3*tol)
			if !a.cfg.ReLU {
				near(t, name+": LSE", c.LSE, want.lse, tol)
				near(t, name+": entropy", c.Entropy, want.entropy, 3*tol)
			}
			if precision.Unit() == "none" {
				continue
			}
			dst, mass := slices.Clone(c.Dst.Data), slices.Clone(c.Mass.Data)
			restore := isa.Without(isa.AMXBFloat16)
			run()
			restore()
			sameBits(t, name+": dst without the unit", c.Dst.Data, dst)
			sameBits(t, name+": mass without the unit", c.Mass.Data, mass)
		}
	})
}

// TestPrecisionHostile has NaN, infinities and numbers near the ends of float32 among the inputs:
// bits are still the same without the unit, and what is hidden stays so.
func TestPrecisionHostile(t *testing.T) {
	if asm.BFloat16x1.Unit() == "none" {
		t.Skip("not run: unit")
	}
	hostile := []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32, -3.39e38, 1e30, -1e30, 1e-30, 1e-38, -1e-40, 1e-45}
	for _, precision := range precisions[1:] {
		for seed := range uint64(12) {
			const n, d = 70, 40
			a := must(t, Config{Heads: 2, KVHeads: 1, HeadDim: d, Causal: true, Precision: precision})
			small(a)
			r := rand.New(rand.NewPCG(seed, 0))
			q, k, v := matrix(3*seed, n, 2*d), matrix(3*seed+1, n, d), matrix(3*seed+2, n, d)
			for _, m := range []blas32.General{q, k, v} {
				for range seed % 4 * 5 {
					m.Data[r.IntN(len(m.Data))] = hostile[r.IntN(len(hostile))]
				}
				if seed >= 8 { // all products tiny
					for i := range m.Data {
						m.Data[i] *= float32(math.Ldexp(1, -r.IntN(120)))
					}
				}
			}
			run := func() []float32 {
				dst := matrix(9, n, 2*d)
				if err := a.Forward(dst, q, k, v); err != nil {
					t.Fatal(err)
				}
				for i, x := range dst.Data {
					if x != x {
						dst.Data[i] = float32(math.NaN()) // of one kind
					}
				}
				return dst.Data
			}
			with := run()
			restore := isa.Without(isa.AMXBFloat16)
			without := run()
			restore()
			sameBits(t, fmt.Sprintf("%v, seed %d", precision, seed), with, without)
		}
	}
}

// TestPrecisionHidden puts values and keys that are not finite after a query: not a bit of its output
// changes in parts of bfloat16, where it would by as much as weights are rounded.
func TestPrecisionHidden(t *testing.T) {
	inPrecisions(t, func(t *testing.T, precision asm.Precision) {
		if precision == asm.Single {
			return
		}
		const n, d, at = 70, 40, 50
		a := must(t, Config{Heads: 2, KVHeads: 1, HeadDim: d, Causal: true, Precision: precision})
		for _, tight := range []bool{false, true} {
			if tight {
				small(a)
			}
			q, want := matrix(1, n, 2*d), matrix(4, n, 2*d)
			for _, x := range []float32{0, float32(math.Inf(1)), float32(math.NaN()), 3.4e38} {
				k, v, dst := matrix(2, n, d), matrix(3, n, d), matrix(4, n, 2*d)
				if x != 0 {
					k.Data[at*d], v.Data[at*d+7], v.Data[(at+9)*d+d-1] = x, x, x
				}
				if err := a.Forward(dst, q, k, v); err != nil {
					t.Fatal(err)
				}
				if x == 0 {
					want = dst
					continue
				}
				sameBits(t, fmt.Sprintf("%v after %d queries", x, at), dst.Data[:at*2*d], want.Data[:at*2*d])
				if last := dst.Data[n*2*d-1]; last-last == 0 {
					t.Errorf("the last query sees %v, and has %v", x, last)
				}
			}
		}
	})
}

// TestPrecisionSkip: what Config.Skip takes for a lower bound of a logit is one in each precision, where
// all elements round down.
func TestPrecisionSkip(t *testing.T) {
	inPrecisions(t, func(t *testing.T, precision asm.Precision) {
		const d = 64
		a := must(t, Config{Heads: 1, HeadDim: d, Scale: 1, Skip: 1e-6, Workers: 1, Precision: precision})
		x, lse := matrix(1, 1, d), matrix(2, 1, 1)
		for i := range x.Data {
			x.Data[i] = 1 + 0x1p-8 + 0x1p-17 - 0x1p-16
		}
		one := []blas32.General{x}
		if err := a.Run(context.Background(), &Call{Dst: matrix(3, 1, d), Q: x, K: one, V: one, LSE: lse}); err != nil {
			t.Fatal(err)
		}
		r := a.forwards.Get()
		if least, logit := r.work[0].least[0], lse.Data[0]; !(least <= logit && least > logit-2.5) {
			t.Errorf("a logit of %v is told to be %v at least", logit, least)
		}
	})
}

// TestPrecisionConfig checks that a precision is told by Config, is no part of what states
// belong to, and that one that is not there is an error.
func TestPrecisionConfig(t *testing.T) {
	a, b := must(t, Config{Heads: 2, HeadDim: 4, Causal: true}), must(t, Config{Heads: 2, HeadDim: 4, Causal: true, Precision: asm.BFloat16x3})
	if a.Config().Precision != asm.Single || b.Config().Precision != asm.BFloat16x3 {
		t.Errorf("precisions %v and %v", a.Config().Precision, b.Config().Precision)
	}
	x := matrix(1, 3, 8)
	s := newState(t, a, StateConfig{})
	for _, op := range []*Attention{a, b} { // steps are in float32
		if err := op.Step(matrix(2, 3, 8), x, x, x, s); err != nil {
			t.Error(err)
		}
	}
	_, err := New(Config{Heads: 2, HeadDim: 4, Precision: 4})
	if want := "attention: Precision is 4, want Single, BFloat16x3, BFloat16x6 or BFloat16x1"; err == nil || fmt.Sprint(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

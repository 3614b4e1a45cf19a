package kvcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/kernel/kerneltest"
	"github.com/subquad/subquad/internal/mat"
)

var shadowOp = Config{Heads: 6, KVHeads: 2, HeadDim: 16, ValueDim: 12, Keep: 3, Recent: 20, Chunk: 1, Select: Shadow{TopK: 10}}

func newShadow(t testing.TB, change func(*Config)) (*Attention, *State) {
	t.Helper()
	cfg := shadowOp
	if change != nil {
		change(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.NewState(StateConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return a, s
}

// shadowTokens are queries, keys and values of shadowOp.
func shadowTokens(n int) (q, k, v blas32.General) {
	return normalMatrix(1, n, 6*16), normalMatrix(2, n, 2*16), normalMatrix(3, n, 2*12)
}

// goOn steps through rows from ... to.
func goOn(t testing.TB, a *Attention, s *State, q, k, v blas32.General, from, to int) blas32.General {
	t.Helper()
	dst := mat.New(to-from, a.cfg.Heads*a.cfg.ValueDim)
	for i := from; i < to; i++ {
		if err := a.Step(mat.Rows(dst, i-from, i-from+1), mat.Rows(q, i, i+1), mat.Rows(k, i, i+1), mat.Rows(v, i, i+1), s); err != nil {
			t.Fatal(err)
		}
	}
	return dst
}

func sameBits(t testing.TB, what string, got, want blas32.General) {
	t.Helper()
	if err := kerneltest.SameBits(got.Data[:got.Rows*got.Stride], want.Data[:want.Rows*want.Stride]); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// TestShadowLaws forks, takes back, stores and shares work: the same bits each time.
func TestShadowLaws(t *testing.T) {
	for _, bits := range []int{8, 4} {
		t.Run(fmt.Sprint(bits, " bits"), func(t *testing.T) { shadowLaws(t, bits) })
	}
}

func shadowLaws(t *testing.T, bits int) {
	policy := func(c *Config) { c.Select = Shadow{Bits: bits, TopK: 10} }
	isatest.Run(t, func(t *testing.T) {
		const n, base = 1090, 1010 // a block is made on the way
		q, k, v := shadowTokens(n)
		a, s := newShadow(t, policy)
		fillState(t, s, mat.Rows(k, 0, base), mat.Rows(v, 0, base))
		fork := s.Clone()
		want := goOn(t, a, s, q, k, v, base, n)
		sameBits(t, "a fork", goOn(t, a, fork, q, k, v, base, n), want)
		for _, to := range []int{1030, 1020, 1025, 600} {
			if err := fork.Truncate(to); err != nil {
				t.Fatal(err)
			}
			from := max(to, base)
			if to < base {
				fillState(t, fork, mat.Rows(k, to, base), mat.Rows(v, to, base))
			}
			sameBits(t, fmt.Sprint("truncated to ", to), goOn(t, a, fork, q, k, v, from, n), mat.Rows(want, from-base, n-base))
		}
		if err := s.Truncate(1050); err != nil {
			t.Fatal(err)
		}
		var file bytes.Buffer
		if _, err := s.WriteTo(&file); err != nil {
			t.Fatal(err)
		}
		read, err := a.ReadState(&file)
		if err != nil {
			t.Fatal(err)
		}
		sameBits(t, "read", goOn(t, a, read, q, k, v, 1050, n), mat.Rows(want, 1050-base, n-base))
		for workers := range 6 {
			b, s := newShadow(t, func(c *Config) { policy(c); c.Workers = workers })
			fillState(t, s, mat.Rows(k, 0, base), mat.Rows(v, 0, base))
			sameBits(t, fmt.Sprint(workers, " workers"), goOn(t, b, s, q, k, v, base, base+9), mat.Rows(want, 0, 9))
		}
		// Query heads of a group, and key heads, may be exchanged.
		mqa, m := newShadow(t, func(c *Config) { policy(c); c.Heads, c.KVHeads = 3, 1 })
		fillState(t, m, mat.Columns(mat.Rows(k, 0, base), 16, 16), mat.Columns(mat.Rows(v, 0, base), 12, 12))
		got := goOn(t, mqa, m, mat.Columns(q, 48, 48), mat.Columns(k, 16, 16), mat.Columns(v, 12, 12), base, base+9)
		for i := range got.Rows {
			if err := kerneltest.SameBits(mat.Row(got, i), mat.Part(want, i, 36, 36)); err != nil {
				t.Fatalf("a key head alone: %v", err)
			}
		}
	})
}

// TestShadowExact reads everything where the budget has room for it, or where nothing can
// be estimated: the bits of attention.
func TestShadowExact(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n = 700
		q, k, v := shadowTokens(n + 1)
		all, plain := newShadow(t, func(c *Config) { c.Select = nil })
		fillState(t, plain, mat.Rows(k, 0, n), mat.Rows(v, 0, n))
		want := goOn(t, all, plain.Clone(), q, k, v, n, n+1)
		for what, change := range map[string]func(*Config){
			"a large TopK":   func(c *Config) { c.Select = Shadow{TopK: n} },
			"a large Recent": func(c *Config) { c.Recent = n },
			"Dense":          func(c *Config) { c.Dense = n + 1 },
			"a small Eps":    func(c *Config) { c.Select = Shadow{TopK: 10, Eps: 1e-9} },
		} {
			a, s := newShadow(t, change)
			fillState(t, s, mat.Rows(k, 0, n), mat.Rows(v, 0, n))
			sameBits(t, what, goOn(t, a, s, q, k, v, n, n+1), want)
		}
		// What is not finite is read, and seen, exactly where it is.
		bad := blas32.General{Rows: k.Rows, Cols: k.Cols, Stride: k.Stride, Data: append([]float32(nil), k.Data...)}
		bad.Data[600*bad.Stride+20] = float32(math.Inf(-1))
		a, s := newShadow(t, func(c *Config) { c.Select = Shadow{TopK: 10, Drop: false} })
		fillState(t, s, mat.Rows(bad, 0, n), mat.Rows(v, 0, n))
		b := goOn(t, a, s, q, k, v, n, n+1)
		for i, x := range b.Data[:36] {
			if x != x {
				t.Fatalf("output %d of a head without it is %v", i, x)
			}
		}
		q.Data[n*q.Stride] = float32(math.NaN())
		a, s = newShadow(t, nil)
		fillState(t, s, mat.Rows(k, 0, n), mat.Rows(v, 0, n))
		sameBits(t, "a query of NaN", goOn(t, a, s, q, k, v, n, n+1), goOn(t, all, plain, q, k, v, n, n+1))
	})
}

// TestShadowEps reads until the missing share is certain, and no more than that takes.
func TestShadowEps(t *testing.T) {
	const n = 4000
	q, k, v := shadowTokens(n + 1)
	for i := range n { // a token that has nearly all the weight
		for g := range 2 {
			key := mat.Part(k, i, 16*g, 16)
			for d := range key {
				key[d] *= .2
				if i == 777 {
					key[d] = 9 * mat.Part(q, n, 48*g, 16)[d]
				}
			}
		}
	}
	for h := range 6 {
		copy(mat.Part(q, n, 16*h, 16), mat.Part(q, n, h/3*48, 16))
	}
	for _, eps := range []float64{.1, 1e-3} {
		a, s := newShadow(t, func(c *Config) { c.Select = Shadow{TopK: 10, Eps: eps} })
		fillState(t, s, mat.Rows(k, 0, n), mat.Rows(v, 0, n))
		var report Report
		dst := mat.New(1, 72)
		c := &attention.Call{State: s, Dst: dst, Q: mat.Rows(q, n, n+1), K: []blas32.General{mat.Rows(k, n, n+1)}, V: []blas32.General{mat.Rows(v, n, n+1)}, Options: &Options{Report: &report}}
		if err := a.Run(context.Background(), c); err != nil {
			t.Fatal(err)
		}
		if report.Missing > eps || report.Tokens > 2*600 {
			t.Errorf("eps %v: %+v", eps, report)
		}
		for h := range 6 {
			if x, y := dst.Data[12*h], mat.Part(v, 777, 12*(h/3), 1)[0]; math.Abs(float64(x-y)) > 3*eps {
				t.Errorf("head %d: %v, want the value %v of the token", h, x, y)
			}
		}
	}
}

// TestShadowSteady allocates nothing for a step that makes no block.
func TestShadowSteady(t *testing.T) {
	for _, workers := range []int{1, 4} {
		const n = 1100
		q, k, v := shadowTokens(n + 1)
		a, s := newShadow(t, func(c *Config) { c.Workers = workers })
		fillState(t, s, mat.Rows(k, 0, n), mat.Rows(v, 0, n))
		dst := mat.New(1, 72)
		step := func() {
			if err := a.Step(dst, mat.Rows(q, n, n+1), mat.Rows(k, n, n+1), mat.Rows(v, n, n+1), s); err != nil {
				t.Fatal(err)
			}
			if err := s.Truncate(n); err != nil {
				t.Fatal(err)
			}
		}
		step()
		if got := testing.AllocsPerRun(20, step); got > 0 && workers == 1 {
			t.Errorf("%v allocations a step, want none", got)
		}
	}
}

func TestShadowErrors(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"kvcache: Shadow.Bits is 7, want 8 or 4":                                            func(c *Config) { c.Select = Shadow{Bits: 7} },
		"kvcache: Shadow.TopK is -1, want 0 to 2^24":                                        func(c *Config) { c.Select = Shadow{TopK: -1} },
		"kvcache: Shadow.Eps is NaN, want at least 0 and less than 1":                       func(c *Config) { c.Select = Shadow{Eps: math.NaN()} },
		"kvcache: Shadow.Softcap is 3, want 0: bounds hold for logits without":              func(c *Config) { c.Softcap = 3 },
		"kvcache: Shadow.Evict is kvcache.H2O, want nil: all tokens stay":                   func(c *Config) { c.Evict = H2O{Budget: 100} },
		"kvcache: Shadow.HeadDim is 3000, want at most 2048":                                func(c *Config) { c.HeadDim = 3000 },
		"kvcache: Cached.Select is a kvcache.Shadow, whose choices are not of tokens alone": func(c *Config) { c.Select = Cached{Select: Shadow{}} },
	} {
		cfg := shadowOp
		change(&cfg)
		if _, err := New(cfg); !errors.Is(err, ErrConfig) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

package attention

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
	"github.com/subquad/subquad/internal/tile"
)

func must(t testing.TB, cfg Config) *Attention {
	t.Helper()
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a.integer = a.integer || int8Products
	return a
}

// part returns rows from ... to of m.
func part(m blas32.General, from, to int) blas32.General {
	m.Rows, m.Data = to-from, m.Data[min(from*m.Stride, len(m.Data)):]
	return m
}

var close64, sameBits = mattest.Close, mattest.SameBits

// TestLogWeights has log n stand for a key repeated n times, and -Inf for none.
func TestLogWeights(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const queries, keys, d = 20, 60, 12
		a := must(t, Config{Heads: 2, HeadDim: d, Softcap: 3})
		small(a)
		q, k, v := matrix(1, queries, 2*d), matrix(2, keys, 2*d), matrix(3, keys, 2*d)
		weights := general(make([]float32, keys), keys, 1)
		var rk, rv []float32
		for j := range keys {
			n := j % 4
			weights.Data[j] = float32(math.Log(float64(n)))
			for range n {
				rk, rv = append(rk, k.Data[j*2*d:][:2*d]...), append(rv, v.Data[j*2*d:][:2*d]...)
			}
		}
		got, want := matrix(4, queries, 2*d), matrix(5, queries, 2*d)
		c := &Call{Dst: got, Q: q, K: []blas32.General{k}, V: []blas32.General{v}, LogWeights: weights}
		if err := a.Run(context.Background(), c); err != nil {
			t.Fatal(err)
		}
		if err := a.Forward(want, q, general(rk, len(rk)/2/d, 2*d), general(rv, len(rv)/2/d, 2*d)); err != nil {
			t.Fatal(err)
		}
		close64(t, "log-weights", got.Data, want.Data, 5e-6)
	})
}

// TestBits runs the same calls with any number of workers and any memory for
// packed keys, many tiles each way: the same bits come out.
func TestBits(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, cfg := range []Config{
			{Heads: 6, KVHeads: 2, HeadDim: 20, Causal: true, Sinks: random(1, 6)},
			{Heads: 2, HeadDim: 33, Window: 100, LookAhead: new(30), Softcap: 5, Bias: alibi{0.1, 0.01}, Skip: 1e-3},
			{Heads: 6, KVHeads: 2, HeadDim: 20, Causal: true, Precision: asm.BFloat16x3},
		} {
			n := 430
			if testing.Short() {
				n = 230 // three blocks of rows all the same
			}
			q, k, v := matrix(1, n, cfg.Heads*cfg.HeadDim), matrix(2, n, 2*cfg.HeadDim), matrix(3, n, 2*cfg.HeadDim)
			extra := []Extra{{Heads: 2, K: []blas32.General{matrix(4, 50, 2*cfg.HeadDim)}, V: []blas32.General{matrix(5, 50, 2*cfg.HeadDim)}}}
			var want *Call
			for workers := 1; workers <= 8; workers++ {
				if testing.Short() && workers > 3 && workers < 8 {
					continue
				}
				cfg.Workers = workers
				a := must(t, cfg)
				keys := 2 * a.panel()
				a.sizes = tile.Sizes{Keys: keys, Rows: 17, Block: 100, Alone: 1}
				a.sizes.Pack = workers * a.slot().size
				c := &Call{Q: q, K: []blas32.General{k}, V: []blas32.General{v}, Extra: extra}
				outputs(a, c)
				if err := a.Run(context.Background(), c); err != nil {
					t.Fatal(err)
				}
				if want == nil {
					want = c
				}
				for i := range n {
					sameBits(t, "dst", mat.Row(c.Dst, i), mat.Row(want.Dst, i))
					sameBits(t, "LSE", mat.Row(c.LSE, i), mat.Row(want.LSE, i))
				}
			}
		}
	})
}

// TestBitsOfWorkers is TestBits for mass and entropy, whose sums over queries
// depend on the tiles of rows but not on who does them.
func TestBitsOfWorkers(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n, d = 700, 16
		q, k, v := matrix(1, n, 4*d), matrix(2, n, 2*d), matrix(3, n, 2*d)
		var want *Call
		for _, workers := range []int{1, 2, 3, 8} {
			a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: d, Causal: true, Workers: workers})
			c := &Call{Q: q, K: []blas32.General{k}, V: []blas32.General{v}}
			outputs(a, c)
			if err := a.Run(context.Background(), c); err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = c
			}
			for i := range n {
				sameBits(t, "dst", mat.Row(c.Dst, i), mat.Row(want.Dst, i))
				sameBits(t, "mass", mat.Row(c.Mass, i), mat.Row(want.Mass, i))
				sameBits(t, "entropy", mat.Row(c.Entropy, i), mat.Row(want.Entropy, i))
			}
		}
	})
}

// TestHuge has logits of +-1e30 and rows that see nothing: all stays finite.
func TestHuge(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n, d = 90, 4
		a := must(t, Config{Heads: 1, HeadDim: d, Scale: 1})
		small(a)
		q, k, v := general(make([]float32, n*d), n, d), matrix(2, n, d), matrix(3, n, d)
		mask := MatrixMask{Queries: n, Keys: n, Seen: make([]bool, n*n)}
		for i := range n {
			q.Data[i*d] = []float32{1e30, -1e30, 0}[i%3]
			k.Data[i*d] = []float32{1, -1, 0.5, 0}[i%4]
			for j := range n {
				mask.Seen[i*n+j] = i%5 != 2 && (j+i)%7 != 0
			}
		}
		c := &Call{Q: q, K: []blas32.General{k}, V: []blas32.General{v}, Mask: mask}
		outputs(a, c)
		if err := a.Run(context.Background(), c); err != nil {
			t.Fatal(err)
		}
		want := oracle(a, c)
		near(t, "dst", c.Dst, want.out, 1e-5)
		for i := range n {
			lse := float64(c.LSE.Data[i*c.LSE.Stride])
			if hidden := i%5 == 2; math.IsInf(lse, -1) != hidden || math.IsNaN(lse) || math.IsInf(lse, 1) {
				t.Fatalf("LSE of query %d is %v", i, lse)
			}
		}
	})
}

// TestHiddenGarbage puts NaN and Inf where nobody looks: behind a causal query,
// outside a window, under a mask, with a weight of -Inf.
func TestHiddenGarbage(t *testing.T) {
	inPrecisions(t, func(t *testing.T, precision asm.Precision) {
		const n, d = 100, 8
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1))} {
			a := must(t, Config{Heads: 1, HeadDim: d, Causal: true, Window: 20, Precision: precision})
			q, k, v := matrix(1, n, d), matrix(2, n, d), matrix(3, n, d)
			mask := MatrixMask{Queries: n, Keys: n, Seen: make([]bool, n*n)}
			weights := general(make([]float32, n), n, 1)
			for i := range mask.Seen {
				mask.Seen[i] = i%n != 33
			}
			weights.Data[55] = float32(math.Inf(-1))
			c := &Call{Q: q, K: []blas32.General{k}, V: []blas32.General{v}, Mask: mask, LogWeights: weights}
			outputs(a, c)
			if err := a.Run(context.Background(), c); err != nil {
				t.Fatal(err)
			}
			clean := slices.Clone(c.Dst.Data)
			for _, j := range []int{33, 55, 90} {
				for i := range d {
					v.Data[j*d+i] = bad
					if j != 55 { // NaN + -Inf is NaN
						k.Data[j*d+i] = bad
					}
				}
			}
			if err := a.Run(context.Background(), c); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				row := c.Dst.Data[i*c.Dst.Stride:][:d]
				switch {
				case i < 90:
					close64(t, "a query that does not see them", row, clean[i*c.Dst.Stride:][:d], goldenWider[precision]*1e-6)
				case row[0] == row[0]:
					t.Fatalf("query %d sees %v and gives %v", i, bad, row[0])
				}
			}
		}
	})
}

// TestSkip checks the promise of Config.Skip and that something is skipped.
func TestSkip(t *testing.T) {
	inPrecisions(t, func(t *testing.T, precision asm.Precision) {
		if testing.Short() && precision != asm.Single && precision.Unit() == "none" {
			return // slow
		}
		const n, d, heads = 600, 16, 2
		for _, causal := range []bool{true, false} {
			exact := must(t, Config{Heads: heads, HeadDim: d, Causal: causal, Bias: alibi{0.5, 2}, Softcap: 20, Precision: precision})
			small(exact)
			q, k, v := matrix(1, n, heads*d), matrix(2, n, heads*d), matrix(3, n, heads*d)
			want := matrix(4, n, heads*d)
			if err := exact.Forward(want, q, k, v); err != nil {
				t.Fatal(err)
			}
			for _, skip := range []float32{1e-6, 1e-2} {
				asked := &counter{alibi: alibi{0.5, 2}}
				a := must(t, Config{Heads: heads, HeadDim: d, Causal: causal, Bias: asked, Softcap: 20, Skip: skip, Workers: 1, Precision: precision})
				small(a)
				got := matrix(5, n, heads*d)
				if err := a.Forward(got, q, k, v); err != nil {
					t.Fatal(err)
				}
				largest := float32(0)
				for _, x := range v.Data {
					largest = max(largest, x, -x)
				}
				for i, w := range want.Data {
					if diff := math.Abs(float64(got.Data[i] - w)); diff > float64(2*skip*largest)+1e-5 {
						t.Fatalf("skip %v: element %d is %v, want %v", skip, i, got.Data[i], w)
					}
				}
				if all := n * n * heads; asked.pairs > all/3 {
					t.Errorf("skip %v, causal %v: %d of %d pairs were computed", skip, causal, asked.pairs, all)
				}
			}
		}
	})
}

// counter counts the pairs that a bias was asked for.
type counter struct {
	alibi
	pairs int
}

func (c *counter) AddTo(s blas32.General, head int, query, key int64) {
	c.pairs += s.Rows * s.Cols
	c.alibi.AddTo(s, head, query, key)
}

// TestSegments cuts keys and values into segments: the bits stay.
func TestSegments(t *testing.T) {
	inPrecisions(t, func(t *testing.T, precision asm.Precision) {
		const n, d = 130, 10
		a := must(t, Config{Heads: 2, KVHeads: 1, HeadDim: d, Causal: true, Precision: precision})
		small(a)
		q, k, v, want := matrix(1, n, 2*d), matrix(2, n, d), matrix(3, n, d), matrix(4, n, 2*d)
		if err := a.Forward(want, q, k, v); err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(3, 3))
		for parts := 2; parts < 8; parts++ {
			cuts := randomCuts(r, n, parts)
			c := &Call{Dst: matrix(5, n, 2*d), Q: q}
			for i := range parts {
				c.K, c.V = append(c.K, part(k, cuts[i], cuts[i+1])), append(c.V, part(v, cuts[i], cuts[i+1]))
			}
			if err := a.Run(context.Background(), c); err != nil {
				t.Fatal(err)
			}
			sameBits(t, "segments", c.Dst.Data, want.Data)
		}
	})
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	a := must(t, Config{Heads: 1, HeadDim: 4})
	x := matrix(1, 50, 4)
	c := &Call{Dst: matrix(2, 50, 4), Q: x, K: []blas32.General{x}, V: []blas32.General{x}}
	c.Visible = func(int64) (int64, int64) { cancel(); return 0, 10 }
	small(a)
	if err := a.Run(ctx, c); err != context.Canceled {
		t.Errorf("error %v", err)
	}
	c.Visible = func(int64) (int64, int64) { panic("no idea") }
	if err := a.Run(context.Background(), c); err == nil || err.Error() != "attention: panic in a worker: no idea" {
		t.Errorf("error %v", err)
	}
	if errors.Is(ErrShape, ErrCall) || errors.Is(ErrCall, ErrConfig) {
		t.Error("sentinels match each other")
	}
}

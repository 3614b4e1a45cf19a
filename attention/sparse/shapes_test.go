package sparse

import (
	"context"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// spaced copies a matrix to one with NaN between its rows.
func spaced(m blas32.General, by int) blas32.General {
	if m.Rows == 0 {
		return m
	}
	x := blas32.General{Rows: m.Rows, Cols: m.Cols, Stride: m.Cols + by, Data: make([]float32, (m.Rows-1)*(m.Cols+by)+m.Cols)}
	for i := range x.Data {
		x.Data[i] = nan
	}
	mat.Copy(x, m)
	return x
}

// ties makes the elements few integers, so that scores are exact and many of them equal.
func ties(m blas32.General, r *rand.Rand) {
	for i := range m.Data {
		m.Data[i] = float32(r.IntN(3) - 1)
	}
}

// seeds is how many random cases are tried.
func seeds() uint64 {
	if testing.Short() {
		return 20
	}
	return 60
}

// pickInt returns one of some numbers.
func pickInt(r *rand.Rand, x ...int) int { return x[r.IntN(len(x))] }

// intact fails the test where NaN between rows has been overwritten.
func intact(t *testing.T, m blas32.General) {
	t.Helper()
	for i, x := range m.Data {
		if i%m.Stride >= m.Cols && x == x {
			t.Fatalf("element %d, between rows of %d in %d, was written", i, m.Cols, m.Stride)
		}
	}
}

// TestBlocksShapes compares blocks and widths beside the borders of panels and tiles, and blocks
// larger than sequences, with float64; what lies between rows is NaN, and ScratchBytes a bound.
func TestBlocksShapes(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for seed := range seeds() {
			r := rand.New(rand.NewPCG(seed, 1))
			kv := 1 + r.IntN(3)
			cfg := BlocksConfig{Heads: kv * (1 + r.IntN(3)), KVHeads: kv, HeadDim: pickInt(r, 1, 3, 63, 65), ValueDim: pickInt(r, 1, 3, 63, 65), Causal: r.IntN(2) == 0,
				QueryBlock: pickInt(r, 1, 3, 64, 200, 1<<20), KeyBlock: pickInt(r, 1, 3, 32, 64, 500, 1<<29), Workers: 1 + r.IntN(3)}
			b := mustBlocks(t, cfg)
			n, m := pickInt(r, 0, 1, 2, 50, 300), pickInt(r, 0, 1, 2, 50, 300)
			q, k, v := matrix(seed, n, cfg.Heads*cfg.HeadDim), matrix(seed+1, m, kv*cfg.HeadDim), matrix(seed+2, m, kv*cfg.ValueDim)
			c := randomChoice(r, []int{1, kv, cfg.Heads}[r.IntN(3)], []int{ceil(n, cfg.QueryBlock)}, []int{ceil(m, cfg.KeyBlock)})
			dst := spaced(mat.New(n, cfg.Heads*cfg.ValueDim), 5)
			lse, weights := spaced(mat.New(n, cfg.Heads), 2), matrix(seed+3, m, pickInt(r, 1, kv))
			if err := b.Run(context.Background(), &attention.Call{
				Dst: dst, LSE: lse, Q: spaced(q, 3), K: []blas32.General{spaced(k, 2)}, V: []blas32.General{spaced(v, 7)}, LogWeights: spaced(weights, 4), Options: c,
			}); err != nil {
				t.Fatal(err)
			}
			intact(t, dst)
			intact(t, lse)
			weight := func(g, j int) float64 { return float64(mat.Row(weights, j)[min(g, weights.Cols-1)]) }
			want, sums := dense(q, k, v, cfg.Heads, kv, b.cfg.Scale, weight, func(h, i, j int) bool {
				for _, x := range c.List(i/cfg.QueryBlock*c.Heads + h*c.Heads/cfg.Heads) {
					if int(x) == j/cfg.KeyBlock && (!cfg.Causal || j <= i+m-n) {
						return true
					}
				}
				return false
			})
			near(t, "dst", dst, want, 2e-5)
			near(t, "LSE", lse, sums, 2e-5)
			held, said := isatest.Held(b.scratch.Get()), b.ScratchBytes(n, m)
			if held > said {
				t.Errorf("%+v %d %d: held %d, said %d", cfg, n, m, held, said)
			}
		}
	})
}

// TestMoBAShapes is TestBlocksShapes of MoBA, with gates of which many are equal; steps give the
// same.
func TestMoBAShapes(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for seed := range seeds() {
			r := rand.New(rand.NewPCG(seed, 1))
			kv := 1 + r.IntN(3)
			cfg := MoBAConfig{Heads: kv * (1 + r.IntN(3)), KVHeads: kv, HeadDim: pickInt(r, 1, 3, 63, 65), ValueDim: pickInt(r, 1, 3, 63, 65),
				Block: pickInt(r, 1, 2, 4, 32, 64, 1<<29), TopK: pickInt(r, 1, 2, 3, 40, 1<<20), Workers: 1 + r.IntN(3)}
			m := mustMoBA(t, cfg)
			n := pickInt(r, 0, 1, 2, 50, 300)
			q, k, v := matrix(seed, n, cfg.Heads*cfg.HeadDim), matrix(seed+1, n, kv*cfg.HeadDim), matrix(seed+2, n, kv*cfg.ValueDim)
			ties(q, r)
			ties(k, r)
			dst := spaced(mat.New(n, cfg.Heads*cfg.ValueDim), 5)
			lse := spaced(mat.New(n, cfg.Heads), 2)
			if err := m.Run(context.Background(), &attention.Call{Dst: dst, LSE: lse, Q: spaced(q, 3), K: []blas32.General{spaced(k, 2)}, V: []blas32.General{spaced(v, 7)}}); err != nil {
				t.Fatal(err)
			}
			intact(t, dst)
			intact(t, lse)
			want, sums := dense(q, k, v, cfg.Heads, kv, m.cfg.Scale, func(int, int) float64 { return 0 }, mobaSees(&m.cfg, q, k))
			near(t, "dst", dst, want, 2e-5)
			near(t, "LSE", lse, sums, 2e-5)
			held, said := isatest.Held(m.scratch.Get()), m.ScratchBytes(n)
			if held > said {
				t.Errorf("%+v %d: held %d, said %d", cfg, n, held, said)
			}
			s, err := m.NewState(MoBAStateConfig{})
			if err != nil {
				t.Fatal(err)
			}
			dst = spaced(dst, 1)
			for i := range dst.Data {
				dst.Data[i] = nan // whatever is not written
			}
			for at := 0; at < n; {
				to := min(n, at+pickInt(r, 1, 2, 4, 5, 30))
				if err := m.Step(mat.Rows(dst, at, to), mat.Rows(q, at, to), mat.Rows(k, at, to), mat.Rows(v, at, to), s); err != nil {
					t.Fatal(err)
				}
				at = to
			}
			near(t, "steps", dst, want, 2e-5)
		}
	})
}

// TestNSAShapes is TestBlocksShapes of NSA.
func TestNSAShapes(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for seed := range seeds() {
			r := rand.New(rand.NewPCG(seed, 1))
			kv := 1 + r.IntN(3)
			cfg := NSAConfig{Heads: kv * (1 + r.IntN(3)), KVHeads: kv, HeadDim: pickInt(r, 1, 3, 63, 65), ValueDim: pickInt(r, 1, 3, 63, 65),
				Block: pickInt(r, 1, 3, 32, 64, 1<<16), TopK: pickInt(r, 1, 2, 3, 40, 1<<29), Workers: 1 + r.IntN(3), Window: pickInt(r, 1, 3, 100, 1<<29)}
			if r.IntN(3) == 0 {
				cfg.Stride, cfg.Compress = 1, pickInt(r, 1, 3, 7, 64, 65)
			}
			a := mustNSA(t, cfg)
			n := pickInt(r, 0, 1, 2, 50, 150)
			x := nsaCase{a: a, q: matrix(seed, n, cfg.Heads*cfg.HeadDim), k: matrix(seed+1, n, kv*cfg.HeadDim), v: matrix(seed+2, n, kv*cfg.ValueDim)}
			if r.IntN(2) == 0 {
				ties(x.q, r)
				ties(x.k, r)
			}
			x.gates = Gates{matrix(1, n, cfg.Heads), matrix(2, n, cfg.Heads), matrix(3, n, cfg.Heads)}
			var blocks []int32
			if int64(n)*int64(kv)*int64(cfg.TopK) < 1<<24 {
				blocks = make([]int32, n*kv*cfg.TopK)
			}
			dst := spaced(mat.New(n, cfg.Heads*cfg.ValueDim), 5)
			g := Gates{spaced(x.gates.Compressed, 1), spaced(x.gates.Selected, 2), spaced(x.gates.Window, 3)}
			c := &attention.Call{Dst: dst, Q: spaced(x.q, 3), K: []blas32.General{spaced(x.k, 2)}, V: []blas32.General{spaced(x.v, 7)}, Options: &NSAOptions{Gates: g, Blocks: blocks}}
			if err := a.Run(context.Background(), c); err != nil {
				t.Fatal(err)
			}
			intact(t, dst)
			if blocks != nil {
				near(t, "dst", dst, x.oracle(t, blocks), 4e-5)
			}
			held, said := isatest.Held(a.scratch.Get()), a.ScratchBytes(n)
			if held > said {
				t.Errorf("%+v %d: held %d, said %d", cfg, n, held, said)
			}
		}
	})
}

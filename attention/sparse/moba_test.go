package sparse

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
	"github.com/subquad/subquad/internal/tile"
)

func mustMoBA(t testing.TB, cfg MoBAConfig) *MoBA {
	t.Helper()
	m, err := NewMoBA(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// mobaSees tells which keys each query of a head sees, by gates in float64.
func mobaSees(cfg *MoBAConfig, q, k blas32.General) func(h, i, j int) bool {
	d := cfg.HeadDim
	chosen := map[[2]int][]int{}
	for h := range cfg.Heads {
		g := h / (cfg.Heads / cfg.KVHeads)
		for i := range q.Rows {
			own := i / cfg.Block
			var order []int
			gate := make([]float64, own)
			for b := range own {
				order = append(order, b)
				for j := b * cfg.Block; j < (b+1)*cfg.Block; j++ {
					gate[b] += mattest.Dot(mat.Part(q, i, h*d, d), mat.Part(k, j, g*d, d))
				}
			}
			sort.SliceStable(order, func(x, y int) bool { return gate[order[x]] > gate[order[y]] })
			chosen[[2]int{h, i}] = append(order[:min(cfg.TopK-1, own)], own)
		}
	}
	return func(h, i, j int) bool { return j <= i && slices.Contains(chosen[[2]int{h, i}], j/cfg.Block) }
}

// mobaCase is a random operator with a packed call.
func mobaCase(seed uint64) (cfg MoBAConfig, c attention.Call) {
	r := rand.New(rand.NewPCG(seed, 7))
	kvHeads := 1 + r.IntN(2)
	cfg = MoBAConfig{
		Heads: kvHeads * (1 + r.IntN(3)), KVHeads: kvHeads, HeadDim: 1 + r.IntN(20), ValueDim: 1 + r.IntN(20),
		Block: 1 + r.IntN(9), TopK: 1 + r.IntN(5), Workers: 1 + r.IntN(3),
	}
	c.Offsets = []int{0}
	for range 1 + r.IntN(3) {
		c.Offsets = append(c.Offsets, c.Offsets[len(c.Offsets)-1]+r.IntN(90))
	}
	n := c.Offsets[len(c.Offsets)-1]
	c.Q, c.Dst, c.LSE = matrix(seed, n, cfg.Heads*cfg.HeadDim), mat.New(n, cfg.Heads*cfg.ValueDim), mat.New(n, cfg.Heads)
	c.K, c.V = []blas32.General{matrix(seed+1, n, kvHeads*cfg.HeadDim)}, []blas32.General{matrix(seed+2, n, kvHeads*cfg.ValueDim)}
	return cfg, c
}

// TestMoBAOracle compares random packed batches, small tiles and large, with gates and
// masks in float64, and their sequences alone with them.
func TestMoBAOracle(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		seeds := uint64(100)
		if testing.Short() {
			seeds = 30
		}
		for seed := range seeds {
			cfg, c := mobaCase(10 * seed)
			end := func() {}
			if seed%2 == 0 {
				end = tile.Small()
			}
			m := mustMoBA(t, cfg)
			end()
			if err := m.Run(context.Background(), &c); err != nil {
				t.Fatal(err)
			}
			for s, from := range c.Offsets[:len(c.Offsets)-1] {
				to := c.Offsets[s+1]
				q, k, v := mat.Rows(c.Q, from, to), mat.Rows(c.K[0], from, to), mat.Rows(c.V[0], from, to)
				want, lse := dense(q, k, v, cfg.Heads, cfg.KVHeads, m.cfg.Scale, func(int, int) float64 { return 0 }, mobaSees(&m.cfg, q, k))
				near(t, "dst", mat.Rows(c.Dst, from, to), want, 2e-5)
				near(t, "LSE", mat.Rows(c.LSE, from, to), lse, 2e-5)
				alone := mat.New(to-from, c.Dst.Cols)
				if err := m.Forward(alone, q, k, v); err != nil {
					t.Fatal(err)
				}
				sameBits(t, "a sequence alone", alone.Data, c.Dst.Data[from*c.Dst.Cols:to*c.Dst.Cols])
			}
			again := c
			again.Dst, again.LSE, again.Workers = mat.New(c.Q.Rows, c.Dst.Cols), mat.New(c.Q.Rows, cfg.Heads), 4
			if err := m.Run(context.Background(), &again); err != nil {
				t.Fatal(err)
			}
			sameBits(t, "with 4 workers", again.Dst.Data, c.Dst.Data)
			sameBits(t, "LSE with 4 workers", again.LSE.Data, c.LSE.Data)
		}
	})
}

// TestMoBALarge has blocks of several tiles and rounds of their own, and many queries, some of
// which choose a block and some do not; TopK that covers all is exact attention.
func TestMoBALarge(t *testing.T) {
	const heads, d, n = 2, 8, 2500
	q, k, v := matrix(1, n, heads*d), matrix(2, n, heads*d), matrix(3, n, heads*d)
	for _, top := range []int{3, 20} {
		m := mustMoBA(t, MoBAConfig{Heads: heads, HeadDim: d, Block: 300, TopK: top})
		m.engine.perRound = 3
		dst := mat.New(n, heads*d)
		if err := m.Forward(dst, q, k, v); err != nil {
			t.Fatal(err)
		}
		exact, err := attention.New(attention.Config{Heads: heads, HeadDim: d, Causal: true})
		if err != nil {
			t.Fatal(err)
		}
		want := mat.New(n, heads*d)
		sees := mobaSees(&m.cfg, q, k)
		for h := range heads {
			mask := attention.MatrixMask{Queries: n, Keys: n, Seen: make([]bool, n*n)}
			for i := range n {
				for j := range i + 1 {
					mask.Seen[i*n+j] = top == 20 || sees(h, i, j)
				}
			}
			out := mat.New(n, heads*d)
			if err := exact.Run(context.Background(), &attention.Call{Dst: out, Q: q, K: []blas32.General{k}, V: []blas32.General{v}, Mask: mask}); err != nil {
				t.Fatal(err)
			}
			mat.Copy(mat.Columns(want, h*d, d), mat.Columns(out, h*d, d))
		}
		mattest.Close(t, "dst", dst.Data, want.Data, 1e-5)
	}
}

// TestMoBASteps: any split of sequences into steps, alone or together, forks, cuts and files
// give what Forward gives.
func TestMoBASteps(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		seeds := uint64(60)
		if testing.Short() {
			seeds = 15
		}
		for seed := range seeds {
			cfg, c := mobaCase(10*seed + 5)
			r := rand.New(rand.NewPCG(seed, 8))
			end := func() {}
			if seed%2 == 0 {
				end = tile.Small()
			}
			m := mustMoBA(t, cfg)
			end()
			if err := m.Run(context.Background(), &c); err != nil {
				t.Fatal(err)
			}
			var states []*MoBAState
			for range len(c.Offsets) - 1 {
				x := MoBAStateConfig{MaxTokens: r.IntN(2) * 90}
				if r.IntN(2) == 0 {
					pages, err := m.NewPages(attention.PagesConfig{PageTokens: 1 + r.IntN(20)})
					if err != nil {
						t.Fatal(err)
					}
					x.Pages = pages
				}
				s, err := m.NewState(x)
				if err != nil {
					t.Fatal(err)
				}
				states = append(states, s)
			}
			for left := true; left; {
				left = false
				x := attention.Call{Offsets: []int{0}, K: make([]blas32.General, 1), V: make([]blas32.General, 1)}
				var want, lse []float32
				var rows []int
				for b, s := range states {
					begin, stop := c.Offsets[b], c.Offsets[b+1]
					states[b] = disturb(t, m, s, r, &c, begin)
					n := min(stop-begin-s.Len(), []int{0, 1, 1, 4, 12}[r.IntN(5)])
					left = left || s.Len()+n < stop-begin
					for i := range n {
						rows = append(rows, begin+states[b].Len()+i)
					}
					x.Offsets = append(x.Offsets, len(rows))
					x.States = append(x.States, states[b])
				}
				take := func(m blas32.General) blas32.General {
					y := mat.New(len(rows), m.Cols)
					for i, row := range rows {
						copy(mat.Row(y, i), mat.Row(m, row))
					}
					return y
				}
				x.Q, x.K[0], x.V[0] = take(c.Q), take(c.K[0]), take(c.V[0])
				x.Dst, x.LSE = mat.New(len(rows), c.Dst.Cols), mat.New(len(rows), cfg.Heads)
				want, lse = take(c.Dst).Data, take(c.LSE).Data
				if err := m.Run(context.Background(), &x); err != nil {
					t.Fatal(err)
				}
				mattest.Close(t, "dst", x.Dst.Data, want, 1e-5)
				mattest.Close(t, "LSE", x.LSE.Data, lse, 1e-5)
			}
		}
	})
}

// disturb forks a state, cuts it back and goes on, stores it and reads it, or nothing.
func disturb(t *testing.T, m *MoBA, s *MoBAState, r *rand.Rand, c *attention.Call, begin int) *MoBAState {
	t.Helper()
	switch r.IntN(8) {
	case 0:
		return s.Clone()
	case 1:
		n := s.Len()
		if err := s.Truncate(r.IntN(n + 1)); err != nil {
			t.Fatal(err)
		}
		from, to := begin+s.Len(), begin+n
		if err := m.Step(mat.New(n-s.Len(), c.Dst.Cols), mat.Rows(c.Q, from, to), mat.Rows(c.K[0], from, to), mat.Rows(c.V[0], from, to), s); err != nil {
			t.Fatal(err)
		}
	case 2:
		var file bytes.Buffer
		if _, err := s.WriteTo(&file); err != nil {
			t.Fatal(err)
		}
		read, err := m.ReadState(&file)
		if err != nil {
			t.Fatal(err)
		}
		sameBits(t, "means", read.means, s.means)
		return read
	}
	return s
}

// TestMoBAStop: a done context leaves states as they were, whenever it ends.
func TestMoBAStop(t *testing.T) {
	const d, n = 8, 400
	m := mustMoBA(t, MoBAConfig{Heads: 2, HeadDim: d, Block: 8, TopK: 3, Workers: 1})
	q := matrix(1, n, 2*d)
	for _, rows := range []int{1, 100} {
		s, err := m.NewState(MoBAStateConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Step(mat.New(n, 2*d), q, q, q, s); err != nil {
			t.Fatal(err)
		}
		x := mat.Rows(q, 0, rows)
		stopped := 0
		for after := range 100 {
			c := &attention.Call{Dst: mat.New(rows, 2*d), Q: x, K: []blas32.General{x}, V: []blas32.General{x}, State: s}
			err := m.Run(&ending{Context: context.Background(), after: after}, c)
			if err == nil {
				break
			}
			if stopped++; err != context.Canceled || s.Len() != n || len(s.means) != n/8*2*d {
				t.Fatalf("after %d looks: %v, %d tokens, %d means", after, err, s.Len(), len(s.means))
			}
		}
		if stopped == 0 {
			t.Errorf("%d rows: nothing was stopped", rows)
		}
	}
}

func TestMoBAMemory(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, workers := range []int{1, 4} {
			for _, n := range []int{1, 300, 1500} {
				m := mustMoBA(t, MoBAConfig{Heads: 4, KVHeads: 2, HeadDim: 24, ValueDim: 7, Block: 32, TopK: 3, Workers: workers})
				m.engine.sizes.Alone = 1
				if n == 1500 {
					m.engine.perRound = 8
				}
				q, k, v, dst := matrix(1, n, 96), matrix(2, n, 48), matrix(3, n, 14), mat.New(n, 28)
				forward := func() {
					if err := m.Forward(dst, q, k, v); err != nil {
						t.Fatal(err)
					}
				}
				forward()
				if x := isatest.Allocations(forward); x != 0 {
					t.Errorf("%d workers: %v allocations a call", workers, x)
				}
				r := m.scratch.Get()
				held := isatest.Held(r)
				if said := m.ScratchBytes(n); held > said || held < said/5 {
					t.Errorf("%d tokens: %d bytes, said %d", n, held, said)
				}
				m.scratch.Put(r)
				s, err := m.NewState(MoBAStateConfig{MaxTokens: 2*n + 8})
				if err != nil {
					t.Fatal(err)
				}
				step := func() {
					s.Reset()
					if err := m.Step(dst, q, k, v, s); err != nil {
						t.Fatal(err)
					}
					one := func(m blas32.General) blas32.General { return mat.Rows(m, 0, 1) }
					if err := m.Step(one(dst), one(q), one(k), one(v), s); err != nil {
						t.Fatal(err)
					}
				}
				step()
				if x := isatest.Allocations(step); x != 0 {
					t.Errorf("%d workers: %v allocations a step", workers, x)
				}
			}
		}
	})
}

// TestMoBAFormats: narrower tokens are what exact attention gives of the tokens as they are stored,
// and choose the same blocks whatever the steps.
func TestMoBAFormats(t *testing.T) {
	const d, n = 16, 90
	m := mustMoBA(t, MoBAConfig{Heads: 4, KVHeads: 2, HeadDim: d, Block: 8, TopK: 3})
	q, k, v := matrix(1, n, 4*d), matrix(2, n, 2*d), matrix(3, n, 2*d)
	want := mat.New(n, 4*d)
	if err := m.Forward(want, q, k, v); err != nil {
		t.Fatal(err)
	}
	for format, tol := range map[asm.Format]float64{asm.Float16: 0.02, asm.BFloat16: 0.1, asm.Int8: 0.1} {
		var outs []blas32.General
		for _, size := range []int{1, 3, n} {
			s, err := m.NewState(MoBAStateConfig{Format: format})
			if err != nil {
				t.Fatal(err)
			}
			out := mat.New(n, 4*d)
			for at := 0; at < n; at += size {
				part := func(m blas32.General) blas32.General { return mat.Rows(m, at, at+size) }
				if err := m.Step(part(out), part(q), part(k), part(v), s); err != nil {
					t.Fatal(err)
				}
			}
			outs = append(outs, out)
			off := 0
			for i, x := range out.Data {
				if e := math.Abs(float64(x - want.Data[i])); e > tol {
					off++
				}
			}
			if off > n*d/4 { // queries that choose another block are off by more
				t.Errorf("format %v: %d of %d elements are off by more than %v", format, off, len(out.Data), tol)
			}
		}
		mattest.Close(t, "steps of 3", outs[1].Data, outs[0].Data, 1e-5)
		mattest.Close(t, "at once", outs[2].Data, outs[0].Data, 1e-5)
	}
}

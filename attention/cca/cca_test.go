package cca

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/tile"
)

// randomCCA draws an operator and a sequence; its tiles are small.
func randomCCA(t *testing.T, seed uint64, workers int) (c *CCA, q, k, v blas32.General) {
	r := rand.New(rand.NewPCG(seed, 7))
	one := func(list ...int) int { return list[r.IntN(len(list))] }
	kvHeads := one(1, 2, 3)
	cfg := Config{
		Heads: kvHeads * one(1, 1, 2, 3), KVHeads: kvHeads, HeadDim: one(1, 4, 17), ValueDim: one(0, 3, 18), GroupSize: one(1, 2, 3, 5, 8),
		Window: one(1, 2, 7, 16, 30), Pooling: Pooling(one(0, 0, 1, 2)), Levels: one(0, 1, 2, 3, 6), Span: one(0, 1, 2, 3), CountTokens: r.IntN(2) == 0, Workers: workers,
	}
	defer tile.Small()()
	c = mustCCA(t, cfg)
	n := one(0, 1, 5, 40, 150)
	return c, matrix(seed, n, cfg.Heads*cfg.HeadDim), matrix(seed+1, n, kvHeads*cfg.HeadDim), matrix(seed+2, n, kvHeads*c.cfg.ValueDim)
}

func TestCCAOracle(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		seeds := uint64(150)
		if testing.Short() {
			seeds = 40
		}
		for seed := range seeds {
			c, q, k, v := randomCCA(t, seed, 2)
			dst := zeroMatrix(q.Rows, c.cfg.Heads*c.cfg.ValueDim)
			if err := c.Forward(dst, q, k, v); err != nil {
				t.Fatal(err)
			}
			near(t, "dst", dst, ccaOracle(c, q, k, v), 2e-5)
		}
	})
}

// TestCCASplit cuts sequences at random: Step gives what Forward does, with a
// state that was copied, taken back or written and read in between.
func TestCCASplit(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		seeds := uint64(120)
		if testing.Short() {
			seeds = 30
		}
		for seed := range seeds {
			c, q, k, v := randomCCA(t, seed, 1)
			r := rand.New(rand.NewPCG(seed, 1))
			n := q.Rows
			want, got := zeroMatrix(n, c.cfg.Heads*c.cfg.ValueDim), zeroMatrix(n, c.cfg.Heads*c.cfg.ValueDim)
			if err := c.Forward(want, q, k, v); err != nil {
				t.Fatal(err)
			}
			cfg := StateConfig{Rollback: int(seed % 3 * 4)}
			if seed%2 == 0 {
				cfg.MaxTokens = max(n, 1)
			}
			s, err := c.NewState(cfg)
			if err != nil {
				t.Fatal(err)
			}
			held, furthest := s.Bytes(), 0
			for at := 0; at < n; at = s.Len() {
				to := min(at+r.IntN(20), n)
				if err := c.Step(part(got, at, to), part(q, at, to), part(k, at, to), part(v, at, to), s); err != nil {
					t.Fatal(err)
				}
				if s.Len() != to {
					t.Fatalf("%d tokens, want %d", s.Len(), to)
				}
				if most := int64(c.cfg.Window+c.cfg.GroupSize-1) + int64(cfg.Rollback); int64(s.tokens.Held()) > most {
					t.Fatalf("%d tokens are held, want at most %d", s.tokens.Held(), most)
				}
				for l := range len(c.levels) - 1 {
					up := c.levels[l+1]
					if most := (up.window+up.size+int64(cfg.Rollback))/c.levels[l].size + 2; int64(s.levels[l].Held()) > most {
						t.Fatalf("%d cores of level %d are held, want at most %d", s.levels[l].Held(), l, most)
					}
				}
				furthest = max(furthest, to)
				switch r.IntN(4) {
				case 0:
					s = s.Clone()
				case 1:
					if err := s.Truncate(min(to, max(0, furthest-r.IntN(cfg.Rollback+1)))); err != nil {
						t.Fatal(err)
					}
				case 2:
					var file bytes.Buffer
					if _, err := s.WriteTo(&file); err != nil {
						t.Fatal(err)
					}
					if s, err = c.ReadState(&file); err != nil {
						t.Fatal(err)
					}
					held = 0
				}
			}
			close64(t, "steps", got.Data, want.Data, 2e-5)
			if cfg.MaxTokens > 0 && held > 0 && s.Bytes() > held {
				t.Errorf("the state grew from %d to %d bytes", held, s.Bytes())
			}
		}
	})
}

// TestCCAPartition checks that what a query sees is each token of its past once.
func TestCCAPartition(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 2))
		c := mustCCA(t, Config{Heads: 1, HeadDim: 1, GroupSize: 1 + r.IntN(9), Window: 1 + r.IntN(60), Levels: r.IntN(8), Span: r.IntN(5)})
		i := int64(r.IntN(3000))
		edge := int64(0)
		for l := len(c.levels) - 1; l >= 0; l-- {
			from, to := c.coresOf(l, i)
			if from*c.levels[l].size != edge || to < from {
				t.Fatalf("%+v: query %d sees cores %d to %d of level %d after %d tokens", c.cfg, i, from, to, l, edge)
			}
			if n := to - from; l+1 < len(c.levels) && n > int64(c.cfg.Span)+2 {
				t.Fatalf("%+v: query %d sees %d cores of level %d", c.cfg, i, n, l)
			}
			edge = to * c.levels[l].size
		}
		from, to := c.Window(i)
		if from != edge || to != i+1 {
			t.Fatalf("%+v: query %d sees tokens %d to %d after %d", c.cfg, i, from, to, edge)
		}
		if n := to - from; n > int64(c.cfg.Window+c.cfg.GroupSize-1) || n < min(int64(c.cfg.Window), i+1) {
			t.Fatalf("%+v: query %d sees %d tokens", c.cfg, i, n)
		}
	}
}

// TestCCAExact has CCA be exact attention: groups of one token, a window over
// all, or every group seen as it is. It also has one level be the paper's method
// and levels not reached change no bit.
func TestCCAExact(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n, heads, d = 130, 4, 8
		q, k, v := matrix(1, n, heads*d), matrix(2, n, 2*d), matrix(3, n, 2*d)
		exact := must(t, attention.Config{Heads: heads, KVHeads: 2, HeadDim: d, Causal: true})
		want, got := zeroMatrix(n, heads*d), zeroMatrix(n, heads*d)
		wantLSE, gotLSE := zeroMatrix(n, heads), zeroMatrix(n, heads)
		if err := exact.Run(context.Background(), &attention.Call{Dst: want, Q: q, K: []blas32.General{k}, V: []blas32.General{v}, LSE: wantLSE}); err != nil {
			t.Fatal(err)
		}
		const group = 6
		var blocks []Block
		for p := range n / group {
			blocks = append(blocks, Block{p, part(k, p*group, (p+1)*group), part(v, p*group, (p+1)*group)})
		}
		for name, x := range map[string]struct {
			cfg    Config
			blocks []Block
		}{
			"groups of one":     {Config{GroupSize: 1, Window: 7}, nil},
			"counted ones":      {Config{GroupSize: 1, Window: 1, CountTokens: true}, nil},
			"a window over all": {Config{GroupSize: 16, Window: n, Levels: 3}, nil},
			"blocks":            {Config{GroupSize: group, Window: 9}, blocks},
			"blocks, mean":      {Config{GroupSize: group, Window: 9, Pooling: PoolMean}, blocks},
		} {
			x.cfg.Heads, x.cfg.KVHeads, x.cfg.HeadDim = heads, 2, d
			c := mustCCA(t, x.cfg)
			if err := (&flat{Dst: got, Q: q, K: k, V: v, LSE: gotLSE, Blocks: x.blocks}).run(context.Background(), c); err != nil {
				t.Fatal(err)
			}
			close64(t, name, got.Data, want.Data, 5e-6)
			close64(t, name+", LSE", gotLSE.Data, wantLSE.Data, 5e-6)
		}
		one, deep := mustCCA(t, Config{Heads: heads, KVHeads: 2, HeadDim: d, GroupSize: 4, Window: 40, Levels: 1}), mustCCA(t, Config{Heads: heads, KVHeads: 2, HeadDim: d, GroupSize: 4, Window: 40, Levels: maxLevels, Span: 30})
		if err := one.Forward(want, q, k, v); err != nil {
			t.Fatal(err)
		}
		if err := deep.Forward(got, q, k, v); err != nil {
			t.Fatal(err)
		}
		sameBits(t, "levels that are not reached", got.Data, want.Data)
	})
}

// TestCCABlocks has one group seen as it is: what others' cores hide of a needle
// it shows, and a state gives the same.
func TestCCABlocks(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n, heads, d, group, window = 90, 4, 8, 5, 12
		q, k, v := matrix(1, n, heads*d), matrix(2, n, 2*d), matrix(3, n, 2*d)
		c := mustCCA(t, Config{Heads: heads, KVHeads: 2, HeadDim: d, GroupSize: group, Window: window})
		var blocks []Block
		for _, p := range []int{1, 7, 15} { // the last is in no query's past
			blocks = append(blocks, Block{p, part(k, p*group, (p+1)*group), part(v, p*group, (p+1)*group)})
		}
		got := zeroMatrix(n, heads*d)
		cores, kCols, vCols := c.CoreShape(n)
		call := &flat{Dst: got, Q: q, K: k, V: v, Blocks: blocks, CoreK: zeroMatrix(cores, kCols), CoreV: zeroMatrix(cores, vCols)}
		if err := call.run(context.Background(), c); err != nil {
			t.Fatal(err)
		}
		// The same with a mask over raw keys and all cores' copies among them.
		for i := range n {
			pooled := int(c.pooled(0, int64(i)))
			e := &attention.Extra{Heads: heads, K: []blas32.General{part(call.CoreK, 0, pooled)}, V: []blas32.General{part(call.CoreV, 0, pooled)}, LogWeights: zeroMatrix(pooled, 1)}
			raw := &attention.Call{Dst: zeroMatrix(1, heads*d), Q: part(q, i, i+1), Extra: []attention.Extra{*e}}
			raw.K, raw.V = []blas32.General{part(k, pooled*group, i+1)}, []blas32.General{part(v, pooled*group, i+1)}
			for _, b := range blocks {
				if b.Group < pooled {
					e.LogWeights.Data[b.Group] = tile.NegInf
					raw.K, raw.V = append(raw.K, b.K), append(raw.V, b.V)
				}
			}
			if err := must(t, attention.Config{Heads: heads, KVHeads: 2, HeadDim: d}).Run(context.Background(), raw); err != nil {
				t.Fatal(err)
			}
			close64(t, "blocks", row(got, i), raw.Dst.Data, 5e-6)
		}
		s, _ := c.NewState(StateConfig{})
		stepped := zeroMatrix(n, heads*d)
		for at := 0; at < n; at += 7 {
			to := min(at+7, n)
			if err := (&flat{Dst: part(stepped, at, to), Q: part(q, at, to), K: part(k, at, to), V: part(v, at, to), State: s, Blocks: blocks}).run(context.Background(), c); err != nil {
				t.Fatal(err)
			}
		}
		close64(t, "blocks of a state", stepped.Data, got.Data, 1e-5)
	})
}

// TestCCAPacked has a packed batch give what its sequences give alone, and the
// same bits whatever the number of workers.
func TestCCAPacked(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for seed := range uint64(20) {
			c, q, k, v := randomCCA(t, seed, 1)
			n := q.Rows
			offsets := randomCuts(rand.New(rand.NewPCG(seed, 3)), n, 4)
			cols := c.cfg.Heads * c.cfg.ValueDim
			alone := zeroMatrix(n, cols)
			for b := range 4 {
				from, to := offsets[b], offsets[b+1]
				if err := c.Forward(part(alone, from, to), part(q, from, to), part(k, from, to), part(v, from, to)); err != nil {
					t.Fatal(err)
				}
			}
			var first []float32
			for _, workers := range []int{1, 2, 3, 8} {
				c, _, _, _ := randomCCA(t, seed, workers)
				dst := zeroMatrix(n, cols)
				if err := (&flat{Dst: dst, Q: q, K: k, V: v, Offsets: offsets}).run(context.Background(), c); err != nil {
					t.Fatal(err)
				}
				close64(t, "packed", dst.Data, alone.Data, 1e-5)
				if first == nil {
					first = dst.Data
				}
				sameBits(t, "packed", dst.Data, first)
			}
		}
	})
}

// TestCCALevelsError measures what the hierarchy loses, the table in Config's
// documentation: against one level and against exact attention, where neighbours
// are alike and where nothing is like anything.
func TestCCALevelsError(t *testing.T) {
	const d = 64
	n := 8192
	if testing.Short() {
		n = 2048
	}
	relativeTo := func(got, want blas32.General) float64 {
		sum := 0.0
		for i := n / 2; i < n; i += 64 {
			sum += relative(row(got, i), row(want, i)) / float64(n/2/64)
		}
		return sum
	}
	smooth := func(seed uint64) blas32.General {
		r := rand.New(rand.NewPCG(seed, 5))
		m := zeroMatrix(n, d)
		for c := range d {
			period, phase := 2048*math.Exp2(3*r.Float64()), 2*math.Pi*r.Float64()
			for i := range n {
				m.Data[i*d+c] = float32(math.Sin(2*math.Pi*float64(i)/period + phase))
			}
		}
		return m
	}
	for _, x := range []struct {
		name                        string
		q, k, v                     blas32.General
		levels, plain, between, low float64 // bounds; low of plain
	}{
		{"smooth", smooth(1), smooth(1), smooth(2), 0.005, 1e-4, 0.005, 0},
		{"noise", matrix(1, n, d), matrix(2, n, d), matrix(3, n, d), 2, 2, 2, 0.3},
	} {
		run := func(levels int) blas32.General {
			dst := zeroMatrix(n, d)
			if err := mustCCA(t, Config{Heads: 1, HeadDim: d, Window: 512, Levels: levels, CountTokens: true}).Forward(dst, x.q, x.k, x.v); err != nil {
				t.Fatal(err)
			}
			return dst
		}
		exact, plain, levels := zeroMatrix(n, d), run(1), run(maxLevels)
		if err := must(t, attention.Config{Heads: 1, HeadDim: d, Causal: true}).Forward(exact, x.q, x.k, x.v); err != nil {
			t.Fatal(err)
		}
		a, b, c := relativeTo(levels, exact), relativeTo(plain, exact), relativeTo(levels, plain)
		t.Logf("%s: levels against exact %.2g, one level against exact %.2g, levels against one level %.2g", x.name, a, b, c)
		if a > x.levels || b > x.plain || c > x.between || b < x.low {
			t.Errorf("%s: levels against exact %.2g, one level against exact %.2g, levels against one level %.2g", x.name, a, b, c)
		}
	}
}

// TestCCAPropagates has NaN reach the queries that see it, through cores too,
// and no others.
func TestCCAPropagates(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n, at = 100, 40
		for _, pooling := range []Pooling{PoolSignificance, PoolMean, PoolMax} {
			c := mustCCA(t, Config{Heads: 1, HeadDim: 4, GroupSize: 4, Window: 8, Levels: 3, Span: 2, Pooling: pooling})
			q, k, v, dst := matrix(1, n, 4), matrix(2, n, 4), matrix(3, n, 4), zeroMatrix(n, 4)
			v.Data[at*4+1] = float32(math.NaN())
			if err := c.Forward(dst, q, k, v); err != nil {
				t.Fatal(err)
			}
			for i := range n {
				if x := dst.Data[i*4+1]; (x != x) != (i >= at) {
					t.Fatalf("pooling %d: query %d gives %v", pooling, i, x)
				}
			}
		}
	})
}

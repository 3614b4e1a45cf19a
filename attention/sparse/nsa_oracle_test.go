package sparse

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
	"github.com/subquad/subquad/internal/tile"
)

// nsaCase is a random operator and a call of it.
type nsaCase struct {
	a       *NSA
	q, k, v blas32.General
	gates   Gates
}

// weigher is a Compressor: a weighted sum, with weights of the head's own.
type weigher struct{}

func (weigher) weight(i, head int) float32 { return float32(i%3+1) / float32(4+head) }

func (w weigher) Keys(dst []float32, keys blas32.General, head int) {
	clear(dst)
	for i := range keys.Rows {
		for c, x := range mat.Row(keys, i) {
			dst[c] += w.weight(i, head) * x
		}
	}
}

func (w weigher) Values(dst []float32, values blas32.General, head int) {
	w.Keys(dst, values, head+1)
}

func randomNSA(t *testing.T, seed uint64, most int) (x nsaCase, r *rand.Rand) {
	t.Helper()
	r = rand.New(rand.NewPCG(seed, 7))
	kv, stride := 1+r.IntN(2), 1+r.IntN(4)
	cfg := NSAConfig{Heads: kv * (1 + r.IntN(3)), KVHeads: kv, HeadDim: 1 + r.IntN(9), ValueDim: 1 + r.IntN(20), Workers: 1 + r.IntN(3),
		Block: stride * (1 + r.IntN(3)), TopK: 1 + r.IntN(6), Window: 1 + r.IntN(20)}
	if r.IntN(2) == 0 {
		cfg.Compress, cfg.Stride = stride*(1+r.IntN(3)), stride
	}
	cfg.Local = r.IntN(cfg.TopK + 1)
	cfg.Keep = r.IntN(cfg.TopK - max(cfg.Local, 1) + 1)
	if r.IntN(3) == 0 {
		cfg.Compressor = weigher{}
	}
	if r.IntN(4) > 0 {
		defer tile.Small()()
	}
	x.a = mustNSA(t, cfg)
	n := r.IntN(most)
	x.q, x.k, x.v = mattest.Matrix(seed, n, cfg.Heads*cfg.HeadDim), mattest.Matrix(seed+1, n, kv*cfg.HeadDim), mattest.Matrix(seed+2, n, kv*cfg.ValueDim)
	// Weights far below what float32 holds; not where one that is all but 1 counts for two
	// blocks, whose scores are then all but equal.
	if r.IntN(4) == 0 && x.a.cfg.Compress == x.a.cfg.Stride {
		for i := range x.q.Data {
			x.q.Data[i] *= 60
		}
	}
	for i, g := range []*blas32.General{&x.gates.Compressed, &x.gates.Selected, &x.gates.Window} {
		if r.IntN(5) > 0 || i == r.IntN(3) {
			*g = mattest.Matrix(seed+3+uint64(i), n, cfg.Heads)
		}
	}
	if g := &x.gates; !mat.Given(g.Compressed) && !mat.Given(g.Window) {
		g.Selected = mattest.Matrix(seed+9, n, cfg.Heads)
	}
	return x, r
}

// call is a call of the case, for all rows.
func (x *nsaCase) call() (c *attention.Call, o *NSAOptions) {
	cfg := x.a.cfg
	o = &NSAOptions{Gates: x.gates, Blocks: make([]int32, x.q.Rows*cfg.KVHeads*cfg.TopK)}
	dst := mat.New(x.q.Rows, cfg.Heads*cfg.ValueDim)
	for i := range dst.Data {
		dst.Data[i] = float32(math.NaN())
	}
	return &attention.Call{Dst: dst, Q: x.q, K: []blas32.General{x.k}, V: []blas32.General{x.v}, Options: o}, o
}

// softmax64 is attention of one query to some keys.
func softmax64(q []float32, scale float32, keys, values [][]float64, dim int) (p, out []float64) {
	top, sum := math.Inf(-1), 0.0
	p, out = make([]float64, len(keys)), make([]float64, dim)
	for j, k := range keys {
		for c, x := range k {
			p[j] += float64(q[c]) * x * float64(scale)
		}
		top = max(top, p[j])
	}
	for j := range p {
		p[j] = math.Exp(p[j] - top)
		sum += p[j]
	}
	for j := range p {
		p[j] /= sum
		for c, x := range values[j] {
			out[c] += p[j] * x
		}
	}
	return p, out
}

// oracle is NSA in float64, by the definition; it takes the choice of blocks that was made,
// and fails the test unless each of them is as good as those that were left.
func (x *nsaCase) oracle(t *testing.T, blocks []int32) [][]float64 {
	t.Helper()
	cfg, heads := x.a.cfg, x.a.group()
	wide := func(m blas32.General, g, dim int) (rows [][]float64) {
		for i := range m.Rows {
			var row []float64
			for _, v := range mat.Part(m, i, g*dim, dim) {
				row = append(row, float64(v))
			}
			rows = append(rows, row)
		}
		return rows
	}
	out := make([][]float64, x.q.Rows)
	for i := range out {
		out[i] = make([]float64, cfg.Heads*cfg.ValueDim)
	}
	for g := range cfg.KVHeads {
		k, v := wide(x.k, g, cfg.HeadDim), wide(x.v, g, cfg.ValueDim)
		var ck, cv [][]float64
		for from := 0; from+cfg.Compress <= len(k); from += cfg.Stride {
			pool := func(rows [][]float64, head, dim int) []float64 {
				sum := make([]float64, dim)
				for i, row := range rows[from:][:cfg.Compress] {
					share := 1 / float64(cfg.Compress)
					if cfg.Compressor != nil {
						share = float64(weigher{}.weight(i, head))
					}
					for c, x := range row {
						sum[c] += share * x
					}
				}
				return sum
			}
			ck, cv = append(ck, pool(k, g, cfg.HeadDim)), append(cv, pool(v, g+1, cfg.ValueDim))
		}
		for i := range x.q.Rows {
			seen := 0
			for seen < len(ck) && seen*cfg.Stride+cfg.Compress-1 <= i {
				seen++
			}
			own := i / cfg.Block
			scores := make([]float64, own+1)
			chosen := nonNegative(blocks[(i*cfg.KVHeads+g)*cfg.TopK:][:cfg.TopK])
			add := func(h int, gate blas32.General, branch []float64) {
				if mat.Given(gate) {
					for c, y := range branch {
						out[i][h*cfg.ValueDim+c] += float64(mat.Row(gate, i)[h]) * y
					}
				}
			}
			for h := g * heads; h < (g+1)*heads; h++ {
				q := mat.Part(x.q, i, h*cfg.HeadDim, cfg.HeadDim)
				if seen > 0 {
					p, branch := softmax64(q, cfg.Scale, ck[:seen], cv[:seen], cfg.ValueDim)
					add(h, x.gates.Compressed, branch)
					for c, p := range p {
						for token := c * cfg.Stride; token < c*cfg.Stride+cfg.Compress; token++ {
							if b := token / cfg.Block; b < own {
								scores[b] += p / float64(cfg.Stride)
							}
						}
					}
				}
				var ks, vs [][]float64
				for _, b := range chosen {
					ks = append(ks, k[int(b)*cfg.Block:min((int(b)+1)*cfg.Block, i+1)]...)
					vs = append(vs, v[int(b)*cfg.Block:min((int(b)+1)*cfg.Block, i+1)]...)
				}
				_, branch := softmax64(q, cfg.Scale, ks, vs, cfg.ValueDim)
				add(h, x.gates.Selected, branch)
				from := max(0, i-cfg.Window+1)
				_, branch = softmax64(q, cfg.Scale, k[from:i+1], v[from:i+1], cfg.ValueDim)
				add(h, x.gates.Window, branch)
			}
			worst, best := math.Inf(1), 0.0
			for b := range int32(own + 1) {
				in, forced := slices.Contains(chosen, b), int(b) < cfg.Keep || int(b) > own-cfg.Local
				switch {
				case forced && !in:
					t.Fatalf("query %d did not choose block %d of %v", i, b, chosen)
				case in && !forced:
					worst = min(worst, scores[b])
				case !in:
					best = max(best, scores[b])
				}
			}
			if len(chosen) != min(own+1, cfg.TopK) || !slices.IsSorted(chosen) || worst < best*(1-1e-3) {
				t.Fatalf("query %d chose %v: a score of %v, while another block has %v", i, chosen, worst, best)
			}
		}
	}
	return out
}

func TestNSAOracle(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		seeds := uint64(100)
		if testing.Short() {
			seeds = 40
		}
		for seed := range seeds {
			x, _ := randomNSA(t, seed, 130)
			c, o := x.call()
			if err := x.a.Run(context.Background(), c); err != nil {
				t.Fatal(err)
			}
			mattest.Near(t, "dst", c.Dst, x.oracle(t, o.Blocks), 4e-5)
		}
	})
}

// TestNSALarge has more compressed keys than a tile, and than a softmax takes at a time, and blocks
// and windows of several tiles.
func TestNSALarge(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n = 600
		for _, cfg := range []NSAConfig{
			{Block: 4, Compress: 2, Stride: 1, TopK: 3, Window: 5},
			{Block: 290, TopK: 2, Window: 400},
		} {
			cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.ValueDim = 2, 1, 3, 2
			a := mustNSA(t, cfg)
			gate := mattest.Matrix(1, n, 2)
			x := nsaCase{a: a, q: mattest.Matrix(2, n, 6), k: mattest.Matrix(3, n, 3), v: mattest.Matrix(4, n, 2), gates: Gates{gate, gate, gate}}
			for _, block := range []int{a.sizes.Block, 250} {
				a.sizes.Block = block
				c, o := x.call()
				if err := a.Run(context.Background(), c); err != nil {
					t.Fatal(err)
				}
				mattest.Near(t, "dst", c.Dst, x.oracle(t, o.Blocks), 4e-5)
				hurt := x
				hurt.v = mat.New(n, 2)
				mat.Copy(hurt.v, x.v)
				hurt.v.Data[2*300] = nan // in a second tile
				d, _ := hurt.call()
				if err := a.Run(context.Background(), d); err != nil {
					t.Fatal(err)
				}
				mattest.Close(t, "before NaN", d.Dst.Data[:300*4], c.Dst.Data[:300*4], 1e-5)
				if y := d.Dst.Data[300*4]; y == y {
					t.Errorf("a NaN did not reach its own query: %v", y)
				}
			}
		}
	})
}

package attention

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/tile"
)

// result is what a call gives, in float64.
type result struct{ out, lse, mass, entropy [][]float64 }

// oracle is attention as the paper writes it, one query and head at a time.
func oracle(a *Attention, c *Call) result {
	cfg := a.cfg
	join := func(list []blas32.General) blas32.General {
		var m blas32.General
		for _, s := range list {
			for i := range s.Rows {
				m.Data = append(m.Data, s.Data[i*s.Stride:][:s.Cols]...)
			}
			m.Rows, m.Cols, m.Stride = m.Rows+s.Rows, s.Cols, s.Cols
		}
		return m
	}
	k, v := join(c.K), join(c.V)
	qOffsets, kOffsets := c.Offsets, c.KOffsets
	if qOffsets == nil {
		qOffsets, kOffsets = []int{0, c.Q.Rows}, []int{0, k.Rows}
	} else if kOffsets == nil {
		kOffsets = qOffsets
	}
	table := func(rows, cols int) [][]float64 {
		t := make([][]float64, rows)
		for i := range t {
			t[i] = make([]float64, cols)
		}
		return t
	}
	r := result{table(c.Q.Rows, cfg.Heads*cfg.ValueDim), table(c.Q.Rows, cfg.Heads), table(k.Rows, cfg.Heads), table(c.Q.Rows, cfg.Heads)}
	logit := func(q, k []float32) float64 {
		s := 0.0
		for d := range q {
			s += float64(q[d]) * float64(k[d])
		}
		s *= float64(cfg.Scale)
		if c := float64(cfg.Softcap); c > 0 {
			s = c * math.Tanh(s/c)
		}
		return s
	}
	for b := range len(qOffsets) - 1 {
		keys, keyPos := kOffsets[b+1]-kOffsets[b], int64(0)
		if c.KeyPos != nil {
			keyPos = c.KeyPos[b]
		}
		queryPos := keyPos + int64(keys) - int64(qOffsets[b+1]-qOffsets[b])
		if c.QueryPos != nil {
			queryPos = c.QueryPos[b]
		}
		for row := qOffsets[b]; row < qOffsets[b+1]; row++ {
			for h := range cfg.Heads {
				at := queryPos + int64(row-qOffsets[b])
				q := c.Q.Data[row*c.Q.Stride+h*cfg.HeadDim:][:cfg.HeadDim]
				g := h / (cfg.Heads / cfg.KVHeads)
				var weight []float64
				var value [][]float32
				var index []int // of raw keys, -1 for extra ones
				seen := 0
				for j := range keys {
					p, n := keyPos+int64(j), kOffsets[b]+j
					if cfg.LookAhead != nil && p > at+int64(*cfg.LookAhead) || cfg.Window > 0 && p <= at-int64(cfg.Window) {
						continue
					}
					if c.Visible != nil {
						if from, to := c.Visible(at); p < from || p >= to {
							continue
						}
					}
					seen++
					one := [1]float32{}
					m := blas32.General{Rows: 1, Cols: 1, Stride: 1, Data: one[:]}
					s := logit(q, k.Data[n*k.Stride+g*cfg.HeadDim:][:cfg.HeadDim])
					for _, bias := range []Bias{cfg.Bias, c.Bias} {
						if bias != nil {
							bias.AddTo(m, h, at, p)
						}
					}
					if c.LogWeights.Rows > 0 {
						s += float64(c.LogWeights.Data[n*c.LogWeights.Stride+min(g, c.LogWeights.Cols-1)])
					}
					if c.Mask != nil {
						c.Mask.Hide(m, h, at, p)
					}
					weight = append(weight, s+float64(one[0]))
					value = append(value, v.Data[n*v.Stride+g*cfg.ValueDim:][:cfg.ValueDim])
					index = append(index, n)
				}
				for _, e := range c.Extra {
					ek, ev := join(e.K), join(e.V)
					heads := e.Heads
					if heads == 0 {
						heads = cfg.KVHeads
					}
					g := h / (cfg.Heads / heads)
					offsets := e.Offsets
					if offsets == nil {
						offsets = []int{0, ek.Rows}
					}
					for n := offsets[b]; n < offsets[b+1]; n++ {
						if e.Visible != nil {
							if from, to := e.Visible(at); int64(n-offsets[b]) < from || int64(n-offsets[b]) >= to {
								continue
							}
						}
						seen++
						s := logit(q, ek.Data[n*ek.Stride+g*cfg.HeadDim:][:cfg.HeadDim])
						if e.LogWeights.Rows > 0 {
							s += float64(e.LogWeights.Data[n*e.LogWeights.Stride+min(g, e.LogWeights.Cols-1)])
						}
						weight = append(weight, s)
						value = append(value, ev.Data[n*ev.Stride+g*cfg.ValueDim:][:cfg.ValueDim])
						index = append(index, -1)
					}
				}
				top := math.Inf(-1)
				if cfg.Sinks != nil && !c.Partial {
					top = float64(cfg.Sinks[h])
				}
				for _, s := range weight {
					top = max(top, s)
				}
				sum := 0.0
				if cfg.Sinks != nil && !c.Partial {
					sum = math.Exp(float64(cfg.Sinks[h]) - top)
				}
				for j, s := range weight {
					switch {
					case cfg.ReLU:
						weight[j] = max(s, 0)
					case math.IsInf(s, -1):
						weight[j] = 0
					default:
						weight[j] = math.Exp(s - top)
						sum += weight[j]
					}
				}
				if cfg.ReLU {
					sum = float64(seen)
				}
				r.lse[row][h] = top + math.Log(sum)
				for j, w := range weight {
					if w == 0 {
						continue
					}
					w /= sum
					for d, x := range value[j] {
						r.out[row][h*cfg.ValueDim+d] += w * float64(x)
					}
					if index[j] >= 0 {
						r.mass[index[j]][h] += w
						r.entropy[row][h] -= w * math.Log(w)
					}
				}
			}
		}
	}
	return r
}

// small shrinks the tiles, so that few tokens cross all their edges.
func small(a *Attention) {
	a.sizes = tile.Sizes{Keys: a.panel(), Rows: a.height() + 1, Block: 13, Alone: 100}
	smallSteps(a)
	a.sizes.Pack = 2 * a.slot().size
}

// outputs gives a call all its outputs, full of NaN.
func outputs(a *Attention, c *Call) {
	blank := func(rows, cols int) blas32.General {
		m := general(make([]float32, rows*(cols+1)), rows, cols)
		m.Stride++
		for i := range m.Data {
			m.Data[i] = float32(math.NaN())
		}
		return m
	}
	keys := 0
	for _, k := range c.K {
		keys += k.Rows
	}
	c.Dst, c.Mass = blank(c.Q.Rows, a.cfg.Heads*a.cfg.ValueDim), blank(keys, a.cfg.Heads)
	if !a.cfg.ReLU {
		c.LSE, c.Entropy = blank(c.Q.Rows, a.cfg.Heads), blank(c.Q.Rows, a.cfg.Heads)
	}
}

func near(t *testing.T, what string, got blas32.General, want [][]float64, tol float64) {
	t.Helper()
	for i := range got.Rows {
		for j := range got.Cols {
			g, w := float64(got.Data[i*got.Stride+j]), want[i][j]
			if !(math.Abs(g-w) <= tol*(1+math.Abs(w)) || g == w) {
				t.Fatalf("%s: (%d, %d) is %v, want %v", what, i, j, g, w)
			}
		}
	}
}

// split cuts a matrix of the heads' columns into segments, some of them empty.
func split(r *rand.Rand, cuts []int, seed uint64, cols int) (list []blas32.General) {
	for i := range len(cuts) - 1 {
		rows := cuts[i+1] - cuts[i]
		m := general(random(seed+uint64(i), rows*(cols+i)), rows, cols)
		m.Stride += i
		list = append(list, m)
	}
	return list
}

func randomCuts(r *rand.Rand, n, parts int) []int {
	cuts := make([]int, parts+1)
	for i := range parts {
		cuts[i+1] = n
		if i < parts-1 {
			cuts[i+1] = cuts[i] + r.IntN(n-cuts[i]+1)
		}
	}
	return cuts
}

// randomCall draws an operator and a call with any of their features.
func randomCall(t *testing.T, seed uint64) (*Attention, *Call, string) {
	r := rand.New(rand.NewPCG(seed, 1))
	coin := func() bool { return r.IntN(3) == 0 }
	one := func(list ...int) int { return list[r.IntN(len(list))] }
	group, kvHeads := one(1, 1, 2, 3, 5), one(1, 2, 3)
	cfg := Config{Heads: group * kvHeads, KVHeads: kvHeads, HeadDim: one(1, 3, 8, 17, 40), ValueDim: one(0, 1, 5, 33), Causal: coin(), ReLU: r.IntN(5) == 0, Workers: one(1, 3)}
	if coin() {
		cfg.Window = 1 + r.IntN(40)
	}
	if !cfg.Causal && coin() {
		cfg.LookAhead = new(r.IntN(10))
	}
	if coin() {
		cfg.Softcap = 2
	}
	if coin() && !cfg.ReLU {
		cfg.Sinks = random(seed, cfg.Heads)
	}
	slopes := make(alibi, cfg.Heads)
	for h := range slopes {
		slopes[h] = math.Exp2(-float64(h))
	}
	if coin() {
		cfg.Bias = slopes
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if coin() {
		small(a)
	}
	queries, keys := one(0, 1, 5, 30, 70), one(0, 1, 9, 40, 150)
	q := general(random(seed+1, queries*(cfg.Heads*cfg.HeadDim+2)), queries, cfg.Heads*cfg.HeadDim)
	q.Stride += 2
	c := &Call{Q: q}
	cuts := randomCuts(r, keys, one(1, 1, 2, 4))
	c.K, c.V = split(r, cuts, seed+2, kvHeads*cfg.HeadDim), split(r, cuts, seed+9, kvHeads*a.cfg.ValueDim)
	sequences := 1
	if coin() {
		sequences = one(1, 2, 5)
		c.Offsets, c.KOffsets = randomCuts(r, queries, sequences), randomCuts(r, keys, sequences)
	}
	if coin() {
		for range sequences {
			c.QueryPos, c.KeyPos = append(c.QueryPos, int64(r.IntN(100))), append(c.KeyPos, int64(r.IntN(50)))
		}
	}
	if coin() {
		c.LogWeights = matrix(seed+20, keys, one(1, kvHeads))
		if keys > 0 {
			c.LogWeights.Data[r.IntN(keys)] = float32(math.Inf(-1))
		}
	}
	if sequences == 1 && c.QueryPos == nil && coin() {
		m := MatrixMask{Queries: queries, Keys: keys, Seen: make([]bool, queries*keys)}
		for i := range m.Seen {
			m.Seen[i] = i/max(keys, 1)%4 != 1 && r.IntN(4) > 0
		}
		c.Mask = m
		c.Bias = MatrixBias{matrix(seed+30, queries, keys)}
	}
	if coin() {
		c.Visible = func(query int64) (from, to int64) { return query / 3, 2 * query }
	}
	if coin() {
		extra := one(1, 20, 100)
		heads := one(0, 1, kvHeads, cfg.Heads)
		n := heads
		if n == 0 {
			n = kvHeads
		}
		cuts := randomCuts(r, extra, 2)
		e := Extra{Heads: heads, K: split(r, cuts, seed+40, n*cfg.HeadDim), V: split(r, cuts, seed+50, n*a.cfg.ValueDim)}
		if c.Offsets != nil {
			e.Offsets = randomCuts(r, extra, sequences)
		}
		if coin() {
			e.LogWeights = matrix(seed+60, extra, one(1, n))
		}
		if coin() {
			e.Visible = func(query int64) (from, to int64) { return 0, query / 4 }
		}
		c.Extra = []Extra{e}
	}
	c.Partial = coin() && !cfg.ReLU
	outputs(a, c)
	return a, c, fmt.Sprintf("seed %d: %+v, %d queries, %d keys, packed %v %v", seed, cfg, queries, keys, c.Offsets, c.KOffsets)
}

func TestOracle(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		n := uint64(300)
		if testing.Short() {
			n = 60
		}
		for seed := range n {
			a, c, name := randomCall(t, seed)
			if err := a.Run(context.Background(), c); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			want := oracle(a, c)
			near(t, name+": dst", c.Dst, want.out, 2e-5)
			near(t, name+": mass", c.Mass, want.mass, 5e-5)
			if !a.cfg.ReLU {
				near(t, name+": LSE", c.LSE, want.lse, 1e-5)
				near(t, name+": entropy", c.Entropy, want.entropy, 5e-5)
			}
		}
	})
}

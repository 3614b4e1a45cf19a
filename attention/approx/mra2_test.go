package approx

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// chosen tells, for each head, which pairs of blocks a call of one sequence has chosen.
func chosen(m *MRA2, c *request) (list []int64, err error) {
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	if err := r.solve(context.Background(), m, *c); err != nil {
		return nil, err
	}
	blocks := m.blocks(c.Q.Rows)
	for h := range m.shape.heads {
		own := make([]int64, blocks*blocks)
		for _, pair := range r.choices[h].pairs {
			own[pair] = 1
		}
		list = append(list, own...)
	}
	return list, nil
}

// TestMRA2NaN: a query or key of NaN leaves no choice of pairs, and no number instead.
func TestMRA2NaN(t *testing.T) {
	const n, block, bad = 200, 8, 70
	isatest.Run(t, func(t *testing.T) {
		for _, sparse := range []bool{false, true} {
			m := value[*MRA2](t)(NewMRA2(MRA2Config{Heads: 4, KVHeads: 2, HeadDim: 8, Block: block, PairsPerRow: 2, Sparse: sparse}))
			for _, c := range []struct {
				key bool
				x   float64
			}{{false, math.NaN()}, {false, math.Inf(1)}, {true, math.NaN()}} {
				call := randomCall(1, m.shape, n, n)
				if c.key {
					mat.Row(call.K, bad)[0] = float32(c.x) // of the first key head
				} else {
					mat.Row(call.Q, bad)[0] = float32(c.x) // of the first head
				}
				if err := m.Run(context.Background(), call.call()); err != nil {
					t.Fatal(err)
				}
				for i := range n {
					for h := range 4 {
						reached := !c.key && h == 0 && i/block == bad/block || c.key && h < 2
						for e, got := range mat.Part(call.Dst, i, h*8, 8) {
							if reached == finite(got) {
								t.Fatalf("Sparse %v, %v, in a key %v: row %d, head %d, column %d is %v", sparse, c.x, c.key, i, h, e, got)
							}
						}
					}
				}
			}
		}
	})
}

func goldenMRA2(t *testing.T, f *golden.File) {
	q, k := f.Shape("q"), f.Shape("k")
	heads, tokens, d := q[0], q[1], q[2]
	cfg := MRA2Config{
		Heads: heads, KVHeads: k[0], HeadDim: d, ValueDim: f.Shape("v")[2],
		Block: int(number(t, f.Meta("block_size"))), Pairs: int(number(t, f.Meta("num_blocks"))), Diagonals: int(number(t, f.Meta("diagonal_prior"))),
	}
	in := func(name string) blas32.General {
		s := f.Shape(name)
		return reorder(f.Float32(name), 1, s[0], s[1], s[2])
	}
	for _, sparse := range []bool{false, true} {
		cfg.Sparse = sparse
		c := &request{Q: in("q"), K: in("k"), V: in("v"), Dst: mat.New(tokens, heads*cfg.ValueDim)}
		m := value[*MRA2](t)(NewMRA2(cfg))
		pairs := value[[]int64](t)(chosen(m, c))
		if f.Has("selected_blocks") {
			if want := f.Int64("selected_blocks"); !slices.Equal(pairs, want) {
				takeEqual(t, m, c, pairs, want)
				pairs = value[[]int64](t)(chosen(m, c))
			}
			f.CompareInts("selected_blocks", pairs)
		}
		name := "out_full"
		if sparse {
			name = "out_sparse"
		}
		f.Compare(name, unordered(c.Dst, 1, heads))
	}
}

// takeEqual makes an operator attend to the pairs of a file that has chosen others among equal
// ones, such as the best of each row, which all have the score 0; it fails where they are not
// equal.
func takeEqual(t *testing.T, m *MRA2, c *request, got, want []int64) {
	t.Helper()
	blocks := m.blocks(c.Q.Rows)
	scores := mraScores(m, c)
	lists := make([][]int32, m.shape.heads)
	for h := range lists {
		own := scores[h*blocks*blocks:][:blocks*blocks]
		cut := math.Inf(1)
		for i, s := range own {
			if got[h*blocks*blocks+i] != 0 {
				cut = math.Min(cut, s)
			}
			if want[h*blocks*blocks+i] != 0 {
				lists[h] = append(lists[h], int32(i))
			}
		}
		for i, s := range own {
			if is := want[h*blocks*blocks+i] != 0; is && s < cut-1e-5 || !is && s > cut+1e-5 {
				t.Fatalf("head %d: pair %d has the score %v, the last that is chosen %v", h, i, s, cut)
			}
		}
		if len(lists[h]) != m.pairs(blocks) {
			t.Fatalf("head %d: %d pairs, want %d", h, len(lists[h]), m.pairs(blocks))
		}
	}
	m.given = func(h int) []int32 { return lists[h] }
}

// mraScores are what pairs of blocks are chosen by, in float64, of a call without options.
func mraScores(m *MRA2, c *request) (list []float64) {
	s, b, blocks := &m.shape, m.cfg.Block, m.blocks(c.Q.Rows)
	for h := range s.heads {
		q, k := vectorsOf(c.Q, h, s.dim), vectorsOf(c.K, h/s.group(), s.dim)
		mean := func(x [][]float64, block int) []float64 {
			sum := make([]float64, s.dim)
			rows := x[block*b : min(block*b+b, len(x))]
			for _, row := range rows {
				for d, v := range row {
					sum[d] += v / float64(len(rows))
				}
			}
			return sum
		}
		for x := range blocks {
			row, top := make([]float64, blocks), math.Inf(-1)
			for y := range row {
				row[y] = float64(m.cfg.Scale) * dot(mean(q, x), mean(k, y))
				top = math.Max(top, row[y])
			}
			for y := range row {
				row[y] -= top
				if m.cfg.Diagonals > 0 && max(x-y, y-x) <= m.cfg.Diagonals/2 {
					row[y] += 5e3
				}
			}
			list = append(list, row...)
		}
	}
	return list
}

// mraOracle is the formula in float64, dense.
func mraOracle(cfg MRA2Config) func(c *request, sh shape) [][]float64 {
	return func(c *request, sh shape) [][]float64 {
		n, b := c.Q.Rows, cfg.Block
		blocks := (n + b - 1) / b
		there := func(j int) bool { return c.Valid == nil || c.Valid[j] }
		return eachHead(n, sh, func(h, g int, out [][]float64) {
			scale := 1 / math.Sqrt(float64(sh.dim))
			q, k, v := vectorsOf(c.Q, h, sh.dim), vectorsOf(c.K, g, sh.dim), vectorsOf(c.V, g, sh.valueDim)
			// means weights rows of a block, and returns their sum.
			means := func(m [][]float64, dim, x int, weight func(j int) float64) ([]float64, float64) {
				mean, total := make([]float64, dim), 0.0
				for j := x * b; j < min(x*b+b, n); j++ {
					if w := weight(j); w > 0 {
						total += w
						for d := range mean {
							mean[d] += w * m[j][d]
						}
					}
				}
				for d := range mean {
					mean[d] /= math.Max(total, 1e-300)
				}
				return mean, total
			}
			size := func(j int) float64 { return weight(c, j, g) }
			low, order := make([][]float64, blocks), []int{}
			values := make([][]float64, blocks)
			counts, tops := make([]float64, blocks), make([]float64, blocks)
			keys := make([][]float64, blocks)
			bias := make([]float64, blocks)
			for y := range blocks {
				var total float64
				keys[y], total = means(k, sh.dim, y, size)
				values[y], _ = means(v, sh.valueDim, y, size)
				for j := y * b; j < min(y*b+b, n); j++ {
					if size(j) > 0 {
						counts[y]++
					}
				}
				bias[y] = math.Log(total / counts[y])
				if counts[y] == 0 {
					bias[y] = math.Inf(-1)
				}
			}
			scores := make([]float64, blocks*blocks)
			for x := range blocks {
				of := size
				if counts[x] == 0 {
					of = func(j int) float64 {
						if there(j) {
							return 1
						}
						return 0
					}
				}
				query, total := means(q, sh.dim, x, of)
				low[x], tops[x] = make([]float64, blocks), math.Inf(-1)
				for y := range blocks {
					low[x][y] = scale*dot(query, keys[y]) + bias[y]
					tops[x] = math.Max(tops[x], low[x][y])
				}
				for y := range blocks {
					s := low[x][y] - tops[x]
					if math.Abs(float64(x-y)) <= float64(cfg.Diagonals/2) && cfg.Diagonals > 0 {
						s = 1 / (1 - s) // before all others, in the same order
					}
					scores[x*blocks+y] = s
					if total > 0 && counts[y] > 0 {
						order = append(order, x*blocks+y)
					}
				}
			}
			slices.SortStableFunc(order, func(a, b int) int {
				switch {
				case scores[a] > scores[b]:
					return -1
				case scores[a] < scores[b]:
					return 1
				}
				return 0
			})
			exact := make([]bool, blocks*blocks)
			for _, pair := range order[:min(cfg.PairsPerRow*blocks, len(order))] {
				exact[pair] = true
			}
			for i := range out {
				if !there(i) {
					continue
				}
				x := i / b
				logit := func(j int) float64 {
					return scale*dot(q[i], k[j]) + math.Log(size(j))
				}
				top := math.Inf(-1)
				if !cfg.Sparse {
					top = tops[x]
				}
				for j := range n {
					if exact[x*blocks+j/b] && size(j) > 0 {
						top = math.Max(top, logit(j))
					}
				}
				sum := 1e-6
				for y := range blocks {
					add := func(p float64, v []float64) {
						sum += p
						for d := range v {
							out[i][d] += p * v[d]
						}
					}
					switch {
					case exact[x*blocks+y]:
						for j := y * b; j < min(y*b+b, n); j++ {
							if size(j) > 0 {
								add(math.Exp(logit(j)-top), v[j])
							}
						}
					case !cfg.Sparse && counts[y] > 0:
						add(counts[y]*math.Exp(low[x][y]-top), values[y])
					}
				}
				for d := range out[i] {
					out[i][d] /= sum
				}
			}
		})
	}
}

// TestMRA2Exact: where all pairs are chosen it is exact attention, but for Eps.
func TestMRA2Exact(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, sparse := range []bool{false, true} {
			m := value[*MRA2](t)(NewMRA2(MRA2Config{Heads: 4, KVHeads: 2, HeadDim: 9, ValueDim: 11, Block: 7, Pairs: 1 << 20, Sparse: sparse}))
			exact := value[*attention.Attention](t)(attention.New(attention.Config{Heads: 4, KVHeads: 2, HeadDim: 9, ValueDim: 11}))
			c := randomCall(1, m.shape, 300, 300)
			if err := m.Run(context.Background(), c.call()); err != nil {
				t.Fatal(err)
			}
			want := mat.New(300, 44)
			if err := exact.Forward(want, c.Q, c.K, c.V); err != nil {
				t.Fatal(err)
			}
			for i := range want.Rows {
				for j, x := range mat.Row(want, i) {
					if d := math.Abs(float64(mat.Row(c.Dst, i)[j] - x)); !(d <= 1e-5) {
						t.Fatalf("sparse %v: row %d column %d is %v, want %v", sparse, i, j, mat.Row(c.Dst, i)[j], x)
					}
				}
			}
		}
	})
}

// TestMRA2Waves: long sequences, whose blocks are compared in several passes and not in one
// wave with others, choose and give what they do alone.
func TestMRA2Waves(t *testing.T) {
	m := value[*MRA2](t)(NewMRA2(MRA2Config{Heads: 2, KVHeads: 1, HeadDim: 4, Block: 1, PairsPerRow: 2}))
	c := randomCall(1, m.shape, 2000, 2000)
	c.Offsets = []int{0, 700, 1400, 1400, 2000}
	if err := m.Run(context.Background(), c.call()); err != nil {
		t.Fatal(err)
	}
	for b := range len(c.Offsets) - 1 {
		from, to := c.Offsets[b], c.Offsets[b+1]
		one := stepCall(c, from, to, nil)
		one.Dst = mat.New(to-from, c.Dst.Cols)
		if err := m.Run(context.Background(), one.call()); err != nil {
			t.Fatal(err)
		}
		sameBits(t, "alone", mat.Rows(c.Dst, from, to), one.Dst)
	}
}

// TestMRA2Long: there is a longest sequence.
func TestMRA2Long(t *testing.T) {
	const tokens = maxBlocks + 1
	m := value[*MRA2](t)(NewMRA2(MRA2Config{Heads: 1, HeadDim: 1, Block: 1}))
	x := blas32.General{Rows: tokens, Cols: 1, Stride: 1, Data: make([]float32, tokens)}
	if err := m.Forward(mat.New(tokens, 1), x, x, x); !errors.Is(err, ErrShape) {
		t.Errorf("error %v", err)
	}
}

// TestMRA2Error measures the approximation against exact attention for the data of
// TestNystromError. The documentation has what it prints.
func TestMRA2Error(t *testing.T) {
	const heads, d = 2, 32
	n, perRow := 2048, []int{1, 2, 4, 8, 16}
	if testing.Short() {
		n, perRow = 512, []int{1, 4}
	}
	exact := value[*attention.Attention](t)(attention.New(attention.Config{Heads: heads, HeadDim: d}))
	for _, data := range []struct {
		name string
		make func(seed uint64) blas32.General
		size float32
		most [2]float64 // full and sparse
	}{
		{"smooth", func(seed uint64) blas32.General { return smooth(seed, n, heads*d) }, 1, [2]float64{0.1, 3}},
		{"smooth", func(seed uint64) blas32.General { return smooth(seed, n, heads*d) }, 2, [2]float64{1, 3}},
		{"noise", func(seed uint64) blas32.General { return normal(seed, n, heads*d) }, 1, [2]float64{1, 8}},
	} {
		q, k, v := scaled(data.make(1), data.size), scaled(data.make(2), data.size), data.make(3)
		want, got := mat.New(n, heads*d), mat.New(n, heads*d)
		if err := exact.Forward(want, q, k, v); err != nil {
			t.Fatal(err)
		}
		for _, pairs := range perRow {
			for i, most := range data.most {
				m := value[*MRA2](t)(NewMRA2(MRA2Config{Heads: heads, HeadDim: d, PairsPerRow: pairs, Sparse: i == 1}))
				if err := m.Forward(got, q, k, v); err != nil {
					t.Fatal(err)
				}
				mean := meanError(got, want, heads)
				t.Logf("%s of %v, %d pairs a row, sparse %v: %.2g", data.name, data.size, pairs, i == 1, mean)
				if !(mean <= most) {
					t.Errorf("%s of %v, %d pairs a row, sparse %v: %v, want at most %v", data.name, data.size, pairs, i == 1, mean, most)
				}
			}
		}
	}
}

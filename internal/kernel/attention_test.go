package kernel

import (
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// tileRun is what runTile leaves of queries over keys cut in parts.
type tileRun struct {
	o        blas32.General
	top, sum []float32
}

func runTile(t AttentionTile, q, k, v blas32.General, cuts ...int) tileRun {
	r := tileRun{top: make([]float32, q.Rows), sum: make([]float32, q.Rows)}
	cols := t.Panels(v.Cols) * t.Panel()
	r.o = blas32.General{Rows: q.Rows, Cols: cols, Stride: cols + 3, Data: make([]float32, q.Rows*(cols+3))}
	for i := range r.top {
		r.top[i] = -math.MaxFloat32
	}
	factor := make([]float32, q.Rows)
	from := 0
	for _, to := range append(cuts, k.Rows) {
		n := to - from
		part := func(m blas32.General) blas32.General {
			m.Rows, m.Data = n, m.Data[min(from*m.Stride, len(m.Data)):]
			return m
		}
		size := n + 2
		kp := make([]float32, t.Panels(n)*t.Panel()*k.Cols)
		vp := make([]float32, t.Panels(v.Cols)*t.Panel()*size)
		half := n / 2
		first, second := part(k), part(k)
		first.Rows = half
		second.Rows, second.Data = n-half, second.Data[min(half*k.Stride, len(second.Data)):]
		t.PackKeys(kp, 0, first)
		t.PackKeys(kp, half, second)
		t.PackValues(vp, size, 1, part(v))
		s := blank(q.Rows, t.Panels(n)*t.Panel(), 5)
		t.Scores(s, q, kp)
		s.Cols = n
		t.Weights(s, r.top, r.sum, factor)
		t.Values(r.o, s, vp, size, 1, factor)
		from = to
	}
	return r
}

func TestAttentionTile(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		tile := NewAttentionTile()
		for _, rows := range []int{0, 1, 3, 4, 5, 11, 12, 13, 25} {
			for _, keys := range []int{0, 1, 7, 31, 32, 65, 130} {
				for _, dims := range [][2]int{{1, 1}, {3, 5}, {64, 33}, {40, 64}, {0, 3}, {3, 0}} {
					name := fmt.Sprintf("%d x %d, %v", rows, keys, dims)
					q, k, v := matrix(1, rows, dims[0], 2), matrix(2, keys, dims[0], 1), matrix(3, keys, dims[1], 0)
					r := runTile(tile, q, k, v, keys/3, keys/2)
					for i := range rows {
						weight := make([]float64, keys)
						top, sum := -math.MaxFloat32, 0.0
						for j := range weight {
							for d := range dims[0] {
								weight[j] += float64(q.Data[i*q.Stride+d]) * float64(k.Data[j*k.Stride+d])
							}
							top = max(top, weight[j])
						}
						want := make([]float64, dims[1])
						for j, s := range weight {
							e := math.Exp(s - top)
							sum += e
							for c := range want {
								want[c] += e * float64(v.Data[j*v.Stride+c])
							}
						}
						near(t, name+": top", r.top[i:i+1], []float64{top}, 1e-5+1e-6*math.Abs(top))
						near(t, name+": sum", r.sum[i:i+1], []float64{sum}, 1e-5*(1+sum))
						near(t, name+": o", r.o.Data[i*r.o.Stride:][:dims[1]], want, 1e-4)
					}
					// A row alone has the bits it has among others.
					if rows > 0 {
						one := q
						one.Rows, one.Data = 1, q.Data[(rows-1)*q.Stride:]
						alone := runTile(tile, one, k, v, keys/3, keys/2)
						if err := sameBits(alone.o.Data[:dims[1]], r.o.Data[(rows-1)*r.o.Stride:][:dims[1]]); err != nil {
							t.Fatalf("%s: the last row alone: %v", name, err)
						}
					}
				}
			}
		}
	})
}

// TestAttentionTileMasked gives scores of -Inf, huge ones, NaN and +Inf.
func TestAttentionTileMasked(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		tile := NewAttentionTile()
		const n = 40
		low := float32(math.Inf(-1))
		for _, c := range []struct {
			name     string
			fill     func(j int) float32
			top, sum float32
		}{
			{"all masked", func(int) float32 { return low }, -math.MaxFloat32, 0},
			{"one visible", func(j int) float32 { return map[bool]float32{true: 3, false: low}[j == 33] }, 3, 1},
			{"all -1e30", func(int) float32 { return -1e30 }, -1e30, n},
			{"1e30 and -1e30", func(j int) float32 { return 1e30 * float32(1-2*(j%2)) }, 1e30, n / 2},
			{"NaN", func(j int) float32 { return map[bool]float32{true: nan, false: 1}[j == 5] }, 1, nan},
			{"+Inf", func(j int) float32 { return map[bool]float32{true: inf, false: 1}[j == 5] }, inf, nan},
		} {
			s := blank(3, n, 1)
			for i := range s.Rows {
				for j := range n {
					s.Data[i*s.Stride+j] = c.fill(j)
				}
			}
			top, sum, factor := []float32{-math.MaxFloat32, -math.MaxFloat32, -math.MaxFloat32}, make([]float32, 3), make([]float32, 3)
			tile.Weights(s, top, sum, factor)
			gapsIntact(t, s)
			for i := range top {
				if c.name != "NaN" && top[i] != c.top || ulp(sum[i], float64(c.sum)) > 0 {
					t.Errorf("%s: row %d: top %v, sum %v; want %v, %v", c.name, i, top[i], sum[i], c.top, c.sum)
				}
			}
		}
	})
}

// TestAttentionTileWeightError compares weights with exp, over their range.
func TestAttentionTileWeightError(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		tile := NewAttentionTile()
		const n = 1 << 12
		x, worst := make([]float32, n), 0.0
		for block := range 64 {
			for j := range x {
				x[j] = -90 * float32(block*n+j) / (64 * n)
			}
			s := blas32.General{Rows: 1, Cols: n, Stride: n, Data: append([]float32(nil), x...)}
			tile.Weights(s, []float32{0}, []float32{0}, []float32{0})
			for j, v := range x {
				want := flush(math.Exp(float64(v)))
				d := ulp(s.Data[j], want) / (2.5 + math.Abs(float64(v))/4)
				if worst = max(worst, d); d > 1 && !nearFlush(want) {
					t.Fatalf("the weight at %v is %v, want %v", v, s.Data[j], want)
				}
			}
		}
		t.Logf("largest error %.2f of the bound", worst)
	})
}

// TestAttentionTileGuarded has every operand end, or begin, at an unmapped page.
func TestAttentionTileGuarded(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		tile := NewAttentionTile()
		w := tile.Panel()
		for _, low := range []bool{false, true} {
			for rows := 1; rows < 15; rows++ {
				for _, dim := range []int{1, 4, 7} {
					for _, keys := range []int{1, 6, w, 2*w - 1} {
						g := func(rows, cols int) blas32.General {
							data := guarded(t, rows*cols, low)
							copy(data, random(uint64(rows), len(data)))
							return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
						}
						q, k, v := g(rows, dim), g(keys, dim), g(keys, dim)
						kp, vp := g(1, tile.Panels(keys)*w*dim).Data, g(1, tile.Panels(dim)*w*keys).Data
						tile.PackKeys(kp, 0, k)
						tile.PackValues(vp, keys, 0, v)
						s, o := g(rows, tile.Panels(keys)*w), g(rows, tile.Panels(dim)*w)
						top, sum, factor := g(1, rows).Data, g(1, rows).Data, g(1, rows).Data
						tile.Scores(s, q, kp)
						p := g(rows, keys)
						tile.Weights(p, top, sum, factor)
						tile.Values(o, p, vp, keys, 0, factor)
					}
				}
			}
		}
	})
}

func TestAttentionTilePanics(t *testing.T) {
	tile := NewAttentionTile()
	w := tile.Panel()
	mustPanic(t, fmt.Sprintf("kernel: AttentionTile.PackKeys: dst has 3 elements, want at least %d", w*2), func() {
		tile.PackKeys(make([]float32, 3), 0, matrix(1, 2, 2, 0))
	})
	mustPanic(t, "kernel: AttentionTile.PackValues: size has 2 elements, want at least 3", func() {
		tile.PackValues(nil, 2, 1, matrix(1, 2, 2, 0))
	})
	mustPanic(t, fmt.Sprintf("kernel: AttentionTile.Scores: k has 0 elements, want at least %d", 2*w), func() {
		tile.Scores(matrix(1, 1, w, 0), matrix(1, 1, 2, 0), nil)
	})
	mustPanic(t, "kernel: AttentionTile.Weights: sum has 0 elements, want 2", func() {
		tile.Weights(matrix(1, 2, 3, 0), make([]float32, 2), nil, nil)
	})
	mustPanic(t, "kernel: AttentionTile.Values: 2000 keys, want at most 1024", func() {
		tile.Values(matrix(1, 1, 0, 0), matrix(1, 1, 2000, 0), nil, 2000, 0, make([]float32, 1))
	})
}

// BenchmarkAttentionTile is a step of causal attention: a full strip of rows
// by 256 keys, packed.
func BenchmarkAttentionTile(b *testing.B) {
	for _, dim := range []int{64, 128} {
		const keys = 256
		tile := NewAttentionTile()
		rows := 8 * tile.Rows()
		q, k, v := matrix(1, rows, dim, 0), matrix(2, keys, dim, 0), matrix(3, keys, dim, 0)
		kp := aligned32(tile.Panels(keys) * tile.Panel() * dim)
		vp := aligned32(tile.Panels(dim) * tile.Panel() * keys)
		tile.PackKeys(kp, 0, k)
		tile.PackValues(vp, keys, 0, v)
		s := blas32.General{Rows: tile.Rows(), Cols: tile.Panels(keys) * tile.Panel(), Stride: keys + 32, Data: aligned32(tile.Rows() * (keys + 32))}
		cols := tile.Panels(dim) * tile.Panel()
		o := blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: aligned32(rows * cols)}
		top, sum, factor := make([]float32, rows), make([]float32, rows), make([]float32, rows)
		flop := 2 * float64(rows) * keys * float64(dim)
		row := func(m blas32.General, i int) blas32.General {
			m.Rows, m.Data = tile.Rows(), m.Data[i*m.Stride:]
			return m
		}
		strips := func(b *testing.B, flop float64, f func(i int)) {
			for b.Loop() {
				for i := 0; i < rows; i += tile.Rows() {
					f(i)
				}
			}
			b.ReportMetric(flop*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		}
		n, narrow := tile.Rows(), s
		narrow.Cols = keys
		scores := func(i int) { tile.Scores(s, row(q, i), kp) }
		weights := func(i int) { tile.Weights(narrow, top[i:i+n], sum[i:i+n], factor[i:i+n]) }
		values := func(i int) { tile.Values(row(o, i), narrow, vp, keys, 0, factor[i:i+n]) }
		b.Run(fmt.Sprintf("scores/d=%d", dim), func(b *testing.B) { strips(b, flop, scores) })
		b.Run(fmt.Sprintf("weights/d=%d", dim), func(b *testing.B) { strips(b, 0, weights) })
		b.Run(fmt.Sprintf("values/d=%d", dim), func(b *testing.B) { strips(b, flop, values) })
		b.Run(fmt.Sprintf("all/d=%d", dim), func(b *testing.B) {
			strips(b, 2*flop, func(i int) { scores(i); weights(i); values(i) })
		})
	}
}

func aligned32(n int) []float32 {
	m := Matrix{data: aligned(nil, 4*n)}
	return m.float32()
}

// TestScoresAhead asks for memory of every length, which changes no bit.
func TestScoresAhead(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		tile := NewAttentionTile()
		const rows, dim = 14, 37
		keys := 3 * tile.Panel()
		q, packed := matrix(1, rows, dim, 2), make([]float32, keys*dim)
		tile.PackKeys(packed, 0, matrix(2, keys, dim, 0))
		want := blank(rows, keys, 1)
		tile.Scores(want, q, packed)
		for _, n := range []int{0, 1, 17, 100, keys * dim} {
			got := blank(rows, keys, 1)
			tile.ScoresAhead(got, q, packed, guarded(t, n, false))
			if err := sameBits(got.Data, want.Data); err != nil {
				t.Errorf("with %d ahead: %v", n, err)
			}
		}
	})
}

// TestAttend has the bits of the three steps of each row by itself, whatever the rows see.
func TestAttend(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		tile := NewAttentionTile()
		w, full := tile.Panel(), tile.Rows()
		const from = 5
		for _, rows := range []int{0, 1, full - 1, full, 2*full + 5} {
			for _, keys := range []int{1, w, 3*w - 1} {
				for _, dims := range [][2]int{{64, w}, {5, 3 * w}, {0, w}, {3, 0}, {1 << 10, w}} {
					for what, sees := range map[string]func(i int) (int, int){
						"all":    func(int) (int, int) { return from, from + keys },
						"causal": func(i int) (int, int) { return 0, from + i },
						"window": func(i int) (int, int) { return from - 9 + 3*i, from + 3*i },
						"holes":  func(i int) (int, int) { return from + keys*(i%2), from + keys - i%3 },
					} {
						size, panels := keys+2, tile.Panels(keys)
						k, v := make([]float32, panels*w*dims[0]), make([]float32, size*dims[1])
						tile.PackKeys(k, 0, matrix(1, keys, dims[0], 1))
						tile.PackValues(v, size, 0, matrix(2, keys, dims[1], 3))
						x := &Attending{
							Q: matrix(3, rows, dims[0], 2), O: matrix(4, rows, dims[1], 1), S: blank(min(rows, full), panels*w, 3),
							Top: random(5, rows), Sum: random(6, rows), Factor: make([]float32, rows),
							From: make([]int, rows), To: make([]int, rows),
						}
						o, top, sum := matrix(4, rows, dims[1], 1), random(5, rows), random(6, rows)
						for i := range rows {
							if i%full == 0 {
								x.Seen = append(x.Seen, Seen{From: math.MaxInt, End: math.MaxInt})
							}
							x.From[i], x.To[i] = sees(i)
							f, t, s := x.From[i], x.To[i], &x.Seen[i/full]
							if f < t {
								s.From, s.To = min(s.From, f), max(s.To, t)
							}
							s.All, s.End = max(s.All, f), min(s.End, t)
						}
						for i := range rows {
							strip := &x.Seen[i/full]
							lo, hi := max(strip.From-from, 0), min(strip.To-from, keys)
							if lo >= hi {
								continue
							}
							s := blank(1, panels*w, 0)
							q, part, factor := x.Q, o, make([]float32, 1)
							q.Rows, q.Data = 1, q.Data[min(i*q.Stride, len(q.Data)):]
							part.Rows, part.Data = 1, o.Data[min(i*o.Stride, len(o.Data)):]
							tile.Scores(s, q, k)
							for j := range s.Cols {
								if j+from < x.From[i] || j+from >= x.To[i] {
									s.Data[j] = float32(math.Inf(-1))
								}
							}
							s.Cols, s.Data = hi-lo, s.Data[lo:]
							tile.Weights(s, top[i:i+1], sum[i:i+1], factor)
							tile.Values(part, s, v, size, lo, factor)
						}
						tile.Attend(x, k, v, size, from, keys, k[len(k)/3:])
						for name, p := range map[string][2][]float32{"O": {x.O.Data, o.Data}, "Top": {x.Top, top}, "Sum": {x.Sum, sum}} {
							if err := sameBits(p[0], p[1]); err != nil {
								t.Errorf("%d rows, %d keys, %v, %s: %s: %v", rows, keys, dims, what, name, err)
							}
						}
					}
				}
			}
		}
	})
}

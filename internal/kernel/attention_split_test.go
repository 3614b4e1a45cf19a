package kernel

import (
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/isa/isatest"
)

// splitRun does both products of a tile: keys and values packed in pieces that end at cuts,
// scores of all keys, and the values of those from a multiple of 32 on, with p for weights.
func splitRun(t SplitTile, q, k, v, p blas32.General, from int, cuts ...int) (s, o blas32.General, finite bool) {
	size := k.Rows + 5
	kp, vp := aligned32(t.Keys(k.Rows, k.Cols)), aligned32(t.Values(size, v.Cols))
	for i := range kp {
		kp[i] = nan // what was there before
	}
	for i := range vp {
		vp[i] = nan
	}
	finite, at := true, 0
	for _, to := range append(cuts, k.Rows) {
		part := func(m blas32.General) blas32.General {
			m.Rows, m.Data = to-at, m.Data[min(at*m.Stride, len(m.Data)):]
			return m
		}
		t.PackKeys(kp, at, part(k))
		ok := t.PackValues(vp, size, at, part(v))
		finite, at = finite && ok, to
	}
	strip := aligned32(t.Strip(q.Cols))
	t.SplitRows(strip, q)
	s = blank(q.Rows, t.Panels(k.Rows)*t.Panel(), 5)
	t.Scores(s, strip, kp, q.Cols, nil)
	s.Cols = k.Rows
	cols := t.Panels(v.Cols) * t.Panel()
	o = blas32.General{Rows: q.Rows, Cols: cols, Stride: cols + 3, Data: random(9, splitHigh*(cols+3))}
	factor := random(8, splitHigh)[:q.Rows]
	weights := p
	weights.Data = append([]float32(nil), p.Data...)
	weights.Cols = t.Panels(p.Cols) * t.Panel()
	t.Weigh(o, weights, aligned32(t.Strip(weights.Cols)), vp, size, from, factor, nil)
	return s, o, finite
}

// paddedWeights are [rows, cols] with zeros up to whole panels.
func paddedWeights(rows, cols int) blas32.General {
	stride := (cols + 31) / 32 * 32
	p := blas32.General{Rows: rows, Cols: cols, Stride: stride, Data: make([]float32, rows*stride)}
	for i := range rows {
		for j, x := range random(uint64(20+i), cols) {
			p.Data[i*stride+j] = float32(math.Abs(float64(x)))
		}
	}
	return p
}

// TestSplitTile compares both products with float64, with rows alone, with keys in pieces, and
// with the portable form: bits are the same.
func TestSplitTile(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, format := range splitFormats {
			tile := NewSplitTile(format)
			for _, c := range [][4]int{{1, 1, 1, 1}, {3, 31, 5, 33}, {16, 32, 64, 64}, {17, 70, 40, 17}, {32, 100, 300, 3}, {5, 300, 33, 300}} {
				rows, keys, dim, cols := c[0], c[1], c[2], c[3]
				name := fmt.Sprintf("%v %v", format, c)
				q, k, v := matrix(1, rows, dim, 2), matrix(2, keys, dim, 1), matrix(3, keys, cols, 3)
				from := keys / 2 / 32 * 32
				p := paddedWeights(rows, keys-from)
				s, o, finite := splitRun(tile, q, k, v, p, from)
				if !finite {
					t.Errorf("%s: values are not finite", name)
				}
				all := s
				all.Cols = tile.Panels(keys) * tile.Panel()
				gapsIntact(t, all)
				for i := range rows { // of a panel's columns after the last key
					for j := keys; j < all.Cols; j++ {
						if x := all.Data[i*all.Stride+j]; x != 0 {
							t.Fatalf("%s: score %d, %d is %v, want 0 after the last key", name, i, j, x)
						}
					}
				}
				before, factor := random(9, splitHigh*o.Stride), random(8, splitHigh)
				for i := range rows {
					for j := range keys {
						sum, size := 0.0, 0.0
						for d := range dim {
							x := float64(q.Data[i*q.Stride+d]) * float64(k.Data[j*k.Stride+d])
							sum, size = sum+x, size+math.Abs(x)
						}
						if e := math.Abs(float64(s.Data[i*s.Stride+j]) - sum); !(e <= splitBound(format, dim)*size) {
							t.Fatalf("%s: score %d, %d is off by %v of %v", name, i, j, e/size, size)
						}
					}
					for j := range o.Cols {
						sum := float64(factor[i]) * float64(before[i*o.Stride+j])
						size := math.Abs(sum)
						for l := from; l < keys && j < cols; l++ {
							x := float64(p.Data[i*p.Stride+l-from]) * float64(v.Data[l*v.Stride+j])
							sum, size = sum+x, size+math.Abs(x)
						}
						if e := math.Abs(float64(o.Data[i*o.Stride+j]) - sum); !(e <= splitBound(format, keys)*size) {
							t.Fatalf("%s: sum %d, %d is off by %v of %v", name, i, j, e/size, size)
						}
					}
				}
				same := func(what string, s2, o2 blas32.General) {
					if err := sameBits(dense(s2), dense(s)); err != nil {
						t.Fatalf("%s: %s: scores: %v", name, what, err)
					}
					if err := sameBits(dense(o2), dense(o)); err != nil {
						t.Fatalf("%s: %s: sums: %v", name, what, err)
					}
				}
				s2, o2, _ := splitRun(tile, q, k, v, p, from, keys/5, keys/3, keys*2/3)
				same("in pieces", s2, o2)
				restore := isa.Without(isa.AMXBFloat16)
				s2, o2, _ = splitRun(tile, q, k, v, p, from)
				same("without the unit", s2, o2)
				restore()
				one, w := q, p
				one.Rows, w.Rows = 1, 1
				s2, o2, _ = splitRun(tile, one, k, v, w, from)
				s.Rows, o.Rows = 1, 1
				same("a row alone", s2, o2)
			}
		}
	})
}

// TestSplitTileNotFinite checks that values that are not finite are told, and count only with
// a weight; sums without them have the bits that they have where 0 stands in their place.
func TestSplitTileNotFinite(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, format := range splitFormats {
			tile := NewSplitTile(format)
			const rows, keys, cols, from = 3, 77, 40, 32
			for _, at := range [][2]int{{35, 5}, {63, 39}, {72, 0}} {
				v := matrix(3, keys, cols, 0)
				packed := func(wild float32) []float32 {
					v.Data[at[0]*cols+at[1]] = wild
					v.Data[3*cols+at[1]] = wild // before those that are weighed
					vp := aligned32(tile.Values(keys, cols))
					if finite := tile.PackValues(vp, keys, 0, v); finite != (wild == 0) {
						t.Errorf("%v: with %v at %v, values are finite: %v", format, wild, at, finite)
					}
					return vp
				}
				weigh := func(f func(o, p blas32.General, strip, v []float32, size, from int, factor []float32, stop func() bool), vp []float32) blas32.General {
					p := paddedWeights(rows, keys-from)
					p.Cols = p.Stride
					p.Data[p.Stride+at[0]-from] = 0
					o := blas32.General{Rows: rows, Cols: 64, Stride: 70, Data: random(9, rows*70)}
					f(o, p, aligned32(tile.Strip(p.Cols)), vp, keys, from, []float32{1, 2, 3}, nil)
					return o
				}
				want := weigh(tile.Weigh, packed(0))
				for _, wild := range []float32{inf, nan, 3.4e38} {
					o := weigh(tile.WeighSome, packed(wild))
					for i := range rows {
						for j := range o.Stride {
							x, w := o.Data[i*o.Stride+j], want.Data[i*o.Stride+j]
							if j == at[1] && i != 1 {
								if finite := x-x == 0; finite {
									t.Errorf("%v: sum %d, %d is %v with a value of %v", format, i, j, x, wild)
								}
							} else if math.Float32bits(x) != math.Float32bits(w) {
								t.Errorf("%v: sum %d, %d is %v, want %v", format, i, j, x, w)
							}
						}
					}
				}
			}
		}
	})
}

// TestSplitTileStops counts how often products ask whether to stop without the unit: at least once
// for every 1.6 million products of two bfloat16, and no more once they are to.
func TestSplitTileStops(t *testing.T) {
	restore := isa.Without(isa.AMXBFloat16)
	defer restore()
	const rows, keys, dim, most = splitHigh, 256, 300, 1_600_000
	q, k, v := matrix(1, rows, dim, 0), matrix(2, keys, dim, 0), matrix(3, keys, dim, 0)
	for _, format := range splitFormats {
		tile := NewSplitTile(format)
		kp, vp, strip := aligned32(tile.Keys(keys, dim)), aligned32(tile.Values(keys, dim)), aligned32(tile.Strip(dim))
		tile.PackKeys(kp, 0, k)
		tile.PackValues(vp, keys, 0, v)
		tile.SplitRows(strip, q)
		cols := tile.Panels(dim) * tile.Panel()
		o, p := blank(rows, cols, 0), paddedWeights(rows, keys)
		ones := make([]float32, rows)
		for i := range ones {
			ones[i] = 1
		}
		for name, f := range map[string]func(stop func() bool){
			"scores":      func(stop func() bool) { tile.Scores(blank(rows, keys, 0), strip, kp, dim, stop) },
			"values":      func(stop func() bool) { tile.Weigh(o, p, aligned32(tile.Strip(keys)), vp, keys, 0, ones, stop) },
			"some values": func(stop func() bool) { tile.WeighSome(o, p, aligned32(tile.Strip(keys)), vp, keys, 0, ones, stop) },
		} {
			run := func(left int) (asked int) {
				f(func() bool { asked++; return asked > left })
				return asked
			}
			asked := run(1 << 30)
			if want := rows * keys * dim * len(splitTerms[format.parts()]) / most; asked < want {
				t.Errorf("%v: %s ask %d times whether to stop, want %d", format, name, asked, want)
			}
			if got := run(2); got != 3 {
				t.Errorf("%v: %s ask %d times whether to stop, and should have after 3", format, name, got)
			}
		}
	}
}

// TestSplitTileGuarded has every operand end, or begin, at an unmapped page.
func TestSplitTileGuarded(t *testing.T) {
	for _, low := range []bool{false, true} {
		for _, format := range splitFormats {
			tile := NewSplitTile(format)
			for _, rows := range []int{1, 16, 17, 32} {
				for _, c := range [][2]int{{1, 1}, {31, 33}, {64, 64}, {70, 16}} {
					keys, dim := c[0], c[1]
					g := func(rows, cols int) blas32.General {
						data := guarded(t, rows*cols, low)
						copy(data, random(uint64(rows), len(data)))
						return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
					}
					q, k, v := g(rows, dim), g(keys, dim), g(keys, dim)
					kp, vp := g(1, tile.Keys(keys, dim)).Data, g(1, tile.Values(keys, dim)).Data
					tile.PackKeys(kp, 0, k)
					tile.PackValues(vp, keys, 0, v)
					strip := g(1, tile.Strip(dim)).Data
					tile.SplitRows(strip, q)
					s, o := g(rows, tile.Panels(keys)*tile.Panel()), g(rows, tile.Panels(dim)*tile.Panel())
					tile.Scores(s, strip, kp, dim, nil)
					tile.Weigh(o, s, g(1, tile.Strip(s.Cols)).Data, vp, s.Cols, 0, g(1, rows).Data, nil)
				}
			}
		}
	}
}

func TestSplitTilePanics(t *testing.T) {
	tile := NewSplitTile(BFloat16x3)
	mustPanic(t, "kernel: SplitTile.SplitRows: 33 rows, want at most 32", func() {
		tile.SplitRows(make([]float32, tile.Strip(2)), matrix(1, 33, 2, 0))
	})
	mustPanic(t, "kernel: SplitTile.PackKeys: dst has 3 elements, want at least 1024", func() {
		tile.PackKeys(make([]float32, 3), 0, matrix(1, 2, 2, 0))
	})
	mustPanic(t, "kernel: SplitTile.PackValues: size has 2 elements, want at least 3", func() {
		tile.PackValues(nil, 2, 1, matrix(1, 2, 2, 0))
	})
	mustPanic(t, "kernel: SplitTile.Scores: k has 0 elements, want at least 1024", func() {
		tile.Scores(matrix(1, 1, 32, 0), make([]float32, tile.Strip(2)), nil, 2, nil)
	})
	none := matrix(1, 2, 32, 0)
	if tile.Scores(none, nil, nil, 0, nil); none.Data[0] != 0 || none.Data[63] != 0 {
		t.Error("scores over no elements are not 0")
	}
	if NewSplitTile(Float32).Split() || (SplitTile{}).Split() {
		t.Error("float32 has parts")
	}
}

// BenchmarkSplitTile is BenchmarkAttentionTile in parts.
func BenchmarkSplitTile(b *testing.B) {
	if !unitNow() {
		b.Skip("not run: unit")
	}
	for _, format := range []Format{BFloat16x1, BFloat16x3} {
		for _, dim := range []int{64, 128} {
			const keys, strips = 256, 6
			tile, soft := NewSplitTile(format), NewAttentionTile()
			q, k, v := matrix(1, splitHigh, dim, 0), matrix(2, keys, dim, 0), matrix(3, keys, dim, 0)
			kp, vp := aligned32(tile.Keys(keys, dim)), aligned32(tile.Values(keys, dim))
			tile.PackKeys(kp, 0, k)
			tile.PackValues(vp, keys, 0, v)
			s := blas32.General{Rows: splitHigh, Cols: keys, Stride: keys + 16, Data: aligned32(splitHigh * (keys + 16))}
			var strip, sums [strips][]float32
			for i := range strip {
				strip[i], sums[i] = aligned32(tile.Strip(dim)), aligned32(splitHigh*dim)
				tile.SplitRows(strip[i], q)
			}
			top, sum, factor := make([]float32, splitHigh), make([]float32, splitHigh), make([]float32, splitHigh)
			flop := 2 * float64(splitHigh) * keys * float64(dim)
			run := func(name string, flop float64, f func(i int)) {
				b.Run(fmt.Sprintf("%v/%s/d=%d", format, name, dim), func(b *testing.B) {
					for b.Loop() {
						for i := range strips {
							f(i)
						}
					}
					b.ReportMetric(flop*strips*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
			}
			scores := func(i int) { tile.Scores(s, strip[i], kp, dim, nil) }
			soften := func(int) { soft.Weights(s, top, sum, factor) }
			splits := func(int) {
				unit(true).splitStrip(tile.parts, splitHigh, keys, s.Data, s.Stride, 1, halves(s.Data), 2*s.Stride)
			}
			values := func(i int) {
				o := blas32.General{Rows: splitHigh, Cols: dim, Stride: dim, Data: sums[i]}
				tile.multiply(o, halves(s.Data), 2*s.Stride, halves(vp), tile.size(keys), keys, true, nil)
			}
			run("scores", flop, scores)
			run("weights", 0, soften)
			run("split", 0, splits)
			run("values", flop, values)
			run("all", 2*flop, func(i int) { scores(i); soften(i); splits(i); values(i) })
		}
	}
}

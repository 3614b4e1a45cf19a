package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/kernel/kerneltest"
	"github.com/subquad/subquad/internal/mat"
)

// integerTiles are the tile of the active tier, that without the instructions that only some of
// its processors have, and the portable one.
func integerTiles() []IntegerTile {
	list := []IntegerTile{NewIntegerTile()}
	if tile := NewShadowTile(); list[0].Fast() && tile.dot {
		list = append(list, IntegerTile{ShadowTile{tier: tile.tier}})
	}
	return append(list, IntegerTile{})
}

// extremeInts puts the largest numbers among those of int8, -128 too, which a stored state may have.
func extremeInts(seed uint64, m Strided) {
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range m.Int8 {
		if m.Int8[i] = int8(r.IntN(256)); r.IntN(3) == 0 {
			m.Int8[i] = [...]int8{-128, 127}[r.IntN(2)]
		}
	}
}

// TestIntegerTile compares with the definition in integers, to the bit, in every tier, at the end
// of mapped memory; rows by themselves and keys in parts give the same bits.
func TestIntegerTile(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		n := uint64(0)
		for _, cols := range []int{16, 32, 48, 64, 80, 128, 144, 192, 272, MaxShadowDim} {
			for rows := 1; rows <= 9; rows++ {
				for _, keys := range []int{0, 1, 2, 3, 4, 5, 7, 12, 15, 16, 17, 31, 33, 48, 63, 70, IntegerKeys} {
					n++
					if cols > 300 && (n%7 > 0 || keys > 40) || testing.Short() && n%5 > 0 {
						continue
					}
					for _, tile := range integerTiles() {
						testIntegers(t, tile, n, rows, keys, cols)
					}
				}
			}
		}
	})
}

func testIntegers(t *testing.T, tile IntegerTile, seed uint64, rows, keys, cols int) {
	name := fmt.Sprintf("dot %v, %d x %d x %d", tile.queries, rows, keys, cols)
	k, _ := strided(Int8, seed, keys, cols, int(seed%4)*13, func(n int) []float32 { return guarded(t, n, seed%2 == 0) })
	extremeInts(seed, k)
	scales := guarded(t, keys, seed%2 == 1)
	copy(scales, random(seed, keys))
	x := kerneltest.Matrix(seed, rows, cols, 3)
	if rows > 1 {
		for d := range cols {
			x.Data[x.Stride+d] = float32(1 - 2*(d%2)) // the largest sum
		}
	}
	if rows > 2 {
		clear(mat.Row(x, 2))
	}
	if rows > 3 {
		mat.Row(x, 3)[cols-1] = float32(math.Inf(1))
	}
	var q IntegerQueries
	tile.Pack(&q, x)
	s := kerneltest.Blank(rows, keys, 5)
	tile.Scores(s, &q, k, scales, nil)
	kerneltest.GapsIntact(t, s)
	for i := range rows {
		largest := float32(0)
		for _, v := range mat.Row(x, i) {
			largest = max(largest, float32(math.Abs(float64(v))))
		}
		factor, inside := largest/8127, float32(0)
		if largest > 0 {
			inside = 8127 / largest
		}
		for j := range keys {
			sum := int64(0)
			for d, v := range mat.Row(x, i) {
				sum += int64(math.RoundToEven(float64(float32(v*inside)))) * int64(k.Int8[j*k.Stride+d])
			}
			want := float32(float32(sum)*factor) * scales[j]
			got := mat.Row(s, i)[j]
			if i == 3 {
				if got == got {
					t.Fatalf("%s: s[%d][%d] = %v of a query with Inf, want NaN", name, i, j, got)
				}
			} else if got != want {
				t.Fatalf("%s: s[%d][%d] = %v, want %v", name, i, j, got, want)
			}
		}
		if i == rows-1 {
			var one IntegerQueries
			tile.Pack(&one, mat.Rows(x, i, i+1))
			alone := kerneltest.Blank(1, keys, 0)
			tile.Scores(alone, &one, k, scales, nil)
			if i != 3 {
				if err := sameBits(alone.Data[:keys], mat.Row(s, i)); err != nil {
					t.Fatalf("%s: scores of a row alone: %v", name, err)
				}
			}
		}
	}

	p := kerneltest.Matrix(seed+1, rows, keys, 3)
	for i := range rows {
		for j := range keys {
			mat.Row(p, i)[j] = float32(math.Exp(3 * float64(mat.Row(p, i)[j])))
		}
	}
	if rows > 2 {
		clear(mat.Row(p, 2))
	}
	if rows > 3 && keys > 0 {
		mat.Row(p, 3)[keys-1] = float32(math.NaN())
	}
	if rows > 4 && keys > 0 {
		mat.Row(p, 4)[0] = float32(math.Inf(1))
	}
	width := IntegerColumns(cols)
	for _, turned := range []bool{false, true} {
		o := kerneltest.Matrix(seed+2, rows, cols, 7)
		was := mat.Of(make([]float32, rows*cols), rows, cols)
		mat.Copy(was, o)
		factor, sums := random(seed, rows), make([]int32, rows*width)
		var w IntegerWeights
		tile.Weigh(&w, p, scales, turned)
		cut := keys * int(seed%5) / 4
		for _, part := range [][2]int{{0, cut}, {cut, keys}} {
			some := k.From(part[0])
			some.Rows = part[1] - part[0]
			tile.Values(sums, &w, part[0], some, nil)
		}
		tile.Add(o, &w, sums, factor)
		kerneltest.GapsIntact(t, o)
		for i := range rows {
			want := wantValues(p, scales, k, i, turned)
			for c, got := range mat.Row(o, i) {
				want := float32(factor[i]*mat.Row(was, i)[c]) + want[c]
				if keys > 0 && (i == 3 || i == 4) {
					if got == got {
						t.Fatalf("%s: o[%d][%d] = %v of a weight that is not finite, want NaN", name, i, c, got)
					}
				} else if got != want {
					t.Fatalf("%s, turned %v: o[%d][%d] = %v, want %v", name, turned, i, c, got, want)
				}
			}
		}
	}
}

// wantValues is the sum of values that are weighted for a row, as IntegerTile rounds it.
func wantValues(p blas32.General, scales []float32, v Strided, row int, turned bool) []float32 {
	peak := float32(0)
	for j, x := range mat.Row(p, row) {
		peak = max(peak, float32(math.Abs(float64(float32(x*scales[j])))))
	}
	sums, out := make([]int64, v.Cols), make([]float32, v.Cols)
	if peak == 0 {
		return out
	}
	inside, unit := 16383/peak, peak/16383
	if turned {
		inside, unit = -inside, -unit
	}
	for j, x := range mat.Row(p, row) {
		n := int64(math.RoundToEven(float64(float32(float32(x*scales[j]) * inside))))
		for c := range sums {
			sums[c] += max(n, 0) * int64(v.Int8[j*v.Stride+c])
		}
	}
	for c, sum := range sums {
		out[c] = float32(float32(sum) * unit)
	}
	return out
}

func TestIntegerPanics(t *testing.T) {
	tile := NewIntegerTile()
	var q IntegerQueries
	var w IntegerWeights
	k := Strided{Format: Int8, Rows: 2, Cols: 16, Stride: 16, Int8: make([]int8, 32)}
	tile.Pack(&q, mat.New(1, 32))
	kerneltest.MustPanic(t, "kernel: IntegerTile.Scores: k has 16 columns, want int8 and as many as q = 32, a multiple of 16", func() { tile.Scores(mat.New(1, 2), &q, k, make([]float32, 2), nil) })
	kerneltest.MustPanic(t, "kernel: IntegerTile.Weigh: 257 keys, want at most 256", func() { tile.Weigh(&w, mat.New(1, 257), make([]float32, 257), false) })
	tile.Weigh(&w, mat.New(1, 2), make([]float32, 2), false)
	kerneltest.MustPanic(t, "kernel: IntegerTile.Values: v is 2 x 16 from key 255 on, want int8, at most 256 keys and a multiple of 16 columns", func() { tile.Values(make([]int32, 64), &w, 255, k, nil) })
}

// BenchmarkIntegerTile is BenchmarkDecodeTile's work on int8, by products of integers.
func BenchmarkIntegerTile(b *testing.B) {
	const heads, dim, group, keys = 8, 128, 4, 124
	for _, size := range []int{1 << 20, 128 << 20} {
		n := size / (heads * dim) / keys * keys
		for _, part := range []string{"scores", "values", "both", "float"} {
			b.Run(fmt.Sprintf("%s/kv=%d/d=%d/n=%d", part, heads, dim, n), func(b *testing.B) {
				tile, float := NewIntegerTile(), NewDecodeTile()
				k, _ := strided(Int8, 1, n+keys, heads*dim, 0, func(n int) []float32 { return make([]float32, n) })
				var q IntegerQueries
				x := kerneltest.Matrix(1, group, dim, 0)
				tile.Pack(&q, x)
				s, scales := kerneltest.Blank(group, keys, 16), random(1, keys)
				o, factor := kerneltest.Matrix(1, heads*group, dim, 0), []float32{1, 1, 1, 1}
				var w IntegerWeights
				p := kerneltest.Matrix(1, group, keys, 0)
				tile.Weigh(&w, p, scales, false)
				sums := make([]int32, group*dim)
				packed := make([]float32, group*dim)
				float.PackQueries(packed, x)
				b.SetBytes(int64(n * heads * dim))
				for b.Loop() {
					for j := 0; j < n; j += keys {
						for h := range heads {
							one := k.From(j).Columns(h*dim, (h+1)*dim)
							one.Rows = keys
							nx := k.At(min(j+keys, n-1)*k.Stride + h*keys*dim)
							switch {
							case part == "float" && j/keys%2 == 0:
								float.Scores(s, packed, one, nx)
							case part == "float":
								float.Values(mat.Rows(o, h*group, (h+1)*group), p, one, factor, nx)
							case part == "scores" || part == "both" && j/keys%2 == 0:
								tile.Scores(s, &q, one, scales, nx)
							default:
								tile.Weigh(&w, p, scales, false)
								tile.Values(sums, &w, 0, one, nx)
								tile.Add(mat.Rows(o, h*group, (h+1)*group), &w, sums, factor)
							}
						}
					}
				}
			})
		}
	}
}

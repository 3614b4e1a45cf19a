package kernel

import (
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// runNearest goes over keys, packed, in two calls, and returns for each query the
// largest score and the key it is of, the first of them that are equal.
func runNearest(t AttentionTile, q, k blas32.General) (best []float32, key []int) {
	w := t.Panel()
	packed := make([]float32, t.Panels(k.Rows)*w*k.Cols)
	t.PackKeys(packed, 0, k)
	top, place := make([]float32, q.Rows*w), make([]float32, q.Rows*w)
	for i := range top {
		top[i], place[i] = -inf, nan
	}
	cut := t.Panels(k.Rows) / 2
	t.Nearest(top, place, q, packed, 0, cut)
	t.Nearest(top, place, q, packed[cut*w*k.Cols:], cut, t.Panels(k.Rows)-cut)
	for i := range q.Rows {
		b, at := -inf, -1
		for l, v := range top[i*w:][:w] {
			j := -1
			if v > -inf {
				j = int(place[i*w+l])*w + l
			}
			if j >= 0 && (v > b || v == b && j < at) {
				b, at = v, j
			}
		}
		best, key = append(best, b), append(key, at)
	}
	return best, key
}

// TestNearest compares with Scores, whose bits it has.
func TestNearest(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		tile := NewAttentionTile()
		w := tile.Panel()
		for _, rows := range []int{0, 1, 3, 4, 5, 11, 12, 13, 25} {
			for _, keys := range []int{0, w, 2 * w, 7 * w} {
				for _, dim := range []int{1, 3, 64, 301, 0} {
					name := fmt.Sprintf("%d x %d, %d", rows, keys, dim)
					q, k := matrix(1, rows, dim, 2), matrix(2, keys, dim, 1)
					packed := make([]float32, keys*dim)
					tile.PackKeys(packed, 0, k)
					s := blank(rows, keys, 1)
					tile.Scores(s, q, packed)
					best, key := runNearest(tile, q, k)
					for i := range rows {
						want, at := -inf, -1
						for j, v := range s.Data[i*s.Stride:][:keys] {
							if v > want {
								want, at = v, j
							}
						}
						if best[i] != want || key[i] != at {
							t.Fatalf("%s: row %d: %v at %d, want %v at %d", name, i, best[i], key[i], want, at)
						}
					}
				}
			}
		}
	})
}

// TestNearestTies: the first of equal keys is taken, and none whose score is NaN.
func TestNearestTies(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		tile := NewAttentionTile()
		n := 5 * tile.Panel()
		q, k := matrix(1, 13, 4, 0), matrix(2, n, 4, 0)
		for j := range n {
			copy(k.Data[j*4:][:4], []float32{1, 2, 3, 4})
		}
		for _, at := range []int{0, 1, n/2 + 1, n - 1} {
			for i := range 4 {
				k.Data[i] = nan
			}
			for j := range n { // keys before at are NaN
				if j < at {
					k.Data[j*4] = nan
				}
			}
			_, key := runNearest(tile, q, k)
			for i, j := range key {
				want := at
				if at == 0 {
					want = 1
				}
				if j != want {
					t.Fatalf("first key %d: row %d has %d", at, i, j)
				}
			}
		}
		for i := range k.Data {
			k.Data[i] = nan
		}
		for i, j := range second(runNearest(tile, q, k)) {
			if j != -1 {
				t.Fatalf("all keys NaN: row %d has %d", i, j)
			}
		}
	})
}

func second(_ []float32, key []int) []int { return key }

// TestNearestGuarded has every operand end, or begin, at an unmapped page.
func TestNearestGuarded(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		tile := NewAttentionTile()
		w := tile.Panel()
		for _, low := range []bool{false, true} {
			for rows := 1; rows < 15; rows++ {
				for _, dim := range []int{1, 4, 7} {
					g := func(n int) []float32 {
						data := guarded(t, n, low)
						copy(data, random(uint64(n), n))
						return data
					}
					q := blas32.General{Rows: rows, Cols: dim, Stride: dim, Data: g(rows * dim)}
					tile.Nearest(g(rows*w), g(rows*w), q, g(3*w*dim), 7, 3)
				}
			}
		}
	})
}

func TestNearestPanics(t *testing.T) {
	tile := NewAttentionTile()
	w := tile.Panel()
	q := matrix(1, 2, 3, 0)
	best, place := make([]float32, 2*w), make([]float32, 2*w)
	mustPanic(t, fmt.Sprintf("kernel: AttentionTile.Nearest: best has 1 elements, want %d", 2*w), func() {
		tile.Nearest(best[:1], place, q, nil, 0, 0)
	})
	mustPanic(t, fmt.Sprintf("kernel: AttentionTile.Nearest: k has 0 elements, want at least %d", 3*w), func() {
		tile.Nearest(best, place, q, nil, 0, 1)
	})
	for _, c := range [][2]int{{-1, 1}, {0, -1}, {-2, -1}} {
		mustPanic(t, fmt.Sprintf("kernel: AttentionTile.Nearest: %d panels from %d, want at most %d", c[1], c[0], maxPlace), func() {
			tile.Nearest(best, place, q, nil, c[0], c[1])
		})
	}
	mustPanic(t, fmt.Sprintf("kernel: AttentionTile.Nearest: 1 panels from %d, want at most %d", math.MaxInt32, maxPlace), func() {
		tile.Nearest(best, place, q, make([]float32, 3*w), math.MaxInt32, 1)
	})
	k := make([]float32, 3*w)
	const overlaps = "kernel: AttentionTile.Nearest: best or place overlaps another"
	mustPanic(t, overlaps, func() { tile.Nearest(best, best, q, nil, 0, 0) })
	mustPanic(t, overlaps, func() { tile.Nearest(k[:2*w], place, q, k, 0, 1) })
	mustPanic(t, overlaps, func() { tile.Nearest(best, k[:2*w], q, k, 0, 1) })
	shared := blas32.General{Rows: 2, Cols: 3, Stride: 3, Data: make([]float32, max(6, 2*w))}
	mustPanic(t, overlaps, func() { tile.Nearest(shared.Data[:2*w], place, shared, k, 0, 1) })
	mustPanic(t, overlaps, func() { tile.Nearest(best, shared.Data[:2*w], shared, k, 0, 1) })
}

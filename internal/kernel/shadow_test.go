package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/kernel/kerneltest"
	"github.com/subquad/subquad/internal/mat"
)

// shadowKeys are random panels against an unmapped page, the largest numbers among them.
func shadowKeys(t *testing.T, seed uint64, panels, dim int) (k []int8, scale []float32) {
	r := rand.New(rand.NewPCG(seed, 1))
	groups := ShadowGroups(dim)
	memory := kerneltest.Guarded(t, panels*groups*ShadowPanel, seed%2 == 0)
	if len(memory) > 0 {
		k = unsafe.Slice((*int8)(unsafe.Pointer(&memory[0])), 4*len(memory))
	}
	for i := range k {
		d := i/(4*ShadowPanel)%groups*4 + i%4
		if d >= dim {
			continue
		}
		if k[i] = int8(r.IntN(255) - 127); r.IntN(3) == 0 {
			k[i] = [...]int8{-127, 127}[r.IntN(2)]
		}
	}
	scale = kerneltest.Guarded(t, panels*ShadowPanel, seed%2 == 0)
	for i := range scale {
		scale[i] = float32(r.NormFloat64())
	}
	return k, scale
}

// shadowTiles are the tile of the active tier, and that without the instructions that only
// some of its processors have.
func shadowTiles() []ShadowTile {
	tile := NewShadowTile()
	if !tile.dot {
		return []ShadowTile{tile}
	}
	return []ShadowTile{tile, {tier: tile.tier}}
}

// TestShadowScores compares with the definition, in integers: to the bit, in every tier.
func TestShadowScores(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for n, dim := range []int{1, 3, 4, 5, 16, 63, 64, 100, 128, 129, 256, MaxShadowDim} {
			for rows := range 8 {
				panels := 1 + (n+rows)%4
				if dim < 65 && rows == 3 {
					panels = 1<<16/(64*ShadowGroups(dim)) + 2 // more than a call's
				}
				for _, tile := range shadowTiles() {
					k, scale := shadowKeys(t, uint64(n+rows), panels, dim)
					x := kerneltest.Matrix(uint64(n), rows, dim, 3)
					if rows > 1 {
						for d := range dim { // the largest sum
							x.Data[d] = float32(1 - 2*(d%2))
						}
						clear(mat.Row(x, 1))
					}
					var q ShadowQueries
					tile.Pack(&q, x)
					s := kerneltest.Blank(rows, panels*ShadowPanel, 5)
					tile.Scores(s, &q, k, scale, nil)
					kerneltest.GapsIntact(t, s)
					for i := range rows {
						whole := make([]int64, dim)
						largest := float32(0)
						for _, v := range mat.Row(x, i) {
							largest = max(largest, float32(math.Abs(float64(v))))
						}
						factor := largest / 8127
						for d, v := range mat.Row(x, i) {
							if factor > 0 {
								whole[d] = int64(math.RoundToEven(float64(v) / float64(factor)))
							}
							if e := math.Abs(float64(v) - float64(whole[d])*float64(factor)); e > float64(q.Error(i)) {
								t.Fatalf("an error of %v, want at most %v", e, q.Error(i))
							}
						}
						for j := range s.Cols {
							sum := int64(0)
							for d, v := range whole {
								sum += v * int64(k[(j/ShadowPanel*ShadowGroups(dim)+d/4)*4*ShadowPanel+j%ShadowPanel*4+d%4])
							}
							want := float32(float32(sum)*scale[j]) * factor
							if got := mat.Row(s, i)[j]; got != want {
								t.Fatalf("dim %d, %d rows, dot %v: s[%d][%d] = %v, want %v", dim, rows, tile.dot, i, j, got, want)
							}
						}
					}
				}
			}
		}
	})
}

func TestShadowWeights(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		tile := NewShadowTile()
		for _, panels := range []int{0, 4, 8, 32, 4 * (Chunk/ShadowPanel/4 + 1)} {
			s := kerneltest.Guarded(t, panels*ShadowPanel, panels%8 == 0)
			copy(s, kerneltest.Random(uint64(panels), len(s)))
			sums := kerneltest.Guarded(t, panels, panels%8 == 0)
			if panels > 4 {
				s[3], s[70] = float32(math.Inf(-1)), -200
				for i := range 16 {
					s[96+i] = float32(math.Inf(-1))
				}
			}
			tile.Weights(sums, s, 4)
			want := make([]float64, panels)
			for i, x := range s {
				want[i/ShadowPanel] += math.Exp(float64(x) - 4)
			}
			kerneltest.Near(t, fmt.Sprint(panels, " panels"), sums, want, 2e-6)
		}
	})
}

func TestShadowPanics(t *testing.T) {
	tile := NewShadowTile()
	var q ShadowQueries
	tile.Pack(&q, mat.New(2, 8))
	s := mat.New(2, 16)
	kerneltest.MustPanic(t, "kernel: ShadowTile.Pack: 0 columns, want 1 to 2048", func() { tile.Pack(&q, blas32.General{Rows: 1}) })
	kerneltest.MustPanic(t, "kernel: ShadowTile.Scores: s has 15 columns, want whole panels of 16", func() { tile.Scores(mat.New(2, 15), &q, nil, nil, nil) })
	kerneltest.MustPanic(t, "kernel: ShadowTile.Weights: 3 panels, want a multiple of 4", func() { tile.Weights(make([]float32, 3), make([]float32, 48), 0) })
	_ = s
}

// BenchmarkShadowScores scans keys of 128 numbers for four queries: from the second cache,
// and from memory.
func BenchmarkShadowScores(b *testing.B) {
	const dim = 128
	for _, n := range []int{1 << 12, 1 << 20} {
		b.Run(fmt.Sprintf("four bits/d=%d/n=%d", dim, n), func(b *testing.B) {
			tile, k, scale := NewShadowTile(), make([]uint8, n*dim/2), kerneltest.Random(1, n*dim/32)
			var q ShadowQueries
			tile.PackNibbles(&q, kerneltest.Matrix(2, 4, dim, 0))
			s := mat.New(4, 512)
			b.SetBytes(int64(n * (dim/2 + dim/8)))
			for b.Loop() {
				for at := 0; at < n; at += 512 {
					tile.ScoresNibbles(s, &q, k[at*dim/2:], scale[at*dim/32:], k[(at+512)%n*dim/2:])
				}
			}
			b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/float64(n), "ns/key")
		})
		for _, c := range []struct {
			name string
			tile ShadowTile
		}{{"", NewShadowTile()}, {"without VNNI/", ShadowTile{tier: isa.Active()}}} {
			b.Run(fmt.Sprintf("%sd=%d/n=%d", c.name, dim, n), func(b *testing.B) {
				k, scale := make([]int8, n*dim), kerneltest.Random(1, n)
				for i := range k {
					k[i] = int8(i*7%255 - 127)
				}
				var q ShadowQueries
				c.tile.Pack(&q, kerneltest.Matrix(2, 4, dim, 0))
				s := mat.New(4, 512)
				b.SetBytes(int64(n * (dim + 4)))
				for b.Loop() {
					for at := 0; at < n; at += 512 {
						c.tile.Scores(s, &q, k[at*dim:], scale[at:], k[(at+512)%n*dim:])
					}
				}
				b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/float64(n), "ns/key")
			})
		}
	}
}

// TestShadowNibbles compares with the definition: to the bit, in every tier.
func TestShadowNibbles(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 1))
		for n, dim := range []int{1, 5, 31, 32, 33, 64, 100, 128, 256, MaxShadowDim} {
			for rows := range 8 {
				blocks, panels := ShadowBlocks(dim), 1+(n+rows)%4
				if dim < 65 && rows == 3 {
					panels = 1<<15/(256*blocks) + 2 // more than a call's
				}
				memory := kerneltest.Guarded(t, panels*blocks*4*ShadowPanel, n%2 == 0)
				k := unsafe.Slice((*uint8)(unsafe.Pointer(&memory[0])), 4*len(memory))
				scale := kerneltest.Guarded(t, panels*blocks*ShadowPanel, n%2 == 0)
				keys := kerneltest.Matrix(uint64(n), panels*ShadowPanel, dim, 1)
				for j := range keys.Rows {
					x := mat.Row(keys, j)
					if j%5 == 0 {
						for d := range x {
							x[d] = float32(1 - 2*r.IntN(2))
						}
					}
					p := j / ShadowPanel
					off, length := QuantizeNibbles(k[p*blocks*256:][:blocks*256], scale[p*blocks*ShadowPanel:][:blocks*ShadowPanel], j%ShadowPanel, x)
					if j%5 == 0 && off > 1e-10*float64(dim) || !(length > 0) {
						t.Fatalf("an error of %v, and %v stored", off, length)
					}
				}
				for _, tile := range shadowTiles() {
					x := kerneltest.Matrix(uint64(n), rows, dim, 3)
					var q ShadowQueries
					tile.PackNibbles(&q, x)
					s := kerneltest.Blank(rows, panels*ShadowPanel, 5)
					tile.ScoresNibbles(s, &q, k, scale, nil)
					kerneltest.GapsIntact(t, s)
					for i := range rows {
						largest := float32(0)
						for _, v := range mat.Row(x, i) {
							largest = max(largest, float32(math.Abs(float64(v))))
						}
						factor := largest / 8127
						for j := range s.Cols {
							total := float32(0)
							p, l := j/ShadowPanel, j%ShadowPanel
							for b := range blocks {
								sum := int64(0)
								for d := 32 * b; d < min(32*b+32, dim); d++ {
									y := k[(p*blocks*4+d/8)*4*ShadowPanel+4*l+d%4]
									if d%8 < 4 {
										y &= 15
									} else {
										y >>= 4
									}
									sum += int64(math.RoundToEven(float64(mat.Row(x, i)[d])/float64(factor))) * (int64(y) - 8)
								}
								total += float32(float32(sum) * scale[(p*blocks+b)*ShadowPanel+l])
							}
							if got, want := mat.Row(s, i)[j], total*factor; got != want {
								t.Fatalf("dim %d, %d rows, dot %v: s[%d][%d] = %v, want %v", dim, rows, tile.dot, i, j, got, want)
							}
							exact := 0.0
							for d, v := range mat.Row(x, i) {
								exact += float64(v) * float64(mat.Row(keys, j)[d])
							}
							if e := math.Abs(exact - float64(mat.Row(s, i)[j])); e > .5*math.Sqrt(float64(dim))+1 {
								t.Fatalf("dim %d: a score of %v, want about %v", dim, mat.Row(s, i)[j], exact)
							}
						}
					}
				}
			}
		}
	})
}

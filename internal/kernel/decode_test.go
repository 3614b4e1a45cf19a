package kernel

import (
	"fmt"
	"math"
	"testing"
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

var decodeFormats = []Format{Float32, BFloat16, Int8, Float16}

// strided stores rows x cols random elements, gap apart, in memory that make makes,
// and returns what they stand for as well.
func strided(format Format, seed uint64, rows, cols, gap int, memory func(floats int) []float32) (m Strided, wide blas32.General) {
	m = Strided{Format: format, Rows: rows, Cols: cols, Stride: cols + gap}
	n := max(rows*m.Stride-gap, 0)
	bytes := n * format.bytes()
	data := memory((bytes + 3) / 4)
	if n > 0 {
		// The last element is where the memory ends.
		p := unsafe.Add(unsafe.Pointer(unsafe.SliceData(data)), 4*len(data)-bytes)
		switch format {
		case Float32:
			m.Float32 = unsafe.Slice((*float32)(p), n)
		case Int8:
			m.Int8 = unsafe.Slice((*int8)(p), n)
		default:
			m.Half = unsafe.Slice((*uint16)(p), n)
		}
	}
	for i, x := range random(seed, n) {
		if i%m.Stride >= cols {
			x = nan
		}
		switch format {
		case Float32:
			m.Float32[i] = x
		case BFloat16:
			m.Half[i] = scalar.BFloat16Bits(x)
		case Float16:
			m.Half[i] = scalar.Float16Bits(x)
		case Int8:
			m.Int8[i] = int8(i * 37)
		}
	}
	wide = blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, rows*cols)}
	for i := range rows {
		m.Widen(wide.Data[i*cols:][:cols], i, 0)
	}
	return m, wide
}

// TestDecodeTile compares with float64 sums, at the end of mapped memory; rows by
// themselves and keys in parts give the same bits.
func TestDecodeTile(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		tile := NewDecodeTile()
		for _, format := range decodeFormats {
			for _, cols := range []int{16, 48, 64, 80, 144} {
				for _, rows := range []int{1, 2, 3, 4, 7} {
					for _, keys := range []int{0, 1, 3, 4, 6, 9, 33} {
						name := fmt.Sprintf("%v, %d x %d x %d", format, rows, keys, cols)
						k, wide := strided(format, 1, keys, cols, 3, func(n int) []float32 { return guarded(t, n, false) })
						q := matrix(2, rows, cols, 1)
						run := func(rows blas32.General, cut int) (s, o blas32.General) {
							s, o = blank(rows.Rows, keys, 2), matrix(4, rows.Rows, cols, 1)
							packed := make([]float32, rows.Rows*cols)
							tile.PackQueries(packed, rows)
							factor := make([]float32, rows.Rows)
							for i := range factor {
								factor[i] = 0.5
								copy(o.Data[i*o.Stride:][:cols], random(5, cols))
							}
							for _, part := range [][2]int{{0, cut}, {cut, keys}} {
								x := k.From(part[0])
								x.Rows = part[1] - part[0]
								p := s
								p.Cols, p.Data = x.Rows, s.Data[min(part[0], len(s.Data)):]
								tile.Scores(p, packed, x, nil)
								tile.Values(o, p, x, factor, nil)
								for i := range factor {
									factor[i] = 1
								}
							}
							gapsIntact(t, s)
							return s, o
						}
						s, o := run(q, keys/3)
						for i := range rows {
							want := make([]float64, keys)
							size := 1.0
							for j := range want {
								for d := range cols {
									want[j] += float64(q.Data[i*q.Stride+d]) * float64(wide.Data[j*cols+d])
									size = max(size, math.Abs(float64(wide.Data[j*cols+d])))
								}
							}
							near(t, name+": s", s.Data[i*s.Stride:][:keys], want, 1e-5*size)
							out, start := make([]float64, cols), random(5, cols)
							for c := range out {
								out[c] = 0.5 * float64(start[c])
								for j := range want {
									out[c] += float64(s.Data[i*s.Stride+j]) * float64(wide.Data[j*cols+c])
								}
							}
							near(t, name+": o", o.Data[i*o.Stride:][:cols], out, 1e-4*size*size)
							one := q
							one.Rows, one.Data = 1, q.Data[i*q.Stride:]
							aloneS, aloneO := run(one, keys/2)
							if err := sameBits(aloneS.Data[:keys], s.Data[i*s.Stride:][:keys]); err != nil {
								t.Fatalf("%s: scores of a row alone: %v", name, err)
							}
							if err := sameBits(aloneO.Data[:cols], o.Data[i*o.Stride:][:cols]); err != nil {
								t.Fatalf("%s: values of a row alone: %v", name, err)
							}
						}
					}
				}
			}
		}
	})
}

func TestDecodeTilePanics(t *testing.T) {
	tile := NewDecodeTile()
	k := Strided{Rows: 2, Cols: 16, Stride: 16, Float32: make([]float32, 31)}
	s := blank(1, 2, 0)
	mustPanic(t, "kernel: DecodeTile.Scores: k is 2 x 16 with stride 16 but has only 31 elements", func() { tile.Scores(s, make([]float32, 16), k, nil) })
	k.Float32 = make([]float32, 32)
	mustPanic(t, "kernel: DecodeTile.Scores: q has 15 elements, want 16", func() { tile.Scores(s, make([]float32, 15), k, nil) })
	mustPanic(t, "kernel: DecodeTile.Values: o is 1 x 15, want 1 x 16", func() { tile.Values(blank(1, 15, 0), s, k, make([]float32, 1), nil) })
}

// BenchmarkDecodeTile reads as many bytes whatever the format, half of them as keys
// and half as values.
func BenchmarkDecodeTile(b *testing.B) {
	const heads, dim, group, tileKeys = 8, 128, 4, 8
	for _, format := range decodeFormats {
		n := (128 << 20) / (heads * dim * format.bytes())
		b.Run(fmt.Sprintf("%v/kv=%d/d=%d/n=%d", format, heads, dim, n), func(b *testing.B) {
			tile := NewDecodeTile()
			k, _ := strided(format, 1, n+tileKeys, heads*dim, 0, func(n int) []float32 { return make([]float32, n) })
			q := make([]float32, heads*group*dim)
			s := blank(group, tileKeys, 16)
			o := matrix(1, heads*group, dim, 0)
			factor := []float32{1, 1, 1, 1}
			b.SetBytes(int64(n * heads * dim * format.bytes()))
			for b.Loop() {
				for j := 0; j < n; j += tileKeys {
					for h := range heads {
						x := k.From(j)
						x.Rows, x.Cols = tileKeys, dim
						switch format {
						case Float32:
							x.Float32 = x.Float32[h*dim:]
						case Int8:
							x.Int8 = x.Int8[h*dim:]
						default:
							x.Half = x.Half[h*dim:]
						}
						nx := k.At(min(j+tileKeys, n-1)*k.Stride + h*tileKeys*dim)
						if j/tileKeys%2 == 0 {
							tile.Scores(s, q[h*group*dim:][:group*dim], x, nx)
						} else {
							out := o
							out.Rows, out.Data = group, o.Data[h*group*dim:]
							tile.Values(out, s, x, factor, nx)
						}
					}
				}
			}
		})
	}
}

package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

var splitFormats = []Format{BFloat16x3, BFloat16x6, BFloat16x1}

func newSplit(format Format, rows, cols, gap int) *Matrix {
	m := new(Matrix)
	m.PackIn(format, matrix(2, rows, cols, gap), false)
	return m
}

// splitShapes are m, n, k that cross every edge: of tiles, strips, panels, calls of eight
// panels, steps and strips of eight steps.
var splitShapes = [][3]int{{1, 1, 1}, {1, 131, 70}, {2, 32, 32}, {15, 33, 31}, {16, 64, 33}, {17, 31, 64}, {32, 96, 256}, {33, 300, 257}, {70, 65, 600}}

// splitBound bounds the error of an element beside float64, as a share of sum |a b|: the
// products left out, sums of sixteen products and two more, and those in c.
func splitBound(format Format, k int) float64 {
	left := map[Format]float64{BFloat16x3: 0x1p-15, BFloat16x6: 0x1p-24, BFloat16x1: 0x1p-7}[format]
	sums := len(splitTerms[format.parts()]) * ((k + splitStep - 1) / splitStep)
	return 1.01 * (left + float64(sums+18)*0x1p-24)
}

// TestSplitProduct compares products with float64, with those of the transpose, with rows
// alone, and between tiers, whose bits are the same with the unit and without.
func TestSplitProduct(t *testing.T) {
	want := map[string][]float32{}
	isatest.Run(t, func(t *testing.T) {
		if !unitNow() {
			t.Log("not run: unit")
		}
		for _, format := range splitFormats {
			for _, s := range splitShapes {
				m, n, k := s[0], s[1], s[2]
				for i, gap := range []int{0, 5} {
					if testing.Short() && i != (m+n+k)%2 {
						continue
					}
					name := fmt.Sprintf("%v m=%d n=%d k=%d gap=%d", format, m, n, k, gap)
					a, b, bias := matrix(1, m, k, gap), matrix(2, k, n, gap), random(3, n)
					packed, packedT := newSplit(format, k, n, gap), new(Matrix)
					packedT.PackIn(format, transpose(b, gap), true)
					dst, again := blank(m, n, gap), blank(m, n, 0)
					Gemm(dst, a, packed, bias)
					gapsIntact(t, dst)
					for i := range m {
						for j := range n {
							sum, size := float64(bias[j]), math.Abs(float64(bias[j]))
							for l := range k {
								x := float64(a.Data[i*a.Stride+l]) * float64(b.Data[l*b.Stride+j])
								sum, size = sum+x, size+math.Abs(x)
							}
							if e := math.Abs(float64(dst.Data[i*dst.Stride+j]) - sum); !(e <= splitBound(format, k)*size) {
								t.Fatalf("%s: element %d, %d is off by %v of %v, want at most %v", name, i, j, e/size, size, splitBound(format, k))
							}
						}
					}
					same := func(what string, got []float32) {
						if err := sameBits(got, dense(dst)); err != nil {
							t.Fatalf("%s: %s: %v", name, what, err)
						}
					}
					if old := want[name]; old != nil {
						same("in another tier", old)
					}
					want[name] = dense(dst)
					Gemm(again, a, packedT, bias)
					same("of the transpose", again.Data)
					GemmT(again, transpose(a, gap), packed, bias)
					same("GemmT", again.Data)
					for i := range m {
						copy(again.Data[i*n:], bias)
					}
					GemmAdd(again, a, packed)
					same("GemmAdd to the bias", again.Data)
					for i := range m {
						Gemv(again.Data[i*n:][:n], a.Data[i*a.Stride:][:k], packed, bias)
					}
					same("rows alone", again.Data)
					for from := 0; from < n; from += splitCols {
						part := packed.Columns(from, min(from+splitCols, n))
						_, w := part.Dims()
						c := blank(m, w, 0)
						Gemm(c, a, &part, bias[from:from+w])
						for i := range m {
							copy(again.Data[i*n+from:], c.Data[i*w:][:w])
						}
					}
					same("columns alone", again.Data)
				}
			}
		}
	})
}

// TestSplitElements checks what an element is packed as.
func TestSplitElements(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const rows, cols = 70, 45
		b := matrix(2, rows, cols, 3)
		for _, format := range splitFormats {
			m := newSplit(format, rows, cols, 3)
			if want := int64(3 * 32 * 64 * format.bytes()); m.Bytes() != want {
				t.Errorf("%v: %d bytes, want %d", format, m.Bytes(), want)
			}
			column := make([]float32, rows)
			for j := range cols {
				m.Column(column, j)
				for i, v := range column {
					want := float64(b.Data[i*b.Stride+j])
					tol := map[Format]float64{BFloat16x3: 0x1p-17, BFloat16x6: 0, BFloat16x1: 0x1p-8}[format] * math.Abs(want)
					if v != m.At(i, j) || !(math.Abs(float64(v)-want) <= tol) {
						t.Fatalf("%v: element %d, %d is %v and %v, want %v", format, i, j, v, m.At(i, j), want)
					}
				}
			}
		}
	})
}

// TestSplitRows compares the unit's splitting with the portable one, to the bit, for
// numbers of every kind.
func TestSplitRows(t *testing.T) {
	if !unitNow() {
		t.Skip("not run: unit")
	}
	const rows, steps = 5, 3
	x := random(1, rows*steps*splitStep)
	for i, v := range []float32{nan, inf, -inf, math.MaxFloat32, 0, float32(math.Copysign(0, -1)), 0x1p-126, 0x1p-130, -0x1.fffffep-127, 0x1.fffffep-126, 0x1.fp-120, 1 + 0x1p-8, 1 + 0x1p-9} {
		x[7*i] = v
	}
	for _, parts := range []int{1, 2, 3} {
		row := steps*parts*splitStep + 7
		want, got := make([]uint16, rows*row), make([]uint16, rows*row)
		unit(false).splitRows(parts, rows, steps, x, steps*splitStep, want, row)
		unit(true).splitRows(parts, rows, steps, x, steps*splitStep, got, row)
		for i, v := range want {
			u, w := scalar.BFloat16Of(v), scalar.BFloat16Of(got[i])
			if v != got[i] && (u == u || w == w) {
				t.Errorf("%d parts, at %d: %#x, want %#x", parts, i, got[i], v)
			}
		}
	}
}

// TestSplitTiny compares the unit's sums with the portable ones, to the bit, where elements,
// products and sums are of all magnitudes, with more that are subnormal or nearly so.
func TestSplitTiny(t *testing.T) {
	if !unitNow() {
		t.Skip("not run: unit")
	}
	const rows, steps = 20, 2
	for seed := range uint64(40) {
		spread := []float32{250, 130, 30, 2}[seed%4] // of exponents, around a product of 2^-120
		powers, signs := random(3*seed, 1<<14), random(3*seed+1, 1<<14)
		fill := func(x []uint16, middle float32) {
			for i := range x {
				e := middle + spread/2*powers[i%len(powers)]
				x[i] = scalar.BFloat16Bits(scalar.Flushed(float32(math.Ldexp(1+math.Abs(float64(signs[i%len(signs)])), int(e)))))
				if powers[(i+7)%len(powers)] < 0 {
					x[i] |= 1 << 15
				}
			}
		}
		for parts := range mostParts {
			parts++
			a, b := make([]uint16, rows*steps*parts*splitStep), make([]uint16, steps*parts*splitPart)
			fill(a, -60)
			fill(b, -60)
			want := make([]float32, rows*splitCols)
			for i := range want {
				want[i] = float32(math.Ldexp(float64(signs[i]), -120-i%12))
			}
			got := append([]float32(nil), want...)
			for _, add := range []bool{true, false, true} {
				unit(false).addSplit(parts, rows, steps, 1, a, steps*parts*splitStep, b, 0, want, splitCols, add)
				unit(true).addSplit(parts, rows, steps, 1, a, steps*parts*splitStep, b, 0, got, splitCols, add)
				if err := sameBits(got, want); err != nil {
					t.Fatalf("%d parts, spread %v, add %v: %v", parts, spread, add, err)
				}
			}
		}
	}
}

// TestSplitLeast has sums that are less than the smallest normal number, 2^-126, by less than half of
// what float32 would tell apart there: they round to it and are no zeros.
func TestSplitLeast(t *testing.T) {
	units := []unit{false}
	if unitNow() {
		units = append(units, true)
	}
	for _, c := range []struct{ less, want float32 }{{0x1p-80, 0x1p-126}, {0x1p-71, 0x1p-126}, {0x1p-70, 0}, {0x1p-60, 0}} {
		a, b := make([]uint16, splitStep), make([]uint16, splitPart)
		a[0], a[2] = scalar.BFloat16Bits(0x1p-63), scalar.BFloat16Bits(-0x1p-80)
		b[splitOf(0, 5)], b[splitOf(2, 5)] = scalar.BFloat16Bits(0x1p-63), scalar.BFloat16Bits(c.less)
		for _, u := range units {
			sum := make([]float32, splitCols)
			if u.addSplit(1, 1, 1, 1, a, splitStep, b, 0, sum, splitCols, false); sum[5] != c.want {
				t.Errorf("unit %v: 2^-126 - 2^-80 %v is %v, want %v", u, c.less, sum[5], c.want)
			}
		}
	}
}

// TestSplitHuge does so where products exceed float32, of which a fused sum may come back, and where
// anything stands among the elements.
func TestSplitHuge(t *testing.T) {
	if !unitNow() {
		t.Skip("not run: unit")
	}
	const rows, steps = 20, 2
	r := rand.New(rand.NewPCG(1, 2))
	near, finite := 0, 0
	for seed := range 60 {
		parts := seed%mostParts + 1
		fill := func(x []uint16) {
			for i := range x {
				switch bits := uint16(r.Uint32()); {
				case seed%4 == 3: // of every kind, none subnormal
					x[i] = scalar.BFloat16Bits(scalar.Flushed(scalar.BFloat16Of(bits)))
				case r.IntN(8) == 0: // 2^63 and 2^64, so that products are 2^126 to 2^128
					x[i] = bits&0x8000 | uint16(127+63+r.IntN(2))<<7
				case seed%4 == 2:
					x[i] = bits&0x807f | uint16(100+r.IntN(80))<<7
				}
			}
		}
		a, b := make([]uint16, rows*steps*parts*splitStep), make([]uint16, steps*parts*splitPart)
		fill(a)
		fill(b)
		want := make([]float32, rows*splitCols)
		for i := range want {
			want[i] = math.Float32frombits(r.Uint32())
		}
		got := append([]float32(nil), want...)
		unit(false).addSplit(parts, rows, steps, 1, a, steps*parts*splitStep, b, 0, want, splitCols, seed%2 == 0)
		unit(true).addSplit(parts, rows, steps, 1, a, steps*parts*splitStep, b, 0, got, splitCols, seed%2 == 0)
		for i, x := range want {
			if x-x == 0 {
				finite++
			}
			if x > 1e38 || x < -1e38 {
				near++
			}
			if y := got[i]; math.Float32bits(x) != math.Float32bits(y) && (x == x || y == y) {
				t.Fatalf("%d parts, seed %d: element %d is %v, with the unit %v", parts, seed, i, x, y)
			}
		}
	}
	if finite < 1000 || near < 1000 {
		t.Errorf("only %d sums are finite, and %d near the ends of float32", finite, near)
	}
}

// TestSplitPairs compares the unit's pairs with the portable ones.
func TestSplitPairs(t *testing.T) {
	if !unitNow() {
		t.Skip("not run: unit")
	}
	const pairs, row = 5, 19
	for _, wild := range []float32{1, math.MaxFloat32, inf, nan, 3.3e38, 0x1p-130} {
		x := random(1, 2*pairs*row)
		x[7*row+15] = wild
		for parts := range mostParts {
			parts++
			want, got := make([]uint16, parts*splitPart), make([]uint16, parts*splitPart)
			a, b := unit(false).splitPairs(parts, pairs, x, row, want), unit(true).splitPairs(parts, pairs, x, row, got)
			if finite := wild < 3.396e38; a != finite || b != finite {
				t.Errorf("with %v: finite is %v without the unit and %v with it", wild, a, b)
			}
			for i, v := range want {
				u, w := scalar.BFloat16Of(v), scalar.BFloat16Of(got[i])
				if v != got[i] && (u == u || w == w) {
					t.Fatalf("%d parts, with %v, at %d: %#x, want %#x", parts, wild, i, got[i], v)
				}
			}
		}
	}
}

// TestSplitNotFinite checks that what is not finite spoils its row or column and nothing else.
func TestSplitNotFinite(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, format := range splitFormats {
			a, b := matrix(1, 40, 50, 0), matrix(2, 50, 40, 0)
			a.Data[3*50+49], a.Data[17*50+4], b.Data[5*40+33] = nan, inf, -inf
			packed, dst := new(Matrix), blank(40, 40, 0)
			packed.PackIn(format, b, false)
			Gemm(dst, a, packed, nil)
			for i := range 40 {
				for j := range 40 {
					v := dst.Data[i*40+j]
					if got, want := v-v == 0, i != 3 && i != 17 && j != 33; got != want {
						t.Fatalf("%v: element %d, %d is %v", format, i, j, v)
					}
				}
			}
		}
	})
}

// TestSplitGuarded runs products whose operands end, or begin, at unmapped memory.
func TestSplitGuarded(t *testing.T) {
	for _, low := range []bool{false, true} {
		for _, format := range splitFormats {
			for _, m := range []int{1, 16, 17, 32, 35} {
				for _, n := range []int{1, 32, 40, 64} {
					for i, k := range []int{3, 32, 64, 300} {
						if testing.Short() && i%2 != (m+n/8)%2 {
							continue
						}
						a, dst := matrix(1, m, k, 0), blank(m, n, 0)
						packed := newSplit(format, k, n, 0)
						Gemm(dst, a, packed, nil)
						ga, gd := a, dst
						ga.Data, gd.Data = guarded(t, m*k, low), guarded(t, m*n, low)
						copy(ga.Data, a.Data)
						Gemm(gd, ga, packed, nil)
						if err := sameBits(gd.Data, dst.Data); err != nil {
							t.Fatalf("%v m=%d n=%d k=%d: %v", format, m, n, k, err)
						}
					}
				}
			}
		}
	}
}

func TestSplitEmpty(t *testing.T) {
	bias := []float32{1, 2, 3}
	m := newSplit(BFloat16x3, 0, 3, 0)
	dst := blank(2, 3, 0)
	a := matrix(1, 2, 0, 0)
	Gemm(dst, a, m, bias)
	if err := sameBits(dst.Data, []float32{1, 2, 3, 1, 2, 3}); err != nil {
		t.Error(err)
	}
	Gemm(blank(2, 0, 0), matrix(1, 2, 3, 0), newSplit(BFloat16x6, 3, 0, 0), nil)
	mustPanic(t, "asm: Matrix: format 7", func() { new(Matrix).PackIn(BFloat16x1+1, matrix(1, 2, 2, 0), false) })
}

// TestSplitAllocations checks that products allocate nothing.
func TestSplitAllocations(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		a, dst, packed := matrix(1, 13, 40, 0), blank(13, 50, 0), newSplit(BFloat16x3, 40, 50, 0)
		if n := testing.AllocsPerRun(10, func() { Gemm(dst, a, packed, nil) }); n != 0 {
			t.Errorf("%v allocations a run", n)
		}
	})
}

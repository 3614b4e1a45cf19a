package kernel

import (
	"fmt"
	"math"
	"math/cmplx"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// rowsOf reads rows of lanes complex numbers as float64.
func rowsOf(x []float32, lanes int) [][]complex128 {
	out := make([][]complex128, len(x)/(2*lanes))
	for r := range out {
		row := x[2*lanes*r:]
		for i := range lanes {
			out[r] = append(out[r], complex(float64(row[i]), float64(row[lanes+i])))
		}
	}
	return out
}

func turn(num, den float64) complex128 { return cmplx.Rect(1, 2*math.Pi*num/den) }

func tableOf(x []float32) (w []complex128) {
	for i := 0; i < len(x); i += 2 {
		w = append(w, complex(float64(x[i]), float64(x[i+1])))
	}
	return w
}

func compareRows(t *testing.T, what string, got []float32, lanes int, want [][]complex128) {
	t.Helper()
	for r, row := range rowsOf(got, lanes) {
		for i, v := range row {
			if cmplx.Abs(v-want[r][i]) > 2e-5 {
				t.Fatalf("%s: row %d, lane %d is %v, want %v", what, r, i, v, want[r][i])
			}
		}
	}
}

// TestStages compares every stage with the sums of its documentation, on part
// of each block, with rows around it that must not change.
func TestStages(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		b := NewButterflies()
		lanes := b.Lanes()
		for radix := 2; radix <= 5; radix++ {
			for _, s := range []struct{ q, count, blocks int }{{1, 1, 1}, {1, 1, 7}, {5, 5, 2}, {6, 2, 3}, {300, 300, 2}, {700, 650, 1}} {
				for _, inverse := range []bool{false, true} {
					name := fmt.Sprintf("radix %d, %+v, inverse %v", radix, s, inverse)
					x := guarded(t, radix*s.q*s.blocks*2*lanes, false)
					copy(x, random(1, len(x)))
					tw := guarded(t, 2*s.count*(radix-1), false)
					copy(tw, random(2, len(tw)))
					in, w, want := rowsOf(x, lanes), tableOf(tw), rowsOf(x, lanes)
					for block := range s.blocks {
						for j := range s.count {
							at := func(p int) int { return (block*radix+p)*s.q + j }
							for k := range radix {
								for i := range lanes {
									var sum complex128
									for p := range radix {
										v := in[at(p)][i] * turn(-float64(p*k), float64(radix))
										if inverse {
											v = in[at(p)][i] * turn(float64(p*k), float64(radix))
											if p > 0 {
												v *= cmplx.Conj(w[j*(radix-1)+p-1])
											}
										}
										sum += v
									}
									if !inverse && k > 0 {
										sum *= w[j*(radix-1)+k-1]
									}
									want[at(k)][i] = sum
								}
							}
						}
					}
					if inverse {
						b.Inverse(radix, x, s.q, s.count, s.blocks, tw)
					} else {
						b.Forward(radix, x, s.q, s.count, s.blocks, tw)
					}
					compareRows(t, name, x, lanes, want)
				}
			}
		}
	})
}

// TestRoots reads the constants of the stages to the bit: of one element that is 1, with
// twiddle factors of 1, a stage makes the roots of unity.
func TestRoots(t *testing.T) {
	exact := func(name string, got float32, want float64) {
		t.Helper()
		if math.Abs(want) < 1e-9 {
			if math.Abs(float64(got)) > 1e-9 {
				t.Errorf("%s is %v, want 0", name, got)
			}
		} else if ulp(got, want) > 0.501 {
			t.Errorf("%s is %v, want %v", name, got, float32(want))
		}
	}
	isatest.Run(t, func(t *testing.T) {
		b := NewButterflies()
		lanes := b.Lanes()
		ones := func(n int) (tw []float32) {
			for range n {
				tw = append(tw, 1, 0)
			}
			return tw
		}
		for radix := 2; radix <= 5; radix++ {
			for _, inverse := range []bool{false, true} {
				for p := range radix {
					x := make([]float32, 2*lanes*radix)
					for i := range lanes {
						x[2*lanes*p+i] = 1
					}
					sign := -1.0
					if inverse {
						sign = 1
						b.Inverse(radix, x, 1, 1, 1, ones(radix-1))
					} else {
						b.Forward(radix, x, 1, 1, 1, ones(radix-1))
					}
					for k := range radix {
						root := turn(sign*float64(p*k%radix), float64(radix))
						name := fmt.Sprintf("radix %d, inverse %v, root %d", radix, inverse, p*k)
						for i := range lanes {
							exact(name, x[2*lanes*k+i], real(root))
							exact(name, x[2*lanes*k+lanes+i], imag(root))
						}
					}
				}
			}
		}
		for p := range 4 {
			u, x := make([]float32, 4*lanes), make([]float32, 8*lanes)
			for i := range lanes {
				u[p*lanes+i] = 1
			}
			b.First(4, x, 1, 1, u, lanes, ones(4))
			for k := range 4 {
				root := turn(float64(p), 16) * turn(-float64(p*k%4), 4)
				exact(fmt.Sprintf("First: e^(i pi %d/8), row %d", p, k), x[2*lanes*k], real(root))
				exact(fmt.Sprintf("First: e^(i pi %d/8), row %d", p, k), x[2*lanes*k+lanes], imag(root))
			}
		}
	})
}

func TestOuterStages(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		b := NewButterflies()
		lanes := b.Lanes()
		for valid := 2; valid <= 4; valid++ {
			for _, s := range []struct{ q, count, gap int }{{1, 1, 0}, {4, 3, 5}, {300, 290, 0}} {
				name := fmt.Sprintf("valid %d, %+v", valid, s)
				stride := lanes + s.gap
				u := guarded(t, ((valid-1)*s.q+s.count-1)*stride+lanes, false)
				copy(u, random(1, len(u)))
				x := guarded(t, (3*s.q+s.count)*2*lanes, false)
				copy(x, random(3, len(x)))
				tw := guarded(t, 8*s.count, false)
				copy(tw, random(2, len(tw)))
				w, want := tableOf(tw), rowsOf(x, lanes)
				for j := range s.count {
					for k := range 4 {
						for i := range lanes {
							var sum complex128
							for p := range valid {
								v := complex(float64(u[(p*s.q+j)*stride+i]), 0)
								sum += v * turn(float64(p), 16) * turn(-float64(p*k), 4)
							}
							want[k*s.q+j][i] = sum * w[4*j+k]
						}
					}
				}
				b.First(valid, x, s.q, s.count, u, stride, tw)
				compareRows(t, "First, "+name, x, lanes, want)

				in := rowsOf(x, lanes)
				before := append([]float32{}, u...)
				b.Last(valid, x, s.q, s.count, u, stride, tw)
				for at, v := range u {
					row, i := at/stride, at%stride
					p, j := row/s.q, row%s.q
					if i >= lanes || j >= s.count {
						if v != before[at] {
							t.Fatalf("Last, %s: element %d overwritten", name, at)
						}
						continue
					}
					var sum complex128
					for k := range 4 {
						sum += in[k*s.q+j][i] * cmplx.Conj(w[4*j+k]) * turn(float64(p*k), 4)
					}
					if y := real(sum * turn(-float64(p), 16)); math.Abs(float64(v)-y) > 1e-4 {
						t.Fatalf("Last, %s: row %d of quarter %d, lane %d is %v, want %v", name, j, p, i, v, y)
					}
				}
			}
		}
	})
}

func TestCenterAndRing(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		b := NewButterflies()
		lanes := b.Lanes()
		for _, blocks := range []int{0, 1, 3, 200} {
			x, s := guarded(t, blocks*8*lanes, false), guarded(t, blocks*8*lanes, true)
			copy(x, random(1, len(x)))
			copy(s, random(2, len(s)))
			in, spectrum, want := rowsOf(x, lanes), rowsOf(s, lanes), rowsOf(x, lanes)
			for block := range blocks {
				for i := range lanes {
					var z [4]complex128
					for k := range z {
						for p := range 4 {
							z[k] += in[4*block+p][i] * turn(-float64(p*k), 4)
						}
						z[k] *= spectrum[4*block+k][i]
					}
					for p := range 4 {
						want[4*block+p][i] = 0
						for k := range z {
							want[4*block+p][i] += z[k] * turn(float64(p*k), 4)
						}
					}
				}
			}
			b.Center(x, s, blocks)
			compareRows(t, fmt.Sprint("Center of ", blocks), x, lanes, want)

			rows := blocks
			x, s = guarded(t, rows*2*lanes, true), guarded(t, rows*4*lanes, false)
			copy(x, random(3, len(x)))
			copy(s, random(4, len(s)))
			in = rowsOf(x, lanes)
			for r, row := range rowsOf(s, 2*lanes) {
				want[r] = make([]complex128, lanes)
				for phase, v := range in[r] {
					for i := range lanes {
						want[r][i] += v * row[lanes-phase+i]
					}
				}
			}
			b.Ring(x, s, rows)
			compareRows(t, fmt.Sprint("Ring of ", rows), x, lanes, want)
		}
	})
}

func TestButterfliesPanic(t *testing.T) {
	b := NewButterflies()
	x := make([]float32, 8*b.Lanes())
	mustPanic(t, "kernel: Butterflies.Forward: radix 6, q 1, count 1, blocks 1", func() { b.Forward(6, x, 1, 1, 1, x) })
	mustPanic(t, fmt.Sprintf("kernel: Butterflies.Inverse: x has %d elements, want at least %d", len(x), 16*b.Lanes()),
		func() { b.Inverse(4, x, 2, 2, 1, x) })
	mustPanic(t, fmt.Sprintf("kernel: Butterflies.Center: spectrum has 0 elements, want at least %d", 8*b.Lanes()), func() { b.Center(x, nil, 1) })
}

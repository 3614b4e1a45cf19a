package kernel

import (
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// element is element (i, j) of m in float64.
func element(m blas32.General, i, j int) float64 { return float64(m.Data[i*m.Stride+j]) }

// TestDeltaRows solves for rows of a chunk and asks them, beside loops over float64: every
// height, panels that are whole and not, memory that ends there.
func TestDeltaRows(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		width := PanelCols()
		for i, rows := range []int{1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 20, 32} {
			for _, before := range []int{0, 3, 12} {
				for j, states := range []int{0, 1, 6, 37} {
					cols := []int{width, 1 + width/2, 1}[(i+j)%3]
					low := (i+before)%2 == 0
					testDeltaRows(t, fmt.Sprintf("%d rows, %d before, %d states, %d columns", rows, before, states, cols), rows, before, states, cols, low)
				}
			}
		}
	})
}

func testDeltaRows(t *testing.T, what string, rows, before, states, cols int, low bool) {
	width := PanelCols()
	d := DeltaRows{A: guardedMatrix(t, 1, rows, states, low), By: guardedMatrix(t, 2, 1, rows, low).Data, M: guardedMatrix(t, 3, rows, before+rows, low), Before: before}
	for i := range d.M.Data { // what follows from what does not grow
		d.M.Data[i] /= 16
	}
	s, u, kept := guardedMatrix(t, 4, states, width, low), guardedMatrix(t, 5, before+rows, width, low), guardedMatrix(t, 6, before+rows, width, low)
	w, v, rest := guardedMatrix(t, 7, 1, rows, low).Data, guardedMatrix(t, 8, rows, cols, low), guardedMatrix(t, 9, 1, rows, low).Data
	read := func(i, until int) []float64 {
		x := make([]float64, width)
		for c := range x {
			for k := range states {
				x[c] += element(d.A, i, k) * element(s, k, c)
			}
			x[c] *= float64(d.By[i])
			for j := range until {
				x[c] += element(d.M, i, j) * element(u, j, c)
			}
		}
		return x
	}
	d.Ahead = new(Ahead)
	d.Ahead.Add(v)
	d.Solve(s.Data, u.Data, kept.Data, w, v, rest)
	var want, all, wantKept []float64
	for i := range rows {
		x := read(i, before+i)
		for c := range x {
			if c < cols {
				x[c] += float64(w[i]) * element(v, i, c)
			}
			wantKept = append(wantKept, x[c]*float64(rest[i]))
		}
		want = append(want, x...)
	}
	near(t, what+": u", u.Data[before*width:], want, 4e-5)
	near(t, what+": kept", kept.Data[before*width:], wantKept, 4e-5)
	dst := guardedMatrix(t, 10, rows, cols, low)
	d.Ask(dst, s.Data, u.Data)
	d.Ahead.Finish()
	for i := range rows {
		all = append(all, read(i, before+i+1)[:cols]...)
	}
	near(t, what+": dst", dst.Data, all, 4e-5)
}

// TestDeltaWrite takes states over tokens, beside loops over float64.
func TestDeltaWrite(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		width := PanelCols()
		for _, states := range []int{0, 1, 3, 4, 6, 8, 11, 12, 25, 37, 400} {
			for i, tokens := range []int{0, 1, 5, 70} {
				low, after := states%2 == 0, i%2 == states/2%2
				s, a, u := guardedMatrix(t, 1, states, width, low), guardedMatrix(t, 2, tokens, states, low), guardedMatrix(t, 3, tokens, width, low)
				scale := guardedMatrix(t, 4, 1, states, low).Data
				var want []float64
				for i := range states {
					for c := range width {
						x, y := float64(scale[i])*element(s, i, c), 0.0
						for j := range tokens {
							y += element(a, j, i) * element(u, j, c)
						}
						if after {
							y *= float64(scale[i])
						}
						x += y
						want = append(want, x)
					}
				}
				DeltaWrite(s.Data, scale, a, u.Data, after)
				near(t, fmt.Sprintf("%d states, %d tokens, after %v", states, tokens, after), s.Data, want, 4e-5)
			}
		}
	})
}

// TestDeltaFall weighs products by decays, of which some leave nothing.
func TestDeltaFall(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, tokens := range []int{0, 1, 2, 7, 16, 17, 31, 32, 45, 64} {
			for _, cols := range []int{tokens, tokens / 2} {
				low := tokens%2 == 0
				x, dst := guardedMatrix(t, 1, tokens, cols, low), guardedMatrix(t, 2, tokens, cols, low)
				step, by := guardedMatrix(t, 3, 1, tokens, low).Data, guardedMatrix(t, 4, 1, tokens, low).Data
				for i := range step {
					step[i] = []float32{.9, .5, 1, 1e-3, 1e-20, 0}[i%6]
				}
				DeltaFall(dst, step, by, x)
				for j := range cols {
					fall := 1.0
					var want []float64
					var got []float32
					for i := j; i < tokens; i++ {
						if i > j {
							fall *= float64(step[i])
						}
						if fall < 0x1p-103 {
							fall = 0
						}
						want = append(want, fall*element(x, i, j)*float64(by[i]))
						got = append(got, dst.Data[i*cols+j])
					}
					for i := range want {
						if d := float64(got[i]) - want[i]; !(math.Abs(d) <= 1e-5*math.Abs(want[i])) {
							t.Fatalf("%d tokens, column %d, row %d: %v, want %v", tokens, j, j+i, got[i], want[i])
						}
					}
				}
			}
		}
	})
}

func TestDeltaChunkPanics(t *testing.T) {
	width := PanelCols()
	x := make([]float32, 8*width)
	of := func(rows, cols int) blas32.General {
		return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: x[:rows*cols]}
	}
	d := DeltaRows{A: of(2, 1), By: x[:2], M: of(2, 3), Before: 1}
	mustPanic(t, "kernel: DeltaRows.Ask: s has 0 elements, want "+fmt.Sprint(width), func() { d.Ask(of(2, 1), nil, x) })
	mustPanic(t, "kernel: DeltaRows.Ask: u has 2 elements, want at least "+fmt.Sprint(3*width), func() { d.Ask(of(2, 1), x[:width], x[:2]) })
	mustPanic(t, fmt.Sprintf("kernel: DeltaRows.Solve: 0 columns, 1 rows before, want 1 to %d and 0 or more", width), func() { d.Solve(x[:width], x, x, x[:2], of(2, 0), x[:2]) })
	mustPanic(t, "kernel: DeltaRows.Solve: w has 1 elements, want 2", func() { d.Solve(x[:width], x, x, x[:1], of(2, 1), x[:2]) })
	mustPanic(t, "kernel: DeltaWrite: scale has 1 elements, want 2", func() { DeltaWrite(x[:2*width], x[:1], of(1, 2), x[:width], false) })
	mustPanic(t, "kernel: DeltaFall: 65 x 1 with strides 1 and 1, want one stride and at most 64 rows, with columns for each or fewer", func() {
		y := make([]float32, 65)
		m := blas32.General{Rows: 65, Cols: 1, Stride: 1, Data: y}
		DeltaFall(m, y, y, m)
	})
}

// TestAhead asks for all of some matrices, whatever the kernels take.
func TestAhead(t *testing.T) {
	var a Ahead
	var list []blas32.General
	for i := range 10 {
		list = append(list, matrix(uint64(i), 3+i, 40, 0))
		a.Add(list[i])
	}
	a.Add(blas32.General{})
	if a.n != 8 {
		t.Fatalf("%d matrices", a.n)
	}
	for _, x := range list[:8] {
		for col := 0; col < x.Cols; col += aheadCols {
			for row := 0; row < x.Rows; row += 2 {
				from, stride := a.next(2)
				if from != &x.Data[row*x.Stride+col] || stride != 4*x.Stride {
					t.Fatalf("row %d, column %d: another place, stride %d", row, col, stride)
				}
			}
		}
	}
	if _, stride := a.next(2); stride != 0 {
		t.Error("more than all is asked for")
	}
	if _, stride := (*Ahead)(nil).next(2); stride != 0 {
		t.Error("nothing asks for something")
	}
	a.Finish()
	a.Add(list[3])
	a.next(2)
	a.Finish()
	if a.n != 0 || a.i != 0 || a.list[0].Data != nil {
		t.Error("memory is kept")
	}
}

// TestDeltaKeys multiplies decays of channels up, beside exponentials in float64, and tells
// those that are not mild.
func TestDeltaKeys(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for i, width := range []int{0, 1, 3, 8, 16, 21, 32, 33, 70} {
			for _, tokens := range []int{0, 1, 2, 32} {
				low, first := (width+tokens)%2 == 0, (i+tokens/2)%2 == 0
				rows := func(seed uint64) blas32.General { return guardedMatrix(t, seed, tokens, width, low) }
				d := DeltaKeys{Logs: rows(1), K: rows(2), Erase: rows(3), Q: rows(4), First: first}
				near, left, ask, last := rows(5), rows(6), rows(7), guardedMatrix(t, 8, 1, width, low).Data
				for i, x := range d.Logs.Data {
					d.Logs.Data[i] = -x * x // to some -40 in all
				}
				what := fmt.Sprintf("%d tokens of %d, first %v", tokens, width, first)
				if !d.Multiply(near, left, ask, last) {
					t.Fatalf("%s: decays are not mild", what)
				}
				for i := range width {
					var sum, before float64
					compare := func(name string, got, want float64) {
						if !(math.Abs(got-want) <= 6e-6*math.Abs(want)) {
							t.Fatalf("%s: %s of channel %d is %v, want %v", what, name, i, got, want)
						}
					}
					for j := range tokens {
						before = sum
						sum += element(d.Logs, j, i)
						if !first {
							before = sum
						}
						compare("near", element(near, j, i), element(d.K, j, i)*math.Exp(-sum))
						compare("left", element(left, j, i), element(d.Erase, j, i)*math.Exp(before))
						compare("ask", element(ask, j, i), element(d.Q, j, i)*math.Exp(sum))
					}
					compare("last", float64(last[i]), math.Exp(sum))
				}
				if tokens*width == 0 {
					continue
				}
				for i, x := range []float32{-63, -86, -100, -1e30, -inf, 60, 90, 1e30, inf, nan} {
					at := (tokens-1)*width + i%width
					saved := d.Logs.Data[at]
					d.Logs.Data[at] = x
					if d.Multiply(near, left, ask, last) {
						t.Errorf("%s: decays are mild, with a logarithm of %v", what, x)
					}
					d.Logs.Data[at] = saved
				}
			}
		}
	})
	mustPanic(t, "kernel: DeltaKeys: strides 3 and 2, want one", func() {
		x := matrix(1, 2, 2, 0)
		(&DeltaKeys{Logs: x, K: x, Erase: x, Q: x}).Multiply(x, matrix(1, 2, 2, 1), x, x.Data[:2])
	})
}

// TestRowScales brings rows to a length, beside float64; an eps that float32 does not hold
// counts.
func TestRowScales(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, width := range []int{0, 1, 5, 16, 33, 128, 3 * Chunk} {
			for _, rows := range []int{0, 1, 7, 16, 37} {
				if width > Chunk && rows > 7 {
					continue
				}
				for _, eps := range []float64{1e-6, 1e-60} {
					x, dst := guardedMatrix(t, 1, rows, width, rows%2 == 0), guardedMatrix(t, 2, 1, rows, rows%2 == 0).Data
					if rows > 3 {
						clear(x.Data[3*width:][:width])
					}
					RowScales(dst, -3, x, eps)
					for i, got := range dst {
						sum := eps
						for c := range width {
							sum += element(x, i, c) * element(x, i, c)
						}
						want := float64(float32(-3 / math.Sqrt(sum)))
						if d := math.Abs(float64(got) - want); !(d <= 2e-6*math.Abs(want)) {
							t.Fatalf("%d rows of %d, eps %v: row %d is %v, want %v", rows, width, eps, i, got, want)
						}
					}
				}
			}
		}
	})
}

// TestDeltaProducts: the lower triangle has the bits of the whole product.
func TestDeltaProducts(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, n := range []int{0, 1, 5, 15, 16, 17, 31, 32, 33, 64, 70} {
			for _, states := range []int{0, 1, 37} {
				low := n%2 == 0
				a, dst, whole := guardedMatrix(t, 1, n, states, low), guardedMatrix(t, 2, n, n, low), blank(n, n, 0)
				var b Matrix
				b.SetT(guardedMatrix(t, 3, n, states, low))
				Gemm(whole, a, &b, nil)
				DeltaProducts(dst, a, &b)
				for i := range n {
					if err := sameBits(dst.Data[i*n:][:i+1], whole.Data[i*n:][:i+1]); err != nil {
						t.Fatalf("%d rows, %d states, row %d: %v", n, states, i, err)
					}
				}
			}
		}
	})
	mustPanic(t, "kernel: DeltaProducts: dst is 2 x 3, want 2 x 2", func() {
		DeltaProducts(matrix(1, 2, 3, 0), matrix(1, 2, 1, 0), NewMatrix(Float32, matrix(1, 1, 2, 0)))
	})
}

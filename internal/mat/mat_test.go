package mat

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"
)

func numbered(rows, cols, stride int) blas32.General {
	m := blas32.General{Rows: rows, Cols: cols, Stride: stride, Data: make([]float32, rows*stride)}
	for i := range m.Data {
		m.Data[i] = float32(i)
	}
	return m
}

func TestViews(t *testing.T) {
	m := numbered(4, 3, 5)
	if got := Row(m, 2); !slices.Equal(got, []float32{10, 11, 12}) {
		t.Errorf("Row: %v", got)
	}
	if got := Part(m, 1, 1, 2); !slices.Equal(got, []float32{6, 7}) {
		t.Errorf("Part: %v", got)
	}
	if v := Columns(Rows(m, 1, 3), 2, 1); v.Rows != 2 || v.Cols != 1 || Row(v, 1)[0] != 12 {
		t.Errorf("Columns of Rows: %+v", v)
	}
	if v := Rows(m, 4, 4); v.Rows != 0 {
		t.Errorf("no rows: %+v", v)
	}
	to := New(4, 3)
	Copy(to, m)
	if !slices.Equal(to.Data, []float32{0, 1, 2, 5, 6, 7, 10, 11, 12, 15, 16, 17}) {
		t.Errorf("Copy: %v", to.Data)
	}
	Clear(m)
	if m.Data[5] != 0 || m.Data[3] != 3 {
		t.Errorf("Clear: %v", m.Data)
	}
	if Given(blas32.General{}) || !Given(m) || Given(blas32.General{Stride: 3}) {
		t.Error("Given")
	}
}

func TestOverlap(t *testing.T) {
	m := numbered(4, 8, 8)
	for _, c := range []struct {
		name string
		a, b blas32.General
		want bool
	}{
		{"itself", m, m, true},
		{"side by side", Columns(m, 0, 4), Columns(m, 4, 4), false},
		{"a shared column", Columns(m, 0, 5), Columns(m, 4, 4), true},
		{"side by side, later rows", Columns(m, 4, 4), Columns(Rows(m, 1, 3), 0, 4), false},
		{"one above the other", Rows(m, 0, 2), Rows(m, 2, 4), false},
		{"a shared row", Rows(m, 0, 3), Rows(m, 2, 4), true},
		{"empty", Rows(m, 1, 1), m, false},
		{"other strides", blas32.General{Rows: 2, Cols: 1, Stride: 3, Data: m.Data}, Columns(m, 4, 4), false},
		{"interleaved", blas32.General{Rows: 9, Cols: 1, Stride: 3, Data: m.Data}, Columns(m, 4, 4), true},
		// What an unchecked call may bring: no answer matters, a panic would.
		{"too few data", blas32.General{Rows: 9, Cols: 6, Stride: 6}, m, false},
		{"a huge shape", blas32.General{Rows: math.MaxInt, Cols: math.MaxInt, Stride: math.MaxInt, Data: m.Data}, m, true},
		{"no stride", blas32.General{Rows: 2, Cols: 2, Data: m.Data}, blas32.General{Rows: 2, Cols: 2, Data: m.Data}, true},
		{"a negative stride", blas32.General{Rows: 2, Cols: 2, Stride: -1, Data: m.Data}, m, false},
	} {
		if got := Overlap(c.a, c.b); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if got := Overlap(c.b, c.a); got != c.want {
			t.Errorf("%s, turned: %v", c.name, got)
		}
	}
	if !Same(m, Rows(m, 0, 2)) || Same(m, Columns(m, 1, 2)) {
		t.Error("Same")
	}
}

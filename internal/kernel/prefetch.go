package kernel

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
)

// Prefetch asks for the memory of x, so that it comes while other work is done. It
// changes nothing, and does nothing where a tier has no means for it.
func Prefetch(x []float32) {
	PrefetchRows(blas32.General{Rows: 1, Cols: len(x), Stride: len(x), Data: x})
}

// PrefetchRows is Prefetch for the rows of x. Where they stand far apart a processor does not
// foresee the next by itself.
func PrefetchRows(x blas32.General) {
	const most = 1024 // lines to a kernel call
	tier := isa.Active()
	if tier == isa.Generic || x.Rows == 0 || x.Cols == 0 {
		return
	}
	CheckMatrix("kernel: PrefetchRows", "x", x, x.Rows, x.Cols)
	for col := 0; col < x.Cols; col += prefetchLine * most {
		lines := (min(x.Cols-col, prefetchLine*most) + prefetchLine - 1) / prefetchLine
		for step, i := most/lines, 0; i < x.Rows; i += step {
			prefetchSIMD(tier, min(step, x.Rows-i), lines, &x.Data[i*x.Stride+col], 4*x.Stride)
		}
	}
}

// Ahead is memory that kernels ask for while they do other work, a little at a time: many
// requests at once wait for each other.
type Ahead struct {
	list     [8]blas32.General
	n, i     int // how many there are, and how many have been asked for
	row, col int // where the next request begins
}

// aheadCols is how many columns a kernel asks for of each row.
const aheadCols = 2 * prefetchLine

// Add adds the rows of x to what is asked for; of more than eight matrices it does nothing.
func (a *Ahead) Add(x blas32.General) {
	if a.n < len(a.list) && x.Rows > 0 && x.Cols > 0 {
		a.list[a.n] = x
		a.n++
	}
}

// next returns where a kernel that asks for so many rows begins, and their stride in bytes.
func (a *Ahead) next(rows int) (from *float32, stride int) {
	if a == nil || a.i == a.n || rows == 0 {
		return &zeros[0], 0
	}
	x := &a.list[a.i]
	from, stride = &x.Data[a.row*x.Stride+a.col], 4*x.Stride
	if a.row += rows; a.row >= x.Rows {
		a.row, a.col = 0, a.col+aheadCols
		if a.col >= x.Cols {
			a.col = 0
			a.i++
		}
	}
	return from, stride
}

// Finish asks for what no kernel has asked for, and forgets all.
func (a *Ahead) Finish() {
	for ; a.i < a.n; a.i++ {
		x := a.list[a.i]
		PrefetchRows(blas32.General{Rows: x.Rows, Cols: x.Cols - a.col, Stride: x.Stride, Data: x.Data[a.col:]})
		a.row, a.col = 0, 0
	}
	*a = Ahead{}
}

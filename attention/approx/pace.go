package approx

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
)

const (
	lookWork  = 4 << 20 // multiply-adds between looks at the context: a few milliseconds in portable Go
	elsewhere = 8       // multiply-adds that take about as long as an element of anything else
)

// pace looks at the context of the group whose task a worker does, once in lookWork.
type pace struct {
	group   *parallel.Group
	done    int  // multiply-adds since the last look
	stopped bool // what that has seen
}

// begin is the first thing that a task does.
func (p *pace) begin(g *parallel.Group) { *p = pace{group: g} }

// stop counts work that has been done or is about to be, and tells whether the rest may be left
// undone: nobody will read it.
func (p *pace) stop(work int) bool {
	if p.done += work; p.done >= lookWork && !p.stopped {
		p.done, p.stopped = 0, p.group.Stopped()
	}
	return p.stopped
}

// rowsAtOnce is how many rows of so many multiply-adds each a kernel is given at once: whole
// tiles, unless one alone takes long.
func rowsAtOnce(each int) int {
	if n := 2 * lookWork / max(each, 1) / rowsTogether; n > 0 {
		return n * rowsTogether
	}
	return min(rowsTogether, max(1, 4*lookWork/each))
}

// gemm is kernel.Gemm, gemmAdd kernel.GemmAdd and gemmTAdd kernel.GemmTAdd, in strips of rows of
// dst, whose results do not depend on each other.
func (p *pace) gemm(dst, a blas32.General, b *kernel.Matrix) {
	p.strips(dst.Rows, b, func(from, to int) {
		kernel.Gemm(mat.Rows(dst, from, to), mat.Rows(a, from, to), b, nil)
	})
}

func (p *pace) gemmAdd(dst, a blas32.General, b *kernel.Matrix) {
	p.strips(dst.Rows, b, func(from, to int) {
		kernel.GemmAdd(mat.Rows(dst, from, to), mat.Rows(a, from, to), b)
	})
}

func (p *pace) gemmTAdd(dst, a blas32.General, b *kernel.Matrix) {
	p.strips(dst.Rows, b, func(from, to int) {
		kernel.GemmTAdd(mat.Rows(dst, from, to), mat.Columns(a, from, to-from), b)
	})
}

// strips calls f for strips of n rows of a product with b.
func (p *pace) strips(n int, b *kernel.Matrix, f func(from, to int)) {
	rows, cols := b.Dims()
	step := rowsAtOnce(rows * cols)
	for from := 0; from < n; from += step {
		to := min(from+step, n)
		if p.stop((to - from) * rows * cols) {
			return
		}
		f(from, to)
	}
}

// Package dense has the layers of a model that take each token by itself: linear layers,
// MLPs, norms, the embedding and the head. They are serial, unless a task may use several goroutines; callers cut the tokens into
// blocks of rows and run those side by side, which changes no bit, because a row's
// result does not depend on the others. A layer whose outputs are many asks the group that
// runs it every few milliseconds whether to go on.
//
// Letters: n tokens, D the width of a token, I the width of an MLP's hidden layer, V the
// rows of a vocabulary.
package dense

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// BlockRows is a good number of tokens to a block: a multiple of every tier's
// tile, and few enough that a layer's input and output stay in the second cache.
const BlockRows = 192

// Linear is y = x W^T + b, with its weights packed.
type Linear struct {
	weight      kernel.Matrix // [in, out]
	packed      *packed       // instead of weight, or nil
	bias        []float32
	slow        int // by how many times products are slower than in float32 on vectors, about
	fingerprint state.Fingerprint
}

// NewLinear packs a weight [out, in] with a bias [out], or nil.
func NewLinear(format asm.Format, weight blas32.General, bias []float32) *Linear {
	return newLinear(kernel.Format(format), weight, bias)
}

// NewLinearIn is NewLinear for products in a precision, which needs Float32 unless it is
// Single.
func NewLinearIn(format asm.Format, precision asm.Precision, weight blas32.General, bias []float32) *Linear {
	if precision == asm.Single {
		return NewLinear(format, weight, bias)
	}
	l := newLinear(kernel.PrecisionFormat(uint8(precision)), weight, bias)
	if precision.Unit() == "none" {
		l.slow = 256
	}
	return l
}

func newLinear(format kernel.Format, weight blas32.General, bias []float32) *Linear {
	l := &Linear{bias: bias, slow: 1, fingerprint: state.NewFingerprint("linear", int64(format))}
	if isa.Active() == isa.Generic {
		l.slow = 64
	}
	l.weight.PackIn(format, weight, true)
	l.fingerprint.Matrices(weight)
	l.fingerprint.Floats(bias)
	return l
}

// Forward sets dst [n, out] from x [n, in]; dst must not overlap x.
func (l *Linear) Forward(dst, x blas32.General) { l.ForwardIn(nil, dst, x) }

// partWork is about how many multiply-adds a layer makes before it asks whether to go on:
// some milliseconds. Tests lower it.
var partWork = 200_000_000

// part is partWork for l: where products are slow it is less.
func (l *Linear) part() int { return partWork / l.slow }

// partRows is how many rows a part has, whose outputs are no more than unit: all of x, unless
// that is too much to do where products are slow.
func (l *Linear) partRows(rows int) int {
	in, _ := l.Dims()
	if l.slow == 1 || l.packed != nil {
		return max(rows, 1)
	}
	n := max(l.part()/max(in*l.unit(), 1), 1)
	if n > strip {
		n -= n % strip
	}
	return min(rows, n)
}

// strip is how many rows products in parts do together.
const strip = 32

// ForwardIn is Forward as part of a task of group g, which may be nil: where the task may
// use several goroutines they take columns of dst, a token's, say. Where g has stopped
// it leaves some of dst as it was; g's Run then returns an error.
func (l *Linear) ForwardIn(g *parallel.Group, dst, x blas32.General) {
	in, out := l.Dims()
	if g.Share() > 1 && float64(x.Rows)*float64(in)*float64(out) >= float64(divideWork) {
		l.divide(g, dst, x)
		return
	}
	if l.packed != nil {
		l.packed.outputs(g, dst, x, l.bias, 0, out)
		return
	}
	columns := l.columns(x.Rows)
	if columns >= out && l.partRows(x.Rows) >= x.Rows {
		kernel.Gemm(dst, x, &l.weight, l.bias)
		return
	}
	for from := 0; from < out && !g.Stopped(); from += columns {
		l.outputs(g, dst, x, from, min(from+columns, out))
	}
}

// columns is how many outputs of so many rows a part has.
func (l *Linear) columns(rows int) int {
	in, _ := l.Dims()
	return max(l.part()/max(rows*in, 1)/l.unit(), 1) * l.unit()
}

// unit is how many outputs the kernels take together with few rows: four panels, or one
// where products are slow.
func (l *Linear) unit() int {
	switch {
	case l.packed != nil:
		return l.packed.unit
	case l.slow > 1:
		return l.weight.PanelCols()
	}
	return 4 * l.weight.PanelCols()
}

// divideWork is from how many multiply-adds on several goroutines are faster than one: some
// ten microseconds of work. Tests lower it.
var divideWork = 1 << 18

// division is a layer's work on several goroutines.
type division struct {
	group   parallel.Group
	l       *Linear
	dst, x  blas32.General
	columns int // of a part
	part    func(worker, i int)
}

// divisions keeps those that are not in use, which have no memory of their own.
var divisions scratch.List[division]

// divide is ForwardIn on as many goroutines as g's tasks may use. An output is made by one
// of them, whole, so that no bit depends on how many there are.
func (l *Linear) divide(g *parallel.Group, dst, x blas32.General) {
	d := divisions.Get()
	defer divisions.Put(d)
	if d.part == nil {
		d.part = d.makePart
	}
	_, out := l.Dims()
	unit := l.unit()
	// Three parts for each, as they do not take the same time.
	d.columns = max(out/(3*g.Share())/unit, 1) * unit
	d.columns = min(d.columns, l.columns(x.Rows))
	d.l, d.dst, d.x = l, dst, x
	g.Divide(&d.group, (out+d.columns-1)/d.columns, d.part)
	d.l, d.dst, d.x = nil, blas32.General{}, blas32.General{}
}

func (d *division) makePart(_, i int) {
	_, out := d.l.Dims()
	from := i * d.columns
	d.l.outputs(&d.group, d.dst, d.x, from, min(from+d.columns, out))
}

// outputs sets columns of dst, a part of them, by rows where that is too much at once.
func (l *Linear) outputs(g *parallel.Group, dst, x blas32.General, from, to int) {
	if l.packed != nil {
		l.packed.outputs(nil, dst, x, l.bias, from, to)
		return
	}
	part := l.weight.Columns(from, to)
	bias := l.bias
	if bias != nil {
		bias = bias[from:to]
	}
	dst = mat.Columns(dst, from, to-from)
	rows := l.partRows(x.Rows)
	for row := 0; row < x.Rows; row += rows {
		if row > 0 && g.Stopped() {
			return
		}
		end := min(row+rows, x.Rows)
		kernel.Gemm(mat.Rows(dst, row, end), mat.Rows(x, row, end), &part, bias)
	}
}

// Output sets w [in] to the weights of output o.
func (l *Linear) Output(w []float32, o int) {
	if l.packed != nil {
		l.packed.column(w, o)
		return
	}
	l.weight.Column(w, o)
}

// Dims returns the widths of input and output.
func (l *Linear) Dims() (in, out int) {
	if l.packed != nil {
		return l.packed.in, l.packed.out
	}
	return l.weight.Dims()
}

// Bytes returns the memory of the weights.
func (l *Linear) Bytes() int {
	if l.packed != nil {
		return len(l.packed.blocks) + len(l.packed.scales) + 4*len(l.bias)
	}
	return int(l.weight.Bytes()) + 4*len(l.bias)
}

// Fingerprint tells layers with other weights apart.
func (l *Linear) Fingerprint() uint64 { return uint64(l.fingerprint) }

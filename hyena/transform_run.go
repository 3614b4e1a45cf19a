package hyena

import "github.com/subquad/subquad/internal/parallel"

// cacheRows is how many rows stay in the first cache while all stages below go by.
func (p *plan) cacheRows() int { return 32 << 10 / (4 * p.row()) }

// stopRows is how many rows of a transform are done between two looks at the context:
// a few milliseconds' work at the most.
const stopRows = 1 << 14

// outermost is the level of the first and last stage, before those of radices.
const outermost = -1

// A passage is one way of a block through the stages of its plan: there, to the centre, and
// for a convolution back.
type passage struct {
	*plan
	group    *parallel.Group // if it is stopped, what the passage was to make is not complete
	goal     goal
	phases   bool
	u, y     []float32 // rows that the first stage reads, and the last one writes
	uStride  int
	yStride  int
	length   int       // rows of u and of y; beyond them u is 0
	spectrum []float32 // for each row of work size numbers
	size     int
}

// goal is what a passage makes.
type goal int

const (
	product goal = iota // a convolution
	values              // the values at the roots
	folded              // the values but for the last stage, which is part of Center
	back                // rows from what Center leaves of folded ones
)

// multiply sets rows of y, stride yStride, to the convolution of rows of u with
// the kernel of spectrum, for length rows of Lanes columns, n/2 <= length <= n.
// work has n rows; y may be u. If group is stopped, y is not complete.
//
// Columns are channels; with phases, the Lanes columns of a row are successive
// elements of one channel, and spectrum is made for that (spectrum.go).
func (p *plan) multiply(group *parallel.Group, y []float32, yStride int, u []float32, uStride, length int, spectrum, work []float32, phases bool) {
	w := passage{p, group, product, phases, u, y, uStride, yStride, length, spectrum, len(spectrum) / p.n}
	w.pass(work, 0, outermost)
}

// transform evaluates length real rows of u at the roots, into n rows of work, unless
// group is stopped.
func (p *plan) transform(group *parallel.Group, u []float32, uStride, length int, work []float32) {
	w := passage{plan: p, group: group, goal: values, u: u, uStride: uStride, length: length}
	w.pass(work, 0, outermost)
}

// fold is transform but for the last stage.
func (p *plan) fold(group *parallel.Group, u []float32, uStride, length int, work []float32) {
	w := passage{plan: p, group: group, goal: folded, u: u, uStride: uStride, length: length}
	w.pass(work, 0, outermost)
}

// unfold sets length rows of y to the real parts of what fold evaluated, in work.
func (p *plan) unfold(group *parallel.Group, y []float32, yStride, length int, work []float32) {
	w := passage{plan: p, group: group, goal: back, y: y, yStride: yStride, length: length}
	w.pass(work, 0, outermost)
}

// radix returns that of a level.
func (p *plan) radix(level int) int {
	if level == outermost {
		return 4
	}
	return p.radices[level]
}

// pass runs the stages from level on, there and back, on one block that begins at row from; a
// block too large for the cache is done part by part.
func (w *passage) pass(x []float32, from, level int) {
	m := len(x) / w.row()
	if level != outermost && (level == len(w.radices) || m <= w.cacheRows()) {
		if !w.group.Stopped() {
			w.turn(x, from, level)
		}
		return
	}
	parts, below := w.radix(level), level+1
	if below < len(w.radices) && 4*len(x) > pairBytes {
		parts *= w.radix(below)
		below++
	}
	if w.goal != back {
		w.stages(false, x, level, below)
	}
	for k, q := 0, m/parts; k < parts; k++ {
		w.pass(x[k*q*w.row():(k+1)*q*w.row()], from+k*q, below)
	}
	if w.goal == product || w.goal == back {
		w.stages(true, x, level, below)
	}
}

// Stages run in pairs on blocks that a core's cache may not hold, pairRows rows of each part
// at a time. No bit depends on either.
const (
	pairBytes = 1 << 20
	pairRows  = 32
)

// stages runs the stage of level on a block of any size, with the one after it if below is
// beyond both, until the group is stopped. Where rows stand far apart each stage takes them
// from memory and brings them back; two of them together do so once, on a few rows of
// each of their parts at a time.
func (w *passage) stages(inverse bool, x []float32, level, below int) {
	radix := w.radix(level)
	q := len(x) / w.row() / radix
	if below == level+1 {
		for from := 0; from < q && !w.group.Stopped(); from += stopRows / 4 {
			w.stage(inverse, x, level, from, min(stopRows/4, q-from))
		}
		return
	}
	second := w.radix(level + 1)
	for from := 0; from < q/second && !w.group.Stopped(); from += pairRows {
		count := min(pairRows, q/second-from)
		if inverse {
			w.seconds(inverse, x, level+1, q, from, count)
		}
		for k := range second {
			w.stage(inverse, x, level, k*(q/second)+from, count)
		}
		if !inverse {
			w.seconds(inverse, x, level+1, q, from, count)
		}
	}
}

// seconds runs count rows of a stage in each of the blocks of m rows that x has.
func (w *passage) seconds(inverse bool, x []float32, level, m, from, count int) {
	for ; len(x) > 0; x = x[m*w.row():] {
		w.stage(inverse, x[:m*w.row()], level, from, count)
	}
}

// stage runs a stage on a block for count of its j, from one on.
func (w *passage) stage(inverse bool, x []float32, level, from, count int) {
	radix := w.radix(level)
	q := len(x) / w.row() / radix
	part := x[from*w.row():]
	switch {
	case level == outermost:
		w.outer(inverse, part, from, count)
	case inverse:
		w.Inverse(radix, part, q, count, 1, w.twiddles[level][2*from*(radix-1):])
	default:
		w.Forward(radix, part, q, count, 1, w.twiddles[level][2*from*(radix-1):])
	}
}

// outer is the outermost stage, in stretches in which the same number of quarters has rows
// below length.
func (w *passage) outer(inverse bool, x []float32, from, count int) {
	q := w.n / 4
	for count > 0 {
		valid, n := min(4, (w.length-from+q-1)/q), count
		if edge := w.length - (valid-1)*q - from; edge < n && edge > 0 {
			n = edge
		}
		if inverse {
			w.Last(valid, x, q, n, w.y[from*w.yStride:], w.yStride, w.plan.outer[8*from:])
		} else {
			w.First(valid, x, q, n, w.u[from*w.uStride:], w.uStride, w.plan.outer[8*from:])
		}
		if count -= n; count > 0 {
			from, x = from+n, x[n*w.row():]
		}
	}
}

// turn runs the stages from level on, the centre and the stages back on one block, or as much
// of that as leads to the goal.
func (w *passage) turn(x []float32, from, level int) {
	if w.goal == back {
		w.inverse(x, level)
		return
	}
	w.forward(x, level)
	m := len(x) / w.row()
	spectrum := func() []float32 { return w.spectrum[from*w.size : (from+m)*w.size] }
	switch {
	case w.goal == folded:
	case w.goal == values:
		w.Forward(4, x, 1, 1, m/4, ones)
	case w.phases:
		w.Forward(4, x, 1, 1, m/4, ones)
		w.Ring(x, spectrum(), m)
		w.Inverse(4, x, 1, 1, m/4, ones)
		w.inverse(x, level)
	default:
		w.Center(x, spectrum(), m/4)
		w.inverse(x, level)
	}
}

// forward runs the stages from level to before the centre on one block.
func (p *plan) forward(x []float32, level int) {
	m := len(x) / p.row()
	blocks := 1
	for l := level; l < len(p.radices); l++ {
		q := m / blocks / p.radices[l]
		p.Forward(p.radices[l], x, q, q, blocks, p.twiddles[l])
		blocks *= p.radices[l]
	}
}

// inverse undoes forward.
func (p *plan) inverse(x []float32, level int) {
	q := 4
	for l := len(p.radices) - 1; l >= level; l-- {
		blocks := len(x) / p.row() / (q * p.radices[l])
		p.Inverse(p.radices[l], x, q, q, blocks, p.twiddles[l])
		q *= p.radices[l]
	}
}

// ones holds the twiddles of the innermost stage, all 1.
var ones = []float32{1, 0, 1, 0, 1, 0}

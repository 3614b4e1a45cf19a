package hyena

import (
	"math"
	"sync"
	"weak"

	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/parallel"
)

// The long convolution is a product of polynomials, u(z) k(z), of which the
// first n coefficients are wanted. It is computed modulo z^n - i ("right-angle
// convolution", Nussbaumer 1981; Crandall and Fagin 1994): there z^(n+t) = i z^t,
// so that for real u and k the wanted coefficients come out as real parts and
// those beyond n, which would wrap around, as imaginary parts. n complex numbers
// do for n real ones, nothing is padded with zeros, and the product of two
// transforms is element by element.
//
// The transform evaluates u at the n roots of z^n = i, theta e^(-2 pi i k / n)
// with theta = e^(i pi / 2n):
//
//	U[k] = sum over t of u[t] theta^t e^(-2 pi i t k / n).
//
// Stages are decimation in frequency one way and decimation in time the other,
// so values at the roots stand in digit-reversed order, and stay in it. The
// first stage has radix 4 and takes in the powers of theta, the last forward,
// the product and the first inverse stage are one step of radix 4, and what is
// between has radix 4, 5, 3 or 2: n is 16 times a product of these.
type plan struct {
	kernel.Butterflies
	n        int
	radices  []int       // of the stages between the outer and the inner one
	outer    []float32   // theta^j e^(-2 pi i j k / n) for j < n/4, k < 4
	twiddles [][]float32 // e^(-2 pi i j k / m) for j < m/radix, 0 < k < radix
}

// minSize is the smallest n of a plan.
const minSize = 16

// stageCost is what a stage costs per element, in units of a fused radix-4 pass:
// passes over memory, with a little more for the odd radices' arithmetic.
var stageCost = map[int]float64{2: 0.8, 3: 0.95, 4: 1, 5: 1.35}

// fastSize returns the n >= least of the plan that is cheapest to run.
func fastSize(least int) int {
	best, bestCost := 0, math.Inf(1)
	try := func(m int, cost float64) { // m = n/16
		for ; ; m, cost = m*4, cost+stageCost[4] {
			for _, n := range [2]int{m, 2 * m} {
				c := cost + 2.5
				if n != m {
					c += stageCost[2]
				}
				if size := minSize * n; size >= least && c*float64(size) < bestCost {
					best, bestCost = size, c*float64(size)
				}
			}
			if minSize*m >= least {
				return
			}
		}
	}
	for five, costFive := 1, 0.0; ; five, costFive = five*5, costFive+stageCost[5] {
		for three, cost := five, costFive; ; three, cost = three*3, cost+stageCost[3] {
			try(three, cost)
			if minSize*three >= least {
				break
			}
		}
		if minSize*five >= least {
			return best
		}
	}
}

// plans shares a plan among those who use it, for as long as they do.
var plans struct {
	sync.Mutex
	m map[planKey]weak.Pointer[plan]
}

// planKey is what a plan depends on: the tier's butterflies and the size.
type planKey struct {
	kernel.Butterflies
	n int
}

// planFor returns the plan of n, a size that fastSize gives.
func planFor(b kernel.Butterflies, n int) *plan {
	plans.Lock()
	defer plans.Unlock()
	key := planKey{b, n}
	if p := plans.m[key].Value(); p != nil {
		return p
	}
	p := newPlan(b, n)
	if plans.m == nil {
		plans.m = map[planKey]weak.Pointer[plan]{}
	}
	plans.m[key] = weak.Make(p)
	return p
}

func newPlan(b kernel.Butterflies, n int) *plan {
	p := &plan{Butterflies: b, n: n}
	p.outer = make([]float32, 0, 2*n)
	for j := range n / 4 {
		for k := range 4 {
			p.outer = appendTurn(p.outer, float64(j)*float64(1-4*k), 4*float64(n))
		}
	}
	for m := n / 4; m > 4; {
		radix := 4
		for m/4%radix != 0 || radix == 4 && m/4 == 2 {
			radix = map[int]int{4: 5, 5: 3, 3: 2}[radix]
		}
		p.radices = append(p.radices, radix)
		tw := make([]float32, 0, 2*(radix-1)*(m/radix))
		for j := range m / radix {
			for k := 1; k < radix; k++ {
				tw = appendTurn(tw, -float64(j*k), float64(m))
			}
		}
		p.twiddles = append(p.twiddles, tw)
		m /= radix
	}
	return p
}

// bytes returns the memory of the plan's tables.
func (p *plan) bytes() int64 {
	n := floatBytes(len(p.outer))
	for _, tw := range p.twiddles {
		n += floatBytes(len(tw))
	}
	return n
}

// appendTurn appends e^(2 pi i num / den).
func appendTurn(w []float32, num, den float64) []float32 {
	s, c := math.Sincos(2 * math.Pi * num / den)
	return append(w, float32(c), float32(s))
}

// frequency returns the k of the root at place at of the transform.
func (p *plan) frequency(at int) int {
	// Place = k0*q0 + k1*q1 + ..., k = k0 + radix0*(k1 + radix1*(k2 + ...)).
	k, weight, block := 0, 1, p.n
	digit := func(radix int) {
		block /= radix
		k += weight * (at / block)
		weight *= radix
		at %= block
	}
	digit(4)
	for _, r := range p.radices {
		digit(r)
	}
	digit(4)
	return k
}

// row is the number of float32 in a row of work: a complex number for each lane.
func (p *plan) row() int { return 2 * p.Lanes() }

// cacheRows is how many rows stay in the first cache while all stages below go by.
func (p *plan) cacheRows() int { return 32 << 10 / (4 * p.row()) }

// stopRows is how many rows of a transform are done between two looks at the context:
// a few milliseconds' work at the most.
const stopRows = 1 << 14

// quarters runs f over the outer stage's j in [0, n/4), in stretches in which
// the same number of quarters has rows below length, until group is stopped.
func (p *plan) quarters(group *parallel.Group, length int, f func(valid, from, count int)) {
	q := p.n / 4
	for from := 0; from < q && !group.Stopped(); {
		valid := min(4, (length-from+q-1)/q)
		to := q
		if edge := length - (valid-1)*q; edge < q && edge > from {
			to = edge
		}
		to = min(to, from+stopRows/4)
		f(valid, from, to-from)
		from = to
	}
}

// multiply sets rows of y, stride yStride, to the convolution of rows of u with
// the kernel of spectrum, for length rows of Lanes columns, n/2 <= length <= n.
// work has n rows; y may be u. If group is stopped, y is not complete.
//
// Columns are channels; with phases, the Lanes columns of a row are successive
// elements of one channel, and spectrum is made for that (spectrum.go).
func (p *plan) multiply(group *parallel.Group, y []float32, yStride int, u []float32, uStride, length int, spectrum, work []float32, phases bool) {
	p.first(group, u, uStride, length, work)
	size := len(spectrum) / p.n
	q := p.n / 4
	for k := range 4 {
		p.inner(group, work[k*q*p.row():(k+1)*q*p.row()], spectrum[k*q*size:(k+1)*q*size], 0, phases)
	}
	p.quarters(group, length, func(valid, from, count int) {
		p.Last(valid, work[from*p.row():], q, count, y[from*yStride:], yStride, p.outer[8*from:])
	})
}

func (p *plan) first(group *parallel.Group, u []float32, uStride, length int, work []float32) {
	p.quarters(group, length, func(valid, from, count int) {
		p.First(valid, work[from*p.row():], p.n/4, count, u[from*uStride:], uStride, p.outer[8*from:])
	})
}

// inner runs the stages from level on, there and back, on one block; a block
// too large for the cache is done part by part.
func (p *plan) inner(group *parallel.Group, x, spectrum []float32, level int, phases bool) {
	m := len(x) / p.row()
	if level < len(p.radices) && m > p.cacheRows() {
		radix := p.radices[level]
		q := m / radix
		size := len(spectrum) / m
		p.stage(group, false, x, level)
		for k := range radix {
			p.inner(group, x[k*q*p.row():(k+1)*q*p.row()], spectrum[k*q*size:(k+1)*q*size], level+1, phases)
		}
		p.stage(group, true, x, level)
		return
	}
	if group.Stopped() {
		return
	}
	p.forward(x, level)
	if phases {
		p.Forward(4, x, 1, 1, m/4, ones)
		p.Ring(x, spectrum, m)
		p.Inverse(4, x, 1, 1, m/4, ones)
	} else {
		p.Center(x, spectrum, m/4)
	}
	p.inverse(x, level)
}

// stage runs one stage on one block of any size, until group is stopped.
func (p *plan) stage(group *parallel.Group, inverse bool, x []float32, level int) {
	radix := p.radices[level]
	q := len(x) / p.row() / radix
	for from := 0; from < q && !group.Stopped(); from += stopRows / 4 {
		part, count, tw := x[from*p.row():], min(stopRows/4, q-from), p.twiddles[level][2*from*(radix-1):]
		if inverse {
			p.Inverse(radix, part, q, count, 1, tw)
		} else {
			p.Forward(radix, part, q, count, 1, tw)
		}
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

// transform evaluates length real rows of u at the roots, into n rows of work, unless
// group is stopped.
func (p *plan) transform(group *parallel.Group, u []float32, uStride, length int, work []float32) {
	p.first(group, u, uStride, length, work)
	q := p.n / 4
	for k := range 4 {
		p.evaluate(group, work[k*q*p.row():(k+1)*q*p.row()], 0)
	}
	for from := 0; from < p.n && !group.Stopped(); from += stopRows {
		rows := min(stopRows, p.n-from)
		p.Forward(4, work[from*p.row():], 1, 1, rows/4, ones)
	}
}

// evaluate runs the stages from level to before the centre on one block, part by part
// where it is large.
func (p *plan) evaluate(group *parallel.Group, x []float32, level int) {
	m := len(x) / p.row()
	if level == len(p.radices) || m <= p.cacheRows() {
		if !group.Stopped() {
			p.forward(x, level)
		}
		return
	}
	p.stage(group, false, x, level)
	q := m / p.radices[level]
	for k := range p.radices[level] {
		p.evaluate(group, x[k*q*p.row():(k+1)*q*p.row()], level+1)
	}
}

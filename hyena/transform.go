package hyena

import (
	"math"
	"sync"
	"weak"

	"github.com/subquad/subquad/internal/kernel"
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

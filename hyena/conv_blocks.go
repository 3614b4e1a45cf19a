package hyena

import "math"

// cut says how a unit's tokens are transformed: all in one window or, where the kernels are
// much shorter than the sequence, in windows that overlap (overlap-save). Window w has the
// tokens from w*step on, and gives the outputs that see nothing outside of it: all but the
// first before, unless it is the first, and but the last after, unless it is the last.
type cut struct {
	n             int // rows of the plan
	window, step  int // tokens: n of them, or n Lanes with phases
	count         int // windows
	before, after int // tokens that an output sees before it, and after
}

// outputs returns the tokens whose outputs window w gives, of a sequence of that many.
func (c *cut) outputs(w, tokens int) (from, to int) {
	if w > 0 {
		from = w*c.step + c.before
	}
	if w == c.count-1 {
		return from, tokens
	}
	return from, (w+1)*c.step + c.before
}

// cutOf returns how a unit of this many tokens is cut.
func (c *Conv) cutOf(tokens int, phases bool) cut {
	lanes := 1
	if phases {
		lanes = c.b.Lanes()
	}
	k := cut{
		n: fastSize(max((tokens+lanes-1)/lanes, fewRows)), count: 1,
		before: min(c.taps, tokens) - 1, after: max(min(c.cfg.Reverse.Rows, tokens)-1, 0),
	}
	if window := blockSize(tokens, k.before+k.after, phases); window > 0 {
		k.n = fastSize((window + lanes - 1) / lanes)
		k.step = k.n*lanes - k.before - k.after
		k.count = 1 + (tokens-k.n*lanes+k.step-1)/k.step
	}
	k.window = k.n * lanes
	return k
}

// The rule by which sequences are cut, fitted to times of one processor and the same on all,
// so that results do not depend on it: a window of e complex numbers costs, for each, a pass
// over memory for the ends and the products, 2.5 times, and one for each stage between, and
// a pass costs more by blockCache for each doubling of e beyond blockFree.
const (
	blockFree  = 1 << 16 // complex numbers that stay in a cache of a core
	blockCache = 0.6
	blockLeast = 256  // rows of a window at the least
	blockGain  = 0.75 // what windows must cost, of what one transform of all costs
	blockLanes = 16   // complex numbers to a row, for the rule
)

// blockCost returns what a window of that many rows or, with phases, elements costs.
func blockCost(window int, phases bool) float64 {
	e := float64(window)
	rows := e / blockLanes
	if !phases {
		e, rows = e*blockLanes, e
	}
	passes := 2.5 + math.Log2(max(rows/minSize, 1))/2
	return float64(window) * passes * (1 + blockCache*max(0, math.Log2(e/blockFree)))
}

// blockSize returns the tokens of a window, of which overlap do not count, or 0 where all
// tokens are transformed at once: of all powers of 2, and of 3 times these, the one with the
// least cost for all windows.
func blockSize(tokens, overlap int, phases bool) int {
	if tokens > math.MaxInt/8 || overlap > tokens/2 {
		return 0
	}
	least := blockLeast
	if phases {
		least *= blockLanes
	}
	best, bestCost := 0, blockGain*blockCost(tokens, phases)
	for power := least; power < tokens; power *= 2 {
		for _, window := range [2]int{power, power / 2 * 3} {
			if window <= overlap || window >= tokens {
				continue
			}
			step := window - overlap
			count := 1 + (tokens-window+step-1)/step
			if cost := float64(count) * blockCost(window, phases); cost < bestCost {
				best, bestCost = window, cost
			}
		}
	}
	return best
}

package transformer

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/state"
)

// experts is an MLP of many, of which a router chooses some for each token:
//
//	y = shared(x) + sum over the chosen e, in their order, of weight(e) expert e(x)
//
// With a gate the first is sigmoid(gate x) shared(x). Where experts have a width of their own
// after(sum of weight(e) expert e(before(x))) stands in place of the sum. Experts from Count
// on compute nothing: they give back what they read (zero-computation experts of
// LongCat-Flash, 2025, arXiv 2509.01322). The tokens of a call are put together by experts, so
// that the weights of each are read once. A token's result does not depend on the others.
type experts struct {
	cfg           *Experts
	router        *dense.Linear // D -> Count + zero
	correction    []float32     // [Count + zero], added to scores to choose by, or nil
	list          []lm.MLP
	shared        lm.MLP        // or nil
	gate          *dense.Linear // D -> 1, of shared, or nil
	before, after *dense.Linear // D -> wide and back, or nil
	dim, wide     int
}

var _ lm.MLP = (*experts)(nil)

// Hidden implements lm.MLP: for each token the router's scores, what experts and groups are
// chosen by, the chosen experts and their weights, an expert's input, hidden layer and output,
// and with a width of their own what they all read and what they make together.
func (m *experts) Hidden() int {
	inner := 0
	for _, e := range m.list {
		inner = max(inner, e.Hidden())
	}
	if m.shared != nil {
		inner = max(inner, m.shared.Hidden())
	}
	n := 2*m.cfg.choices() + m.cfg.groups + 2*m.cfg.TopK + 2*m.wide + inner
	if m.before != nil {
		n += 2*m.wide + m.dim
	}
	return n
}

// Forward implements lm.MLP.
func (m *experts) Forward(g *parallel.Group, dst, x, hidden blas32.General) {
	n, cfg, memory := x.Rows, m.cfg, hidden.Data[:hidden.Rows*hidden.Cols]
	take := func(cols int) blas32.General {
		part := mat.Of(memory[:n*cols], n, cols)
		memory = memory[n*cols:]
		return part
	}
	scores, by, sums, chosen, weights := take(cfg.choices()), take(cfg.choices()), take(cfg.groups), take(cfg.TopK), take(cfg.TopK)
	inputs, outputs, from, sum := take(m.wide), take(m.wide), x, dst
	var widened blas32.General
	if m.before != nil {
		from, sum, widened = take(m.wide), take(m.wide), take(m.dim)
		m.before.ForwardIn(g, from, x)
		mat.Clear(sum)
	}
	if m.shared != nil {
		m.shared.Forward(g, dst, x, mat.Of(memory, n, m.shared.Hidden()))
		if m.gate != nil {
			gates := mat.Of(memory, n, 1) // the hidden layer's, which is done with
			m.gate.ForwardIn(g, gates, x)
			asm.Sigmoid(gates.Data[:n], gates.Data[:n])
			for t := range n {
				asm.Scale(mat.Row(dst, t), gates.Data[t], mat.Row(dst, t))
			}
		}
	} else {
		mat.Clear(dst)
	}
	m.router.ForwardIn(g, scores, x)
	for t := range n {
		m.route(mat.Row(scores, t), mat.Row(by, t), mat.Row(sums, t), mat.Row(chosen, t), mat.Row(weights, t))
	}
	for e, expert := range m.list {
		count := 0
		for t := range n {
			if at(mat.Row(chosen, t), e) >= 0 {
				copy(mat.Row(inputs, count), mat.Row(from, t))
				count++
			}
		}
		if count == 0 {
			continue
		}
		if g.Stopped() {
			return
		}
		expert.Forward(g, mat.Rows(outputs, 0, count), mat.Rows(inputs, 0, count), mat.Of(memory, count, expert.Hidden()))
		count = 0
		for t := range n {
			if k := at(mat.Row(chosen, t), e); k >= 0 {
				asm.Axpy(mat.Row(sum, t), mat.Row(weights, t)[k], mat.Row(outputs, count))
				count++
			}
		}
	}
	if cfg.zero > 0 {
		m.giveBack(sum, from, chosen, weights)
	}
	if m.after != nil {
		m.after.ForwardIn(g, widened, sum)
		for t := range n {
			asm.Add(mat.Row(dst, t), mat.Row(dst, t), mat.Row(widened, t))
		}
	}
}

// giveBack adds each token times the weights of its experts that compute nothing.
func (m *experts) giveBack(sum, x, chosen, weights blas32.General) {
	for t := range x.Rows {
		var weight float32
		for k, e := range mat.Row(chosen, t) {
			if int(e) >= m.cfg.Count {
				weight += mat.Row(weights, t)[k]
			}
		}
		if weight != 0 {
			asm.Axpy(mat.Row(sum, t), weight, mat.Row(x, t))
		}
	}
}

// at returns where an expert stands among those chosen, -1 if it does not.
func at(chosen []float32, e int) int {
	for k, c := range chosen {
		if int(c) == e {
			return k
		}
	}
	return -1
}

// route chooses experts by scores [Count + zero] and sets their weights. by, as many, and sums
// [groups] are working memory. Of equal scores the first counts as larger.
func (m *experts) route(scores, by, sums, chosen, weights []float32) {
	cfg := m.cfg
	switch cfg.router {
	case softmaxFirst:
		asm.Softmax(scores, scores)
	case sigmoids:
		asm.Sigmoid(scores, scores)
	}
	copy(by, scores)
	if m.correction != nil {
		asm.Add(by, by, m.correction)
	}
	bound(by)
	if len(sums) > 1 {
		m.leaveGroups(by, sums)
	}
	for k := range chosen {
		best := largest(by)
		chosen[k], weights[k] = float32(best), scores[best]
		by[best] = taken
	}
	if cfg.router == softmaxLast {
		asm.Softmax(weights, weights)
	}
	factor := cfg.scale
	if factor == 0 {
		factor = 1
	}
	if cfg.normalise {
		sum := float32(0)
		for _, w := range weights {
			sum += w
		}
		if cfg.router == sigmoids {
			sum += 1e-20
		}
		for k := range weights {
			weights[k] /= sum
		}
	}
	if factor != 1 {
		asm.Scale(weights, factor, weights)
	}
}

// taken marks what has been chosen or is not to be; what else is not above it, -Inf and NaN,
// counts as least.
var (
	taken = float32(math.Inf(-1))
	least = float32(-math.MaxFloat32)
)

// largest returns the first of the largest elements, of those that are not taken.
func largest(x []float32) int {
	best, most := 0, taken
	for i, v := range x {
		if v > most {
			best, most = i, v
		}
	}
	return best
}

// bound has no score look as if it were taken.
func bound(x []float32) {
	for i, v := range x {
		if !(v > least) {
			x[i] = least
		}
	}
}

// leaveGroups takes the experts of all groups out but of those whose two largest scores
// sum to most. sums [groups] is working memory.
func (m *experts) leaveGroups(by, sums []float32) {
	size := len(by) / len(sums)
	for g := range sums {
		first, second := taken, taken
		for _, v := range by[g*size:][:size] {
			switch {
			case v > first:
				first, second = v, first
			case v > second:
				second = v
			}
		}
		sums[g] = first + second
	}
	bound(sums)
	for range m.cfg.groupsUsed {
		sums[largest(sums)] = taken
	}
	for g, sum := range sums {
		if sum != taken {
			for i := range size {
				by[g*size+i] = taken
			}
		}
	}
}

// Bytes implements lm.MLP.
func (m *experts) Bytes() int64 {
	n := int64(m.router.Bytes()) + 4*int64(len(m.correction))
	for _, e := range m.list {
		n += e.Bytes()
	}
	if m.shared != nil {
		n += m.shared.Bytes()
	}
	for _, l := range []*dense.Linear{m.gate, m.before, m.after} {
		if l != nil {
			n += int64(l.Bytes())
		}
	}
	return n
}

// Fingerprints implements lm.MLP.
func (m *experts) Fingerprints() (up, down uint64) {
	f := state.NewFingerprint("experts", int64(m.cfg.TopK), int64(m.cfg.router), int64(m.cfg.groups), int64(m.cfg.groupsUsed),
		state.Bool(m.cfg.normalise), int64(math.Float32bits(m.cfg.scale)))
	f.Add(m.router.Fingerprint())
	f.Floats(m.correction)
	for _, e := range m.list {
		up, down := e.Fingerprints()
		f.Add(up)
		f.Add(down)
	}
	if m.shared != nil {
		up, down := m.shared.Fingerprints()
		f.Add(up)
		f.Add(down)
	}
	for _, l := range []*dense.Linear{m.gate, m.before, m.after} {
		if l != nil {
			f.Add(l.Fingerprint())
		}
	}
	return uint64(f), uint64(len(m.list))
}

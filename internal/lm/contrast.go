package lm

import (
	"math"
	"slices"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

// Contrast sets dst to small + beta (large - small) where the large model's logit is at least
// ln(alpha) below its largest, and to -Inf elsewhere: contrastive decoding (Li et al. 2022,
// arXiv 2210.15097) as FS-GEN writes it (Zhang et al. 2024, arXiv 2406.12295), with alpha 0.1
// and beta 0.5 there. A beta of 1 is the large model alone, one of 0 the small one; the form
// (1+b) large - b small of others is beta = 1+b. alpha is 0 (no limit) to 1. Rows may differ
// in length: the vocabulary is the shorter one, which dst must have.
func Contrast(pkg string, dst, large, small []float32, alpha, beta float64) error {
	if err := sameVocab(pkg, dst, large, small); err != nil {
		return err
	}
	if !(alpha >= 0 && alpha <= 1) || beta-beta != 0 {
		return check.Errorf(subquad.ErrCall, "%s: alpha is %v and beta %v, want 0 to 1 and a finite number", pkg, alpha, beta)
	}
	large = large[:len(dst)]
	largest := float32(math.Inf(-1))
	for _, v := range large {
		largest = max(largest, v)
	}
	least := math.Log(alpha) + float64(largest)
	for i, l := range large {
		switch s := small[i]; {
		case !(float64(l) >= least):
			dst[i] = float32(math.Inf(-1))
		case beta == 0:
			dst[i] = s
		case beta == 1 || l == float32(math.Inf(-1)): // also of a token that either rules out
			dst[i] = l
		case s == float32(math.Inf(-1)):
			dst[i] = float32(math.Copysign(math.Inf(1), beta-1))
		default:
			dst[i] = float32(float64(s) + beta*(float64(l)-float64(s)))
		}
	}
	return nil
}

// Proxy sets dst to large + alpha (tuned - small): what tuning the small model has changed,
// carried over to the large one (Liu et al. 2024, arXiv 2401.08565). Rows may differ in
// length as in Contrast.
func Proxy(pkg string, dst, large, tuned, small []float32, alpha float64) error {
	if err := sameVocab(pkg, dst, large, tuned, small); err != nil {
		return err
	}
	if alpha-alpha != 0 {
		return check.Errorf(subquad.ErrCall, "%s: alpha is %v, want a finite number", pkg, alpha)
	}
	for i := range dst {
		if alpha == 0 || tuned[i] == small[i] { // also of tokens that they rule out
			dst[i] = large[i]
			continue
		}
		dst[i] = float32(float64(large[i]) + alpha*(float64(tuned[i])-float64(small[i])))
	}
	return nil
}

// sameVocab returns an error unless dst is as long as the shortest row.
func sameVocab(pkg string, dst []float32, rows ...[]float32) error {
	n := math.MaxInt
	for _, row := range rows {
		n = min(n, len(row))
	}
	if len(dst) != n || n == 0 {
		return check.Errorf(subquad.ErrShape, "%s: dst has %d elements, want those of the shortest row = %d, and one at least", pkg, len(dst), n)
	}
	return nil
}

// Critical returns softmax(2 right - wrong)[token], from two models' logits before a token:
// small where what was right is unlikely to have led to it (critical tokens of cDPO, Lin et al.
// 2024, arXiv 2411.19943). Rows may differ in length: both are cut to the shorter.
func Critical(pkg string, right, wrong []float32, token int32) (float64, error) {
	n := min(len(right), len(wrong))
	if token < 0 || int(token) >= n {
		return 0, check.Errorf(subquad.ErrShape, "%s: token is %d, want 0 to %d", pkg, token, n-1)
	}
	largest := math.Inf(-1)
	at := func(i int) float64 {
		if math.IsInf(float64(right[i]), -1) { // whatever wrong is
			return math.Inf(-1)
		}
		return 2*float64(right[i]) - float64(wrong[i])
	}
	for i := range n {
		largest = max(largest, at(i))
	}
	sum := 0.0
	for i := range n {
		sum += math.Exp(at(i) - largest)
	}
	return math.Exp(at(int(token))-largest) / sum, nil
}

// Divergence returns KL(softmax test || softmax reference) = sum of p_test ln(p_test /
// p_reference), in nats: how far a model (quantised, tuned, further on in a dialogue) is from
// another on one row of logits. Rows may differ in length: both are cut to the shorter.
func Divergence(pkg string, test, reference []float32) (float64, error) {
	n := min(len(test), len(reference))
	if n == 0 {
		return 0, check.Errorf(subquad.ErrShape, "%s: the rows have %d and %d elements, want 1 or more", pkg, len(test), len(reference))
	}
	p, q := make([]float64, n), make([]float64, n)
	logSoftmax(p, test[:n])
	logSoftmax(q, reference[:n])
	sum := 0.0
	for i, l := range p {
		if w := math.Exp(l); w > 0 {
			sum += w * (l - q[i])
		}
	}
	return max(0, sum), nil
}

// Drift is how the divergence of turns goes on, D[t+1] - D[t] = Constant + Slope D[t], by
// least squares (Dongre et al., "Drift No More", 2025, arXiv 2510.07777; the paper's text was
// not to be had, the fit is re-derived from summaries).
type Drift struct {
	Constant, Slope float64
	// Equilibrium is -Constant/Slope, where divergence comes to rest if Slope is between -2
	// and 0.
	Equilibrium float64
	// Residual is the root of the mean square of what is left.
	Residual float64
}

// FitDrift returns the fit of the divergences of turns, of which there must be three at least,
// not all alike. Errors match ErrShape.
func FitDrift(pkg string, turns []float64) (Drift, error) {
	if len(turns) < 3 {
		return Drift{}, check.Errorf(subquad.ErrShape, "%s: %d turns, want 3 or more", pkg, len(turns))
	}
	before := turns[:len(turns)-1]
	n := float64(len(before))
	var x, y, xx, xy float64
	for i, d := range before {
		x, y = x+d/n, y+(turns[i+1]-d)/n
	}
	for i, d := range before { // from the means, so that large ones take no digits
		xx, xy = xx+(d-x)*(d-x)/n, xy+(d-x)*(turns[i+1]-d-y)/n
	}
	if slices.Min(before) == slices.Max(before) || !(xx > 0) || math.IsInf(xx, 1) || xy-xy != 0 {
		return Drift{}, check.Errorf(subquad.ErrShape, "%s: all turns but the last are alike, or one is no number or too large", pkg)
	}
	var f Drift
	f.Slope = xy / xx
	f.Constant = y - f.Slope*x
	f.Equilibrium = -f.Constant / f.Slope
	for i, d := range before {
		off := turns[i+1] - d - f.Constant - f.Slope*d
		f.Residual += off * off / n
	}
	f.Residual = math.Sqrt(f.Residual)
	return f, nil
}

// Accept is the test of speculative sampling (Leviathan et al. 2023, arXiv 2211.17192): of
// drafts d_i, drawn from q_i = softmax of draft row i, it keeps those up to the first with
// uniform[i] > p_i(d_i) / q_i(d_i), p_i being the softmax of target row i, and adds one token:
// drawn from max(p_i - q_i, 0) at a rejection, or from p of the row after all drafts. So the
// tokens are distributed as the target's own, exactly. Drafts and target have len(drafts) and
// one more rows; q must be what the draft was drawn from, one-hot for a greedy one. uniform
// has one random number from [0, 1) for each draft and one for the token that is added. With
// done, the drafts are the end of a text, and nothing is added where all are kept. It appends
// to dst.
func Accept(pkg string, dst []int32, drafts []int32, draft, target [][]float64, uniform []float64, done bool) ([]int32, error) {
	if len(draft) != len(drafts) || len(target) != len(drafts)+1 || len(uniform) != len(drafts)+1 {
		return dst, check.Errorf(subquad.ErrShape, "%s: %d drafts with %d rows, %d of the target and %d random numbers, want as many rows and one more of each other", pkg, len(drafts), len(draft), len(target), len(uniform))
	}
	for i, d := range drafts {
		q, p := draft[i], target[i]
		if d < 0 || int(d) >= len(q) || len(q) > len(p) {
			return dst, check.Errorf(subquad.ErrShape, "%s: draft %d is %d of %d tokens, of which the target has %d", pkg, i, d, len(q), len(p))
		}
	}
	last := target[len(drafts)]
	if !done && len(last) == 0 {
		return dst, check.Errorf(subquad.ErrShape, "%s: the last row of the target has no elements, want one at least", pkg)
	}
	for i, d := range drafts {
		q, p := draft[i], target[i]
		if uniform[i]*q[d] <= p[d] {
			dst = append(dst, d)
			continue
		}
		weight := func(v int) float64 {
			if v < len(q) {
				return max(0, p[v]-q[v])
			}
			return p[v]
		}
		if v, ok := draw(len(p), weight, uniform[len(drafts)]); ok {
			return append(dst, v), nil
		}
		last, done = p, false // p is q but for rounding
		break
	}
	if done {
		return dst, nil
	}
	v, _ := draw(len(last), func(v int) float64 { return last[v] }, uniform[len(drafts)])
	return append(dst, v), nil
}

// draw returns the first of n whose running sum exceeds a share of all, and whether there is
// one that weighs anything.
func draw(n int, weight func(v int) float64, share float64) (drawn int32, ok bool) {
	sum := 0.0
	for v := range n {
		sum += weight(v)
	}
	at, last := 0.0, 0
	for v := range n {
		if w := weight(v); w > 0 {
			if at, last = at+w, v; at > share*sum {
				break
			}
		}
	}
	return int32(last), sum > 0
}

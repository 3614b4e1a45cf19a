package approx

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// featured is attention whose weights are products of features, phi(q).phi(k): Linear and
// those that differ from it in phi alone. It sums phi(k) v^T and phi(k) up, over all keys or
// as a recurrence.
type featured struct {
	sums    sums
	phi     featureMap
	pairs   pairMap // phi, where it is one, nil where not
	causal  bool
	eps     float32 // of the denominator
	made    int     // multiply-adds that a feature takes, about
	each    bool    // eps is added to each element of z, not to its product with phi(q)
	scratch scratch.List[causalRun]

	kind        string            // the operator's name
	unlike      string            // what sets states of the same shape apart
	still       string            // why there is no state; "" where there is one
	numbers     []int64           // what a stored state tells of its operator
	fingerprint state.Fingerprint // of the states: of numbers
}

// shaped fills in what follows from the shape and from how many features a key has.
func (l *featured) shaped(sh shape, width, workers int) error {
	if int64(sh.heads)*int64(width) > math.MaxInt32/64/int64(max(sh.dim, sh.valueDim)) {
		return check.Errorf(ErrConfig, "approx: %d heads of %d features x %d are too many", sh.heads, width, max(sh.dim, sh.valueDim))
	}
	l.sums = sums{shape: sh, form: l, width: width, part: width * (sh.valueDim + 1), matrices: 1, vector: width, self: l.causal, workers: workers}
	return nil
}

// divisor returns what a query with features q is multiplied by in the end, given phi(q).z.
func (l *featured) divisor(q []float32, sum float32) float32 {
	if l.each {
		sum += l.eps * asm.Sum(q)
	} else {
		sum += l.eps
	}
	switch {
	case sum == 0: // there is no key, nor an eps
		return 0
	case sum > math.MaxFloat32: // what times 0 might look like a result
		return float32(math.NaN())
	}
	return 1 / sum
}

// step is the operators' Step.
func (l *featured) step(dst, q, k, v blas32.General, st *LinearState) error {
	if err := l.checkStep(); err != nil {
		return err
	}
	if err := l.checkState("State", st); err != nil {
		return err
	}
	return l.recur(context.Background(), request{Dst: dst, Q: q, K: k, V: v, State: st})
}

// stepBatch is the operators' StepBatch.
func (l *featured) stepBatch(dst, q, k, v blas32.General, states []*LinearState) error {
	if err := l.checkStep(); err != nil {
		return err
	}
	if states == nil {
		states = []*LinearState{}
	}
	return l.recur(context.Background(), request{Dst: dst, Q: q, K: k, V: v, batch: states})
}

// checkStep reports an operator that has no states.
func (l *featured) checkStep() error {
	if l.still != "" {
		return check.Errorf(ErrCall, "approx: a step of %s", l.still)
	}
	return nil
}

// attend is the operators' Run.
func (l *featured) attend(ctx context.Context, call *attention.Call) error {
	can := uses
	if l.still == "" {
		can |= attention.UsesState
	}
	var q request
	if err := q.take(ctx, call, can); err != nil {
		return err
	}
	return l.sum(ctx, q)
}

// sum runs a call, as a recurrence or by sums over all keys.
func (l *featured) sum(ctx context.Context, q request) error {
	if l.causal {
		return l.recur(ctx, q)
	}
	return l.sums.sumUp(ctx, q)
}

// bytes are the operators' ScratchBytes.
func (l *featured) bytes(keys int) int64 {
	if l.causal {
		return l.causalBytes() + l.sums.topsBytes(keys)
	}
	return l.sums.sumBytes(keys)
}

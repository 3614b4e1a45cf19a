package approx

import (
	"context"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// Options are what these operators have of a call besides the fields of attention.Call,
// whose Options takes a pointer to them.
type Options struct {
	// Valid tells for each key whether it is there, padding is not; nil for all. What
	// stands in the rows of padding does not matter to the others, be it NaN.
	Valid []bool
}

// uses are the options that every operator honours.
const uses = attention.UsesOffsets | attention.UsesKOffsets | attention.UsesLogWeights

// request is an attention.Call whose keys and values are one matrix each, with the fields
// and shapes of that.
type request struct {
	Dst, Q, K, V      blas32.General
	Offsets, KOffsets []int
	LogWeights        blas32.General // [keys, 1] or [keys, KVHeads]
	Valid             []bool         // [keys], Options.Valid
	Workers           int            // of the call, 0 for the Config's
	State             *LinearState
	States            []attention.Past // of which each must be a *LinearState
	batch             []*LinearState   // those of StepBatch, in place of States
}

// take copies a call, and returns an error where it has other options than those that the
// operator can honour.
func (q *request) take(ctx context.Context, call *attention.Call, can attention.Uses) error {
	if err := check.Call("approx", ctx, call != nil); err != nil {
		return err
	}
	if err := call.Honor("approx", can); err != nil {
		return err
	}
	if err := call.One("approx"); err != nil {
		return err
	}
	*q = request{Dst: call.Dst, Q: call.Q, K: call.K[0], V: call.V[0], Offsets: call.Offsets, KOffsets: call.KOffsets, LogWeights: call.LogWeights, Workers: call.Workers, States: call.States}
	if call.Options != nil {
		o, _ := call.Options.(*Options)
		if o == nil {
			return check.Errorf(ErrCall, "approx: Options is a %T, want an *approx.Options", call.Options)
		}
		q.Valid = o.Valid
	}
	if call.State != nil {
		if q.State, _ = call.State.(*LinearState); q.State == nil {
			return check.NoState[*LinearState]("approx", "State", call.State)
		}
	}
	return nil
}

// check reports matrices that are not those of the shape.
func (q *request) check(sh *shape) error {
	if err := check.QKV("approx", q.Q, q.K, q.V, -1, sh.heads, sh.kvHeads, sh.dim, sh.valueDim); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "approx", "dst", q.Dst, q.Q.Rows, sh.heads*sh.valueDim, "Heads*ValueDim"); err != nil {
		return err
	}
	if q.weighted() {
		cols := q.LogWeights.Cols
		if cols != 1 {
			cols = sh.kvHeads
		}
		if err := check.Matrix(ErrShape, "approx", "LogWeights", q.LogWeights, q.K.Rows, cols, "1 or KVHeads"); err != nil {
			return err
		}
	}
	if q.Valid != nil && len(q.Valid) != q.K.Rows {
		return check.Errorf(ErrShape, "approx: Valid has %d elements, want one for each key = %d", len(q.Valid), q.K.Rows)
	}
	for _, in := range [...]blas32.General{q.Q, q.K, q.V, q.LogWeights} {
		if mat.Overlap(q.Dst, in) {
			return check.Errorf(ErrShape, "approx: dst shares elements with an input")
		}
	}
	return nil
}

// weighted tells whether a call has log-weights.
func (q *request) weighted() bool { return mat.Given(q.LogWeights) }

// seen tells whether a key is there and not hidden for all heads.
func (q *request) seen(j int) bool {
	if q.Valid != nil && !q.Valid[j] {
		return false
	}
	return !(q.weighted() && q.LogWeights.Cols == 1 && q.logWeight(j, 0) == negInf)
}

// seenBy tells whether a key is there and not hidden for a key head.
func (q *request) seenBy(j, head int) bool {
	return (q.Valid == nil || q.Valid[j]) && !(q.weighted() && q.logWeight(j, head) == negInf)
}

// veils tells whether keys may be hidden from some heads alone.
func (q *request) veils() bool { return q.weighted() && q.LogWeights.Cols > 1 }

// hides tells whether a call has keys that are not there or are hidden.
func (q *request) hides() bool {
	if q.Valid != nil {
		return true
	}
	for j := 0; q.weighted() && j < q.LogWeights.Rows; j++ {
		if slices.Contains(mat.Row(q.LogWeights, j), negInf) {
			return true
		}
	}
	return false
}

// logWeight is the log-weight of key j for a key head.
func (q *request) logWeight(j, head int) float32 {
	return q.LogWeights.Data[j*q.LogWeights.Stride+min(head, q.LogWeights.Cols-1)]
}

// shown returns a copy of m, in memory, with zeros for the rows that are not seen.
func shown(memory *[]float32, m blas32.General, seen func(i int) bool) blas32.General {
	*memory = scratch.Floats(*memory, m.Rows*m.Cols)
	own := mat.Of(*memory, m.Rows, m.Cols)
	for i := range m.Rows {
		if seen(i) {
			copy(mat.Row(own, i), mat.Row(m, i))
		} else {
			clear(mat.Row(own, i)) // it may be NaN
		}
	}
	return own
}

// sequences are those of a call: the first query and the first key of each, and at last
// how many there are.
type sequences struct {
	q, k []int
	one  [2][2]int // of a single sequence
}

func (s *sequences) count() int { return len(s.q) - 1 }

// lay lays the sequences of a call out. With self, queries and keys are the same tokens.
func (s *sequences) lay(q *request, self bool) error {
	s.one = [2][2]int{{0, q.Q.Rows}, {0, q.K.Rows}}
	s.q, s.k = q.Offsets, q.KOffsets
	switch {
	case s.q == nil && s.k != nil:
		return check.Errorf(ErrCall, "approx: KOffsets without Offsets")
	case s.q == nil:
		s.q, s.k = s.one[0][:], s.one[1][:]
	case s.k == nil:
		s.k = s.q
	}
	if err := check.Offsets("approx", "Offsets", s.q, q.Q.Rows, -1); err != nil {
		return err
	}
	if err := check.Offsets("approx", "KOffsets", s.k, q.K.Rows, len(s.q)-1); err != nil {
		return err
	}
	for b := 0; self && b < len(s.q); b++ {
		if s.q[b] != s.k[b] {
			return check.Errorf(ErrShape, "approx: %d queries and %d keys up to sequence %d, want as many: they are the same tokens", s.q[b], s.k[b], b)
		}
	}
	return nil
}

// find returns the sequence whose rows, by their offsets, have a row.
func find(offsets []int, row int) int {
	lo, hi := 0, len(offsets)-1
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; offsets[mid] <= row {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

package approx

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// Call is a call of an operator with everything optional. Only Dst, Q, K and V
// are needed.
type Call struct {
	// Dst is [queries, Heads*ValueDim], Q [queries, Heads*HeadDim], K [keys,
	// KVHeads*HeadDim] and V [keys, KVHeads*ValueDim]. Inputs may overlap each
	// other, Dst none of them.
	Dst, Q, K, V blas32.General

	// QOffsets and KOffsets pack several sequences: sequence b has rows
	// QOffsets[b] to QOffsets[b+1] of Q and KOffsets[b] to KOffsets[b+1] of the
	// keys. Both begin with 0 and end with the number of rows; sequences may be
	// empty. A nil KOffsets is QOffsets; with nil QOffsets all is one sequence.
	// Where queries and keys must be the same tokens, the two are equal.
	QOffsets, KOffsets []int

	// LogWeights are [keys, 1] or [keys, KVHeads]. With log n a key counts as n
	// equal ones: a merged, pooled or clustered token. -Inf hides a key.
	LogWeights blas32.General
	// Valid tells for each key whether it is there, padding is not; nil for all. What
	// stands in the rows of padding does not matter to the others, be it NaN.
	Valid []bool

	// State, if not nil, holds the tokens before these, and takes these up: of a
	// causal Linear, and of one sequence.
	State *LinearState
}

// sequences are those of a call.
type sequences struct {
	q, k []int // offsets
	one  [2][2]int
}

func (s *sequences) count() int { return len(s.q) - 1 }

// set checks a call. With self, queries and keys are the same tokens.
func (s *sequences) set(c *Call, sh *shape, self bool) error {
	for _, m := range [...]struct {
		name string
		m    blas32.General
		rows int
		cols int
		what string
	}{
		{"q", c.Q, -1, sh.heads * sh.dim, "Heads*HeadDim"},
		{"k", c.K, -1, sh.kvHeads * sh.dim, "KVHeads*HeadDim"},
		{"v", c.V, c.K.Rows, sh.kvHeads * sh.valueDim, "KVHeads*ValueDim"},
		{"dst", c.Dst, c.Q.Rows, sh.heads * sh.valueDim, "Heads*ValueDim"},
	} {
		if err := check.Matrix(ErrShape, "approx", m.name, m.m, m.rows, m.cols, m.what); err != nil {
			return err
		}
	}
	if err := s.pack(c, self); err != nil {
		return err
	}
	if weighted(c) {
		cols := c.LogWeights.Cols
		if cols != 1 {
			cols = sh.kvHeads
		}
		if err := check.Matrix(ErrShape, "approx", "LogWeights", c.LogWeights, c.K.Rows, cols, "1 or KVHeads"); err != nil {
			return err
		}
	}
	if c.Valid != nil && len(c.Valid) != c.K.Rows {
		return check.Errorf(ErrShape, "approx: Valid has %d elements, want one for each key = %d", len(c.Valid), c.K.Rows)
	}
	for _, in := range [...]blas32.General{c.Q, c.K, c.V, c.LogWeights} {
		if mat.Overlap(c.Dst, in) {
			return check.Errorf(ErrShape, "approx: dst shares elements with an input")
		}
	}
	return nil
}

func (s *sequences) pack(c *Call, self bool) error {
	s.one = [2][2]int{{0, c.Q.Rows}, {0, c.K.Rows}}
	s.q, s.k = c.QOffsets, c.KOffsets
	switch {
	case s.q == nil && s.k != nil:
		return check.Errorf(ErrCall, "approx: KOffsets without QOffsets")
	case s.q == nil:
		s.q, s.k = s.one[0][:], s.one[1][:]
	case s.k == nil:
		s.k = s.q
	}
	if err := checkOffsets("QOffsets", s.q, c.Q.Rows, len(s.q)-1); err != nil {
		return err
	}
	if err := checkOffsets("KOffsets", s.k, c.K.Rows, len(s.q)-1); err != nil {
		return err
	}
	for b := 0; self && b < len(s.q); b++ {
		if s.q[b] != s.k[b] {
			return check.Errorf(ErrShape, "approx: %d queries and %d keys up to sequence %d, want as many: they are the same tokens", s.q[b], s.k[b], b)
		}
	}
	return nil
}

// checkOffsets wants offsets from 0 to rows that do not run backwards.
func checkOffsets(name string, offsets []int, rows, sequences int) error {
	switch {
	case len(offsets) != sequences+1 || sequences < 0:
		return check.Errorf(ErrCall, "approx: %s has %d elements, want one more than sequences = %d", name, len(offsets), max(sequences, 0))
	case offsets[0] != 0:
		return check.Errorf(ErrCall, "approx: %s begins with %d, want 0", name, offsets[0])
	}
	for i := 1; i < len(offsets); i++ {
		if offsets[i] < offsets[i-1] {
			return check.Errorf(ErrCall, "approx: %s runs backwards, from %d to %d at %d", name, offsets[i-1], offsets[i], i)
		}
	}
	if last := offsets[len(offsets)-1]; last != rows {
		return check.Errorf(ErrCall, "approx: %s ends with %d, want the number of rows = %d", name, last, rows)
	}
	return nil
}

// weighted tells whether a call has log-weights.
func weighted(c *Call) bool { return c.LogWeights.Rows != 0 || c.LogWeights.Data != nil }

// seen tells whether a key is there and not hidden for all heads.
func (c *Call) seen(j int) bool {
	if c.Valid != nil && !c.Valid[j] {
		return false
	}
	return !(weighted(c) && c.LogWeights.Cols == 1 && c.logWeight(j, 0) == negInf)
}

// logWeight is the log-weight of key j for a key head.
func (c *Call) logWeight(j, head int) float32 {
	return c.LogWeights.Data[j*c.LogWeights.Stride+min(head, c.LogWeights.Cols-1)]
}

var negInf = float32(math.Inf(-1))

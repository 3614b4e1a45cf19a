package attention

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// MatrixBias is a bias held in memory: one matrix [queries, keys] for all heads,
// or one for each. Columns are key positions from 0; the last row is the query
// at the last key. A call to a part of the keys takes the matrix of the whole.
type MatrixBias []blas32.General

// AddTo implements Bias.
func (b MatrixBias) AddTo(s blas32.General, head int, query, key int64) {
	m := b[min(head, len(b)-1)]
	for i := range s.Rows {
		from := m.Data[(int(query)+i-m.Cols+m.Rows)*m.Stride+int(key):]
		row := mat.Row(s, i)
		for j, x := range from[:s.Cols] {
			row[j] += x
		}
	}
}

// Most implements Bias; it knows nothing.
func (b MatrixBias) Most(int, int64, int64, int, int) float32 { return float32(math.Inf(1)) }

func (b MatrixBias) fits(r *forwardRun) error {
	if len(b) != 1 && len(b) != r.op.cfg.Heads {
		return check.Errorf(ErrShape, "attention: MatrixBias has %d matrices, want 1 or Heads = %d", len(b), r.op.cfg.Heads)
	}
	for _, m := range b {
		if err := check.Matrix(ErrShape, "attention", "MatrixBias", m, -1, m.Cols, "its own"); err != nil {
			return err
		}
		if err := r.within("MatrixBias", m.Rows, m.Cols); err != nil {
			return err
		}
	}
	return nil
}

// MatrixMask is a mask held in memory, the same for all heads: Seen[i*Keys+j]
// tells whether query i sees key j. Rows and columns are placed like those of a
// MatrixBias.
type MatrixMask struct {
	Queries, Keys int
	Seen          []bool
}

// Hide implements Mask.
func (m MatrixMask) Hide(s blas32.General, _ int, query, key int64) {
	for i := range s.Rows {
		row := mat.Row(s, i)
		for j, seen := range m.row(query+int64(i), key, s.Cols) {
			if !seen {
				row[j] = float32(math.Inf(-1))
			}
		}
	}
}

func (m MatrixMask) row(query, key int64, keys int) []bool {
	return m.Seen[(int(query)-m.Keys+m.Queries)*m.Keys+int(key):][:keys]
}

// Sight implements Mask.
func (m MatrixMask) Sight(_ int, query, key int64, queries, keys int) Sight {
	any, all := false, true
	for i := range queries {
		for _, seen := range m.row(query+int64(i), key, keys) {
			any, all = any || seen, all && seen
			if any && !all {
				return Some
			}
		}
	}
	if all {
		return All
	}
	return None
}

func (m MatrixMask) fits(r *forwardRun) error {
	if m.Queries < 0 || m.Keys < 0 || m.Keys > 0 && (len(m.Seen)/m.Keys != m.Queries || len(m.Seen)%m.Keys != 0) {
		return check.Errorf(ErrShape, "attention: MatrixMask has %d elements, want Queries*Keys = %d * %d", len(m.Seen), m.Queries, m.Keys)
	}
	return r.within("MatrixMask", m.Queries, m.Keys)
}

// within checks that the call's queries and keys lie inside a matrix.
func (r *forwardRun) within(name string, rows, cols int) error {
	if len(r.qOffsets) != 2 {
		return check.Errorf(ErrCall, "attention: %s with %d sequences, want 1", name, len(r.qOffsets)-1)
	}
	query, key := r.positions(0)
	first := int64(cols) - int64(rows)
	queries, keys := int64(r.qOffsets[1]), int64(r.src[0].rows)
	if query < first || query+queries > int64(cols) || key < 0 || key+keys > int64(cols) {
		return check.Errorf(ErrShape, "attention: %s is %d x %d, want it to cover queries at positions %d to %d and keys at %d to %d",
			name, rows, cols, query, query+queries, key, key+keys)
	}
	return nil
}

package dense

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
)

// MLP is y = down(gelu(up(x))), the GELU in its tanh form.
type MLP struct{ Up, Down *Linear }

// Forward sets dst [n, D] from x [n, D]; hidden [n, I] is working memory.
func (m *MLP) Forward(dst, x, hidden blas32.General) {
	m.Up.Forward(hidden, x)
	for t := range hidden.Rows {
		row := mat.Row(hidden, t)
		asm.GELUTanh(row, row)
	}
	m.Down.Forward(dst, hidden)
}

// Hidden returns I, the columns of Forward's working memory.
func (m *MLP) Hidden() int { _, inner := m.Up.Dims(); return inner }

// Bytes returns the memory of the weights.
func (m *MLP) Bytes() int64 { return int64(m.Up.Bytes()) + int64(m.Down.Bytes()) }

// Fingerprints returns those of the layers.
func (m *MLP) Fingerprints() (up, down uint64) { return m.Up.Fingerprint(), m.Down.Fingerprint() }

// Gated is the MLP with a gate,
//
//	u, g = up(x);  y = down(u silu(g)),
//
// whose first layer gives u [n, I] and, to the right of it, g [n, I].
type Gated struct{ Up, Down *Linear }

// Forward sets dst [n, D] from x [n, D]; hidden [n, 2 I] is working memory.
func (m *Gated) Forward(dst, x, hidden blas32.General) {
	m.Up.Forward(hidden, x)
	inner := hidden.Cols / 2
	for t := range hidden.Rows {
		u, gate := mat.Part(hidden, t, 0, inner), mat.Part(hidden, t, inner, inner)
		asm.SiLU(gate, gate)
		asm.Mul(u, u, gate)
	}
	m.Down.Forward(dst, mat.Columns(hidden, 0, inner))
}

// Hidden returns 2 I, the columns of Forward's working memory.
func (m *Gated) Hidden() int { _, wide := m.Up.Dims(); return wide }

// Bytes returns the memory of the weights.
func (m *Gated) Bytes() int64 { return int64(m.Up.Bytes()) + int64(m.Down.Bytes()) }

// Fingerprints returns those of the layers.
func (m *Gated) Fingerprints() (up, down uint64) { return m.Up.Fingerprint(), m.Down.Fingerprint() }

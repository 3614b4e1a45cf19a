package dense

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
)

// MLP is y = down(gelu(up(x))), the GELU in its tanh form, or with Squared
// y = down(max(up(x), 0)^2).
type MLP struct {
	Up, Down *Linear
	Squared  bool
}

// Forward sets dst [n, D] from x [n, D], as part of a task of group g or with nil;
// hidden [n, I] is working memory.
func (m *MLP) Forward(g *parallel.Group, dst, x, hidden blas32.General) {
	m.Up.ForwardIn(g, hidden, x)
	for t := range hidden.Rows {
		row := mat.Row(hidden, t)
		if !m.Squared {
			asm.GELUTanh(row, row)
			continue
		}
		for i, v := range row {
			v = max(v, 0)
			row[i] = v * v
		}
	}
	m.Down.ForwardIn(g, dst, hidden)
}

// Hidden returns I, the columns of Forward's working memory.
func (m *MLP) Hidden() int { _, inner := m.Up.Dims(); return inner }

// Bytes returns the memory of the weights.
func (m *MLP) Bytes() int64 { return int64(m.Up.Bytes()) + int64(m.Down.Bytes()) }

// Fingerprints returns those of the layers.
func (m *MLP) Fingerprints() (up, down uint64) { return m.Up.Fingerprint(), m.Down.Fingerprint() }

// Activation is what a gate goes through.
type Activation uint8

const (
	SiLU     Activation = iota // g sigmoid(g)
	GELUTanh                   // GELU in its tanh form
	GELU                       // GELU with the error function
	// ClampedSiLU is gpt-oss's: with g = min(g, Limit) and u kept between -Limit and
	// Limit, (u + 1) g sigmoid(1.702 g).
	ClampedSiLU
)

// Gated is the MLP with a gate,
//
//	u, g = up(x);  y = down(u act(g)),
//
// whose first layer gives u [n, I] and, to the right of it, g [n, I].
type Gated struct {
	Up, Down   *Linear
	Activation Activation
	Limit      float32 // of ClampedSiLU
}

// Forward sets dst [n, D] from x [n, D], as part of a task of group g or with nil;
// hidden [n, 2 I] is working memory.
func (m *Gated) Forward(g *parallel.Group, dst, x, hidden blas32.General) {
	m.Up.ForwardIn(g, hidden, x)
	inner := hidden.Cols / 2
	for t := range hidden.Rows {
		m.gate(mat.Part(hidden, t, 0, inner), mat.Part(hidden, t, inner, inner))
	}
	m.Down.ForwardIn(g, dst, mat.Columns(hidden, 0, inner))
}

// gate sets u to u act(gate); gate is overwritten.
func (m *Gated) gate(u, gate []float32) {
	switch m.Activation {
	case SiLU:
		asm.SiLU(gate, gate)
	case GELUTanh:
		asm.GELUTanh(gate, gate)
	case GELU:
		asm.GELU(gate, gate)
	case ClampedSiLU:
		const sharpness = 1.702
		for i, g := range gate {
			gate[i] = sharpness * min(g, m.Limit)
			u[i] = (max(-m.Limit, min(u[i], m.Limit)) + 1) / sharpness
		}
		asm.SiLU(gate, gate)
	}
	asm.Mul(u, u, gate)
}

// Hidden returns 2 I, the columns of Forward's working memory.
func (m *Gated) Hidden() int { _, wide := m.Up.Dims(); return wide }

// Bytes returns the memory of the weights.
func (m *Gated) Bytes() int64 { return int64(m.Up.Bytes()) + int64(m.Down.Bytes()) }

// Fingerprints returns those of the layers.
func (m *Gated) Fingerprints() (up, down uint64) { return m.Up.Fingerprint(), m.Down.Fingerprint() }

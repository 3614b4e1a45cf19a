package mla

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
)

// Weights are those of MLA, [out, in] under their published names.
type Weights struct {
	// QA is [QRank, Dim] and QB [Heads*(NopeDim+RopeDim), QRank]; without a QRank
	// there is no QA, and QB is [.., Dim].
	QA, QB blas32.General
	// KVA is [KVRank+RopeDim, Dim] (kv_a_proj_with_mqa), KVB [Heads*(NopeDim+
	// ValueDim), KVRank], a head's keys before its values; Out is [Dim,
	// Heads*ValueDim].
	KVA, KVB, Out blas32.General
	// QANorm [QRank] and KVANorm [KVRank] are those of the norms.
	QANorm, KVANorm []float32
}

// layer is a weight with the shape that it should have.
type layer struct {
	name    string
	m       blas32.General
	out, in int
	to      **dense.Linear
}

// layers lists the matrices of an operator; without a QRank there is no QA.
func (w *Weights) layers(c *Config, m *MLA) []layer {
	in, qCols := c.QRank, c.Heads*(c.NopeDim+c.RopeDim)
	var list []layer
	if c.QRank == 0 {
		in = c.Dim
	} else {
		list = append(list, layer{"QA", w.QA, c.QRank, c.Dim, &m.qa})
	}
	return append(list,
		layer{"QB", w.QB, qCols, in, &m.qb},
		layer{"KVA", w.KVA, c.KVRank + c.RopeDim, c.Dim, &m.kva},
		layer{"KVB", w.KVB, c.Heads * (c.NopeDim + c.ValueDim), c.KVRank, &m.kvb},
		layer{"Out", w.Out, c.Dim, c.Heads * c.ValueDim, &m.o})
}

// check checks the shapes of the weights.
func (w *Weights) check(c *Config) error {
	for _, l := range w.layers(c, new(MLA)) {
		if err := check.Matrix(attention.ErrShape, "mla", l.name, l.m, l.out, l.in, "its input"); err != nil {
			return err
		}
	}
	if c.QRank > 0 {
		if err := check.Vector(attention.ErrShape, "mla", "QANorm", w.QANorm, c.QRank, "its rank"); err != nil {
			return err
		}
	}
	return check.Vector(attention.ErrShape, "mla", "KVANorm", w.KVANorm, c.KVRank, "its rank")
}

// pack packs weights that have been checked, LongCat's scales with the norms.
func (m *MLA) pack(w *Weights) {
	c := &m.cfg
	for _, l := range w.layers(c, m) {
		*l.to = dense.NewLinear(c.Format, l.m, nil)
	}
	if c.QRank > 0 {
		m.qNorm = c.scaled(w.QANorm)
	}
	m.kvNorm = c.scaled(w.KVANorm)
	for h := range c.Heads {
		rows := h * (c.NopeDim + c.ValueDim)
		m.keys = append(m.keys, asm.NewMatrix(c.Format, mat.Rows(w.KVB, rows, rows+c.NopeDim)))
		m.values = append(m.values, asm.NewMatrixT(c.Format, mat.Rows(w.KVB, rows+c.NopeDim, rows+c.NopeDim+c.ValueDim)))
	}
}

// scaled returns a norm's weights, times LongCat's factor of its rank.
func (c *Config) scaled(norm []float32) []float32 {
	factor := float32(1)
	if c.LongCat {
		factor = float32(math.Sqrt(float64(c.Dim) / float64(len(norm))))
	}
	to := make([]float32, len(norm))
	asm.Scale(to, factor, norm)
	return to
}

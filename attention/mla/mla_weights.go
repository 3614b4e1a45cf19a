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

// Weights are the weights of MLA, [out, in] under their published names.
type Weights struct {
	// QA is [QRank, Hidden] and QB [Heads*(NopeDim+RopeDim), QRank]; without a QRank
	// there is no QA, and QB is [.., Hidden].
	QA, QB blas32.General
	// KVA is [KVRank+RopeDim, Hidden] (kv_a_proj_with_mqa), KVB [Heads*(NopeDim+
	// ValueDim), KVRank], a head's keys before its values; O is [Hidden,
	// Heads*ValueDim].
	KVA, KVB, O blas32.General
	// QANorm [QRank] and KVANorm [KVRank] are those of the norms.
	QANorm, KVANorm []float32
}

// pack checks and packs the weights, LongCat's scales with the norms.
func (m *MLA) pack(w Weights) error {
	c := &m.cfg
	in, qCols := c.QRank, c.Heads*(c.NopeDim+c.RopeDim)
	if c.QRank == 0 {
		in = c.Hidden
	}
	layers := []struct {
		name     string
		m        blas32.General
		out, in  int
		to       **dense.Linear
		optional bool
	}{
		{"QA", w.QA, c.QRank, c.Hidden, &m.qa, c.QRank == 0},
		{"QB", w.QB, qCols, in, &m.qb, false},
		{"KVA", w.KVA, c.KVRank + c.RopeDim, c.Hidden, &m.kva, false},
		{"KVB", w.KVB, c.Heads * (c.NopeDim + c.ValueDim), c.KVRank, &m.kvb, false},
		{"O", w.O, c.Hidden, c.Heads * c.ValueDim, &m.o, false},
	}
	for _, l := range layers {
		if l.optional && l.m.Rows == 0 {
			continue
		}
		if err := check.Matrix(attention.ErrShape, "mla", l.name, l.m, l.out, l.in, "its input"); err != nil {
			return err
		}
	}
	scaled := func(name string, norm []float32, rank int, to *[]float32) error {
		if err := check.Vector(attention.ErrShape, "mla", name, norm, rank, "its rank"); err != nil {
			return err
		}
		factor := float32(1)
		if c.LongCat {
			factor = float32(math.Sqrt(float64(c.Hidden) / float64(rank)))
		}
		*to = make([]float32, rank)
		asm.Scale(*to, factor, norm)
		return nil
	}
	if c.QRank > 0 {
		if err := scaled("QANorm", w.QANorm, c.QRank, &m.qNorm); err != nil {
			return err
		}
	}
	if err := scaled("KVANorm", w.KVANorm, c.KVRank, &m.kvNorm); err != nil {
		return err
	}
	for _, l := range layers {
		if l.m.Rows > 0 {
			*l.to = dense.NewLinear(c.Format, l.m, nil)
		}
	}
	for h := range c.Heads {
		rows := h * (c.NopeDim + c.ValueDim)
		m.keys = append(m.keys, asm.NewMatrix(c.Format, mat.Rows(w.KVB, rows, rows+c.NopeDim)))
		m.values = append(m.values, asm.NewMatrixT(c.Format, mat.Rows(w.KVB, rows+c.NopeDim, rows+c.NopeDim+c.ValueDim)))
	}
	return nil
}

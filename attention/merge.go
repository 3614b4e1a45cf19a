package attention

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/tile"
)

// Partial is the result of attention to a part of the keys: Out is [queries,
// Heads*ValueDim], LSE, the logarithm of the softmax's denominator, [queries,
// Heads]. Run makes one when Call.Partial and Call.LSE are set.
type Partial struct{ Out, LSE blas32.General }

// Merge sets dst to attention over all keys from the results over the parts of
// any partition of them, in any order, exactly:
//
//	lse = log(sum over parts p of exp(lse[p]))
//	out = sum over parts p of exp(lse[p] - lse) out[p].
//
// Sinks, one logit for each head or nil, are counted here, once, and not in the
// parts. A part whose LSE is -Inf, which saw no key, contributes nothing; where
// all are, out is 0. dst may be one of the parts; its LSE may be left zero.
// Errors match ErrShape.
//
// It costs 2 flop for each element of each part, and reads each once.
func Merge(dst Partial, sinks []float32, parts ...Partial) error {
	heads, rows := 0, dst.Out.Rows
	if len(parts) > 0 {
		heads = parts[0].LSE.Cols
	} else {
		heads = dst.LSE.Cols
	}
	cols := dst.Out.Cols
	if heads <= 0 || cols%heads != 0 {
		return check.Errorf(ErrShape, "attention: LSE has %d columns for %d of Out, want one for each head", heads, cols)
	}
	if sinks != nil {
		if err := check.Vector(ErrShape, "attention", "sinks", sinks, heads, "heads"); err != nil {
			return err
		}
	}
	if err := check.Matrix(ErrShape, "attention", "dst.Out", dst.Out, -1, cols, "its own"); err != nil {
		return err
	}
	keep := dst.LSE.Rows > 0 || dst.LSE.Data != nil
	if keep {
		if err := check.Matrix(ErrShape, "attention", "dst.LSE", dst.LSE, rows, heads, "heads"); err != nil {
			return err
		}
		if mat.Overlap(dst.Out, dst.LSE) {
			return check.Errorf(ErrShape, "attention: dst.Out and dst.LSE share elements")
		}
	}
	for i, p := range parts {
		if err := check.Matrix(ErrShape, "attention", "Out of a part", p.Out, rows, cols, "that of dst"); err != nil {
			return ofPart(err, i)
		}
		if err := check.Matrix(ErrShape, "attention", "LSE of a part", p.LSE, rows, heads, "heads"); err != nil {
			return ofPart(err, i)
		}
		if !same(dst.Out, p.Out) || !same(dst.LSE, p.LSE) || mat.Overlap(dst.Out, p.LSE) || mat.Overlap(dst.LSE, p.Out) {
			return check.Errorf(ErrShape, "attention: dst shares elements with part %d without being it", i)
		}
	}
	m := mergers.Get()
	defer mergers.Put(m)
	m.weights = scratch.Floats(m.weights, len(parts)+1)
	m.row = scratch.Floats(m.row, cols/heads)
	for i := range rows {
		for h := range heads {
			lse := m.merge(i, h, sinks, parts)
			copy(mat.Part(dst.Out, i, h*len(m.row), len(m.row)), m.row)
			if keep {
				mat.Row(dst.LSE, i)[h] = lse
			}
		}
	}
	return nil
}

// same tells whether a and b share nothing or are the same matrix.
func same(a, b blas32.General) bool {
	return !mat.Overlap(a, b) || mat.Same(a, b)
}

type merger struct{ weights, row []float32 }

var mergers scratch.List[merger]

// merge leaves one head of one query in m.row.
func (m *merger) merge(i, h int, sinks []float32, parts []Partial) (lse float32) {
	w := m.weights[:len(parts)]
	for p := range parts {
		w[p] = mat.Row(parts[p].LSE, i)[h]
	}
	if sinks != nil {
		w = append(w, sinks[h])
	}
	top, sum := combine(w, nil)
	clear(m.row)
	if sum == 0 {
		return top
	}
	for p := range parts {
		if w[p] != 0 {
			asm.Axpy(m.row, w[p]/sum, mat.Part(parts[p].Out, i, h*len(m.row), len(m.row)))
		}
	}
	return float32(float64(top) + math.Log(float64(sum)))
}

// combine puts softmaxes over parts of the keys together: of each part tops is the
// largest logit, and sums the sum of exp(logit - top), or nil where a top is the
// logarithm of the whole sum. It returns the largest of all and the sum relative to it,
// and makes of tops what a part's weights are to be multiplied by: exp(top - largest).
func combine(tops, sums []float32) (top, sum float32) {
	top = tile.NegInf
	for _, x := range tops {
		top = max(top, x) // keeps NaN
	}
	if math.IsInf(float64(top), -1) {
		clear(tops)
		return top, 0
	}
	for i := range tops {
		tops[i] -= top
	}
	asm.Exp(tops, tops)
	for i, f := range tops {
		if sums != nil {
			f = float32(sums[i] * f)
		}
		sum += f
	}
	return top, sum
}

// ofPart says which part an error is about.
func ofPart(err error, part int) error {
	return check.Errorf(ErrShape, "%v (part %d)", err, part)
}

package cca

import (
	"errors"
	"testing"

	"github.com/subquad/subquad/attention"
	"gonum.org/v1/gonum/blas/blas32"
)

// FuzzCCA takes any shapes: an error, or a result.
func FuzzCCA(f *testing.F) {
	f.Add(2, 1, 4, 4, 3, 7, 2, 1, 20, 80)
	f.Fuzz(func(t *testing.T, heads, kvHeads, dim, valueDim, group, window, levels, span, rows, length int) {
		c, err := New(Config{Heads: heads, KVHeads: kvHeads, HeadDim: dim, ValueDim: valueDim, GroupSize: group, Window: window, Levels: levels, Span: span})
		if err != nil {
			if !errors.Is(err, attention.ErrConfig) {
				t.Fatal(err)
			}
			return
		}
		length = min(max(length, 0), 1<<12)
		m := func(cols int) blas32.General {
			return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, length)}
		}
		err = c.Forward(m(heads*c.cfg.ValueDim), m(heads*dim), m(c.cfg.KVHeads*dim), m(c.cfg.KVHeads*c.cfg.ValueDim))
		if err != nil && !errors.Is(err, attention.ErrShape) {
			t.Fatal(err)
		}
	})
}

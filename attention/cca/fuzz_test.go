package cca

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/state/statetest"
	"gonum.org/v1/gonum/blas/blas32"
)

// FuzzReadState reads hostile files: an error that matches ErrState, or a state
// that works. The parts after a file's head have checksums of their own, and package
// attention's own test.
func FuzzReadState(f *testing.F) {
	c := mustCCA(f, Config{Heads: 2, HeadDim: 2, Group: 2, Window: 3, Levels: 2})
	s, err := c.NewState(StateConfig{})
	if err != nil {
		f.Fatal(err)
	}
	x := matrix(1, 9, 4)
	if err := c.Step(zeroMatrix(9, 4), x, x, x, s); err != nil {
		f.Fatal(err)
	}
	statetest.AddParts(f, s, 8*(2+len(c.fingerprint())+4))
	f.Fuzz(func(t *testing.T, head, parts []byte) {
		s, err := c.ReadState(io.MultiReader(statetest.Sealed(head), bytes.NewReader(parts)))
		if err != nil {
			if !errors.Is(err, attention.ErrState) {
				t.Fatalf("error %v", err)
			}
			return
		}
		x := matrix(1, 1, 4)
		if err := c.Step(zeroMatrix(1, 4), x, x, x, s); err != nil && !errors.Is(err, attention.ErrCall) && !errors.Is(err, attention.ErrFull) {
			t.Fatalf("error %v", err)
		}
		if err := s.Truncate(max(0, s.Len()-2)); err != nil && !errors.Is(err, attention.ErrState) {
			t.Fatalf("error %v", err)
		}
	})
}

// FuzzCCA takes any shapes: an error, or a result.
func FuzzCCA(f *testing.F) {
	f.Add(2, 1, 4, 4, 3, 7, 2, 1, 20, 80)
	f.Fuzz(func(t *testing.T, heads, kvHeads, dim, valueDim, group, window, levels, span, rows, length int) {
		c, err := New(Config{Heads: heads, KVHeads: kvHeads, HeadDim: dim, ValueDim: valueDim, Group: group, Window: window, Levels: levels, Span: span})
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

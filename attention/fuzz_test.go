package attention

import (
	"bytes"
	"errors"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"
)

// FuzzReadState reads hostile files: an error that matches ErrState, or a state
// that works.
func FuzzReadState(f *testing.F) {
	c := mustCCA(f, CCAConfig{Heads: 2, HeadDim: 2, Group: 2, Window: 3, Levels: 2})
	l := mustLandmark(f, LandmarkConfig{Heads: 2, HeadDim: 2, Block: 2})
	m := mustMeta(f, MetaConfig{Heads: 2, HeadDim: 2})
	x := matrix(1, 9, 4)
	is := make([]bool, 9)
	for i := range is {
		is[i] = l.IsLandmark(int64(i))
	}
	cs, _ := c.NewState(CCAStateConfig{})
	ls, _ := l.NewState(LandmarkStateConfig{})
	ms, _ := m.NewState(MetaStateConfig{})
	for _, err := range []error{c.Step(zeroMatrix(9, 4), x, x, x, cs), l.Step(zeroMatrix(9, 4), x, x, x, is, ls), m.Step(zeroMatrix(9, 4), x, x, x, is, ms)} {
		if err != nil {
			f.Fatal(err)
		}
	}
	var file bytes.Buffer
	for _, write := range []func() (int64, error){
		func() (int64, error) { return cs.WriteTo(&file) },
		func() (int64, error) { return ls.WriteTo(&file) },
		func() (int64, error) { return ms.WriteTo(&file) },
	} {
		file.Reset()
		if _, err := write(); err != nil {
			f.Fatal(err)
		}
		b := bytes.Clone(file.Bytes())
		f.Add(b[:len(b)-4]) // the fuzzer need not find the checksum
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		sum := newStateWriter(&bytes.Buffer{}, "", nil)
		sum.sum = 0
		sum.write(data)
		whole := append(bytes.Clone(data), byte(sum.sum), byte(sum.sum>>8), byte(sum.sum>>16), byte(sum.sum>>24))
		x := matrix(1, 1, 4)
		try := func(err error, step func() error) {
			if err != nil {
				if !errors.Is(err, ErrState) {
					t.Fatalf("error %v", err)
				}
				return
			}
			if err := step(); err != nil && !errors.Is(err, ErrCall) {
				t.Fatalf("error %v", err)
			}
		}
		cs, err := c.ReadState(bytes.NewReader(whole))
		try(err, func() error { return c.Step(zeroMatrix(1, 4), x, x, x, cs) })
		ls, err := l.ReadState(bytes.NewReader(whole))
		try(err, func() error {
			return l.Step(zeroMatrix(1, 4), x, x, x, []bool{l.IsLandmark(ls.length)}, ls)
		})
		ms, err := m.ReadState(bytes.NewReader(whole))
		try(err, func() error { return m.Step(zeroMatrix(1, 4), x, x, x, []bool{true}, ms) })
	})
}

// FuzzCCA takes any shapes: an error, or a result.
func FuzzCCA(f *testing.F) {
	f.Add(2, 1, 4, 4, 3, 7, 2, 1, 20, 80)
	f.Fuzz(func(t *testing.T, heads, kvHeads, dim, valueDim, group, window, levels, span, rows, length int) {
		c, err := NewCCA(CCAConfig{Heads: heads, KVHeads: kvHeads, HeadDim: dim, ValueDim: valueDim, Group: group, Window: window, Levels: levels, Span: span})
		if err != nil {
			if !errors.Is(err, ErrConfig) {
				t.Fatal(err)
			}
			return
		}
		length = min(max(length, 0), 1<<12)
		m := func(cols int) blas32.General {
			return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, length)}
		}
		err = c.Forward(m(heads*c.cfg.ValueDim), m(heads*dim), m(c.cfg.KVHeads*dim), m(c.cfg.KVHeads*c.cfg.ValueDim))
		if err != nil && !errors.Is(err, ErrShape) {
			t.Fatal(err)
		}
	})
}

package rope

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
)

// TestCallErrors has the mistakes that are not about a matrix.
func TestCallErrors(t *testing.T) {
	r := mustNew(t, Config{HeadDim: 8})
	x := matrix(make([]float32, 8), 1, 8)
	for _, c := range []struct {
		ctx  context.Context
		call *Call
		want string
	}{
		{nil, &Call{X: x}, "ctx is nil"},
		{t.Context(), nil, "call is nil"},
		{t.Context(), &Call{X: x, Workers: -1}, "Workers is -1"},
		{t.Context(), &Call{X: x, Workers: 1 << 17}, "Workers is 131072"},
	} {
		if err := r.Run(c.ctx, c.call); !errors.Is(err, ErrCall) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
	if err := r.Describe(nil); !errors.Is(err, ErrCall) {
		t.Errorf("Describe(nil): error %v", err)
	}
	for _, c := range []struct {
		n int
		f float64
	}{{-1, 10}, {0, 10}, {math.MaxInt, 10}, {4, 0}, {4, -1}} {
		if f, err := PixelFrequencies(c.n, c.f); !errors.Is(err, ErrConfig) || f != nil {
			t.Errorf("PixelFrequencies(%d, %v): %d frequencies, error %v", c.n, c.f, len(f), err)
		}
	}
	for _, heads := range []int{-1, 0, math.MaxInt} {
		if _, err := NewALiBi(ALiBiSlopes(heads)); !errors.Is(err, ErrConfig) {
			t.Errorf("ALiBi of %d heads: error %v", heads, err)
		}
	}
	// Rows without end are not gone through.
	far := mustNew(t, Config{HeadDim: 8, XPos: &XPos{}})
	if err := far.Run(t.Context(), &Call{X: blas32.General{Rows: math.MaxInt, Cols: 8, Stride: 8, Data: make([]float32, 8)}}); !errors.Is(err, ErrShape) {
		t.Errorf("more rows than there are: error %v", err)
	}
	if err := far.Run(t.Context(), &Call{X: blas32.General{Rows: math.MaxInt}}); !errors.Is(err, ErrShape) {
		t.Errorf("rows without end and columns: error %v", err)
	}
	const even = math.MaxInt - 1
	huge := blas32.General{Cols: even, Stride: even}
	must(t, ConvertLayout(huge, even, 0, Half))
	must(t, ConvertWeights(huge, even, 0, Half))
}

// TestNone: nothing rotates, and Dst gets a copy.
func TestNone(t *testing.T) {
	for _, cfg := range []Config{{None: true}, {None: true, HeadDim: 8, Layout: Interleaved}} {
		r := mustNew(t, cfg)
		x := matrix(random(1, 3*16), 3, 16)
		y, before := mat.New(3, 16), clone(x)
		must(t, r.Rotate(x, 5))
		same(t, "in place", x.Data, before.Data)
		must(t, r.Run(t.Context(), &Call{Dst: y, X: x}))
		same(t, "a copy", y.Data, x.Data)
		must(t, r.Shift(x, 7))
		same(t, "after Shift", x.Data, before.Data)
		if r.ScratchBytes(3) != 0 || r.Bytes() != 0 || len(r.Frequencies()) != 0 || r.String() != "rope: none" {
			t.Errorf("%v holds %d and %d bytes", r, r.Bytes(), r.ScratchBytes(3))
		}
		s, err := NewSchedule(cfg, Rerotate)
		must(t, err)
		if _, from, err := s.Step(9); err != nil || from != nil {
			t.Errorf("Step: %v, error %v", from, err)
		}
	}
}

// TestOffset: the rotated part of a head may stand anywhere in it.
func TestOffset(t *testing.T) {
	const headDim, dim, offset, heads, n = 12, 6, 5, 2, 4
	for _, layout := range []Layout{Half, Interleaved} {
		part := mustNew(t, Config{HeadDim: dim, Layout: layout})
		whole := mustNew(t, Config{HeadDim: headDim, Offset: offset, RotaryDim: dim, Layout: layout})
		x := matrix(random(1, n*heads*headDim), n, heads*headDim)
		want, apart := clone(x), mat.New(n, heads*headDim)
		for h := range heads {
			must(t, part.Rotate(mat.Columns(want, h*headDim+offset, dim), 3))
		}
		must(t, whole.Run(t.Context(), &Call{Dst: apart, X: x, Positions: Positions{Start: 3}}))
		same(t, "apart", apart.Data, want.Data)
		must(t, whole.Rotate(x, 3))
		same(t, "in place", x.Data, want.Data)
	}
}

// TestReverse: position p reversed is position -p, and a round trip is none.
func TestReverse(t *testing.T) {
	for _, cfg := range []Config{{HeadDim: 8}, {HeadDim: 8, Accuracy: Float32, Axes: []Axis{{Dim: 4}, {Dim: 4}}}} {
		r := mustNew(t, cfg)
		cfg.Reverse = true
		back := mustNew(t, cfg)
		x := matrix(random(1, 16), 1, 16)
		y := clone(x)
		at := make([]int64, r.Axes())
		for i := range at {
			at[i] = 1000
		}
		must(t, back.RotateAt(x, at))
		must(t, r.Run(t.Context(), &Call{X: y, Positions: Positions{At: at}, Inverse: true}))
		same(t, "reversed", x.Data, y.Data)
		if p := back.Pairs()[1]; p.Stretch != 1 {
			t.Errorf("%+v", p)
		}
	}
}

// TestCallWorkers: a call's own number of workers, and no trace of it in the result.
func TestCallWorkers(t *testing.T) {
	r := mustNew(t, Config{HeadDim: 64, Workers: 1})
	x := matrix(random(1, 600*256), 600, 256)
	one, four := clone(x), clone(x)
	must(t, r.Rotate(one, 5))
	must(t, r.Run(t.Context(), &Call{X: four, Positions: Positions{Start: 5}, Workers: 4}))
	same(t, "4 workers", four.Data, one.Data)
	if r.Bytes() <= 0 || r.ScratchBytes(600) <= 0 || r.ScratchBytes(0) != 0 {
		t.Errorf("Bytes %d, ScratchBytes %d", r.Bytes(), r.ScratchBytes(600))
	}
}

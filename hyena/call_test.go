package hyena

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestMistakes gives every sentinel to the mistakes of a call.
func TestMistakes(t *testing.T) {
	conv := mustConv(t, ConvConfig{Kernel: matrix(1, 40, 4, 0)})
	op := mustOperator(t, OperatorConfig{Dim: 4}, testWeights(t, 4, 2, 3, 50))
	x, ctx := matrix(2, 45, 4, 0), context.Background()
	before := slices.Clone(x.Data)
	for name, c := range map[string]struct{ err, want error }{
		"conv, nil ctx":              {conv.Run(nil, &ConvCall{Dst: x, X: x}), subquad.ErrCall},
		"conv, nil call":             {conv.Run(ctx, nil), subquad.ErrCall},
		"conv, -1 workers":           {conv.Run(ctx, &ConvCall{Dst: x, X: x, Workers: -1}), subquad.ErrCall},
		"conv, many workers":         {conv.Run(ctx, &ConvCall{Dst: x, X: x, Workers: 1<<16 + 1}), subquad.ErrCall},
		"conv, no dst":               {conv.Run(ctx, &ConvCall{X: x}), subquad.ErrShape},
		"conv, prepare, nil ctx":     {conv.Prepare(nil, 3), subquad.ErrCall},
		"conv, prepare -1":           {conv.Prepare(ctx, -1), subquad.ErrCall},
		"conv, prepare all":          {conv.Prepare(ctx, math.MaxInt), subquad.ErrCall},
		"operator, nil ctx":          {op.Run(nil, &OperatorCall{Dst: x, X: x}), subquad.ErrCall},
		"operator, nil call":         {op.Run(ctx, nil), subquad.ErrCall},
		"operator, -1 workers":       {op.Run(ctx, &OperatorCall{Dst: x, X: x, Workers: -1}), subquad.ErrCall},
		"operator, no dst":           {op.Run(ctx, &OperatorCall{X: x}), subquad.ErrShape},
		"operator, too long":         {op.Forward(matrix(3, 51, 4, 0), matrix(4, 51, 4, 0)), subquad.ErrShape},
		"operator, prepare, nil ctx": {op.Prepare(nil, 3), subquad.ErrCall},
		"operator, prepare -1":       {op.Prepare(ctx, -1), subquad.ErrCall},
		"operator, prepare 51":       {op.Prepare(ctx, 51), ErrTooLong},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: error %v, want one that matches %v", name, c.err, c.want)
		}
	}
	if !slices.Equal(x.Data, before) {
		t.Error("dst was written before an error")
	}
	if !errors.Is(ErrTooLong, ErrShape) {
		t.Error("ErrTooLong is not an ErrShape")
	}
	for _, n := range []int{math.MinInt, -1, 0, math.MaxInt} {
		if conv.ScratchBytes(n) < 0 || op.ScratchBytes(n) < 0 {
			t.Errorf("ScratchBytes(%d) is %d and %d", n, conv.ScratchBytes(n), op.ScratchBytes(n))
		}
	}
}

// TestPrepare: after it, a call keeps nothing more, and Bytes is what is there.
func TestPrepare(t *testing.T) {
	ctx := context.Background()
	for _, n := range []int{20, 300} {
		conv := mustConv(t, ConvConfig{Kernel: matrix(1, n, 37, 0), Skip: random(2, 37), Workers: 2})
		op := mustOperator(t, OperatorConfig{Dim: 12, Order: 3, Workers: 2}, testWeights(t, 12, 3, 3, 300))
		for name, o := range map[string]struct {
			prepare func(context.Context, int) error
			bytes   func() int64
			forward func(dst, x blas32.General) error
			cols    int
			atLeast int // float32 that a first call adds
		}{
			"conv":     {conv.Prepare, conv.Bytes, conv.Forward, 37, 37 * n},
			"operator": {op.Prepare, op.Bytes, op.Forward, 12, 2 * 24 * n},
		} {
			before := o.bytes()
			if err := o.prepare(ctx, n); err != nil {
				t.Fatal(err)
			}
			prepared := o.bytes()
			if prepared < before+4*int64(o.atLeast) {
				t.Errorf("%s, %d tokens: %d bytes before, %d prepared, want %d more", name, n, before, prepared, 4*o.atLeast)
			}
			x := matrix(5, n, o.cols, 0)
			if err := o.forward(x, x); err != nil {
				t.Fatal(err)
			}
			if after := o.bytes(); after != prepared {
				t.Errorf("%s, %d tokens: %d bytes prepared, %d after a call", name, n, prepared, after)
			}
		}
		if op.Bytes() < op.kernel.filter.Bytes()+op.cfg.Cache.used {
			t.Errorf("Bytes is %d, less than the parts", op.Bytes())
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	op := mustOperator(t, OperatorConfig{Dim: 12}, testWeights(t, 12, 2, 3, 300))
	for _, n := range []int{0, 300} {
		if err := op.Prepare(cancelled, n); n > 0 && err != context.Canceled {
			t.Errorf("error %v", err)
		}
	}
}

// TestCancelLate: a long convolution looks at its context often, ends with it wherever that
// ends, and the next call gives the right result.
func TestCancelLate(t *testing.T) {
	n, channels := 1<<17, 16
	if testing.Short() {
		n = 1 << 15 // four stretches to a stage
	}
	c := mustConv(t, ConvConfig{Kernel: matrix(1, n, channels, 0), Workers: 1})
	u, dst := matrix(2, n, channels, 0), matrix(3, n, channels, 0)
	run := func(left int) (asked int, err error) {
		ctx := &statetest.Ending{Context: context.Background(), Left: left}
		err = c.Run(ctx, &ConvCall{Dst: dst, X: u})
		return ctx.Asked(), err
	}
	for _, call := range []string{"first", "second"} { // the first makes the spectrum
		looks, err := run(1 << 30)
		if err != nil {
			t.Fatal(err)
		}
		// Each stage of a transform of 2n rows, there and back, in stretches of stopRows.
		if want := 2 * 2 * n / stopRows; looks < want {
			t.Errorf("%s call: %d looks at the context, want %d", call, looks, want)
		}
		for i, left := range []int{0, 1, looks / 5, looks / 3, looks / 2, looks * 3 / 4, looks - 1} {
			if testing.Short() && i%3 != 0 {
				continue
			}
			if call == "first" { // once more, without its spectrum
				c = mustConv(t, ConvConfig{Kernel: c.cfg.Kernel, Workers: 1})
			}
			if asked, err := run(left); err != context.Canceled {
				t.Errorf("%s call: ended after %d looks of %d: error %v after %d", call, left, looks, err, asked)
			}
		}
		if call == "first" {
			if err := c.Forward(dst, u); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Forward(dst, u); err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for m := range n {
		sum += float64(c.cfg.Kernel.Data[m*channels]) * float64(u.Data[(n-1-m)*channels])
	}
	if d := math.Abs(float64(dst.Data[(n-1)*channels]) - sum); d > 0.05 {
		t.Errorf("after cancellations the last token is %v, want %v", dst.Data[(n-1)*channels], sum)
	}
}

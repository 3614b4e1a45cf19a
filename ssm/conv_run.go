package ssm

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
)

// convWork is the working memory of a call of a Conv, or of that of a block.
type convWork struct {
	group    parallel.Group
	segments segments // of a call of the Conv itself

	op     *Conv
	dst, x blas32.General // [n, D]
	list   []segment      // the rows to convolve; values are [K-1, D], oldest row first
	task   func(worker, i int)
}

// taskRows is how many rows a task convolves: not fewer than the next one looks back.
func (op *Conv) taskRows() int { return max(256, op.taps.Rows) }

// convolve convolves the rows of segments and leaves the last ones in their values.
func (w *convWork) convolve(ctx context.Context, op *Conv, dst, x blas32.General, list []segment, workers int) error {
	if w.task == nil {
		w.task = w.convolveRows
	}
	w.op, w.dst, w.x, w.list = op, dst, x, list
	defer func() { w.dst, w.x, w.list = blas32.General{}, blas32.General{}, nil }()
	tasks, rows := 0, op.taskRows()
	for _, g := range list {
		tasks += (g.To - g.From + rows - 1) / rows
	}
	if err := w.group.RunAs(ctx, "ssm", workers, tasks, w.task); err != nil {
		return err
	}
	for _, g := range list {
		op.keepWindow(g, x)
	}
	return nil
}

// window is the state of a segment: the rows before it.
func (op *Conv) window(values []float32) blas32.General {
	return mat.Of(values, op.taps.Rows-1, op.taps.Cols)
}

// keepWindow makes a segment's values its last K-1 rows, of those before it and its own.
func (op *Conv) keepWindow(g segment, x blas32.General) {
	window, n := op.window(g.Values), g.To-g.From
	old := max(window.Rows-n, 0) // rows that stay, further up
	copy(window.Data[:old*window.Cols], window.Data[(window.Rows-old)*window.Cols:])
	mat.Copy(mat.Rows(window, old, window.Rows), mat.Rows(x, g.To-(window.Rows-old), g.To))
}

// convolveRows convolves the rows of task i: a part of one segment.
func (w *convWork) convolveRows(_, i int) {
	op, rows := w.op, w.op.taskRows()
	var g segment
	for _, g = range w.list {
		tasks := (g.To - g.From + rows - 1) / rows
		if i < tasks {
			break
		}
		i -= tasks
	}
	from := g.From + i*rows
	to := min(from+rows, g.To)
	dst, x := mat.Rows(w.dst, from, to), mat.Rows(w.x, from, to)
	before := op.window(g.Values)
	if i > 0 {
		before = mat.Rows(w.x, from-before.Rows, from)
	}
	asm.DepthwiseConv(dst, x, op.taps, op.bias, before)
	if op.cfg.SiLU {
		for t := range dst.Rows {
			row := mat.Row(dst, t)
			asm.SiLU(row, row)
		}
	}
}

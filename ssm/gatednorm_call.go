package ssm

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// GatedNormCall is a call of GatedNorm with everything optional.
type GatedNormCall struct {
	// Dst and X are [n, D]; Dst may be X.
	Dst, X blas32.General
	// Z [n, D], where it is given, is the gate.
	Z blas32.General
	// Workers is how many goroutines the call may use, 0 for the Config's.
	Workers int
}

// Forward normalises rows: dst, x and the gate z are [n, D]; a zero z is no gate. dst
// may be x. After the first call it allocates nothing. Errors match ErrShape.
func (op *GatedNorm) Forward(dst, x, z blas32.General) error {
	return op.Run(context.Background(), &GatedNormCall{Dst: dst, X: x, Z: z})
}

// Run is Forward with everything optional. Errors match ErrShape or ErrCall, or are
// ctx.Err(); Dst is unspecified then.
func (op *GatedNorm) Run(ctx context.Context, call *GatedNormCall) error {
	if err := check.Call("ssm", ctx, call != nil); err != nil {
		return err
	}
	channels := len(op.weight)
	if err := checkInputs(call.Dst, call.X.Rows, []input{
		{"X", call.X, channels, "channels", false},
		{"Z", call.Z, channels, "channels", !mat.Given(call.Z)},
	}); err != nil {
		return err
	}
	if err := check.Workers(ErrCall, "ssm", call.Workers); err != nil {
		return err
	}
	w := op.scratch.Get()
	defer op.scratch.Put(w)
	return w.normaliseTasks(ctx, op, call, parallel.Choose(op.cfg.Workers, call.Workers))
}

// normRows is how many rows a task normalises.
const normRows = 64

// normWork is the working memory of a call of a GatedNorm.
type normWork struct {
	group parallel.Group
	op    *GatedNorm
	call  GatedNormCall       // a copy of the caller's
	gates [][]float32         // [D] for each worker
	task  func(worker, i int) // normalises a range of rows
}

func (w *normWork) normaliseTasks(ctx context.Context, op *GatedNorm, call *GatedNormCall, workers int) error {
	if w.task == nil {
		w.task = w.normaliseRows
	}
	w.op, w.call = op, *call
	defer func() { w.call = GatedNormCall{} }()
	tasks := (call.X.Rows + normRows - 1) / normRows
	workers = min(workers, max(tasks, 1))
	for len(w.gates) < workers {
		w.gates = append(w.gates, nil)
	}
	err := w.group.RunAs(ctx, "ssm", workers, tasks, w.task)
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// normaliseRows normalises the rows of task i.
func (w *normWork) normaliseRows(worker, i int) {
	from, to := i*normRows, min((i+1)*normRows, w.call.X.Rows)
	w.gates[worker] = scratch.Floats(w.gates[worker], len(w.op.weight))
	z := w.call.Z
	if mat.Given(z) {
		z = mat.Rows(z, from, to)
	}
	w.op.normalise(mat.Rows(w.call.Dst, from, to), mat.Rows(w.call.X, from, to), z, w.gates[worker])
}

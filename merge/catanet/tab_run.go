package catanet

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// tabRun is one call of a TAB, and the memory that calls share. n are the pixels of all
// images.
type tabRun struct {
	op      *TAB
	call    ImageCall
	workers parallel.Group
	offsets []int       // [images+1] the first pixel of each image, and at last n
	bucket  []int32     // [n] the nearest centre
	memory  []float32   // of the matrices below
	work    [][]float32 // scratch of each worker

	normed  blas32.General // [n, Dim]
	q, k    blas32.General // [n, QKDim]
	v       blas32.General // [n, Dim]
	mixed   blas32.General // [n, Dim], attention
	y       blas32.General // [n, Dim], x and what attention adds to it
	hidden  blas32.General // [n, Inner], of the feed-forward layer
	own     centers        // made of the tokens, where the weights have none
	centers *centers       // of the call
	attend  GroupCall

	// normBlock, projectBlock and mixBlock, of dense.BlockRows pixels, and ffnLine.
	norm, project, mix, ffn func(worker, i int)
}

// aggregate runs a call.
func (r *tabRun) aggregate(ctx context.Context, op *TAB, call *ImageCall) error {
	r.op, r.call = op, *call
	defer func() { r.call, r.attend, r.centers = ImageCall{}, GroupCall{}, nil }()
	if r.norm == nil {
		r.norm, r.project, r.mix, r.ffn = r.normBlock, r.projectBlock, r.mixBlock, r.ffnLine
	}
	rows := call.X.Rows
	if err := r.place(rows); err != nil {
		return err
	}
	workers := parallel.Choose(op.cfg.Workers, call.Workers)
	r.work = scratch.Sized(r.work, max(len(r.work), workers))
	blocks := (rows + dense.BlockRows - 1) / dense.BlockRows
	if err := r.workers.RunAs(ctx, "catanet", workers, blocks, r.norm); err != nil || rows == 0 {
		return err
	}
	if r.centers = &op.centers; op.centers.means.Rows == 0 {
		r.average()
		r.centers = &r.own
	}
	if err := r.workers.RunAs(ctx, "catanet", workers, blocks, r.project); err != nil {
		return err
	}
	r.attend = GroupCall{Dst: r.mixed, Q: r.q, K: r.k, V: r.v, Bucket: r.bucket, CenterK: r.centers.keys, CenterV: r.centers.values, Offsets: r.offsets, Workers: workers}
	if err := op.attention.Run(ctx, &r.attend); err != nil {
		return err
	}
	if err := r.workers.RunAs(ctx, "catanet", workers, blocks, r.mix); err != nil {
		return err
	}
	return r.workers.RunAs(ctx, "catanet", workers, rows/call.Width, r.ffn)
}

// place cuts the memory of a call.
func (r *tabRun) place(rows int) error {
	cfg := &r.op.cfg
	floats, err := room(int64(rows)*int64(4*cfg.Dim+2*cfg.QKDim+cfg.Inner) + int64(cfg.Centers)*int64(2*cfg.Dim+cfg.QKDim))
	if err != nil {
		return err
	}
	r.memory = scratch.Floats(r.memory, floats)
	cut := cutter{r.memory}
	r.normed, r.v, r.mixed, r.y = cut.take(rows, cfg.Dim), cut.take(rows, cfg.Dim), cut.take(rows, cfg.Dim), cut.take(rows, cfg.Dim)
	r.q, r.k, r.hidden = cut.take(rows, cfg.QKDim), cut.take(rows, cfg.QKDim), cut.take(rows, cfg.Inner)
	r.own.means, r.own.values, r.own.keys = cut.take(cfg.Centers, cfg.Dim), cut.take(cfg.Centers, cfg.Dim), cut.take(cfg.Centers, cfg.QKDim)
	r.bucket, r.offsets = scratch.Sized(r.bucket, rows), r.offsets[:0]
	for at := 0; at <= rows; at += r.call.Height * r.call.Width {
		r.offsets = append(r.offsets, at)
	}
	return nil
}

// block returns the rows of block i of a matrix of the call.
func (r *tabRun) block(m blas32.General, i int) blas32.General {
	return mat.Rows(m, i*dense.BlockRows, min((i+1)*dense.BlockRows, r.call.X.Rows))
}

func (r *tabRun) normBlock(_, i int) {
	r.op.projections.norm.Forward(r.block(r.normed, i), r.block(r.call.X, i))
}

// average makes the centres of the tokens: each is the mean of a stretch of them, where
// an image's tokens end with their own tail backwards (all over again as often as need
// be) to make equal stretches.
func (r *tabRun) average() {
	centers, n := r.op.cfg.Centers, r.call.Height*r.call.Width
	images := r.call.X.Rows / n
	length := n/centers + 1
	for j := range centers {
		mean := mat.Row(r.own.means, j)
		clear(mean)
		for image := range images {
			for t := j * length; t < (j+1)*length; t++ {
				asm.Add(mean, mean, mat.Row(r.normed, image*n+mirror(t, n)))
			}
		}
		asm.Scale(mean, float32(1/(float64(images)*float64(length))), mean)
	}
	r.own.finish(r.op)
}

func (r *tabRun) projectBlock(_, i int) {
	n := r.block(r.normed, i)
	r.op.projections.project(r.block(r.q, i), r.block(r.k, i), r.block(r.v, i), n)
	r.centers.nearest.assign(r.bucket[i*dense.BlockRows:][:n.Rows], n)
}

// mixBlock adds what attention found, and begins the feed-forward layer.
func (r *tabRun) mixBlock(worker, i int) {
	op, x, y := r.op, r.block(r.call.X, i), r.block(r.y, i)
	w := &r.work[worker]
	*w = scratch.Floats(*w, x.Rows*x.Cols)
	projected := mat.Of(*w, x.Rows, x.Cols)
	op.projections.proj.Forward(projected, r.block(r.mixed, i))
	op.conv.Forward(y, projected)
	for t := range y.Rows {
		asm.Add(mat.Row(y, t), mat.Row(y, t), mat.Row(x, t))
	}
	op.ffn.expand(r.block(r.hidden, i), y, w)
}

// ffnLine ends the feed-forward layer for a line of an image.
func (r *tabRun) ffnLine(worker, i int) {
	r.op.ffn.contractLine(&r.call, r.y, r.hidden, i, &r.work[worker])
}

package main

import (
	"context"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/rope"
)

// headDim is the width of FAR's heads: 16 features turn with the frame, 24 each
// with row and column.
const headDim = 64

// video is the queries, keys and values of all tokens, frame by frame.
type video struct{ q, k, v blas32.General }

func matrix(rows, cols int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, rows*cols)}
}

func newVideo(o options) (*video, error) {
	layout, err := rope.NewFAR(rope.FARConfig{Frames: o.trained * o.times, Height: o.side, Width: o.side})
	if err != nil {
		return nil, err
	}
	rotation, err := rope.New(rope.Config{HeadDim: headDim, Layout: rope.Interleaved, Axes: []rope.Axis{{Dim: 16}, {Dim: 24}, {Dim: 24}}, Workers: o.workers})
	if err != nil {
		return nil, err
	}
	n, width := len(layout.Frames), o.heads*headDim
	v := &video{matrix(n, width), matrix(n, width), matrix(n, width)}
	random := rand.New(rand.NewPCG(1, 2))
	common := make([]float32, width)
	for i := range common {
		common[i] = float32(random.NormFloat64())
	}
	for i := range v.q.Data {
		v.q.Data[i] = 0.7*common[i%width] + 0.5*float32(random.NormFloat64())
		v.k.Data[i] = 0.7*common[i%width] + 0.5*float32(random.NormFloat64())
		v.v.Data[i] = float32(random.NormFloat64())
	}
	for _, m := range []blas32.General{v.q, v.k} {
		if err := rotation.RotateAt(m, layout.Positions); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// lastFrame returns what each frame receives of the last frame's weight, all
// together 1.
func (v *video) lastFrame(ctx context.Context, att *attention.Attention, o options) ([]float64, error) {
	tokens := o.side * o.side
	q := v.q
	q.Rows, q.Data = tokens, v.q.Data[(v.q.Rows-tokens)*v.q.Stride:]
	mass := matrix(v.k.Rows, o.heads)
	err := att.Run(ctx, &attention.Call{Dst: matrix(tokens, q.Cols), Q: q, K: []blas32.General{v.k}, V: []blas32.General{v.v}, Mass: mass})
	weights := make([]float64, o.trained*o.times)
	for i, m := range mass.Data {
		weights[i/o.heads/tokens] += float64(m) / float64(tokens*o.heads)
	}
	return weights, err
}

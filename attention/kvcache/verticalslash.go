package kvcache

import (
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
)

// VerticalSlash is prefill in which each query of a head sees some keys for all (columns,
// "vertical") and some distances (diagonals, "slash"), chosen by the attention of the last
// queries (MInference; Jiang et al. 2024, arXiv 2407.02490). Zero values stand for the
// published ones.
type VerticalSlash struct {
	// Heads, KVHeads and Scale are those of attention.Config.
	Heads, KVHeads int
	Scale          float32
	// Last is how many last queries choose; 0 stands for 64.
	Last int
	// Vertical and Slash are how many columns and diagonals are seen; 0 stands for 1,000
	// and 6,096.
	Vertical, Slash int
	// FirstColumns and NearDiagonals are seen always, and count; nil stands for 30 and
	// 100.
	FirstColumns, NearDiagonals *int
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

func orElse(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

func given(n *int, otherwise int) int {
	if n == nil {
		return otherwise
	}
	return *n
}

func (p VerticalSlash) checkCall(q, k blas32.General) (VerticalSlash, error) {
	p.Last, p.Vertical, p.Slash = orElse(p.Last, 64), orElse(p.Vertical, 1000), orElse(p.Slash, 6096)
	if p.KVHeads == 0 {
		p.KVHeads = p.Heads
	}
	switch {
	case p.Heads < 1 || p.KVHeads < 1 || p.Heads%p.KVHeads != 0 || q.Cols%p.Heads != 0 || q.Cols == 0 && q.Rows != 0: // rows without columns may be any number
		return p, check.Errorf(ErrShape, "kvcache: VerticalSlash of %d heads and %d key heads, q with %d columns", p.Heads, p.KVHeads, q.Cols)
	case p.Last < 0 || p.Vertical < 0 || p.Slash < 0 || given(p.FirstColumns, 30) < 0 || given(p.NearDiagonals, 100) < 0:
		return p, check.Errorf(ErrConfig, "kvcache: VerticalSlash with negative numbers: Last %d, Vertical %d, Slash %d", p.Last, p.Vertical, p.Slash)
	case !(math.Abs(float64(p.Scale)) <= math.MaxFloat32):
		return p, check.Errorf(ErrConfig, "kvcache: VerticalSlash.Scale is %v", p.Scale)
	}
	if err := check.Workers(ErrConfig, "kvcache", p.Workers); err != nil {
		return p, err
	}
	d := q.Cols / p.Heads
	if p.Scale == 0 {
		p.Scale = float32(1 / math.Sqrt(float64(d)))
	}
	if err := check.Matrix(ErrShape, "kvcache", "q", q, -1, p.Heads*d, "Heads*HeadDim"); err != nil {
		return p, err
	}
	return p, check.Matrix(ErrShape, "kvcache", "k", k, q.Rows, p.KVHeads*d, "KVHeads*HeadDim")
}

// Choose returns the columns and the diagonals of a head, both ascending: key j of a
// column, distance i-j of a diagonal. q and k are rotated. Errors match ErrShape or
// ErrConfig.
func (p VerticalSlash) Choose(q, k blas32.General, head int) (vertical, slash []int32, err error) {
	if p, err = p.checkCall(q, k); err != nil {
		return nil, nil, err
	}
	if head < 0 || head >= p.Heads {
		return nil, nil, check.Errorf(ErrShape, "kvcache: head %d of %d", head, p.Heads)
	}
	vertical, slash = p.choose(q, k, head)
	return vertical, slash, nil
}

func (p VerticalSlash) choose(q, k blas32.General, head int) (vertical, slash []int32) {
	d, n := q.Cols/p.Heads, q.Rows
	last := min(p.Last, n)
	a := causalWeights(mat.Rows(mat.Columns(q, head*d, d), n-last, n), mat.Columns(k, head/(p.Heads/p.KVHeads)*d, d), p.Scale)
	columns, diagonals := make([]float32, n), make([]float32, n)
	for i := range last {
		for j, x := range mat.Row(a, i)[:n-last+i+1] {
			columns[j] += x
			diagonals[n-last+i-j] += x
		}
	}
	inf := float32(math.Inf(1))
	for j := range min(n, given(p.FirstColumns, 30)) {
		columns[j] = inf
	}
	for j := range min(n, given(p.NearDiagonals, 100)) {
		diagonals[j] = inf
	}
	return best(nil, columns, p.Vertical), best(nil, diagonals, p.Slash)
}

// Run attends from every query of a sequence to itself: q is [tokens, Heads*HeadDim], k
// [tokens, KVHeads*HeadDim], both rotated, v [tokens, KVHeads*ValueDim] and dst [tokens,
// Heads*ValueDim]. It costs 2 (HeadDim + ValueDim) flop for each head, query and column or
// diagonal. The published kernel sees whole blocks of 64 x 64 that a diagonal touches;
// this one no more than was chosen. It returns ctx.Err() when ctx is
// done; errors match ErrShape, ErrConfig or ErrCall.
func (p VerticalSlash) Run(ctx context.Context, dst, q, k, v blas32.General) error {
	if ctx == nil {
		return check.Errorf(ErrCall, "kvcache: ctx is nil, want a context")
	}
	p, err := p.checkCall(q, k)
	if err != nil {
		return err
	}
	if v.Cols%p.KVHeads != 0 {
		return check.Errorf(ErrShape, "kvcache: v has %d columns, want a multiple of KVHeads = %d", v.Cols, p.KVHeads)
	}
	dv := v.Cols / p.KVHeads
	if err := check.Matrix(ErrShape, "kvcache", "v", v, q.Rows, p.KVHeads*dv, "KVHeads*ValueDim"); err != nil {
		return err
	}
	outputs := [...]check.Out{{Name: "dst", M: dst, Rows: q.Rows, Cols: p.Heads * dv, What: "Heads*ValueDim", Needed: true}}
	if err := check.Outputs("kvcache", outputs[:], q, k, v); err != nil {
		return err
	}
	var group parallel.Group
	return group.RunAs(ctx, "kvcache", parallel.Workers(p.Workers), p.Heads, func(_, head int) {
		vertical, slash := p.choose(q, k, head)
		p.attend(&group, dst, q, k, v, head, dv, vertical, slash)
	})
}

// attend does a head.
func (p VerticalSlash) attend(g *parallel.Group, dst, q, k, v blas32.General, head, dv int, vertical, slash []int32) {
	d, kv := q.Cols/p.Heads, head/(p.Heads/p.KVHeads)
	column := make([]bool, q.Rows)
	for _, j := range vertical {
		column[j] = true
	}
	var scores []float32
	var rows []int32
	scaled := make([]float32, d)
	for i := range q.Rows {
		if i%64 == 0 && g.Stopped() {
			return
		}
		rows = rows[:0]
		for _, j := range vertical {
			if int(j) > i {
				break
			}
			rows = append(rows, j)
		}
		for _, distance := range slash {
			if j := i - int(distance); j >= 0 && !column[j] {
				rows = append(rows, int32(j))
			}
		}
		out := mat.Part(dst, i, head*dv, dv)
		clear(out)
		if len(rows) == 0 {
			continue
		}
		scores = slices.Grow(scores[:0], len(rows))[:len(rows)]
		asm.Scale(scaled, p.Scale, mat.Part(q, i, head*d, d))
		for n, j := range rows {
			scores[n] = asm.Dot(scaled, mat.Part(k, int(j), kv*d, d))
		}
		sum := kernel.ExpSum(scores, scores, asm.Max(scores))
		for n, j := range rows {
			if scores[n] != 0 {
				asm.Axpy(out, scores[n]/sum, mat.Part(v, int(j), kv*dv, dv))
			}
		}
	}
}

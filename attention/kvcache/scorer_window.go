package kvcache

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
)

// windowWeights returns, for each query head, the weights [window, held] that the last
// window queries give the tokens held, a query seeing none after itself.
func windowWeights(o *Observation, window int) []blas32.General {
	cfg := o.cfg
	q := mat.Rows(o.Queries, max(0, o.Queries.Rows-window), o.Queries.Rows)
	list := make([]blas32.General, cfg.Heads)
	for h := range list {
		list[h] = causalWeights(mat.Columns(q, h*cfg.HeadDim, cfg.HeadDim), o.Keys(h/o.group()), cfg.Scale)
	}
	return list
}

// causalWeights returns softmax(scale q k^T), [queries, keys]: the last query stands at the
// last key, and sees none after itself.
func causalWeights(q, k blas32.General, scale float32) blas32.General {
	p := mat.New(q.Rows, k.Rows)
	if q.Rows == 0 || k.Rows == 0 {
		return p
	}
	asm.Gemm(p, q, asm.NewMatrixT(asm.Float32, k), nil)
	for i := range p.Rows {
		row := mat.Row(p, i)
		seen := max(0, k.Rows-q.Rows+1+i)
		asm.Scale(row, scale, row)
		if seen > 0 {
			asm.Softmax(row[:seen], row[:seen])
		}
		clear(row[seen:])
	}
	return p
}

// Pooling smooths scores over neighbours.
type Pooling uint8

const (
	AveragePool Pooling = iota // zeros beyond the ends count
	MaxPool                    // -Inf beyond the ends
	NoPool
)

// pool smooths scores over kernel neighbours, (kernel-1)/2 of them before each; an even
// kernel has one more before, and none of its results before the first.
func pool(dst, x []float32, kernel int, how Pooling) {
	if how == NoPool || kernel <= 1 {
		copy(dst, x)
		return
	}
	before := kernel / 2
	for i := range x {
		from, to := max(0, i-before), min(len(x), i-before+kernel)
		switch how {
		case MaxPool:
			top := float32(math.Inf(-1))
			for _, y := range x[from:to] {
				if y > top || y != y {
					top = y
				}
			}
			dst[i] = top
		default:
			sum := float64(0)
			for _, y := range x[from:to] {
				sum += float64(y)
			}
			dst[i] = float32(sum / float64(kernel))
		}
	}
}

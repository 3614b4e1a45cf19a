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
	list := o.room().several(cfg.Heads)
	for h := range list {
		k := o.Keys(h / o.group())
		list[h] = o.matrix(q.Rows, k.Rows)
		weighCausally(list[h], mat.Columns(q, h*cfg.HeadDim, cfg.HeadDim), k, &o.room().packed, cfg.Scale)
	}
	return list
}

// causalWeights returns softmax(scale q k^T), [queries, keys]: the last query stands at the
// last key, and sees none after itself.
func causalWeights(q, k blas32.General, scale float32) blas32.General {
	p := mat.New(q.Rows, k.Rows)
	weighCausally(p, q, k, new(asm.Matrix), scale)
	return p
}

// weighCausally is causalWeights with memory for the result and for packed keys.
func weighCausally(p, q, k blas32.General, packed *asm.Matrix, scale float32) {
	if q.Rows == 0 || k.Rows == 0 {
		return
	}
	packed.SetT(k)
	asm.Gemm(p, q, packed, nil)
	for i := range p.Rows {
		row := mat.Row(p, i)
		seen := max(0, k.Rows-q.Rows+1+i)
		asm.Scale(row, scale, row)
		if seen > 0 {
			asm.Softmax(row[:seen], row[:seen])
		}
		clear(row[seen:])
	}
}

// Pooling smooths scores over neighbours.
type Pooling uint8

const (
	// AveragePool is the mean over Kernel neighbours; zeros beyond the ends count.
	AveragePool Pooling = iota
	// MaxPool is the largest of Kernel neighbours; there is -Inf beyond the ends.
	MaxPool
	// NoPool leaves scores as they are.
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

package asm

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
)

// DepthwiseConv is the causal depthwise convolution of rows with a kernel of
// few taps:
//
//	dst[t][c] = bias[c] + sum over j < K of w[j][c] x[t-K+1+j][c].
//
// x and dst are [tokens, channels], w is [K, channels] with the oldest tap
// first (PyTorch's Conv1d weight [channels, 1, K], transposed), bias is
// [channels] or nil. history is the K-1 rows before x; with no rows it
// stands for zeros. A sequence cut in pieces, each with the last K-1 rows
// before it as history, gives the same bits as the whole. dst overlaps no
// other argument.
//
// It costs 2 K tokens channels flop, and is memory bound for small K.
func DepthwiseConv(dst, x, w blas32.General, bias []float32, history blas32.General) {
	const op = "asm: DepthwiseConv"
	tokens, channels, taps := x.Rows, x.Cols, w.Rows
	kernel.CheckMatrix(op, "x", x, tokens, channels)
	kernel.CheckMatrix(op, "dst", dst, tokens, channels)
	kernel.CheckMatrix(op, "w", w, taps, channels)
	if bias != nil {
		kernel.CheckLen(op, "bias", len(bias), channels)
	}
	if history.Rows != 0 {
		kernel.CheckMatrix(op, "history", history, max(taps-1, 0), channels)
	}
	if tokens == 0 || channels == 0 {
		return
	}
	if mat.Overlap(dst, x) || mat.Overlap(dst, w) || mat.Overlap(dst, history) || mat.OverlapVectors(kernel.Extent(dst), bias) {
		kernel.Panicf("%s: dst overlaps an input", op)
	}
	if taps == 0 {
		for t := range tokens {
			row := dst.Data[t*dst.Stride:][:channels]
			clear(row)
			copy(row, bias)
		}
		return
	}
	c := convolver{tier: isa.Active(), dst: dst, w: w, bias: bias}
	// The first K-1 tokens see history; their missing taps are zero or come first.
	head := min(max(taps-1, 0), tokens)
	for t := range head {
		init := false
		if history.Rows > 0 {
			c.rows(history, t, t, 0, taps-1-t, 1, init)
			init = true
		}
		c.rows(x, 0, t, taps-1-t, t+1, 1, init)
	}
	t := head
	for ; t+8 <= tokens; t += 8 {
		c.rows(x, t-head, t, 0, taps, 8, false)
	}
	for ; t < tokens; t++ {
		c.rows(x, t-head, t, 0, taps, 1, false)
	}
}

// convolver is one call of DepthwiseConv.
type convolver struct {
	tier   isa.Tier
	dst, w blas32.General // [t, c] and [taps, c]
	bias   []float32      // [c], or nil
}

var zeros [2 * kernel.Chunk]float32

// rows adds taps tap0 ... tap0+taps-1 over the rows of x from row x0 to count
// rows of dst from row t0, starting from the bias or, with more, from dst.
func (c *convolver) rows(x blas32.General, x0, t0, tap0, taps, count int, more bool) {
	const block = 512 // channels to a kernel call
	for from := 0; from < c.dst.Cols; from += block {
		n := min(block, c.dst.Cols-from)
		y := c.dst.Data[t0*c.dst.Stride+from:]
		start, startStride := zeros[:n], 0
		if more {
			start, startStride = y, c.dst.Stride
		} else if c.bias != nil {
			start = c.bias[from:]
		}
		xs, w := x.Data[x0*x.Stride+from:], c.w.Data[tap0*c.w.Stride+from:]
		switch {
		case c.tier == isa.Generic:
			convolutionGeneric(count, n, taps, xs, x.Stride, w, c.w.Stride, start, startStride, y, c.dst.Stride)
		case count == 8:
			convolution8SIMD(c.tier, n, taps, &xs[0], 4*x.Stride, &w[0], 4*c.w.Stride, &start[0], 4*startStride, &y[0], 4*c.dst.Stride)
		default:
			convolution1SIMD(c.tier, n, taps, &xs[0], 4*x.Stride, &w[0], 4*c.w.Stride, &start[0], 4*startStride, &y[0], 4*c.dst.Stride)
		}
	}
}

func convolutionGeneric(count, n, taps int, x []float32, xStride int, w []float32, wStride int, start []float32, startStride int, y []float32, yStride int) {
	for t := range count {
		for c := range n {
			sum := start[t*startStride+c]
			for j := range taps {
				sum += float32(w[j*wStride+c] * x[(t+j)*xStride+c])
			}
			y[t*yStride+c] = sum
		}
	}
}

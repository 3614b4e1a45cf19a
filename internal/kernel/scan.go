package kernel

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

// SelectiveScan runs the recurrence of Mamba (Gu and Dao 2023, arXiv 2312.00752,
// algorithm 2, discretised) for one block of ScanBlock channels:
//
//	h[n][j] = 2^(dt[t][j] a[n][j]) h[n][j] + dt[t][j] x[t][j] b[t][n]
//	y[t][j] = d[j] x[t][j] + sum over n of c[t][n] h[n][j].
//
// dt, x and y are [tokens, ScanBlock]; h is [states, ScanBlock] without gaps, and da
// d and below it a, the decay rates times log2 e, [1 + states, ScanBlock]. b and c
// are [tokens, states] both, or, with a number for each channel, [tokens, states *
// ScanBlock] both; a stride of 0 means the same for all tokens. states must be a
// multiple of 4, and y must overlap nothing else. Exponents below -126 count as -126.
// The error of 2^x is below 2.5 ULP.
//
// It costs about 14 flop for each token, state and channel.
func SelectiveScan(y, dt, x blas32.General, da, h []float32, b, c blas32.General) {
	const op = "kernel: SelectiveScan"
	tokens, states := y.Rows, len(h)/ScanBlock
	CheckMatrix(op, "y", y, tokens, ScanBlock)
	CheckMatrix(op, "dt", dt, tokens, ScanBlock)
	CheckMatrix(op, "x", x, tokens, ScanBlock)
	if len(h)%(4*ScanBlock) != 0 {
		Panicf("%s: h has %d elements, want a multiple of 4*ScanBlock", op, len(h))
	}
	CheckLen(op, "da", len(da), len(h)+ScanBlock)
	vectors := b.Cols != states
	checkRepeated(op, "b", b, tokens, states, vectors)
	checkRepeated(op, "c", c, tokens, states, vectors)
	if tier := isa.Active(); tier != isa.Generic && tokens > 0 && states > 0 {
		scanTiles(tier, y, dt, x, da, h, b, c, vectors)
		return
	}
	d, a := da[:ScanBlock], da[ScanBlock:]
	for t := range tokens {
		dt, x, y := dt.Data[t*dt.Stride:][:ScanBlock], x.Data[t*x.Stride:][:ScanBlock], y.Data[t*y.Stride:][:ScanBlock]
		var u [ScanBlock]float32
		for j, v := range x {
			y[j], u[j] = d[j]*v, dt[j]*v
		}
		if states == 0 {
			continue
		}
		b, c := b.Data[t*b.Stride:], c.Data[t*c.Stride:]
		for n := range states {
			an, hn := a[n*ScanBlock:][:ScanBlock], h[n*ScanBlock:][:ScanBlock]
			for j, v := range hn {
				var bn, cn float32
				if vectors {
					bn, cn = b[n*ScanBlock+j], c[n*ScanBlock+j]
				} else {
					bn, cn = b[n], c[n]
				}
				v = float32(v*scalar.Exp2(dt[j]*an[j])) + float32(u[j]*bn)
				hn[j] = v
				y[j] += float32(v * cn)
			}
		}
	}
}

// checkRepeated is checkMatrix for a matrix whose rows may all be the same one.
func checkRepeated(op, name string, m blas32.General, tokens, states int, vectors bool) {
	cols := states
	if vectors {
		cols *= ScanBlock
	}
	if m.Stride == 0 && m.Rows == tokens {
		m.Rows, m.Stride, tokens = 1, cols, 1
	}
	CheckMatrix(op, name, m, tokens, cols)
}

// scanTiles goes over the vectors of the block, as many states at a time as stay in
// registers and as many tokens as a kernel may take.
func scanTiles(tier isa.Tier, y, dt, x blas32.General, da, h []float32, b, c blas32.General, vectors bool) {
	const maxTokens = 256
	lanes, full := sizesOf[tier].lanes, sizesOf[tier].scanStates
	each := 1 // elements of b and c to a state
	if vectors {
		each = ScanBlock
	}
	for t := 0; t < y.Rows; t += maxTokens {
		tokens := min(maxTokens, y.Rows-t)
		for j := 0; j < ScanBlock; j += lanes {
			dts, xs, ys := &dt.Data[t*dt.Stride+j], &x.Data[t*x.Stride+j], &y.Data[t*y.Stride+j]
			for n := 0; n < len(h)/ScanBlock; {
				at, bc := n*ScanBlock+j, n*each
				if vectors {
					bc += j
				}
				a, hn, bn, cn := &da[ScanBlock+at], &h[at], &b.Data[t*b.Stride+bc], &c.Data[t*c.Stride+bc]
				states := 4
				if !vectors && len(h)/ScanBlock-n >= full {
					states = full
				}
				switch more := n > 0; {
				case vectors && more:
					scanVector4MoreSIMD(tier, tokens, dts, 4*dt.Stride, xs, 4*x.Stride, ys, 4*y.Stride, a, hn, bn, 4*b.Stride, cn, 4*c.Stride)
				case vectors:
					scanVector4SIMD(tier, tokens, dts, 4*dt.Stride, xs, 4*x.Stride, ys, 4*y.Stride, a, hn, bn, 4*b.Stride, cn, 4*c.Stride)
				case states == full && more:
					scanFullMoreSIMD(tier, tokens, dts, 4*dt.Stride, xs, 4*x.Stride, ys, 4*y.Stride, a, hn, bn, 4*b.Stride, cn, 4*c.Stride)
				case states == full:
					scanFullSIMD(tier, tokens, dts, 4*dt.Stride, xs, 4*x.Stride, ys, 4*y.Stride, a, hn, bn, 4*b.Stride, cn, 4*c.Stride)
				case more:
					scan4MoreSIMD(tier, tokens, dts, 4*dt.Stride, xs, 4*x.Stride, ys, 4*y.Stride, a, hn, bn, 4*b.Stride, cn, 4*c.Stride)
				default:
					scan4SIMD(tier, tokens, dts, 4*dt.Stride, xs, 4*x.Stride, ys, 4*y.Stride, a, hn, bn, 4*b.Stride, cn, 4*c.Stride)
				}
				n += states
			}
		}
	}
}

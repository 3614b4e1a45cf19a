package kernel

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel/scalar"
	"github.com/subquad/subquad/internal/mat"
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

// scanTiles goes over the vectors of the block, as many states at a time as the
// registers hold and as many tokens as a kernel may take.
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

// OuterStep runs one token of a recurrence whose state is a matrix and whose decay
// is one number, as in Mamba-2:
//
//	s[i][j] = decay s[i][j] + b[i] x[j]
//	y[j] = sum over i of c[i] s[i][j].
//
// s is [len(b), len(x)]; y overlaps no other argument.
func OuterStep(y []float32, s blas32.General, decay float32, b, c, x []float32) {
	const op = "kernel: OuterStep"
	CheckMatrix(op, "s", s, len(b), len(x))
	CheckLen(op, "c", len(c), len(b))
	CheckLen(op, "y", len(y), len(x))
	if mat.OverlapVectors(y, x) || mat.OverlapVectors(y, Extent(s)) || mat.OverlapVectors(Extent(s), x) {
		Panicf("%s: y or s overlaps an input", op)
	}
	if len(x) == 0 || len(b) == 0 {
		clear(y)
		return
	}
	if tier := isa.Active(); tier != isa.Generic {
		const width = 512 // channels to a kernel call
		for j := 0; j < len(x); j += width {
			outerStepSIMD(tier, min(width, len(x)-j), len(b), &s.Data[j], 4*s.Stride, &b[0], &c[0], &x[j], &y[j], decay)
		}
		return
	}
	clear(y)
	for i, bi := range b {
		for j, v := range s.Data[i*s.Stride:][:len(x)] {
			v = float32(decay*v) + float32(bi*x[j])
			s.Data[i*s.Stride+j] = v
			y[j] += float32(c[i] * v)
		}
	}
}

// Combine is what OuterStep reads with a decay of 1 and an x of 0, to the bit, and
// leaves s as it is:
//
//	y[j] = sum over i of c[i] s[i][j].
//
// s is [len(c), len(y)]; y overlaps no other argument.
func Combine(y []float32, s blas32.General, c []float32) {
	const op = "kernel: Combine"
	CheckMatrix(op, "s", s, len(c), len(y))
	if mat.OverlapVectors(y, c) || mat.OverlapVectors(y, Extent(s)) {
		Panicf("%s: y overlaps an input", op)
	}
	if len(y) == 0 || len(c) == 0 {
		clear(y)
		return
	}
	if tier := isa.Active(); tier != isa.Generic {
		const width = 512 // channels to a kernel call
		for j := 0; j < len(y); j += width {
			combineSIMD(tier, min(width, len(y)-j), len(c), &s.Data[j], 4*s.Stride, &c[0], &y[j])
		}
		return
	}
	clear(y)
	for i, ci := range c {
		for j, v := range s.Data[i*s.Stride:][:len(y)] {
			y[j] += float32(ci * v)
		}
	}
}

// Accumulate runs some tokens of a recurrence whose state is a matrix and which does
// not decay, or whose decay is kept apart:
//
//	s[i][j] += b[t][i] x[t][j]
//	y[t][j] = sum over i of c[t][i] s[i][j].
//
// s is [states, width], x and y are [tokens, width]. bc holds b and c as PackBC
// lays them out. y overlaps no other argument. It costs 4 flop for each token and
// element of s.
func Accumulate(y, s blas32.General, bc []float32, x blas32.General) {
	const op = "kernel: Accumulate"
	tokens, states, width := x.Rows, s.Rows, x.Cols
	CheckMatrix(op, "x", x, tokens, width)
	CheckMatrix(op, "y", y, tokens, width)
	CheckMatrix(op, "s", s, states, width)
	CheckLen(op, "bc", len(bc), 2*tokens*states)
	if mat.Overlap(y, x) || mat.Overlap(y, s) || mat.OverlapVectors(Extent(y), bc) {
		Panicf("%s: y overlaps an input", op)
	}
	tier := isa.Active()
	if states == 0 || tier == isa.Generic {
		for t := range tokens {
			clear(y.Data[t*y.Stride:][:width])
		}
	}
	if width == 0 || tokens == 0 {
		return
	}
	const maxTokens, maxWidth = 64, 256 // to a kernel call; x and y stay in L1
	for t := 0; t < tokens; t += maxTokens {
		n := min(maxTokens, tokens-t)
		for j := 0; j < width; j += maxWidth {
			w := min(maxWidth, width-j)
			for i := 0; i < states; {
				rows := 1
				if states-i >= 4 {
					rows = 4
				}
				from, si, xi, yi := 2*(tokens*i+t*rows), i*s.Stride+j, t*x.Stride+j, t*y.Stride+j
				switch {
				case tier == isa.Generic:
					accumulateGeneric(rows, n, w, s.Data[si:], s.Stride, bc[from:], x.Data[xi:], x.Stride, y.Data[yi:], y.Stride)
				case rows == 4 && i > 0:
					accumulate4MoreSIMD(tier, n, w, &s.Data[si], 4*s.Stride, &bc[from], 32, &x.Data[xi], 4*x.Stride, &y.Data[yi], 4*y.Stride)
				case rows == 4:
					accumulate4SIMD(tier, n, w, &s.Data[si], 4*s.Stride, &bc[from], 32, &x.Data[xi], 4*x.Stride, &y.Data[yi], 4*y.Stride)
				case i > 0:
					accumulate1MoreSIMD(tier, n, w, &s.Data[si], 4*s.Stride, &bc[from], 8, &x.Data[xi], 4*x.Stride, &y.Data[yi], 4*y.Stride)
				default:
					accumulate1SIMD(tier, n, w, &s.Data[si], 4*s.Stride, &bc[from], 8, &x.Data[xi], 4*x.Stride, &y.Data[yi], 4*y.Stride)
				}
				i += rows
			}
		}
	}
}

// PackBC lays b and c, [tokens, states] both, out for Accumulate: four states at a
// time and the last ones singly, of each all tokens, b before c. dst has
// 2 tokens states elements.
func PackBC(dst []float32, b, c blas32.General) {
	const op = "kernel: PackBC"
	tokens, states := b.Rows, b.Cols
	CheckMatrix(op, "b", b, tokens, states)
	CheckMatrix(op, "c", c, tokens, states)
	CheckLen(op, "dst", len(dst), 2*tokens*states)
	whole := states / 4 * 4
	for t := range tokens {
		b, c := b.Data[t*b.Stride:][:states], c.Data[t*c.Stride:][:states]
		for i := 0; i < whole; i += 4 {
			to := dst[2*(tokens*i+4*t):][:8]
			*(*[4]float32)(to) = [4]float32(b[i:])
			*(*[4]float32)(to[4:]) = [4]float32(c[i:])
		}
		for i := whole; i < states; i++ {
			dst[2*(tokens*i+t)], dst[2*(tokens*i+t)+1] = b[i], c[i]
		}
	}
}

func accumulateGeneric(rows, tokens, width int, s []float32, sStride int, bc, x []float32, xStride int, y []float32, yStride int) {
	for t := range tokens {
		for i := range rows {
			b, c := bc[2*rows*t+i], bc[2*rows*t+rows+i]
			for j := range width {
				v := s[i*sStride+j] + float32(b*x[t*xStride+j])
				s[i*sStride+j] = v
				y[t*yStride+j] += float32(c * v)
			}
		}
	}
}

// ScaleRows sets dst[t][i] = scale[t] x[t][i]. dst may be x.
func ScaleRows(dst blas32.General, scale []float32, x blas32.General) {
	const op = "kernel: ScaleRows"
	CheckMatrix(op, "x", x, x.Rows, x.Cols)
	CheckMatrix(op, "dst", dst, x.Rows, x.Cols)
	CheckLen(op, "scale", len(scale), x.Rows)
	if x.Rows == 0 || x.Cols == 0 {
		return
	}
	if tier := isa.Active(); tier != isa.Generic {
		for step, t := max(Chunk/x.Cols, 1), 0; t < x.Rows; t += step {
			for i := 0; i < x.Cols; i += Chunk {
				scaleRowsSIMD(tier, min(step, x.Rows-t), min(Chunk, x.Cols-i), &dst.Data[t*dst.Stride+i], 4*dst.Stride, &x.Data[t*x.Stride+i], 4*x.Stride, &scale[t])
			}
		}
		return
	}
	for t, s := range scale {
		for i, v := range x.Data[t*x.Stride:][:x.Cols] {
			dst.Data[t*dst.Stride+i] = s * v
		}
	}
}

// Prefetch asks for the memory of x, so that it comes while other work is done. It
// changes nothing, and does nothing where a tier has no means for it.
func Prefetch(x []float32) {
	const most = 1024 // lines to a kernel call
	tier := isa.Active()
	if tier == isa.Generic {
		return
	}
	for len(x) > 0 {
		n := min(len(x), prefetchLine*most)
		prefetchSIMD(tier, &x[0], (n+prefetchLine-1)/prefetchLine)
		x = x[n:]
	}
}

// Flush sets x[i] = 0 where |x[i]| < 2^-103, so that a decaying state never
// becomes subnormal, where arithmetic is slow.
func Flush(x []float32) {
	if tier := isa.Active(); tier != isa.Generic {
		flushSIMD(tier, x)
		return
	}
	for i, v := range x {
		if float32(math.Abs(float64(v))) < scalar.Tiny {
			x[i] = 0
		}
	}
}

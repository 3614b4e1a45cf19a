package kernel

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/mat"
)

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
		outerRow(y, s.Data[i*s.Stride:][:len(x)], decay, bi, c[i], x)
	}
}

func outerRow(y, s []float32, decay, b, c float32, x []float32) {
	y, s = y[:len(x)], s[:len(x)]
	for j, u := range x {
		v := float32(decay*s[j]) + float32(b*u)
		s[j] = v
		y[j] += float32(c * v)
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
		add1(y, ci, s.Data[i*s.Stride:][:len(y)])
	}
}

// Accumulate runs some tokens of a recurrence whose state is a matrix and which does
// not decay, or whose decay is kept apart:
//
//	s[i][j] += b[t][i] x[t][j]
//	y[t][j] = sum over i of c[t][i] s[i][j].
//
// s is [states, width], x and y are [tokens, width]. bc is b and c as PackBC
// lays them out. y overlaps no other argument. It costs 4 flop for each token and
// element of s.
func Accumulate(y, s blas32.General, bc []float32, x blas32.General) {
	accumulateScaled(y, s, bc, x, nil)
}

// AccumulateScaled is Accumulate and then y[t][j] *= scale[t].
func AccumulateScaled(y, s blas32.General, bc []float32, x blas32.General, scale []float32) {
	CheckLen("kernel: AccumulateScaled", "scale", len(scale), x.Rows)
	if s.Rows%4 != 0 || s.Rows < 8 || isa.Active() == isa.Generic { // no kernel has both
		accumulateScaled(y, s, bc, x, nil)
		ScaleRows(y, scale, y)
		return
	}
	accumulateScaled(y, s, bc, x, scale)
}

// accumulateScaled scales where it is given scales, while the last states are added.
func accumulateScaled(y, s blas32.General, bc []float32, x blas32.General, scale []float32) {
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
				case scale != nil && i+4 == states:
					accumulate4MoreLastSIMD(tier, n, w, &s.Data[si], 4*s.Stride, &bc[from], 32, &x.Data[xi], 4*x.Stride, &y.Data[yi], 4*y.Stride, &scale[t])
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
		bc, x, y := bc[2*rows*t:][:2*rows], x[t*xStride:][:width], y[t*yStride:][:width]
		if rows == 4 {
			accumulate4Generic(y, (*[8]float32)(bc), x, s, s[sStride:], s[2*sStride:], s[3*sStride:])
			continue
		}
		for i := range rows {
			outerRow(y, s[i*sStride:][:width], 1, bc[i], bc[rows+i], x)
		}
	}
}

func accumulate4Generic(y []float32, bc *[8]float32, x, s0, s1, s2, s3 []float32) {
	x = x[:len(y)]
	s0, s1, s2, s3 = s0[:len(y)], s1[:len(y)], s2[:len(y)], s3[:len(y)]
	b0, b1, b2, b3, c0, c1, c2, c3 := bc[0], bc[1], bc[2], bc[3], bc[4], bc[5], bc[6], bc[7]
	for j, sum := range y {
		u := x[j]
		v := s0[j] + float32(b0*u)
		s0[j] = v
		sum += float32(c0 * v)
		v = s1[j] + float32(b1*u)
		s1[j] = v
		sum += float32(c1 * v)
		v = s2[j] + float32(b2*u)
		s2[j] = v
		sum += float32(c2 * v)
		v = s3[j] + float32(b3*u)
		s3[j] = v
		sum += float32(c3 * v)
		y[j] = sum
	}
}

package kernel

import "github.com/subquad/subquad/internal/isa"

// Butterflies are the steps of Fourier transforms of many sequences at once,
// from which package hyena makes its long convolution. Data are rows: the real
// parts of one element of Lanes sequences, then the imaginary parts, 2 Lanes
// float32. A stage of radix r works in blocks of r*q rows, on rows j, j+q, ...
// of a block for each j.
//
// The layout depends on the tier, which is captured when the value is made. The
// zero value is the generic tier.
type Butterflies struct{ tier isa.Tier }

// NewButterflies returns the butterflies of the active tier.
func NewButterflies() Butterflies { return Butterflies{isa.Active()} }

// Lanes returns how many sequences are transformed at once.
func (b Butterflies) Lanes() int {
	if b.tier == isa.Generic {
		return genericLanes
	}
	return sizesOf[b.tier].lanes
}

// callRows is how many rows one kernel call goes over: 64 KiB.
func (b Butterflies) callRows() int { return 64 << 10 / (8 * b.Lanes()) }

// Forward runs a stage of radix 2, 3, 4 or 5 of decimation in frequency, in
// place. In each of blocks blocks of radix*q rows, the first beginning at x[0],
// for j < count:
//
//	y[k*q+j] = tw[j][k] * sum over p of x[p*q+j] e^(-2 pi i p k / radix),
//
// tw[j][0] being 1 and left out: tw has radix-1 complex numbers (real,
// imaginary) for each j, the same for every block.
func (b Butterflies) Forward(radix int, x []float32, q, count, blocks int, tw []float32) {
	b.stage("kernel: Butterflies.Forward", false, radix, x, q, count, blocks, tw)
}

// Inverse runs a stage of decimation in time, the conjugate transpose of Forward:
//
//	y[p*q+j] = sum over k of conj(tw[j][k]) x[k*q+j] e^(2 pi i p k / radix).
func (b Butterflies) Inverse(radix int, x []float32, q, count, blocks int, tw []float32) {
	b.stage("kernel: Butterflies.Inverse", true, radix, x, q, count, blocks, tw)
}

func (b Butterflies) stage(op string, inverse bool, radix int, x []float32, q, count, blocks int, tw []float32) {
	if count == 0 || blocks == 0 {
		return
	}
	if radix < 2 || radix > 5 || count < 0 || blocks < 0 || count > q {
		Panicf("%s: radix %d, q %d, count %d, blocks %d", op, radix, q, count, blocks)
	}
	row := 2 * b.Lanes()
	CheckAtLeast(op, "x", len(x), (((blocks-1)*radix+radix-1)*q+count)*row)
	CheckAtLeast(op, "tw", len(tw), 2*count*(radix-1))
	perCall := max(b.callRows()/radix, 1)
	for from := 0; from < count; from += perCall {
		n := min(perCall, count-from)
		several := max(perCall/n, 1)
		for block := 0; block < blocks; block += several {
			at := (block*radix*q + from) * row
			b.stageCall(inverse, radix, x[at:], q, n, min(several, blocks-block), tw[2*from*(radix-1):])
		}
	}
}

func (b Butterflies) stageCall(inverse bool, radix int, x []float32, q, count, blocks int, tw []float32) {
	if b.tier == isa.Generic {
		for block := range blocks {
			at := block * radix * q
			if inverse {
				inverseGeneric(radix, x[at*16:], q, count, tw)
			} else {
				forwardGeneric(radix, x[at*16:], q, count, tw)
			}
		}
		return
	}
	qb := 8 * b.Lanes() * q
	switch {
	case radix == 4 && !inverse:
		fftForward4SIMD(b.tier, &x[0], qb, count, blocks, radix*qb, &tw[0])
	case radix == 4:
		fftInverse4SIMD(b.tier, &x[0], qb, count, blocks, radix*qb, &tw[0])
	case radix == 3 && !inverse:
		fftForward3SIMD(b.tier, &x[0], qb, count, blocks, radix*qb, &tw[0])
	case radix == 3:
		fftInverse3SIMD(b.tier, &x[0], qb, count, blocks, radix*qb, &tw[0])
	case radix == 5 && !inverse:
		fftForward5SIMD(b.tier, &x[0], qb, count, blocks, radix*qb, &tw[0])
	case radix == 5:
		fftInverse5SIMD(b.tier, &x[0], qb, count, blocks, radix*qb, &tw[0])
	case !inverse:
		fftForward2SIMD(b.tier, &x[0], qb, count, blocks, radix*qb, &tw[0])
	default:
		fftInverse2SIMD(b.tier, &x[0], qb, count, blocks, radix*qb, &tw[0])
	}
}

// First is the first forward stage, of radix 4, in the ring where z^n = i, from
// real rows of Lanes elements, stride apart in u, of which the last 4-valid
// quarters are zero (valid is 2, 3 or 4). For j < count:
//
//	y[k*q+j] = tw[j][k] * sum over p < valid of e^(i pi p / 8) u[p*q+j] e^(-2 pi i p k / 4),
//
// y written to x. tw has four complex numbers for each j. u must not overlap x.
func (b Butterflies) First(valid int, x []float32, q, count int, u []float32, stride int, tw []float32) {
	b.outer("kernel: Butterflies.First", true, valid, x, q, count, u, stride, tw)
}

// Last is the last inverse stage, of radix 4, in the ring where z^n = i: the
// real parts of the first valid quarters (2, 3 or 4) of the result go to rows
// of u. For j < count:
//
//	u[p*q+j] = Re e^(-i pi p / 8) sum over k of conj(tw[j][k]) x[k*q+j] e^(2 pi i p k / 4).
func (b Butterflies) Last(valid int, x []float32, q, count int, u []float32, stride int, tw []float32) {
	b.outer("kernel: Butterflies.Last", false, valid, x, q, count, u, stride, tw)
}

func (b Butterflies) outer(op string, first bool, valid int, x []float32, q, count int, u []float32, stride int, tw []float32) {
	if count == 0 {
		return
	}
	lanes := b.Lanes()
	if valid < 2 || valid > 4 || count < 0 || count > q || stride < lanes {
		Panicf("%s: valid %d, q %d, count %d, stride %d", op, valid, q, count, stride)
	}
	CheckAtLeast(op, "x", len(x), (3*q+count)*2*lanes)
	CheckAtLeast(op, "u", len(u), ((valid-1)*q+count-1)*stride+lanes)
	CheckAtLeast(op, "tw", len(tw), 8*count)
	perCall := b.callRows() / 4
	for from := 0; from < count; from += perCall {
		n := min(perCall, count-from)
		xs, us, ws := x[from*2*lanes:], u[from*stride:], tw[8*from:]
		if b.tier == isa.Generic {
			if first {
				firstGeneric(valid, xs, q, n, us, stride, ws)
			} else {
				lastGeneric(valid, xs, q, n, us, stride, ws)
			}
			continue
		}
		qb := 8 * lanes * q
		switch {
		case valid == 4 && first:
			fftFirst4SIMD(b.tier, &xs[0], qb, &us[0], 4*stride, 4*stride*q, n, &ws[0])
		case valid == 4:
			fftLast4SIMD(b.tier, &xs[0], qb, &us[0], 4*stride, 4*stride*q, n, &ws[0])
		case valid == 3 && first:
			fftFirst3SIMD(b.tier, &xs[0], qb, &us[0], 4*stride, 4*stride*q, n, &ws[0])
		case valid == 3:
			fftLast3SIMD(b.tier, &xs[0], qb, &us[0], 4*stride, 4*stride*q, n, &ws[0])
		case first:
			fftFirst2SIMD(b.tier, &xs[0], qb, &us[0], 4*stride, 4*stride*q, n, &ws[0])
		default:
			fftLast2SIMD(b.tier, &xs[0], qb, &us[0], 4*stride, 4*stride*q, n, &ws[0])
		}
	}
}

// Center is the turning point of a convolution: on each of blocks blocks of
// four rows the last forward stage (radix 4, q = 1), the product with the rows
// of spectrum, and the first inverse stage.
func (b Butterflies) Center(x, spectrum []float32, blocks int) {
	const op = "kernel: Butterflies.Center"
	lanes := b.Lanes()
	CheckAtLeast(op, "x", len(x), blocks*8*lanes)
	CheckAtLeast(op, "spectrum", len(spectrum), blocks*8*lanes)
	perCall := b.callRows() / 8
	for from := 0; from < blocks; from += perCall {
		n, at := min(perCall, blocks-from), from*8*lanes
		if b.tier == isa.Generic {
			centerGeneric(x[at:], spectrum[at:], n)
		} else {
			fftCenterSIMD(b.tier, &x[at], &spectrum[at], n)
		}
	}
}

// Ring multiplies rows whose lanes are the coefficients of a polynomial modulo
// z^Lanes - zeta, in place. A row of spectrum is 4 Lanes float32: the real parts
// of zeta times the other factor, of the factor itself, and the imaginary parts
// of both; zeta belongs to the row.
func (b Butterflies) Ring(x, spectrum []float32, count int) {
	const op = "kernel: Butterflies.Ring"
	lanes := b.Lanes()
	CheckAtLeast(op, "x", len(x), count*2*lanes)
	CheckAtLeast(op, "spectrum", len(spectrum), count*4*lanes)
	perCall := b.callRows() / 4
	for from := 0; from < count; from += perCall {
		n, x, s := min(perCall, count-from), x[from*2*lanes:], spectrum[from*4*lanes:]
		if b.tier == isa.Generic {
			ringGeneric(x, s, n)
		} else {
			fftRingSIMD(b.tier, &x[0], &s[0], n)
		}
	}
}

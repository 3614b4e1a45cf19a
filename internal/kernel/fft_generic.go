package kernel

import "math"

// The portable bodies of Butterflies, eight lanes wide, in scalars that the compiler keeps
// in registers: complex numbers in arrays it does not. fft_plain_test.go has them as they
// read in the documentation, and they have its bits.

const genericLanes = 8

// fftRow is a row: real parts, then imaginary ones.
type fftRow = [2 * genericLanes]float32

func rowAt(x []float32, row int) *fftRow { return (*fftRow)(x[row*2*genericLanes:]) }

// turned is the product of two complex numbers, without fusing.
func turned(re, im, wr, wi float32) (float32, float32) {
	return float32(re*wr) - float32(im*wi), float32(re*wi) + float32(im*wr)
}

// turnedBack is the product with the conjugate.
func turnedBack(re, im, wr, wi float32) (float32, float32) {
	return float32(re*wr) + float32(im*wi), float32(im*wr) - float32(re*wi)
}

// roots[r][m] = e^(-2 pi i m / r), and eighth[p] = e^(i pi p / 8).
var roots, eighth = func() (roots [6][]complex64, eighth [4]complex64) {
	for r := range roots {
		for m := range r {
			s, c := math.Sincos(-2 * math.Pi * float64(m) / float64(r))
			roots[r] = append(roots[r], complex(float32(c), float32(s)))
		}
	}
	for p := range eighth {
		s, c := math.Sincos(math.Pi * float64(p) / 8)
		eighth[p] = complex(float32(c), float32(s))
	}
	return
}()

func forwardGeneric(radix int, x []float32, q, count int, tw []float32) {
	if radix != 4 {
		for j := range count {
			sumsGeneric(radix, x[j*2*genericLanes:], q, false)
			for k := 1; k < radix; k++ {
				w, row := tw[2*(j*(radix-1)+k-1):], rowAt(x, k*q+j)
				for i := range genericLanes {
					row[i], row[genericLanes+i] = turned(row[i], row[genericLanes+i], w[0], w[1])
				}
			}
		}
		return
	}
	for j := range count {
		x0, x1, x2, x3, w := rowAt(x, j), rowAt(x, q+j), rowAt(x, 2*q+j), rowAt(x, 3*q+j), (*[6]float32)(tw[6*j:])
		for i := range genericLanes {
			ar, br := x0[i]+x2[i], x0[i]-x2[i]
			ai, bi := x0[genericLanes+i]+x2[genericLanes+i], x0[genericLanes+i]-x2[genericLanes+i]
			cr, dr := x1[i]+x3[i], x1[i]-x3[i]
			ci, di := x1[genericLanes+i]+x3[genericLanes+i], x1[genericLanes+i]-x3[genericLanes+i]
			x0[i], x0[genericLanes+i] = ar+cr, ai+ci
			x1[i], x1[genericLanes+i] = turned(br+di, bi-dr, w[0], w[1])
			x2[i], x2[genericLanes+i] = turned(ar-cr, ai-ci, w[2], w[3])
			x3[i], x3[genericLanes+i] = turned(br-di, bi+dr, w[4], w[5])
		}
	}
}

func inverseGeneric(radix int, x []float32, q, count int, tw []float32) {
	if radix != 4 {
		for j := range count {
			for k := 1; k < radix; k++ {
				w, row := tw[2*(j*(radix-1)+k-1):], rowAt(x, k*q+j)
				for i := range genericLanes {
					row[i], row[genericLanes+i] = turnedBack(row[i], row[genericLanes+i], w[0], w[1])
				}
			}
			sumsGeneric(radix, x[j*2*genericLanes:], q, true)
		}
		return
	}
	for j := range count {
		x0, x1, x2, x3, w := rowAt(x, j), rowAt(x, q+j), rowAt(x, 2*q+j), rowAt(x, 3*q+j), (*[6]float32)(tw[6*j:])
		for i := range genericLanes {
			pr, pi := turnedBack(x2[i], x2[genericLanes+i], w[2], w[3])
			ar, br := x0[i]+pr, x0[i]-pr
			ai, bi := x0[genericLanes+i]+pi, x0[genericLanes+i]-pi
			pr, pi = turnedBack(x1[i], x1[genericLanes+i], w[0], w[1])
			sr, si := turnedBack(x3[i], x3[genericLanes+i], w[4], w[5])
			cr, dr, ci, di := pr+sr, pr-sr, pi+si, pi-si
			x0[i], x0[genericLanes+i] = ar+cr, ai+ci
			x1[i], x1[genericLanes+i] = br-di, bi+dr
			x2[i], x2[genericLanes+i] = ar-cr, ai-ci
			x3[i], x3[genericLanes+i] = br+di, bi-dr
		}
	}
}

// sumsGeneric sets rows k*q of x to the sums over p of rows p*q times
// e^(-+2 pi i p k / radix), of the few stages of another radix than 4.
func sumsGeneric(radix int, x []float32, q int, inverse bool) {
	var y [5]fftRow
	for k := range radix {
		for p := range radix {
			root, row := roots[radix][p*k%radix], rowAt(x, p*q)
			wr, wi := real(root), imag(root)
			if inverse {
				wi = -wi
			}
			for i := range genericLanes {
				re, im := turned(row[i], row[genericLanes+i], wr, wi)
				y[k][i] += re
				y[k][genericLanes+i] += im
			}
		}
	}
	for k := range radix {
		*rowAt(x, k*q) = y[k]
	}
}

func firstGeneric(valid int, x []float32, q, count int, u []float32, stride int, tw []float32) {
	var zero [genericLanes]float32
	e1r, e1i, e2r, e2i, e3r, e3i := real(eighth[1]), imag(eighth[1]), real(eighth[2]), imag(eighth[2]), real(eighth[3]), imag(eighth[3])
	for j := range count {
		var in [4]*[genericLanes]float32
		for p := range in {
			if in[p] = &zero; p < valid {
				in[p] = (*[genericLanes]float32)(u[(p*q+j)*stride:])
			}
		}
		u0, u1, u2, u3, w := in[0], in[1], in[2], in[3], (*[8]float32)(tw[8*j:])
		x0, x1, x2, x3 := rowAt(x, j), rowAt(x, q+j), rowAt(x, 2*q+j), rowAt(x, 3*q+j)
		for i := range genericLanes {
			v0, v1, v2, v3 := u0[i], u1[i], u2[i], u3[i]
			pr, pi, sr, si := float32(v2*e2r), float32(v2*e2i), float32(v3*e3r), float32(v3*e3i)
			qr, qi, zi := float32(v1*e1r), float32(v1*e1i), float32(v0*0)
			ar, br, ai, bi := v0+pr, v0-pr, zi+pi, zi-pi
			cr, dr, ci, di := qr+sr, qr-sr, qi+si, qi-si
			x0[i], x0[genericLanes+i] = turned(ar+cr, ai+ci, w[0], w[1])
			x1[i], x1[genericLanes+i] = turned(br+di, bi-dr, w[2], w[3])
			x2[i], x2[genericLanes+i] = turned(ar-cr, ai-ci, w[4], w[5])
			x3[i], x3[genericLanes+i] = turned(br-di, bi+dr, w[6], w[7])
		}
	}
}

func lastGeneric(valid int, x []float32, q, count int, u []float32, stride int, tw []float32) {
	var unread [genericLanes]float32
	e1r, e1i, e2r, e2i, e3r, e3i := real(eighth[1]), imag(eighth[1]), real(eighth[2]), imag(eighth[2]), real(eighth[3]), imag(eighth[3])
	for j := range count {
		var out [4]*[genericLanes]float32
		for p := range out {
			if out[p] = &unread; p < valid {
				out[p] = (*[genericLanes]float32)(u[(p*q+j)*stride:])
			}
		}
		u0, u1, u2, u3, w := out[0], out[1], out[2], out[3], (*[8]float32)(tw[8*j:])
		x0, x1, x2, x3 := rowAt(x, j), rowAt(x, q+j), rowAt(x, 2*q+j), rowAt(x, 3*q+j)
		for i := range genericLanes {
			pr, pi := turnedBack(x0[i], x0[genericLanes+i], w[0], w[1])
			sr, si := turnedBack(x2[i], x2[genericLanes+i], w[4], w[5])
			ar, br, ai, bi := pr+sr, pr-sr, pi+si, pi-si
			pr, pi = turnedBack(x1[i], x1[genericLanes+i], w[2], w[3])
			sr, si = turnedBack(x3[i], x3[genericLanes+i], w[6], w[7])
			cr, dr, ci, di := pr+sr, pr-sr, pi+si, pi-si
			u0[i] = ar + cr + float32((ai+ci)*0)
			u1[i] = float32((br-di)*e1r) + float32((bi+dr)*e1i)
			u2[i] = float32((ar-cr)*e2r) + float32((ai-ci)*e2i)
			u3[i] = float32((br+di)*e3r) + float32((bi-dr)*e3i)
		}
	}
}

func centerGeneric(x, spectrum []float32, blocks int) {
	for block := range blocks {
		x0, x1, x2, x3 := rowAt(x, 4*block), rowAt(x, 4*block+1), rowAt(x, 4*block+2), rowAt(x, 4*block+3)
		s0, s1, s2, s3 := rowAt(spectrum, 4*block), rowAt(spectrum, 4*block+1), rowAt(spectrum, 4*block+2), rowAt(spectrum, 4*block+3)
		for i := range genericLanes {
			ar, br := x0[i]+x2[i], x0[i]-x2[i]
			ai, bi := x0[genericLanes+i]+x2[genericLanes+i], x0[genericLanes+i]-x2[genericLanes+i]
			cr, dr := x1[i]+x3[i], x1[i]-x3[i]
			ci, di := x1[genericLanes+i]+x3[genericLanes+i], x1[genericLanes+i]-x3[genericLanes+i]
			y0r, y0i := turned(ar+cr, ai+ci, s0[i], s0[genericLanes+i])
			y1r, y1i := turned(br+di, bi-dr, s1[i], s1[genericLanes+i])
			y2r, y2i := turned(ar-cr, ai-ci, s2[i], s2[genericLanes+i])
			y3r, y3i := turned(br-di, bi+dr, s3[i], s3[genericLanes+i])
			ar, br, ai, bi = y0r+y2r, y0r-y2r, y0i+y2i, y0i-y2i
			cr, dr, ci, di = y1r+y3r, y1r-y3r, y1i+y3i, y1i-y3i
			x0[i], x0[genericLanes+i] = ar+cr, ai+ci
			x1[i], x1[genericLanes+i] = br-di, bi+dr
			x2[i], x2[genericLanes+i] = ar-cr, ai-ci
			x3[i], x3[genericLanes+i] = br+di, bi-dr
		}
	}
}

func ringGeneric(x, spectrum []float32, count int) {
	const n = genericLanes
	for r := range count {
		row, s := rowAt(x, r), (*[4 * n]float32)(spectrum[r*4*n:])
		v := *row
		for i := range n {
			var re, im float32
			for phase := range n {
				a, b := turned(v[phase], v[n+phase], s[n-phase+i], s[3*n-phase+i])
				re += a
				im += b
			}
			row[i], row[n+i] = re, im
		}
	}
}

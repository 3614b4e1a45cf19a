package kernel

import "math"

// The portable bodies of Butterflies, eight lanes wide. Sums over p and k are
// written out as they stand in the comments there, with the roots of unity of a
// radix in a table: slow, and easy to check.

const genericLanes = 8

// complexRow is a row as complex numbers.
type complexRow [genericLanes]complex64

func loadRow(x []float32, row int) (v complexRow) {
	re := x[row*2*genericLanes:][:2*genericLanes]
	for i := range v {
		v[i] = complex(re[i], re[genericLanes+i])
	}
	return v
}

func storeRow(x []float32, row int, v complexRow) {
	re := x[row*2*genericLanes:][:2*genericLanes]
	for i, c := range v {
		re[i], re[genericLanes+i] = real(c), imag(c)
	}
}

// cmul is a complex product without fusing.
func cmul(a, b complex64) complex64 {
	return complex(float32(real(a)*real(b))-float32(imag(a)*imag(b)), float32(real(a)*imag(b))+float32(imag(a)*real(b)))
}

func conj(c complex64) complex64 { return complex(real(c), -imag(c)) }

func (v *complexRow) scale(c complex64) {
	for i := range v {
		v[i] = cmul(v[i], c)
	}
}

func (v *complexRow) addScaled(w *complexRow, c complex64) {
	for i := range v {
		v[i] += cmul(w[i], c)
	}
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

// dft returns y[k] = sum over p of x[p] e^(-+2 pi i p k / radix).
func dft(x []complexRow, inverse bool) (y [5]complexRow) {
	radix := len(x)
	if radix == 4 {
		return dft4(x, inverse)
	}
	for k := range radix {
		for p := range radix {
			root := roots[radix][p*k%radix]
			if inverse {
				root = conj(root)
			}
			y[k].addScaled(&x[p], root)
		}
	}
	return y
}

// dft4 is dft for radix 4, whose roots are 1, -+i, -1 and +-i.
func dft4(x []complexRow, inverse bool) (y [5]complexRow) {
	for i := range genericLanes {
		a, b := x[0][i]+x[2][i], x[0][i]-x[2][i]
		c, d := x[1][i]+x[3][i], x[1][i]-x[3][i]
		d = complex(imag(d), -real(d)) // -i d
		if inverse {
			d = -d
		}
		y[0][i], y[1][i], y[2][i], y[3][i] = a+c, b+d, a-c, b-d
	}
	return y
}

func twiddleAt(tw []float32, i int) complex64 { return complex(tw[2*i], tw[2*i+1]) }

func forwardGeneric(radix int, x []float32, q, count int, tw []float32) {
	var in [5]complexRow
	for j := range count {
		for p := range radix {
			in[p] = loadRow(x, p*q+j)
		}
		y := dft(in[:radix], false)
		for k := range radix {
			if k > 0 {
				y[k].scale(twiddleAt(tw, j*(radix-1)+k-1))
			}
			storeRow(x, k*q+j, y[k])
		}
	}
}

func inverseGeneric(radix int, x []float32, q, count int, tw []float32) {
	var in [5]complexRow
	for j := range count {
		for k := range radix {
			in[k] = loadRow(x, k*q+j)
			if k > 0 {
				in[k].scale(conj(twiddleAt(tw, j*(radix-1)+k-1)))
			}
		}
		y := dft(in[:radix], true)
		for p := range radix {
			storeRow(x, p*q+j, y[p])
		}
	}
}

func firstGeneric(valid int, x []float32, q, count int, u []float32, stride int, tw []float32) {
	for j := range count {
		var in [4]complexRow
		for p := range valid {
			for i, v := range u[(p*q+j)*stride:][:genericLanes] {
				in[p][i] = complex(v*real(eighth[p]), v*imag(eighth[p]))
			}
		}
		y := dft(in[:], false)
		for k := range 4 {
			y[k].scale(twiddleAt(tw, 4*j+k))
			storeRow(x, k*q+j, y[k])
		}
	}
}

func lastGeneric(valid int, x []float32, q, count int, u []float32, stride int, tw []float32) {
	for j := range count {
		var in [4]complexRow
		for k := range in {
			in[k] = loadRow(x, k*q+j)
			in[k].scale(conj(twiddleAt(tw, 4*j+k)))
		}
		y := dft(in[:], true)
		for p := range valid {
			y[p].scale(conj(eighth[p]))
			for i, v := range y[p] {
				u[(p*q+j)*stride+i] = real(v)
			}
		}
	}
}

func centerGeneric(x, spectrum []float32, blocks int) {
	for block := range blocks {
		var in [4]complexRow
		for p := range in {
			in[p] = loadRow(x, 4*block+p)
		}
		y := dft(in[:], false)
		for k := range in {
			s := loadRow(spectrum, 4*block+k)
			for i := range s {
				in[k][i] = cmul(y[k][i], s[i])
			}
		}
		y = dft(in[:], true)
		for p := range in {
			storeRow(x, 4*block+p, y[p])
		}
	}
}

func ringGeneric(x, spectrum []float32, count int) {
	const n = genericLanes
	for row := range count {
		v := loadRow(x, row)
		s := spectrum[row*4*n:][:4*n]
		var y complexRow
		for phase, c := range v {
			for i := range y {
				at := n - phase + i
				y[i] += cmul(c, complex(s[at], s[2*n+at]))
			}
		}
		storeRow(x, row, y)
	}
}

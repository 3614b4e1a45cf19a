package kernel

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// The portable bodies of Butterflies as they read in their documentation: sums over p and k
// written out, with the roots of unity of a radix in a table. Those that run are
// fft_generic.go's, in scalars, with the same bits.

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

func forwardPlain(radix int, x []float32, q, count int, tw []float32) {
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

func inversePlain(radix int, x []float32, q, count int, tw []float32) {
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

func firstPlain(valid int, x []float32, q, count int, u []float32, stride int, tw []float32) {
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

func lastPlain(valid int, x []float32, q, count int, u []float32, stride int, tw []float32) {
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

func centerPlain(x, spectrum []float32, blocks int) {
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

func ringPlain(x, spectrum []float32, count int) {
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

// TestGenericButterflies compares the bits.
func TestGenericButterflies(t *testing.T) {
	const row = 2 * genericLanes
	numbers := func(seed uint64, n int) []float32 {
		x := random(seed, n)
		for i := range x {
			switch i % 17 {
			case 3:
				x[i] = 0
			case 7:
				x[i] = float32(math.Copysign(0, -1))
			case 11:
				x[i] *= 1e-20
			}
		}
		return x
	}
	same := func(what string, got, want []float32) {
		t.Helper()
		for i := range want {
			if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
				t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], want[i])
			}
		}
	}
	for _, s := range []struct{ q, count int }{{1, 1}, {3, 2}, {7, 7}} {
		for radix := 2; radix <= 5; radix++ {
			x, tw := numbers(1, radix*s.q*row), numbers(2, 2*(radix-1)*s.count)
			y := slices.Clone(x)
			forwardGeneric(radix, x, s.q, s.count, tw)
			forwardPlain(radix, y, s.q, s.count, tw)
			same(fmt.Sprintf("forward %d %v", radix, s), x, y)
			inverseGeneric(radix, x, s.q, s.count, tw)
			inversePlain(radix, y, s.q, s.count, tw)
			same(fmt.Sprintf("inverse %d %v", radix, s), x, y)
		}
		for valid := 2; valid <= 4; valid++ {
			const stride = genericLanes + 3
			x, u, tw := numbers(3, 4*s.q*row), numbers(4, 4*s.q*stride), numbers(5, 8*s.count)
			y, v := slices.Clone(x), slices.Clone(u)
			firstGeneric(valid, x, s.q, s.count, u, stride, tw)
			firstPlain(valid, y, s.q, s.count, v, stride, tw)
			same(fmt.Sprintf("first %d %v", valid, s), x, y)
			lastGeneric(valid, x, s.q, s.count, u, stride, tw)
			lastPlain(valid, y, s.q, s.count, v, stride, tw)
			same(fmt.Sprintf("last %d %v", valid, s), u, v)
		}
		x, spectrum := numbers(6, 4*s.q*row), numbers(7, 4*s.q*2*row)
		y := slices.Clone(x)
		centerGeneric(x, spectrum, s.q)
		centerPlain(y, spectrum, s.q)
		same("center", x, y)
		ringGeneric(x, spectrum, 4*s.q)
		ringPlain(y, spectrum, 4*s.q)
		same("ring", x, y)
	}
}

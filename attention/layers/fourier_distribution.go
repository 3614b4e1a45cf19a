package layers

import (
	"math"
	"math/cmplx"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// Distribution is what a FourierHead makes of one row: a density over [-1, 1] in closed
// form, in float64. It is a value of its own and safe for concurrent use.
type Distribution struct {
	a []complex128 // a_0 … a_N
	// c_k = sum_j conj(a_j) a_(j+k), the autocorrelation of a.
	c []complex128
}

// Distribution returns the distribution of a row x [D]. It takes N² / 2 complex products.
// Errors match ErrShape.
func (h *FourierHead) Distribution(x []float32) (*Distribution, error) {
	if err := check.Vector(ErrShape, "layers", "x", x, h.cfg.Dim, "Dim"); err != nil {
		return nil, err
	}
	n := h.cfg.Frequencies + 1
	row := mat.New(1, 2*n)
	h.linear.Forward(row, mat.Vector(x))
	d := &Distribution{a: make([]complex128, n), c: make([]complex128, n)}
	for l := range d.a {
		d.a[l] = complex(float64(row.Data[l]), float64(row.Data[n+l]))
	}
	for k := range d.c {
		for j := range n - k {
			d.c[k] += cmplx.Conj(d.a[j]) * d.a[j+k]
		}
	}
	return d, nil
}

// Coefficients returns a copy of the autocorrelation c_0 … c_N, which is not divided by c_0:
// pdf(z) = 1/2 + Re sum over k >= 1 of (c_k / c_0) e^(i pi k z).
func (d *Distribution) Coefficients() []complex128 { return append([]complex128(nil), d.c...) }

// uniform tells whether all coefficients are 0.
func (d *Distribution) uniform() bool { return real(d.c[0]) == 0 }

// Density returns pdf(z), 0 outside [-1, 1], in N complex products.
func (d *Distribution) Density(z float64) float64 {
	switch {
	case z < -1 || z > 1:
		return 0
	case d.uniform():
		return 0.5
	}
	// Horner's rule.
	e, sum := cmplx.Exp(complex(0, math.Pi*z)), complex128(0)
	for l := len(d.a) - 1; l >= 0; l-- {
		sum = sum*e + d.a[l]
	}
	return (real(sum)*real(sum) + imag(sum)*imag(sum)) / (2 * real(d.c[0]))
}

// CDF returns the integral of the density from -1 to z,
//
//	(z + 1)/2 + Re sum over k >= 1 of (c_k / c_0) (e^(i pi k z) - (-1)^k) / (i pi k),
//
// 0 below -1 and 1 above 1, in N complex exponentials.
func (d *Distribution) CDF(z float64) float64 {
	switch {
	case z <= -1:
		return 0
	case z >= 1:
		return 1
	}
	sum := (z + 1) / 2
	if d.uniform() {
		return sum
	}
	sign := 1.0
	for k := 1; k < len(d.c); k++ {
		sign = -sign
		angle := math.Pi * float64(k)
		wave := (cmplx.Exp(complex(0, angle*z)) - complex(sign, 0)) / complex(0, angle)
		sum += real(d.c[k]*wave) / real(d.c[0])
	}
	return max(0, min(sum, 1))
}

// halvings is how often Quantile halves [-1, 1]: to the last bit of z.
const halvings = 60

// Quantile returns the z whose CDF is u, from 0 to 1, by bisection: of a uniform random u
// a sample of the distribution. NaN gives NaN.
func (d *Distribution) Quantile(u float64) float64 {
	if u != u {
		return u
	}
	low, high := -1.0, 1.0
	for range halvings {
		if middle := (low + high) / 2; d.CDF(middle) < u {
			low = middle
		} else {
			high = middle
		}
	}
	return (low + high) / 2
}

// Roughness returns the regulariser of the paper for rows x [n, D], without its factor
// gamma (1e-6 there): the mean over the rows of 2 sum over k of 2 pi² k² |c_k|². Errors match
// ErrShape.
func (h *FourierHead) Roughness(x blas32.General) (float64, error) {
	if err := check.Matrix(ErrShape, "layers", "x", x, -1, h.cfg.Dim, "Dim"); err != nil {
		return 0, err
	}
	var sum float64
	for t := range x.Rows {
		d, err := h.Distribution(mat.Row(x, t))
		if err != nil {
			return 0, err
		}
		for k, c := range d.c {
			square := real(c)*real(c) + imag(c)*imag(c)
			sum += 4 * math.Pi * math.Pi * float64(k) * float64(k) * square
		}
	}
	return sum / float64(max(x.Rows, 1)), nil
}

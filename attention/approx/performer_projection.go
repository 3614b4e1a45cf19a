package approx

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
)

// A Projection that is made is part of the fingerprint of states, and so the same on every port,
// to the bit: products are rounded before they are added (the conversions to float64 forbid the
// compiler to fuse them), sums have one order, and of package math only what is exact or
// correctly rounded is called; its Log, Sin and Cos are other code on some ports.

// maxMade bounds the multiply-adds by which a projection is made: some seconds.
const maxMade = 1 << 30

// orthogonal makes a projection; NewPerformer tells how.
func orthogonal(features, dim int, seed uint64) blas32.General {
	from := normals{random: rand.NewPCG(seed, 0)}
	w := make([][]float64, features)
	for first := 0; first < features; first += dim {
		block := make([][]float64, dim)
		for i := range block {
			block[i] = make([]float64, dim)
			for j := range block[i] {
				block[i][j] = from.next()
			}
		}
		for i, row := range block {
			for range 2 { // Gram and Schmidt, again for what rounding has left
				for _, before := range block[:i] {
					part := product(row, before)
					for j, x := range before {
						row[j] -= float64(part * x)
					}
				}
			}
			lengthen(row, 1/math.Sqrt(product(row, row)))
		}
		copy(w[first:], block)
	}
	m := mat.New(features, dim)
	for i, row := range w {
		length := 0.0
		for range dim {
			x := from.next()
			length += float64(x * x)
		}
		lengthen(row, math.Sqrt(length))
		for j, x := range row {
			mat.Row(m, i)[j] = float32(x)
		}
	}
	return m
}

// product is a.b, in four sums.
func product(a, b []float64) float64 {
	var sum [4]float64
	for len(a) >= 4 && len(b) >= 4 {
		sum[0] += float64(a[0] * b[0])
		sum[1] += float64(a[1] * b[1])
		sum[2] += float64(a[2] * b[2])
		sum[3] += float64(a[3] * b[3])
		a, b = a[4:], b[4:]
	}
	for i, x := range a {
		sum[i] += float64(x * b[i])
	}
	return (sum[0] + sum[1]) + (sum[2] + sum[3])
}

func lengthen(row []float64, by float64) {
	for i := range row {
		row[i] *= by
	}
}

// normals are normal variates, by Box and Muller (1958).
type normals struct {
	random *rand.PCG
	sine   float64 // the second of a pair
	second bool    // whether it comes next
}

func (n *normals) next() float64 {
	if n.second {
		n.second = false
		return n.sine
	}
	length := math.Sqrt(-2 * logarithm(n.uniform()))
	cos, sin := cosSinTurn(n.uniform())
	n.sine, n.second = length*sin, true
	return length * cos
}

// uniform is in (0, 1].
func (n *normals) uniform() float64 { return (float64(n.random.Uint64()>>11) + 0.5) / (1 << 53) }

// quarterRoot is dim^(-1/4).
func quarterRoot(dim int) float32 { return float32(1 / math.Sqrt(math.Sqrt(float64(dim)))) }

// logarithm is ln x = e ln 2 + 2 atanh s with x = 2^e m, s = (m-1) / (m+1) and m between
// sqrt(1/2) and sqrt(2), for x > 0.
func logarithm(x float64) float64 {
	m, e := math.Frexp(x)
	if m < math.Sqrt2/2 {
		m, e = 2*m, e-1
	}
	s := (m - 1) / (m + 1)
	s2 := float64(s * s)
	p := 0.0
	for k := 21; k >= 3; k -= 2 {
		p = float64(s2 * (1/float64(k) + p))
	}
	return float64(float64(e)*math.Ln2) + (float64(2*s*p) + 2*s)
}

// cosSinTurn is the cosine and the sine of 2 pi u, for u from 0 to 1: the nearest quarter turn,
// and the series of the rest, which is pi/4 at the most.
func cosSinTurn(u float64) (cos, sin float64) {
	quarter := math.Floor(4*u + 0.5)
	x := float64(2 * math.Pi * (u - quarter/4))
	x2 := float64(x * x)
	for k := 17; k >= 3; k -= 2 {
		sin = float64(x2*(1-sin)) / float64(k*(k-1))
		cos = float64(x2*(1-cos)) / float64((k-1)*(k-2))
	}
	cos, sin = 1-cos, x-float64(x*sin)
	switch int(quarter) & 3 {
	case 1:
		return -sin, cos
	case 2:
		return -cos, -sin
	case 3:
		return sin, -cos
	}
	return cos, sin
}

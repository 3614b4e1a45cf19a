package hyena

import (
	"math"
	"math/cmplx"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat/mattest"
)

var random = mattest.Random

func TestFastSize(t *testing.T) {
	worst := 0.0
	for least := 1; least < 3<<20; least += 1 + least/300 {
		n := fastSize(least)
		if n < least || n%minSize != 0 {
			t.Fatalf("fastSize(%d) = %d", least, n)
		}
		m := n / minSize
		for _, r := range []int{2, 3, 5} {
			for m%r == 0 {
				m /= r
			}
		}
		if m != 1 {
			t.Fatalf("fastSize(%d) = %d has the factor %d", least, n, m)
		}
		if least > minSize && 2*least <= n {
			t.Fatalf("fastSize(%d) = %d is twice what is needed", least, n)
		}
		if least > 1000 {
			worst = math.Max(worst, float64(n)/float64(least))
		}
	}
	if worst > 1.2 {
		t.Errorf("sizes up to %.3f times what is needed", worst)
	}
}

// TestTransform compares with the polynomial's values at the roots, and checks
// that the way back leads there.
func TestTransform(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, n := range []int{16, 32, 48, 80, 96, 240, 256, 720, 1024} {
			for _, length := range []int{n, n - 1, n/2 + 1, 3 * n / 4} {
				b := kernel.NewButterflies()
				p := planFor(b, n)
				lanes := b.Lanes()
				u, work := random(1, n*lanes), make([]float32, n*p.row())
				p.transform(nil, u, lanes, length, work)
				for at := range n {
					k := p.frequency(at)
					root := cmplx.Rect(1, math.Pi/2/float64(n)-2*math.Pi*float64(k)/float64(n))
					for lane := range lanes {
						var want complex128
						for i := length - 1; i >= 0; i-- {
							want = want*root + complex(float64(u[i*lanes+lane]), 0)
						}
						got := complex(float64(work[at*2*lanes+lane]), float64(work[at*2*lanes+lanes+lane]))
						if cmplx.Abs(got-want) > 1e-5*math.Sqrt(float64(n)) {
							t.Fatalf("n %d, length %d: place %d (root %d), lane %d is %v, want %v", n, length, at, k, lane, got, want)
						}
					}
				}
				// The spectrum of 1/n leads back to where it began.
				spectrum := make([]float32, len(work))
				for at := range n {
					for lane := range lanes {
						spectrum[at*2*lanes+lane] = 1 / float32(n)
					}
				}
				y := make([]float32, length*lanes)
				p.multiply(nil, y, lanes, u, lanes, length, spectrum, work, false)
				for i, v := range y {
					if math.Abs(float64(v-u[i])) > 1e-5 {
						t.Fatalf("n %d, length %d: element %d comes back as %v, was %v", n, length, i, v, u[i])
					}
				}
			}
		}
	})
}

package state

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
)

// Fingerprint is FNV-1a (64 bits) over what makes an operator what it is: a name, the
// numbers of its Config and its weights. A state belongs to every operator with the
// same fingerprint. The zero value is that of nothing at all; Add to it.
type Fingerprint uint64

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// NewFingerprint begins with the name of an operator and its numbers.
func NewFingerprint(name string, numbers ...int64) Fingerprint {
	f := Fingerprint(fnvOffset)
	for i := range len(name) {
		f = (f ^ Fingerprint(name[i])) * fnvPrime
	}
	for _, n := range numbers {
		f.Add(uint64(n))
	}
	return f
}

// Add adds a number.
func (f *Fingerprint) Add(v uint64) {
	for range 8 {
		*f = (*f ^ Fingerprint(v&0xff)) * fnvPrime
		v >>= 8
	}
}

// sample is how many elements of a large list are enough to tell weights apart.
const sample = 4096

// Floats adds vectors of weights: their lengths and, of long ones, elements at equal
// distances.
func (f *Fingerprint) Floats(lists ...[]float32) {
	for _, x := range lists {
		f.Add(uint64(len(x)))
		for i := 0; i < len(x); i += len(x)/sample + 1 {
			f.Add(uint64(math.Float32bits(x[i])))
		}
	}
}

// Matrices adds matrices of weights, likewise.
func (f *Fingerprint) Matrices(list ...blas32.General) {
	for _, m := range list {
		f.Add(uint64(m.Rows))
		f.Add(uint64(m.Cols))
		if m.Cols == 0 {
			continue
		}
		n := m.Rows * m.Cols
		for i := 0; i < n; i += n/sample + 1 {
			f.Add(uint64(math.Float32bits(mat.Row(m, i/m.Cols)[i%m.Cols])))
		}
	}
}

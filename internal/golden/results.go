package golden

import "gonum.org/v1/gonum/blas/blas32"

// Results collects the results of a test by name, batch entry after batch entry, and
// compares those that a file expects.
type Results struct {
	f      *File
	prefix string
	floats map[string][]float32
	ints   map[string][]int64
}

// NewResults returns an empty collection for the tensors whose names begin with prefix.
func NewResults(f *File, prefix string) *Results {
	return &Results{f, prefix, map[string][]float32{}, map[string][]int64{}}
}

// Has tells whether the file expects a result.
func (r *Results) Has(name string) bool { return r.f.Has(r.prefix + name) }

// Add adds a matrix without gaps.
func (r *Results) Add(name string, m blas32.General) {
	r.floats[name] = append(r.floats[name], m.Data[:m.Rows*m.Cols]...)
}

// AddInts adds integers.
func (r *Results) AddInts(name string, list []int64) { r.ints[name] = append(r.ints[name], list...) }

// Compare compares what the file has.
func (r *Results) Compare() {
	for name, got := range r.floats {
		if r.Has(name) {
			r.f.Compare(r.prefix+name, got)
		}
	}
	for name, got := range r.ints {
		if r.Has(name) {
			r.f.CompareInts(r.prefix+name, got)
		}
	}
}

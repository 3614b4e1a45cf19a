package kvcache

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// keptScoring is how much working memory is kept for the next call: what forgetting a token
// at a time needs, and not the copy of a long prompt.
const keptScoring = 64 << 20

// scoring is the working memory of evictors. An operator keeps it between calls: states
// hold none of it.
type scoring struct {
	floats   stack[float32]
	doubles  stack[float64]
	packed   asm.Matrix
	keys     []blas32.General
	values   []blas32.General
	matrices []blas32.General
	lists    [][]float32
	order    []int32
	rows     []int32
	ranks    []int
	part     Observation // what Block shows a policy
	cfg      Config
	some     [2]blas32.General
	scores   [1][]float32
}

// stack is memory that is taken from the bottom up and given back from the top down.
// What does not fit is memory of its own until the stack is empty, and fits the next time.
type stack[T any] struct {
	memory       []T
	used, wanted int
}

// take returns n zeros.
func (s *stack[T]) take(n int) []T {
	s.used += n
	s.wanted = max(s.wanted, s.used)
	if s.used > len(s.memory) {
		return make([]T, n)
	}
	x := s.memory[s.used-n : s.used : s.used]
	clear(x)
	return x
}

// empty gives all back.
func (s *stack[T]) empty() {
	if s.wanted > len(s.memory) {
		s.memory = make([]T, s.wanted+s.wanted/4)
	}
	s.used, s.wanted = 0, 0
}

// begin readies the memory for a state.
func (m *scoring) begin() {
	m.floats.empty()
	m.doubles.empty()
}

// room returns the working memory of the observation.
func (o *Observation) room() *scoring {
	if o.memory == nil {
		o.memory = new(scoring)
	}
	return o.memory
}

// vector returns n zeros, matrix rows*cols of them.
func (o *Observation) vector(n int) []float32 { return o.room().floats.take(n) }
func (o *Observation) matrix(rows, cols int) blas32.General {
	return mat.Of(o.vector(rows*cols), rows, cols)
}

// double returns n zeros of float64.
func (o *Observation) double(n int) []float64 { return o.room().doubles.take(n) }

// release gives back what has been taken since there was so much of it.
func (o *Observation) release(floats, doubles int) {
	m := o.room()
	m.floats.used, m.doubles.used = floats, doubles
}

// taken is how much has been taken.
func (o *Observation) taken() (floats, doubles int) {
	m := o.room()
	return m.floats.used, m.doubles.used
}

// transposed packs a matrix for a product with its transpose; it is good until the next.
func (o *Observation) transposed(x blas32.General) *asm.Matrix {
	m := &o.room().packed
	m.SetT(x)
	return m
}

// copied returns a copy of a vector.
func (o *Observation) copied(x []float32) []float32 {
	y := o.vector(len(x))
	copy(y, x)
	return y
}

// several returns n matrices to be filled in.
func (m *scoring) several(n int) []blas32.General {
	m.matrices = scratch.Sized(m.matrices, n)
	return m.matrices
}

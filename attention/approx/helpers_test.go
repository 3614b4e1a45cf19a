package approx

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
)

// value returns a function that returns the value of a call, and fails the test on its error.
func value[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func normal(seed uint64, rows, cols int) blas32.General {
	r := rand.New(rand.NewPCG(seed, 7))
	m := mat.New(rows, cols)
	for i := range m.Data {
		m.Data[i] = float32(r.NormFloat64())
	}
	return m
}

// strided returns m in memory with gaps of NaN between the rows.
func strided(m blas32.General, gap int) blas32.General {
	s := blas32.General{Rows: m.Rows, Cols: m.Cols, Stride: m.Cols + gap, Data: make([]float32, m.Rows*(m.Cols+gap))}
	for i := range s.Data {
		s.Data[i] = float32(math.NaN())
	}
	mat.Copy(s, m)
	return s
}

// call is a request as users make one.
func (q *request) call() *attention.Call {
	c := &attention.Call{Dst: q.Dst, Q: q.Q, K: []blas32.General{q.K}, V: []blas32.General{q.V}, Offsets: q.Offsets, KOffsets: q.KOffsets, LogWeights: q.LogWeights, Workers: q.Workers, States: q.States}
	if q.Valid != nil {
		c.Options = &Options{Valid: q.Valid}
	}
	if q.State != nil {
		c.State = q.State
	}
	return c
}

// operator is one for laws that all keep.
type operator struct {
	name   string
	self   bool // queries and keys are the same tokens
	shape  shape
	run    attention.Operator
	bytes  func(tokens int) int64
	oracle func(c *request, sh shape) [][]float64 // of one sequence
}

func operators(t testing.TB, sh shape, workers int) []operator {
	t.Helper()
	lin := LinearConfig{Heads: sh.heads, KVHeads: sh.kvHeads, HeadDim: sh.dim, ValueDim: sh.valueDim, Workers: workers}
	causal := lin
	causal.Causal = true
	temperature := normal(3, 1, sh.heads).Data
	conv := normal(4, sh.heads, 5)
	l := value[*Linear](t)(NewLinear(lin))
	c := value[*Linear](t)(NewLinear(causal))
	e := value[*Efficient](t)(NewEfficient(EfficientConfig{Heads: sh.heads, KVHeads: sh.kvHeads, HeadDim: sh.dim, ValueDim: sh.valueDim, Workers: workers}))
	x := value[*XCA](t)(NewXCA(XCAConfig{Heads: sh.heads, KVHeads: sh.kvHeads, HeadDim: sh.dim, Temperature: temperature, Workers: workers}))
	n := value[*Nystrom](t)(NewNystrom(NystromConfig{Heads: sh.heads, KVHeads: sh.kvHeads, HeadDim: sh.dim, ValueDim: sh.valueDim, Landmarks: 7, Conv: conv, Workers: workers}))
	square := sh
	square.valueDim = sh.dim
	return []operator{
		{"linear", false, sh, l, func(n int) int64 { return l.ScratchBytes(n, n) }, linearOracle(false)},
		{"causal", true, sh, c, func(n int) int64 { return c.ScratchBytes(n, n) }, linearOracle(true)},
		{"efficient", false, sh, e, func(n int) int64 { return e.ScratchBytes(n, n) }, efficientOracle},
		{"xca", true, square, x, x.ScratchBytes, xcaOracle(temperature)},
		{"nystrom", true, sh, n, n.ScratchBytes, nystromOracle(7, conv)},
	}
}

// randomCall makes a call of one sequence.
func randomCall(seed uint64, sh shape, queries, keys int) *request {
	return &request{
		Dst: strided(mat.New(queries, sh.heads*sh.valueDim), 3), Q: strided(normal(seed, queries, sh.heads*sh.dim), 1),
		K: strided(normal(seed+1, keys, sh.kvHeads*sh.dim), 2), V: strided(normal(seed+2, keys, sh.kvHeads*sh.valueDim), 5),
	}
}

// near compares every row of got with want's.
func near(t *testing.T, what string, got blas32.General, want [][]float64, tol float64) {
	t.Helper()
	for i, w := range want {
		for j, x := range w {
			if d := math.Abs(float64(mat.Row(got, i)[j]) - x); !(d <= tol*(1+math.Abs(x))) {
				t.Fatalf("%s: row %d column %d is %v, want %v", what, i, j, mat.Row(got, i)[j], x)
			}
		}
	}
}

func sameBits(t *testing.T, what string, got, want blas32.General) {
	t.Helper()
	for i := range want.Rows {
		for j, x := range mat.Row(want, i) {
			if math.Float32bits(mat.Row(got, i)[j]) != math.Float32bits(x) {
				t.Fatalf("%s: row %d column %d is %v, was %v", what, i, j, mat.Row(got, i)[j], x)
			}
		}
	}
}

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

// smooth changes slowly along the tokens, a sine in each column.
func smooth(seed uint64, n, cols int) blas32.General {
	m, phase := mat.New(n, cols), normal(seed, 2, cols)
	for i := range n {
		for j := range mat.Row(m, i) {
			at := float64(phase.Data[j]) + float64(i)/200*(1+math.Abs(float64(phase.Data[m.Cols+j])))
			mat.Row(m, i)[j] = float32(math.Sqrt2 * math.Sin(at))
		}
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

// featuredOf returns the part of an operator that attends by features, nil of others.
func featuredOf(op attention.Operator) *featured {
	switch x := op.(type) {
	case *Linear:
		return &x.featured
	case *Performer:
		return &x.featured
	case *Based:
		return &x.featured
	}
	return nil
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
	pc := PerformerConfig{Heads: sh.heads, KVHeads: sh.kvHeads, HeadDim: sh.dim, ValueDim: sh.valueDim, Features: 2*sh.dim + 3, Seed: 1, Workers: workers}
	p := value[*Performer](t)(NewPerformer(pc))
	pc.Causal = true
	pt := value[*Performer](t)(NewPerformer(pc))
	pc.Stabilizer = new(float32)
	ps := value[*Performer](t)(NewPerformer(pc))
	pc.Stabilizer, pc.ReLU = nil, true
	pr := value[*Performer](t)(NewPerformer(pc))
	b := value[*Based](t)(NewBased(BasedConfig{Heads: sh.heads, KVHeads: sh.kvHeads, HeadDim: sh.dim, ValueDim: sh.valueDim, Workers: workers}))
	tokens := scaled(normal(8, sh.kvHeads*5, 5000), 1./16)
	lf := value[*Linformer](t)(NewLinformer(LinformerConfig{Heads: sh.heads, KVHeads: sh.kvHeads, HeadDim: sh.dim, ValueDim: sh.valueDim, E: tokens, Workers: workers}))
	mc := MRA2Config{Heads: sh.heads, KVHeads: sh.kvHeads, HeadDim: sh.dim, ValueDim: sh.valueDim, Block: 5, PairsPerRow: 2, Diagonals: 1, Workers: workers}
	mf := value[*MRA2](t)(NewMRA2(mc))
	ms := mc
	ms.Sparse, ms.Block, ms.Diagonals = true, 11, 3
	mp := value[*MRA2](t)(NewMRA2(ms))
	square := sh
	square.valueDim = sh.dim
	return []operator{
		{"linear", false, sh, l, func(n int) int64 { return l.ScratchBytes(n, n) }, linearOracle(false)},
		{"causal", true, sh, c, func(n int) int64 { return c.ScratchBytes(n, n) }, linearOracle(true)},
		{"efficient", false, sh, e, func(n int) int64 { return e.ScratchBytes(n, n) }, efficientOracle},
		{"xca", true, square, x, x.ScratchBytes, xcaOracle(temperature)},
		{"nystrom", true, sh, n, n.ScratchBytes, nystromOracle(7, conv)},
		{"performer", false, sh, p, func(n int) int64 { return p.ScratchBytes(n, n) }, performerOracle(p)},
		{"performer causal", true, sh, pt, func(n int) int64 { return pt.ScratchBytes(n, n) }, performerOracle(pt)},
		{"performer stable", true, sh, ps, func(n int) int64 { return ps.ScratchBytes(n, n) }, performerOracle(ps)},
		{"performer relu", true, sh, pr, func(n int) int64 { return pr.ScratchBytes(n, n) }, performerOracle(pr)},
		{"linformer", false, sh, lf, func(n int) int64 { return lf.ScratchBytes(n, n) }, linformerOracle(tokens)},
		{"mra2", true, sh, mf, mf.ScratchBytes, mraOracle(mc)},
		{"mra2 sparse", true, sh, mp, mp.ScratchBytes, mraOracle(ms)},
		{"based", true, sh, b, b.ScratchBytes, basedOracle},
	}
}

// weighs tells whether an operator takes log-weights.
func (o *operator) weighs() bool { return o.name != "linformer" }

// squares tells whether the oracle takes time with the square of the tokens.
func (o *operator) squares() bool {
	switch o.run.(type) {
	case *Performer, *Based, *MRA2:
		return true
	}
	return false
}

// dress is dress without what the operator does not take.
func (o *operator) dress(c *request, variant string) {
	if !o.weighs() {
		variant = map[string]string{"both": "padded", "padded": "padded"}[variant]
	}
	dress(c, o.shape, variant)
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

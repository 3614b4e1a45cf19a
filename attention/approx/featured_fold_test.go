package approx

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// TestSumsGrow: sums in float32 stay at 2^24 tokens of the same key. The sums of a state
// that is there already must go on, token by token and in long calls.
func TestSumsGrow(t *testing.T) {
	l, err := NewLinear(LinearConfig{Heads: 1, HeadDim: 2, Causal: true})
	if err != nil {
		t.Fatal(err)
	}
	st, err := l.NewState(StateConfig{})
	if err != nil {
		t.Fatal(err)
	}
	const seen = 1 << 24
	at := l.split(st.values)
	for i := range at.all {
		at.all[i] = seen // phi(0) is 1
	}
	st.n, st.folded = seen, seen
	const more = 3 * 4096
	zero := mat.New(more, 2)
	ones := mat.New(more, 2)
	for i := range ones.Data {
		ones.Data[i] = 1
	}
	dst := mat.New(more, 2)
	if err := l.Step(dst, zero, zero, ones, st); err != nil {
		t.Fatal(err)
	}
	for i := range more / 3 {
		row := func(m blas32.General) blas32.General { return mat.Rows(m, i, i+1) }
		if err := l.Step(row(dst), row(zero), row(zero), row(ones), st); err != nil {
			t.Fatal(err)
		}
	}
	if _, z := st.Sums(0); z[0] != seen+more+more/3 {
		t.Errorf("after %d tokens z is %v", st.Len(), z)
	}
	for i, v := range dst.Data {
		if math.Abs(float64(v)-1) > 1e-6 {
			t.Fatalf("element %d is %v, want 1", i, v)
		}
	}
}

// TestFoldedSteps: where sums are folded often, any split into steps still gives what
// Forward gives, that is what the sums in float64 give, and the first tokens' bits are those
// without folding. A stored state goes on, and so does one that was truncated to a snapshot.
func TestFoldedSteps(t *testing.T) {
	old := foldTokens
	defer func() { foldTokens = old }()
	isatest.Run(t, func(t *testing.T) {
		for _, op := range operators(t, shape{4, 2, 9, 70}, 2) {
			if l := featuredOf(op.run); l != nil && l.still == "" {
				t.Run(op.name, func(t *testing.T) { foldedSteps(t, l, old) })
			}
		}
	})
}

func foldedSteps(t *testing.T, l *featured, old int) {
	const n, heads, kv, d, dv = 700, 4, 2, 9, 70
	r := rand.New(rand.NewPCG(1, 2))
	random := func(cols int) blas32.General {
		m := mat.New(n, cols)
		for i := range m.Data {
			m.Data[i] = float32(r.NormFloat64())
		}
		return m
	}
	q, k, v := random(heads*d), random(kv*d), random(kv*dv)
	run := func(dst, q, k, v blas32.General) {
		t.Helper()
		if err := l.sum(t.Context(), request{Dst: dst, Q: q, K: k, V: v}); err != nil {
			t.Fatal(err)
		}
	}
	foldTokens = old
	plain, whole, stepped := mat.New(n, heads*dv), mat.New(n, heads*dv), mat.New(n, heads*dv)
	run(plain, q, k, v)
	foldTokens = 100
	run(whole, q, k, v)
	sameBits(t, "the first tokens", mat.Rows(whole, 0, 100), mat.Rows(plain, 0, 100))
	st, err := l.newState(StateConfig{Snapshots: 2})
	if err != nil {
		t.Fatal(err)
	}
	for from := 0; from < n; {
		to := min(n, from+1+r.IntN(130)*r.IntN(2))
		part := func(m blas32.General) blas32.General { return mat.Rows(m, from, to) }
		for range 2 { // the second time from a snapshot
			if err := l.step(part(stepped), part(q), part(k), part(v), st); err != nil {
				t.Fatal(err)
			}
			if from > 0 {
				if err := st.Truncate(from); err != nil {
					t.Fatal(err)
				}
			} else {
				st.Reset()
			}
		}
		if err := l.step(part(stepped), part(q), part(k), part(v), st); err != nil {
			t.Fatal(err)
		}
		var file bytes.Buffer
		if _, err := st.WriteTo(&file); err != nil {
			t.Fatal(err)
		}
		again, err := l.readState(&file)
		if err != nil || again.folded != st.folded {
			t.Fatalf("a stored state: error %v", err)
		}
		from = to
	}
	if st.folded == 0 {
		t.Fatal("nothing was folded")
	}
	for i := range plain.Data {
		if a, b, c := plain.Data[i], whole.Data[i], stepped.Data[i]; math.Abs(float64(a-b)) > 2e-5 || math.Abs(float64(a-c)) > 2e-5 {
			t.Fatalf("element %d is %v, folded %v, in steps %v", i, a, b, c)
		}
	}
}

// TestFold: what a sum loses is kept.
func TestFold(t *testing.T) {
	s := causalSums{make([]float32, 2), make([]float32, 2), make([]float32, 2)}
	want := 0.0
	for i := range 100000 {
		x := float32(1) + float32(i%7)/7 // of as many bits as there are
		s.latest[0], s.latest[1] = 4096*x, 1
		want += 4096 * float64(x)
		s.fold(0, 1)
	}
	got, half := float64(s.all[0])+float64(s.rest[0]), float64(math.Nextafter32(s.all[0], s.all[0]*2)-s.all[0])/2
	if !(math.Abs(got-want) <= 1e-9*want && math.Abs(float64(s.rest[0])) <= half) || s.latest[0] != 0 || s.latest[1] != 1 || s.all[1] != 0 {
		t.Errorf("sum %v, want %v: %v", got, want, s)
	}
	s.latest[1] = float32(math.Inf(1))
	s.fold(1, 2)
	if !math.IsInf(float64(s.all[1]), 1) || s.rest[1] != 0 {
		t.Errorf("infinite: %v", s)
	}
}

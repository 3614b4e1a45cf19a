package merge

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// similarPairs is a metric in which some pairs are near each other.
func similarPairs(seed uint64, n, dim int) blas32.General {
	m := random(seed, n, dim)
	rng := rand.New(rand.NewPCG(seed, 3))
	for t := 1; t < n; t++ {
		if rng.IntN(3) == 0 {
			for c := range dim {
				mat.Row(m, t)[c] = mat.Row(m, t-1)[c] + 0.1*mat.Row(m, t)[c]
			}
		}
	}
	return m
}

// TestStream: any split of a sequence gives the bits of local matching in one go.
func TestStream(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const dim, width, above = 9, 5, 0.6
		op, err := NewStream(StreamConfig{MetricDim: dim, Dim: width, Above: above})
		must(t, err)
		m := newMatcher(t, Config{Method: Local, Window: 1})
		st, err := op.NewState(StateConfig{})
		must(t, err)
		for _, n := range []int{0, 1, 2, 3, 20, 101} {
			x, metric, size := random(uint64(n), n, width), similarPairs(uint64(n), n, dim), sizes(uint64(n), n)
			if n > 10 {
				mat.Row(metric, 4)[2] = float32(math.NaN())
				mat.Row(metric, 5)[2] = float32(math.NaN())
			}
			var p Plan
			must(t, m.Run(context.Background(), &Call{Plan: &p, Metric: metric, Above: new(float32(above))}))
			want, total := mat.New(p.Len(), width), make([]float32, p.Len())
			must(t, p.ApplyWeighted(want, x, total, size))
			if n > 10 && (p.Len() == n || p.Len() == (n+1)/2) {
				t.Fatalf("%d tokens of %d are left: the test tests nothing", p.Len(), n)
			}
			got, rows := mat.New(n, width), 0
			rowsOf := func(c *StreamCall) {
				t.Helper()
				k, err := op.Run(context.Background(), c)
				must(t, err)
				rows += k
			}
			rng := rand.New(rand.NewPCG(uint64(n), 4))
			for round := range 4 {
				st.Reset()
				rows = 0
				gotSize, kept := make([]float32, n), make([]int64, n)
				state := st
				for from := 0; from < n; {
					to := min(n, from+rng.IntN(2+round*9))
					rowsOf(&StreamCall{Dst: mat.Rows(got, rows, n), X: mat.Rows(x, from, to), Metric: mat.Rows(metric, from, to), Sizes: size[from:to],
						Total: gotSize[rows:], Kept: kept[rows:], State: state})
					if rng.IntN(3) == 0 { // through a file and a copy
						var b bytes.Buffer
						if _, err := state.WriteTo(&b); err != nil {
							t.Fatal(err)
						}
						state, err = op.ReadState(&b)
						must(t, err)
						state = state.Clone()
					}
					if from = to; state.Len() != to {
						t.Fatalf("the state has seen %d tokens, want %d", state.Len(), to)
					}
				}
				rowsOf(&StreamCall{Dst: mat.Rows(got, rows, n), X: mat.Rows(x, n, n), Metric: mat.Rows(metric, n, n), Total: gotSize[rows:], Kept: kept[rows:], State: state, End: true})
				if rows != p.Len() || !slices.Equal(got.Data[:rows*width], want.Data) || !slices.Equal(gotSize[:rows], total) {
					t.Fatalf("n=%d: %d rows, want %d; or they differ", n, rows, p.Len())
				}
				for j, k := range p.Kept() {
					if kept[j] != int64(k) {
						t.Fatalf("row %d takes the place of %d, want %d", j, kept[j], k)
					}
				}
			}
			k, err := op.Forward(got, x, metric)
			must(t, err)
			if k != p.Len() {
				t.Fatalf("Forward gives %d rows, want %d", k, p.Len())
			}
		}
	})
}

func TestStreamErrors(t *testing.T) {
	op, err := NewStream(StreamConfig{MetricDim: 2, Dim: 3})
	must(t, err)
	other, err := NewStream(StreamConfig{MetricDim: 2, Dim: 3, Above: 0.5})
	must(t, err)
	st, err := op.NewState(StateConfig{})
	must(t, err)
	if _, err := op.Step(mat.New(1, 3), random(1, 1, 3), random(1, 1, 2), st); err != nil {
		t.Fatal(err)
	}
	foreign, err := other.NewState(StateConfig{})
	must(t, err)
	run := func(c StreamCall) error { _, err := op.Run(context.Background(), &c); return err }
	step := func(st *State) error { _, err := op.Step(mat.New(2, 3), mat.New(1, 3), mat.New(1, 2), st); return err }
	x := random(1, 4, 3)
	for _, c := range []struct {
		err  error
		kind error
		text string
	}{
		{step(nil), ErrState, "State is nil, want one of NewState"},
		{step(new(State)), ErrState, "not made by NewState"},
		{step(foreign), ErrState, "the state is of a Stream"},
		{run(StreamCall{Dst: mat.New(4, 3), X: x, Metric: mat.New(4, 2), State: st}), ErrShape, "dst has 4 rows, want Room = 5"},
		{run(StreamCall{Dst: mat.New(4, 3), X: x, Metric: mat.New(3, 2)}), ErrShape, "the metric has 3 rows, want 4"},
		{run(StreamCall{Dst: mat.New(4, 3), X: x, Metric: mat.New(4, 2), Sizes: []float32{1}}), ErrShape, "Sizes has 1 elements"},
		{run(StreamCall{Dst: mat.New(4, 3), X: x, Metric: mat.New(4, 2), Sizes: []float32{1, 1, 0, 1}}), ErrCall, "Sizes[2] is 0"},
		{run(StreamCall{Dst: mat.New(4, 3), X: x, Metric: mat.New(4, 2), Total: make([]float32, 3)}), ErrShape, "Total has 3 elements"},
		{run(StreamCall{Dst: mat.New(4, 3), X: x, Metric: mat.New(4, 2), Kept: make([]int64, 3)}), ErrShape, "Kept has 3 elements"},
		{run(StreamCall{Dst: x, X: x, Metric: mat.New(4, 2)}), ErrShape, "shares elements"},
	} {
		if !errors.Is(c.err, c.kind) || !strings.Contains(c.err.Error(), c.text) {
			t.Errorf("error %v, want %q", c.err, c.text)
		}
	}
	if want := int64(4 * (3 + 2)); st.Bytes() != want {
		t.Errorf("a state holds %d bytes, want %d", st.Bytes(), want)
	}
	if st.Len() != 1 || st.Waiting() != 1 {
		t.Error("a failed call changed the state")
	}
	for _, cfg := range []StreamConfig{{Dim: -1}, {MetricDim: -1}, {Above: float32(math.NaN())}} {
		if _, err := NewStream(cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: error %v", cfg, err)
		}
	}
	var b bytes.Buffer
	if _, err := st.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	for cut := range b.Len() {
		if _, err := op.ReadState(bytes.NewReader(b.Bytes()[:cut])); !errors.Is(err, ErrState) {
			t.Fatalf("cut at %d: error %v", cut, err)
		}
	}
	if _, err := other.ReadState(bytes.NewReader(b.Bytes())); !errors.Is(err, ErrState) {
		t.Errorf("another stream's: error %v", err)
	}
}

// TestStreamEnds: a done context leaves a state at a token, a state is bounded, and goes
// back before the token that waits.
func TestStreamEnds(t *testing.T) {
	op, err := NewStream(StreamConfig{MetricDim: 2, Dim: 1, Above: 0.5})
	must(t, err)
	st, err := op.NewState(StateConfig{})
	must(t, err)
	call := &StreamCall{Dst: mat.New(6, 1), X: random(1, 5, 1), Metric: random(2, 5, 2), State: st}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if n, err := op.Run(ctx, call); n != 0 || err != context.Canceled || st.Len() != 0 {
		t.Errorf("%d rows, error %v, %d tokens", n, err, st.Len())
	}
	for _, err := range []error{err1(op.Run(nil, call)), err1(op.Run(context.Background(), nil))} {
		if !errors.Is(err, ErrCall) {
			t.Errorf("error %v of no context or no call", err)
		}
	}
	if _, err := op.Run(context.Background(), call); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{-1, 1, 3, 6} {
		if err := st.Truncate(n); !errors.Is(err, ErrState) || st.Len() != 5 {
			t.Errorf("Truncate(%d): error %v, %d tokens", n, err, st.Len())
		}
	}
	for _, n := range []int{5, 4, 4, 0} {
		if err := st.Truncate(n); err != nil || st.Len() != n || n < 5 && st.Waiting() != 0 {
			t.Errorf("Truncate(%d): error %v, %d tokens, %d wait", n, err, st.Len(), st.Waiting())
		}
	}
	st.n = maxLen - 4
	if _, err := op.Run(context.Background(), call); !errors.Is(err, ErrFull) {
		t.Errorf("error %v of a state that is full", err)
	}
	st.n = math.MaxInt
	var b bytes.Buffer
	if _, err := st.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if _, err := op.ReadState(&b); math.MaxInt > 1<<60 && !errors.Is(err, ErrState) {
		t.Errorf("error %v of a state of MaxInt tokens", err)
	}
}

func err1(_ int, err error) error { return err }

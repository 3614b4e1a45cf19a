package mamba

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
	"github.com/subquad/subquad/ssm"
)

var same = mattest.Same

// TestSplits: any split gives what Forward gives; workers change no bit; nor does a
// stored state.
func TestSplits(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		lengths := []int{0, 1, 70, 1200}
		if testing.Short() {
			lengths = lengths[:3]
		}
		for name, m := range models(t) {
			for _, n := range lengths {
				ids := tokens(uint64(n), n)
				want, four := zeros(n, vocab), zeros(n, vocab)
				must(t, m.Forward(want, ids))
				must(t, m.Run(t.Context(), &Call{Tokens: ids, Logits: four, Workers: 4}))
				same(t, name+", four workers", four.Data, want.Data)
				st, got := newState(t, m, 0), zeros(n, vocab)
				for from := 0; from < n; {
					to := min(from+[]int{1, 1 + r.IntN(9), 1 + r.IntN(n)}[r.IntN(3)], n)
					must(t, m.Step(mat.Rows(got, from, to), ids[from:to], st))
					var b bytes.Buffer
					_, err := st.WriteTo(&b)
					must(t, err)
					st, err = m.ReadState(&b)
					must(t, err)
					if from = to; st.Len() != from {
						t.Fatalf("%s: %d tokens, want %d", name, st.Len(), from)
					}
				}
				near(t, name, got.Data, want.Data, 1e-4)
			}
		}
	})
}

// TestBatch: packed sequences and steps of many states give the bits of each alone.
func TestBatch(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		offsets := []int{0, 3, 3, 80, 81, 700, 760}
		if testing.Short() {
			offsets = []int{0, 3, 3, 80, 81, 90}
		}
		n := offsets[len(offsets)-1]
		ids := tokens(1, n)
		for name, m := range models(t) {
			alone, packed, last := zeros(n, vocab), zeros(n, vocab), zeros(3, vocab)
			var one, many []*State
			for i, from := range offsets[:len(offsets)-1] {
				st := newState(t, m, 0)
				must(t, m.Step(mat.Rows(alone, from, offsets[i+1]), ids[from:offsets[i+1]], st))
				one, many = append(one, st), append(many, newState(t, m, 0))
			}
			must(t, m.Run(t.Context(), &Call{Tokens: ids, Offsets: offsets, States: many, Logits: packed, Workers: 3}))
			same(t, name+", packed", packed.Data, alone.Data)
			must(t, m.Run(t.Context(), &Call{Tokens: ids[:81], Offsets: []int{0, 3, 80, 81}, Last: last}))
			for i, end := range []int{3, 80, 81} {
				same(t, name+", last", mat.Row(last, i), mat.Row(alone, end-1))
			}
			next := tokens(2, len(one))
			got, want := zeros(len(one), vocab), zeros(len(one), vocab)
			for i, st := range one {
				must(t, m.Step(mat.Rows(want, i, i+1), next[i:i+1], st))
			}
			must(t, m.StepBatch(got, next, many))
			same(t, name+", steps", got.Data, want.Data)
		}
	})
}

// TestForks goes on from one prefix twice, back over calls, and from a copy.
func TestForks(t *testing.T) {
	for name, m := range models(t) {
		ids := tokens(1, 40)
		st, want := newState(t, m, 2), zeros(1, vocab)
		must(t, m.Step(zeros(30, vocab), ids[:30], st))
		fork := st.Clone()
		must(t, m.Step(want, ids[30:31], fork))
		for i := 31; i < 33; i++ {
			must(t, m.Step(zeros(1, vocab), ids[i:i+1], st))
		}
		if err := st.Truncate(30); !errors.Is(err, ErrState) || st.Len() != 32 {
			t.Errorf("%s: error %v", name, err)
		}
		must(t, st.Truncate(31))
		if err := st.Truncate(32); !errors.Is(err, ErrState) {
			t.Errorf("%s: error %v", name, err)
		}
		got := zeros(1, vocab)
		must(t, st.Truncate(0))
		must(t, m.Step(zeros(30, vocab), ids[:30], st))
		must(t, m.Step(got, ids[30:31], st))
		same(t, name, got.Data, want.Data)
		must(t, st.CopyFrom(fork))
		must(t, m.Step(got, ids[31:32], st))
		must(t, m.Step(want, ids[31:32], fork))
		same(t, name, got.Data, want.Data)
		if st.Bytes() != 3*fork.Bytes()/3 || st.Len() != 32 {
			t.Errorf("%s: %d and %d bytes, %d tokens", name, st.Bytes(), fork.Bytes(), st.Len())
		}
	}
}

// TestLogLikelihood compares with logits.
func TestLogLikelihood(t *testing.T) {
	m := random(true, 1, 2).model(t, small)
	ids := tokens(3, 600)
	logits, hidden := zeros(600, vocab), zeros(600, dim)
	got, chosen := make([]float32, 599), make([]float32, 3)
	must(t, m.Run(t.Context(), &Call{Tokens: ids, Logits: logits, Hidden: hidden, LogLikelihood: got}))
	must(t, m.Run(t.Context(), &Call{Tokens: ids, LogLikelihood: chosen, Targets: []int32{ids[1], -1, ids[3]}}))
	var want []float32
	for i := range 599 {
		var sum float64
		for _, v := range mat.Row(logits, i) {
			sum += math.Exp(float64(v))
		}
		want = append(want, float32(float64(mat.Row(logits, i)[ids[i+1]])-math.Log(sum)))
	}
	near(t, "log-likelihood", got, want, 1e-5)
	same(t, "targets", chosen, []float32{got[0], 0, got[2]})
}

// TestOutputs: residuals, pooled vectors and batches of calls are what hidden states and
// single calls say.
func TestOutputs(t *testing.T) {
	for name, m := range models(t) {
		ids := tokens(3, 90)
		hidden, pooled := zeros(90, dim), make([]float32, dim)
		call := Call{Tokens: ids, Hidden: hidden, Pooled: pooled, Pooling: Max, Mask: make([]bool, 90)}
		call.Mask[7], call.Mask[80] = true, true
		for range m.cfg.Layers + 1 {
			call.Residuals = append(call.Residuals, zeros(90, dim))
		}
		must(t, m.Run(t.Context(), &call))
		for c, v := range pooled {
			if want := max(mat.Row(hidden, 7)[c], mat.Row(hidden, 80)[c]); v != want {
				t.Fatalf("%s: column %d is %v, want %v", name, c, v, want)
			}
		}
		embedding := checkpoints()[name].State["backbone.embedding.weight"].Data
		for i, id := range ids {
			same(t, name+", embeddings", mat.Row(call.Residuals[0], i), embedding[int(id)*dim:][:dim])
		}
		var last []float32 // RMSNorm of what comes after the last layer
		for _, v := range mat.Row(call.Residuals[m.cfg.Layers], 5) {
			last = append(last, v)
		}
		var square float64
		for _, v := range last {
			square += float64(v) * float64(v) / dim
		}
		for c, w := range checkpoints()[name].State["backbone.norm_f.weight"].Data {
			last[c] = float32(float64(last[c]) / math.Sqrt(square+1e-5) * float64(w))
		}
		near(t, name+", residuals", mat.Row(hidden, 5), last, 1e-5)

		var batch []*Call
		for i := range 5 {
			batch = append(batch, &Call{Tokens: ids[i : 2*i+1], Pooled: make([]float32, dim)})
		}
		must(t, m.RunBatch(t.Context(), batch))
		for i, c := range batch {
			must(t, m.Run(t.Context(), &Call{Tokens: c.Tokens, Pooled: pooled}))
			if same(t, name+", in a batch", c.Pooled, pooled); i == 0 {
				must(t, m.Run(t.Context(), &Call{Tokens: c.Tokens, Hidden: mat.Rows(hidden, 0, 1)}))
				same(t, name+", one token", pooled, mat.Row(hidden, 0))
			}
		}
		if err := m.RunBatch(t.Context(), []*Call{nil}); !errors.Is(err, ErrCall) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// BenchmarkToken times a token with a context that can end, and with one that cannot.
func BenchmarkToken(b *testing.B) {
	ending, cancel := context.WithCancel(context.Background())
	defer cancel()
	m, err := Open(filepath.Join("..", "..", "examples", "generate", "model", "model.safetensors"), Config{Workers: 1})
	must(b, err)
	for name, ctx := range map[string]context.Context{"endless": context.Background(), "cancellable": ending} {
		b.Run(name, func(b *testing.B) {
			st := newState(b, m, 0)
			call := &Call{Tokens: []int32{'a'}, State: st, Last: zeros(1, m.cfg.Vocab)}
			must(b, m.Run(ctx, call))
			for b.Loop() {
				must(b, m.Run(ctx, call))
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

// TestFormats: rounded weights give nearly the same logits.
func TestFormats(t *testing.T) {
	s, ids := random(true, 1, 2), tokens(4, 50)
	want := zeros(50, vocab)
	exact := s.model(t, small)
	must(t, exact.Forward(want, ids))
	st, err := exact.NewState(StateConfig{})
	must(t, err)
	if want := st.Bytes(); exact.StateBytes(9) != want {
		t.Errorf("a state of %d bytes, want %d", exact.StateBytes(9), want)
	}
	for format, tol := range map[asm.Format]float64{asm.BFloat16: 0.03, asm.Float16: 0.004, asm.Int8: 0.06} {
		cfg, got := small, zeros(50, vocab)
		cfg.Format = format
		m := s.model(t, cfg)
		must(t, m.Forward(got, ids))
		near(t, format.String(), got.Data, want.Data, tol)
		if m.Bytes() >= exact.Bytes() {
			t.Errorf("%v takes %d bytes, float32 %d", format, m.Bytes(), exact.Bytes())
		}
	}
}

// TestInterrupted: a call that ends early leaves all layers of a state after the
// same number of tokens.
func TestInterrupted(t *testing.T) {
	step := 7
	if testing.Short() {
		step = 90
	}
	for name, m := range models(t) {
		ids, want := tokens(1, 1500), zeros(1, vocab)
		for left := 1; left < 200; left += step {
			st := newState(t, m, 0)
			ctx := &ending{context.Background(), left, make(chan struct{})}
			err := m.Run(ctx, &Call{Tokens: ids, State: st, Workers: 1})
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatalf("%s: error %v", name, err)
			}
			n := st.Len()
			if n%512 != 0 && n != 1500 {
				t.Fatalf("%s: stands after %d tokens", name, n)
			}
			// It can go on as if nothing had been.
			got := zeros(1, vocab)
			must(t, m.Run(t.Context(), &Call{Tokens: append(slices.Clone(ids[n:]), 1), State: st, Last: got}))
			if left == 1 {
				want = got
			}
			near(t, name, got.Data, want.Data, 1e-4)
		}
		st := newState(t, m, 0)
		err := m.Run(t.Context(), &Call{Tokens: ids[:9], State: st, Filter: func(layer int) ssm.DeltaFilter {
			if layer == 0 {
				return nil
			}
			return func(_, _ int, _ []float32) { panic("no more") }
		}})
		if err == nil || !strings.Contains(err.Error(), "no more") || st.Len() != 0 {
			t.Errorf("%s: error %v, %d tokens", name, err, st.Len())
		}
	}
}

// ending is a context that ends after some looks at it.
type ending struct {
	context.Context
	left int
	done chan struct{}
}

func (e *ending) Done() <-chan struct{} { return e.done }
func (e *ending) Err() error {
	if e.left--; e.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestAllocations(t *testing.T) {
	for name, m := range models(t) {
		for _, workers := range []int{1, 4} {
			ids, dst := tokens(1, 130), zeros(130, vocab)
			states := []*State{newState(t, m, 1), newState(t, m, 0)}
			for what, call := range map[string]*Call{
				"Forward":   {Tokens: ids, Logits: dst},
				"Step":      {Tokens: ids[:1], State: newState(t, m, 2), Last: mat.Rows(dst, 0, 1)},
				"StepBatch": {Tokens: ids[:2], States: states, Logits: mat.Rows(dst, 0, 2)},
			} {
				call.Workers = workers
				if n := isatest.Allocations(func() { must(t, m.Run(context.Background(), call)) }); n != 0 {
					t.Errorf("%s: %s with %d workers: %v allocations", name, what, workers, n)
				}
			}
		}
	}
}

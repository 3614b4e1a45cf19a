package lm

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// TestSplits: any split gives what Forward gives; workers change no bit; nor does a state
// that was stored.
func TestSplits(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		m := hybrid(t)
		lengths := []int{0, 1, 70, 700}
		if testing.Short() {
			lengths = lengths[:3]
		}
		for _, n := range lengths {
			ids := tokens(uint64(n), n)
			want, four := zeros(n, vocab), zeros(n, vocab)
			must(t, m.Forward(want, ids))
			must(t, m.Run(t.Context(), &Call{Tokens: ids, Logits: four, Workers: 4}))
			same(t, "four workers", four.Data, want.Data)
			st, got := newState(t, m, StateConfig{}), zeros(n, vocab)
			for from := 0; from < n; {
				to := min(from+[]int{1, 1 + r.IntN(9), 1 + r.IntN(n)}[r.IntN(3)], n)
				must(t, m.Step(mat.Rows(got, from, to), ids[from:to], st))
				var b bytes.Buffer
				_, err := st.WriteTo(&b)
				must(t, err)
				// Another model of the same weights reads it.
				if st, err = hybrid(t).ReadState(&b); err != nil || st.Len() != to {
					t.Fatalf("error %v, after %d tokens", err, to)
				}
				from = to
			}
			near(t, "splits", got.Data, want.Data, 1e-4)
		}
	})
}

// TestBatch: packed sequences, and steps of many states, give the bits of each alone.
func TestBatch(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		m := hybrid(t)
		offsets := []int{0, 3, 3, 80, 81, 700, 760}
		n, sequences := offsets[len(offsets)-1], len(offsets)-1
		ids := tokens(1, n)
		alone, packed, none := zeros(n, vocab), zeros(n, vocab), zeros(n, vocab)
		pooled, together := zeros(sequences, dim), zeros(sequences, dim)
		var one, many []*State
		for i, from := range offsets[:sequences] {
			st := newState(t, m, StateConfig{})
			to := offsets[i+1]
			must(t, m.Run(t.Context(), &Call{Tokens: ids[from:to], State: st, Logits: mat.Rows(alone, from, to), Pooled: mat.Row(pooled, i)}))
			one, many = append(one, st), append(many, newState(t, m, StateConfig{}))
		}
		must(t, m.Run(t.Context(), &Call{Tokens: ids, Offsets: offsets, States: many, Logits: packed, Pooled: together.Data, Workers: 3}))
		same(t, "packed", packed.Data, alone.Data)
		same(t, "pooled", together.Data, pooled.Data)
		must(t, m.Run(t.Context(), &Call{Tokens: ids, Offsets: offsets, Logits: none, Workers: 2}))
		same(t, "without states", none.Data, alone.Data)
		last := zeros(3, vocab)
		for _, hidden := range []blas32.General{{}, zeros(81, dim)} {
			must(t, m.Run(t.Context(), &Call{Tokens: ids[:81], Offsets: []int{0, 3, 80, 81}, Last: last, Hidden: hidden}))
			for i, end := range []int{3, 80, 81} {
				same(t, "last", mat.Row(last, i), mat.Row(alone, end-1))
			}
		}
		next := tokens(2, len(one))
		got, want := zeros(len(one), vocab), zeros(len(one), vocab)
		for i, st := range one {
			must(t, m.Step(mat.Rows(want, i, i+1), next[i:i+1], st))
		}
		must(t, m.StepBatch(got, next, many))
		same(t, "steps", got.Data, want.Data)
	})
}

// TestManyStates runs more states at once than go through the layers together.
func TestManyStates(t *testing.T) {
	m, n := hybrid(t), 600
	var states []*State
	for range n {
		states = append(states, newState(t, m, StateConfig{}))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	want, got := zeros(1, vocab), zeros(n, vocab)
	ids := slices.Repeat([]int32{5}, n)
	must(t, m.Run(ctx, &Call{Tokens: ids, States: states, Logits: got}))
	must(t, m.Forward(want, ids[:1]))
	for i, st := range states {
		if same(t, "a state", mat.Row(got, i), want.Data); st.Len() != 1 {
			t.Fatalf("state %d has %d tokens", i, st.Len())
		}
	}
	offsets := make([]int, n+1)
	for i := range offsets {
		offsets[i] = i
	}
	must(t, m.Run(ctx, &Call{Tokens: ids, Offsets: offsets, Logits: got}))
	same(t, "without states", mat.Row(got, n-1), want.Data)
}

// TestPooling compares with the hidden states in float64, over pieces and packed.
func TestPooling(t *testing.T) {
	cfg := hybridConfig(1)
	r := random{rand.New(rand.NewPCG(7, 7))}
	cfg.Classifier = &Classifier{Weights: r.linear(3, dim), Last: true, Pad: 0}
	m, err := New(cfg)
	must(t, err)
	offsets := []int{0, 700, 700, 705}
	ids, mask := tokens(1, 705), make([]bool, 705)
	for i := range mask {
		mask[i] = i%3 == 1 && i > 250
		ids[i] = max(ids[i], 1)
	}
	ids[650] = 0 // padding from here on
	hidden := zeros(705, dim)
	for pooling := Mean; pooling <= Last; pooling++ {
		for _, mask := range [][]bool{nil, mask} {
			got, classes := make([]float32, 3*dim), make([]float32, 9)
			must(t, m.Run(t.Context(), &Call{Tokens: ids, Offsets: offsets, Hidden: hidden, Pooled: got, Pooling: pooling, Mask: mask, Classes: classes}))
			for i := range 3 {
				want, count := make([]float32, dim), 0
				for row := offsets[i]; row < offsets[i+1]; row++ {
					if mask != nil && !mask[row] {
						continue
					}
					for c, v := range mat.Row(hidden, row) {
						switch {
						case pooling <= Sum:
							want[c] += v
						case pooling == Last || count == 0:
							want[c] = v
						case pooling == Max:
							want[c] = max(want[c], v)
						}
					}
					count++
				}
				if pooling == Mean && count > 0 {
					for c := range want {
						want[c] /= float32(count)
					}
				}
				near(t, "pooled", got[i*dim:][:dim], want, 1e-5)
			}
			want := zeros(3, 3)
			in := zeros(3, dim)
			copy(mat.Row(in, 0), mat.Row(hidden, 649))
			copy(mat.Row(in, 2), mat.Row(hidden, 704))
			cfg.Classifier.Weights.Forward(want, in)
			near(t, "classes", classes, want.Data, 1e-6)
		}
	}
}

// TestLikelihood compares with the logits, over pieces.
func TestLikelihood(t *testing.T) {
	m, n := hybrid(t), 600
	ids, logits, got := tokens(3, n), zeros(n, vocab), make([]float32, n-1)
	must(t, m.Run(t.Context(), &Call{Tokens: ids, Logits: logits, LogLikelihood: got}))
	alone := make([]float32, n-1)
	must(t, m.Run(t.Context(), &Call{Tokens: ids, LogLikelihood: alone}))
	same(t, "without logits", alone, got)
	targets := slices.Clone(ids[1:])
	for i := range targets {
		if i < 70 || i%5 == 0 || i > 500 {
			targets[i] = -1
		}
	}
	must(t, m.Run(t.Context(), &Call{Tokens: ids, LogLikelihood: alone, Targets: targets}))
	for i, v := range alone {
		if want := got[i]; targets[i] < 0 && v != 0 || targets[i] >= 0 && v != want {
			t.Fatalf("target %d: %v, of all %v", i, v, want)
		}
	}
	for i, v := range got {
		var sum float64
		for _, z := range mat.Row(logits, i) {
			sum += math.Exp(float64(z))
		}
		if want := float64(mat.Row(logits, i)[ids[i+1]]) - math.Log(sum); math.Abs(float64(v)-want) > 1e-5 {
			t.Fatalf("token %d: %v, want %v", i, v, want)
		}
	}
}

func TestAllocations(t *testing.T) {
	m := hybrid(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, workers := range []int{1, 4} {
		ids, dst := tokens(1, 130), zeros(130, vocab)
		one := newState(t, m, StateConfig{Snapshots: 2, MaxTokens: 1 << 10})
		states := []*State{newState(t, m, StateConfig{Snapshots: 1, MaxTokens: 1 << 10}), newState(t, m, StateConfig{MaxTokens: 1 << 10})}
		for what, call := range map[string]*Call{
			"Forward":   {Tokens: ids, Logits: dst},
			"pooled":    {Tokens: ids, Pooled: make([]float32, dim)},
			"Step":      {Tokens: ids[:1], State: one, Last: mat.Rows(dst, 0, 1)},
			"StepBatch": {Tokens: ids[:2], States: states, Logits: mat.Rows(dst, 0, 2)},
			"pieces":    {Tokens: ids[:20], State: one, Last: mat.Rows(dst, 0, 1)},
		} {
			call.Workers = workers
			run := func() {
				if call.State != nil {
					call.State.Reset()
				}
				must(t, m.Run(ctx, call))
			}
			if n := isatest.Allocations(run); n != 0 {
				t.Errorf("%s with %d workers: %v allocations", what, workers, n)
			}
		}
	}
}

// TestScratchBytes compares what a first call leaves in memory with what was said before.
func TestScratchBytes(t *testing.T) {
	heap := func() int64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	for _, n := range []int{1, 100, 1500} {
		m := hybrid(t)
		call := &Call{Tokens: tokens(1, n), Logits: zeros(n, vocab), Pooled: make([]float32, dim)}
		held := heap()
		must(t, m.Run(t.Context(), call))
		if held, said := heap()-held, m.ScratchBytes(n); held > said {
			t.Errorf("%d tokens take %d bytes, said %d", n, held, said)
		}
		runtime.KeepAlive(m)
	}
}

// TestParts: a model of parts that do not fit is an error.
func TestParts(t *testing.T) {
	for name, change := range map[string]func(c *Config){
		"no branches": func(c *Config) { c.Layers[0] = nil },
		"nothing":     func(c *Config) { c.Layers[0][0].Mixer = nil },
		"both":        func(c *Config) { c.Layers[0][0].MLP = c.Layers[4][0].MLP },
		"first":       func(c *Config) { c.Layers[4][0].Parallel = true },
		"a mixer": func(c *Config) {
			c.Layers[1][0], c.Layers[1][1] = c.Layers[1][1], c.Layers[1][0]
			c.Layers[1][1].Parallel = true
		},
		"two after one": func(c *Config) { c.Layers[6][2].Parallel = true },
		"of other V":    func(c *Config) { c.Head.Weights = random{rand.New(rand.NewPCG(1, 1))}.linear(vocab+1, dim) },
		"of other D":    func(c *Config) { c.Norm.Weight = c.Norm.Weight[:dim-1] },
		"words beyond":  func(c *Config) { c.Words = vocab + 1 },
	} {
		cfg := hybridConfig(1)
		change(&cfg)
		if _, err := New(cfg); !errors.Is(err, subquad.ErrConfig) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	cfg := hybridConfig(1)
	cfg.Head = dense.Head{}
	m, err := New(cfg)
	must(t, err)
	if err := m.Forward(zeros(1, vocab), tokens(1, 1)); !errors.Is(err, subquad.ErrCall) {
		t.Errorf("without a head: error %v", err)
	}
	must(t, m.Run(t.Context(), &Call{Tokens: tokens(1, 1), Hidden: zeros(1, dim)}))
}

package ssm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/isa/isatest"
)

func noise(seed uint64, rows, cols int) blas32.General {
	m, r := zeros(rows, cols), rand.New(rand.NewPCG(seed, uint64(cols)))
	for i := range m.Data {
		m.Data[i] = float32(r.NormFloat64())
	}
	return m
}

// negative returns negative numbers.
func negative(seed uint64, rows, cols int) blas32.General {
	m := noise(seed, rows, cols)
	for i, v := range m.Data {
		m.Data[i] = -float32(math.Abs(float64(v))) - 0.01
	}
	return m
}

// streamer is an operator with its inputs bound: rows from ... to into dst.
type streamer struct {
	name  string
	exact bool // any split gives the same bits
	cols  int
	make  func(workers int) streaming
}

type streaming struct {
	state func() *State
	run   func(ctx context.Context, dst blas32.General, from, to int, st *State) error
}

const lawTokens = 211

func streamers(t *testing.T) []streamer {
	const n = lawTokens
	stateOf := func(f func(StateConfig) (*State, error)) func() *State {
		return func() *State {
			st, err := f(StateConfig{})
			must(t, err)
			return st
		}
	}
	cut := dense.Rows
	return []streamer{
		{"scan", true, 37, func(workers int) streaming {
			op, err := NewScan(ScanConfig{Channels: 37, States: 6, Softplus: true, Workers: workers},
				ScanWeights{A: negative(1, 37, 6), D: noise(2, 1, 37).Data, DtBias: noise(3, 1, 37).Data})
			must(t, err)
			x, dt, b, c, z := noise(4, n, 37), noise(5, n, 37), noise(6, n, 6), noise(7, n, 6), noise(8, n, 37)
			return streaming{stateOf(op.NewState), func(ctx context.Context, dst blas32.General, i, j int, st *State) error {
				return op.Run(ctx, &ScanCall{Dst: dst, X: cut(x, i, j), Dt: cut(dt, i, j), B: cut(b, i, j), C: cut(c, i, j), Z: cut(z, i, j), State: st})
			}}
		}},
		{"SSD", false, 24, func(workers int) streaming {
			op, err := NewSSD(SSDConfig{Heads: 4, HeadDim: 6, States: 10, Groups: 2, Softplus: true, Workers: workers},
				SSDWeights{A: negative(1, 1, 4).Data, D: noise(2, 1, 4).Data, DtBias: noise(3, 1, 4).Data})
			must(t, err)
			x, dt, b, c := noise(4, n, 24), noise(5, n, 4), noise(6, n, 20), noise(7, n, 20)
			return streaming{stateOf(op.NewState), func(ctx context.Context, dst blas32.General, i, j int, st *State) error {
				return op.Run(ctx, &SSDCall{Dst: dst, X: cut(x, i, j), Dt: cut(dt, i, j), B: cut(b, i, j), C: cut(c, i, j), State: st})
			}}
		}},
		{"convolution", true, 19, func(workers int) streaming {
			op, err := NewConv(ConvConfig{SiLU: true, Workers: workers}, noise(1, 19, 4), noise(2, 1, 19).Data)
			must(t, err)
			x := noise(3, n, 19)
			return streaming{stateOf(op.NewState), func(ctx context.Context, dst blas32.General, i, j int, st *State) error {
				return op.Run(ctx, &ConvCall{Dst: dst, X: cut(x, i, j), State: st})
			}}
		}},
		{"Mamba block", false, 12, func(workers int) streaming {
			op, err := NewMamba(MambaConfig{Workers: workers}, MambaWeights{
				In: noise(1, 48, 12), Conv: noise(2, 24, 4), ConvBias: noise(3, 1, 24).Data, X: noise(4, 2+2*5, 24),
				Dt: noise(5, 24, 2), DtBias: noise(6, 1, 24).Data, ALog: noise(7, 24, 5), D: noise(8, 1, 24).Data, Out: noise(9, 12, 24),
			})
			must(t, err)
			return streamBlock(stateOf(op.NewState), op)
		}},
		{"Mamba-2 block", false, 12, func(workers int) streaming {
			op, err := NewMamba2(Mamba2Config{States: 6, HeadDim: 8, Groups: 1, Workers: workers}, Mamba2Weights{
				In: noise(1, 2*24+2*6+3, 12), Conv: noise(2, 24+2*6, 4), ConvBias: noise(3, 1, 36).Data, DtBias: noise(4, 1, 3).Data,
				ALog: noise(5, 1, 3).Data, D: noise(6, 1, 3).Data, Norm: noise(7, 1, 24).Data, Out: noise(8, 12, 24),
			})
			must(t, err)
			return streamBlock(stateOf(op.NewState), op)
		}},
	}
}

func streamBlock(state func() *State, op Block) streaming {
	x, call := noise(10, lawTokens, op.Dim()), new(BlockCall) // behind an interface a call escapes
	return streaming{state, func(ctx context.Context, dst blas32.General, i, j int, st *State) error {
		*call = BlockCall{Dst: dst, X: dense.Rows(x, i, j), State: st}
		return op.Run(ctx, call)
	}}
}

// TestSplits wants any split into steps to give what the whole gives, for any
// number of workers, and a cancelled call to leave the state where it was.
func TestSplits(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, s := range streamers(t) {
			whole := zeros(lawTokens, s.cols)
			must(t, s.make(1).run(t.Context(), whole, 0, lawTokens, nil))
			largest := 0.0
			for _, v := range whole.Data {
				largest = max(largest, math.Abs(float64(v)))
			}
			r := rand.New(rand.NewPCG(1, 1))
			for trial := range 12 {
				op := s.make(1 + trial%5)
				st, got := op.state(), zeros(lawTokens, s.cols)
				for from := 0; from < lawTokens; {
					to := min(from+1+r.IntN([]int{1, 5, 40, 130}[trial%4]), lawTokens)
					cancelled, cancel := context.WithCancel(t.Context())
					cancel()
					if err := op.run(cancelled, dense.Rows(got, from, to), from, to, st); !errors.Is(err, context.Canceled) {
						t.Fatalf("%s: error %v", s.name, err)
					}
					must(t, op.run(t.Context(), dense.Rows(got, from, to), from, to, st))
					if from = to; st.Len() != to {
						t.Fatalf("%s: Len is %d behind %d tokens", s.name, st.Len(), to)
					}
				}
				if s.exact && !slices.Equal(got.Data, whole.Data) {
					t.Errorf("%s, trial %d: other bits", s.name, trial)
				}
				for i, v := range got.Data {
					if d := math.Abs(float64(v - whole.Data[i])); !(d <= 1e-5*largest) {
						t.Fatalf("%s, trial %d: element %d is %v, of the whole %v", s.name, trial, i, v, whole.Data[i])
					}
				}
			}
		}
	})
}

// TestClones wants a clone to go on as its original does, and to leave it alone.
func TestClones(t *testing.T) {
	for _, s := range streamers(t) {
		op := s.make(0)
		st, a, b := op.state(), zeros(lawTokens, s.cols), zeros(lawTokens, s.cols)
		must(t, op.run(t.Context(), dense.Rows(a, 0, 100), 0, 100, st))
		clone := st.Clone()
		must(t, op.run(t.Context(), dense.Rows(a, 100, lawTokens), 100, lawTokens, st))
		must(t, op.run(t.Context(), dense.Rows(b, 100, lawTokens), 100, lawTokens, clone))
		if !slices.Equal(dense.Rows(a, 100, lawTokens).Data, dense.Rows(b, 100, lawTokens).Data) || clone.Len() != lawTokens {
			t.Errorf("%s: the clone went on otherwise", s.name)
		}
		st.Reset()
		if st.Len() != 0 {
			t.Errorf("%s: Len is %d behind Reset", s.name, st.Len())
		}
		must(t, op.run(t.Context(), dense.Rows(b, 0, 100), 0, 100, st))
		if !slices.Equal(b.Data[:100*s.cols], a.Data[:100*s.cols]) {
			t.Errorf("%s: another result behind Reset", s.name)
		}
	}
}

// TestChunks compares SSD's chunks with its recurrence, and with Scan, of which it
// is a case.
func TestChunks(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n, heads, width, states = 300, 3, 5, 7
		a, x, dt := negative(1, 1, heads).Data, noise(2, n, heads*width), noise(3, n, heads)
		b, c := noise(4, n, states), noise(5, n, states)
		var results [2]blas32.General
		for i := range results {
			op, err := NewSSD(SSDConfig{Heads: heads, HeadDim: width, States: states, Softplus: true, Recurrent: i == 1}, SSDWeights{A: a})
			must(t, err)
			results[i] = zeros(n, heads*width)
			must(t, op.Forward(results[i], x, dt, b, c))
		}
		rates, steps := zeros(heads*width, states), zeros(n, heads*width)
		for d := range heads * width {
			for s := range states {
				rates.Data[d*states+s] = a[d/width]
			}
			for i := range n {
				steps.Data[i*steps.Stride+d] = dt.Data[i*heads+d/width]
			}
		}
		scan, err := NewScan(ScanConfig{Channels: heads * width, States: states, Softplus: true}, ScanWeights{A: rates})
		must(t, err)
		scanned := zeros(n, heads*width)
		must(t, scan.Forward(scanned, x, steps, b, c))
		largest := 0.0
		for _, v := range results[1].Data {
			largest = max(largest, math.Abs(float64(v)))
		}
		for i, v := range results[1].Data {
			if d := math.Abs(float64(results[0].Data[i] - v)); !(d < 5e-6*largest) {
				t.Fatalf("element %d: %v by chunks, %v by the recurrence", i, results[0].Data[i], v)
			}
			if d := math.Abs(float64(scanned.Data[i] - v)); !(d < 5e-6*largest) {
				t.Fatalf("element %d: %v by a scan, %v by the recurrence", i, scanned.Data[i], v)
			}
		}
	})
}

// TestFilter wants a step of 0 to leave the state alone.
func TestFilter(t *testing.T) {
	op, err := NewScan(ScanConfig{Channels: 5, States: 4}, ScanWeights{A: negative(1, 5, 4)})
	must(t, err)
	st, err := op.NewState(StateConfig{})
	must(t, err)
	x, dt, b, c := noise(2, 100, 5), noise(3, 100, 5), noise(4, 100, 4), noise(5, 100, 4)
	before, after := zeros(5, 4), zeros(5, 4)
	must(t, op.Step(zeros(60, 5), dense.Rows(x, 0, 60), dense.Rows(dt, 0, 60), dense.Rows(b, 0, 60), dense.Rows(c, 0, 60), st))
	must(t, op.Read(before, st))
	seen := 0
	must(t, op.Run(t.Context(), &ScanCall{
		Dst: zeros(40, 5), X: dense.Rows(x, 60, 100), Dt: dense.Rows(dt, 60, 100), B: dense.Rows(b, 60, 100), C: dense.Rows(c, 60, 100),
		State: st, Workers: 1,
		Filter: func(position, first int, dt []float32) {
			if position != 60+seen || first != 0 || len(dt) != 5 {
				t.Errorf("position %d, %d channels from %d", position, len(dt), first)
			}
			seen++
			clear(dt)
		},
	}))
	must(t, op.Read(after, st))
	if seen != 40 || !slices.Equal(before.Data, after.Data) {
		t.Errorf("%d tokens seen; the state was %v and is %v", seen, before.Data, after.Data)
	}
	err = op.Run(t.Context(), &ScanCall{Dst: zeros(1, 5), X: noise(2, 1, 5), Dt: noise(3, 1, 5), B: noise(4, 1, 4), C: noise(5, 1, 4), State: st,
		Filter: func(int, int, []float32) { panic("no") }})
	if err == nil || err.Error() != "ssm: panic in a worker: no" || st.Len() != 100 {
		t.Errorf("error %v, Len %d", err, st.Len())
	}
}

func TestBatches(t *testing.T) {
	op, err := NewSSD(SSDConfig{Heads: 2, HeadDim: 3, States: 4}, SSDWeights{A: negative(1, 1, 2).Data})
	must(t, err)
	x, dt, b, c := noise(2, 90, 6), negative(3, 90, 2), noise(4, 90, 4), noise(5, 90, 4)
	packed, alone := zeros(90, 6), zeros(90, 6)
	offsets := []int{0, 13, 13, 80, 90}
	var states, single []*State
	for i := range 4 {
		for _, list := range []*[]*State{&states, &single} {
			st, err := op.NewState(StateConfig{})
			must(t, err)
			*list = append(*list, st)
		}
		from, to := offsets[i], offsets[i+1]
		cut := func(m blas32.General) blas32.General { return dense.Rows(m, from, to) }
		must(t, op.Step(cut(alone), cut(x), cut(dt), cut(b), cut(c), single[i]))
	}
	must(t, op.Run(t.Context(), &SSDCall{Dst: packed, X: x, Dt: dt, B: b, C: c, Offsets: offsets, States: states}))
	if !slices.Equal(packed.Data, alone.Data) {
		t.Error("packed sequences give other results than each alone")
	}
	batch, one := zeros(4, 6), zeros(4, 6)
	cut := func(m blas32.General, i, j int) blas32.General { return dense.Rows(m, i, j) }
	must(t, op.StepBatch(batch, cut(x, 0, 4), cut(dt, 0, 4), cut(b, 0, 4), cut(c, 0, 4), states))
	for i := range 4 {
		must(t, op.Step(cut(one, i, i+1), cut(x, i, i+1), cut(dt, i, i+1), cut(b, i, i+1), cut(c, i, i+1), single[i]))
	}
	if !slices.Equal(batch.Data, one.Data) {
		t.Error("StepBatch gives other results than Step")
	}
}

func TestSnapshots(t *testing.T) {
	op, err := NewConv(ConvConfig{}, noise(1, 2, 3), nil)
	must(t, err)
	st, err := op.NewState(StateConfig{Snapshots: 2})
	must(t, err)
	x, first, again := noise(2, 9, 2), zeros(3, 2), zeros(3, 2)
	for i := range 3 {
		must(t, op.Step(zeros(2, 2), dense.Rows(x, 2*i, 2*i+2), st))
	}
	must(t, op.Step(first, dense.Rows(x, 6, 9), st))
	must(t, st.Truncate(6))
	must(t, op.Step(again, dense.Rows(x, 6, 9), st))
	if !slices.Equal(first.Data, again.Data) || st.Len() != 9 {
		t.Errorf("behind a rollback %v, before it %v; Len %d", again.Data, first.Data, st.Len())
	}
	if err := st.Truncate(2); !errors.Is(err, ErrState) || st.Len() != 9 {
		t.Errorf("error %v, Len %d", err, st.Len())
	}
}

// TestStored wants a state that is read back to go on bit for bit, and one of
// another operator, or a damaged one, to be refused.
func TestStored(t *testing.T) {
	op, err := NewSSD(SSDConfig{Heads: 2, HeadDim: 3, States: 4}, SSDWeights{A: negative(1, 1, 2).Data})
	must(t, err)
	other, err := NewSSD(SSDConfig{Heads: 2, HeadDim: 3, States: 4}, SSDWeights{A: negative(2, 1, 2).Data})
	must(t, err)
	st, err := op.NewState(StateConfig{})
	must(t, err)
	x, dt, b, c := noise(2, 90, 6), noise(3, 90, 2), noise(4, 90, 4), noise(5, 90, 4)
	step := func(st *State, from, to int) []float32 {
		dst := zeros(to-from, 6)
		must(t, op.Step(dst, dense.Rows(x, from, to), dense.Rows(dt, from, to), dense.Rows(b, from, to), dense.Rows(c, from, to), st))
		return dst.Data
	}
	step(st, 0, 70)
	var file bytes.Buffer
	if n, err := st.WriteTo(&file); err != nil || n != int64(file.Len()) {
		t.Fatalf("%d bytes of %d, error %v", n, file.Len(), err)
	}
	stored := file.Bytes()
	again, err := op.ReadState(bytes.NewReader(stored))
	must(t, err)
	if again.Len() != 70 || !slices.Equal(step(again, 70, 90), step(st, 70, 90)) {
		t.Errorf("a state of %d tokens that goes on otherwise", again.Len())
	}
	if _, err := other.ReadState(bytes.NewReader(stored)); !errors.Is(err, ErrState) {
		t.Errorf("another operator's: error %v", err)
	}
	for i := range stored {
		damaged := slices.Clone(stored)
		damaged[i] ^= 0x10
		if _, err := op.ReadState(bytes.NewReader(damaged)); !errors.Is(err, ErrState) {
			t.Errorf("byte %d damaged: error %v", i, err)
		}
		if _, err := op.ReadState(bytes.NewReader(stored[:i])); !errors.Is(err, ErrState) {
			t.Errorf("%d bytes: error %v", i, err)
		}
	}
}

func TestErrors(t *testing.T) {
	a := negative(1, 4, 3)
	for want, make := range map[string]func() error{
		"ssm: Channels is 0, want 1 to 16777216": func() error { _, err := NewScan(ScanConfig{States: 3}, ScanWeights{A: a}); return err },
		"ssm: Groups is 3, want a divisor of Channels = 4": func() error {
			_, err := NewScan(ScanConfig{Channels: 4, States: 3, Groups: 3}, ScanWeights{A: a})
			return err
		},
		"ssm: A has 3 columns, want States = 2": func() error { _, err := NewScan(ScanConfig{Channels: 4, States: 2}, ScanWeights{A: a}); return err },
		"ssm: D has 1 elements, want Channels = 4": func() error {
			_, err := NewScan(ScanConfig{Channels: 4, States: 3}, ScanWeights{A: a, D: []float32{1}})
			return err
		},
		"ssm: DtMin is NaN, want a finite number, 0 or more": func() error {
			_, err := NewScan(ScanConfig{Channels: 4, States: 3, DtMin: float32(math.NaN())}, ScanWeights{A: a})
			return err
		},
		"ssm: A has 2 elements, want Heads = 3": func() error {
			_, err := NewSSD(SSDConfig{Heads: 3, HeadDim: 1, States: 1}, SSDWeights{A: []float32{1, 2}})
			return err
		},
		"ssm: A[1] is NaN, want a finite number": func() error {
			_, err := NewSSD(SSDConfig{Heads: 2, HeadDim: 1, States: 1}, SSDWeights{A: []float32{1, float32(math.NaN())}})
			return err
		},
		"ssm: the convolution's bias has 1 elements, want channels = 4": func() error { _, err := NewConv(ConvConfig{}, a, []float32{1}); return err },
		"ssm: the norm's weight is empty":                               func() error { _, err := NewGatedNorm(GatedNormConfig{}, nil); return err },
	} {
		if err := make(); !errors.Is(err, ErrConfig) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	op, err := NewScan(ScanConfig{Channels: 4, States: 3}, ScanWeights{A: a})
	must(t, err)
	other, err := NewScan(ScanConfig{Channels: 4, States: 3}, ScanWeights{A: negative(9, 4, 3)})
	must(t, err)
	st, err := other.NewState(StateConfig{})
	must(t, err)
	x, b := noise(2, 5, 4), noise(3, 5, 3)
	for want, err := range map[string]error{
		"ssm: the state is nil": op.Step(x, x, noise(3, 5, 4), b, b, nil),
		"ssm: the state is of another scan of 4 channels in 1 groups with 3 states, with other weights": op.Step(x, x, noise(3, 5, 4), b, b, st),
		"ssm: B has 4 columns, want Groups*States = 3":                                                  op.Forward(x, x, noise(3, 5, 4), noise(3, 5, 4), b),
		"ssm: Dt has 4 rows, want 5":                                                                    op.Forward(x, x, noise(3, 4, 4), b, b),
		"ssm: dst shares elements with Dt":                                                              op.Forward(x, noise(3, 5, 4), x, b, b),
	} {
		if !errors.Is(err, ErrShape) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	must(t, op.Forward(zeros(0, 4), zeros(0, 4), zeros(0, 4), zeros(0, 3), zeros(0, 3)))
}

func TestAllocations(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, s := range streamers(t) {
			for _, workers := range []int{1, 4} {
				op := s.make(workers)
				st, dst := op.state(), zeros(lawTokens, s.cols)
				for name, n := range map[string]int{"a token": 1, "a sequence": lawTokens} {
					f := func() { must(t, op.run(context.Background(), dense.Rows(dst, 0, n), 0, n, st)) }
					if a := isatest.Allocations(f); a != 0 {
						t.Errorf("%s, %d workers, %s: %v allocations", s.name, workers, name, a)
					}
				}
			}
		}
	})
}

// A leaky sum of one channel with one state.
func ExampleScan() {
	one := func(v ...float32) blas32.General { return dense.Matrix(v, len(v), 1) }
	scan, err := NewScan(ScanConfig{Channels: 1, States: 1}, ScanWeights{A: one(float32(math.Log(0.5)))})
	if err != nil {
		panic(err)
	}
	x, ones := one(8, 0, 0, 4), one(1, 1, 1, 1)
	state, err := scan.NewState(StateConfig{})
	if err != nil {
		panic(err)
	}
	for t := range 4 { // token by token; Forward takes all at once
		row := func(m blas32.General) blas32.General { return dense.Rows(m, t, t+1) }
		if err := scan.Step(row(x), row(x), row(ones), row(ones), row(ones), state); err != nil {
			panic(err)
		}
	}
	fmt.Printf("%.3f\n", x.Data)
	// Output: [8.000 4.000 2.000 5.000]
}

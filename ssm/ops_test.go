package ssm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state"
)

// ssd64 is the recurrence of an SSD, in float64, of dt after its softplus.
func ssd64(x, dt, b, c blas32.General, a, skip []float32, heads, groups int) (out []float32) {
	width, states := x.Cols/heads, b.Cols/groups
	s := make([]float64, heads*width*states)
	for t := range x.Rows {
		for h := range heads {
			step, g := float64(dt.Data[t*dt.Stride+h]), h/(heads/groups)*states
			for p := range width {
				v := float64(x.Data[t*x.Stride+h*width+p])
				sum := float64(skip[h]) * v
				for n := range states {
					at := (h*width+p)*states + n
					s[at] = math.Exp(step*float64(a[h]))*s[at] + step*v*float64(b.Data[t*b.Stride+g+n])
					sum += s[at] * float64(c.Data[t*c.Stride+g+n])
				}
				out = append(out, float32(sum))
			}
		}
	}
	return out
}

// TestSSD compares chunks and the recurrence with float64, for decays from none at
// all to those of a whole state within a token, where a chunk's products must not
// overflow.
func TestSSD(t *testing.T) {
	rates, tokens := []float64{0, 0.01, 1, 30, 3000}, []int{1, 11, 12, 64, 150}
	if testing.Short() {
		rates, tokens = []float64{0, 1, 3000}, []int{1, 70}
	}
	isatest.Run(t, func(t *testing.T) {
		for _, rate := range rates {
			for _, n := range tokens {
				for _, shape := range [][4]int{{2, 3, 5, 1}, {4, 33, 16, 2}, {6, 64, 20, 3}} {
					heads, width, states, groups := shape[0], shape[1], shape[2], shape[3]
					a, skip := normal(1, 1, 0, heads), normal(2, 1, 0, heads)
					for h := range a {
						a[h] = -float32(math.Abs(float64(a[h])) * rate)
					}
					x, dt := random(3, n, heads*width, 1, 0), random(4, n, heads, 0.05, 0.1)
					b, c := random(5, n, groups*states, 1, 0), random(6, n, groups*states, 1, 0)
					for i, v := range dt.Data {
						dt.Data[i] = float32(math.Abs(float64(v)))
					}
					want := ssd64(x, dt, b, c, a, skip, heads, groups)
					for _, recurrent := range []bool{false, true} {
						op := value[*SSD](t)(NewSSD(SSDConfig{Heads: heads, HeadDim: width, States: states, Groups: groups, Recurrent: recurrent}, SSDWeights{A: a, D: skip}))
						got := zeros(n, heads*width)
						must(t, op.Forward(got, x, dt, b, c))
						near(t, op.kind.Name, got.Data, want, 1e-5)
						// In place, and without the skip straight into dst.
						here := mat.Of(append([]float32{}, x.Data...), n, heads*width)
						must(t, op.Forward(here, here, dt, b, c))
						same(t, "in place", here.Data, got.Data)
					}
				}
			}
		}
	})
}

// TestPause: a dt of 0, by the filter, leaves a state as it is.
func TestPause(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		pause := func(_, _ int, dt []float32) { clear(dt) }
		for _, s := range steppers(t) {
			if !s.filters() || strings.Contains(s.name, "block") {
				continue
			}
			st := value[*State](t)(s.newState(StateConfig{}))
			must(t, s.run(t.Context(), zeros(70, s.out), random(1, 70, s.in, 1, 0), batch{state: st}, nil, 1))
			before := st.Clone()
			must(t, s.run(t.Context(), zeros(90, s.out), random(2, 90, s.in, 1, 0), batch{state: st}, pause, 1))
			near(t, s.name, st.fixed.Values, before.fixed.Values, 1e-30)
		}
	})
}

// TestFilter sees every token and channel once, at its position, in prefill and
// step alike.
func TestFilter(t *testing.T) {
	for _, s := range steppers(t) {
		if !s.filters() {
			continue
		}
		seen := map[[2]int]int{}
		filter := func(position, first int, dt []float32) {
			for i, v := range dt {
				if v < 0 {
					t.Errorf("%s: dt is %v", s.name, v)
				}
				seen[[2]int{position, first + i}]++
			}
		}
		st := value[*State](t)(s.newState(StateConfig{}))
		for _, n := range []int{70, 1, 600} {
			must(t, s.run(t.Context(), zeros(n, s.out), random(1, n, s.in, 1, 0), batch{state: st}, filter, 1))
		}
		channels := len(seen) / 671
		for p := range 671 {
			for c := range channels {
				if seen[[2]int{p, c}] != 1 {
					t.Fatalf("%s: token %d, channel %d is seen %d times", s.name, p, c, seen[[2]int{p, c}])
				}
			}
		}
	}
}

// TestScaleSteps compares a delta ratio with what does the same by hand.
func TestScaleSteps(t *testing.T) {
	for _, s := range steppers(t) {
		if !s.filters() {
			continue
		}
		const n = 70
		x := random(1, n, s.in, 1, 0)
		run := func(f DeltaFilter) []float32 {
			y := zeros(n, s.out)
			must(t, s.run(t.Context(), y, x, batch{}, f, 1))
			return y.Data
		}
		same(t, s.name, run(ScaleSteps(0.25)), run(func(_, _ int, dt []float32) {
			for i := range dt {
				dt[i] *= 0.25
			}
		}))
		if slices.Equal(run(ScaleSteps(0.25)), run(nil)) {
			t.Errorf("%s: the ratio changes nothing", s.name)
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

// interruptible makes calls of little work look at their context on the way, too.
func interruptible(t *testing.T) {
	old := state.BriefWork
	state.BriefWork = 0
	t.Cleanup(func() { state.BriefWork = old })
}

// TestInterrupted: a call that ends early, or whose filter panics, leaves its state
// where it was.
func TestInterrupted(t *testing.T) {
	interruptible(t)
	for _, s := range steppers(t) {
		st := value[*State](t)(s.newState(StateConfig{Snapshots: 1}))
		must(t, s.run(t.Context(), zeros(9, s.out), random(1, 9, s.in, 1, 0), batch{state: st}, nil, 1))
		before := st.Clone()
		x := random(2, 700, s.in, 1, 0)
		ended := 0
		for left := range 6 {
			ctx := &ending{context.Background(), left, make(chan struct{})}
			err := s.run(ctx, zeros(700, s.out), x, batch{state: st}, nil, 1)
			if err == nil { // it had ended before
				st = before.Clone()
			} else if err != context.Canceled {
				t.Fatalf("%s: error %v", s.name, err)
			} else {
				ended++
			}
			same(t, s.name, st.fixed.Values, before.fixed.Values)
			if st.Len() != 9 {
				t.Fatalf("%s: %d tokens", s.name, st.Len())
			}
		}
		if ended < 2 {
			t.Errorf("%s: interrupted %d times", s.name, ended)
		}
		if !s.filters() {
			continue
		}
		err := s.run(context.Background(), zeros(700, s.out), x, batch{state: st}, func(position, _ int, _ []float32) {
			if position == 300 {
				panic("no more")
			}
		}, 2)
		if err == nil || !strings.Contains(err.Error(), "no more") {
			t.Fatalf("%s: error %v", s.name, err)
		}
		same(t, s.name, st.fixed.Values, before.fixed.Values)
	}
}

// TestBrief: a token, or a call of little work, looks at its context once, and copies
// no state.
func TestBrief(t *testing.T) {
	for _, s := range steppers(t) {
		st := value[*State](t)(s.newState(StateConfig{}))
		fork := st.Clone()
		for i, n := range []int{1, 5} {
			x, got, want := random(uint64(i), n, s.in, 1, 0), zeros(n, s.out), zeros(n, s.out)
			ctx := &ending{context.Background(), 1, make(chan struct{})}
			must(t, s.run(ctx, got, x, batch{state: st}, nil, 1))
			must(t, s.run(context.Background(), want, x, batch{state: fork}, nil, 1))
			same(t, s.name, got.Data, want.Data)
			if err := s.run(ctx, got, x, batch{state: st}, nil, 1); err != context.Canceled {
				t.Errorf("%s: error %v", s.name, err)
			}
		}
		same(t, s.name, st.fixed.Values, fork.fixed.Values)
	}
	k := state.Kind{Work: state.BriefWork}
	if !k.Brief(1) || k.Brief(2) {
		t.Error("what is brief")
	}
}

// panicking is a source of filters that panic.
type panicking struct{ at int }

func (p panicking) Bind(Identity, int) (DeltaFilter, error) {
	return func(position, _ int, _ []float32) {
		if position == p.at {
			panic("no more")
		}
	}, nil
}

// TestSpoiled: a state whose own filter panics is refused until it is mended.
func TestSpoiled(t *testing.T) {
	for _, s := range steppers(t) {
		if !s.filters() {
			continue
		}
		st := value[*State](t)(s.newState(StateConfig{Snapshots: 1, Filter: panicking{at: 5}, Prompt: 9}))
		step := func() error {
			return s.run(t.Context(), zeros(1, s.out), random(1, 1, s.in, 1, 0), batch{state: st}, nil, 1)
		}
		for range 5 {
			must(t, step())
		}
		before := st.Clone()
		if err := step(); err == nil || !strings.Contains(err.Error(), "no more") {
			t.Fatalf("%s: error %v", s.name, err)
		}
		for _, err := range []error{step(), value[*State](t)(s.newState(StateConfig{})).CopyFrom(st)} {
			if !errors.Is(err, ErrState) || st.Len() != 5 {
				t.Errorf("%s: error %v of a spoiled state of %d tokens", s.name, err, st.Len())
			}
		}
		must(t, st.Truncate(5))
		same(t, s.name, st.fixed.Values, before.fixed.Values)
		must(t, st.SetFilter(nil, 0))
		must(t, step())
	}
}

func TestAllocations(t *testing.T) {
	ending, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, s := range steppers(t) {
		for _, workers := range []int{1, 4} {
			st := value[*State](t)(s.newState(StateConfig{Snapshots: 2}))
			states := []*State{st.Clone(), st.Clone(), st.Clone()}
			x, dst := random(1, 130, s.in, 1, 0), zeros(130, s.out)
			for name, f := range map[string]func() error{
				"Forward": func() error { return s.run(context.Background(), dst, x, batch{}, nil, workers) },
				"Step": func() error {
					return s.run(context.Background(), mat.Rows(dst, 0, 1), mat.Rows(x, 0, 1), batch{state: st}, nil, workers)
				},
				"a Step that could end": func() error {
					return s.run(ending, mat.Rows(dst, 0, 1), mat.Rows(x, 0, 1), batch{state: st}, nil, workers)
				},
				"StepBatch": func() error {
					return s.run(context.Background(), mat.Rows(dst, 0, 3), mat.Rows(x, 0, 3), batch{states: states}, nil, workers)
				},
			} {
				if n := isatest.Allocations(func() { must(t, f()) }); n != 0 {
					t.Errorf("%s: %s with %d workers: %v allocations", s.name, name, workers, n)
				}
			}
		}
	}
}

// TestNaN: NaN of one channel stays in its channel, or head.
func TestNaN(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		op := value[*Scan](t)(NewScan(ScanConfig{Channels: 20, States: 4, Softplus: true}, ScanWeights{A: mat.Of(decays(1, 80), 20, 4)}))
		x, dt, b, c := random(1, 70, 20, 1, 0), random(2, 70, 20, 1, 0), random(3, 70, 4, 1, 0), random(4, 70, 4, 1, 0)
		x.Data[5*20+7] = float32(math.NaN())
		dst := zeros(70, 20)
		must(t, op.Forward(dst, x, dt, b, c))
		for i, v := range dst.Data {
			if nan := v != v; nan != (i%20 == 7 && i/20 >= 5) {
				t.Fatalf("token %d, channel %d is %v", i/20, i%20, v)
			}
		}
	})
}

// TestSparse compares pieces of which most tokens are passed over with the recurrence
// in float64.
func TestSparse(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		for _, kept := range []float64{0, 0.01, 0.04, 0.2} {
			for _, shape := range [][4]int{{2, 3, 5, 1}, {4, 33, 16, 2}} {
				heads, width, states, groups := shape[0], shape[1], shape[2], shape[3]
				const n = 300
				a, skip := decays(1, heads), normal(2, 1, 0, heads)
				x, dt := random(3, n, heads*width, 1, 0), zeros(n, heads)
				b, c := random(5, n, groups*states, 1, 0), random(6, n, groups*states, 1, 0)
				for i := range dt.Data {
					if r.Float64() < kept || i < 2*heads {
						dt.Data[i] = r.Float32()
					}
				}
				want := ssd64(x, dt, b, c, a, skip, heads, groups)
				for _, recurrent := range []bool{false, true} {
					op := value[*SSD](t)(NewSSD(SSDConfig{Heads: heads, HeadDim: width, States: states, Groups: groups, Recurrent: recurrent}, SSDWeights{A: a, D: skip}))
					got := zeros(n, heads*width)
					must(t, op.Forward(got, x, dt, b, c))
					near(t, fmt.Sprintf("%s, %v kept", op.kind.Name, kept), got.Data, want, 1e-5)
					// Split at borders of chunks, the same bits.
					st, split := value[*State](t)(op.NewState(StateConfig{})), zeros(n, heads*width)
					for _, cut := range [][2]int{{0, 64}, {64, 256}, {256, n}} {
						rows := func(m blas32.General) blas32.General { return mat.Rows(m, cut[0], cut[1]) }
						must(t, op.Step(rows(split), rows(x), rows(dt), rows(b), rows(c), st))
					}
					same(t, op.kind.Name+" split", split.Data, got.Data)
				}
			}
		}
	})
}

// TestTogether: packed sequences without states have the same bits however many of them are
// done together.
func TestTogether(t *testing.T) {
	const n = 3*Chunk + 20
	offsets := []int{0, 1, 1, Chunk + 5, Chunk + 6, Chunk + 9, n}
	for _, s := range steppers(t) {
		x, want := random(5, n, s.in, 1, 0), zeros(n, s.out)
		must(t, s.run(t.Context(), want, x, batch{offsets: offsets}, nil, 2))
		func() {
			defer func(old int) { togetherFloats = old }(togetherFloats)
			for togetherFloats = range 2 { // one sequence at a time
				got := zeros(n, s.out)
				must(t, s.run(t.Context(), got, x, batch{offsets: offsets}, nil, 2))
				same(t, s.name, got.Data, want.Data)
			}
		}()
	}
	// Of thousands of sequences of a token not all states are held.
	const heads, width, states, many = 2, 64, 128, 2000
	op := value[*SSD](t)(NewSSD(SSDConfig{Heads: heads, HeadDim: width, States: states, Workers: 1}, SSDWeights{A: []float32{-1, -2}}))
	x, dt, bc, each := zeros(many, heads*width), zeros(many, heads), zeros(many, states), make([]int, many+1)
	for i := range each {
		each[i] = i
	}
	must(t, op.Run(t.Context(), &SSDCall{Dst: zeros(many, heads*width), X: x, Dt: dt, B: bc, C: bc, Offsets: each}))
	w := op.scratch.Get()
	defer op.scratch.Put(w)
	if got, most := cap(w.segments.memory), togetherFloats+heads*width*states; got > most || got == 0 {
		t.Errorf("%d float32 of states are held, want at most %d", got, most)
	}
}

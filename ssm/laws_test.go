package ssm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
)

// stepper is an operator over rows of one input, for laws that all of them keep.
type stepper struct {
	name     string
	channels int     // steps of a token
	in, out  int     // columns
	exact    bool    // any split gives the same bits
	tol      float64 // else this much of the largest value
	newState func(cfg StateConfig) (*State, error)
	read     func(b []byte) (*State, error)
	run      func(ctx context.Context, dst, x blas32.General, p batch, filter DeltaFilter, workers int) error
}

// batch is what a call says of its sequences.
type batch struct {
	state   *State
	offsets []int
	states  []*State
}

// filters tells whether the operator has steps that a filter can change.
func (s *stepper) filters() bool { return s.channels > 0 }

// columns cuts x into matrices of the given widths.
func columns(x blas32.General, widths ...int) (list [8]blas32.General) {
	at := 0
	for i, w := range widths {
		list[i] = mat.Columns(x, at, w)
		at += w
	}
	return list
}

func testScan(t testing.TB, channels, states, groups int) stepper {
	op := value[*Scan](t)(NewScan(ScanConfig{Channels: channels, States: states, Groups: groups, Softplus: true, DtMin: 0.001, DtMax: 5},
		ScanWeights{A: mat.Of(decays(1, channels*states), channels, states), D: normal(2, 1, 0, channels), DtBias: normal(3, 1, -2, channels)}))
	w := []int{channels, channels, groups * states, groups * states, channels}
	return stepper{
		name: op.kind.Name, channels: op.kind.channels, in: 3*channels + 2*groups*states, out: channels, exact: true, newState: op.NewState,
		read: func(b []byte) (*State, error) { return op.ReadState(bytes.NewReader(b)) },
		run: func(ctx context.Context, dst, x blas32.General, p batch, filter DeltaFilter, workers int) error {
			c := columns(x, w...)
			return op.Run(ctx, &ScanCall{Dst: dst, X: c[0], Dt: c[1], B: c[2], C: c[3], Z: c[4], Filter: filter, Workers: workers, State: p.state, Offsets: p.offsets, States: p.states})
		},
	}
}

func testSSD(t testing.TB, heads, width, states, groups int, recurrent bool) stepper {
	op := value[*SSD](t)(NewSSD(SSDConfig{Heads: heads, HeadDim: width, States: states, Groups: groups, Softplus: true, Recurrent: recurrent},
		SSDWeights{A: decays(1, heads), D: normal(2, 1, 0, heads), DtBias: normal(3, 2, -2, heads)}))
	w := []int{heads * width, heads, groups * states, groups * states, heads * width}
	return stepper{
		name: fmt.Sprint(op.kind.Name, " recurrent ", recurrent), channels: op.kind.channels, in: 2*heads*width + heads + 2*groups*states, out: heads * width,
		exact: recurrent, tol: 2e-5, newState: op.NewState,
		read: func(b []byte) (*State, error) { return op.ReadState(bytes.NewReader(b)) },
		run: func(ctx context.Context, dst, x blas32.General, p batch, filter DeltaFilter, workers int) error {
			c := columns(x, w...)
			return op.Run(ctx, &SSDCall{Dst: dst, X: c[0], Dt: c[1], B: c[2], C: c[3], Z: c[4], Filter: filter, Workers: workers, State: p.state, Offsets: p.offsets, States: p.states})
		},
	}
}

func testConv(t testing.TB, channels, taps int) stepper {
	op := value[*Conv](t)(NewConv(ConvConfig{SiLU: true}, ConvWeights{random(1, channels, taps, 1, 0), normal(2, 1, 0, channels)}))
	return stepper{
		name: op.kind.Name, channels: op.kind.channels, in: channels, out: channels, exact: true, newState: op.NewState,
		read: func(b []byte) (*State, error) { return op.ReadState(bytes.NewReader(b)) },
		run: func(ctx context.Context, dst, x blas32.General, p batch, _ DeltaFilter, workers int) error {
			return op.Run(ctx, &ConvCall{Dst: dst, X: x, Workers: workers, State: p.state, Offsets: p.offsets, States: p.states})
		},
	}
}

func testSISO(t testing.TB, heads, width, states, groups, angles int) stepper {
	op := value[*SISO](t)(NewSISO(SISOConfig{Heads: heads, HeadDim: width, States: states, Groups: groups, Angles: angles},
		SISOWeights{BBias: normal(1, 1, 0, heads*states), CBias: normal(2, 1, 0, heads*states), D: normal(3, 1, 0, heads)}))
	w := []int{heads * width, groups * states, groups * states, heads, heads, heads, heads * angles, heads * width}
	return stepper{
		name: op.kind.Name, channels: op.kind.channels, in: 2*heads*width + 2*groups*states + heads*(3+angles), out: heads * width, exact: true, newState: op.NewState,
		read: func(b []byte) (*State, error) { return op.ReadState(bytes.NewReader(b)) },
		run: func(ctx context.Context, dst, x blas32.General, p batch, _ DeltaFilter, workers int) error {
			c := columns(x, w...)
			for t := range x.Rows { // a step, and a decay below 1
				for h := range heads {
					dt, decay := &c[3].Data[t*c[3].Stride+h], &c[4].Data[t*c[4].Stride+h]
					*dt, *decay = min(max(*dt, -*dt), 1), -max(*decay, -*decay)
				}
			}
			call := SISOCall{Dst: dst, X: c[0], B: c[1], C: c[2], Dt: c[3], Decay: c[4], Trap: c[5], Angles: c[6], Z: c[7], Workers: workers, State: p.state, Offsets: p.offsets, States: p.states}
			return op.Run(ctx, &call)
		},
	}
}

func mambaWeights(dim, inner, states, rank, taps int) MambaWeights {
	return MambaWeights{
		In: random(1, 2*inner, dim, 0.3, 0), InBias: normal(2, 0.1, 0, 2*inner), Conv: random(3, inner, taps, 0.5, 0), ConvBias: normal(4, 0.1, 0, inner),
		X: random(5, rank+2*states, inner, 0.3, 0), Dt: random(6, inner, rank, 0.5, 0), DtBias: normal(7, 1, -2, inner),
		ALog: random(8, inner, states, 1, 0), D: normal(9, 1, 0, inner), Out: random(10, dim, inner, 0.3, 0), OutBias: normal(11, 0.1, 0, dim),
	}
}

func mamba2Weights(dim, mlp, heads, width, states, groups, taps int) Mamba2Weights {
	wide, shared := heads*width, 2*groups*states
	return Mamba2Weights{
		In: random(1, 2*mlp+2*wide+shared+heads, dim, 0.3, 0), Conv: random(3, wide+shared, taps, 0.5, 0), ConvBias: normal(4, 0.1, 0, wide+shared),
		DtBias: normal(7, 1, -2, heads), ALog: normal(8, 1, 0, heads), D: normal(9, 1, 0, heads), Norm: normal(12, 0.1, 1, wide),
		Out: random(10, dim, mlp+wide, 0.3, 0),
	}
}

func testBlock(b *block, tol float64) stepper {
	return stepper{
		name: b.kind.Name, channels: b.kind.channels, in: b.dim, out: b.dim, exact: tol == 0, tol: tol, newState: b.NewState,
		read: func(p []byte) (*State, error) { return b.ReadState(bytes.NewReader(p)) },
		run: func(ctx context.Context, dst, x blas32.General, p batch, filter DeltaFilter, workers int) error {
			return b.Run(ctx, &BlockCall{Dst: dst, X: x, Filter: filter, Workers: workers, State: p.state, Offsets: p.offsets, States: p.states})
		},
	}
}

func steppers(t testing.TB) []stepper {
	mamba := value[*Mamba](t)(NewMamba(MambaConfig{NormDtBC: true}, mambaWeights(12, 24, 5, 3, 4)))
	mamba2 := value[*Mamba2](t)(NewMamba2(Mamba2Config{States: 6, HeadDim: 8, Groups: 2, DtMin: 0.001, DtMax: 3}, mamba2Weights(12, 5, 4, 8, 6, 2, 4)))
	return []stepper{
		testScan(t, 40, 7, 1), testScan(t, 300, 16, 1), testScan(t, 42, 4, 3), testScan(t, 3, 64, 3), testScan(t, 1, 1, 1),
		testSSD(t, 3, 5, 7, 1, false), testSSD(t, 4, 40, 16, 2, false), testSSD(t, 3, 5, 7, 3, true), testSSD(t, 1, 64, 128, 1, false),
		testConv(t, 21, 4), testConv(t, 5, 1), testConv(t, 3, 300), testSISO(t, 4, 5, 6, 2, 3),
		testBlock(&mamba.block, 0), testBlock(&mamba2.block, 2e-5),
	}
}

// lengths of sequences cross several borders of chunks, pieces and tasks.
func lengths() []int {
	if testing.Short() {
		return []int{0, 1, 70}
	}
	return []int{0, 1, 63, 64, 65, 200, 1300}
}

func (s *stepper) forward(t testing.TB, x blas32.General) blas32.General {
	t.Helper()
	dst := zeros(x.Rows, s.out)
	must(t, s.run(t.Context(), dst, x, batch{}, nil, 1))
	return dst
}

func (s *stepper) compare(t testing.TB, what string, got, want []float32) {
	t.Helper()
	if s.exact {
		same(t, s.name+": "+what, got, want)
	} else {
		near(t, s.name+": "+what, got, want, s.tol)
	}
}

var same = mattest.Same

// TestSplits: a sequence in random pieces gives what it gives whole, for any number
// of workers, and the same split the same bits, also through a stored state and a
// context that could end.
func TestSplits(t *testing.T) {
	interruptible(t)
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		for _, s := range steppers(t) {
			for _, n := range lengths() {
				x := random(uint64(n), n, s.in, 1, 0)
				want := s.forward(t, x)
				four := zeros(n, s.out)
				must(t, s.run(t.Context(), four, x, batch{}, nil, 4))
				same(t, s.name+": four workers", four.Data, want.Data)
				st := value[*State](t)(s.newState(StateConfig{Snapshots: 2}))
				got, again, copied := zeros(n, s.out), zeros(n, s.out), st.Clone()
				for from := 0; from < n; {
					k := []int{1, 1 + r.IntN(10), 1 + r.IntN(n)}[r.IntN(3)]
					to := min(from+k, n)
					must(t, s.run(context.Background(), mat.Rows(got, from, to), mat.Rows(x, from, to), batch{state: st}, nil, 1))
					must(t, s.run(t.Context(), mat.Rows(again, from, to), mat.Rows(x, from, to), batch{state: copied}, nil, 2))
					var stored bytes.Buffer
					_, err := copied.WriteTo(&stored)
					must(t, err)
					copied = value[*State](t)(s.read(stored.Bytes()))
					from = to
				}
				s.compare(t, "pieces", got.Data, want.Data)
				same(t, s.name+": the same split", again.Data, got.Data)
				if st.Len() != n || copied.Len() != n {
					t.Fatalf("%s: lengths %d and %d after %d tokens", s.name, st.Len(), copied.Len(), n)
				}
				same(t, s.name+": states", copied.fixed.Values, st.fixed.Values)
			}
		}
	})
}

// TestBatch: sequences packed together, and steps of many states, give the bits of
// each alone.
func TestBatch(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		offsets := []int{0, 5, 5, 75, 76, 800, 830}
		if testing.Short() {
			offsets = []int{0, 5, 5, 75, 76}
		}
		n := offsets[len(offsets)-1]
		for _, s := range steppers(t) {
			x := random(7, n, s.in, 1, 0)
			alone, packed, bare := zeros(n, s.out), zeros(n, s.out), zeros(n, s.out)
			var one, many []*State
			for i, from := range offsets[:len(offsets)-1] {
				st := value[*State](t)(s.newState(StateConfig{}))
				one, many = append(one, st), append(many, st.Clone())
				must(t, s.run(t.Context(), mat.Rows(alone, from, offsets[i+1]), mat.Rows(x, from, offsets[i+1]), batch{state: st}, nil, 1))
			}
			must(t, s.run(t.Context(), packed, x, batch{offsets: offsets, states: many}, nil, 3))
			must(t, s.run(t.Context(), bare, x, batch{offsets: offsets}, nil, 1))
			same(t, s.name+": packed", packed.Data, alone.Data)
			same(t, s.name+": packed without states", bare.Data, alone.Data)
			k := len(one)
			next := random(8, k, s.in, 1, 0)
			got, want := zeros(k, s.out), zeros(k, s.out)
			for i, st := range one {
				must(t, s.run(t.Context(), mat.Rows(want, i, i+1), mat.Rows(next, i, i+1), batch{state: st}, nil, 1))
			}
			must(t, s.run(t.Context(), got, next, batch{states: many}, nil, 2))
			same(t, s.name+": steps", got.Data, want.Data)
			for i := range one {
				same(t, s.name+": states", many[i].fixed.Values, one[i].fixed.Values)
			}
		}
	})
}

// TestTruncate goes back over calls, and on from there.
func TestTruncate(t *testing.T) {
	for _, s := range steppers(t) {
		st := value[*State](t)(s.newState(StateConfig{Snapshots: 3}))
		x := random(1, 20, s.in, 1, 0)
		var after []*State
		for i := range 20 {
			after = append(after, st.Clone())
			must(t, s.run(t.Context(), zeros(1, s.out), mat.Rows(x, i, i+1), batch{state: st}, nil, 1))
		}
		for _, n := range []int{21, 17, 5, -1, math.MinInt} {
			if err := st.Truncate(n); !errors.Is(err, ErrState) || st.Len() != 20 {
				t.Fatalf("%s: back to %d of %d: error %v", s.name, n, st.Len(), err)
			}
		}
		must(t, st.Truncate(18))
		same(t, s.name, st.fixed.Values, after[18].fixed.Values)
		if err := st.Truncate(19); err == nil {
			t.Fatalf("%s: forward to a dropped token", s.name)
		}
		must(t, st.Truncate(18))
		must(t, st.Truncate(0))
		same(t, s.name, st.fixed.Values, after[0].fixed.Values)
		must(t, st.CopyFrom(after[7]))
		same(t, s.name, st.fixed.Values, after[7].fixed.Values)
	}
}

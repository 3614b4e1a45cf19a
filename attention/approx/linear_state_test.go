package approx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

func testLinear(t testing.TB) *Linear {
	return value[*Linear](t)(NewLinear(LinearConfig{Heads: 4, KVHeads: 2, HeadDim: 9, ValueDim: 37, Causal: true}))
}

// stream is an operator that has states.
type stream struct {
	name string
	*featured
	oracle func(c *request, sh shape) [][]float64
}

// streams are those of every kind, of the shape of testLinear.
func streams(t testing.TB) (list []stream) {
	for _, op := range operators(t, shape{4, 2, 9, 37}, 0) {
		if l := featuredOf(op.run); l != nil && l.still == "" {
			list = append(list, stream{op.name, l, op.oracle})
		}
	}
	return list
}

// stepCall is some rows of a call.
func stepCall(c *request, from, to int, st *LinearState) *request {
	of := func(m blas32.General) blas32.General { return mat.Rows(m, from, to) }
	part := &request{Dst: of(c.Dst), Q: of(c.Q), K: of(c.K), V: of(c.V), State: st}
	if c.weighted() {
		part.LogWeights = of(c.LogWeights)
	}
	if c.Valid != nil {
		part.Valid = c.Valid[from:to]
	}
	return part
}

// TestSteps: any split of a sequence gives what the whole does.
func TestSteps(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		for _, l := range streams(t) {
			for _, n := range []int{1, 7, 63, 64, 65, 200, 700} {
				if n > 200 && testing.Short() {
					continue
				}
				for _, variant := range []string{"plain", "both", "each head weighted"} {
					c := randomCall(uint64(n), l.sums.shape, n, n)
					dress(c, l.sums.shape, variant)
					whole := l.oracle(c, l.sums.shape)
					for trial := range 4 {
						st := value[*LinearState](t)(l.newState(StateConfig{}))
						for at := 0; at < n; {
							to := min(at+1+r.IntN([]int{1, 3, 20, 200}[trial]), n)
							if err := l.attend(context.Background(), stepCall(c, at, to, st).call()); err != nil {
								t.Fatal(err)
							}
							at = to
							if st.Len() != at {
								t.Fatalf("Len is %d after %d tokens", st.Len(), at)
							}
						}
						near(t, fmt.Sprintf("%s, %d tokens, %s, split %d", l.name, n, variant, trial), c.Dst, whole, 2e-5)
					}
				}
			}
		}
	})
}

// TestStateAllocations: a step allocates nothing.
func TestStateAllocations(t *testing.T) {
	for _, workers := range []int{1, 4} {
		for _, op := range operators(t, shape{8, 8, 32, 32}, workers) {
			l := featuredOf(op.run)
			if l == nil || l.still != "" {
				continue
			}
			st := value[*LinearState](t)(l.newState(StateConfig{Snapshots: 2}))
			for _, n := range []int{1, 200} {
				c := randomCall(1, l.sums.shape, n, n)
				c.State = st
				call := c.call()
				if got := isatest.Allocations(func() {
					if err := op.run.Run(context.Background(), call); err != nil {
						t.Fatal(err)
					}
				}); got != 0 {
					t.Errorf("%s, %d tokens, %d workers: %v allocations", op.name, n, workers, got)
				}
			}
		}
	}
}

// TestStateLife stores, forks, rolls back and resets.
func TestStateLife(t *testing.T) {
	for _, l := range streams(t) {
		t.Run(l.name, func(t *testing.T) { stateLife(t, l.featured) })
	}
}

func stateLife(t *testing.T, l *featured) {
	c := randomCall(1, l.sums.shape, 40, 40)
	run := func(from, to int, st *LinearState) blas32.General {
		t.Helper()
		part := stepCall(c, from, to, st)
		part.Dst = mat.New(to-from, c.Dst.Cols)
		if err := l.attend(context.Background(), part.call()); err != nil {
			t.Fatal(err)
		}
		return part.Dst
	}
	st := value[*LinearState](t)(l.newState(StateConfig{Snapshots: 2}))
	run(0, 10, st)
	run(10, 20, st)
	fork := st.Clone()
	want := run(20, 30, st)
	sameBits(t, "a clone", run(20, 30, fork), want)
	if err := st.Truncate(20); err != nil || st.Len() != 20 {
		t.Fatalf("Truncate: %v, Len %d", err, st.Len())
	}
	sameBits(t, "rolled back", run(20, 30, st), want)
	run(30, 40, st)
	for _, n := range []int{-1, 10, 20, 39, 41} {
		if err := st.Truncate(n); !errors.Is(err, ErrState) {
			t.Errorf("Truncate(%d): error %v", n, err)
		}
	}
	if st.Len() != 40 {
		t.Errorf("Len is %d", st.Len())
	}
	var file bytes.Buffer
	if err := st.Truncate(30); err != nil {
		t.Fatal(err)
	}
	if n, err := st.WriteTo(&file); err != nil || n != int64(file.Len()) {
		t.Fatalf("WriteTo: %d bytes, %v", n, err)
	}
	stored := bytes.Clone(file.Bytes())
	read := value[*LinearState](t)(l.readState(&file))
	sameBits(t, "stored", run(30, 40, read), run(30, 40, st))
	step := len(stored) / 5000 // all of a short one
	if testing.Short() {
		step = len(stored) / 200
	}
	step = max(1, step)
	for i := 0; i < len(stored); i += step {
		bad := bytes.Clone(stored)
		bad[i] ^= 0x10
		if _, err := l.readState(bytes.NewReader(bad)); !errors.Is(err, ErrState) {
			t.Fatalf("byte %d changed: error %v", i, err)
		}
		if _, err := l.readState(bytes.NewReader(stored[:i])); !errors.Is(err, ErrState) {
			t.Fatalf("%d bytes: error %v", i, err)
		}
	}
	st.Reset()
	sameBits(t, "reset", run(0, 10, st), run(0, 10, value[*LinearState](t)(l.newState(StateConfig{}))))
	if st.Bytes() != int64(3*3*4*2*l.sums.width*(37+1)) {
		t.Errorf("Bytes is %d", st.Bytes())
	}
}

// TestStateCancel: a call that fails leaves the state as it was.
func TestStateCancel(t *testing.T) {
	for _, l := range streams(t) {
		t.Run(l.name, func(t *testing.T) { stateCancel(t, l.featured) })
	}
}

func stateCancel(t *testing.T, l *featured) {
	st := value[*LinearState](t)(l.newState(StateConfig{}))
	c := randomCall(1, l.sums.shape, 40, 40)
	if err := l.attend(context.Background(), stepCall(c, 0, 20, st).call()); err != nil {
		t.Fatal(err)
	}
	before := st.Clone()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.attend(ctx, stepCall(c, 20, 40, st).call()); err != context.Canceled {
		t.Fatalf("error %v", err)
	}
	sameBits(t, "state", mat.Vector(st.values), mat.Vector(before.values))
	if st.Len() != 20 {
		t.Errorf("Len is %d", st.Len())
	}
	rows := l.sums.passRows() + 800
	// Long enough to be done in a copy, for which the context is asked between passes.
	long := randomCall(1, l.sums.shape, rows, rows)
	long.State, long.Workers = st, 1
	part := math.MaxInt // after which share of the questions the next end is
	if testing.Short() {
		part = 2
	}
	for asked := 0; ; asked += 1 + asked/part {
		err := l.attend(&statetest.Ending{Context: context.Background(), Left: asked}, long.call())
		if err == nil {
			break
		}
		sameBits(t, "state", mat.Vector(st.values), mat.Vector(before.values))
		if err != context.Canceled || st.Len() != 20 {
			t.Fatalf("asked %d times: error %v, Len is %d", asked, err, st.Len())
		}
	}
	if st.Len() != 20+rows {
		t.Errorf("Len is %d", st.Len())
	}
}

// TestStates: a step of many states is that of each, in the states themselves or in copies,
// and wrong lists of them change nothing.
func TestStates(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		l := testLinear(t)
		other := testLinear(t) // with the same fingerprint
		for _, offsets := range [][]int{nil, {0, 1, 1, 9, 20, 300}, {0, 100, 200, 300, 400, 3000}} {
			n := 5
			if offsets != nil {
				n = offsets[5]
			}
			c := randomCall(1, l.sums.shape, n, n)
			dress(c, l.sums.shape, "both")
			var alone []*LinearState
			c.Offsets = offsets
			for b := range 5 {
				one := value[*LinearState](t)(l.NewState(StateConfig{Snapshots: 1}))
				before := randomCall(uint64(b), l.sums.shape, 3+b, 3+b)
				before.State = one
				if err := l.Run(context.Background(), before.call()); err != nil {
					t.Fatal(err)
				}
				c.States = append(c.States, one.Clone())
				alone = append(alone, one)
			}
			if offsets == nil {
				checkStepBatch(t, l, c)
			}
			if err := other.Run(context.Background(), c.call()); err != nil {
				t.Fatal(err)
			}
			for b, one := range alone {
				from, to := b, b+1
				if offsets != nil {
					from, to = offsets[b], offsets[b+1]
				}
				part := stepCall(c, from, to, one)
				part.Dst = mat.New(to-from, c.Dst.Cols)
				if err := l.Run(context.Background(), part.call()); err != nil {
					t.Fatal(err)
				}
				st := c.States[b].(*LinearState)
				sameBits(t, fmt.Sprintf("sequence %d", b), mat.Rows(c.Dst, from, to), part.Dst)
				sameBits(t, "state", mat.Vector(st.values), mat.Vector(one.values))
				if st.Len() != one.Len() || st.Truncate(st.Len()) != nil {
					t.Errorf("state %d has seen %d tokens, want %d", b, st.Len(), one.Len())
				}
			}
		}
	})
	l := testLinear(t)
	a, b := value[*LinearState](t)(l.NewState(StateConfig{})), value[*LinearState](t)(l.NewState(StateConfig{}))
	narrow := value[*Linear](t)(NewLinear(LinearConfig{Heads: 4, KVHeads: 2, HeadDim: 9, ValueDim: 36, Causal: true}))
	foreign := value[*LinearState](t)(narrow.NewState(StateConfig{}))
	for what, wrong := range map[string]struct {
		change func(*attention.Call)
		kind   error
	}{
		"twice":        {func(c *attention.Call) { c.States = []attention.Past{a, a} }, ErrState},
		"nil":          {func(c *attention.Call) { c.States = []attention.Past{a, nil} }, ErrState},
		"a nil state":  {func(c *attention.Call) { c.States = []attention.Past{a, (*LinearState)(nil)} }, ErrState},
		"foreign":      {func(c *attention.Call) { c.States = []attention.Past{a, foreign} }, ErrState},
		"another kind": {func(c *attention.Call) { c.States = []attention.Past{a, new(attention.State)} }, ErrState},
		"one of two":   {func(c *attention.Call) { c.States = []attention.Past{a} }, ErrCall},
		"none":         {func(c *attention.Call) { c.States = []attention.Past{} }, ErrCall},
		"both":         {func(c *attention.Call) { c.State, c.States = a, []attention.Past{a, b} }, ErrCall},
	} {
		c := randomCall(1, l.sums.shape, 2, 2).call()
		wrong.change(c)
		if err := l.Run(context.Background(), c); !errors.Is(err, wrong.kind) || a.Len() != 0 {
			t.Errorf("%s: error %v, %d tokens", what, err, a.Len())
		}
	}
}

// checkStepBatch: StepBatch is Step of each state, with the next token of each.
func checkStepBatch(t *testing.T, l *Linear, c *request) {
	t.Helper()
	want, got := mat.New(c.Q.Rows, c.Dst.Cols), mat.New(c.Q.Rows, c.Dst.Cols)
	var together []*LinearState
	var alone []*LinearState
	for i, s := range c.States {
		one := s.(*LinearState).Clone()
		together, alone = append(together, s.(*LinearState).Clone()), append(alone, one)
		row := func(m blas32.General) blas32.General { return mat.Rows(m, i, i+1) }
		if err := l.Step(row(want), row(c.Q), row(c.K), row(c.V), one); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.StepBatch(got, c.Q, c.K, c.V, together); err != nil {
		t.Fatal(err)
	}
	sameBits(t, "StepBatch", got, want)
	for i, s := range together {
		if s.Len() != alone[i].Len() {
			t.Errorf("state %d has seen %d tokens, want %d", i, s.Len(), alone[i].Len())
		}
		sameBits(t, "state", mat.Vector(s.values), mat.Vector(alone[i].values))
	}
}

// TestNoState: a Linear that is not Causal takes no step, be the state of one of its shape.
func TestNoState(t *testing.T) {
	st := value[*LinearState](t)(testLinear(t).NewState(StateConfig{}))
	l := value[*Linear](t)(NewLinear(LinearConfig{Heads: 4, KVHeads: 2, HeadDim: 9, ValueDim: 37}))
	c := randomCall(1, l.sums.shape, 1, 1)
	for what, err := range map[string]error{
		"Step": l.Step(c.Dst, c.Q, c.K, c.V, st), "StepBatch": l.StepBatch(c.Dst, c.Q, c.K, c.V, []*LinearState{st}),
	} {
		if !errors.Is(err, ErrCall) || st.Len() != 0 {
			t.Errorf("%s: error %v, %d tokens", what, err, st.Len())
		}
	}
}

// TestStateBounds: no state has more tokens than can be counted.
func TestStateBounds(t *testing.T) {
	l := testLinear(t)
	st := value[*LinearState](t)(l.NewState(StateConfig{}))
	st.n = maxLen - 19
	c := randomCall(1, l.sums.shape, 20, 20)
	c.State = st
	if err := l.Run(context.Background(), c.call()); !errors.Is(err, ErrFull) {
		t.Errorf("error %v of a full state", err)
	}
	st.n = math.MaxInt
	var file bytes.Buffer
	if _, err := st.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ReadState(&file); math.MaxInt > maxLen && !errors.Is(err, ErrState) {
		t.Errorf("error %v of a state of MaxInt tokens", err)
	}
	if _, err := new(LinearState).WriteTo(&file); !errors.Is(err, ErrState) {
		t.Errorf("error %v of a state that NewState has not made", err)
	}
	if sum, z := st.Sums(2); sum.Data != nil || z != nil {
		t.Error("there are sums of a head that is not there")
	}
}

// TestLinearEps: a state belongs to no operator that divides by something else.
func TestLinearEps(t *testing.T) {
	cfg := LinearConfig{Heads: 1, HeadDim: 2, Causal: true}
	l, same := value[*Linear](t)(NewLinear(cfg)), value[*Linear](t)(NewLinear(LinearConfig{Heads: 1, HeadDim: 2, Causal: true, Eps: 1e-6, Workers: 3}))
	cfg.Eps = 1e-3
	other := value[*Linear](t)(NewLinear(cfg))
	st, m := value[*LinearState](t)(l.NewState(StateConfig{})), mat.New(1, 2)
	var file bytes.Buffer
	if _, err := st.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		op   *Linear
		want error
	}{{l, nil}, {same, nil}, {other, ErrState}} {
		if err := c.op.Step(mat.New(1, 2), m, m, m, st); !errors.Is(err, c.want) {
			t.Errorf("Eps %v, step: error %v", c.op.cfg.Eps, err)
		}
		if _, err := c.op.ReadState(bytes.NewReader(file.Bytes())); !errors.Is(err, c.want) {
			t.Errorf("Eps %v, file: error %v", c.op.cfg.Eps, err)
		}
	}
}

package delta

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/internal/state/statetest"
)

const testDim = 10

// scaled is a random matrix whose products keep the size of what they are made of.
func scaled(r *rand.Rand, rows, cols int) blas32.General {
	m := random(r, rows, cols)
	for i := range m.Data {
		m.Data[i] *= 0.4
	}
	return m
}

func testGatedDelta(t testing.TB, r *rand.Rand, workers int) *GatedDelta {
	const heads, keyHeads, key, width, taps = 4, 2, 6, 5, 4
	const keys, values = keyHeads * key, heads * width
	return value[*GatedDelta](t)(NewGatedDelta(GatedDeltaConfig{Heads: heads, KeyHeads: keyHeads, KeyDim: key, ValueDim: width, NegativeEigen: true, Workers: workers}, GatedDeltaWeights{
		InQKV: scaled(r, 2*keys+values, testDim), InZ: scaled(r, values, testDim), InB: scaled(r, heads, testDim), InA: scaled(r, heads, testDim),
		Conv: scaled(r, 2*keys+values, taps), ALog: random(r, 1, heads).Data, DtBias: random(r, 1, heads).Data, Norm: random(r, 1, width).Data, Out: scaled(r, testDim, values),
	}))
}

func testKDA(t testing.TB, r *rand.Rand, workers int) *KDA {
	const heads, keyHeads, key, width, taps, rank = 4, 2, 6, 5, 3, 3
	const keys, values = keyHeads * key, heads * width
	return value[*KDA](t)(NewKDA(KDAConfig{Heads: heads, KeyHeads: keyHeads, KeyDim: key, ValueDim: width, Workers: workers}, KDAWeights{
		Q: scaled(r, keys, testDim), K: scaled(r, keys, testDim), V: scaled(r, values, testDim), QConv: scaled(r, keys, taps), KConv: scaled(r, keys, taps), VConv: scaled(r, values, taps),
		FA: scaled(r, rank, testDim), FB: scaled(r, heads*key, rank), DtBias: random(r, 1, heads*key).Data, ALog: random(r, 1, heads).Data, B: scaled(r, heads, testDim),
		GA: scaled(r, rank, testDim), GB: scaled(r, values, rank), GBias: random(r, 1, values).Data, Norm: random(r, 1, width).Data, Out: scaled(r, testDim, values),
	}))
}

func testRWKV7(t testing.TB, r *rand.Rand, workers int, first bool) *RWKV7 {
	v := func() []float32 { return random(r, 1, testDim).Data }
	down, up, full := func(rank int) blas32.General { return scaled(r, testDim, rank) }, func(rank int) blas32.General { return scaled(r, rank, testDim) }, func() blas32.General { return scaled(r, testDim, testDim) }
	w := RWKV7Weights{
		XR: v(), XW: v(), XK: v(), XV: v(), XA: v(), XG: v(), W0: v(), A0: v(), W1: down(3), W2: up(3), A1: down(2), A2: up(2), G1: down(4), G2: up(4),
		KK: v(), KA: v(), RK: v(), Receptance: full(), Key: full(), Value: full(), Out: full(), Norm: v(), NormBias: v(),
	}
	if !first {
		w.V0, w.V1, w.V2 = v(), down(2), up(2)
	}
	return value[*RWKV7](t)(NewRWKV7(RWKV7Config{HeadDim: 5, First: first, Workers: workers}, w))
}

func testFFN(t testing.TB, r *rand.Rand, workers int) *RWKV7FFN {
	return value[*RWKV7FFN](t)(NewRWKV7FFN(RWKV7FFNConfig{Workers: workers}, RWKV7FFNWeights{XK: random(r, 1, testDim).Data, Key: scaled(r, 30, testDim), Value: scaled(r, testDim, 30)}))
}

// blocks are one of each kind.
func blocks(t testing.TB, workers int) map[string]Block {
	r := func() *rand.Rand { return rand.New(rand.NewPCG(5, 6)) }
	return map[string]Block{
		"GatedDelta": testGatedDelta(t, r(), workers), "KDA": testKDA(t, r(), workers),
		"RWKV7 first": testRWKV7(t, r(), workers, true), "RWKV7": testRWKV7(t, r(), workers, false), "RWKV7FFN": testFFN(t, r(), workers),
	}
}

// firstOf is the First that a block's call needs or may have.
func firstOf(op Block, n int) blas32.General {
	if _, ok := op.(*RWKV7); !ok {
		return blas32.General{}
	}
	return random(rand.New(rand.NewPCG(9, 9)), n, testDim)
}

// TestBlocks: steps of any lengths, with states that are stored, cloned and rolled back on
// the way, agree with the whole; packed sequences are what they are alone, whatever the
// workers; dst may be x.
func TestBlocks(t *testing.T) {
	defer func(old int64) { soloWork = old }(soloWork)
	soloWork = 0
	isatest.Run(t, func(t *testing.T) {
		for name, op := range blocks(t, 0) {
			r := rand.New(rand.NewPCG(1, 2))
			const n = 600 // more than a piece
			x, first, want := random(r, n, testDim), firstOf(op, n), zeros(n, testDim)
			part := func(m blas32.General, from, to int) blas32.General {
				if !mat.Given(m) {
					return m
				}
				return mat.Rows(m, from, to)
			}
			must(t, op.Run(t.Context(), &BlockCall{Dst: want, X: x, First: first}))
			got := zeros(n, testDim)
			st := value[*State](t)(op.NewState(StateConfig{Snapshots: 1}))
			for from := 0; from < n; {
				to := min(n, from+1+r.IntN(90))
				if from == 0 {
					to = 530
				}
				call := &BlockCall{Dst: mat.Rows(got, from, to), X: mat.Rows(x, from, to), First: part(first, from, to), State: st, Workers: 1 + r.IntN(4)}
				must(t, op.Run(t.Context(), call))
				if to < n { // a token too many, and back
					extra := *call
					extra.Dst, extra.X, extra.First = zeros(1, testDim), mat.Rows(x, to, to+1), part(first, to, to+1)
					saved := st.Clone()
					must(t, op.Run(t.Context(), &extra))
					st = saved
				}
				var b bytes.Buffer
				value[int64](t)(st.WriteTo(&b))
				same(t, "a stored state", value[*State](t)(op.ReadState(&b)).fixed.Values, st.fixed.Values)
				from = to
			}
			near(t, name+": steps", got.Data, want.Data, 1e-5)

			offsets := []int{0, 40, 40, 41, 570, n} // the fourth goes on in the next piece, the fifth is whole in it
			packed := zeros(n, testDim)
			mat.Copy(packed, x)
			must(t, op.Run(t.Context(), &BlockCall{Dst: packed, X: packed, First: part(first, 0, n), Offsets: offsets, Workers: 3}))
			for s := range len(offsets) - 1 {
				from, to := offsets[s], offsets[s+1]
				alone := zeros(to-from, testDim)
				must(t, op.Run(t.Context(), &BlockCall{Dst: alone, X: mat.Rows(x, from, to), First: part(first, from, to), Workers: 1}))
				same(t, name+": packed and alone", packed.Data[from*testDim:to*testDim], alone.Data)
			}

			// A token of each of many states.
			const many = 5
			var states, others []*State
			for i := range many {
				st := value[*State](t)(op.NewState(StateConfig{}))
				must(t, op.Run(t.Context(), &BlockCall{Dst: zeros(i, testDim), X: mat.Rows(x, 0, i), First: part(first, 0, i), State: st}))
				states, others = append(states, st), append(others, st.Clone())
			}
			batch := zeros(many, testDim)
			must(t, op.Run(t.Context(), &BlockCall{Dst: batch, X: mat.Rows(x, 0, many), First: part(first, 0, many), States: states}))
			for i := range many {
				one := zeros(1, testDim)
				must(t, op.Run(t.Context(), &BlockCall{Dst: one, X: mat.Rows(x, i, i+1), First: part(first, i, i+1), State: others[i]}))
				same(t, name+": a batch", mat.Row(batch, i), one.Data)
				same(t, name+": its state", states[i].fixed.Values, others[i].fixed.Values)
			}
		}
	})
}

// TestBlockMemory: after the first calls nothing is allocated, and what is held is what
// ScratchBytes says.
func TestBlockMemory(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for name, op := range blocks(t, 2) {
			for _, n := range []int{1, 600} {
				x, first := random(rand.New(rand.NewPCG(1, 2)), n, testDim), firstOf(op, n)
				call := &BlockCall{Dst: zeros(n, testDim), X: x, First: first, Workers: 4, State: value[*State](t)(op.NewState(StateConfig{}))}
				run := func() { must(t, op.Run(context.Background(), call)) }
				a := 1.0
				for tries := 0; a > 0 && tries < 20; tries++ {
					a = testing.AllocsPerRun(5, run)
				}
				if a > 0 {
					t.Errorf("%s, %d tokens: %v allocations", name, n, a)
				}
			}
		}
		for name, op := range blocks(t, 2) {
			x := random(rand.New(rand.NewPCG(1, 2)), 600, testDim)
			must(t, op.Run(t.Context(), &BlockCall{Dst: zeros(600, testDim), X: x, First: firstOf(op, 600)}))
			var s *Scratch
			switch op := op.(type) {
			case *GatedDelta:
				s = op.scratch
			case *KDA:
				s = op.scratch
			case *RWKV7:
				s = op.scratch
			case *RWKV7FFN:
				s = op.scratch
			}
			if held, said := isatest.Held(s.list.Get()), op.ScratchBytes(600); held > said {
				t.Errorf("%s: %d bytes are held, ScratchBytes says %d", name, held, said)
			}
		}
	})
}

// TestBlockCancel: a call that is cancelled leaves its state as it was.
func TestBlockCancel(t *testing.T) {
	defer func(old int64) { state.BriefWork = old }(state.BriefWork)
	state.BriefWork = 0
	for name, op := range blocks(t, 1) {
		const n = 600
		x, first := random(rand.New(rand.NewPCG(1, 2)), n, testDim), firstOf(op, n)
		st := value[*State](t)(op.NewState(StateConfig{}))
		must(t, op.Run(t.Context(), &BlockCall{Dst: zeros(3, testDim), X: mat.Rows(x, 0, 3), First: mat.Rows(first, 0, min(3, first.Rows)), State: st}))
		before := append([]float32{}, st.fixed.Values...)
		stopped := 0
		for times := 1; times < 12; times++ {
			err := op.Run(&statetest.Ending{Context: t.Context(), Left: times}, &BlockCall{Dst: zeros(n, testDim), X: x, First: first, State: st})
			if err == nil {
				must(t, st.CopyFrom(st.Clone()))
				break
			}
			if stopped++; !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			same(t, name+": the state", st.fixed.Values, before)
		}
		if stopped == 0 {
			t.Errorf("%s was never stopped", name)
		}
	}
}

// TestFingerprints: blocks with other weights have other fingerprints, and the same ones
// the same.
func TestFingerprints(t *testing.T) {
	seen := map[uint64]string{}
	for name, op := range blocks(t, 1) {
		if other, ok := seen[op.Fingerprint()]; ok {
			t.Errorf("%s and %s have one fingerprint", name, other)
		}
		seen[op.Fingerprint()] = name
	}
	for name, op := range blocks(t, 3) {
		if seen[op.Fingerprint()] != name {
			t.Errorf("%s has two fingerprints", name)
		}
		if op.Bytes() <= 0 || op.Dim() != testDim || op.StateBytes(1) != value[*State](t)(op.NewState(StateConfig{})).Bytes() {
			t.Error(name, op.Bytes(), op.Dim(), op.StateBytes(1))
		}
	}
}

// TestCarried: sequences without states that end, go on and begin in one piece are what
// they are alone.
func TestCarried(t *testing.T) {
	for name, op := range blocks(t, 2) {
		const n = 1700
		x, first, packed := random(rand.New(rand.NewPCG(3, 4)), n, testDim), firstOf(op, n), zeros(n, testDim)
		offsets := []int{0, 530, 540, 1130, n}
		must(t, op.Run(t.Context(), &BlockCall{Dst: packed, X: x, First: first, Offsets: offsets}))
		for s := range len(offsets) - 1 {
			from, to := offsets[s], offsets[s+1]
			call := &BlockCall{Dst: zeros(to-from, testDim), X: mat.Rows(x, from, to)}
			if mat.Given(first) {
				call.First = mat.Rows(first, from, to)
			}
			must(t, op.Run(t.Context(), call))
			same(t, name, packed.Data[from*testDim:to*testDim], call.Dst.Data)
		}
	}
}

package delta

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
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/internal/state/statetest"
)

// kinds are recurrences of every kind, with odd sizes.
func kinds() (list []Config) {
	for _, decay := range []Decay{NoDecay, ConstantDecay, HeadDecay, KeyDecay} {
		for _, erase := range []Erase{NoErase, EraseKey, EraseGated, EraseVector, ErasePair} {
			for _, first := range []bool{false, true} {
				cfg := Config{Heads: 4, KeyHeads: 2, KeyDim: 5, ValueDim: 37, Decay: decay, Erase: erase, EraseFirst: first, Normalize: erase == EraseKey || erase == EraseVector}
				switch {
				case first && (erase == NoErase || erase == ErasePair):
					continue
				case erase == EraseKey:
					cfg.QueryHeads = 8
				case erase == ErasePair:
					cfg.KeyHeads = 4
				case erase == EraseVector:
					cfg.KeyHeads, cfg.QueryHeads, cfg.KeyDim = 1, 2, 70
				}
				if decay == ConstantDecay {
					cfg.LogDecay = RetNetDecay(4)
				}
				list = append(list, cfg)
			}
		}
	}
	return list
}

func (cfg Config) String() string {
	return fmt.Sprintf("decay %d, erase %d, first %v", cfg.Decay, cfg.Erase, cfg.EraseFirst)
}

// lawCall is a call with random inputs whose states do not grow.
func lawCall(r *rand.Rand, op *Recurrence, n int) *Call {
	c := &op.cfg
	call := &Call{
		Dst: zeros(n, op.outs*c.ValueDim), Q: random(r, n, c.QueryHeads*c.KeyDim), K: random(r, n, c.KeyHeads*c.KeyDim), V: random(r, n, c.Heads*c.ValueDim),
	}
	fill := func(m blas32.General, f func(x float64) float64) blas32.General {
		for i, v := range m.Data {
			m.Data[i] = float32(f(float64(v)))
		}
		return m
	}
	decay := func(x float64) float64 {
		if x > 2.2 { // a reset
			return -1000
		}
		return -math.Exp(2*x - 2)
	}
	switch c.Decay {
	case HeadDecay:
		call.Decay = fill(random(r, n, c.Heads), decay)
	case KeyDecay:
		call.Decay = fill(random(r, n, c.Heads*c.KeyDim), decay)
	}
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	short := 1 / float64(c.KeyDim)
	switch c.Erase {
	case NoErase, EraseKey, EraseVector:
		call.Beta = fill(random(r, n, c.Heads), func(x float64) float64 { return min(2, 4*sigmoid(x)) })
		if c.Erase == NoErase {
			call.Beta = fill(random(r, n, 1), sigmoid)
		}
	case EraseGated:
		call.WriteGate = fill(random(r, n, c.Heads*c.ValueDim), sigmoid)
	}
	switch c.Erase {
	case EraseGated:
		fill(call.K, func(x float64) float64 { return x * math.Sqrt(short) / 2 })
		call.Erase = fill(random(r, n, c.Heads*c.KeyDim), sigmoid)
	case EraseVector: // near the key
		call.Erase = fill(random(r, n, c.Heads*c.KeyDim), func(x float64) float64 { return x * short })
	case ErasePair:
		call.Erase = fill(random(r, n, c.Heads*c.KeyDim), func(x float64) float64 { return x * math.Sqrt(short) / 2 })
		call.Insert = fill(random(r, n, c.Heads*c.KeyDim), func(x float64) float64 { return x * math.Sqrt(short) / 2 })
	}
	return call
}

// part is rows from to to of a call.
func (call *Call) part(from, to int) *Call {
	c := *call
	for _, m := range []*blas32.General{&c.Dst, &c.Q, &c.K, &c.V, &c.Decay, &c.Beta, &c.Erase, &c.Insert, &c.WriteGate} {
		if mat.Given(*m) {
			*m = mat.Rows(*m, from, to)
		}
	}
	return &c
}

// randomState is a state with random matrices.
func randomState(t testing.TB, r *rand.Rand, op *Recurrence) (*State, []float64) {
	st := value[*State](t)(op.NewState(StateConfig{}))
	m := random(r, op.cfg.Heads*op.cfg.KeyDim, op.cfg.ValueDim)
	must(t, op.Write(st, m))
	var wide []float64
	for _, v := range m.Data {
		wide = append(wide, float64(v))
	}
	return st, wide
}

func narrow(x []float64) (y []float32) {
	for _, v := range x {
		y = append(y, float32(v))
	}
	return y
}

// TestOracle compares every kind, by chunks and by the recurrence, with the formula in
// float64, from a state that is not empty.
func TestOracle(t *testing.T) {
	defer inChunks()()
	isatest.Run(t, func(t *testing.T) {
		for i, cfg := range kinds() {
			for _, n := range []int{1, 13, 64, 150} {
				for _, cfg.Recurrent = range []bool{false, true} {
					r := rand.New(rand.NewPCG(uint64(i), uint64(n)))
					op := value[*Recurrence](t)(New(cfg))
					call := lawCall(r, op, n)
					st, wide := randomState(t, r, op)
					call.State = st
					must(t, op.Run(t.Context(), call))
					what := fmt.Sprintf("%v, %d tokens, recurrent %v", cfg, n, cfg.Recurrent)
					near(t, what, call.Dst.Data, narrow(oracle(&op.cfg, call, wide)), 3e-6)
					m := zeros(op.cfg.Heads*op.cfg.KeyDim, op.cfg.ValueDim)
					must(t, op.Read(m, st))
					near(t, what+": state", m.Data, narrow(wide), 3e-6)
				}
			}
		}
	})
}

// TestSplits: steps of any lengths agree with the whole, to the bit where the operator says
// so; so do packed sequences, other numbers of workers and states that are stored, cloned
// and rolled back on the way.
func TestSplits(t *testing.T) {
	defer func(work int64, bytes int) { soloWork, taskBytes = work, bytes }(soloWork, taskBytes)
	defer inChunks()() // sets back what the loop changes
	soloWork, chunkTokens = 0, 20
	isatest.Run(t, func(t *testing.T) {
		for i, cfg := range kinds() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			chunkAlways = i%2 == 0        // every kind, or those that are faster so
			taskBytes = 1 << (i % 3 * 14) // one key head to a task, some, all
			for _, cfg.Recurrent = range []bool{false, true} {
				if testing.Short() && cfg.Recurrent != (i/2%2 == 0) { // one form of each kind
					continue
				}
				const n = 150
				op := value[*Recurrence](t)(New(cfg))
				call := lawCall(r, op, n)
				must(t, op.Run(t.Context(), call))
				want := append([]float32{}, call.Dst.Data...)
				st := value[*State](t)(op.NewState(StateConfig{Snapshots: 2}))
				kept := true // a snapshot of where the state is
				for from := 0; from < n; {
					to := min(n, from+1+r.IntN(70))
					c := call.part(from, to)
					c.State, c.Workers = st, 1+r.IntN(5)
					must(t, op.Run(t.Context(), c))
					first := append([]float32{}, mat.Row(c.Dst, to-from-1)...)
					if from > 0 && kept && r.IntN(2) == 0 { // again, from a snapshot
						must(t, st.Truncate(from))
						must(t, op.Run(t.Context(), c))
						same(t, "after a rollback", mat.Row(c.Dst, to-from-1), first)
					}
					kept = true
					switch r.IntN(3) {
					case 0:
						st = st.Clone()
					case 1:
						var b bytes.Buffer
						value[int64](t)(st.WriteTo(&b))
						restored := value[*State](t)(op.ReadState(&b))
						same(t, "a stored state", restored.fixed.Values, st.fixed.Values)
						must(t, st.CopyFrom(restored))
						kept = false
					}
					from = to
				}
				if st.Len() != n {
					t.Fatalf("Len is %d", st.Len())
				}
				if cfg.Recurrent {
					same(t, cfg.String(), call.Dst.Data, want)
				}
				near(t, cfg.String(), call.Dst.Data, want, 3e-6)

				// Packed, and cut where chunks end.
				offsets := []int{0, 30, 30, 31, 137, n}
				packed := call.part(0, n)
				packed.Offsets, packed.Workers = offsets, 3
				must(t, op.Run(t.Context(), packed))
				for s := range len(offsets) - 1 {
					from, to := offsets[s], offsets[s+1]
					alone := call.part(from, to)
					alone.Dst = zeros(to-from, call.Dst.Cols)
					st := value[*State](t)(op.NewState(StateConfig{}))
					for at := 0; at < to-from; at += Chunk {
						c := alone.part(at, min(at+Chunk, to-from))
						c.State, c.Workers = st, 1
						must(t, op.Run(t.Context(), c))
					}
					same(t, "packed and alone: "+cfg.String(), mat.Rows(packed.Dst, from, to).Data[:(to-from)*call.Dst.Cols], alone.Dst.Data)
				}
			}
		}
	})
}

// TestStepBatch: a token of many states is what each gives alone.
func TestStepBatch(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for i, cfg := range kinds() {
			r := rand.New(rand.NewPCG(uint64(i), 3))
			op := value[*Recurrence](t)(New(cfg))
			const n = 5
			call := lawCall(r, op, n)
			var states, others []*State
			for range n {
				st, _ := randomState(t, r, op)
				states, others = append(states, st), append(others, st.Clone())
			}
			call.States = states
			must(t, op.Run(t.Context(), call))
			for s := range n {
				c := call.part(s, s+1)
				c.Dst, c.States, c.State = zeros(1, call.Dst.Cols), nil, others[s]
				must(t, op.Run(t.Context(), c))
				same(t, cfg.String(), mat.Row(call.Dst, s), c.Dst.Data)
				same(t, cfg.String()+": state", states[s].fixed.Values, others[s].fixed.Values)
			}
		}
	})
}

// TestInPlace: Dst may be V.
func TestInPlace(t *testing.T) {
	defer inChunks()()
	isatest.Run(t, func(t *testing.T) {
		for i, cfg := range kinds() {
			if cfg.QueryHeads > cfg.Heads {
				continue
			}
			r := rand.New(rand.NewPCG(uint64(i), 4))
			op := value[*Recurrence](t)(New(cfg))
			call := lawCall(r, op, 70)
			must(t, op.Run(t.Context(), call))
			want := call.Dst.Data
			call.Dst = call.V
			must(t, op.Run(t.Context(), call))
			same(t, cfg.String(), call.V.Data, want)
		}
	})
}

// TestCancel: a call that is cancelled leaves its state as it was.
func TestCancel(t *testing.T) {
	defer func(old int64) { state.BriefWork = old }(state.BriefWork)
	state.BriefWork = 0
	cfg := kinds()[3]
	r := rand.New(rand.NewPCG(1, 1))
	op := value[*Recurrence](t)(New(cfg))
	call := lawCall(r, op, 200)
	st, _ := randomState(t, r, op)
	before := append([]float32{}, st.fixed.Values...)
	call.State = st
	for times := 1; times < 8; times++ {
		ctx := &statetest.Ending{Context: t.Context(), Left: times}
		if err := op.Run(ctx, call); !errors.Is(err, context.Canceled) {
			continue // it was done before
		}
		same(t, "the state", st.fixed.Values, before)
		if st.Len() != 0 {
			t.Fatal("it has a length")
		}
	}
}

// TestAllocations: calls allocate nothing after the first, and hold what ScratchBytes says.
func TestAllocations(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for i, cfg := range kinds() {
			r := rand.New(rand.NewPCG(uint64(i), 5))
			for _, n := range []int{1, 100} {
				op := value[*Recurrence](t)(New(cfg))
				call := lawCall(r, op, n)
				call.Workers = 4
				st, _ := randomState(t, r, op)
				call.State = st
				run := func() { must(t, op.Run(context.Background(), call)) }
				// Goroutines that had nothing to do yet have no memory yet.
				a := 1.0
				for tries := 0; a > 0 && tries < 20; tries++ {
					a = testing.AllocsPerRun(10, run)
				}
				if a > 0 {
					t.Errorf("%v, %d tokens: %v allocations", cfg, n, a)
				}
				cfg := cfg
				cfg.Workers = 3
				op = value[*Recurrence](t)(New(cfg))
				call.Workers, call.State = 0, nil
				must(t, op.Run(t.Context(), call))
				w := op.scratch.Get()
				if held, said := isatest.Held(w), op.ScratchBytes(n); held > said {
					t.Errorf("%v, %d tokens: %d bytes are held, ScratchBytes says %d", cfg, n, held, said)
				}
			}
		}
	})
}

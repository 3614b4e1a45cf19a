package delta

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// oddConfig is a recurrence of any kind and size: groups of keys and of queries, queries
// that share a state, widths beside those of tiles.
func oddConfig(r *rand.Rand) Config {
	widths := []int{1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 47, 64, 65, 96, 97}
	cfg := Config{
		Heads: []int{1, 2, 3, 4, 6}[r.IntN(5)], KeyDim: widths[r.IntN(len(widths))], ValueDim: widths[r.IntN(len(widths))],
		Decay: Decay(r.IntN(4)), Erase: Erase(r.IntN(5)), EraseFirst: r.IntN(2) == 0, Scale: []float32{0, 1, -0.5}[r.IntN(3)], Workers: 1 + r.IntN(4),
	}
	divisor := func() int {
		for {
			if d := 1 + r.IntN(cfg.Heads); cfg.Heads%d == 0 {
				return d
			}
		}
	}
	cfg.KeyHeads, cfg.QueryHeads = divisor(), divisor()
	if r.IntN(3) == 0 {
		cfg.QueryHeads = cfg.Heads * (1 + r.IntN(3))
	}
	cfg.Normalize = cfg.Erase == EraseKey || cfg.Erase == EraseVector || r.IntN(2) == 0
	if cfg.Decay == ConstantDecay {
		cfg.LogDecay = RetNetDecay(cfg.Heads)
	}
	return cfg
}

// extreme puts into a call what is rare: decays of 0 and of 1, betas of 0 and 2, keys and
// queries of zeros, and the same key many times.
func (call *Call) extreme(r *rand.Rand) {
	for _, m := range []blas32.General{call.Decay, call.Beta, call.Q, call.K} {
		rare := []float32{0}
		switch {
		case !mat.Given(m):
			continue
		case mat.Same(m, call.Decay):
			rare = []float32{0, -1e-30, -88, -104, -1e4, -1e30, float32(math.Inf(-1))}
		case mat.Same(m, call.Beta):
			rare = []float32{0, 1, 2}
		}
		for t := range m.Rows {
			if row := mat.Row(m, t); r.IntN(4) == 0 {
				v := rare[r.IntN(len(rare))]
				for i := range row {
					if r.IntN(3) > 0 || len(rare) == 1 {
						row[i] = v
					}
				}
			} else if t > 0 && len(rare) == 1 && r.IntN(3) == 0 {
				copy(row, mat.Row(m, t-1))
			}
		}
	}
}

// TestOdd compares recurrences of random shapes and extreme inputs with the formula in
// float64.
func TestOdd(t *testing.T) {
	defer inChunks()()
	defer func(work int64, bytes int) { soloWork, taskBytes = work, bytes }(soloWork, taskBytes)
	soloWork = 0
	isatest.Run(t, func(t *testing.T) {
		for seed := range uint64(60) {
			r := rand.New(rand.NewPCG(seed, 11))
			cfg := oddConfig(r)
			cfg.Recurrent = r.IntN(4) == 0
			taskBytes = 1 << r.IntN(20)
			op := value[*Recurrence](t)(New(cfg))
			n := []int{0, 1, 2, 31, 32, 33, 45, 64, 77, 100}[r.IntN(10)]
			call := lawCall(r, op, n)
			call.extreme(r)
			st, wide := randomState(t, r, op)
			call.State = st
			must(t, op.Run(t.Context(), call))
			what := fmt.Sprintf("seed %d: %+v, %d tokens", seed, cfg, n)
			near(t, what, call.Dst.Data, narrow(oracle(&op.cfg, call, wide)), 1e-5)
			m := zeros(op.cfg.Heads*op.cfg.KeyDim, op.cfg.ValueDim)
			must(t, op.Read(m, st))
			near(t, what+": state", m.Data, narrow(wide), 1e-5)
		}
	})
}

// TestWritten: a state that was given values goes back to those, never to what it had in
// their place, however it was stored or copied on the way.
func TestWritten(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	op := value[*Recurrence](t)(New(Config{Heads: 2, KeyDim: 3, ValueDim: 4}))
	call := lawCall(r, op, 6)
	run := func(st *State, from, to int) {
		c := call.part(from, to)
		c.State = st
		must(t, op.Run(t.Context(), c))
	}
	stored := func(st *State) *State {
		var b bytes.Buffer
		value[int64](t)(st.WriteTo(&b))
		return value[*State](t)(op.ReadState(&b))
	}
	initial := random(r, 6, 4)

	st := value[*State](t)(op.NewState(StateConfig{Snapshots: 2}))
	must(t, op.Write(st, initial))
	given := slices.Clone(st.fixed.Values)
	run(st, 0, 2)
	must(t, st.Truncate(0))
	same(t, "the beginning", st.fixed.Values, given)
	for i := range 3 { // more calls than it has snapshots
		run(st, 2*i, 2*i+2)
	}
	for name, st := range map[string]*State{"the state": st, "a copy": st.Clone(), "a stored one": stored(st), "a stored copy": stored(stored(st).Clone())} {
		if err := st.Truncate(0); !errors.Is(err, ErrState) {
			t.Errorf("%s goes back to 0, which it does not keep: error %v", name, err)
		}
		st.Reset()
		run(st, 0, 2)
		must(t, st.Truncate(0))
		same(t, name, st.fixed.Values, make([]float32, len(given)))
	}

	// On the way.
	run(st, 0, 2)
	run(st, 2, 3)
	must(t, op.Write(st, initial))
	run(st, 3, 6)
	must(t, st.Truncate(3))
	same(t, "the middle", st.fixed.Values, given)
}

// TestNotFinite: what is not finite in a sequence, in any input, changes no bit of the
// others that it is packed with, nor of tokens before its chunk; blocks as well.
func TestNotFinite(t *testing.T) {
	defer inChunks()()
	isatest.Run(t, func(t *testing.T) {
		for i, cfg := range kinds() {
			r := rand.New(rand.NewPCG(uint64(i), 13))
			op := value[*Recurrence](t)(New(cfg))
			const n = 170
			call := lawCall(r, op, n)
			call.Offsets = []int{0, 40, 130, n}
			must(t, op.Run(t.Context(), call))
			want := slices.Clone(call.Dst.Data)
			inputs := []blas32.General{call.Q, call.K, call.V, call.Decay, call.Beta, call.Erase, call.Insert, call.WriteGate}
			for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), 3e38} {
				m := inputs[r.IntN(len(inputs))]
				if !mat.Given(m) {
					continue
				}
				const at = 110 // of the chunk that begins with row 104
				row := mat.Row(m, at)
				saved := slices.Clone(row)
				for j := range row {
					row[j] = bad
				}
				must(t, op.Run(t.Context(), call))
				copy(row, saved)
				same(t, cfg.String()+": before", mat.Rows(call.Dst, 0, 104).Data[:104*call.Dst.Cols], want[:104*call.Dst.Cols])
				same(t, cfg.String()+": after", mat.Rows(call.Dst, 130, n).Data, want[130*call.Dst.Cols:])
			}
		}
		for name, op := range blocks(t, 2) {
			const n = 170
			x, first, want, got := random(rand.New(rand.NewPCG(1, 2)), n, testDim), firstOf(op, n), zeros(n, testDim), zeros(n, testDim)
			call := &BlockCall{Dst: want, X: x, First: first, Offsets: []int{0, 40, 130, n}}
			must(t, op.Run(t.Context(), call))
			mat.Row(x, 110)[3] = float32(math.NaN())
			call.Dst = got
			must(t, op.Run(t.Context(), call))
			same(t, name+": before", got.Data[:104*testDim], want.Data[:104*testDim])
			same(t, name+": after", got.Data[130*testDim:], want.Data[130*testDim:])
		}
	})
}

// TestSubnormal: no decay is kept that is subnormal, which would take many times as long to
// multiply: neither a token's, nor those of a piece's tokens together.
func TestSubnormal(t *testing.T) {
	defer inChunks()()
	isatest.Run(t, func(t *testing.T) {
		for _, cfg := range kinds() {
			for _, cfg.Recurrent = range []bool{false, true} {
				for _, g := range []float32{-2.9, -6.5, -20, -90, -100} {
					op := value[*Recurrence](t)(New(cfg))
					call := lawCall(rand.New(rand.NewPCG(1, 2)), op, 64)
					for i := range call.Decay.Data {
						call.Decay.Data[i] = g
					}
					must(t, op.Run(t.Context(), call))
					w := op.scratch.Get().workers[0]
					c := &w.chunk
					for i, list := range [][]float32{w.decay, c.grow, c.rest, c.step, c.last} {
						for _, v := range list {
							if v != 0 && math.Abs(float64(v)) < 0x1p-126 {
								t.Fatalf("%v, recurrent %v, decays of %v: list %d has %v", cfg, cfg.Recurrent, g, i, v)
							}
						}
					}
				}
			}
		}
	})
}

package attention

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/tile"
)

// TestStepOptions gives steps log-weights, extra keys, masks and biases, of two
// sequences at once: they count as in a call without states.
func TestStepOptions(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		trials := 40
		if testing.Short() {
			trials = 12
		}
		for trial := range trials {
			cfg := Config{Heads: 4, KVHeads: [...]int{2, 1, 4}[trial%3], HeadDim: 16, ValueDim: [...]int{16, 11}[r.IntN(2)], Causal: true, Workers: 1 + trial%4}
			state := StateConfig{LogWeights: r.IntN(3) > 0}
			switch trial % 4 {
			case 0:
				cfg.Window, state.Window = 23, 23+r.IntN(9)
			case 1:
				cfg.Sinks, cfg.Bias = random(3, 4), alibi{0.1, 0.2, 0.05, 1}
			case 2:
				cfg.ReLU = true
			case 3:
				cfg.Softcap = 3
			}
			a := must(t, cfg)
			smallSteps(a)
			if r.IntN(3) == 0 && state.Window == 0 {
				state.Pages = newPages(t, a, PagesConfig{PageTokens: 1 + r.IntN(20), LogWeights: state.LogWeights})
			}
			const n, m = 90, 60 // tokens of the two
			x := tokens(a, uint64(trial), n+m)
			whole := Call{Q: x.q, K: []blas32.General{x.k}, V: []blas32.General{x.v}, Offsets: []int{0, n, n + m}, Dst: blank(n+m, 4*a.cfg.ValueDim), Partial: r.IntN(2) == 0 && !cfg.ReLU}
			if !cfg.ReLU {
				whole.LSE = blank(n+m, 4)
			}
			if state.LogWeights {
				whole.LogWeights = matrix(7, n+m, [...]int{1, a.cfg.KVHeads}[r.IntN(2)])
				if !cfg.ReLU {
					whole.LogWeights.Data[3], whole.LogWeights.Data[n] = tile.NegInf, tile.NegInf
				}
			}
			if r.IntN(2) == 0 {
				whole.Visible = func(query int64) (from, to int64) { return query / 3, query - 1 }
			}
			for e := range r.IntN(3) {
				heads := [...]int{4, 2, 1}[r.IntN(3)]
				k, v := matrix(8, 50, heads*16+5), matrix(9, 50, heads*a.cfg.ValueDim+3) // with gaps
				k.Cols, v.Cols = heads*16, heads*a.cfg.ValueDim
				extra := Extra{Heads: heads, K: []blas32.General{part(k, 0, 13), part(k, 13, 50)}, V: []blas32.General{part(v, 0, 13), part(v, 13, 50)}, Offsets: []int{0, 31, 50}}
				if e == 0 {
					extra.Visible = func(query int64) (from, to int64) { return query / 9, query / 4 }
					extra.LogWeights = matrix(10, 50, [...]int{1, heads}[r.IntN(2)])
				}
				whole.Extra = append([]Extra{extra}, whole.Extra...)
			}
			if err := a.Run(context.Background(), &whole); err != nil {
				t.Fatal(err)
			}

			states := []*State{newState(t, a, state), newState(t, a, state)}
			got := Call{Dst: blank(n+m, 4*a.cfg.ValueDim), LSE: blank(n+m, 4)}
			for states[0].Len() < n || states[1].Len() < m {
				step := whole
				step.States, step.Offsets, step.LSE = []Past{states[0], states[1]}, []int{0}, blas32.General{}
				step.Q, step.K[0], step.V[0] = blank(0, x.q.Cols), blank(0, x.k.Cols), blank(0, x.v.Cols)
				step.LogWeights = blas32.General{Cols: whole.LogWeights.Cols, Stride: whole.LogWeights.Cols}
				step.K, step.V = []blas32.General{{}}, []blas32.General{{}}
				var rows []int // of the whole
				for b, s := range states {
					count := min([...]int{1, 1, 2, 9, 40}[r.IntN(5)], [...]int{n, m}[b]-s.Len())
					for i := range count {
						rows = append(rows, b*n+s.Len()+i)
					}
					step.Offsets = append(step.Offsets, len(rows))
				}
				gather := func(from blas32.General) blas32.General {
					to := blank(len(rows), from.Cols)
					for i, row := range rows {
						copy(to.Data[i*to.Stride:], from.Data[row*from.Stride:][:from.Cols])
					}
					return to
				}
				step.Dst, step.Q, step.K[0], step.V[0] = blank(len(rows), whole.Dst.Cols), gather(x.q), gather(x.k), gather(x.v)
				if whole.LogWeights.Rows > 0 {
					step.LogWeights = gather(whole.LogWeights)
				}
				if !cfg.ReLU {
					step.LSE = blank(len(rows), 4)
				}
				if err := a.Run(context.Background(), &step); err != nil {
					t.Fatal(err)
				}
				for i, row := range rows {
					copy(got.Dst.Data[row*got.Dst.Stride:][:got.Dst.Cols], step.Dst.Data[i*step.Dst.Stride:])
					if !cfg.ReLU {
						copy(got.LSE.Data[row*4:][:4], step.LSE.Data[i*4:])
					}
				}
			}
			what := fmt.Sprintf("%+v, %+v, extra %v", cfg, state, whole.Extra != nil)
			close64(t, what, got.Dst.Data, whole.Dst.Data, 1e-5)
			for i, want := range whole.LSE.Data {
				if x := got.LSE.Data[i]; x != want && !(math.Abs(float64(x-want)) < 1e-5) {
					t.Fatalf("%s: LSE %d is %v, want %v", what, i, x, want)
				}
			}
		}
	})
}

// TestLogWeightsKept has log-weights go where their keys go: forks, files, pages,
// the accepted path of a tree.
func TestLogWeightsKept(t *testing.T) {
	a := must(t, stateOp)
	smallSteps(a)
	x, w := tokens(a, 1, 80), matrix(5, 80, 2)
	call := func(s *State, from, to int) []float32 {
		y := x.part(from, to)
		c := &Call{State: s, Dst: blank(to-from, 64), Q: y.q, K: []blas32.General{y.k}, V: []blas32.General{y.v}, LogWeights: part(w, from, to)}
		if err := a.Run(context.Background(), c); err != nil {
			t.Fatal(err)
		}
		return c.Dst.Data
	}
	for name, cfg := range map[string]StateConfig{
		"growing": {LogWeights: true}, "ring": {LogWeights: true, Window: 30, Keep: 3},
		"paged": {Pages: newPages(t, a, PagesConfig{PageTokens: 7, LogWeights: true})},
	} {
		s := newState(t, a, cfg)
		call(s, 0, 40)
		fork := s.Clone()
		call(fork, 50, 60)
		if err := fork.Truncate(40); err != nil {
			t.Fatal(err)
		}
		var file bytes.Buffer
		if _, err := s.WriteTo(&file); err != nil {
			t.Fatal(err)
		}
		read, err := a.ReadState(&file)
		if err != nil {
			t.Fatal(err)
		}
		// Appended without queries, and the queries after it.
		y := x.part(40, 80)
		if err := a.Run(context.Background(), &Call{State: fork, K: []blas32.General{y.k}, V: []blas32.General{y.v}, LogWeights: part(w, 40, 80)}); err != nil {
			t.Fatal(err)
		}
		want := call(s, 40, 80)
		sameBits(t, name+": read", call(read, 40, 80), want)
		last := blank(1, 64)
		if err := a.Run(context.Background(), &Call{State: fork, Dst: last, Q: part(x.q, 79, 80)}); err != nil {
			t.Fatal(err)
		}
		close64(t, name+": appended", last.Data, want[39*64:], 2e-6)
		at, got := 0, make([]float32, 80)
		for _, g := range s.Segments(nil) {
			if err := g.LogWeights(got[:g.Tokens], 1, 0); err != nil {
				t.Fatal(err)
			}
			for i := range g.Tokens {
				if want := w.Data[(g.Position+i)*2+1]; got[i] != want {
					t.Fatalf("%s: log-weight of token %d is %v, want %v", name, g.Position+i, got[i], want)
				}
			}
			at += g.Tokens
		}
		if most := map[bool]int{true: 3 + 30 + slack, false: 80}[cfg.Window > 0]; at != min(most, 80) {
			t.Errorf("%s: %d tokens in segments", name, at)
		}
	}
	// A token of weight log 2 is two of them.
	twice, once := newState(t, a, StateConfig{}), newState(t, a, StateConfig{LogWeights: true})
	step(t, a, twice, x.part(0, 1))
	step(t, a, twice, x.part(0, 1))
	w.Data[0], w.Data[1] = math.Ln2, math.Ln2
	call(once, 0, 1)
	w.Data[2], w.Data[3] = 0, 0
	close64(t, "log 2", call(once, 1, 2), step(t, a, twice, x.part(1, 2)), 1e-6)
}

// TestReadStateMemory gives ReadState headers that promise much: nothing is taken
// for what does not come.
func TestReadStateMemory(t *testing.T) {
	a := must(t, stateOp)
	s := newState(t, a, StateConfig{Window: 30, Keep: 2})
	step(t, a, s, tokens(a, 1, 40))
	var file bytes.Buffer
	if _, err := s.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	numbers := len(stateKind) + 8 + 8*len(a.fingerprint())
	for what, change := range map[string]map[int]uint64{ // of the numbers behind the fingerprint
		"a large window":                  {3: 1 << 30},
		"a large window, many were there": {3: 1 << 30, 8: 1 << 29},
		"many tokens":                     {3: 1 << 30, 7: 1 << 29, 8: 1 << 29},
		"many tokens of an endless state": {3: 0, 4: 0, 7: 1 << 30, 8: 1 << 30},
		"a bound":                         {3: 0, 4: 0, 5: 1 << 30},
		"more tokens than its bound":      {3: 0, 4: 0, 5: 39},
	} {
		data := bytes.Clone(file.Bytes())
		for i, x := range change {
			binary.LittleEndian.PutUint64(data[numbers+8*i:], x)
		}
		binary.LittleEndian.PutUint32(data[len(data)-4:], crc32.ChecksumIEEE(data[:len(data)-4]))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := a.ReadState(bytes.NewReader(data))
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
			t.Errorf("%s: %d bytes taken for a file of %d", what, took, len(data))
		}
		if err != nil {
			if !errors.Is(err, ErrState) {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		step(t, a, got, tokens(a, 3, 1))
	}
}

// TestStepMass adds up what keys got in steps, which is what they get in a call
// without states.
func TestStepMass(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		for trial := range 12 {
			cfg := Config{Heads: 4, KVHeads: [...]int{2, 1, 4}[trial%3], HeadDim: 16, Causal: true, Workers: 1 + trial%4}
			switch trial % 4 {
			case 0:
				cfg.Window = 23
			case 1:
				cfg.Sinks, cfg.Bias = random(3, 4), alibi{0.1, 0.2, 0.05, 1}
			case 2:
				cfg.ReLU = true
			}
			a := must(t, cfg)
			smallSteps(a)
			const n = 90
			x := tokens(a, uint64(trial), n)
			whole := Call{Q: x.q, K: []blas32.General{x.k}, V: []blas32.General{x.v}, Dst: blank(n, 64), Mass: blank(n, 4)}
			if !cfg.ReLU {
				whole.Entropy = blank(n, 4)
			}
			if trial%3 == 0 {
				whole.Extra = []Extra{{K: []blas32.General{matrix(8, 9, a.cfg.KVHeads*16)}, V: []blas32.General{matrix(9, 9, a.cfg.KVHeads*16)}}}
			}
			if err := a.Run(context.Background(), &whole); err != nil {
				t.Fatal(err)
			}
			state := StateConfig{}
			if trial%2 == 0 {
				state.Pages = newPages(t, a, PagesConfig{PageTokens: 7})
			}
			s := newState(t, a, state)
			mass, entropy := make([]float32, n*4), make([]float32, n*4)
			for s.Len() < n {
				at := s.Len()
				to := min(n, at+[...]int{1, 2, 40, 0}[r.IntN(4)])
				y := x.part(at, to)
				c := whole
				c.State, c.Dst, c.Mass = s, blank(to-at, 64), blank(to, 4)
				c.Q, c.K, c.V = y.q, []blas32.General{y.k}, []blas32.General{y.v}
				if !cfg.ReLU {
					c.Entropy = blank(to-at, 4)
				}
				if err := a.Run(context.Background(), &c); err != nil {
					t.Fatal(err)
				}
				for i, x := range c.Mass.Data {
					mass[i] += x
				}
				copy(entropy[at*4:], c.Entropy.Data)
			}
			what := fmt.Sprintf("%+v", cfg)
			close64(t, what+": mass", mass, whole.Mass.Data, 2e-5)
			if !cfg.ReLU {
				close64(t, what+": entropy", entropy, whole.Entropy.Data, 2e-5)
			}
		}
		a := must(t, stateOp)
		ring := newState(t, a, StateConfig{Window: 9})
		x := tokens(a, 1, 3)
		for text, c := range map[string]*Call{
			"Mass with 1 states or a ring, want one state that is none": {State: ring, Mass: blank(3, 4)},
			"Mass has 2 rows, want 3":                                   {State: newState(t, a, StateConfig{}), Mass: blank(2, 4)},
			"State together with KOffsets, QueryPos, KeyPos or Stats":   {State: ring, Stats: new(Stats)},
		} {
			c.Dst, c.Q, c.K, c.V = blank(3, 64), x.q, []blas32.General{x.k}, []blas32.General{x.v}
			if err := a.Run(context.Background(), c); err == nil || err.Error() != "attention: "+text || c.State.Len() != 0 {
				t.Errorf("error %v, want %s", err, text)
			}
		}
	})
}

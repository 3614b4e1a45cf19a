package attention

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
)

// randomSelection names some of n positions, in runs of a few.
func randomSelection(r *rand.Rand, n int) (list Selection) {
	for at := r.IntN(5); at < n; at += r.IntN(12) {
		to := min(n, at+1+r.IntN([...]int{1, 4, 20}[r.IntN(3)]))
		list = append(list, Run{at, to})
		at = to
	}
	return list
}

// all names everything in several runs that touch.
func all(r *rand.Rand, n int) (list Selection) {
	for at := 0; at < n; {
		to := min(n, at+r.IntN(40))
		list = append(list, Run{at, to})
		at = to
	}
	return list
}

func (x Selection) names(at int) bool {
	for _, run := range x {
		if at >= run.From && at < run.To {
			return true
		}
	}
	return false
}

// poison makes what a state holds and a selection does not name not a number.
func poison(s *State, list Selection) {
	nan := float32(math.NaN())
	for _, x := range s.spans(nil, 0, s.n) {
		for i := range x.n {
			if list.names(x.at(i)) {
				continue
			}
			for _, y := range [...]*store{&x.b.k, x.b.valueStore()} {
				cols := y.heads * y.dim
				for c := range cols {
					at := (x.row+i)*cols + c
					switch y.format {
					case asm.Float32:
						y.float32[at] = nan
					case asm.BFloat16:
						y.half[at] = 0x7fc0
					case asm.Float16:
						y.half[at] = 0x7e00
					}
				}
				for h := 0; h < y.heads && y.format == asm.Int8; h++ {
					y.scales(0, h, x.row+i, 1)[0] = nan
				}
			}
		}
	}
}

// TestSelect has queries see what is named of a state and nothing else: it counts as with
// a mask; naming everything gives the bits of naming nothing; and what is not named may be
// anything.
func TestSelect(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(7, 8))
		trials := 30
		if testing.Short() {
			trials = 6
		}
		for trial := range trials {
			cfg := Config{Heads: 4, KVHeads: [...]int{4, 2, 1}[trial%3], HeadDim: [...]int{16, 11}[r.IntN(2)], Causal: true, Workers: 1 + trial%4}
			switch r.IntN(4) {
			case 0:
				cfg.Window = 90
			case 1:
				cfg.Bias = alibi{.1, .2, .3, .4}
			case 2:
				cfg.Sinks, cfg.Softcap = random(3, 4), 4
			}
			a := must(t, cfg)
			smallSteps(a)
			x := tokens(a, uint64(trial), 230)
			for name, state := range kinds(t, a) {
				if state.Window > 0 && cfg.Window > 0 || state.Rotation != nil && cfg.HeadDim != 16 {
					continue
				}
				s := newState(t, a, state)
				step(t, a, s, x.part(0, 200))
				switch r.IntN(4) {
				case 0:
					if state.Window == 0 {
						must0(t, s.Forget(20))
					}
				case 1:
					if state.Window == 0 {
						var rows []int32
						for i := range 200 {
							if r.IntN(3) > 0 {
								rows = append(rows, int32(i))
							}
						}
						must0(t, s.Keep(rows))
					}
				}
				more := [...]int{0, 1, 1, 5, 20}[r.IntN(5)]
				n := 200 + more
				run := func(s *State, list []Selection) (dst, lse blas32.General) {
					y := x.part(200, n)
					c := &Call{State: s, Q: y.q, K: []blas32.General{y.k}, V: []blas32.General{y.v}, Select: list}
					if more == 0 {
						c.Q, c.K, c.V = part(x.q, 199, 200), nil, nil
					}
					c.Dst, c.LSE = blank(c.Q.Rows, cfg.Heads*a.cfg.ValueDim), blank(c.Q.Rows, cfg.Heads)
					if err := a.Run(context.Background(), c); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					return c.Dst, c.LSE
				}
				what := fmt.Sprintf("%s, %+v, %d more", name, cfg, more)
				dst, lse := run(s.Clone(), nil)
				dst1, lse1 := run(s.Clone(), []Selection{all(r, n)})
				sameBits(t, what+": all", dst1.Data, dst.Data)
				sameBits(t, what+": all, lse", lse1.Data, lse.Data)
				list := randomSelection(r, n)
				dst, lse = run(s.Clone(), []Selection{list})
				masked := MatrixMask{Queries: n, Keys: n, Seen: make([]bool, n*n)}
				for i := range n {
					for j := range n {
						masked.Seen[i*n+j] = list.names(j)
					}
				}
				y := x.part(200, n)
				c := &Call{State: s.Clone(), Q: y.q, K: []blas32.General{y.k}, V: []blas32.General{y.v}, Mask: masked}
				if more == 0 {
					c.Q, c.K, c.V = part(x.q, 199, 200), nil, nil
				}
				c.Dst = blank(c.Q.Rows, cfg.Heads*a.cfg.ValueDim)
				if err := a.Run(context.Background(), c); err != nil {
					t.Fatal(err)
				}
				close64(t, what+": masked", dst.Data, c.Dst.Data, rounded(3e-6))
				poison(s, list) // and, where pages are shared, what was run above
				dst1, lse1 = run(s, []Selection{list})
				sameBits(t, what+": poisoned", dst1.Data, dst.Data)
				sameBits(t, what+": poisoned, lse", lse1.Data, lse.Data)
			}
		}
	})
}

func must0(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestSelectHeads has each key head choose for itself, as a sequence of its own: with the
// same choices that is one state, to the bit.
func TestSelectHeads(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const heads, kv, d, n = 6, 3, 16, 90
		a, one := must(t, Config{Heads: heads, KVHeads: kv, HeadDim: d, Causal: true}), must(t, Config{Heads: heads / kv, KVHeads: 1, HeadDim: d, Causal: true})
		smallSteps(a)
		smallSteps(one)
		x, r := tokens(a, 1, n+1), rand.New(rand.NewPCG(1, 2))
		s := newState(t, a, StateConfig{})
		step(t, a, s, x.part(0, n))
		var states []*State
		pages := newPages(t, one, PagesConfig{PageTokens: 7})
		var past []Past
		for range kv {
			states = append(states, newState(t, one, StateConfig{Pages: pages}))
			past = append(past, states[len(states)-1])
		}
		// [1, KVHeads*HeadDim] is [KVHeads, HeadDim].
		byHead := func(m blas32.General, row, cols int) blas32.General {
			return general(m.Data[row*m.Stride:][:m.Cols], m.Cols/cols, cols)
		}
		for i := range n {
			if err := one.StepBatch(blank(kv, heads/kv*d), byHead(x.q, i, heads/kv*d), byHead(x.k, i, d), byHead(x.v, i, d), states); err != nil {
				t.Fatal(err)
			}
		}
		list := randomSelection(r, n+1)
		y := x.part(n, n+1)
		want := &Call{State: s, Dst: blank(1, heads*d), Q: y.q, K: []blas32.General{y.k}, V: []blas32.General{y.v}, Select: []Selection{list}}
		must0(t, a.Run(context.Background(), want))
		got := &Call{States: past, Dst: blank(kv, heads/kv*d), Q: byHead(x.q, n, heads/kv*d), K: []blas32.General{byHead(x.k, n, d)}, V: []blas32.General{byHead(x.v, n, d)}, Select: []Selection{list, list, list}}
		must0(t, one.Run(context.Background(), got))
		sameBits(t, "heads", got.Dst.Data, want.Dst.Data)
	})
}

// TestWeights compares the weights of what was selected with Mass, and counts what was read.
func TestWeights(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(9, 10))
		for trial := range 5 {
			a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true, Workers: 1 + trial%3, ReLU: trial%5 == 4})
			smallSteps(a)
			x := tokens(a, uint64(trial), 160)
			for name, state := range kinds(t, a) {
				if state.Window > 0 {
					continue
				}
				s := newState(t, a, state)
				step(t, a, s, x.part(0, 130))
				if trial%2 == 0 {
					must0(t, s.Forget(11))
					must0(t, s.Keep([]int32{0, 1, 5, 6, 7, 30, 50, 51, 90, 91}))
				}
				for _, list := range []Selection{nil, randomSelection(r, 160)} {
					what := fmt.Sprintf("%s, trial %d, %v", name, trial, list)
					c := s.Clone()
					y := x.part(130, 160)
					call := &Call{State: c, Dst: blank(30, 64), Q: y.q, K: []blas32.General{y.k}, V: []blas32.General{y.v}, Mass: blank(160, 4), Read: new(Read)}
					call.Weights = [][]float32{blank(s.Held()+30, 4).Data}
					if list != nil {
						call.Select, call.Weights[0] = []Selection{list}, blank(list.Tokens(), 4).Data
					}
					must0(t, a.Run(context.Background(), call))
					var want []float32
					if list == nil {
						for _, at := range c.Positions(nil) {
							want = append(want, call.Mass.Data[at*4:][:4]...)
						}
					}
					for _, run := range list {
						want = append(want, call.Mass.Data[run.From*4:run.To*4]...)
					}
					sameBits(t, what, call.Weights[0], want)
					if call.Read.Bytes != call.Read.Tokens*a.StateBytes(c.cfg, 1) || call.Read.Tokens == 0 {
						t.Errorf("%s: read %+v", what, *call.Read)
					}
				}
			}
		}
		a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true})
		x := tokens(a, 1, 41)
		s := newState(t, a, StateConfig{Format: asm.BFloat16})
		step(t, a, s, x.part(0, 40))
		y := x.part(40, 41)
		read := new(Read)
		c := &Call{State: s, Dst: blank(1, 64), Q: y.q, K: []blas32.General{y.k}, V: []blas32.General{y.v}, Read: read, Select: []Selection{{{3, 5}, {20, 27}, {40, 41}}}}
		must0(t, a.Run(context.Background(), c))
		if read.Tokens != 10 || read.Bytes != 10*2*2*2*16 {
			t.Errorf("read %+v, want 10 tokens of 128 bytes", *read)
		}
	})
}

func TestSelectErrors(t *testing.T) {
	a := must(t, stateOp)
	x := tokens(a, 1, 9)
	for want, c := range map[string]struct {
		kind error
		edit func(*Call)
	}{
		"Select has 0 elements, want one for each state = 1":                {ErrCall, func(c *Call) { c.Select = []Selection{} }},
		"Select[0][0] is -1 to 3 after 0, want ascending positions up to 9": {ErrCall, func(c *Call) { c.Select = []Selection{{{-1, 3}}} }},
		"Select[0][0] is 3 to 2 after 0, want ascending positions up to 9":  {ErrCall, func(c *Call) { c.Select = []Selection{{{3, 2}}} }},
		"Select[0][1] is 2 to 5 after 3, want ascending positions up to 9":  {ErrCall, func(c *Call) { c.Select = []Selection{{{0, 3}, {2, 5}}} }},
		"Select[0][0] is 3 to 10 after 0, want ascending positions up to 9": {ErrCall, func(c *Call) { c.Select = []Selection{{{3, 10}}} }},
		"Weights has 2 elements, want one for each state = 1":               {ErrCall, func(c *Call) { c.Weights = make([][]float32, 2) }},
		"Weights[0] has 3 elements, want tokens*Heads = 9*4":                {ErrShape, func(c *Call) { c.Weights = [][]float32{make([]float32, 3)} }},
		"Weights[0] has 36 elements, want tokens*Heads = 2*4":               {ErrShape, func(c *Call) { c.Weights, c.Select = [][]float32{make([]float32, 36)}, []Selection{{{7, 9}}} }},
		"Weights[0] shares elements with another matrix":                    {ErrShape, func(c *Call) { c.Weights = [][]float32{c.Dst.Data[:36]} }},
		"Weights with a ring":                   {ErrCall, func(c *Call) { c.State, c.Weights = newState(t, a, StateConfig{Window: 20}), make([][]float32, 1) }},
		"Select, Weights or Read without State": {ErrCall, func(c *Call) { c.State, c.Read = nil, new(Read) }},
	} {
		s := newState(t, a, StateConfig{})
		step(t, a, s, x.part(0, 5))
		y := x.part(5, 9)
		call := &Call{State: s, Dst: blank(4, 64), Q: y.q, K: []blas32.General{y.k}, V: []blas32.General{y.v}}
		c.edit(call)
		if err := a.Run(context.Background(), call); !errors.Is(err, c.kind) || err.Error() != "attention: "+want || s.Len() != 5 {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	s := newState(t, a, StateConfig{})
	step(t, a, s, x.part(0, 5))
	c := &Call{State: s, Dst: blank(1, 64), LSE: blank(1, 4), Q: part(x.q, 4, 5), Select: []Selection{{}}}
	must0(t, a.Run(context.Background(), c))
	for _, v := range c.Dst.Data {
		if v != 0 {
			t.Fatalf("an empty selection gives %v, want 0", c.Dst.Data)
		}
	}
	for _, v := range c.LSE.Data {
		if !math.IsInf(float64(v), -1) {
			t.Fatalf("log-sum-exp of an empty selection is %v, want -Inf", v)
		}
	}
}

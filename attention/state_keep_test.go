package attention

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

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// TestKeepProgram steps, keeps, forgets, takes back, forks, writes and reads at random:
// after each, a state attends to the tokens that are left, at their positions.
func TestKeepProgram(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(5, 6))
		ops := 60
		if testing.Short() {
			ops = 20
		}
		for _, windowed := range []int{0, 25} {
			a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true, Window: windowed, Bias: alibi{.1, .2, .3, .4}})
			smallSteps(a)
			x := tokens(a, 1, 400)
			for name, cfg := range kinds(t, a) {
				if cfg.Rotation != nil || cfg.Window > 0 {
					continue
				}
				s := newState(t, a, cfg)
				n, floor, held := 0, 0, []int64(nil)
				for op := range ops {
					what := fmt.Sprintf("%s, window %d, operation %d", name, windowed, op)
					switch r.IntN(6) {
					case 0:
						var rows []int32
						var left []int64
						for i, at := range held {
							if r.IntN(4) > 0 {
								rows, left = append(rows, int32(i)), append(left, at)
							}
						}
						if r.IntN(3) == 0 {
							defer func(c *State) { c.Reset() }(s.Clone()) // so that pages are shared
						}
						if err := s.Keep(rows); err != nil {
							t.Fatalf("%s: %v", what, err)
						}
						if len(left) < len(held) {
							floor = n
						}
						held = left
					case 1:
						to := r.IntN(n/3 + 1)
						if err := s.Forget(to); err != nil {
							t.Fatalf("%s: %v", what, err)
						}
						gone := len(held)
						held = slices.DeleteFunc(held, func(at int64) bool { return at < int64(to) })
						if len(held) < gone {
							floor = max(floor, to)
						}
					case 2:
						to := floor + r.IntN(n-floor+1)
						if err := s.Truncate(to); err != nil {
							t.Fatalf("%s: %v", what, err)
						}
						if n = to; n == 0 {
							floor, held = 0, nil
						}
						held = slices.DeleteFunc(held, func(at int64) bool { return at >= int64(to) })
						if floor > 1 {
							if err := s.Truncate(floor - 1); !errors.Is(err, ErrState) {
								t.Fatalf("%s: Truncate to what is forgotten: %v", what, err)
							}
						}
					case 3:
						fork := s.Clone()
						step(t, a, s, x.part(0, 9))
						s.Reset()
						s = fork
					case 4:
						var file bytes.Buffer
						if _, err := s.WriteTo(&file); err != nil {
							t.Fatal(err)
						}
						s.Reset()
						s = newState(t, a, cfg)
						if _, err := s.ReadFrom(&file); err != nil {
							t.Fatalf("%s: %v", what, err)
						}
					}
					if got := s.Positions(nil); !slices.Equal(got, held) || s.Held() != len(held) || s.Len() != n {
						t.Fatalf("%s: %d of %d tokens at %v, want %d of %d at %v", what, s.Held(), s.Len(), got, len(held), n, held)
					}
					more := 1 + r.IntN(5)
					if n+more > 290 {
						break
					}
					mask := MatrixMask{Queries: n + more, Keys: n + more, Seen: make([]bool, (n+more)*(n+more))}
					for i := n; i < n+more; i++ {
						for _, at := range held {
							mask.Seen[i*mask.Keys+int(at)] = true
						}
						for j := n; j <= i; j++ {
							mask.Seen[i*mask.Keys+j] = true
						}
					}
					want := blank(more, 64)
					c := &Call{Dst: want, Q: part(x.q, n, n+more), K: []blas32.General{part(x.k, 0, n+more)}, V: []blas32.General{part(x.v, 0, n+more)}, Mask: mask}
					if err := a.Run(context.Background(), c); err != nil {
						t.Fatal(err)
					}
					close64(t, what, step(t, a, s, x.part(n, n+more)), want.Data, formats[s.cfg.Format])
					for i := range more {
						held = append(held, int64(n+i))
					}
					n += more
				}
				s.Reset()
			}
		}
	})
}

// TestKeepAll has Keep of everything change nothing, to the bit.
func TestKeepAll(t *testing.T) {
	a := must(t, stateOp)
	for name, cfg := range kinds(t, a) {
		if cfg.Window > 0 {
			continue
		}
		x := tokens(a, 3, 90)
		kept, other := newState(t, a, cfg), newState(t, a, cfg)
		step(t, a, kept, x.part(0, 80))
		step(t, a, other, x.part(0, 80))
		var rows []int32
		for i := range kept.Held() {
			rows = append(rows, int32(i))
		}
		if err := kept.Keep(rows); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sameBits(t, name, step(t, a, kept, x.part(80, 90)), step(t, a, other, x.part(80, 90)))
		if err := kept.Truncate(3); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKeepRotated has keys that a step rotates keep the positions that they came with.
func TestKeepRotated(t *testing.T) {
	a := must(t, stateOp)
	for name, cfg := range kinds(t, a) {
		if cfg.Rotation == nil || cfg.Window > 0 {
			continue
		}
		x := tokens(a, 3, 40)
		s, whole := newState(t, a, cfg), newState(t, a, cfg)
		step(t, a, s, x.part(0, 39))
		step(t, a, whole, x.part(0, 39))
		var rows []int32
		seen := make([]bool, 40)
		for i := 0; i < 39; i += 3 {
			rows, seen[i] = append(rows, int32(i)), true
		}
		seen[39] = true
		if err := s.Keep(rows); err != nil {
			t.Fatal(err)
		}
		want := blank(1, 64)
		last := x.part(39, 40)
		c := &Call{State: whole, Dst: want, Q: last.q, K: []blas32.General{last.k}, V: []blas32.General{last.v}, Mask: seenKeys(seen)}
		if err := a.Run(context.Background(), c); err != nil {
			t.Fatal(err)
		}
		close64(t, name, step(t, a, s, last), want.Data, 1e-5)
	}
}

// seenKeys shows some keys to all queries.
type seenKeys []bool

func (m seenKeys) Hide(s blas32.General, _ int, _, key int64) {
	for i := range s.Rows {
		for j := range s.Cols {
			if !m[int(key)+j] {
				mat.Row(s, i)[j] = mat.Row(s, i)[j] - 1e30
			}
		}
	}
}

func (m seenKeys) Sight(int, int64, int64, int, int) Sight { return Some }

func TestKeepErrors(t *testing.T) {
	a := must(t, stateOp)
	x := tokens(a, 1, 20)
	s, ring := newState(t, a, StateConfig{}), newState(t, a, StateConfig{Window: 5})
	step(t, a, s, x)
	for _, rows := range [][]int32{{-1}, {20}, {3, 3}, {4, 2}} {
		if err := s.Keep(rows); !errors.Is(err, ErrCall) || s.Held() != 20 {
			t.Errorf("Keep %v: error %v, %d held", rows, err, s.Held())
		}
	}
	for _, err := range []error{ring.Keep(nil), ring.Forget(0), s.Forget(21)} {
		if !errors.Is(err, ErrCall) {
			t.Errorf("error %v", err)
		}
	}
	// A full pool has no page to copy a shared one to.
	pages := newPages(t, a, PagesConfig{PageTokens: 8, MaxPages: 3})
	paged := newState(t, a, StateConfig{Pages: pages})
	step(t, a, paged, x)
	fork := paged.Clone()
	if err := paged.Keep([]int32{1, 4, 12}); !errors.Is(err, ErrFull) || paged.Held() != 20 {
		t.Errorf("error %v, %d held", err, paged.Held())
	}
	fork.Reset()
	if err := paged.Keep([]int32{1, 4, 12}); err != nil || pages.Used() != 1 {
		t.Errorf("error %v, %d pages in use", err, pages.Used())
	}
	if err := paged.Forget(20); err != nil || pages.Used() != 0 || paged.Held() != 0 || paged.Len() != 20 {
		t.Errorf("error %v, %d pages in use, %d of %d tokens", err, pages.Used(), paged.Held(), paged.Len())
	}
}

// TestForgetMemory has a window slide over a bounded state without new memory.
func TestForgetMemory(t *testing.T) {
	a := must(t, stateOp)
	x := tokens(a, 1, 10)
	pages := newPages(t, a, PagesConfig{PageTokens: 8, MaxPages: 6})
	for _, s := range []*State{newState(t, a, StateConfig{MaxTokens: 40, Format: asm.BFloat16}), newState(t, a, StateConfig{Pages: pages})} {
		once := func() {
			step(t, a, s, x)
			if err := s.Forget(max(0, s.Len()-25)); err != nil {
				t.Fatal(err)
			}
		}
		for range 100 {
			once()
		}
		if s.Len() != 1000 || s.Held() != 25 {
			t.Errorf("%d of %d tokens", s.Held(), s.Len())
		}
	}
}

// TestExtraState compares keys of states in the softmax with the same as matrices.
func TestExtraState(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for seed := range uint64(30) {
			r := rand.New(rand.NewPCG(seed, 3))
			a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true, Workers: 1 + r.IntN(3)})
			small(a)
			inner := must(t, Config{Heads: 4, KVHeads: []int{1, 2, 4}[r.IntN(3)], HeadDim: 16, Causal: true})
			heads := inner.cfg.KVHeads
			format := asm.Format(r.IntN(4))
			cfg := StateConfig{Format: format, LogWeights: r.IntN(2) == 0}
			switch r.IntN(3) {
			case 1:
				cfg.Pages = newPages(t, inner, PagesConfig{PageTokens: 7, Format: format, LogWeights: cfg.LogWeights})
			case 2:
				cfg.Window, cfg.Keep = 9, 2
			}
			n := 10 + r.IntN(90)
			offsets := []int{0, r.IntN(n + 1), n}
			x := tokens(a, seed, n)
			var e, m Extra
			m.Offsets = []int{0}
			weights := mat.New(0, heads)
			for range 2 {
				s := newState(t, inner, cfg)
				more := r.IntN(60)
				c := &Call{State: s, K: []blas32.General{matrix(seed+9, more, heads*16)}, V: []blas32.General{matrix(seed+8, more, heads*16)}}
				if cfg.LogWeights {
					c.LogWeights = matrix(seed+7, more, heads)
				}
				if err := inner.Run(context.Background(), c); err != nil {
					t.Fatal(err)
				}
				if cfg.Window == 0 && r.IntN(2) == 0 {
					var rows []int32
					for i := range more {
						if r.IntN(3) > 0 {
							rows = append(rows, int32(i))
						}
					}
					if err := s.Keep(rows); err != nil {
						t.Fatal(err)
					}
				}
				e.States = append(e.States, s)
				k, v, w := mat.New(s.Held(), heads*16), mat.New(s.Held(), heads*16), mat.New(s.Held(), heads)
				at := 0
				for _, g := range s.Segments(nil) {
					for h := range heads {
						weight := make([]float32, g.Tokens)
						for _, err := range []error{g.Keys(mat.Columns(mat.Rows(k, at, at+g.Tokens), h*16, 16), h, 0), g.Values(mat.Columns(mat.Rows(v, at, at+g.Tokens), h*16, 16), h, 0), g.LogWeights(weight, h, 0)} {
							if err != nil {
								t.Fatal(err)
							}
						}
						for i, x := range weight {
							mat.Row(w, at+i)[h] = x
						}
					}
					at += g.Tokens
				}
				m.Heads, m.K, m.V = heads, append(m.K, k), append(m.V, v)
				m.Offsets = append(m.Offsets, m.Offsets[len(m.Offsets)-1]+s.Held())
				weights.Data, weights.Rows = append(weights.Data, w.Data...), weights.Rows+s.Held()
			}
			m.LogWeights = weights
			if r.IntN(2) == 0 {
				e.LogWeights = matrix(seed+6, weights.Rows, 1+r.IntN(2)*(heads-1))
				for i := range weights.Rows {
					for h := range heads {
						mat.Row(m.LogWeights, i)[h] += mat.Row(e.LogWeights, i)[min(h, e.LogWeights.Cols-1)]
					}
				}
			}
			if weights.Rows == 0 {
				m.LogWeights, e.LogWeights = blas32.General{}, blas32.General{}
			}
			call := func(extra Extra, stepping bool) blas32.General {
				c := &Call{Dst: blank(n, 64), Q: x.q, K: []blas32.General{x.k}, V: []blas32.General{x.v}, Offsets: offsets, Extra: []Extra{extra}}
				if stepping {
					c.States = []Past{newState(t, a, StateConfig{}), newState(t, a, StateConfig{})}
				}
				if err := a.Run(context.Background(), c); err != nil {
					t.Fatal(err)
				}
				return c.Dst
			}
			for _, stepping := range []bool{false, true} {
				close64(t, fmt.Sprintf("seed %d, stepping %v, %v", seed, stepping, cfg), call(e, stepping).Data, call(m, stepping).Data, rounded(2e-5))
			}
			// By position: of the first state alone.
			p := e.States[0].Positions(nil)
			sees := func(q int64) (int64, int64) { return q / 5, q / 2 }
			one, same := Extra{State: e.States[0], Visible: sees}, Extra{Heads: heads, K: m.K[:1], V: m.V[:1], Visible: func(q int64) (int64, int64) {
				from, to := sees(q)
				count := func(at int64) int64 {
					i, _ := slices.BinarySearch(p, at)
					return int64(i)
				}
				return count(from), count(to)
			}}
			if len(p) > 0 && cfg.LogWeights {
				same.LogWeights = mat.New(len(p), heads)
				for i := range len(p) {
					at := 0
					for _, g := range e.States[0].Segments(nil) {
						if i >= at && i < at+g.Tokens {
							for h := range heads {
								if err := g.LogWeights(mat.Row(same.LogWeights, i)[h:h+1], h, i-at); err != nil {
									t.Fatal(err)
								}
							}
						}
						at += g.Tokens
					}
				}
			}
			offsets = nil
			for _, stepping := range []bool{false, true} {
				run := func(extra Extra) []float32 {
					c := &Call{Dst: blank(n, 64), Q: x.q, K: []blas32.General{x.k}, V: []blas32.General{x.v}, Extra: []Extra{extra}}
					if stepping {
						c.State = newState(t, a, StateConfig{})
					}
					if err := a.Run(context.Background(), c); err != nil {
						t.Fatal(err)
					}
					return c.Dst.Data
				}
				close64(t, fmt.Sprintf("by position: seed %d, stepping %v, %v", seed, stepping, cfg), run(one), run(same), rounded(2e-5))
			}
		}
	})
}

// TestForgetBefore: positions before the first, however far, are forgotten already.
func TestForgetBefore(t *testing.T) {
	s := newState(t, must(t, Config{Heads: 1, HeadDim: 2, Causal: true}), StateConfig{})
	x := matrix(1, 9, 2)
	for _, err := range []error{s.Append(x, x), s.Forget(4), s.Forget(-1), s.Forget(math.MinInt), s.Append(x, x)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if s.Len() != 18 || s.Held() != 14 {
		t.Errorf("%d of %d tokens are held, want 14 of 18", s.Held(), s.Len())
	}
}

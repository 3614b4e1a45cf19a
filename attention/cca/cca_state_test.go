package cca

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
)

// formats are the storage types and by how much steps may differ from Forward in each.
var formats = map[asm.Format]float64{asm.Float32: 2e-5, asm.Float16: 4e-3, asm.BFloat16: 4e-2, asm.Int8: 6e-2}

// TestCCAFormats cuts sequences at random with states of every format, of their own
// memory and of pages: Step gives what Forward does, to what the format loses, also
// after the state was copied, taken back or written and read.
func TestCCAFormats(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for seed := range uint64(24) {
			for format, tolerance := range formats {
				c, q, k, v := randomCCA(t, seed, 1)
				r := rand.New(rand.NewPCG(seed, uint64(format)))
				n := q.Rows
				want, got := zeroMatrix(n, c.cfg.Heads*c.cfg.ValueDim), zeroMatrix(n, c.cfg.Heads*c.cfg.ValueDim)
				if err := c.Forward(want, q, k, v); err != nil {
					t.Fatal(err)
				}
				pages, err := c.NewPages(attention.PagesConfig{Format: format, PageTokens: 1 + r.IntN(9)})
				if err != nil {
					t.Fatal(err)
				}
				cfg := StateConfig{Format: format, Rollback: 4}
				if seed%2 == 0 {
					cfg = StateConfig{Pages: pages, Rollback: 4}
				}
				s, err := c.NewState(cfg)
				if err != nil {
					t.Fatal(err)
				}
				all := []*State{s}
				furthest := 0
				for at := 0; at < n; at = s.Len() {
					to := min(at+1+r.IntN([]int{3, 20, 100}[r.IntN(3)]), n)
					if err := c.Step(part(got, at, to), part(q, at, to), part(k, at, to), part(v, at, to), s); err != nil {
						t.Fatal(err)
					}
					furthest = max(furthest, to)
					switch r.IntN(6) {
					case 0:
						s = s.Clone()
						all = append(all, s)
					case 1:
						if err := s.Truncate(max(0, furthest-r.IntN(5), 0)); err != nil {
							t.Fatal(err)
						}
					case 2:
						var file bytes.Buffer
						if _, err := s.WriteTo(&file); err != nil {
							t.Fatal(err)
						}
						if s, err = c.ReadState(&file); err != nil {
							t.Fatal(err)
						}
						if s.cfg.Format != format {
							t.Fatalf("read a state of format %d, want %d", s.cfg.Format, format)
						}
					}
				}
				close64(t, "steps", got.Data, want.Data, tolerance)
				if cfg.Pages == nil {
					continue
				}
				for _, s := range all {
					s.Reset()
				}
				if tokens, cores := pages.Used(); tokens+cores > 0 {
					t.Errorf("%d pages of tokens and %d of cores are in use after Reset", tokens, cores)
				}
			}
		}
	})
}

// TestCCABatch has several states go on together: the bits of each alone, one token or
// several, few or many.
func TestCCABatch(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for seed := range uint64(12) {
			c, _, _, _ := randomCCA(t, seed, 2)
			r := rand.New(rand.NewPCG(seed, 4))
			const batch = 4
			cfg := c.cfg
			var alone, together []*State
			var past []attention.Past
			for range batch {
				for _, list := range []*[]*State{&alone, &together} {
					s, err := c.NewState(StateConfig{})
					if err != nil {
						t.Fatal(err)
					}
					*list = append(*list, s)
				}
				past = append(past, together[len(together)-1])
			}
			for round := range 12 {
				offsets := []int{0}
				for range batch {
					n := []int{1, r.IntN(9), r.IntN(90)}[min(round%3, 2)]
					offsets = append(offsets, offsets[len(offsets)-1]+n)
				}
				n := offsets[batch]
				q, k, v := matrix(seed+uint64(round), n, cfg.Heads*cfg.HeadDim), matrix(seed+1, n, cfg.KVHeads*cfg.HeadDim), matrix(seed+2, n, cfg.KVHeads*cfg.ValueDim)
				want, got := zeroMatrix(n, cfg.Heads*cfg.ValueDim), zeroMatrix(n, cfg.Heads*cfg.ValueDim)
				for b, s := range alone {
					from, to := offsets[b], offsets[b+1]
					if err := c.Step(part(want, from, to), part(q, from, to), part(k, from, to), part(v, from, to), s); err != nil {
						t.Fatal(err)
					}
				}
				var err error
				if round%3 == 0 {
					err = c.StepBatch(got, q, k, v, together)
				} else {
					err = c.Run(context.Background(), &attention.Call{Dst: got, Q: q, K: []blas32.General{k}, V: []blas32.General{v}, States: past, Offsets: offsets})
				}
				if err != nil {
					t.Fatal(err)
				}
				sameBits(t, "batch", got.Data, want.Data)
			}
		}
	})
}

// TestCCAOwners has states go on with another operator of the same Config, and with no
// other.
func TestCCAOwners(t *testing.T) {
	cfg := Config{Heads: 2, HeadDim: 4, GroupSize: 2, Window: 3}
	c, twin := mustCCA(t, cfg), mustCCA(t, cfg)
	cfg.GroupSize = 3
	other := mustCCA(t, cfg)
	s, _ := c.NewState(StateConfig{})
	x := matrix(1, 2, 8)
	dst := zeroMatrix(2, 8)
	for _, op := range []*CCA{c, twin, c} {
		if err := op.Step(dst, x, x, x, s); err != nil {
			t.Fatal(err)
		}
	}
	if s.Len() != 6 {
		t.Errorf("%d tokens", s.Len())
	}
	pages, _ := other.NewPages(attention.PagesConfig{})
	if _, err := c.NewState(StateConfig{Pages: pages}); !errors.Is(err, attention.ErrConfig) {
		t.Errorf("error %v of another operator's pages", err)
	}
	if _, err := c.NewPages(attention.PagesConfig{SharedValues: true}); !errors.Is(err, attention.ErrConfig) {
		t.Errorf("error %v", err)
	}
	if _, err := c.NewState(StateConfig{Format: 77}); !errors.Is(err, attention.ErrConfig) {
		t.Errorf("error %v", err)
	}
	for name, err := range map[string]error{
		"another operator": other.Step(dst, x, x, x, s),
		"given twice":      c.StepBatch(dst, x, x, x, []*State{s, s}),
		"nil of many":      c.StepBatch(dst, x, x, x, []*State{s, nil}),
		"of exact":         c.Run(context.Background(), &attention.Call{Dst: dst, Q: x, K: []blas32.General{x}, V: []blas32.General{x}, State: s.tokens}),
	} {
		if !errors.Is(err, attention.ErrState) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if err := c.StepBatch(dst, x, x, x, nil); !errors.Is(err, attention.ErrCall) {
		t.Errorf("error %v without states", err)
	}
	if err := c.Run(context.Background(), &attention.Call{Dst: dst, Q: x, K: []blas32.General{x}, V: []blas32.General{x}, States: []attention.Past{}}); !errors.Is(err, attention.ErrCall) {
		t.Errorf("error %v with no states", err)
	}
	if s.Len() != 6 {
		t.Errorf("%d tokens after errors", s.Len())
	}
}

// TestCCAPagesFull has a pool run out: the state is as before, and goes on when there
// is room again.
func TestCCAPagesFull(t *testing.T) {
	c := mustCCA(t, Config{Heads: 2, HeadDim: 4, GroupSize: 2, Window: 6})
	pages, err := c.NewPages(attention.PagesConfig{PageTokens: 4, MaxPages: 21})
	if err != nil {
		t.Fatal(err)
	}
	const n = 120
	q, k, v := matrix(1, n, 8), matrix(2, n, 8), matrix(3, n, 8)
	want, got := zeroMatrix(n, 8), zeroMatrix(n, 8)
	if err := c.Forward(want, q, k, v); err != nil {
		t.Fatal(err)
	}
	s, _ := c.NewState(StateConfig{Pages: pages})
	other, _ := c.NewState(StateConfig{Pages: pages})
	step := func(s *State, from, to int) error {
		return c.Step(part(got, from, to), part(q, from, to), part(k, from, to), part(v, from, to), s)
	}
	if err := step(other, 0, 80); err != nil { // ten pages of cores
		t.Fatal(err)
	}
	if err := step(s, 0, 40); err != nil { // five
		t.Fatal(err)
	}
	for _, to := range []int{100, n} { // few tokens, and many
		if err := step(s, 40, to); !errors.Is(err, attention.ErrFull) || s.Len() != 40 {
			t.Fatalf("to %d: error %v, %d tokens", to, err, s.Len())
		}
	}
	other.Reset()
	if err := step(s, 40, n); err != nil {
		t.Fatal(err)
	}
	close64(t, "after a full pool", got.Data, want.Data, 1e-5)
	if pages.Bytes() == 0 || s.Bytes() == 0 {
		t.Errorf("%d bytes of pages, %d of the state", pages.Bytes(), s.Bytes())
	}
}

// TestCCAForeignParts reads files whose head is right and whose parts are not.
func TestCCAForeignParts(t *testing.T) {
	c := mustCCA(t, Config{Heads: 2, HeadDim: 2, GroupSize: 2, Window: 3, Levels: 2})
	make := func(change func(s *State)) error {
		s, _ := c.NewState(StateConfig{})
		x := matrix(1, 30, 4)
		if err := c.Step(zeroMatrix(30, 4), x, x, x, s); err != nil {
			t.Fatal(err)
		}
		change(s)
		var file bytes.Buffer
		if _, err := s.WriteTo(&file); err != nil {
			t.Fatal(err)
		}
		_, err := c.ReadState(&file)
		return err
	}
	held := func(cfg attention.StateConfig, n int, change func(s *attention.State)) *attention.State {
		s, err := c.att.NewState(cfg)
		if err != nil {
			t.Fatal(err)
		}
		x := matrix(1, n, 4)
		if err := s.Append(x, x); err != nil {
			t.Fatal(err)
		}
		change(s)
		return s
	}
	same := func(*attention.State) {}
	if err := make(func(*State) {}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(s *State){
		"longer than its tokens": func(s *State) { s.length++ },
		"tokens of another kind": func(s *State) { s.tokens = held(attention.StateConfig{Format: asm.Int8}, 30, same) },
		"a ring":                 func(s *State) { s.tokens = held(attention.StateConfig{Window: 20}, 30, same) },
		"shared values":          func(s *State) { s.tokens, _ = c.att.NewState(attention.StateConfig{SharedValues: true}) },
		"tokens that are missing": func(s *State) {
			s.tokens = held(attention.StateConfig{}, 30, func(s *attention.State) { s.Forget(29) })
		},
		"tokens with a gap": func(s *State) {
			s.tokens = held(attention.StateConfig{}, 20, func(s *attention.State) { s.Skip(5); x := matrix(1, 5, 4); s.Append(x, x) })
		},
		"cores that are missing": func(s *State) { s.levels[1].Forget(s.levels[1].Len()) },
		"cores too many":         func(s *State) { x := matrix(1, 1, 4); s.levels[0].Append(x, x) },
	} {
		if err := make(change); !errors.Is(err, attention.ErrState) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

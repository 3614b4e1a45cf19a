package attention

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/rope"
)

func newState(t testing.TB, a *Attention, cfg StateConfig) *State {
	t.Helper()
	s, err := a.NewState(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newPages(t testing.TB, a *Attention, cfg PagesConfig) *Pages {
	t.Helper()
	p, err := a.NewPages(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sequence is random tokens for an operator.
type sequence struct{ q, k, v blas32.General }

func tokens(a *Attention, seed uint64, n int) sequence {
	c := &a.cfg
	return sequence{matrix(seed, n, c.Heads*c.HeadDim), matrix(seed+1, n, c.KVHeads*c.HeadDim), matrix(seed+2, n, c.KVHeads*c.ValueDim)}
}

func (x sequence) part(from, to int) sequence {
	return sequence{part(x.q, from, to), part(x.k, from, to), part(x.v, from, to)}
}

// step returns the outputs of tokens.
func step(t testing.TB, a *Attention, s *State, x sequence) []float32 {
	t.Helper()
	dst := blank(x.q.Rows, a.cfg.Heads*a.cfg.ValueDim)
	if err := a.Step(dst, x.q, x.k, x.v, s); err != nil {
		t.Fatal(err)
	}
	return dst.Data
}

var stateOp = Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true}

// kinds are states of an operator, one of each kind and storage.
func kinds(t testing.TB, a *Attention) map[string]StateConfig {
	list := map[string]StateConfig{}
	for format := range formats {
		pages := newPages(t, a, PagesConfig{PageTokens: 7, Format: format})
		list[fmt.Sprint("growing/", format)] = StateConfig{Format: format}
		list[fmt.Sprint("bounded/", format)] = StateConfig{Format: format, MaxTokens: 300}
		list[fmt.Sprint("ring/", format)] = StateConfig{Format: format, Window: 20, Keep: 3}
		list[fmt.Sprint("paged/", format)] = StateConfig{Pages: pages}
		list[fmt.Sprint("turned/", format)] = StateConfig{Format: format, Rotation: &rope.Config{HeadDim: 16}, Policy: rope.EachStep}
	}
	return list
}

// TestFork goes two ways from one state: neither moves the other's bits.
func TestFork(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		a := must(t, stateOp)
		smallSteps(a)
		x, y := tokens(a, 1, 90), tokens(a, 7, 40)
		for name, cfg := range kinds(t, a) {
			alone := newState(t, a, cfg)
			step(t, a, alone, x.part(0, 50))
			want := step(t, a, alone, x.part(50, 90))

			s := newState(t, a, cfg)
			step(t, a, s, x.part(0, 50))
			fork := s.Clone()
			// Taken back into what is shared, and on from there.
			if err := fork.Truncate(45); err != nil {
				t.Fatal(err)
			}
			step(t, a, fork, y)
			sameBits(t, name+": the parent", step(t, a, s, x.part(50, 90)), want)

			again := newState(t, a, cfg)
			step(t, a, again, x.part(0, 50))
			if err := again.Truncate(45); err != nil {
				t.Fatal(err)
			}
			if err := fork.Truncate(45); err != nil {
				t.Fatal(err)
			}
			sameBits(t, name+": the fork", step(t, a, fork, y), step(t, a, again, y))
			if p := cfg.Pages; p != nil {
				alone.Reset()
				s.Reset()
				again.Reset()
				if p.Used() != len(fork.Table()) {
					t.Errorf("%s: %d pages are in use, want %d", name, p.Used(), len(fork.Table()))
				}
				if fork.Reset(); p.Used() != 0 {
					t.Errorf("%s: %d pages are in use, want 0", name, p.Used())
				}
			}
		}
	})
}

// TestPagedIsContiguous has the same bits from pages of any size.
func TestPagedIsContiguous(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		a := must(t, stateOp)
		x := tokens(a, 1, 300)
		for format := range formats {
			whole := newState(t, a, StateConfig{Format: format})
			want := slices.Concat(step(t, a, whole, x.part(0, 290)), step(t, a, whole, x.part(290, 300)))
			for _, size := range []int{1, 5, 64, 1000} {
				s := newState(t, a, StateConfig{Pages: newPages(t, a, PagesConfig{PageTokens: size, Format: format})})
				got := slices.Concat(step(t, a, s, x.part(0, 290)), step(t, a, s, x.part(290, 300)))
				sameBits(t, fmt.Sprint(format, ", pages of ", size), got, want)
			}
		}
	})
}

func fill(s *State, r io.Reader) error {
	_, err := s.ReadFrom(r)
	return err
}

// TestSaved goes on from a written state, into each kind of memory.
func TestSaved(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		a := must(t, stateOp)
		smallSteps(a)
		x := tokens(a, 1, 130)
		for name, cfg := range kinds(t, a) {
			s := newState(t, a, cfg)
			step(t, a, s, x.part(0, 100))
			var file bytes.Buffer
			if n, err := s.WriteTo(&file); err != nil || n != int64(file.Len()) {
				t.Fatalf("%s: %d of %d bytes, %v", name, n, file.Len(), err)
			}
			data := file.Bytes()
			want := step(t, a, s, x.part(100, 130))
			back := newState(t, a, cfg)
			if err := fill(back, bytes.NewReader(data)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			sameBits(t, name+": loaded", step(t, a, back, x.part(100, 130)), want)
			read, err := a.ReadState(bytes.NewReader(data))
			if cfg.Rotation != nil {
				if !errors.Is(err, ErrState) {
					t.Errorf("%s: ReadState: %v", name, err)
				}
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			} else {
				sameBits(t, name+": read", step(t, a, read, x.part(100, 130)), want)
			}
			// Damaged anywhere, cut off anywhere: an error, the state empty.
			for i := 0; i < len(data); i += 1 + len(data)/40 {
				bad := slices.Clone(data)
				bad[i] ^= 1 << (i % 8)
				back.Reset()
				if err := fill(back, bytes.NewReader(bad)); err == nil || back.Len() != 0 {
					t.Fatalf("%s: byte %d of %d changed: %v, %d tokens", name, i, len(data), err, back.Len())
				}
				if err := fill(back, bytes.NewReader(data[:i])); !errors.Is(err, ErrState) {
					t.Fatalf("%s: %d of %d bytes: %v", name, i, len(data), err)
				}
			}
			other := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true, Softcap: 3})
			if _, err := other.ReadState(bytes.NewReader(data)); !errors.Is(err, ErrState) {
				t.Errorf("%s: another operator: %v", name, err)
			}
		}
	})
}

// TestStepBits has the same bits for any number of workers, and alone as in a batch.
func TestStepBits(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const states = 5
		var want []float32
		for workers := range 5 {
			cfg := stateOp
			cfg.Workers = workers
			a := must(t, cfg)
			smallSteps(a)
			var list, alone []*State
			for i := range states {
				s := newState(t, a, StateConfig{Format: [...]asm.Format{asm.Float32, asm.Int8, asm.BFloat16}[i%3]})
				step(t, a, s, tokens(a, uint64(10*i), 37*i))
				list, alone = append(list, s), append(alone, s.Clone())
			}
			x := tokens(a, 99, states)
			dst := blank(states, 64)
			if err := a.StepBatch(dst, x.q, x.k, x.v, list); err != nil {
				t.Fatal(err)
			}
			for i, s := range alone {
				sameBits(t, "alone", step(t, a, s, x.part(i, i+1)), dst.Data[i*64:][:64])
			}
			if want == nil {
				want = dst.Data
			}
			sameBits(t, fmt.Sprint(workers, " workers"), dst.Data, want)
		}
	})
}

// TestTree compares each path of a tree with the path alone, and goes on from an
// accepted one.
func TestTree(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for name, state := range map[string]StateConfig{
			"contiguous": {}, "ring": {Window: 30, Keep: 2}, "turned": {Rotation: &rope.Config{HeadDim: 16}},
			"turned each step": {Rotation: &rope.Config{HeadDim: 16}, Policy: rope.EachStep}, "paged": {},
		} {
			cfg := stateOp
			cfg.Window = 25
			if state.Rotation == nil && state.Keep == 0 {
				cfg.Bias = alibi{0.1, 0.2, 0.3, 0.4}
			}
			a := must(t, cfg)
			smallSteps(a)
			if name == "paged" {
				state.Pages = newPages(t, a, PagesConfig{PageTokens: 5})
			}
			tree := []int{-1, 0, 0, 1, -1, 2, 2, 5}
			paths := [][]int{{0, 1, 3}, {0, 2, 5, 7}, {0, 2, 6}, {4}}
			before, x, after := tokens(a, 1, 60), tokens(a, 5, len(tree)), tokens(a, 9, 4)
			s := newState(t, a, state)
			step(t, a, s, before)
			pick := func(path []int) sequence {
				y := tokens(a, 0, len(path))
				for i, n := range path {
					copy(y.q.Data[i*y.q.Stride:][:y.q.Cols], x.q.Data[n*x.q.Stride:])
					copy(y.k.Data[i*y.k.Stride:][:y.k.Cols], x.k.Data[n*x.k.Stride:])
					copy(y.v.Data[i*y.v.Stride:][:y.v.Cols], x.v.Data[n*x.v.Stride:])
				}
				return y
			}
			dst := blank(len(tree), 64)
			if err := a.Run(context.Background(), &Call{State: s, Tree: tree, Dst: dst, Q: x.q, K: []blas32.General{x.k}, V: []blas32.General{x.v}}); err != nil {
				t.Fatal(err)
			}
			for _, path := range paths {
				alone := newState(t, a, state)
				step(t, a, alone, before)
				want := step(t, a, alone, pick(path))
				for i, n := range path {
					close64(t, fmt.Sprint(name, ", path ", path, ": node ", n), dst.Data[n*64:][:64], want[i*64:][:64], 3e-6)
				}
				accepted := s.Clone()
				if err := accepted.Accept(len(tree), path); err != nil {
					t.Fatal(err)
				}
				sameBits(t, fmt.Sprint(name, ": after ", path), step(t, a, accepted, after), step(t, a, alone, after))
			}
			for _, bad := range [][]int{{1, 0}, {0, 0}, {8}, {-1}} {
				if err := s.Accept(len(tree), bad); !errors.Is(err, ErrCall) || s.Len() != 68 {
					t.Errorf("path %v: %v", bad, err)
				}
			}
		}
	})
}

// TestStepNotFinite has values that are not finite hidden from a query: they must
// not count.
func TestStepNotFinite(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		bits := map[asm.Format][]float32{}
		for trial := range 2 * len(formats) {
			format := asm.Format(trial / 2)
			cfg := stateOp
			cfg.Window, cfg.Workers = 10, 1+3*(trial%2)
			a := must(t, cfg)
			smallSteps(a)
			x := tokens(a, 1, 60)
			want := step(t, a, newState(t, a, StateConfig{Format: format}), x)
			x.v.Data[20*x.v.Stride+3], x.v.Data[20*x.v.Stride+17] = float32(math.NaN()), float32(math.Inf(1))
			x.k.Data[20*x.k.Stride+3] = float32(math.NaN())
			got := step(t, a, newState(t, a, StateConfig{Format: format}), x)
			if trial%2 == 0 {
				bits[format] = got
			}
			sameBits(t, fmt.Sprint(format, " with more workers"), got, bits[format])
			for i := range 60 {
				row := got[i*64:][:64]
				if i >= 20 && i < 30 {
					if x := row[3]; x == x {
						t.Fatalf("%v: query %d sees NaN and gives %v", format, i, x)
					}
					continue
				}
				close64(t, fmt.Sprint(format, ", query ", i), row, want[i*64:][:64], 1e-6)
			}
		}
	})
}

func TestStepAllocations(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, workers := range []int{1, 4} {
			cfg := stateOp
			cfg.Workers = workers
			a := must(t, cfg)
			a.sizes.alone = 100
			for name, state := range kinds(t, a) {
				if state.Rotation != nil && (workers > 1 || raceEnabled) {
					continue // package rope keeps scratch for GOMAXPROCS calls, which is 1 here
				}
				s := newState(t, a, state)
				x := tokens(a, 1, 201)
				step(t, a, s, x.part(0, 200))
				dst, one := blank(1, 64), x.part(200, 201)
				if n := isatest.Allocations(func() {
					if err := a.Step(dst, one.q, one.k, one.v, s); err != nil {
						t.Fatal(err)
					}
					if err := s.Truncate(200); err != nil {
						t.Fatal(err)
					}
				}); n != 0 {
					t.Errorf("%s, %d workers: %v allocations a step", name, workers, n)
				}
			}
		}
	})
}

// TestStepErrors wants an error, and the state as before.
func TestStepErrors(t *testing.T) {
	a := must(t, stateOp)
	pages := newPages(t, a, PagesConfig{PageTokens: 4, MaxPages: 3})
	paged, bounded, other := newState(t, a, StateConfig{Pages: pages}), newState(t, a, StateConfig{MaxTokens: 9}), newState(t, must(t, stateOp), StateConfig{})
	ring := newState(t, a, StateConfig{Window: 5})
	step(t, a, ring, tokens(a, 1, 200))
	x := tokens(a, 1, 8)
	step(t, a, paged, x)
	step(t, a, bounded, x)
	dst := blank(8, 64)
	call := func(change func(c *Call)) *Call {
		c := &Call{State: bounded, Dst: part(dst, 0, 1), Q: part(x.q, 0, 1), K: []blas32.General{part(x.k, 0, 1)}, V: []blas32.General{part(x.v, 0, 1)}}
		change(c)
		return c
	}
	all := func(s *State) *Call {
		return &Call{State: s, Dst: dst, Q: x.q, K: []blas32.General{x.k}, V: []blas32.General{x.v}}
	}
	done, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		kind error
		text string
		ctx  context.Context
		call *Call
	}{
		{ErrFull, "attention: 8 tokens after 8, want at most MaxTokens = 9", nil, all(bounded)},
		{ErrFull, "attention: all 3 pages of 4 tokens are in use", nil, all(paged)},
		{ErrState, "attention: state 0 is another operator's", nil, all(other)},
		{ErrState, "attention: state 0 is nil", nil, call(func(c *Call) { c.State, c.States = nil, []*State{nil} })},
		{ErrState, "attention: state 1 is given twice", nil, &Call{States: []*State{paged, paged}, Dst: part(dst, 0, 2), Q: part(x.q, 0, 2)}},
		{ErrShape, "attention: q has 1 rows, want one for each state = 2", nil, call(func(c *Call) { c.State, c.States = nil, []*State{paged, bounded} })},
		{ErrCall, "attention: State together with States", nil, call(func(c *Call) { c.States = []*State{paged} })},
		{ErrCall, "attention: Tree[1] is 1, want -1 or an earlier node", nil, func() *Call { c := all(ring); c.Tree = []int{-1, 1, 0, 0, 0, 0, 0, 0}; return c }()},
		{ErrCall, "attention: Tree[0] is -2, want -1 or an earlier node", nil, call(func(c *Call) { c.Tree = []int{-2} })},
		{ErrCall, "attention: Tree has 2 nodes, want one for each new token = 1", nil, call(func(c *Call) { c.Tree = []int{-1, 0} })},
		{ErrCall, "attention: State together with KOffsets, QueryPos, KeyPos, Mass, Entropy or Stats", nil, call(func(c *Call) { c.Stats = new(Stats) })},
		{ErrShape, "attention: k has 31 columns, want KVHeads*HeadDim = 32", nil, call(func(c *Call) { c.K[0].Cols = 31 })},
		{ErrShape, "attention: k has 2 rows, want as many as q = 1, or none", nil, call(func(c *Call) { c.K[0].Rows, c.V[0].Rows = 2, 2 })},
		{ErrShape, "attention: v has 0 rows, want 1", nil, call(func(c *Call) { c.V[0].Rows = 0 })},
		{ErrShape, "attention: dst shares elements with an input", nil, call(func(c *Call) { c.Dst = c.Q })},
		{ErrShape, "attention: LSE has 3 columns, want Heads = 4", nil, call(func(c *Call) { c.LSE = blank(1, 3) })},
		{ErrShape, "attention: MatrixMask is 1 x 3, want it to cover queries at positions 8 to 9 and keys at 0 to 9", nil, call(func(c *Call) { c.Mask = MatrixMask{1, 3, make([]bool, 3)} })},
		{context.Canceled, "context canceled", done, all(ring)},
		{nil, "attention: panic in a worker: no mask", nil, call(func(c *Call) { c.Visible = func(int64) (int64, int64) { panic("no mask") } })},
	} {
		if c.ctx == nil {
			c.ctx = context.Background()
		}
		err := a.Run(c.ctx, c.call)
		if err == nil || err.Error() != c.text || c.kind != nil && !errors.Is(err, c.kind) {
			t.Errorf("error %v, want %s", err, c.text)
		}
		if paged.Len() != 8 || bounded.Len() != 8 || ring.Len() != 200 || pages.Used() != 2 {
			t.Fatalf("after %v: %d, %d, %d tokens, %d pages", err, paged.Len(), bounded.Len(), ring.Len(), pages.Used())
		}
	}
	fresh := newState(t, a, StateConfig{})
	step(t, a, fresh, x)
	sameBits(t, "after errors", step(t, a, bounded, x.part(0, 1)), step(t, a, fresh, x.part(0, 1)))
	if err := ring.Truncate(100); !errors.Is(err, ErrCall) || ring.Len() != 200 {
		t.Errorf("truncated ring: %v", err)
	}
	if err := ring.Truncate(201); !errors.Is(err, ErrCall) {
		t.Errorf("truncated beyond the end: %v", err)
	}
}

func TestStateConfigErrors(t *testing.T) {
	a := must(t, stateOp)
	pages := newPages(t, a, PagesConfig{PageTokens: 4})
	s := newState(t, a, StateConfig{Pages: pages})
	step(t, a, s, tokens(a, 1, 8))
	s.Clone().Truncate(0)
	step(t, a, s, tokens(a, 1, 4))
	s.Truncate(8) // page 2 is free
	for want, cfg := range map[string]StateConfig{
		"Table[1] is page 7, want one of the pool's 3 pages":                             {Pages: pages, Table: []int{0, 7}, Tokens: 8},
		"Table[0] is page -1, want one of the pool's 3 pages":                            {Pages: pages, Table: []int{-1}, Tokens: 4},
		"Table[0] is page 2, which is free":                                              {Pages: pages, Table: []int{2}, Tokens: 4},
		"Tokens is 9 for 2 pages of 4 tokens":                                            {Pages: pages, Table: []int{0, 1}, Tokens: 9},
		"Tokens is 4 for 2 pages of 4 tokens":                                            {Pages: pages, Table: []int{0, 1}, Tokens: 4},
		"Table or Tokens without Pages":                                                  {Tokens: 3},
		"Keep is 2 without a Window":                                                     {Keep: 2},
		"Window together with MaxTokens":                                                 {Window: 2, MaxTokens: 3},
		"Window together with Pages":                                                     {Window: 2, Pages: pages},
		"MaxTokens is -1, want 0 or more":                                                {MaxTokens: -1},
		"Format is 9, want Float32, BFloat16, Int8 or Float16":                           {Format: 9},
		"Rotation.HeadDim is 8, want HeadDim = 16":                                       {Rotation: &rope.Config{HeadDim: 8}},
		"Policy Rerotate, want Float32 keys of their own, without Pages or SharedValues": {Rotation: &rope.Config{HeadDim: 16}, Policy: rope.Rerotate, Format: asm.Int8},
	} {
		if _, err := a.NewState(cfg); !errors.Is(err, ErrConfig) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	if _, err := must(t, Config{Heads: 1, HeadDim: 4}).NewState(StateConfig{}); !errors.Is(err, ErrConfig) {
		t.Errorf("not causal: %v", err)
	}
	if _, err := a.NewState(StateConfig{MaxTokens: math.MaxInt}); !errors.Is(err, ErrConfig) {
		t.Errorf("too many tokens: %v", err)
	}
	if _, err := must(t, stateOp).NewState(StateConfig{Pages: pages}); !errors.Is(err, ErrConfig) {
		t.Errorf("pages of another operator: %v", err)
	}
	if used := pages.Used(); used != 2 {
		t.Errorf("%d pages are in use, want 2", used)
	}
}

// TestRerotate follows a scheme whose frequencies change as the sequence grows:
// cached keys are brought over, or turned at each step.
func TestRerotate(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		a := must(t, stateOp)
		smallSteps(a)
		rotation := rope.Config{HeadDim: 16, Scheme: rope.DynamicNTK{Factor: 2, MaxPosition: 30}}
		for _, policy := range []rope.Policy{rope.EachStep, rope.Rerotate} {
			s := newState(t, a, StateConfig{Rotation: &rotation, Policy: policy})
			x := tokens(a, 1, 80)
			step(t, a, s, x.part(0, 20))
			step(t, a, s, x.part(20, 50))
			got := step(t, a, s, x.part(50, 80))
			now := rotation
			now.Length = 80
			r, err := rope.New(now)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range []blas32.General{x.q, x.k} {
				if err := r.Rotate(m, 0); err != nil {
					t.Fatal(err)
				}
			}
			want := exact(t, a, x.q, x.k, x.v, 0, 0)
			close64(t, fmt.Sprint("policy ", policy), got, want.Data[50*64:], 5e-6)
		}
	})
}

// TestStateSegments reads back what was appended.
func TestStateSegments(t *testing.T) {
	a := must(t, stateOp)
	x := tokens(a, 1, 100)
	for name, cfg := range kinds(t, a) {
		if cfg.Rotation != nil {
			continue
		}
		s := newState(t, a, cfg)
		step(t, a, s, x)
		held, next := 0, 0
		for _, g := range s.Segments(nil) {
			if g.Position < next {
				t.Errorf("%s: segment at %d after %d", name, g.Position, next)
			}
			next = g.Position + g.Tokens
			held += g.Tokens
			dst := blank(g.Tokens, 16)
			for h := range 2 {
				for _, part := range []struct {
					get func(blas32.General, int, int) error
					of  blas32.General
				}{{g.Keys, x.k}, {g.Values, x.v}} {
					if err := part.get(dst, h, 0); err != nil {
						t.Fatal(err)
					}
					for i := range g.Tokens {
						close64(t, name, dst.Data[i*16:][:16], part.of.Data[(g.Position+i)*32+h*16:][:16], formats[s.cfg.Format])
					}
				}
			}
			k, v, ok := g.Float32()
			if ok != (s.cfg.Format == asm.Float32) {
				t.Errorf("%s: Float32 is %v", name, ok)
			} else if ok {
				sameBits(t, name, k.Data[:32], x.k.Data[g.Position*32:][:32])
				sameBits(t, name, v.Data[:32], x.v.Data[g.Position*32:][:32])
			}
			if err := g.Keys(dst, 2, 0); !errors.Is(err, ErrCall) {
				t.Errorf("%s: head 2: %v", name, err)
			}
		}
		if want := map[bool]int{true: 87, false: 100}[cfg.Window > 0]; next != 100 || held != want {
			t.Errorf("%s: %d tokens to %d, want %d", name, held, next, want)
		}
	}
}

// TestSoak has many goroutines step, fork and take back over one pool.
func TestSoak(t *testing.T) {
	a := must(t, stateOp)
	pages := newPages(t, a, PagesConfig{PageTokens: 5, MaxPages: 400})
	first := newState(t, a, StateConfig{Pages: pages})
	x := tokens(a, 1, 60)
	step(t, a, first, x.part(0, 33))
	length := time.Second
	if testing.Short() {
		length = 300 * time.Millisecond
	}
	end := time.Now().Add(length)
	var group sync.WaitGroup
	for g := range 8 {
		s := first.Clone()
		group.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			dst := blank(4, 64)
			for time.Now().Before(end) {
				switch n := 1 + r.IntN(4); {
				case s.Len() > 100 || r.IntN(4) == 0:
					if err := s.Truncate(r.IntN(s.Len() + 1)); err != nil {
						t.Error(err)
						return
					}
				case r.IntN(3) == 0:
					fork := s.Clone()
					if r.IntN(2) == 0 {
						fork, s = s, fork
					}
					fork.Reset()
				default:
					y := x.part(0, n)
					if err := a.Step(part(dst, 0, n), y.q, y.k, y.v, s); err != nil && !errors.Is(err, ErrFull) {
						t.Error(err)
						return
					}
				}
			}
			s.Reset()
		})
	}
	group.Wait()
	if want := len(first.Table()); pages.Used() != want {
		t.Errorf("%d pages are in use, want %d", pages.Used(), want)
	}
	again := newState(t, a, StateConfig{})
	step(t, a, again, x.part(0, 33))
	sameBits(t, "the parent of all", step(t, a, first, x.part(33, 60)), step(t, a, again, x.part(33, 60)))
}

package attention

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/rope"
)

// TestStepErrors: a mistake gives an error and leaves the state as it was.
func TestStepErrors(t *testing.T) {
	a := must(t, stateOp)
	pages := newPages(t, a, PagesConfig{PageTokens: 4, MaxPages: 3})
	paged, bounded, other := newState(t, a, StateConfig{Pages: pages}), newState(t, a, StateConfig{MaxTokens: 9}), newState(t, must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true, Softcap: 3}), StateConfig{})
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
		{ErrState, "attention: State belongs to an operator of another Config", nil, all(other)},
		{ErrState, "attention: States[0] is nil, want one of NewState", nil, call(func(c *Call) { c.State, c.States = nil, []Past{nil} })},
		{ErrState, "attention: States[1] is given twice", nil, &Call{States: []Past{paged, paged}, Dst: part(dst, 0, 2), Q: part(x.q, 0, 2)}},
		{ErrCall, "attention: 2 States for 1 rows, want one for each row, or Offsets", nil, call(func(c *Call) { c.State, c.States = nil, []Past{paged, bounded} })},
		{ErrCall, "attention: State together with States", nil, call(func(c *Call) { c.States = []Past{paged} })},
		{ErrCall, "attention: Tree[1] is 1, want -1 or an earlier node", nil, func() *Call { c := all(ring); c.Tree = []int{-1, 1, 0, 0, 0, 0, 0, 0}; return c }()},
		{ErrCall, "attention: Tree[0] is -2, want -1 or an earlier node", nil, call(func(c *Call) { c.Tree = []int{-2} })},
		{ErrCall, "attention: Tree has 2 nodes, want one for each new token = 1", nil, call(func(c *Call) { c.Tree = []int{-1, 0} })},
		{ErrCall, "attention: State together with KOffsets, QueryPos, KeyPos or Stats", nil, call(func(c *Call) { c.Stats = new(Stats) })},
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
	if err := ring.Truncate(100); !errors.Is(err, ErrState) || ring.Len() != 200 {
		t.Errorf("truncated ring: %v", err)
	}
	if err := ring.Truncate(201); !errors.Is(err, ErrState) {
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
	if _, err := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true, Window: 9}).NewState(StateConfig{Pages: pages}); !errors.Is(err, ErrConfig) {
		t.Errorf("pages of another operator: %v", err)
	}
	if used := pages.Used(); used != 2 {
		t.Errorf("%d pages are in use, want 2", used)
	}
}

package sparse

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
)

func TestNSAConfigErrors(t *testing.T) {
	for name, cfg := range map[string]NSAConfig{
		"Heads":      {HeadDim: 4},
		"KVHeads":    {Heads: 4, KVHeads: 3, HeadDim: 4},
		"Block":      {Heads: 1, HeadDim: 4, Block: -1},
		"TopK":       {Heads: 1, HeadDim: 4, TopK: -1},
		"Compress":   {Heads: 1, HeadDim: 4, Compress: 1 << 17},
		"Stride":     {Heads: 1, HeadDim: 4, Stride: 3},
		"Compress %": {Heads: 1, HeadDim: 4, Compress: 48},
		"Keep":       {Heads: 1, HeadDim: 4, Keep: 16},
		"Local":      {Heads: 1, HeadDim: 4, Local: 17},
		"Window":     {Heads: 1, HeadDim: 4, Window: -1},
		"Workers":    {Heads: 1, HeadDim: 4, Workers: -1},
	} {
		if _, err := NewNSA(cfg); !errors.Is(err, ErrConfig) || !strings.HasPrefix(err.Error(), "sparse: ") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	paper := mustNSA(t, NSAConfig{Heads: 4, KVHeads: 1, HeadDim: 16, Compress: 32, Stride: 16, Keep: 1, Local: 2})
	if c := paper.Config(); c.Block != 64 || c.TopK != 16 || c.Window != 512 || c.ValueDim != 16 || c.Scale != 0.25 {
		t.Errorf("%+v", c)
	}
}

func TestNSACallErrors(t *testing.T) {
	const n, heads, d = 5, 2, 3
	a := mustNSA(t, NSAConfig{Heads: heads, HeadDim: d, Block: 2, TopK: 2})
	other := mustNSA(t, NSAConfig{Heads: heads, HeadDim: d, Block: 2, TopK: 3})
	s := mustNSAState(t, a, NSAStateConfig{MaxTokens: n - 1})
	call := func(change func(*attention.Call, *NSAOptions)) error {
		x, gate := mat.New(n, heads*d), mat.New(n, heads)
		o := &NSAOptions{Gates: Gates{gate, gate, gate}}
		c := &attention.Call{Dst: mat.New(n, heads*d), Q: x, K: []blas32.General{x}, V: []blas32.General{x}, Options: o}
		change(c, o)
		return a.Run(context.Background(), c)
	}
	for name, x := range map[string]struct {
		want   error
		change func(*attention.Call, *NSAOptions)
	}{
		"no options": {ErrCall, func(c *attention.Call, o *NSAOptions) { c.Options = nil }},
		"other's":    {ErrCall, func(c *attention.Call, o *NSAOptions) { c.Options = *o }},
		"no gates":   {ErrCall, func(c *attention.Call, o *NSAOptions) { o.Gates = Gates{} }},
		"LSE":        {ErrCall, func(c *attention.Call, o *NSAOptions) { c.LSE = mat.New(n, heads) }},
		"Prefix":     {ErrShape, func(c *attention.Call, o *NSAOptions) { c.K[0] = mat.New(n+1, heads*d) }},
		"gate":       {ErrShape, func(c *attention.Call, o *NSAOptions) { o.Window = mat.New(n, 1) }},
		"dst is q":   {ErrShape, func(c *attention.Call, o *NSAOptions) { c.Dst = c.Q }},
		"dst is gate": {ErrShape, func(c *attention.Call, o *NSAOptions) {
			c.Dst.Data = c.Dst.Data[:n*heads*d]
			o.Selected = blas32.General{Rows: n, Cols: heads, Stride: heads, Data: c.Dst.Data}
		}},
		"Blocks":    {ErrShape, func(c *attention.Call, o *NSAOptions) { o.Blocks = make([]int32, n) }},
		"full":      {ErrFull, func(c *attention.Call, o *NSAOptions) { c.State = s }},
		"nil state": {ErrState, func(c *attention.Call, o *NSAOptions) { c.State = (*NSAState)(nil) }},
		"foreign":   {ErrState, func(c *attention.Call, o *NSAOptions) { c.State = mustNSAState(t, other, NSAStateConfig{}) }},
		"twice":     {ErrState, func(c *attention.Call, o *NSAOptions) { c.States, c.Offsets = []attention.Past{s, s}, []int{0, 2, n} }},
		"no states": {ErrCall, func(c *attention.Call, o *NSAOptions) { c.States = []attention.Past{} }},
		"Workers":   {ErrCall, func(c *attention.Call, o *NSAOptions) { c.Workers = -1 }},
	} {
		if err := call(x.change); !errors.Is(err, x.want) || !strings.HasPrefix(err.Error(), "sparse: ") {
			t.Errorf("%s: error %v, want %v", name, err, x.want)
		}
	}
	if err := a.Step(blas32.General{}, blas32.General{}, blas32.General{}, blas32.General{}, Gates{}, nil); !errors.Is(err, ErrState) {
		t.Errorf("error %v of a nil state", err)
	}
	for _, n := range []int{-1, 1} {
		if err := s.Truncate(n); !errors.Is(err, ErrState) {
			t.Errorf("error %v of Truncate", err)
		}
	}
	if _, err := a.NewState(NSAStateConfig{MaxTokens: -1}); !errors.Is(err, ErrConfig) {
		t.Errorf("error %v of NewState", err)
	}
	if _, err := a.NewPages(attention.PagesConfig{SharedValues: true}); !errors.Is(err, ErrConfig) {
		t.Errorf("error %v of NewPages", err)
	}
}

// panicker is a Compressor that panics at a block.
type panicker struct{ weigher }

func (panicker) Values(dst []float32, values blas32.General, head int) { panic("no values") }

// TestNSAFailures has a full pool of pages and a Compressor that panics be errors, after
// which states are as they were.
func TestNSAFailures(t *testing.T) {
	const heads, d = 2, 3
	for _, c := range []Compressor{nil, panicker{}} {
		for _, rows := range []int{fewTokens, 3 * fewTokens} {
			a := mustNSA(t, NSAConfig{Heads: heads, HeadDim: d, Block: 4, Compressor: c})
			pages, err := a.NewPages(attention.PagesConfig{PageTokens: 1, MaxPages: heads*(3+rows) - 1})
			if err != nil {
				t.Fatal(err)
			}
			s := mustNSAState(t, a, NSAStateConfig{Pages: pages})
			x, gate := mattest.Matrix(1, rows, heads*d), mat.New(rows, heads)
			step := func(n int) error {
				p := func(m blas32.General) blas32.General { return mat.Rows(m, 0, n) }
				return a.Step(mat.New(n, heads*d), p(x), p(x), p(x), Gates{p(gate), p(gate), p(gate)}, s)
			}
			if err := step(3); err != nil {
				t.Fatal(err)
			}
			err = step(rows)
			if err == nil || c == nil && !errors.Is(err, ErrFull) || !strings.HasPrefix(err.Error(), "sparse: ") {
				t.Errorf("%d rows: error %v", rows, err)
			}
			for g := range s.tokens {
				if s.tokens[g].Len() != 3 || s.blocks[g].Len() != 0 {
					t.Errorf("%d rows: %d tokens and %d compressed keys after an error", rows, s.tokens[g].Len(), s.blocks[g].Len())
				}
			}
		}
	}
}

// TestNSAChoosesEarly has queries choose among blocks before there is a compressed key: all
// scores are 0.
func TestNSAChoosesEarly(t *testing.T) {
	const n = 13
	a := mustNSA(t, NSAConfig{Heads: 1, HeadDim: 4, Block: 2, TopK: 2, Compress: 8, Stride: 2, Window: 1})
	call := func() *attention.Call {
		ones := mattest.Matrix(4, n, 1)
		return &attention.Call{Dst: mat.New(n, 4), Q: mattest.Matrix(1, n, 4), K: []blas32.General{mattest.Matrix(2, n, 4)}, V: []blas32.General{mattest.Matrix(3, n, 4)},
			Options: &NSAOptions{Gates: Gates{Selected: ones}, Blocks: make([]int32, 2*n)}}
	}
	want, got := call(), call()
	if err := a.Run(context.Background(), want); err != nil {
		t.Fatal(err)
	}
	s := mustNSAState(t, a, NSAStateConfig{})
	for i := range n {
		if err := a.Run(context.Background(), nsaPart(got, i, i+1, s)); err != nil {
			t.Fatal(err)
		}
	}
	if w, g := want.Options.(*NSAOptions).Blocks, got.Options.(*NSAOptions).Blocks; !slices.Equal(w, g) {
		t.Errorf("steps choose %v, want %v", g, w)
	}
}

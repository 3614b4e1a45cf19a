package cca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/state/statetest"
	"github.com/subquad/subquad/internal/tile"
)

func TestCCAConfig(t *testing.T) {
	for want, cfg := range map[string]Config{
		"Heads is 0, want 1 or more":             {HeadDim: 4},
		"KVHeads is 3, want a divisor of":        {Heads: 4, KVHeads: 3, HeadDim: 4},
		"GroupSize is -1, want 0 to 2^29":        {Heads: 1, HeadDim: 4, GroupSize: -1},
		"Window is -1, want 0 to 2^29":           {Heads: 1, HeadDim: 4, Window: -1},
		"Pooling is 3, want PoolSignificance":    {Heads: 1, HeadDim: 4, Pooling: 3},
		"Levels is 33, want 0 to 32":             {Heads: 1, HeadDim: 4, Levels: 33},
		"Span is -2, want 0 to 2^29":             {Heads: 1, HeadDim: 4, Span: -2},
		"Scale is NaN, want a finite number":     {Heads: 1, HeadDim: 4, Scale: float32(math.NaN())},
		"Workers is -1, want 0 to 65536":         {Heads: 1, HeadDim: 4, Workers: -1},
		"HeadDim is -1, want 1 or more":          {Heads: 1, HeadDim: -1},
		"ValueDim is -1, want 0 or more":         {Heads: 1, HeadDim: 4, ValueDim: -1},
		"Window is 536870913, want 0 to 2^29":    {Heads: 1, HeadDim: 4, Window: 1<<29 + 1},
		"GroupSize is 536870913, want 0 to 2^29": {Heads: 1, HeadDim: 4, GroupSize: 1<<29 + 1},
		"HeadDim is 65536 and ValueDim 65536, w": {Heads: 1, HeadDim: 1 << 16},
	} {
		if _, err := New(cfg); !errors.Is(err, attention.ErrConfig) || !strings.HasPrefix(err.Error(), "cca: "+want) {
			t.Errorf("%+v: error %v, want %s", cfg, err, want)
		}
	}
	c := mustCCA(t, Config{Heads: 1, HeadDim: 1, GroupSize: 1 << 29, Window: 1 << 29, Span: 1 << 29, Levels: 32})
	if err := c.Forward(zeroMatrix(3, 1), zeroMatrix(3, 1), zeroMatrix(3, 1), zeroMatrix(3, 1)); err != nil {
		t.Error(err)
	}
	for want, cfg := range map[string]StateConfig{
		"MaxTokens is -1, want 0 or more":                                {MaxTokens: -1},
		"Rollback is -1, want 0 to 2^60":                                 {Rollback: -1},
		fmt.Sprintf("MaxTokens is %d, want less than 2^40", math.MaxInt): {MaxTokens: math.MaxInt},
	} {
		if _, err := c.NewState(cfg); !errors.Is(err, attention.ErrConfig) || err.Error() != "cca: "+want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestCCACallErrors(t *testing.T) {
	const n = 10
	c := mustCCA(t, Config{Heads: 4, KVHeads: 2, HeadDim: 3, ValueDim: 5, GroupSize: 2, Window: 3})
	other := mustCCA(t, Config{Heads: 4, KVHeads: 2, HeadDim: 3, ValueDim: 5, GroupSize: 2, Window: 4})
	mean := mustCCA(t, Config{Heads: 4, KVHeads: 2, HeadDim: 3, ValueDim: 5, GroupSize: 2, Window: 3, Pooling: PoolMean})
	deep := mustCCA(t, Config{Heads: 4, KVHeads: 2, HeadDim: 3, ValueDim: 5, GroupSize: 2, Window: 3, Levels: 2})
	state, _ := c.NewState(StateConfig{MaxTokens: 9})
	alien, _ := other.NewState(StateConfig{})
	block := func(p int) Block { return Block{p, zeroMatrix(2, 6), zeroMatrix(2, 10)} }
	for want, x := range map[string]struct {
		c      *CCA
		kind   error
		change func(*flat)
	}{
		"q has 11 columns, want Heads*HeadDim = 12":                {c, attention.ErrShape, func(c *flat) { c.Q.Cols-- }},
		"k has 5 columns, want KVHeads*HeadDim = 6":                {c, attention.ErrShape, func(c *flat) { c.K.Cols-- }},
		"v has 9 rows, want 10":                                    {c, attention.ErrShape, func(c *flat) { c.V.Rows-- }},
		"k has 10 rows and q 4, want as many: cores are pooled by": {c, attention.ErrShape, func(c *flat) { c.Q.Rows, c.Dst.Rows = 4, 4 }},
		"dst has 9 rows, want 10":                                  {c, attention.ErrShape, func(c *flat) { c.Dst.Rows-- }},
		"dst shares elements with an input": {c, attention.ErrShape, func(c *flat) {
			c.Dst.Data = c.V.Data
			c.Dst.Stride, c.Dst.Rows = 0, 0
			c.Dst.Rows = 10
			c.Dst.Stride = 20
			c.Dst.Data = make([]float32, 200)
			c.Q.Data = c.Dst.Data
		}},
		"LSE has 3 columns, want Heads = 4":                           {c, attention.ErrShape, func(c *flat) { c.LSE = zeroMatrix(n, 3) }},
		"LSE shares elements with dst":                                {c, attention.ErrShape, func(c *flat) { c.LSE = general(c.Dst.Data, n, 4) }},
		"Offsets ends with 9, want the number of rows = 10":           {c, attention.ErrCall, func(c *flat) { c.Offsets = []int{0, 9} }},
		"CoreK has 2 rows, want 3":                                    {c, attention.ErrShape, func(c *flat) { c.CoreK = zeroMatrix(2, 12) }},
		"CoreV has 12 columns, want heads of cores * ValueDim = 20":   {c, attention.ErrShape, func(c *flat) { c.CoreV = zeroMatrix(3, 12) }},
		"Weights has 4 columns, want Heads*GroupSize = 8":             {c, attention.ErrShape, func(c *flat) { c.Weights = zeroMatrix(3, 4) }},
		"Weights without PoolSignificance":                            {mean, attention.ErrCall, func(c *flat) { c.Weights = zeroMatrix(3, 4) }},
		"Blocks[1].Group is 1, want 0 or more, in rising order":       {c, attention.ErrCall, func(c *flat) { c.Blocks = []Block{block(1), block(1)} }},
		"K of a block has 3 rows, want 2":                             {c, attention.ErrShape, func(c *flat) { c.Blocks = []Block{{0, zeroMatrix(3, 6), zeroMatrix(2, 10)}} }},
		"Blocks together with Offsets, States or more than one level": {deep, attention.ErrCall, func(c *flat) { c.Blocks = []Block{block(1)} }},
		"State is of another operator":                                {c, attention.ErrState, func(c *flat) { c.State = alien }},
		"10 tokens after 0, want at most MaxTokens = 9":               {c, attention.ErrFull, func(c *flat) { c.State = state }},
		"State is given with Offsets of 2 sequences, want States":     {c, attention.ErrCall, func(c *flat) { c.State, c.Offsets = state, []int{0, 5, n} }},
		"CoreK, CoreV or Weights together with a state, want its C":   {c, attention.ErrCall, func(c *flat) { c.State, c.CoreK = state, zeroMatrix(3, 12) }},
		"dst is 10 x 20 with stride 20 but has only 150 elements":     {c, attention.ErrShape, func(c *flat) { c.Dst.Data = c.Dst.Data[:150] }},
		"k has -1 rows, want 10":                                      {c, attention.ErrShape, func(c *flat) { c.K.Rows = -1 }},
		"Offsets runs backwards, from 7 to 3 at 2":                    {c, attention.ErrCall, func(c *flat) { c.Offsets = []int{0, 7, 3, 10} }},
		"Offsets has 0 elements, want one more than sequences = 0":    {c, attention.ErrCall, func(c *flat) { c.Offsets = []int{} }},
	} {
		call := &flat{Dst: zeroMatrix(n, 20), Q: matrix(1, n, 12), K: matrix(2, n, 6), V: matrix(3, n, 10)}
		x.change(call)
		if err := call.run(context.Background(), x.c); !errors.Is(err, x.kind) || !strings.HasPrefix(err.Error(), "cca: "+want) {
			t.Errorf("error %v, want %s", err, want)
		}
		for _, x := range call.Dst.Data {
			if x != 0 && !strings.HasPrefix(want, "dst shares") {
				t.Fatalf("%s: dst was written", want)
			}
		}
	}
	if err := c.Step(zeroMatrix(1, 20), matrix(1, 1, 12), matrix(2, 1, 6), matrix(3, 1, 10), nil); !errors.Is(err, attention.ErrState) {
		t.Errorf("error %v without a state", err)
	}
	if state.Len() != 0 {
		t.Errorf("the state has %d tokens after errors", state.Len())
	}
	for _, to := range []int{-1, 1} {
		if err := state.Truncate(to); !errors.Is(err, attention.ErrState) {
			t.Errorf("Truncate(%d): error %v", to, err)
		}
	}
}

// TestCCACancel has a state stand where it was after a call that ended early,
// and go on from there.
func TestCCACancel(t *testing.T) {
	const n = 60
	c := mustCCA(t, Config{Heads: 2, HeadDim: 4, GroupSize: 3, Window: 5, Levels: 3})
	q, k, v := matrix(1, n, 8), matrix(2, n, 8), matrix(3, n, 8)
	want, got := zeroMatrix(n, 8), zeroMatrix(n, 8)
	if err := c.Forward(want, q, k, v); err != nil {
		t.Fatal(err)
	}
	s, _ := c.NewState(StateConfig{})
	for at := 0; at < n; at += 20 {
		call := &flat{Dst: part(got, at, at+20), Q: part(q, at, at+20), K: part(k, at, at+20), V: part(v, at, at+20), State: s}
		asked := 0
		for ; ; asked++ {
			err := call.run(&statetest.Ending{Context: context.Background(), Left: asked}, c)
			if err == nil {
				break
			}
			if err != context.Canceled || s.Len() != at {
				t.Fatalf("error %v, %d tokens", err, s.Len())
			}
		}
		if asked < 3 {
			t.Errorf("a call asked %d times whether it was to end", asked)
		}
	}
	close64(t, "after cancellations", got.Data, want.Data, 1e-5)
	s.Reset()
	if err := c.Step(got, q, k, v, s); err != nil {
		t.Fatal(err)
	}
	close64(t, "after Reset", got.Data, want.Data, 1e-5)
	if err := s.Truncate(n - 30); !errors.Is(err, attention.ErrState) || s.Len() != n {
		t.Errorf("error %v, %d tokens", err, s.Len())
	}
}

// TestCCALong crosses the stretches that calls with a state are cut into.
func TestCCALong(t *testing.T) {
	const n = 70
	end := tile.Small()
	c := mustCCA(t, Config{Heads: 2, HeadDim: 4, GroupSize: 3, Window: 5, Levels: 4, Span: 1})

	end()
	q, k, v := matrix(1, n, 8), matrix(2, n, 8), matrix(3, n, 8)
	want, got := zeroMatrix(n, 8), zeroMatrix(n, 8)
	if err := c.Forward(want, q, k, v); err != nil {
		t.Fatal(err)
	}
	s, _ := c.NewState(StateConfig{MaxTokens: n})
	held := s.Bytes()
	lse := zeroMatrix(n, 2)
	if err := (&flat{Dst: got, Q: q, K: k, V: v, State: s, LSE: lse}).run(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	close64(t, "one long step", got.Data, want.Data, 1e-5)
	if s.Bytes() != held {
		t.Errorf("the state grew from %d to %d bytes", held, s.Bytes())
	}
	if lse.Data[len(lse.Data)-1] == 0 {
		t.Error("the last log-sum-exp is missing")
	}
}

func TestCCAAllocations(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, workers := range []int{1, 4} {
			const n = 200
			end := tile.Small()
			c := mustCCA(t, Config{Heads: 4, KVHeads: 2, HeadDim: 8, GroupSize: 4, Window: 16, Levels: 3, Workers: workers})
			end()
			q, k, v, dst := matrix(1, n, 32), matrix(2, n, 16), matrix(3, n, 16), zeroMatrix(n, 32)
			forward := func() {
				if err := c.Forward(dst, q, k, v); err != nil {
					t.Fatal(err)
				}
			}
			forward()
			if x := isatest.Allocations(forward); x != 0 {
				t.Errorf("%d workers: %v allocations a call", workers, x)
			}
			s, _ := c.NewState(StateConfig{MaxTokens: 3 * n})
			at := 0
			step := func() {
				if err := c.Step(part(dst, at, at+1), part(q, at, at+1), part(k, at, at+1), part(v, at, at+1), s); err != nil {
					t.Fatal(err)
				}
				at = (at + 1) % n
			}
			for range n {
				step()
			}
			if x := testing.AllocsPerRun(n, step); x != 0 {
				t.Errorf("%d workers: %v allocations a step", workers, x)
			}
		}
	})
}

func TestCCAStateFile(t *testing.T) {
	c := mustCCA(t, Config{Heads: 2, HeadDim: 2, GroupSize: 2, Window: 3, Levels: 2})
	s, _ := c.NewState(StateConfig{MaxTokens: 1 << 30 >> 10})
	x := matrix(1, 30, 4)
	if err := c.Step(zeroMatrix(30, 4), x, x, x, s); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if n, err := s.WriteTo(&file); err != nil || n != int64(file.Len()) {
		t.Fatalf("%d bytes, error %v", n, err)
	}
	statetest.Damage(t, file.Bytes(), func(r io.Reader) error { _, err := c.ReadState(r); return err })
	other := mustCCA(t, Config{Heads: 2, HeadDim: 2, GroupSize: 2, Window: 4, Levels: 2})
	if _, err := other.ReadState(&file); !errors.Is(err, attention.ErrState) || err.Error() != "cca: state: it is of another operator: the Config or the weights differ" {
		t.Errorf("error %v", err)
	}
	if _, err := s.WriteTo(&statetest.Failing{Err: io.ErrShortWrite}); err != io.ErrShortWrite {
		t.Errorf("error %v of the writer", err)
	}
}

func TestCCAEmpty(t *testing.T) {
	c := mustCCA(t, Config{Heads: 1, HeadDim: 2, Levels: 3})
	none := blas32.General{Cols: 2}
	if err := c.Forward(none, none, none, none); err != nil {
		t.Error(err)
	}
	s, _ := c.NewState(StateConfig{})
	if err := c.Step(none, none, none, none, s); err != nil || s.Len() != 0 {
		t.Errorf("error %v, %d tokens", err, s.Len())
	}
	if err := (&flat{Dst: none, Q: none, K: none, V: none, Offsets: []int{0, 0, 0}}).run(context.Background(), c); err != nil {
		t.Error(err)
	}
}

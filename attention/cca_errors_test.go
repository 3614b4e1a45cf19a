package attention

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

	"github.com/subquad/subquad/internal/isa/isatest"
)

func TestCCAConfig(t *testing.T) {
	for want, cfg := range map[string]CCAConfig{
		"Heads is 0, want 1 or more":             {HeadDim: 4},
		"KVHeads is 3, want a divisor of":        {Heads: 4, KVHeads: 3, HeadDim: 4},
		"Group is -1, want 0 to 2^29":            {Heads: 1, HeadDim: 4, Group: -1},
		"Window is -1, want 0 to 2^29":           {Heads: 1, HeadDim: 4, Window: -1},
		"Pooling is 3, want PoolSignificance":    {Heads: 1, HeadDim: 4, Pooling: 3},
		"Levels is 33, want 0 to 32":             {Heads: 1, HeadDim: 4, Levels: 33},
		"Span is -2, want 0 to 2^29":             {Heads: 1, HeadDim: 4, Span: -2},
		"Scale is NaN, want a finite number":     {Heads: 1, HeadDim: 4, Scale: float32(math.NaN())},
		"Workers is -1, want 0 or more":          {Heads: 1, HeadDim: 4, Workers: -1},
		"HeadDim is -1, want 1 or more":          {Heads: 1, HeadDim: -1},
		"ValueDim is -1, want 0 or more":         {Heads: 1, HeadDim: 4, ValueDim: -1},
		"Window is 536870913, want 0 to 2^29":    {Heads: 1, HeadDim: 4, Window: 1<<29 + 1},
		"Group is 536870913, want 0 to 2^29":     {Heads: 1, HeadDim: 4, Group: 1<<29 + 1},
		"HeadDim is 65536 and ValueDim 65536, w": {Heads: 1, HeadDim: 1 << 16},
	} {
		if _, err := NewCCA(cfg); !errors.Is(err, ErrConfig) || !strings.HasPrefix(err.Error(), "attention: "+want) {
			t.Errorf("%+v: error %v, want %s", cfg, err, want)
		}
	}
	c := mustCCA(t, CCAConfig{Heads: 1, HeadDim: 1, Group: 1 << 29, Window: 1 << 29, Span: 1 << 29, Levels: 32})
	if err := c.Forward(zeroMatrix(3, 1), zeroMatrix(3, 1), zeroMatrix(3, 1), zeroMatrix(3, 1)); err != nil {
		t.Error(err)
	}
	for want, cfg := range map[string]CCAStateConfig{
		"MaxTokens is -1, want 0 or more":                                               {MaxTokens: -1},
		"Rollback is -1, want 0 to 2^60":                                                {Rollback: -1},
		fmt.Sprintf("MaxTokens is %d, too many for this machine's memory", math.MaxInt): {MaxTokens: math.MaxInt},
	} {
		if _, err := c.NewState(cfg); !errors.Is(err, ErrConfig) || err.Error() != "attention: "+want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestCCACallErrors(t *testing.T) {
	const n = 10
	c := mustCCA(t, CCAConfig{Heads: 4, KVHeads: 2, HeadDim: 3, ValueDim: 5, Group: 2, Window: 3})
	other := mustCCA(t, CCAConfig{Heads: 4, KVHeads: 2, HeadDim: 3, ValueDim: 5, Group: 2, Window: 3})
	mean := mustCCA(t, CCAConfig{Heads: 4, KVHeads: 2, HeadDim: 3, ValueDim: 5, Group: 2, Window: 3, Pooling: PoolMean})
	deep := mustCCA(t, CCAConfig{Heads: 4, KVHeads: 2, HeadDim: 3, ValueDim: 5, Group: 2, Window: 3, Levels: 2})
	state, _ := c.NewState(CCAStateConfig{MaxTokens: 9})
	alien, _ := other.NewState(CCAStateConfig{})
	block := func(p int) Block { return Block{p, zeroMatrix(2, 6), zeroMatrix(2, 10)} }
	for want, x := range map[string]struct {
		c      *CCA
		kind   error
		change func(*CCACall)
	}{
		"q has 11 columns, want Heads*HeadDim = 12":                {c, ErrShape, func(c *CCACall) { c.Q.Cols-- }},
		"k has 5 columns, want KVHeads*HeadDim = 6":                {c, ErrShape, func(c *CCACall) { c.K.Cols-- }},
		"v has 9 rows, want 10":                                    {c, ErrShape, func(c *CCACall) { c.V.Rows-- }},
		"k has 10 rows and q 4, want as many: cores are pooled by": {c, ErrShape, func(c *CCACall) { c.Q.Rows, c.Dst.Rows = 4, 4 }},
		"dst has 9 rows, want 10":                                  {c, ErrShape, func(c *CCACall) { c.Dst.Rows-- }},
		"dst shares elements with an input": {c, ErrShape, func(c *CCACall) {
			c.Dst.Data = c.V.Data
			c.Dst.Stride, c.Dst.Rows = 0, 0
			c.Dst.Rows = 10
			c.Dst.Stride = 20
			c.Dst.Data = make([]float32, 200)
			c.Q.Data = c.Dst.Data
		}},
		"LSE has 3 columns, want Heads = 4":                           {c, ErrShape, func(c *CCACall) { c.LSE = zeroMatrix(n, 3) }},
		"LSE shares elements with dst":                                {c, ErrShape, func(c *CCACall) { c.LSE = general(c.Dst.Data, n, 4) }},
		"Offsets ends with 9, want the number of rows = 10":           {c, ErrCall, func(c *CCACall) { c.Offsets = []int{0, 9} }},
		"CoreK has 2 rows, want 3":                                    {c, ErrShape, func(c *CCACall) { c.CoreK = zeroMatrix(2, 12) }},
		"CoreV has 12 columns, want heads of cores * ValueDim = 20":   {c, ErrShape, func(c *CCACall) { c.CoreV = zeroMatrix(3, 12) }},
		"Weights has 4 columns, want Heads*Group = 8":                 {c, ErrShape, func(c *CCACall) { c.Weights = zeroMatrix(3, 4) }},
		"Weights without PoolSignificance":                            {mean, ErrCall, func(c *CCACall) { c.Weights = zeroMatrix(3, 4) }},
		"Blocks[1].Group is 1, want 0 or more, in rising order":       {c, ErrCall, func(c *CCACall) { c.Blocks = []Block{block(1), block(1)} }},
		"K of a block has 3 rows, want 2":                             {c, ErrShape, func(c *CCACall) { c.Blocks = []Block{{0, zeroMatrix(3, 6), zeroMatrix(2, 10)}} }},
		"Blocks together with Offsets or more than one level":         {deep, ErrCall, func(c *CCACall) { c.Blocks = []Block{block(1)} }},
		"the state is of another operator":                            {c, ErrState, func(c *CCACall) { c.State = alien }},
		"q has 10 rows for a state of 0 tokens with MaxTokens 9":      {c, ErrCall, func(c *CCACall) { c.State = state }},
		"Offsets together with State":                                 {c, ErrCall, func(c *CCACall) { c.State, c.Offsets = state, []int{0, n} }},
		"CoreK, CoreV or Weights together with State, want its Cores": {c, ErrCall, func(c *CCACall) { c.State, c.CoreK = state, zeroMatrix(3, 12) }},
		"dst is 10 x 20 with stride 20 but has only 150 elements":     {c, ErrShape, func(c *CCACall) { c.Dst.Data = c.Dst.Data[:150] }},
		"k has -1 rows, want 10":                                      {c, ErrShape, func(c *CCACall) { c.K.Rows = -1 }},
		"Offsets runs backwards, from 7 to 3 at 2":                    {c, ErrCall, func(c *CCACall) { c.Offsets = []int{0, 7, 3, 10} }},
		"Offsets has 0 elements, want one more than sequences = 0":    {c, ErrCall, func(c *CCACall) { c.Offsets = []int{} }},
	} {
		call := &CCACall{Dst: zeroMatrix(n, 20), Q: matrix(1, n, 12), K: matrix(2, n, 6), V: matrix(3, n, 10)}
		x.change(call)
		if err := x.c.Run(context.Background(), call); !errors.Is(err, x.kind) || !strings.HasPrefix(err.Error(), "attention: "+want) {
			t.Errorf("error %v, want %s", err, want)
		}
		for _, x := range call.Dst.Data {
			if x != 0 && !strings.HasPrefix(want, "dst shares") {
				t.Fatalf("%s: dst was written", want)
			}
		}
	}
	if err := c.Step(zeroMatrix(1, 20), matrix(1, 1, 12), matrix(2, 1, 6), matrix(3, 1, 10), nil); !errors.Is(err, ErrCall) {
		t.Errorf("error %v without a state", err)
	}
	if state.Len() != 0 {
		t.Errorf("the state has %d tokens after errors", state.Len())
	}
	for _, to := range []int{-1, 1} {
		if err := state.Truncate(to); !errors.Is(err, ErrCall) {
			t.Errorf("Truncate(%d): error %v", to, err)
		}
	}
}

// ending is a context that is done after it was asked a number of times.
type ending struct {
	context.Context
	left int
}

func (c *ending) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// TestCCACancel has a state stand where it was after a call that ended early,
// and go on from there.
func TestCCACancel(t *testing.T) {
	const n = 60
	c := mustCCA(t, CCAConfig{Heads: 2, HeadDim: 4, Group: 3, Window: 5, Levels: 3})
	q, k, v := matrix(1, n, 8), matrix(2, n, 8), matrix(3, n, 8)
	want, got := zeroMatrix(n, 8), zeroMatrix(n, 8)
	if err := c.Forward(want, q, k, v); err != nil {
		t.Fatal(err)
	}
	s, _ := c.NewState(CCAStateConfig{})
	for at := 0; at < n; at += 20 {
		call := &CCACall{Dst: part(got, at, at+20), Q: part(q, at, at+20), K: part(k, at, at+20), V: part(v, at, at+20), State: s}
		asked := 0
		for ; ; asked++ {
			err := c.Run(&ending{context.Background(), asked}, call)
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
	if err := s.Truncate(n - 30); !errors.Is(err, ErrCall) || s.Len() != n {
		t.Errorf("error %v, %d tokens", err, s.Len())
	}
}

// TestCCALong crosses the stretches that calls with a state are cut into.
func TestCCALong(t *testing.T) {
	const n = 70
	c := mustCCA(t, CCAConfig{Heads: 2, HeadDim: 4, Group: 3, Window: 5, Levels: 4, Span: 1})
	small(c.att) // 13 queries a block
	q, k, v := matrix(1, n, 8), matrix(2, n, 8), matrix(3, n, 8)
	want, got := zeroMatrix(n, 8), zeroMatrix(n, 8)
	if err := c.Forward(want, q, k, v); err != nil {
		t.Fatal(err)
	}
	s, _ := c.NewState(CCAStateConfig{MaxTokens: n})
	held := s.Bytes()
	lse := zeroMatrix(n, 2)
	if err := c.Run(context.Background(), &CCACall{Dst: got, Q: q, K: k, V: v, State: s, LSE: lse}); err != nil {
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
			c := mustCCA(t, CCAConfig{Heads: 4, KVHeads: 2, HeadDim: 8, Group: 4, Window: 16, Levels: 3, Workers: workers})
			c.att.sizes.alone = 1
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
			s, _ := c.NewState(CCAStateConfig{MaxTokens: 3 * n})
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

// stateFile is a state's file, and the reading of one.
func damage(t *testing.T, file []byte, read func(io.Reader) error) {
	t.Helper()
	if err := read(bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	for n := range file {
		if err := read(bytes.NewReader(file[:n])); !errors.Is(err, ErrState) {
			t.Fatalf("cut to %d of %d bytes: error %v", n, len(file), err)
		}
		bad := bytes.Clone(file)
		bad[n] ^= 0x40
		if err := read(bytes.NewReader(bad)); !errors.Is(err, ErrState) {
			t.Fatalf("byte %d of %d damaged: error %v", n, len(file), err)
		}
	}
	trouble := errors.New("trouble")
	if err := read(io.MultiReader(bytes.NewReader(file[:20]), &failing{trouble})); !errors.Is(err, trouble) {
		t.Errorf("error %v of the reader", err)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error)  { return 0, f.err }
func (f *failing) Write([]byte) (int, error) { return 0, f.err }

func TestCCAStateFile(t *testing.T) {
	c := mustCCA(t, CCAConfig{Heads: 2, HeadDim: 2, Group: 2, Window: 3, Levels: 2})
	s, _ := c.NewState(CCAStateConfig{MaxTokens: 1 << 30 >> 10})
	x := matrix(1, 30, 4)
	if err := c.Step(zeroMatrix(30, 4), x, x, x, s); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if n, err := s.WriteTo(&file); err != nil || n != int64(file.Len()) {
		t.Fatalf("%d bytes, error %v", n, err)
	}
	damage(t, file.Bytes(), func(r io.Reader) error { _, err := c.ReadState(r); return err })
	other := mustCCA(t, CCAConfig{Heads: 2, HeadDim: 2, Group: 2, Window: 4, Levels: 2})
	if _, err := other.ReadState(&file); !errors.Is(err, ErrState) || err.Error() != "attention: state: it is of another operator" {
		t.Errorf("error %v", err)
	}
	if _, err := s.WriteTo(&failing{io.ErrShortWrite}); err != io.ErrShortWrite {
		t.Errorf("error %v of the writer", err)
	}
}

func TestCCAEmpty(t *testing.T) {
	c := mustCCA(t, CCAConfig{Heads: 1, HeadDim: 2, Levels: 3})
	none := blas32.General{Cols: 2}
	if err := c.Forward(none, none, none, none); err != nil {
		t.Error(err)
	}
	s, _ := c.NewState(CCAStateConfig{})
	if err := c.Step(none, none, none, none, s); err != nil || s.Len() != 0 {
		t.Errorf("error %v, %d tokens", err, s.Len())
	}
	if err := c.Run(context.Background(), &CCACall{Dst: none, Q: none, K: none, V: none, Offsets: []int{0, 0, 0}}); err != nil {
		t.Error(err)
	}
}

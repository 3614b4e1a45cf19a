package attention

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/rope"
)

func TestConfigErrors(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for want, cfg := range map[string]Config{
		"attention: Heads is 0, want 1 or more":                              {},
		"attention: Heads is -2, want 1 or more":                             {Heads: -2, KVHeads: -1},
		"attention: KVHeads is 3, want a divisor of Heads = 8":               {Heads: 8, KVHeads: 3, HeadDim: 4},
		"attention: KVHeads is -1, want a divisor of Heads = 8":              {Heads: 8, KVHeads: -1, HeadDim: 4},
		"attention: KVHeads is 16, want a divisor of Heads = 8":              {Heads: 8, KVHeads: 16, HeadDim: 4},
		"attention: HeadDim is 0, want 1 or more":                            {Heads: 8},
		"attention: ValueDim is -1, want 0 or more":                          {Heads: 8, HeadDim: 4, ValueDim: -1},
		"attention: HeadDim is 65536 and ValueDim 65536, want at most 32768": {Heads: 1, HeadDim: 65536},
		"attention: Heads is 65536, want at most 32768":                      {Heads: 65536, HeadDim: 1},
		"attention: Scale is NaN, want a finite number":                      {Heads: 8, HeadDim: 4, Scale: nan},
		"attention: Window is -1, want 0 or more":                            {Heads: 8, HeadDim: 4, Window: -1},
		"attention: LookAhead is -3, want 0 or more":                         {Heads: 8, HeadDim: 4, LookAhead: new(-3)},
		"attention: LookAhead is 3 together with Causal":                     {Heads: 8, HeadDim: 4, LookAhead: new(3), Causal: true},
		"attention: Softcap is +Inf, want a finite number, 0 or more":        {Heads: 8, HeadDim: 4, Softcap: inf},
		"attention: Softcap is -1, want a finite number, 0 or more":          {Heads: 8, HeadDim: 4, Softcap: -1},
		"attention: Sinks has 3 elements, want Heads = 8":                    {Heads: 8, HeadDim: 4, Sinks: make([]float32, 3)},
		"attention: Sinks[1] is NaN, want a finite number":                   {Heads: 2, HeadDim: 4, Sinks: []float32{0, nan}},
		"attention: Sinks together with ReLU":                                {Heads: 2, HeadDim: 4, Sinks: []float32{0, 0}, ReLU: true},
		"attention: Skip is NaN, want at least 0 and less than 1":            {Heads: 2, HeadDim: 4, Skip: nan},
		"attention: Skip together with ReLU":                                 {Heads: 2, HeadDim: 4, Skip: 0.1, ReLU: true},
		"attention: Workers is -1, want 0 to 65536":                          {Heads: 2, HeadDim: 4, Workers: -1},
		"attention: Bias is for 3 heads, want 1 or Heads = 2":                {Heads: 2, HeadDim: 4, Bias: slopes(t, 3)},
		"attention: Bias is a nil *rope.Distance":                            {Heads: 2, HeadDim: 4, Bias: (*rope.Distance)(nil)},
	} {
		if _, err := New(cfg); !errors.Is(err, ErrConfig) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func slopes(t *testing.T, heads int) Bias {
	b, err := rope.NewALiBi(rope.ALiBiSlopes(heads))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCallErrors(t *testing.T) {
	const n, m = 6, 10
	a := must(t, Config{Heads: 8, KVHeads: 2, HeadDim: 4, ValueDim: 3})
	relu := must(t, Config{Heads: 8, KVHeads: 2, HeadDim: 4, ValueDim: 3, ReLU: true})
	base := func() *Call {
		return &Call{Dst: matrix(1, n, 24), Q: matrix(2, n, 32), K: []blas32.General{matrix(3, m, 8)}, V: []blas32.General{matrix(4, m, 6)}}
	}
	for _, c := range []struct {
		want string
		kind error
		edit func(*Call)
	}{
		{"attention: q has 31 columns, want Heads*HeadDim = 32", ErrShape, func(c *Call) { c.Q = matrix(1, n, 31) }},
		{"attention: q has -1 rows", ErrShape, func(c *Call) { c.Q.Rows = -1 }},
		{"attention: dst has 5 rows, want 6", ErrShape, func(c *Call) { c.Dst.Rows = 5 }},
		{"attention: dst has 32 columns, want Heads*ValueDim = 24", ErrShape, func(c *Call) { c.Dst = matrix(1, n, 32) }},
		{"attention: k has 6 columns, want KVHeads*HeadDim = 8", ErrShape, func(c *Call) { c.K[0] = matrix(1, m, 6) }},
		{"attention: v has 9 rows, want 10", ErrShape, func(c *Call) { c.V[0].Rows = 9 }},
		{"attention: v is 10 x 6 with stride 6 but has only 20 elements", ErrShape, func(c *Call) { c.V[0].Data = c.V[0].Data[:20] }},
		{"attention: V has 0 segments, want as many as K = 1", ErrShape, func(c *Call) { c.V = nil }},
		{"attention: V[1] has 7 columns, want KVHeads*ValueDim = 6", ErrShape, func(c *Call) { c.K, c.V = append(c.K, c.K[0]), append(c.V, matrix(1, m, 7)) }},
		{"attention: dst shares elements with an input", ErrShape, func(c *Call) { c.Dst = blas32.General{Rows: n, Cols: 24, Stride: 32, Data: c.Q.Data} }},
		{"attention: LSE has 7 columns, want Heads = 8", ErrShape, func(c *Call) { c.LSE = matrix(1, n, 7) }},
		{"attention: Mass has 6 rows, want 10", ErrShape, func(c *Call) { c.Mass = matrix(1, n, 8) }},
		{"attention: Entropy shares elements with LSE", ErrShape, func(c *Call) { c.LSE = matrix(1, n, 8); c.Entropy = c.LSE }},
		{"attention: LogWeights has 9 rows, want 10", ErrShape, func(c *Call) { c.LogWeights = matrix(1, 9, 1) }},
		{"attention: LogWeights has 3 columns, want 1 or the heads of the keys = 2", ErrShape, func(c *Call) { c.LogWeights = matrix(1, m, 3) }},
		{"attention: Offsets runs backwards, from 4 to 2 at 2", ErrCall, func(c *Call) { c.Offsets = []int{0, 4, 2, n} }},
		{"attention: Offsets begins with 1, want 0", ErrCall, func(c *Call) { c.Offsets = []int{1, n} }},
		{"attention: Offsets ends with 5, want the number of rows = 6", ErrCall, func(c *Call) { c.Offsets = []int{0, 5} }},
		{"attention: Offsets has 0 elements, want one more than sequences = 0", ErrCall, func(c *Call) { c.Offsets = []int{} }},
		{"attention: KOffsets without Offsets", ErrCall, func(c *Call) { c.KOffsets = []int{0, m} }},
		{"attention: KOffsets has 2 elements, want one more than sequences = 2", ErrCall, func(c *Call) { c.Offsets, c.KOffsets = []int{0, 2, n}, []int{0, m} }},
		{"attention: KOffsets ends with 6, want the number of rows = 10", ErrCall, func(c *Call) { c.Offsets = []int{0, n} }},
		{"attention: QueryPos has 2 elements, want one for each sequence = 1", ErrCall, func(c *Call) { c.QueryPos = []int64{0, 0} }},
		{"attention: KeyPos[0] is 9223372036854775807, want between -2^60 and 2^60", ErrCall, func(c *Call) { c.KeyPos = []int64{math.MaxInt64} }},
		{"attention: Extra[0] has 3 heads, want a divisor of Heads = 8", ErrCall, func(c *Call) { c.Extra = []Extra{{Heads: 3}} }},
		{"attention: Extra.K[0] has 8 columns, want Extra.Heads*HeadDim = 16", ErrShape, func(c *Call) { c.Extra = []Extra{{Heads: 4, K: c.K, V: c.V}} }},
		{"attention: Extra.Offsets is missing for 2 sequences", ErrCall, func(c *Call) {
			c.Offsets, c.KOffsets, c.Extra = []int{0, 2, n}, []int{0, 2, m}, []Extra{{K: c.K, V: c.V}}
		}},
		{"attention: MatrixMask has 3 elements, want Queries*Keys = 6 * 10", ErrShape, func(c *Call) { c.Mask = MatrixMask{Queries: n, Keys: m, Seen: make([]bool, 3)} }},
		{"attention: MatrixBias is 6 x 9, want it to cover queries at positions 4 to 10 and keys at 0 to 10", ErrShape, func(c *Call) { c.Bias = MatrixBias{matrix(1, n, 9)} }},
		{"attention: MatrixBias has 3 matrices, want 1 or Heads = 8", ErrShape, func(c *Call) { c.Bias = make(MatrixBias, 3) }},
		{"attention: Bias is for 2 heads, want 1 or Heads = 8", ErrCall, func(c *Call) { c.Bias = slopes(t, 2) }},
		{"attention: Bias is a nil *rope.FIRE", ErrCall, func(c *Call) { c.Bias = (*rope.FIRE)(nil) }},
		{"attention: Mask is a nil *attention.MatrixMask", ErrCall, func(c *Call) { c.Mask = (*MatrixMask)(nil) }},
		{"attention: MatrixMask with 2 sequences, want 1", ErrCall, func(c *Call) {
			c.Offsets, c.KOffsets, c.Mask = []int{0, 2, n}, []int{0, 2, m}, MatrixMask{}
		}},
		{"attention: Stats with 2 sequences, want 1", ErrCall, func(c *Call) { c.Offsets, c.KOffsets, c.Stats = []int{0, 2, n}, []int{0, 2, m}, new(Stats) }},
		{"attention: Stats is of another number of heads", ErrCall, func(c *Call) { c.Stats = &Stats{Mass: make([][]float64, 3)} }},
	} {
		call := base()
		c.edit(call)
		before := append([]float32(nil), call.Dst.Data...)
		if err := a.Run(context.Background(), call); !errors.Is(err, c.kind) || err.Error() != c.want {
			t.Errorf("error %v, want %s", err, c.want)
		}
		sameBits(t, "dst after an error", call.Dst.Data, before)
	}
	call := base()
	call.LSE = matrix(1, n, 8)
	if err := relu.Run(context.Background(), call); !errors.Is(err, ErrCall) {
		t.Errorf("LSE of ReLU attention: error %v", err)
	}
	for want, err := range map[string]error{
		"attention: LSE has 5 columns for 24 of Out, want one for each head": Merge(Partial{Out: matrix(1, n, 24)}, nil, Partial{matrix(1, n, 24), matrix(1, n, 5)}),
		"attention: LSE has 0 columns for 24 of Out, want one for each head": Merge(Partial{Out: matrix(1, n, 24)}, nil),
		"attention: sinks has 2 elements, want heads = 8":                    Merge(Partial{Out: matrix(1, n, 24)}, make([]float32, 2), Partial{matrix(1, n, 24), matrix(1, n, 8)}),
		"attention: Out of a part has 5 rows, want 6 (part 0)":               Merge(Partial{Out: matrix(1, n, 24)}, nil, Partial{matrix(1, 5, 24), matrix(1, 5, 8)}),
		"attention: dst.LSE has 4 rows, want 6":                              Merge(Partial{matrix(1, n, 24), matrix(1, 4, 8)}, nil, Partial{matrix(1, n, 24), matrix(1, n, 8)}),
	} {
		if !errors.Is(err, ErrShape) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestNothing(t *testing.T) {
	a := must(t, Config{Heads: 2, HeadDim: 4, Sinks: []float32{1, 2}})
	if err := a.Forward(blas32.General{Cols: 8}, blas32.General{Cols: 8}, blas32.General{Cols: 8}, blas32.General{Cols: 8}); err != nil {
		t.Error(err)
	}
	// Queries without keys, as segments and as none.
	for _, c := range []*Call{{}, {K: make([]blas32.General, 2), V: make([]blas32.General, 2)}} {
		for i := range c.K {
			c.K[i].Cols, c.V[i].Cols = 8, 8
		}
		c.Q = matrix(1, 3, 8)
		outputs(a, c)
		if err := a.Run(context.Background(), c); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			close64(t, "dst", c.Dst.Data[i*c.Dst.Stride:][:8], make([]float32, 8), 0)
			close64(t, "LSE", c.LSE.Data[i*c.LSE.Stride:][:2], []float32{1, 2}, 0)
			close64(t, "entropy", c.Entropy.Data[i*c.Entropy.Stride:][:2], []float32{0, 0}, 0)
		}
	}
	// Keys without queries.
	c := &Call{Q: blas32.General{Cols: 8}, K: []blas32.General{matrix(1, 3, 8)}, V: []blas32.General{matrix(2, 3, 8)}}
	outputs(a, c)
	if err := a.Run(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	near(t, "mass", c.Mass, [][]float64{{0, 0}, {0, 0}, {0, 0}}, 0)
}

// TestCanaries keeps what stands between the rows of the outputs.
func TestCanaries(t *testing.T) {
	for seed := range uint64(40) {
		a, c, name := randomCall(t, seed)
		if err := a.Run(context.Background(), c); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, m := range []blas32.General{c.Dst, c.LSE, c.Mass, c.Entropy} {
			for i := range m.Data {
				if x := m.Data[i]; i%m.Stride >= m.Cols && x == x {
					t.Fatalf("%s: element %d, between the rows, was overwritten by %v", name, i, x)
				}
			}
		}
	}
}

// FuzzRun gives hostile shapes, offsets and data: an error, or a result.
func FuzzRun(f *testing.F) {
	f.Add(uint64(1), 3, 5, 2, 4, int64(0), false)
	f.Add(uint64(2), 0, 0, 1, 1, int64(-7), true)
	f.Add(uint64(3), 40, 90, 3, 8, int64(1)<<59, true)
	f.Fuzz(func(t *testing.T, seed uint64, queries, keys, heads, dim int, pos int64, causal bool) {
		if queries > 200 || keys > 300 || heads > 8 || dim > 40 {
			t.Skip()
		}
		r := rand.New(rand.NewPCG(seed, 0))
		a, err := New(Config{Heads: heads, KVHeads: r.IntN(3), HeadDim: dim, Causal: causal, Window: r.IntN(30), Workers: 1 + r.IntN(3)})
		if err != nil {
			return
		}
		small(a)
		make := func(rows, cols int) blas32.General {
			m := general(random(seed, max(0, min(rows*cols, 1<<16))), rows, cols)
			for i := range m.Data {
				if r.IntN(50) == 0 {
					m.Data[i] = []float32{float32(math.NaN()), float32(math.Inf(1)), 1e30, -1e30, 1e-40}[r.IntN(5)]
				}
			}
			m.Stride += r.IntN(3) - 1
			return m
		}
		c := &Call{Q: make(queries, heads*dim), Dst: make(queries, heads*dim),
			K: []blas32.General{make(keys, a.cfg.KVHeads*dim)}, V: []blas32.General{make(keys, a.cfg.KVHeads*dim)},
			QueryPos: []int64{pos}, KeyPos: []int64{int64(r.IntN(100))}}
		if r.IntN(3) == 0 {
			c.Offsets, c.KOffsets = []int{0, r.IntN(10), queries}, []int{0, r.IntN(10), keys}
			c.QueryPos, c.KeyPos = nil, nil
		}
		if r.IntN(3) == 0 {
			c.Visible = func(q int64) (int64, int64) { return int64(r.Uint64()), int64(r.Uint64()) }
			a.cfg.Workers = 1
		}
		if r.IntN(3) == 0 {
			c.LogWeights = make(keys, 1)
		}
		a.Run(context.Background(), c)
	})
}

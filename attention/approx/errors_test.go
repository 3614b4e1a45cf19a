package approx

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"gonum.org/v1/gonum/blas/blas32"
)

func TestConfigErrors(t *testing.T) {
	nan := float32(math.NaN())
	linear := func(cfg LinearConfig) error { _, err := NewLinear(cfg); return err }
	nystrom := func(cfg NystromConfig) error { _, err := NewNystrom(cfg); return err }
	xca := func(cfg XCAConfig) error { _, err := NewXCA(cfg); return err }
	performer := func(cfg PerformerConfig) error { _, err := NewPerformer(cfg); return err }
	mra := func(cfg MRA2Config) error { _, err := NewMRA2(cfg); return err }
	linformer := func(cfg LinformerConfig) error { _, err := NewLinformer(cfg); return err }
	based := func(cfg BasedConfig) error { _, err := NewBased(cfg); return err }
	_, still := value[*Performer](t)(NewPerformer(PerformerConfig{Heads: 1, HeadDim: 4, Causal: true})).NewState(StateConfig{})
	_, efficient := NewEfficient(EfficientConfig{Heads: 2, HeadDim: -1})
	full := value[*Linear](t)(NewLinear(LinearConfig{Heads: 1, HeadDim: 1}))
	_, noState := full.NewState(StateConfig{})
	_, snapshots := testLinear(t).NewState(StateConfig{Snapshots: -1})
	for want, err := range map[string]error{
		"approx: Heads is 0, want 1 to 32768":                                                    linear(LinearConfig{HeadDim: 4}),
		"approx: KVHeads is 3, want a divisor of Heads = 4":                                      linear(LinearConfig{Heads: 4, KVHeads: 3, HeadDim: 4}),
		"approx: HeadDim is -1, want 1 to 32768":                                                 efficient,
		"approx: HeadDim is 0, want 1 to 32768":                                                  linear(LinearConfig{Heads: 4}),
		"approx: ValueDim is -1, want 0 to 32768":                                                linear(LinearConfig{Heads: 4, HeadDim: 4, ValueDim: -1}),
		"approx: Workers is -1, want 0 to 65536":                                                 linear(LinearConfig{Heads: 4, HeadDim: 4, Workers: -1}),
		"approx: 32768 heads of 32768 x 32768 are too many":                                      linear(LinearConfig{Heads: 32768, HeadDim: 32768}),
		"approx: Eps is NaN, want a finite number, 0 or more":                                    linear(LinearConfig{Heads: 4, HeadDim: 4, Eps: math.NaN()}),
		"approx: Temperature has 1 elements, want Heads = 2":                                     xca(XCAConfig{Heads: 2, HeadDim: 4, Temperature: []float32{1}}),
		"approx: Temperature[0] is NaN, want a finite number":                                    xca(XCAConfig{Heads: 1, HeadDim: 4, Temperature: []float32{nan}}),
		"approx: Scale is NaN, want a finite number":                                             nystrom(NystromConfig{Heads: 1, HeadDim: 4, Scale: nan}),
		"approx: Landmarks is -1, want 0 to 4096":                                                nystrom(NystromConfig{Heads: 1, HeadDim: 4, Landmarks: -1}),
		"approx: Iterations is -1, want 0 to 1000":                                               nystrom(NystromConfig{Heads: 1, HeadDim: 4, Iterations: -1}),
		"approx: Init is 2, want InitExact or InitOriginal":                                      nystrom(NystromConfig{Heads: 1, HeadDim: 4, Init: 2}),
		"approx: Conv has 4 taps, want an odd number":                                            nystrom(NystromConfig{Heads: 1, HeadDim: 4, Conv: mat.New(1, 4)}),
		"approx: Conv has 1 rows, want 2":                                                        nystrom(NystromConfig{Heads: 2, HeadDim: 4, Conv: mat.New(1, 3)}),
		"approx: Conv[0][0] is NaN, want a finite number":                                        nystrom(NystromConfig{Heads: 1, HeadDim: 4, Conv: blas32.General{Rows: 1, Cols: 1, Stride: 1, Data: []float32{nan}}}),
		"approx: no state of a Linear that is not Causal: its queries see the tokens to come":    noState,
		"approx: Eps is -1, want a finite number, 0 or more":                                     based(BasedConfig{Heads: 4, HeadDim: 4, Eps: -1}),
		"approx: 4 heads of 2003001 features x 2000 are too many":                                based(BasedConfig{Heads: 4, HeadDim: 2000}),
		"approx: Features is -1, want 0 to 1048576":                                              performer(PerformerConfig{Heads: 4, HeadDim: 4, Features: -1}),
		"approx: Features is 2 and Projection has 3 rows":                                        performer(PerformerConfig{Heads: 4, HeadDim: 4, Features: 2, Projection: mat.New(3, 4)}),
		"approx: Projection has 3 columns, want HeadDim = 4":                                     performer(PerformerConfig{Heads: 4, HeadDim: 4, Projection: mat.New(3, 3)}),
		"approx: Projection has 0 rows, want 1 or more":                                          performer(PerformerConfig{Heads: 4, HeadDim: 4, Projection: blas32.General{Cols: 4, Stride: 4}}),
		"approx: Projection[0][0] is NaN, want a finite number":                                  performer(PerformerConfig{Heads: 4, HeadDim: 1, Projection: blas32.General{Rows: 1, Cols: 1, Stride: 1, Data: []float32{nan}}}),
		"approx: a Projection of 40 x 5000 takes too long to make, give one":                     performer(PerformerConfig{Heads: 1, HeadDim: 5000, Features: 40}),
		"approx: 32768 heads of 1048576 features x 1 are too many":                               performer(PerformerConfig{Heads: 32768, HeadDim: 1, Features: 1 << 20}),
		"approx: Eps is NaN, want a finite number, 0 or more ":                                   performer(PerformerConfig{Heads: 1, HeadDim: 4, Eps: math.NaN()}),
		"approx: Scale is NaN, want a finite number ":                                            linformer(LinformerConfig{Heads: 1, HeadDim: 4, Scale: nan, E: mat.New(2, 2)}),
		"approx: E has 0 rows, want as many for each of 2 key heads, 1 or more":                  linformer(LinformerConfig{Heads: 2, HeadDim: 4}),
		"approx: E has 3 rows, want as many for each of 2 key heads, 1 or more":                  linformer(LinformerConfig{Heads: 2, HeadDim: 4, E: mat.New(3, 2)}),
		"approx: E[0][0] is NaN, want a finite number":                                           linformer(LinformerConfig{Heads: 1, HeadDim: 1, E: blas32.General{Rows: 1, Cols: 1, Stride: 1, Data: []float32{nan}}}),
		"approx: Scale is NaN, want a finite number  ":                                           mra(MRA2Config{Heads: 1, HeadDim: 4, Scale: nan}),
		"approx: Block is 1025, want 0 to 1024":                                                  mra(MRA2Config{Heads: 1, HeadDim: 4, Block: 1025}),
		"approx: Pairs is -1, want 0 to 2147483647":                                              mra(MRA2Config{Heads: 1, HeadDim: 4, Pairs: -1}),
		"approx: PairsPerRow is -1, want 0 to 46340":                                             mra(MRA2Config{Heads: 1, HeadDim: 4, PairsPerRow: -1}),
		"approx: Pairs is 1 and PairsPerRow 2, want one of them":                                 mra(MRA2Config{Heads: 1, HeadDim: 4, Pairs: 1, PairsPerRow: 2}),
		"approx: Diagonals is 92681, want 0 to 92680":                                            mra(MRA2Config{Heads: 1, HeadDim: 4, Diagonals: 92681}),
		"approx: Diagonals is -1, want 0 to 92680":                                               mra(MRA2Config{Heads: 1, HeadDim: 4, Diagonals: -1}),
		"approx: Stabilizer is NaN, want a finite number":                                        performer(PerformerConfig{Heads: 1, HeadDim: 4, Stabilizer: &nan}),
		"approx: a Stabilizer with ReLU, whose features need none":                               performer(PerformerConfig{Heads: 1, HeadDim: 4, ReLU: true, Stabilizer: new(float32)}),
		"approx: no state of a Performer without a Stabilizer: its features depend on all keys":  still,
		fmt.Sprint("approx: Snapshots is -1, want 0 to ", maxFloats/testLinear(t).stateSize()-1): snapshots,
	} {
		if !errors.Is(err, ErrConfig) || err.Error() != strings.TrimSpace(want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestCallErrors(t *testing.T) {
	for _, op := range operators(t, shape{4, 2, 9, 9}, 0) {
		for want, change := range map[string]func(c *request){
			"approx: q has 35 columns, want Heads*HeadDim = 36":                                     func(c *request) { c.Q.Cols-- },
			"approx: k has 17 columns, want KVHeads*HeadDim = 18":                                   func(c *request) { c.K.Cols-- },
			"approx: v has 19 rows, want 20":                                                        func(c *request) { c.V.Rows-- },
			"approx: dst has 21 rows, want 20":                                                      func(c *request) { c.Dst.Rows++ },
			"approx: dst shares elements with an input":                                             func(c *request) { c.Dst = c.Q },
			"approx: LogWeights has 2 rows, want 20":                                                func(c *request) { c.LogWeights = mat.New(2, 1) },
			"approx: LogWeights has 3 columns, want 1 or KVHeads = 2":                               func(c *request) { c.LogWeights = mat.New(20, 3) },
			"approx: Valid has 3 elements, want one for each key = 20":                              func(c *request) { c.Valid = make([]bool, 3) },
			"approx: KOffsets without Offsets":                                                      func(c *request) { c.KOffsets = []int{0, 20} },
			"approx: Offsets has 0 elements, want one more than sequences = 0":                      func(c *request) { c.Offsets = []int{} },
			"approx: Offsets begins with 1, want 0":                                                 func(c *request) { c.Offsets = []int{1, 20} },
			"approx: Offsets runs backwards, from 7 to 6 at 2":                                      func(c *request) { c.Offsets = []int{0, 7, 6, 20} },
			"approx: Offsets ends with 21, want the number of rows = 20":                            func(c *request) { c.Offsets = []int{0, 21} },
			"approx: KOffsets has 3 elements, want one more than sequences = 1":                     func(c *request) { c.Offsets, c.KOffsets = []int{0, 20}, []int{0, 1, 20} },
			"approx: 4 queries and 5 keys up to sequence 1, want as many: they are the same tokens": func(c *request) { c.Offsets, c.KOffsets = []int{0, 4, 20}, []int{0, 5, 20} },
		} {
			c := randomCall(1, op.shape, 20, 20)
			change(c)
			before := append([]float32(nil), c.Dst.Data...)
			err := op.run.Run(context.Background(), c.call())
			if !op.self && c.KOffsets != nil && c.Offsets != nil && len(c.KOffsets) == len(c.Offsets) {
				if err != nil {
					t.Errorf("%s: error %v", op.name, err)
				}
				continue
			}
			if !op.weighs() && mat.Given(c.LogWeights) {
				want = "approx: the call has LogWeights, which this operator cannot honour"
			}
			if err == nil || err.Error() != want || !errors.Is(err, ErrShape) && !errors.Is(err, ErrCall) {
				t.Errorf("%s: error %v, want %s", op.name, err, want)
			}
			for i, x := range before {
				if math.Float32bits(c.Dst.Data[i]) != math.Float32bits(x) {
					t.Fatalf("%s: %s: dst was written", op.name, want)
				}
			}
		}
		call := randomCall(1, op.shape, 20, 20).call()
		for what, change := range map[string]func(*attention.Call){
			"two segments":    func(c *attention.Call) { c.K, c.V = append(c.K, c.K[0]), append(c.V, c.V[0]) },
			"none":            func(c *attention.Call) { c.K, c.V = nil, nil },
			"Mass":            func(c *attention.Call) { c.Mass = mat.New(20, op.shape.heads) },
			"Tree":            func(c *attention.Call) { c.Tree = make([]int, 20) },
			"another's":       func(c *attention.Call) { c.Options = 1 },
			"nil Options":     func(c *attention.Call) { c.Options = (*Options)(nil) },
			"too few workers": func(c *attention.Call) { c.Workers = -1 },
		} {
			c := *call
			change(&c)
			if err := op.run.Run(context.Background(), &c); !errors.Is(err, ErrCall) && !errors.Is(err, ErrShape) {
				t.Errorf("%s: %s: error %v", op.name, what, err)
			}
		}
		for _, err := range []error{op.run.Run(nil, call), op.run.Run(context.Background(), nil)} {
			if !errors.Is(err, ErrCall) {
				t.Errorf("%s: error %v of no context or no call", op.name, err)
			}
		}
		c := randomCall(1, op.shape, 20, 20)
		c.State = value[*LinearState](t)(testLinear(t).NewState(StateConfig{}))
		if err := op.run.Run(context.Background(), c.call()); !errors.Is(err, ErrCall) && !errors.Is(err, ErrState) {
			t.Errorf("%s: error %v of a foreign state", op.name, err)
		}
	}
	l := testLinear(t)
	c := randomCall(1, l.sums.shape, 20, 20)
	c.State = value[*LinearState](t)(l.NewState(StateConfig{}))
	c.Offsets = []int{0, 3, 20}
	if err := l.Run(context.Background(), c.call()); !errors.Is(err, ErrCall) {
		t.Errorf("error %v of a state and two sequences", err)
	}
	if err := l.Step(c.Dst, c.Q, c.K, c.V, nil); !errors.Is(err, ErrState) {
		t.Errorf("error %v of no state", err)
	}
	if err := l.Step(c.Dst, c.Q, c.K, c.V, new(LinearState)); !errors.Is(err, ErrState) {
		t.Errorf("error %v of an empty state", err)
	}
}

// TestCanaries: nothing is written between and around the rows of dst.
func TestCanaries(t *testing.T) {
	for _, op := range operators(t, shape{3, 3, 5, 7}, 0) {
		c := randomCall(1, op.shape, 70, 70) // NaN in the gaps
		if err := op.run.Run(context.Background(), c.call()); err != nil {
			t.Fatal(err)
		}
		for i, x := range c.Dst.Data {
			if (x != x) != (i%c.Dst.Stride >= c.Dst.Cols) {
				t.Fatalf("%s: element %d is %v", op.name, i, x)
			}
		}
	}
}

// FuzzRun takes any shapes: an error, or a result.
func FuzzRun(f *testing.F) {
	f.Add(0, 4, 2, 9, 5, 20, 20, 7, uint8(1), 700)
	f.Add(4, 1, 1, 3, 3, 40, 40, 20, uint8(7), 300)
	f.Fuzz(func(t *testing.T, which, heads, kvHeads, dim, valueDim, queries, keys, cut int, options uint8, length int) {
		var op attention.Operator
		var err error
		switch which & 15 {
		case 0:
			op, err = NewLinear(LinearConfig{Heads: heads, KVHeads: kvHeads, HeadDim: dim, ValueDim: valueDim})
		case 1:
			op, err = NewLinear(LinearConfig{Heads: heads, KVHeads: kvHeads, HeadDim: dim, ValueDim: valueDim, Causal: true})
		case 2:
			op, err = NewEfficient(EfficientConfig{Heads: heads, KVHeads: kvHeads, HeadDim: dim, ValueDim: valueDim})
		case 3:
			op, err = NewXCA(XCAConfig{Heads: heads, KVHeads: kvHeads, HeadDim: dim})
			valueDim = dim
		case 4:
			causal, stable := options&8 != 0, new(float32)
			if options&16 != 0 {
				stable = nil
			}
			op, err = NewPerformer(PerformerConfig{Heads: heads, KVHeads: kvHeads, HeadDim: dim, ValueDim: valueDim, Causal: causal, Features: cut, Stabilizer: stable})
		case 7:
			op, err = NewMRA2(MRA2Config{Heads: heads, KVHeads: kvHeads, HeadDim: dim, ValueDim: valueDim, Block: cut, Sparse: options&8 != 0})
		case 6:
			op, err = NewLinformer(LinformerConfig{Heads: heads, KVHeads: kvHeads, HeadDim: dim, ValueDim: valueDim, E: blas32.General{Rows: cut, Cols: keys, Stride: keys, Data: make([]float32, min(max(length, 0), 1<<12))}})
		case 5:
			op, err = NewBased(BasedConfig{Heads: heads, KVHeads: kvHeads, HeadDim: dim, ValueDim: valueDim})
		default:
			op, err = NewNystrom(NystromConfig{Heads: heads, KVHeads: kvHeads, HeadDim: dim, ValueDim: valueDim, Landmarks: cut})
		}
		if err != nil {
			if !errors.Is(err, ErrConfig) {
				t.Fatal(err)
			}
			return
		}
		if kvHeads == 0 {
			kvHeads = heads
		}
		if valueDim == 0 {
			valueDim = dim
		}
		length = min(max(length, 0), 1<<12)
		m := func(rows, cols int) blas32.General {
			return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, length)}
		}
		c := &request{Dst: m(queries, heads*valueDim), Q: m(queries, heads*dim), K: m(keys, kvHeads*dim), V: m(keys, kvHeads*valueDim)}
		if options&1 != 0 {
			c.Offsets, c.KOffsets = []int{0, cut, queries}, []int{0, cut, keys}
		}
		if options&2 != 0 {
			c.LogWeights = m(keys, 1)
		}
		if options&4 != 0 {
			c.Valid = make([]bool, min(max(keys, 0), 1<<12))
		}
		if err := op.Run(context.Background(), c.call()); err != nil && !errors.Is(err, ErrShape) && !errors.Is(err, ErrCall) {
			t.Fatal(err)
		}
	})
}

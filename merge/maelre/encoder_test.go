package maelre

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/approx"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/weights/weightstest"
	"github.com/subquad/subquad/merge"
)

// weightsFor makes weights of width d.
func weightsFor(d, hidden, layers, classes int) Weights {
	r := rand.New(rand.NewPCG(1, 9))
	vector := func(n int, scale, shift float64) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(scale*r.NormFloat64() + shift)
		}
		return x
	}
	matrix := func(rows, cols int) blas32.General {
		return mat.Of(vector(rows*cols, 1/math.Sqrt(float64(cols)), 0), rows, cols)
	}
	w := Weights{Norm: vector(d, .1, 1), NormBias: vector(d, .1, 0)}
	for range layers {
		w.Blocks = append(w.Blocks, Block{
			Norm1: vector(d, .1, 1), Norm1Bias: vector(d, .1, 0), QKV: matrix(3*d, d), QKVBias: vector(3*d, .1, 0), Out: matrix(d, d), OutBias: vector(d, .1, 0),
			Norm2: vector(d, .1, 1), Norm2Bias: vector(d, .1, 0), Up: matrix(hidden, d), UpBias: vector(hidden, .1, 0), Down: matrix(d, hidden), DownBias: vector(d, .1, 0),
		})
	}
	if classes > 0 {
		w.Head, w.HeadBias = matrix(classes, d), vector(classes, .1, 0)
	}
	return w
}

// stored is the checkpoint of weights of width d.
func stored(w Weights, d int) weightstest.State {
	f := weightstest.State{}
	put := func(name string, x []float32, shape ...int) { f[name] = weightstest.Tensor{Shape: shape, Data: x} }
	linear := func(name string, m blas32.General, bias []float32) {
		put(name+".weight", m.Data, m.Rows, m.Cols)
		put(name+".bias", bias, m.Rows)
	}
	for i, b := range w.Blocks {
		at := fmt.Sprintf("blocks.%d.", i)
		put(at+"ln1.weight", b.Norm1, d)
		put(at+"ln1.bias", b.Norm1Bias, d)
		put(at+"ln2.weight", b.Norm2, d)
		put(at+"ln2.bias", b.Norm2Bias, d)
		linear(at+"qkv", b.QKV, b.QKVBias)
		linear(at+"proj", b.Out, b.OutBias)
		linear(at+"fc1", b.Up, b.UpBias)
		linear(at+"fc2", b.Down, b.DownBias)
	}
	put("ln.weight", w.Norm, d)
	put("ln.bias", w.NormBias, d)
	put("embed.weight", w.NormBias, d)
	linear("head", w.Head, w.HeadBias)
	return f
}

func mustNew(t testing.TB, cfg Config, w Weights) *Encoder {
	t.Helper()
	m, err := New(cfg, w)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func input(seed uint64, rows, cols int) blas32.General {
	r := rand.New(rand.NewPCG(seed, 3))
	m := blas32.General{Rows: rows, Cols: cols, Stride: cols + 2, Data: make([]float32, rows*(cols+2))}
	for i := range m.Data {
		m.Data[i] = float32(r.NormFloat64())
	}
	return m
}

func mustRun(t testing.TB, m *Encoder, call *Call) {
	t.Helper()
	if err := m.Run(context.Background(), call); err != nil {
		t.Fatal(err)
	}
}

// TestPacked: a packed batch, with empty sequences and padding in it, gives the
// bits of each sequence alone and without padding.
func TestPacked(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const d, classes = 12, 3
		m := mustNew(t, Config{Heads: 3, Ratios: []float64{.4, .5, .5}, Alternate: true}, weightsFor(d, 20, 3, classes))
		offsets := []int{0, 0, 1, 50, 83}
		all := &Call{X: input(1, 83, d), Offsets: offsets, Pooled: mat.New(4, d), Logits: mat.New(4, classes), Valid: make([]bool, 83), Sizes: make([]float32, 83)}
		for i := range all.Valid {
			all.Valid[i], all.Sizes[i] = i%5 != 2, float32(1+i%3)
			if !all.Valid[i] {
				mat.Row(all.X, i)[1] = float32(math.NaN())
			}
		}
		mustRun(t, m, all)
		for b := range 4 {
			one := &Call{X: mat.New(0, d), Pooled: mat.New(1, d), Logits: mat.New(1, classes)}
			for i := offsets[b]; i < offsets[b+1]; i++ {
				if all.Valid[i] {
					one.X.Data, one.Sizes = append(one.X.Data, mat.Row(all.X, i)...), append(one.Sizes, all.Sizes[i])
					one.X.Rows++
				}
			}
			mustRun(t, m, one)
			if !slices.Equal(mat.Row(all.Pooled, b), one.Pooled.Data) || !slices.Equal(mat.Row(all.Logits, b), one.Logits.Data) {
				t.Errorf("sequence %d: %v and %v, alone %v and %v", b, mat.Row(all.Pooled, b), mat.Row(all.Logits, b), one.Pooled.Data, one.Logits.Data)
			}
			if b == 0 && slices.ContainsFunc(one.Pooled.Data, func(x float32) bool { return x != 0 }) {
				t.Errorf("no tokens: %v", one.Pooled.Data)
			}
		}
	})
}

// TestFormats compares weights of less precision with those as they are.
func TestFormats(t *testing.T) {
	const d, classes = 12, 3
	x := input(1, 40, d)
	exact := &Call{X: x, Logits: mat.New(1, classes)}
	mustRun(t, mustNew(t, Config{Heads: 3}, weightsFor(d, 20, 3, classes)), exact)
	for format, tol := range map[asm.Format]float64{asm.Float32: 0, asm.Float16: 0.01, asm.BFloat16: 0.05, asm.Int8: 0.1} {
		c := &Call{X: x, Logits: mat.New(1, classes)}
		mustRun(t, mustNew(t, Config{Heads: 3, Format: format}, weightsFor(d, 20, 3, classes)), c)
		for i, y := range c.Logits.Data {
			if want := exact.Logits.Data[i]; !(math.Abs(float64(y)-float64(want)) <= tol) {
				t.Errorf("%v: logit %d is %v, want %v within %v", format, i, y, want, tol)
			}
		}
	}
}

// TestWorkers: any number of workers gives the same bits, and takes no memory
// after the first call.
func TestWorkers(t *testing.T) {
	const d, n = 32, 700
	w := weightsFor(d, 48, 5, 5) // an odd number of merges
	x := input(1, n, d)
	var first []float32
	for _, workers := range []int{1, 4} {
		m := mustNew(t, Config{Heads: 4, Ratios: []float64{.5}, IfPays: true, Workers: workers}, w)
		dst := mat.New(1, 5)
		if got := isatest.Allocations(func() {
			if err := m.Forward(dst, x); err != nil {
				t.Fatal(err)
			}
		}); got != 0 {
			t.Errorf("%d workers: %v allocations", workers, got)
		}
		if first == nil {
			first = dst.Data
		}
		for own := range 4 {
			if !slices.Equal(dst.Data, first) {
				t.Errorf("%d workers: %v, with one %v", workers, dst.Data, first)
			}
			mustRun(t, m, &Call{X: x, Logits: dst, Workers: own})
		}
	}
}

// TestModes follows tokens, sizes and the switch through the layers, for each
// approximation.
func TestModes(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const d, n, layers = 12, 60, 4
		w := weightsFor(d, 20, layers, 0)
		approximation := func(a attention.Operator, err error) attention.Operator {
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		linear, err1 := approx.NewLinear(approx.LinearConfig{Heads: 3, HeadDim: 4})
		xca, err2 := approx.NewXCA(approx.XCAConfig{Heads: 3, HeadDim: 4})
		nystrom, err3 := approx.NewNystrom(approx.NystromConfig{Heads: 3, HeadDim: 4, Landmarks: 8})
		for name, c := range map[string]struct {
			cfg  Config
			want string // tokens that enter, and a for approximated
		}{
			"none":         {Config{}, "60a 60a 60a 60a 60"},
			"halves":       {Config{Ratios: []float64{.5}}, "60a 30a 15a 8 4"},
			"each":         {Config{Ratios: []float64{0, 1, .25, .1}, SwitchTokens: 25}, "60a 60a 30a 23 21"},
			"schedule":     {Config{Schedule: func(layer, tokens int) int { return 5 * layer }, MinTokens: 42}, "60a 60a 55a 45a 42"},
			"switch":       {Config{Ratios: []float64{.5}, Approximate: func(layer, tokens int) bool { return layer == 3 }}, "60 30 15 8a 4"},
			"linear":       {Config{Ratios: []float64{.5}, Approximation: approximation(linear, err1)}, "60a 30a 15a 8 4"},
			"xca":          {Config{Ratios: []float64{.5}, Approximation: approximation(xca, err2)}, "60a 30a 15a 8 4"},
			"nystrom":      {Config{Ratios: []float64{.5}, Approximation: approximation(nystrom, err3)}, "60a 30a 15a 8 4"},
			"does not pay": {Config{Ratios: []float64{.01}, IfPays: true}, "60a 60a 60a 60a 60"},
		} {
			c.cfg.Heads = 3
			m := mustNew(t, c.cfg, w)
			got := ""
			call := &Call{X: input(1, n, d), Observe: func(s Stage) {
				if s.Plan == nil {
					got += fmt.Sprint(s.X.Rows)
				} else {
					got += fmt.Sprint(s.Plan.Tokens(), map[bool]string{true: "a ", false: " "}[s.Approximated])
				}
				var total float32
				for _, size := range s.Sizes {
					total += size
				}
				if total != n || len(s.Sizes) != s.X.Rows {
					t.Errorf("%s: sizes of %v after layer %d", name, s.Sizes, s.Layer)
				}
			}}
			mustRun(t, m, call)
			if got != c.want {
				t.Errorf("%s: %s, want %s", name, got, c.want)
			}
		}
	})
}

// TestMerged: equal tokens count as they would unmerged: when all
// come in equal pairs, merging the pairs changes nothing.
func TestMerged(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const d, n = 12, 40
		w := weightsFor(d, 20, 3, 4)
		x := input(1, n, d)
		for i := 1; i < n; i += 2 {
			copy(mat.Row(x, i), mat.Row(x, i-1))
		}
		pairs, err := merge.New(merge.Config{Method: merge.Local})
		if err != nil {
			t.Fatal(err)
		}
		whole, merged := mat.New(1, 4), mat.New(1, 4)
		for _, tokens := range []int{1, 100} { // approximate, exact
			for dst, cfg := range map[*blas32.General]Config{
				&whole:  {Heads: 3, SwitchTokens: tokens},
				&merged: {Heads: 3, SwitchTokens: tokens, Matching: pairs, Ratios: []float64{.5, 0, 0}},
			} {
				if err := mustNew(t, cfg, w).Forward(*dst, x); err != nil {
					t.Fatal(err)
				}
			}
			for i, want := range whole.Data {
				if d := math.Abs(float64(merged.Data[i] - want)); !(d < 1e-5) {
					t.Errorf("switch at %d: logit %d is %v, unmerged %v", tokens, i, merged.Data[i], want)
				}
			}
		}
	})
}

// TestFile reads files, whole and damaged.
func TestFile(t *testing.T) {
	const d = 12
	w := weightsFor(d, 20, 2, 3)
	x := input(1, 30, d)
	cfg := Config{Heads: 3, Ratios: []float64{.5}}
	want := mat.New(1, 3)
	if err := mustNew(t, cfg, w).Forward(want, x); err != nil {
		t.Fatal(err)
	}
	f := stored(w, d)
	file := f.File()
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	var m *Encoder
	for _, options := range [][]subquad.OpenOption{nil, {subquad.WithMmap()}} {
		var err error
		if m, err = Open(path, cfg, options...); err != nil {
			t.Fatal(err)
		}
		got := mat.New(1, 3)
		if err := m.Forward(got, x); err != nil || !slices.Equal(got.Data, want.Data) {
			t.Errorf("%v, want %v (%v)", got.Data, want.Data, err)
		}
	}
	if m.Bytes() < int64(4*len(w.Head.Data)) || m.Dim() != d || m.Classes() != 3 {
		t.Errorf("%d bytes, width %d, %d classes", m.Bytes(), m.Dim(), m.Classes())
	}
	if _, err := Read(bytes.NewReader(file), int64(len(file)-1), cfg); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("error %v of a file cut short", err)
	}
	if _, err := Open(path+"x", cfg); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v of no file", err)
	}
	for old, new := range map[string]string{"blocks.1.fc2.weight": "blocks.1.fc3.weight", "ln.weight": "lm.weight", "blocks.0.qkv.weight": "blocks.0.qkw.weight"} {
		bad := bytes.Replace(file, []byte(`"`+old+`"`), []byte(`"`+new+`"`), 1)
		if _, err := Read(bytes.NewReader(bad), int64(len(bad)), cfg); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("error %v without %s", err, old)
		}
	}
}

// TestScratch: a first call takes no more memory than is said.
func TestScratch(t *testing.T) {
	const d = 32
	w := weightsFor(d, 48, 3, 0)
	for i, n := range []int{1, 40, 3000, 3000, 3000} {
		for _, workers := range []int{1, 3} {
			var approximation attention.Operator // the default at first
			var err error
			switch i {
			case 3:
				approximation, err = approx.NewLinear(approx.LinearConfig{Heads: 4, HeadDim: d / 4, Workers: workers})
			case 4:
				approximation, err = approx.NewNystrom(approx.NystromConfig{Heads: 4, HeadDim: d / 4, Landmarks: 16, Workers: workers})
			}
			if err != nil {
				t.Fatal(err)
			}
			m := mustNew(t, Config{Heads: 4, Ratios: []float64{.5}, Workers: workers, Approximation: approximation}, w)
			call := &Call{X: input(1, n, d)}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			mustRun(t, m, call)
			runtime.ReadMemStats(&after)
			more := uint64(math.MaxUint64) // that a later call takes; the runtime's own memory counts too
			for range 3 {
				var from, to runtime.MemStats
				runtime.ReadMemStats(&from)
				mustRun(t, m, call)
				runtime.ReadMemStats(&to)
				more = min(more, to.TotalAlloc-from.TotalAlloc)
			}
			if workers == 1 && more > 4096 {
				t.Errorf("%d tokens: a later call takes %d bytes", n, more)
			}
			if got, most := int64(after.TotalAlloc-before.TotalAlloc), m.ScratchBytes(n); got > most || got < most/20 {
				t.Errorf("%d tokens, %d workers: %d bytes, ScratchBytes is %d", n, workers, got, most)
			}
		}
	}
}

// FuzzEncode takes any shapes: an error, or a result.
func FuzzEncode(f *testing.F) {
	f.Add(30, 12, 14, 5, 3, 0.5, 0, uint8(0))
	f.Add(40, 12, 12, 20, 2, 0.9, 7, uint8(7))
	w := weightsFor(12, 20, 3, 2)
	f.Fuzz(func(t *testing.T, rows, cols, stride, cut, heads int, ratio float64, tokens int, options uint8) {
		m, err := New(Config{Heads: heads, Ratios: []float64{ratio}, SwitchTokens: tokens, Alternate: options&1 != 0}, w)
		if err != nil {
			if !errors.Is(err, ErrConfig) {
				t.Fatal(err)
			}
			return
		}
		const length = 600
		call := &Call{X: blas32.General{Rows: rows, Cols: cols, Stride: stride, Data: input(1, length/14, 12).Data}, Logits: mat.New(1, 2)}
		if options&2 != 0 {
			call.Offsets, call.Logits = []int{0, cut, rows}, mat.New(2, 2)
		}
		if options&4 != 0 {
			call.Valid = make([]bool, min(max(rows, 0), length))
			for i := range call.Valid {
				call.Valid[i] = i%3 != 0
			}
		}
		if err := m.Run(context.Background(), call); err != nil && !errors.Is(err, ErrShape) && !errors.Is(err, ErrCall) {
			t.Fatal(err)
		}
	})
}

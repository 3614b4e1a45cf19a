package merge

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

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention/approx"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/weights/weightstest"
)

// maelreWeights makes weights of width d.
func maelreWeights(d, hidden, layers, classes int) MAELREWeights {
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
	w := MAELREWeights{NormWeight: vector(d, .1, 1), NormBias: vector(d, .1, 0)}
	for range layers {
		w.Blocks = append(w.Blocks, MAELREBlock{
			Norm1Weight: vector(d, .1, 1), Norm1Bias: vector(d, .1, 0), QKV: matrix(3*d, d), QKVBias: vector(3*d, .1, 0), Proj: matrix(d, d), ProjBias: vector(d, .1, 0),
			Norm2Weight: vector(d, .1, 1), Norm2Bias: vector(d, .1, 0), Up: matrix(hidden, d), UpBias: vector(hidden, .1, 0), Down: matrix(d, hidden), DownBias: vector(d, .1, 0),
		})
	}
	if classes > 0 {
		w.Head, w.HeadBias = matrix(classes, d), vector(classes, .1, 0)
	}
	return w
}

func mustMAELRE(t testing.TB, cfg MAELREConfig, w MAELREWeights) *MAELRE {
	t.Helper()
	m, err := NewMAELRE(cfg, w)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func maelreInput(seed uint64, rows, cols int) blas32.General {
	r := rand.New(rand.NewPCG(seed, 3))
	m := blas32.General{Rows: rows, Cols: cols, Stride: cols + 2, Data: make([]float32, rows*(cols+2))}
	for i := range m.Data {
		m.Data[i] = float32(r.NormFloat64())
	}
	return m
}

func runMAELRE(t testing.TB, m *MAELRE, call *MAELRECall) {
	t.Helper()
	if err := m.Run(context.Background(), call); err != nil {
		t.Fatal(err)
	}
}

// TestMAELREPacked wants of a packed batch, empty sequences and padding in it, the
// bits of each sequence alone and without padding.
func TestMAELREPacked(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const d, classes = 12, 3
		m := mustMAELRE(t, MAELREConfig{Heads: 3, Ratios: []float64{.4, .5, .5}, Alternate: true}, maelreWeights(d, 20, 3, classes))
		offsets := []int{0, 0, 1, 50, 83}
		all := &MAELRECall{X: maelreInput(1, 83, d), Offsets: offsets, Pooled: zeros(4, d), Logits: zeros(4, classes), Valid: make([]bool, 83), Sizes: make([]float32, 83)}
		for i := range all.Valid {
			all.Valid[i], all.Sizes[i] = i%5 != 2, float32(1+i%3)
			if !all.Valid[i] {
				row(all.X, i)[1] = float32(math.NaN())
			}
		}
		runMAELRE(t, m, all)
		for b := range 4 {
			one := &MAELRECall{X: zeros(0, d), Pooled: zeros(1, d), Logits: zeros(1, classes)}
			for i := offsets[b]; i < offsets[b+1]; i++ {
				if all.Valid[i] {
					one.X.Data, one.Sizes = append(one.X.Data, row(all.X, i)...), append(one.Sizes, all.Sizes[i])
					one.X.Rows++
				}
			}
			runMAELRE(t, m, one)
			if !slices.Equal(row(all.Pooled, b), one.Pooled.Data) || !slices.Equal(row(all.Logits, b), one.Logits.Data) {
				t.Errorf("sequence %d: %v and %v, alone %v and %v", b, row(all.Pooled, b), row(all.Logits, b), one.Pooled.Data, one.Logits.Data)
			}
			if b == 0 && slices.ContainsFunc(one.Pooled.Data, func(x float32) bool { return x != 0 }) {
				t.Errorf("no tokens: %v", one.Pooled.Data)
			}
		}
	})
}

// TestMAELREFormats compares weights of less precision with those as they are.
func TestMAELREFormats(t *testing.T) {
	const d, classes = 12, 3
	x := maelreInput(1, 40, d)
	exact := &MAELRECall{X: x, Logits: zeros(1, classes)}
	runMAELRE(t, mustMAELRE(t, MAELREConfig{Heads: 3}, maelreWeights(d, 20, 3, classes)), exact)
	for format, tol := range map[asm.Format]float64{asm.Float32: 0, asm.Float16: 0.01, asm.BFloat16: 0.05, asm.Int8: 0.1} {
		c := &MAELRECall{X: x, Logits: zeros(1, classes)}
		runMAELRE(t, mustMAELRE(t, MAELREConfig{Heads: 3, Format: format}, maelreWeights(d, 20, 3, classes)), c)
		for i, y := range c.Logits.Data {
			if want := exact.Logits.Data[i]; !(math.Abs(float64(y)-float64(want)) <= tol) {
				t.Errorf("%v: logit %d is %v, want %v within %v", format, i, y, want, tol)
			}
		}
	}
}

// TestMAELREWorkers wants the same bits of any number of workers, and no memory
// after the first call.
func TestMAELREWorkers(t *testing.T) {
	const d, n = 32, 700
	w := maelreWeights(d, 48, 5, 5) // an odd number of merges
	x := maelreInput(1, n, d)
	var first []float32
	for _, workers := range []int{1, 4} {
		m := mustMAELRE(t, MAELREConfig{Heads: 4, Ratios: []float64{.5}, IfPays: true, Workers: workers}, w)
		dst := zeros(1, 5)
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
		if !slices.Equal(dst.Data, first) {
			t.Errorf("%d workers: %v, with one %v", workers, dst.Data, first)
		}
	}
}

// TestMAELREModes follows tokens, sizes and the switch through the layers, for each
// approximation.
func TestMAELREModes(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const d, n, layers = 12, 60, 4
		w := maelreWeights(d, 20, layers, 0)
		approximation := func(a Approximation, err error) Approximation {
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		linear, err1 := approx.NewLinear(approx.LinearConfig{Heads: 3, HeadDim: 4})
		xca, err2 := approx.NewXCA(approx.XCAConfig{Heads: 3, HeadDim: 4})
		nystrom, err3 := approx.NewNystrom(approx.NystromConfig{Heads: 3, HeadDim: 4, Landmarks: 8})
		for name, c := range map[string]struct {
			cfg  MAELREConfig
			want string // tokens that enter, and a for approximated
		}{
			"none":         {MAELREConfig{}, "60a 60a 60a 60a 60"},
			"halves":       {MAELREConfig{Ratios: []float64{.5}}, "60a 30a 15a 8 4"},
			"each":         {MAELREConfig{Ratios: []float64{0, 1, .25, .1}, SwitchTokens: 25}, "60a 60a 30a 23 21"},
			"schedule":     {MAELREConfig{Schedule: func(layer, tokens int) int { return 5 * layer }, MinTokens: 42}, "60a 60a 55a 45a 42"},
			"switch":       {MAELREConfig{Ratios: []float64{.5}, Approximate: func(layer, tokens int) bool { return layer == 3 }}, "60 30 15 8a 4"},
			"linear":       {MAELREConfig{Ratios: []float64{.5}, Approximation: approximation(linear, err1)}, "60a 30a 15a 8 4"},
			"xca":          {MAELREConfig{Ratios: []float64{.5}, Approximation: approximation(xca, err2)}, "60a 30a 15a 8 4"},
			"nystrom":      {MAELREConfig{Ratios: []float64{.5}, Approximation: approximation(nystrom, err3)}, "60a 30a 15a 8 4"},
			"does not pay": {MAELREConfig{Ratios: []float64{.01}, IfPays: true}, "60a 60a 60a 60a 60"},
		} {
			c.cfg.Heads = 3
			m := mustMAELRE(t, c.cfg, w)
			got := ""
			call := &MAELRECall{X: maelreInput(1, n, d), Observe: func(s MAELREStage) {
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
			runMAELRE(t, m, call)
			if got != c.want {
				t.Errorf("%s: %s, want %s", name, got, c.want)
			}
		}
	})
}

// TestMAELREMerged wants equal tokens to count as they would unmerged: when all
// come in equal pairs, merging the pairs changes nothing.
func TestMAELREMerged(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const d, n = 12, 40
		w := maelreWeights(d, 20, 3, 4)
		x := maelreInput(1, n, d)
		for i := 1; i < n; i += 2 {
			copy(row(x, i), row(x, i-1))
		}
		pairs, err := New(Config{Method: Local})
		if err != nil {
			t.Fatal(err)
		}
		whole, merged := zeros(1, 4), zeros(1, 4)
		for _, tokens := range []int{1, 100} { // approximate, exact
			for dst, cfg := range map[*blas32.General]MAELREConfig{
				&whole:  {Heads: 3, SwitchTokens: tokens},
				&merged: {Heads: 3, SwitchTokens: tokens, Matching: pairs, Ratios: []float64{.5, 0, 0}},
			} {
				if err := mustMAELRE(t, cfg, w).Forward(*dst, x); err != nil {
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

// TestMAELREFile reads files, whole and damaged.
func TestMAELREFile(t *testing.T) {
	const d = 12
	w := maelreWeights(d, 20, 2, 3)
	x := maelreInput(1, 30, d)
	cfg := MAELREConfig{Heads: 3, Ratios: []float64{.5}}
	want := zeros(1, 3)
	if err := mustMAELRE(t, cfg, w).Forward(want, x); err != nil {
		t.Fatal(err)
	}
	f := weightstest.State{}
	put := func(name string, x []float32, shape ...int) { f[name] = weightstest.Tensor{Shape: shape, Data: x} }
	linear := func(name string, m blas32.General, bias []float32) {
		put(name+".weight", m.Data, m.Rows, m.Cols)
		put(name+".bias", bias, m.Rows)
	}
	for i, b := range w.Blocks {
		at := fmt.Sprintf("blocks.%d.", i)
		put(at+"ln1.weight", b.Norm1Weight, d)
		put(at+"ln1.bias", b.Norm1Bias, d)
		put(at+"ln2.weight", b.Norm2Weight, d)
		put(at+"ln2.bias", b.Norm2Bias, d)
		linear(at+"qkv", b.QKV, b.QKVBias)
		linear(at+"proj", b.Proj, b.ProjBias)
		linear(at+"fc1", b.Up, b.UpBias)
		linear(at+"fc2", b.Down, b.DownBias)
	}
	put("ln.weight", w.NormWeight, d)
	put("ln.bias", w.NormBias, d)
	put("embed.weight", w.NormBias, d)
	linear("head", w.Head, w.HeadBias)
	file := f.File()
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := OpenMAELRE(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	got := zeros(1, 3)
	if err := m.Forward(got, x); err != nil || !slices.Equal(got.Data, want.Data) {
		t.Errorf("%v, want %v (%v)", got.Data, want.Data, err)
	}
	if m.Bytes() < int64(4*len(w.Head.Data)) || m.Dim() != d || m.Classes() != 3 {
		t.Errorf("%d bytes, width %d, %d classes", m.Bytes(), m.Dim(), m.Classes())
	}
	if _, err := ReadMAELRE(bytes.NewReader(file), int64(len(file)-1), cfg); !errors.Is(err, ErrConfig) {
		t.Errorf("error %v of a file cut short", err)
	}
	if _, err := OpenMAELRE(path+"x", cfg); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v of no file", err)
	}
	for old, new := range map[string]string{"blocks.1.fc2.weight": "blocks.1.fc3.weight", "ln.weight": "lm.weight", "blocks.0.qkv.weight": "blocks.0.qkw.weight"} {
		bad := bytes.Replace(file, []byte(`"`+old+`"`), []byte(`"`+new+`"`), 1)
		if _, err := ReadMAELRE(bytes.NewReader(bad), int64(len(bad)), cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("error %v without %s", err, old)
		}
	}
}

// TestMAELREScratch wants a first call to take no more memory than is said.
func TestMAELREScratch(t *testing.T) {
	const d = 32
	w := maelreWeights(d, 48, 3, 0)
	for _, n := range []int{1, 40, 3000} {
		for _, workers := range []int{1, 3} {
			m := mustMAELRE(t, MAELREConfig{Heads: 4, Ratios: []float64{.5}, Workers: workers}, w)
			call := &MAELRECall{X: maelreInput(1, n, d)}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			runMAELRE(t, m, call)
			runtime.ReadMemStats(&after)
			var again runtime.MemStats
			runMAELRE(t, m, call)
			runtime.ReadMemStats(&again)
			if more := again.TotalAlloc - after.TotalAlloc; workers == 1 && more > 4096 {
				t.Errorf("%d tokens: a second call takes %d bytes", n, more)
			}
			if got, most := int64(after.TotalAlloc-before.TotalAlloc), m.ScratchBytes(n); got > most || got < most/20 {
				t.Errorf("%d tokens, %d workers: %d bytes, ScratchBytes is %d", n, workers, got, most)
			}
		}
	}
}

// FuzzMAELRE takes any shapes: an error, or a result.
func FuzzMAELRE(f *testing.F) {
	f.Add(30, 12, 14, 5, 3, 0.5, 0, uint8(0))
	f.Add(40, 12, 12, 20, 2, 0.9, 7, uint8(7))
	w := maelreWeights(12, 20, 3, 2)
	f.Fuzz(func(t *testing.T, rows, cols, stride, cut, heads int, ratio float64, tokens int, options uint8) {
		m, err := NewMAELRE(MAELREConfig{Heads: heads, Ratios: []float64{ratio}, SwitchTokens: tokens, Alternate: options&1 != 0}, w)
		if err != nil {
			if !errors.Is(err, ErrConfig) {
				t.Fatal(err)
			}
			return
		}
		const length = 600
		call := &MAELRECall{X: blas32.General{Rows: rows, Cols: cols, Stride: stride, Data: maelreInput(1, length/14, 12).Data}, Logits: zeros(1, 2)}
		if options&2 != 0 {
			call.Offsets, call.Logits = []int{0, cut, rows}, zeros(2, 2)
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

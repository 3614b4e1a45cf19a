package rope

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat/mattest"
)

// near fails the test unless got agrees with want to tol.
func near(t *testing.T, what string, got, want []float32, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
	}
	for i := range got {
		if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= tol) {
			t.Fatalf("%s: element %d is %v, want %v within %v", what, i, got[i], want[i], tol)
		}
	}
}

var same = mattest.SameBits

// configs are rotations of all kinds, with 24 features.
func configs() map[string]Config {
	cfgs := map[string]Config{
		"plain":       {},
		"partial":     {RotaryDim: 10},
		"large base":  {Base: 1e6},
		"yarn":        {Scheme: YaRN{Factor: 8, Original: 4096}},
		"hf":          {Accuracy: Float32Frequencies},
		"axes":        {Axes: []Axis{{Dim: 8}, {Dim: 12, Base: 100}}},
		"sections":    {Sections: []int{2, 5, 5}},
		"interleaved": {Sections: []int{6, 3, 3}, SectionsInterleaved: true},
		"learned":     {Learned: &Learned{Axes: 2, Heads: 3, Frequencies: random(9, 2*3*12)}},
		"learned 1":   {Learned: &Learned{Axes: 1, Heads: 3, Frequencies: random(8, 3*12)}},
		"one feature": {Scheme: RIFLEx{K: 2, Length: 50}},
	}
	out := map[string]Config{}
	for name, c := range cfgs {
		for _, layout := range []Layout{Half, Interleaved} {
			c.HeadDim, c.Layout = 24, layout
			out[name+", "+layout.String()] = c
		}
	}
	return out
}

// TestLaws: a rotation by a and a shift by b is a rotation by a+b; the inverse
// restores; a rotation from one place to another is that of the other place.
func TestLaws(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for name, cfg := range configs() {
			r := mustNew(t, cfg)
			const n, heads = 7, 3
			x := matrix(random(1, n*heads*24), n, heads*24)
			for _, a := range []int64{0, 5, -3, 1e7, 1e8, math.MaxInt64 - 3} {
				rotated := clone(x)
				must(t, r.Rotate(rotated, a))

				back := clone(rotated)
				must(t, r.Run(t.Context(), &Call{X: back, Positions: Positions{Start: a}, Inverse: true}))
				near(t, fmt.Sprint(name, ": inverse at ", a), back.Data, x.Data, 4e-6)

				for _, b := range []int64{1, -1000, 1e6} {
					want, got := clone(x), clone(rotated)
					must(t, r.Rotate(want, a+b))
					must(t, r.Shift(got, b))
					near(t, fmt.Sprint(name, ": shift from ", a, " by ", b), got.Data, want.Data, 6e-6)

					got = clone(rotated)
					must(t, r.Run(t.Context(), &Call{X: got, Positions: Positions{Start: a + b}, From: r, FromPositions: Positions{Start: a}}))
					near(t, fmt.Sprint(name, ": from ", a, " by ", b), got.Data, want.Data, 6e-6)
				}
			}
		}
	})
}

// TestDistance: a logit depends on the distance only, at any position.
func TestDistance(t *testing.T) {
	const dim = 128
	q, k := random(1, dim), random(2, dim)
	for _, accuracy := range []Accuracy{Exact, Float32Frequencies} {
		for _, base := range []float64{1e4, 5e5} {
			r := mustNew(t, Config{HeadDim: dim, Base: base, Accuracy: accuracy})
			logit := func(at int64) float64 {
				a, b := matrix(append([]float32{}, q...), 1, dim), matrix(append([]float32{}, k...), 1, dim)
				must(t, r.Rotate(a, at))
				must(t, r.Rotate(b, at-17))
				return logits64(a.Data, b.Data, dim)[0]
			}
			want := logit(17)
			for _, at := range []int64{1000, 1e6, 1e7, 1<<24 + 1, 1e8} {
				if d := math.Abs(logit(at) - want); !(d < 1e-5) {
					t.Errorf("%v, base %v: drift %.2g at %d", accuracy, base, d, at)
				}
			}
		}
	}
}

// TestFloat32Drifts shows that the common arithmetic does not keep that law, and
// that the mode has it.
func TestFloat32Drifts(t *testing.T) {
	angle := func(accuracy Accuracy, at int64) []float32 {
		r := mustNew(t, Config{HeadDim: 128, Accuracy: accuracy})
		cos, sin := matrix(make([]float32, 64), 1, 64), matrix(make([]float32, 64), 1, 64)
		must(t, r.CosSin(cos, sin, Positions{Start: at}))
		return append(cos.Data, sin.Data...)
	}
	for _, c := range []struct {
		at          int64
		least, most float64 // of the mode's error; spec section 6
	}{{4096, 5e-5, 5e-4}, {1e6, 1e-2, 0.15}, {1e7, 0.1, 2}} {
		exact, common := angle(Exact, c.at), angle(Float32, c.at)
		worst := 0.0
		for i := range exact {
			worst = max(worst, math.Abs(float64(exact[i])-float64(common[i])))
		}
		if worst < c.least || worst > c.most {
			t.Errorf("at %d float32 errs by %.2g, want %v to %v", c.at, worst, c.least, c.most)
		}
	}
}

// TestRerotate: keys of one scheme, brought to another, are what the other makes.
func TestRerotate(t *testing.T) {
	const n, dim = 9, 64
	x := matrix(random(1, n*2*dim), n, 2*dim)
	from := mustNew(t, Config{HeadDim: dim, Scheme: DynamicNTK{Factor: 2, MaxPosition: 512}})
	for name, cfg := range map[string]Config{
		"longer": {HeadDim: dim, Scheme: DynamicNTK{Factor: 2, MaxPosition: 512}, Length: 5000},
		"yarn":   {HeadDim: dim, Scheme: YaRN{Factor: 4, Original: 512}, Base: 5e5},
		"common": {HeadDim: dim, Accuracy: Float32},
	} {
		to := mustNew(t, cfg)
		for _, at := range []int64{0, 100, 1e6} {
			got, want := clone(x), clone(x)
			must(t, from.Rotate(got, at))
			p := Positions{Start: at}
			must(t, to.Run(t.Context(), &Call{X: got, Positions: p, From: from, FromPositions: p}))
			must(t, to.Rotate(want, at))
			near(t, fmt.Sprint(name, " at ", at), got.Data, want.Data, 6e-6)
			must(t, to.Run(t.Context(), &Call{X: got, Positions: p, From: from, FromPositions: p, Inverse: true}))
			want = clone(x)
			must(t, from.Rotate(want, at))
			near(t, fmt.Sprint(name, " back at ", at), got.Data, want.Data, 6e-6)
		}
	}
}

// TestSplit: the same bits by every way to say the same: workers, pieces,
// lists of positions, fractions that are whole, a destination.
func TestSplit(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for name, cfg := range configs() {
			cfg.Workers = 1
			r := mustNew(t, cfg)
			const n, width, gap = 300, 3 * 24, 5
			x := blas32.General{Rows: n, Cols: width, Stride: width + gap, Data: random(1, n*(width+gap))}
			const start = 16777000
			want := clone(x)
			must(t, r.Rotate(want, start))
			for i := range want.Data {
				if i%x.Stride >= width && want.Data[i] != x.Data[i] {
					t.Fatalf("%s: element %d, between the rows, was written", name, i)
				}
			}
			cfg.Workers = 4
			got := clone(x)
			must(t, mustNew(t, cfg).Rotate(got, start))
			same(t, name+": 4 workers", got.Data, want.Data)

			got = clone(x)
			for from := 0; from < n; from += 7 {
				must(t, r.Rotate(rows(got, from, min(from+7, n)), start+int64(from)))
			}
			same(t, name+": pieces", got.Data, want.Data)

			var at []int64
			var fractional []float64
			for i := range n {
				for range r.Axes() {
					at = append(at, start+int64(i))
					fractional = append(fractional, start+float64(i))
				}
			}
			got = clone(x)
			must(t, r.RotateAt(got, at))
			same(t, name+": list", got.Data, want.Data)
			got = clone(x)
			must(t, r.Run(t.Context(), &Call{X: got, Positions: Positions{Fractional: fractional}}))
			same(t, name+": fractions", got.Data, want.Data)

			dst := clone(x)
			clear(dst.Data)
			must(t, r.Run(t.Context(), &Call{Dst: dst, X: x, Positions: Positions{Start: start}}))
			for i := range n {
				same(t, name+": destination", dst.Data[i*x.Stride:][:width], want.Data[i*x.Stride:][:width])
			}
		}
	})
}

func TestConvertLayout(t *testing.T) {
	const n, dim, rotary, heads = 5, 14, 10, 3
	x := matrix(random(1, n*heads*dim), n, heads*dim)
	half, interleaved := mustNew(t, Config{HeadDim: dim, RotaryDim: rotary}), mustNew(t, Config{HeadDim: dim, RotaryDim: rotary, Layout: Interleaved})
	want, got := clone(x), clone(x)
	must(t, interleaved.Rotate(want, 100))
	must(t, ConvertLayout(got, dim, rotary, Half))
	must(t, half.Rotate(got, 100))
	must(t, ConvertLayout(got, dim, rotary, Interleaved))
	near(t, "rotated in the other layout", got.Data, want.Data, 1e-6)

	// Projecting with converted weights is converting the projection.
	const inputs = 4
	w := matrix(random(2, heads*dim*inputs), heads*dim, inputs)
	project := func() blas32.General {
		out := matrix(make([]float32, heads*dim), 1, heads*dim)
		for i := range out.Data {
			for j := range inputs {
				out.Data[i] += w.Data[i*inputs+j] * float32(j+1)
			}
		}
		return out
	}
	want = project()
	must(t, ConvertLayout(want, dim, rotary, Half))
	must(t, ConvertWeights(w, dim, rotary, Half))
	same(t, "weights", project().Data, want.Data)

	for _, err := range []error{ConvertLayout(x, dim, 9, Half), ConvertLayout(x, 0, 0, Half), ConvertLayout(x, dim, 16, Half), ConvertWeights(w, dim, rotary, 7)} {
		if !errors.Is(err, ErrConfig) {
			t.Errorf("error %v", err)
		}
	}
	if err := ConvertLayout(x, 10, 10, Half); !errors.Is(err, ErrShape) {
		t.Errorf("error %v", err)
	}
}

func TestXPos(t *testing.T) {
	const n, dim = 40, 16
	r := mustNew(t, Config{HeadDim: dim, XPos: &XPos{ScaleBase: 64}})
	q, k := random(1, n*dim), random(2, n*dim)
	logits := func(start, center int64) []float64 {
		a, b := matrix(append([]float32{}, q...), n, dim), matrix(append([]float32{}, k...), n, dim)
		must(t, r.Run(t.Context(), &Call{X: a, Positions: Positions{Start: start}, Center: center}))
		must(t, r.Run(t.Context(), &Call{X: b, Positions: Positions{Start: start}, Center: center, Keys: true}))
		return logits64(a.Data, b.Data, dim)
	}
	want := logits(0, 20)
	for _, c := range [][2]int64{{0, 0}, {0, 39}, {1e7, 1e7 + 10}} {
		for i, v := range logits(c[0], c[1]) {
			if i/n >= i%n && math.Abs(v-want[i]) > 1e-5 { // causal
				t.Fatalf("start %d, center %d: logit %d is %v, want %v", c[0], c[1], i, v, want[i])
			}
		}
	}
	x := matrix(make([]float32, dim), 1, dim)
	err := r.Run(t.Context(), &Call{X: x, Positions: Positions{Start: 100000}, Keys: true})
	if !errors.Is(err, ErrPosition) || !strings.Contains(err.Error(), "row 0 is 100000 positions from Center = 0") {
		t.Errorf("error %v", err)
	}
	must(t, r.Run(t.Context(), &Call{X: x, Positions: Positions{Start: 100000}, Keys: true, Center: 99999}))
}

func TestEmpty(t *testing.T) {
	r := mustNew(t, Config{HeadDim: 8})
	must(t, r.Rotate(blas32.General{Cols: 8, Stride: 8}, 0))
	must(t, r.Rotate(blas32.General{}, 5))
	must(t, r.RotateAt(blas32.General{Cols: 16, Stride: 16}, []int64{}))
}

func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	x := matrix(make([]float32, 8), 1, 8)
	if err := mustNew(t, Config{HeadDim: 8}).Run(ctx, &Call{X: x}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestAllocations(t *testing.T) {
	x := matrix(random(1, 600*256), 600, 256)
	at := make([]int64, 3*600)
	for _, workers := range []int{1, 4} {
		r := mustNew(t, Config{HeadDim: 64, Workers: workers, Layout: Interleaved, Sections: []int{16, 8, 8}, SectionsInterleaved: true})
		for name, f := range map[string]func() error{
			"Rotate":   func() error { return r.Rotate(x, 5) },
			"RotateAt": func() error { return r.RotateAt(x, at) },
			"Shift":    func() error { return r.Shift(x, 5) },
		} {
			must(t, f())
			if n := isatest.Allocations(func() { must(t, f()) }); n > 0 {
				t.Errorf("%s, %d workers: %v allocations", name, workers, n)
			}
		}
	}
}

// FuzzRun: no shape or place panics, and good ones give the same bits
// in one piece and in two; what is not a number stays in its pair.
func FuzzRun(f *testing.F) {
	f.Add(uint8(8), uint8(4), uint8(0), uint8(3), uint8(2), uint8(1), int64(5), 1.5, float32(math.Inf(1)))
	f.Add(uint8(7), uint8(0), uint8(1), uint8(0), uint8(9), uint8(0), int64(math.MaxInt64), -1e19, float32(1e-42))
	f.Fuzz(func(t *testing.T, headDim, rotaryDim, layout, n, cols, gap uint8, start int64, fraction float64, value float32) {
		r, err := New(Config{HeadDim: int(headDim), RotaryDim: int(rotaryDim), Layout: Layout(layout % 2), Workers: 1})
		if err != nil {
			if !errors.Is(err, ErrConfig) {
				t.Errorf("error %v", err)
			}
			return
		}
		count, width := int(n), int(cols)
		stride := width + int(gap)
		x := blas32.General{Rows: count, Cols: width, Stride: stride, Data: random(1, count*stride)}
		if len(x.Data) > 0 {
			x.Data[len(x.Data)/2] = value
		}
		fractions := make([]float64, count)
		for i := range fractions {
			fractions[i] = fraction
		}
		for _, p := range []Positions{{Start: start}, {Fractional: fractions}} {
			whole, parts := clone(x), clone(x)
			if err := r.Run(t.Context(), &Call{X: whole, Positions: p}); err != nil {
				if !errors.Is(err, ErrShape) && !errors.Is(err, ErrPosition) {
					t.Errorf("error %v", err)
				}
				continue
			}
			bad := 0
			for i, v := range whole.Data {
				if v != v || math.IsInf(float64(v), 0) {
					bad++
				}
				if i%stride >= width && math.Float32bits(v) != math.Float32bits(x.Data[i]) {
					t.Fatalf("element %d, between the rows, was written", i)
				}
			}
			if bad > 2 {
				t.Errorf("%d elements are not finite", bad)
			}
			for row := range count {
				one := p
				if p.Fractional != nil {
					one.Fractional = p.Fractional[row : row+1]
				} else {
					one.Start += int64(row)
				}
				must(t, r.Run(t.Context(), &Call{X: rows(parts, row, row+1), Positions: one}))
			}
			same(t, "row by row", parts.Data, whole.Data)
		}
	})
}

package rope

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "rope", map[string]func(*testing.T, *golden.File){
		"rope.rotate":       goldenRotate,
		"rope.invfreq_hf":   goldenHF,
		"rope.extensions":   goldenExtensions,
		"rope.axes":         goldenAxes,
		"rope.bias":         goldenBias,
		"rope.flexrope_far": goldenFAR,
	})
}

func mustNew(t testing.TB, cfg Config) *Rotation {
	t.Helper()
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func matrix(data []float32, rows, cols int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// longest returns the longest of names that begins s: a case may be a variant of one.
func longest[T any](s string, names map[string]T) (name string) {
	for n := range names {
		if strings.HasPrefix(s, n) && len(n) > len(name) {
			name = n
		}
	}
	return name
}

// tokens turns [batch, heads, tokens, dim] into a matrix [batch * tokens, heads * dim].
func tokens(data []float32, shape []int) blas32.General {
	b, h, s, d := shape[0], shape[1], shape[2], shape[3]
	m := matrix(make([]float32, len(data)), b*s, h*d)
	for i, v := range data {
		e, rest := i%d, i/d
		n, rest := rest%s, rest/s
		m.Data[(rest/h*s+n)*m.Stride+rest%h*d+e] = v
	}
	return m
}

// heads is the inverse of tokens.
func heads(m blas32.General, batch, dim int) []float32 {
	var out []float32
	per := m.Rows / max(batch, 1)
	for b := range batch {
		for h := range m.Cols / dim {
			for s := range per {
				out = append(out, m.Data[(b*per+s)*m.Stride+h*dim:][:dim]...)
			}
		}
	}
	return out
}

func clone(m blas32.General) blas32.General {
	m.Data = append([]float32{}, m.Data...)
	return m
}

// positions reads a tensor of positions, and repeats them for each of a batch.
func positions(t *testing.T, f *golden.File, name string, batch int) (p Positions) {
	t.Helper()
	switch typ := f.Type(name); typ {
	case "I64", "I32":
		for range batch {
			p.At = append(p.At, f.Int64(name)...)
		}
		if p.At == nil {
			p.At = []int64{}
		}
	default:
		for range batch {
			p.Fractional = append(p.Fractional, f.Float64(name)...)
		}
		if p.Fractional == nil {
			p.Fractional = []float64{}
		}
	}
	return p
}

func run(t *testing.T, r *Rotation, x blas32.General, p Positions) blas32.General {
	t.Helper()
	y := clone(x)
	must(t, r.Run(t.Context(), &Call{X: y, Positions: p}))
	return y
}

type rotateCase struct {
	Batch     int     `json:"batch"`
	QHeads    int     `json:"q_heads"`
	KHeads    int     `json:"k_heads"`
	Seq       int     `json:"seq"`
	HeadDim   int     `json:"head_dim"`
	RotaryDim int     `json:"rotary_dim"`
	Theta     float64 `json:"theta"`
}

func goldenRotate(t *testing.T, f *golden.File) {
	for _, c := range f.Keys("params.") {
		var p rotateCase
		f.Config("params."+c, &p)
		cfg := Config{HeadDim: p.HeadDim, RotaryDim: p.RotaryDim, Base: p.Theta}
		half := mustNew(t, cfg)
		cfg.Layout = Interleaved
		interleaved := mustNew(t, cfg)
		once := positions(t, f, c+".positions", 1)

		compareTable := func(name string, r *Rotation) {
			for _, table := range []string{"cos", "sin"} {
				if !f.Has(c + "." + table + name) {
					continue
				}
				cos, sin := matrix(make([]float32, p.Seq*p.RotaryDim/2), p.Seq, p.RotaryDim/2), matrix(make([]float32, p.Seq*p.RotaryDim/2), p.Seq, p.RotaryDim/2)
				must(t, r.CosSin(cos, sin, once))
				got := map[string][]float32{"cos": cos.Data, "sin": sin.Data}[table]
				f.Compare(c+"."+table+name, got, golden.Tolerance{Abs: 2e-6})
			}
		}
		compareTable("_f64", half)
		compareTable("_f64", interleaved)
		if name := c + ".inv_freq_hf_f32"; f.Has(name) {
			stored := f.Float64(name)
			cfg := Config{HeadDim: p.HeadDim, RotaryDim: p.RotaryDim, Base: p.Theta, Accuracy: Float32Frequencies}
			for i, own := range mustNew(t, cfg).Frequencies() {
				if ulp := math.Abs(float64(math.Float32bits(float32(own))) - float64(math.Float32bits(float32(stored[i])))); ulp > 2 {
					t.Errorf("%s: frequency %d is %v, %v ulp from %v", c, i, own, ulp, stored[i])
				}
			}
			cfg.Scheme = Custom{Frequencies: stored}
			compareTable("_inv32_f64", mustNew(t, cfg))
			if once.At != nil {
				cfg.Accuracy = Float32
				compareTable("_hf_f32", mustNew(t, cfg))
			}
		}
		f.Ignore(func(name string) bool { // informative; read above where there are frequencies
			return name == c+".inv_freq_hf_f32" || name == c+".cos_hf_f32" || name == c+".sin_hf_f32"
		})
		if !f.Has(c + ".inv_freq_hf_f32") { // nothing to make them of: a unit in the last place moves them
			f.Ignore(func(name string) bool { return name == c+".cos_inv32_f64" || name == c+".sin_inv32_f64" })
		}

		for _, in := range []string{"q", "k"} {
			if !f.Has(c + "." + in) {
				continue
			}
			shape := f.Shape(c + "." + in)
			x := tokens(f.Float32(c+"."+in), shape)
			at := positions(t, f, c+".positions", shape[0])
			compare := func(name string, got blas32.General, dim int, tol ...golden.Tolerance) {
				if name = c + "." + in + name; f.Has(name) {
					f.Compare(name, heads(got, shape[0], dim), tol...)
				}
			}
			rotated := run(t, half, x, at)
			compare("_half_f64", rotated, p.HeadDim)
			compare("_interleaved_f64", run(t, interleaved, x, at), p.HeadDim)

			// The converted layout gives the rotated features of DeepSeek's code.
			converted := clone(x)
			must(t, ConvertLayout(converted, p.HeadDim, p.RotaryDim, Half))
			must(t, half.Run(t.Context(), &Call{X: converted, Positions: at}))
			only := matrix(nil, x.Rows, x.Cols/p.HeadDim*p.RotaryDim)
			for i := 0; i < len(converted.Data); i += p.HeadDim {
				only.Data = append(only.Data, converted.Data[i:i+p.RotaryDim]...)
			}
			only.Stride = only.Cols
			compare("_deinterleave_then_half_f64", only, p.RotaryDim)

			var delta int64
			if text := f.Meta("shift." + c); text != "" {
				if _, err := fmt.Sscan(text, &delta); err != nil {
					t.Fatal(err)
				}
			}
			must(t, half.Shift(rotated, delta))
			compare("_half_shifted_f64", rotated, p.HeadDim, golden.Tolerance{Abs: 5e-6})
		}
	}
}

func rows(m blas32.General, from, to int) blas32.General {
	m.Rows = to - from
	m.Data = m.Data[from*m.Stride:]
	return m
}

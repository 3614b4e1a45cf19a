package attention

import (
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/rope"
)

// byHead turns [heads, tokens, dim] into [tokens, heads*dim].
func byHead(x []float32, heads, tokens, dim int) blas32.General {
	m := general(make([]float32, len(x)), tokens, heads*dim)
	for h := range heads {
		for t := range tokens {
			copy(m.Data[t*m.Stride+h*dim:][:dim], x[(h*tokens+t)*dim:])
		}
	}
	return m
}

// goldenBias attends with the biases of package rope, from queries at any positions.
func goldenBias(t *testing.T, f *golden.File) {
	for _, c := range f.Keys("params.") {
		var p golden.BiasCase
		f.Config("params."+c, &p)
		shape := f.Shape("bias.v") // [heads, keys, dim]
		heads, keys, width := shape[0], shape[1], shape[2]
		var b Bias
		var err error
		switch {
		case strings.HasPrefix(c, "alibi"):
			b, err = rope.NewALiBi(rope.ALiBiSlopes(heads))
		case strings.HasPrefix(c, "kerple_log"):
			b, err = rope.NewKERPLELog(f.Float64("kerple.r1"), f.Float64("kerple.r2"))
		case strings.HasPrefix(c, "kerple_power"):
			b, err = rope.NewKERPLEPower(f.Float64("kerple.r1"), f.Float64("kerple.r2"))
		case strings.HasPrefix(c, "fire"):
			b, err = rope.NewFIRE(rope.FIREConfig{W1: f.Float64("fire.w1"), B1: f.Float64("fire.b1"), W2: f.Float64("fire.w2"), B2: f.Float64("fire.b2"), C: p.C, Threshold: p.Threshold})
		default:
			t.Fatalf("no test for %q", c)
		}
		if err != nil {
			t.Fatal(err)
		}
		at, dim := f.Int64("bias.q_positions"), f.Shape("bias.q")[2]
		q := byHead(f.Float32("bias.q"), heads, len(at), dim)
		k, v := byHead(f.Float32("bias.k"), heads, keys, dim), byHead(f.Float32("bias.v"), heads, keys, width)
		out := make([]float32, heads*len(at)*width) // [heads, queries, dim]
		for i, position := range at {
			row := q
			row.Rows, row.Data = 1, q.Data[i*q.Stride:]
			got, _ := attend(t, Config{Heads: heads, HeadDim: dim, ValueDim: width, Causal: true, Bias: b},
				Call{Q: row, QueryPos: []int64{position}}, k, v)
			for h := range heads {
				copy(out[(h*len(at)+i)*width:][:width], got.Data[h*width:])
			}
		}
		if name := c + ".out_f64"; f.Has(name) {
			f.Compare(name, out)
		}
	}
	f.Ignore(func(name string) bool { return !strings.HasSuffix(name, ".out_f64") }) // package rope compares them
}

// goldenFAR rotates over FAR's three axes and attends with FlexRoPE, all frames at
// once and the last frame alone, as with a cache.
func goldenFAR(t *testing.T, f *golden.File) {
	for _, c := range f.Keys("params.") {
		var p golden.FARCase
		f.Config("params."+c, &p)
		if !f.Has(c + ".q") {
			continue
		}
		layout, err := rope.NewFAR(rope.FARConfig{Frames: p.NumFrames + p.TotalFrames, Height: p.Height, Width: p.Width,
			Patch: p.Patch, Window: p.Window, ContextPatch: p.ContextPatch})
		if err != nil {
			t.Fatal(err)
		}
		bias, err := rope.NewFlexRoPE(rope.FlexRoPEConfig{Slopes: []float32{float32(p.Slope)}, Frames: layout.Frames})
		if err != nil {
			t.Fatal(err)
		}
		rotary := rope.Config{HeadDim: p.HeadDim, Layout: rope.Interleaved, Base: p.Theta}
		for _, d := range p.AxesDim {
			rotary.Axes = append(rotary.Axes, rope.Axis{Dim: d})
		}
		rotation, err := rope.New(rotary)
		if err != nil {
			t.Fatal(err)
		}
		batch, n := f.Shape(c + ".q")[0], len(layout.Frames)
		matrix := func(name string, b int) blas32.General {
			size := p.Heads * n * p.HeadDim
			return byHead(f.Float32(c + "." + name)[b*size:][:size], p.Heads, n, p.HeadDim)
		}
		last := 0 // rows of the last frame
		if name := c + ".decode_last_frame_out_official_f32"; f.Has(name) {
			last = f.Shape(name)[1]
		}
		var out, decoded []float32
		for b := range batch {
			q, k, v := matrix("q", b), matrix("k", b), matrix("v", b)
			for _, m := range []blas32.General{q, k} {
				if err := rotation.RotateAt(m, layout.Positions); err != nil {
					t.Fatal(err)
				}
			}
			cfg := Config{Heads: p.Heads, HeadDim: p.HeadDim, Bias: bias}
			got, _ := attend(t, cfg, Call{Q: q}, k, v)
			out = append(out, got.Data...)
			q.Rows, q.Data = last, q.Data[(n-last)*q.Stride:]
			got, _ = attend(t, cfg, Call{Q: q}, k, v)
			decoded = append(decoded, got.Data...)
		}
		if name := c + ".out_f64"; f.Has(name) {
			f.Compare(name, out)
		}
		if last > 0 { // which the official code computed in float32
			f.Compare(c+".decode_last_frame_out_official_f32", decoded, golden.Tolerance{Abs: 1e-5})
		}
	}
	f.Ignore(func(name string) bool { // package rope compares them
		return !strings.HasSuffix(name, ".out_f64") && !strings.HasSuffix(name, ".decode_last_frame_out_official_f32")
	})
}

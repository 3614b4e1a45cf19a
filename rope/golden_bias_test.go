package rope

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/golden"
)

// logits64 is q k^T / sqrt(d) of one head, in float64: q [queries, dim], k [keys, dim].
func logits64(q, k []float32, dim int) []float64 {
	queries, keys := len(q)/dim, len(k)/dim
	s := make([]float64, queries*keys)
	for i := range queries {
		for j := range keys {
			for e := range dim {
				s[i*keys+j] += float64(q[i*dim+e]) * float64(k[j*dim+e])
			}
			s[i*keys+j] /= math.Sqrt(float64(dim))
		}
	}
	return s
}

// attend is softmax(s) v in float64 for v [keys, dim]; a row all of -Inf gives 0.
func attend(s []float64, v []float32, queries, keys, dim int) []float64 {
	out := make([]float64, queries*dim)
	for i := range queries {
		row := s[i*keys:][:keys]
		most, sum := math.Inf(-1), 0.0
		for _, x := range row {
			most = max(most, x)
		}
		if math.IsInf(most, -1) {
			continue
		}
		for j, x := range row {
			w := math.Exp(x - most)
			sum += w
			for e := range dim {
				out[i*dim+e] += w * float64(v[j*dim+e])
			}
		}
		for e := range dim {
			out[i*dim+e] /= sum
		}
	}
	return out
}

// tile returns the bias of a head over a rectangle.
func tile(b Bias, head int, query, key int64, queries, keys int) []float32 {
	s := matrix(make([]float32, queries*keys), queries, keys)
	b.AddTo(s, head, query, key)
	return s.Data
}

func goldenBias(t *testing.T, f *golden.File) {
	for _, name := range f.Names() {
		if n, ok := strings.CutPrefix(name, "alibi.slopes_h"); ok {
			heads, err := strconv.Atoi(n)
			must(t, err)
			f.Compare(name, ALiBiSlopes(heads), golden.Tolerance{Rel: 1e-6})
		}
	}
	for _, c := range f.Keys("params.") {
		var p golden.BiasCase
		f.Config("params."+c, &p)
		shape := f.Shape("bias.k") // [heads, keys, dim]
		heads, keys, dim := shape[0], shape[1], shape[2]
		var b Bias
		var err error
		switch {
		case strings.HasPrefix(c, "alibi"):
			b, err = NewALiBi(ALiBiSlopes(heads))
		case strings.HasPrefix(c, "kerple_log"):
			b, err = NewKERPLELog(f.Float64("kerple.r1"), f.Float64("kerple.r2"))
		case strings.HasPrefix(c, "kerple_power"):
			b, err = NewKERPLEPower(f.Float64("kerple.r1"), f.Float64("kerple.r2"))
		case strings.HasPrefix(c, "fire"):
			b, err = NewFIRE(FIREConfig{W1: f.Float64("fire.w1"), B1: f.Float64("fire.b1"), W2: f.Float64("fire.w2"), B2: f.Float64("fire.b2"), C: p.C, Threshold: p.Threshold})
		default:
			t.Fatalf("no test for %q", c)
		}
		must(t, err)
		at, q, k, v := f.Int64("bias.q_positions"), f.Float32("bias.q"), f.Float32("bias.k"), f.Float32("bias.v")
		queries, width := len(at), f.Shape("bias.v")[2]
		var biases []float32
		var out []float64
		for h := range heads {
			s := logits64(q[h*queries*dim:][:queries*dim], k[h*keys*dim:][:keys*dim], dim)
			for i, p := range at {
				row := tile(b, h, p, 0, 1, keys)
				for j := range row {
					if int64(j) > p { // 0 in the file, masked in the output
						row[j] = 0
						s[i*keys+j] = math.Inf(-1)
					}
					s[i*keys+j] += float64(row[j])
				}
				biases = append(biases, row...)
			}
			out = append(out, attend(s, v[h*keys*width:][:keys*width], queries, keys, width)...)
		}
		if name := c + ".bias_f64"; f.Has(name) {
			f.Compare(name, biases)
		}
		if name := c + ".out_f64"; f.Has(name) {
			f.Compare64(name, out)
		}
	}
	f.Ignore(func(name string) bool { // inputs of cases that may not be there
		return strings.HasPrefix(name, "kerple.") || strings.HasPrefix(name, "bias.") ||
			strings.HasPrefix(name, "fire.w") || strings.HasPrefix(name, "fire.b") && name != "fire.bias_f64"
	})
}

func goldenFAR(t *testing.T, f *golden.File) {
	f.Ignore(func(name string) bool { return strings.HasSuffix(name, "out_official_f32") })
	for _, c := range f.Keys("params.") {
		var p golden.FARCase
		f.Config("params."+c, &p)
		long := p.TotalFrames > 0
		cfg := FARConfig{Frames: p.NumFrames + p.TotalFrames, Height: p.Height, Width: p.Width, Patch: p.Patch, Window: p.Window, ContextPatch: p.ContextPatch}
		layout, err := NewFAR(cfg)
		must(t, err)
		if layout.ContextFrames != p.ContextFrames || layout.ContextTokens != p.ContextLen {
			t.Fatalf("%s: %d context frames in %d tokens, want %d in %d", c, layout.ContextFrames, layout.ContextTokens, p.ContextFrames, p.ContextLen)
		}
		if name := c + ".ids"; f.Has(name) {
			f.CompareInts(name, layout.Positions)
		}
		if name := c + ".frame_index"; f.Has(name) {
			f.CompareInts(name, layout.Frames)
		}
		if long {
			goldenPatches(t, f, c, cfg, layout, p.Channels)
		}
		flex := FlexRoPEConfig{Slopes: []float32{float32(p.Slope)}}
		if long {
			flex.Frames = layout.Frames
		} else {
			flex.TokensPerFrame = p.TokensPerFrame
		}
		bias, err := NewFlexRoPE(flex)
		must(t, err)
		n := len(layout.Frames)
		if name := c + ".attn_mask_official_f32"; f.Has(name) {
			f.Compare(name, repeat(tile(bias, 0, 0, 0, n, n), f.Shape(name)[0]))
		}
		goldenFARAttention(t, f, c, p, layout, bias)
	}
}

// goldenPatches compares the tokens of both patch sizes, and unpacks them again.
func goldenPatches(t *testing.T, f *golden.File, c string, cfg FARConfig, layout *FAR, channels int) {
	name := c + ".latents"
	if !f.Has(name) {
		return
	}
	latents := f.Float32(name)
	frame := channels * cfg.Height * cfg.Width
	batch := f.Shape(name)[0]
	var context, noise, unpacked []float32
	for b := range batch {
		video := latents[b*cfg.Frames*frame:][:cfg.Frames*frame]
		pack := func(from, to, patch int) (packed, again []float32) {
			n, width := (to-from)*(cfg.Height/patch)*(cfg.Width/patch), channels*patch*patch
			m := matrix(make([]float32, n*width), n, width)
			again = make([]float32, (to-from)*frame)
			must(t, Patches(m, video[from*frame:to*frame], to-from, channels, cfg.Height, cfg.Width, patch))
			must(t, Unpatch(again, m, to-from, channels, cfg.Height, cfg.Width, patch))
			return m.Data, again
		}
		coarse, again := pack(0, layout.ContextFrames, cfg.ContextPatch)
		fine, _ := pack(layout.ContextFrames, cfg.Frames, cfg.Patch)
		context, unpacked, noise = append(context, coarse...), append(unpacked, again...), append(noise, fine...)
	}
	for name, got := range map[string][]float32{"context_tokens": context, "noise_tokens": noise, "context_unpacked": unpacked} {
		if name = c + "." + name; f.Has(name) {
			f.Compare(name, got, golden.Tolerance{})
		}
	}
}

// goldenFARAttention rotates, adds the bias to the logits and attends.
func goldenFARAttention(t *testing.T, f *golden.File, c string, p golden.FARCase, layout *FAR, bias Bias) {
	cfg := Config{HeadDim: p.HeadDim, Layout: Interleaved, Base: p.Theta}
	for _, d := range p.AxesDim {
		cfg.Axes = append(cfg.Axes, Axis{Dim: d})
	}
	r := mustNew(t, cfg)
	if !f.Has(c + ".q") {
		return
	}
	shape, n := f.Shape(c+".q"), len(layout.Frames) // [batch, heads, tokens, dim]
	batch, per := shape[0], n*p.HeadDim
	at := Positions{At: repeat(layout.Positions, batch)}
	rotated := func(name string) []float32 {
		return heads(run(t, r, tokens(f.Float32(c+"."+name), shape), at), batch, p.HeadDim)
	}
	q, k, v := rotated("q"), rotated("k"), f.Float32(c+".v")
	var logits []float64
	out := make([]float64, batch*n*p.Heads*p.HeadDim) // [batch, tokens, heads * dim]
	for b := range batch {
		for h := range p.Heads {
			from := (b*p.Heads + h) * per
			s := logits64(q[from:][:per], k[from:][:per], p.HeadDim)
			for i, v := range tile(bias, h, 0, 0, n, n) {
				s[i] += float64(v)
			}
			logits = append(logits, s...)
			for i, o := range attend(s, v[from:][:per], n, n, p.HeadDim) {
				token, e := i/p.HeadDim, i%p.HeadDim
				out[((b*n+token)*p.Heads+h)*p.HeadDim+e] = o
			}
		}
	}
	if name := c + ".logits_f64"; f.Has(name) {
		f.Compare64(name, logits)
	}
	if name := c + ".out_f64"; f.Has(name) {
		f.Compare64(name, out)
	}
	// What a cache gives for the last frame alone: its rows.
	if name := c + ".decode_last_frame_out_official_f32"; f.Has(name) {
		last := f.Shape(name)[1]
		var rows []float64
		for b := range batch {
			rows = append(rows, out[((b+1)*n-last)*p.Heads*p.HeadDim:(b+1)*n*p.Heads*p.HeadDim]...)
		}
		f.Compare64(name, rows, loose)
	}
}

package layers

import (
	"context"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "attention/layers", map[string]func(*testing.T, *golden.File){
		"layers.fourier_head":       goldenFourier,
		"layers.strip_mlp":          goldenStrip,
		"layers.interaction_tokens": goldenTokens,
		"attention.gated_self":      goldenGated,
	})
}

// weight reads a tensor [out, in, …] as a matrix.
func weight(f *golden.File, name string) blas32.General {
	s := f.Shape(name)
	cols := 1
	for _, d := range s[1:] {
		cols *= d
	}
	return mat.Of(f.Float32(name), s[0], cols)
}

// tokenRows reads a tensor [batch, tokens, width] as rows.
func tokenRows(f *golden.File, name string) blas32.General {
	s := f.Shape(name)
	width, rows := s[len(s)-1], 1
	for _, d := range s[:len(s)-1] {
		rows *= d
	}
	return mat.Of(f.Float32(name), rows, width)
}

func goldenFourier(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		p := e.Prefix
		cfg := FourierConfig{Dim: e.Int("dim_in", 0), Bins: e.Int("dim_out", 0), Frequencies: e.Int("num_frequencies", 0)}
		e.Done("shape", "seed", "f32err_logits")
		h, err := NewFourierHead(cfg, FourierWeights{Weight: weight(f, p+"weight"), Bias: f.Float32(p + "bias")})
		must(t, err)
		x := tokenRows(f, p+"x")
		logits, pmf, pdf := mat.New(x.Rows, cfg.Bins), mat.New(x.Rows, cfg.Bins), mat.New(x.Rows, cfg.Bins)
		must(t, h.Run(context.Background(), &FourierCall{X: x, Logits: logits, Probabilities: pmf, Density: pdf}))
		res := golden.NewResults(f, p+"expected.")
		res.Add("logits", logits)
		res.Add("pmf", pmf)
		res.Add("pdf", pdf)
		res.Compare()
		points, uniform := make([]float64, x.Rows), make([]float64, x.Rows)
		if f.Has(p + "cdf_points") {
			points = f.Float64(p + "cdf_points")
		}
		if f.Has(p + "uniform") {
			uniform = f.Float64(p + "uniform")
		}
		var re, im, cdf, inverse []float64
		for i := range x.Rows {
			d, err := h.Distribution(mat.Row(x, i))
			must(t, err)
			for _, c := range d.Coefficients() {
				re, im = append(re, real(c)), append(im, imag(c))
			}
			cdf, inverse = append(cdf, d.CDF(points[i])), append(inverse, d.Quantile(uniform[i]))
			for b, v := range mat.Row(pdf, i) {
				if want := d.Density(-1 + float64(2*b+1)/float64(cfg.Bins)); !near(float64(v), want, 1e-5) {
					t.Errorf("density of bin %d of row %d is %v, in closed form %v", b, i, v, want)
				}
			}
		}
		f.Compare64(p+"expected.coeff_re", re)
		f.Compare64(p+"expected.coeff_im", im)
		f.Compare64(p+"expected.cdf", cdf)
		f.Compare64(p+"expected.inv_cdf", inverse)
		const gamma = 1e-6 // the published factor
		roughness, err := h.Roughness(x)
		must(t, err)
		f.Compare64(p+"expected.reg_loss", []float64{gamma * roughness}, golden.Tolerance{Rel: 1e-4})
	}
}

func goldenGated(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		p := e.Prefix
		cfg := GatedConfig{Heads: e.Int("heads", 0), HeadDim: e.Int("head_dim", 0), ContextDim: e.Int("context_dim", 0)}
		scale := float32(e.Float("scale", 1))
		switch kind := e.Text("kind"); kind {
		case "gatedCA":
			cfg.Cross = true
		case "gatedSA":
		default:
			t.Fatalf("kind %q", kind)
		}
		e.Done("B", "N", "M")
		vector := func(name string) []float32 { return f.Float32(p + name) }
		w := GatedWeights{Norm1: vector("norm1.weight"), Norm1Bias: vector("norm1.bias"), Norm2: vector("norm2.weight"), Norm2Bias: vector("norm2.bias"),
			Q: weight(f, p+"attn.to_q.weight"), K: weight(f, p+"attn.to_k.weight"), V: weight(f, p+"attn.to_v.weight"),
			Out: weight(f, p+"attn.to_out.0.weight"), OutBias: vector("attn.to_out.0.bias"),
			Up: weight(f, p+"ff.net.0.proj.weight"), UpBias: vector("ff.net.0.proj.bias"), Down: weight(f, p+"ff.net.2.weight"), DownBias: vector("ff.net.2.bias"),
			AlphaAttention: vector("alpha_attn")[0], AlphaDense: vector("alpha_dense")[0]}
		if !cfg.Cross {
			w.Context, w.ContextBias = weight(f, p+"linear.weight"), vector("linear.bias")
		}
		g, err := NewGated(cfg, w)
		must(t, err)
		half := w
		half.AlphaDense = 0 // what stands after attention
		first, err := NewGated(cfg, half)
		must(t, err)
		x, objects := tokenRows(f, p+"x"), tokenRows(f, p+"objs")
		images := f.Shape(p + "x")[0]
		var offsets, objectOffsets []int
		for i := range images + 1 {
			offsets, objectOffsets = append(offsets, i*x.Rows/images), append(objectOffsets, i*objects.Rows/images)
		}
		dst := mat.New(x.Rows, x.Cols)
		call := &GatedCall{Dst: dst, X: x, Objects: objects, Offsets: offsets, ObjectOffsets: objectOffsets, Scale: &scale}
		must(t, first.Run(context.Background(), call))
		f.Compare(p+"expected.after_attention", dst.Data)
		must(t, g.Run(context.Background(), call))
		f.Compare(p+"expected.out", dst.Data)
	}
}

func goldenTokens(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		p := e.Prefix
		n := e.Int("N", 0)
		cfg := TokensConfig{FeatureDim: e.Int("in_dim", 0), Dim: e.Int("out_dim", 0), Inner: e.Int("hidden", 0), MaxInteractions: e.Int("max_interactions", 0), Frequencies: e.Int("fourier_freqs", 0)}
		e.Done("B")
		mlp := func(name string) TokensMLP {
			name = p + name
			return TokensMLP{First: weight(f, name+".0.weight"), FirstBias: f.Float32(name + ".0.bias"), Second: weight(f, name+".2.weight"), SecondBias: f.Float32(name + ".2.bias"),
				Third: weight(f, name+".4.weight"), ThirdBias: f.Float32(name + ".4.bias")}
		}
		l, err := NewTokens(cfg, TokensWeights{Things: mlp("linears"), Actions: mlp("linear_action"), NullThing: f.Float32(p + "null_positive_feature"), NullAction: f.Float32(p + "null_action_feature"),
			NullBox: f.Float32(p + "null_position_feature"), Interactions: weight(f, p+"interaction_embedding.emb.weight"), Roles: weight(f, p+"position_embedding.emb.weight")})
		must(t, err)
		call := &TokensCall{Subjects: tokenRows(f, p+"subject"), Actions: tokenRows(f, p+"action"), Objects: tokenRows(f, p+"object"),
			SubjectBoxes: tokenRows(f, p+"subject_boxes"), ObjectBoxes: tokenRows(f, p+"object_boxes"), Interactions: n}
		for _, m := range f.Float32(p + "masks") {
			call.Masked = append(call.Masked, m == 0)
		}
		call.Dst = mat.New(3*call.Subjects.Rows, cfg.Dim)
		must(t, l.Run(context.Background(), call))
		f.Compare(p+"expected.tokens", call.Dst.Data)
	}
}

// pixels turns [batch, channels, height, width] into rows of channels, and back.
func pixels(data []float32, images, channels, area int) blas32.General {
	m := mat.New(images*area, channels)
	for b := range images {
		for c := range channels {
			for i := range area {
				m.Data[(b*area+i)*channels+c] = data[(b*channels+c)*area+i]
			}
		}
	}
	return m
}

func planes(m blas32.General, images int) []float32 {
	return pixels(m.Data, images, m.Rows/images, m.Cols).Data
}

func batchNorm(f *golden.File, name string) BatchNorm {
	return BatchNorm{f.Float32(name + ".weight"), f.Float32(name + ".bias"), f.Float32(name + ".running_mean"), f.Float32(name + ".running_var")}
}

func mixWeights(f *golden.File, p string) StripMixWeights {
	return StripMixWeights{MLP: weight(f, p+"mlp.0.weight"), MLPBias: f.Float32(p + "mlp.0.bias"), MLPNorm: batchNorm(f, p+"mlp.1"),
		PosH: weight(f, p+"relate_pos_h.embeddings_table"), PosW: weight(f, p+"relate_pos_w.embeddings_table"),
		ProjH: weight(f, p+"proj_h.weight"), ProjHBias: f.Float32(p + "proj_h.bias"), ProjW: weight(f, p+"proj_w.weight"), ProjWBias: f.Float32(p + "proj_w.bias"),
		FuseH: weight(f, p+"fuse_h.weight"), FuseW: weight(f, p+"fuse_w.weight"), Norm: batchNorm(f, p+"BN"),
		LocalH: weight(f, p+"fc_h.weight"), LocalW: weight(f, p+"fc_w.weight"),
		Reweight1: weight(f, p+"reweight.fc1.weight"), Reweight1Bias: f.Float32(p + "reweight.fc1.bias"),
		Reweight2: weight(f, p+"reweight.fc2.weight"), Reweight2Bias: f.Float32(p + "reweight.fc2.bias"), Fuse: weight(f, p+"fuse.weight")}
}

func goldenStrip(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		p, s := e.Prefix, f.Shape(e.Prefix+"x")
		images, dim, side := s[0], s[1], s[2]
		if want := map[bool]int{true: 2, false: 4}[dim%80 == 0]; e.Int("patch", want) != want || s[3] != side {
			t.Fatalf("an image of %v in %d parts", s, e.Int("patch", 0))
		}
		kind := e.Text("kind")
		e.Done("B", "C", "H", "f32err")
		x := pixels(f.Float32(p+"x"), images, dim, side*side)
		cfg := StripConfig{Dim: dim, Side: side}
		dst := mat.New(x.Rows, dim)
		switch kind {
		case "basic":
			l, err := NewStrip(cfg, stripWeights(f, p))
			must(t, err)
			must(t, l.Forward(dst, x))
		case "block":
			w := dense.Packer{Package: "layers", Eps: batchEps}
			weights := mixWeights(f, p)
			m := packMix(&w, cfg, &weights)
			must(t, w.Err)
			after, strips := mat.New(x.Rows, dim), mat.New(x.Rows, dim/2)
			work := memory{make([]float32, 1<<20)}
			for i := range images {
				part := func(m blas32.General) blas32.General { return mat.Rows(m, i*side*side, (i+1)*side*side) }
				m.mlp.Forward(part(after), part(x))
				gelu(part(after))
				both := mat.New(side*side, dim)
				m.strips(nil, part(strips), part(after), both, work)
				m.mix(nil, part(dst), part(x), both, work)
			}
			f.Compare(p+"expected.after_mlp", planes(after, images))
			f.Compare(p+"expected.cgsmm", planes(strips, images))
		default:
			t.Fatalf("kind %q", kind)
		}
		f.Compare(p+"expected.out", planes(dst, images))
	}
}

func stripWeights(f *golden.File, p string) StripWeights {
	conv, channel := p+"token_mixing.dwsc.conv_merge.", p+"channel_mixing."
	return StripWeights{Norm: batchNorm(f, conv+"BN"), Conv: weight(f, conv+"Conv.weight"), Mix: mixWeights(f, p+"token_mixing.smlp_block."),
		Conv7: weight(f, channel+"conv_77.weight"), LayerNorm: f.Float32(channel + "layer_norm.weight"), LayerNormBias: f.Float32(channel + "layer_norm.bias"),
		Up: weight(f, channel+"fc1.weight"), UpBias: f.Float32(channel + "fc1.bias"), Down: weight(f, channel+"fc2.weight"), DownBias: f.Float32(channel + "fc2.bias"),
		Gamma: f.Float32(channel + "grn.gamma"), Beta: f.Float32(channel + "grn.beta")}
}

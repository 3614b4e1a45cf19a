package lm

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

func goldenContrast(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		p := e.Prefix
		alpha, beta, gamma := e.Float("alpha", 0), e.Float("beta", 0), e.Float("gamma", 0)
		large, small, tuned, labels := f.Matrix(p+"large"), f.Matrix(p+"small"), f.Matrix(p+"small_ft"), f.Int64(p+"labels")
		if e.Int("n", 0) != large.Rows || e.Int("vocab_large", 0) != large.Cols || e.Int("vocab_small", 0) != small.Cols {
			t.Fatalf("%d x %d and %d x %d logits", large.Rows, large.Cols, small.Rows, small.Cols)
		}
		e.Done()
		n := min(large.Cols, small.Cols)
		var keep []int64
		var critical, divergence []float64
		var contrast, proxy []float32
		for i := range large.Rows {
			row := make([]float32, n)
			must(t, Contrast("lm", row, mat.Row(large, i), mat.Row(small, i), alpha, beta))
			for _, v := range row {
				kept := int64(1)
				if math.IsInf(float64(v), -1) {
					kept, v = 0, 0
				}
				keep, contrast = append(keep, kept), append(contrast, v)
			}
			must(t, Proxy("lm", row, mat.Row(large, i), mat.Row(tuned, i), mat.Row(small, i), gamma))
			proxy = append(proxy, row...)
			c, err := Critical("lm", mat.Row(large, i), mat.Row(small, i), int32(labels[i]))
			must(t, err)
			d, err := Divergence("lm", mat.Row(small, i), mat.Row(large, i))
			must(t, err)
			critical, divergence = append(critical, c), append(divergence, d)
		}
		f.CompareInts(p+"expected.keep", keep)
		f.Compare(p+"expected.contrast", contrast)
		f.Compare(p+"expected.proxy", proxy)
		f.Compare64(p+"expected.critical", critical)
		f.Compare64(p+"expected.kl_small_large", divergence)
	}
}

func goldenDrift(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		p := e.Prefix
		test, reference, offsets := f.Matrix(p+"test"), f.Matrix(p+"reference"), f.Int64(p+"offsets")
		if e.Int("turns", 0) != len(offsets)-1 || e.Int("vocab", 0) != test.Cols {
			t.Fatalf("%d turns of %d logits", len(offsets)-1, test.Cols)
		}
		e.Done()
		var kl, drift []float64
		for i := range test.Rows {
			d, err := Divergence("lm", mat.Row(test, i), mat.Row(reference, i))
			must(t, err)
			kl = append(kl, d)
		}
		for i := range len(offsets) - 1 {
			sum := 0.0
			for _, d := range kl[offsets[i]:offsets[i+1]] {
				sum += d / float64(offsets[i+1]-offsets[i])
			}
			drift = append(drift, sum)
		}
		f.Compare64(p+"expected.kl", kl)
		f.Compare64(p+"expected.drift", drift)
		if f.Has(p + "expected.fit") {
			fit, err := FitDrift("lm", drift)
			must(t, err)
			f.Compare64(p+"expected.fit", []float64{fit.Constant, fit.Slope, fit.Equilibrium, fit.Residual})
		}
	}
}

func goldenSpeculative(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		p := e.Prefix
		draft, target := f.Matrix(p+"draft_logits"), f.Matrix(p+"target_logits")
		if e.Int("drafts", 0) != draft.Rows || e.Int("vocab", 0) != draft.Cols {
			t.Fatalf("%d drafts of %d tokens", draft.Rows, draft.Cols)
		}
		done := e.Bool("done")
		e.Done()
		softmax := func(row []float32) []float64 {
			out := make([]float64, len(row))
			logSoftmax(out, row)
			for i, l := range out {
				out[i] = math.Exp(l)
			}
			return out
		}
		var q, r [][]float64
		for i := range draft.Rows {
			q = append(q, softmax(mat.Row(draft, i)))
		}
		for i := range target.Rows {
			r = append(r, softmax(mat.Row(target, i)))
		}
		var drafts []int32
		for _, d := range f.Int64(p + "draft") {
			drafts = append(drafts, int32(d))
		}
		tokens, err := Accept("lm", nil, drafts, q, r, float64s(f.Float32(p+"uniform")), done)
		must(t, err)
		f.CompareInts(p+"expected.tokens", int64s(tokens))
	}
}

func float64s(list []float32) (out []float64) {
	for _, v := range list {
		out = append(out, float64(v))
	}
	return out
}

func int64s(tokens []int32) (list []int64) {
	for _, token := range tokens {
		list = append(list, int64(token))
	}
	return list
}

func goldenTogether(t *testing.T, f *golden.File) {
	methods := map[string]Method{"oracle": Oracle, "contrastive": Contrastive, "proxy": ProxyTuned, "speculative": Speculative}
	routers := map[string]Router{"normal": Always, "none": Never, "threshold": Unsure, "delta_threshold": Undecided}
	for _, e := range f.Entries() {
		p := e.Prefix
		method, ok := methods[e.Text("method")]
		router, ok2 := routers[e.Text("router")]
		if !ok || !ok2 {
			t.Fatalf("method %s, router %s", e.Text("method"), e.Text("router"))
		}
		most := e.Int("max_tokens", 0)
		cfg := TogetherConfig{Method: method, Router: router, Threshold: e.Float("threshold", 0), Alpha: e.Float("alpha", 0), Beta: e.Float("beta", 0), Drafts: e.Int("k", 0),
			Stop: []int32{int32(f.Number("eos", -1))}}
		e.Done()
		var prompt []int32
		for _, d := range f.Int64(p + "prompt") {
			prompt = append(prompt, int32(d))
		}
		m := &Together{Large: newToy(f, "large."), Small: newToy(f, "small."), Tuned: newToy(f, "small_ft.")}
		if d := m.Large.(*toy).embed.Cols; d != int(f.Number("width", 0)) {
			t.Fatalf("embeddings of %d", d)
		}
		if v := int(f.Number("vocab", 0)); v != m.Large.Vocab() || v != m.Small.Vocab() {
			t.Fatalf("vocabularies of %d and %d", m.Large.Vocab(), m.Small.Vocab())
		}
		var counts Counts
		var text []int32
		// The published loop ends after whole rounds only; ours at any token.
		want := f.Width(p+"expected.tokens", 0)
		if f.Has(p+"expected.counts") && want == 0 {
			want = int(f.Int64(p + "expected.counts")[0])
		}
		cfg.MaxTokens = max(most, want)
		for token, err := range m.Generate(context.Background(), "lm", prompt, cfg, &counts) {
			must(t, err)
			text = append(text, token)
		}
		f.CompareInts(p+"expected.tokens", int64s(text))
		f.CompareInts(p+"expected.counts", []int64{int64(counts.Tokens), int64(counts.Large), int64(counts.Mismatches)})
		if method == Speculative && router == Always {
			// The same text as the large model's own.
			var own []int32
			for token, err := range m.Generate(context.Background(), "lm", prompt, TogetherConfig{Method: Oracle, Stop: cfg.Stop, MaxTokens: want}, nil) {
				must(t, err)
				own = append(own, token)
			}
			if !slices.Equal(own, text) {
				t.Errorf("speculative decoding gives %v, the large model %v", text, own)
			}
		}
	}
}

package mla

import (
	"fmt"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/rope"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "attention/mla", map[string]func(*testing.T, *golden.File){"attention.mla": goldenMLA})
}

func goldenMLA(t *testing.T, f *golden.File) {
	text := f.Meta("rope")
	cfg := Config{Rotation: rope.Config{Layout: rope.Half}, LongCat: f.Meta("longcat_scaling") == "True",
		Eps: f.Number("rms_eps", 1e-6), Scale: f.Scale()}
	for key, to := range map[string]*int{"hidden": &cfg.Dim, "heads": &cfg.Heads, "q_lora_rank": &cfg.QRank, "kv_lora_rank": &cfg.KVRank,
		"qk_nope": &cfg.NopeDim, "qk_rope": &cfg.RopeDim, "v_dim": &cfg.ValueDim} {
		*to = int(f.Number(key, 0))
	}
	if strings.Contains(text, "interleaved") {
		cfg.Rotation.Layout = rope.Interleaved
	}
	if _, theta, ok := strings.Cut(text, "theta "); ok {
		if _, err := fmt.Sscan(strings.FieldsFunc(theta, func(r rune) bool { return r == ',' || r == ';' || r == ' ' })[0], &cfg.Rotation.Base); err != nil {
			t.Fatal(err)
		}
	}
	read := f.Matrix
	w := Weights{QB: read("q_b"), KVA: read("kv_a"), KVB: read("kv_b"), Out: read("o"), KVANorm: f.Float32("kv_a_norm")}
	if cfg.QRank > 0 {
		w.QA, w.QANorm = read("q_a"), f.Float32("q_a_norm")
	}
	m, err := New(cfg, w)
	if err != nil {
		t.Fatal(err)
	}
	x := read("x")
	n := x.Rows
	compare := func(dst blas32.General) {
		if f.Has("out") {
			f.Compare("out", dst.Data)
		}
		if f.Has("attn_out") {
			r := m.scratch.Get()
			got := blank(n, cfg.Heads*cfg.ValueDim)
			copy(got.Data, r.out.Data)
			m.scratch.Put(r)
			f.Compare("attn_out", got.Data)
		}
	}
	dst := blank(n, cfg.Dim)
	if err := m.Forward(dst, x); err != nil {
		t.Fatal(err)
	}
	compare(dst)
	s, err := m.NewState(attention.StateConfig{})
	if err != nil {
		t.Fatal(err)
	}
	dst = blank(n, cfg.Dim)
	if err := m.Step(dst, x, s); err != nil {
		t.Fatal(err)
	}
	compare(dst)
	latent, turned := blank(n, cfg.KVRank), blank(n, cfg.RopeDim)
	for _, g := range s.Segments(nil) {
		keys := blank(g.Tokens, cfg.KVRank+cfg.RopeDim)
		if err := g.Keys(keys, 0, 0); err != nil {
			t.Fatal(err)
		}
		for i := range g.Tokens {
			row := keys.Data[i*keys.Stride:]
			copy(latent.Data[(g.Position+i)*cfg.KVRank:][:cfg.KVRank], row)
			copy(turned.Data[(g.Position+i)*cfg.RopeDim:][:cfg.RopeDim], row[cfg.KVRank:])
		}
	}
	if f.Has("latent_cache") {
		f.Compare("latent_cache", latent.Data)
	}
	if f.Has("k_rope_cache") {
		f.Compare("k_rope_cache", turned.Data)
	}
	// One token at a time.
	s.Reset()
	one := blank(n, cfg.Dim)
	for i := range n {
		if err := m.Step(part(one, i, i+1), part(x, i, i+1), s); err != nil {
			t.Fatal(err)
		}
	}
	if f.Has("out") {
		f.Compare("out", one.Data)
	}
}

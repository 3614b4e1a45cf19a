package attention

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/rope"
)

// stepped is attend by way of states, one for each sequence: all keys are appended,
// and the queries look at them. It returns false for what has no states.
func stepped(t *testing.T, cfg Config, c Call, k, v blas32.General) (out, lse blas32.General, ok bool) {
	t.Helper()
	if c.QOffsets == nil {
		c.QOffsets, c.KOffsets = []int{0, c.Q.Rows}, []int{0, k.Rows}
		if c.Q.Rows == 1 { // which stands at the last key: no key is ahead
			cfg.LookAhead = new(0)
		}
	}
	if !cfg.Causal && (cfg.LookAhead == nil || *cfg.LookAhead != 0) || c.QueryPos != nil || c.Mass.Rows > 0 || c.Stats != nil {
		return out, lse, false
	}
	a := must(t, cfg)
	smallSteps(a)
	for b := range len(c.KOffsets) - 1 {
		s, err := a.NewState(StateConfig{})
		if err != nil {
			t.Fatal(err)
		}
		n := c.KOffsets[b+1] - c.KOffsets[b]
		for _, cut := range [][2]int{{0, n / 2}, {n / 2, n}} {
			from, to := c.KOffsets[b]+cut[0], c.KOffsets[b]+cut[1]
			if err := s.Append(part(k, from, to), part(v, from, to)); err != nil {
				t.Fatal(err)
			}
		}
		c.States = append(c.States, s)
	}
	c.KOffsets, c.K, c.V = nil, nil, nil
	c.Dst = blank(c.Q.Rows, cfg.Heads*a.cfg.ValueDim)
	if !cfg.ReLU {
		c.LSE = blank(c.Q.Rows, cfg.Heads)
	}
	if err := a.Run(context.Background(), &c); err != nil {
		t.Fatal(err)
	}
	return c.Dst, c.LSE, true
}

func goldenPaged(t *testing.T, f *golden.File) {
	pages := f.Shape("k_pages") // [pages, page, heads, D]
	values := f.Shape("v_pages")
	q := f.Shape("q") // [batch, queries, heads, D]
	n := pages[0] * pages[1]
	k := general(f.Float32("k_pages"), n, pages[2]*pages[3])
	v := general(f.Float32("v_pages"), n, values[2]*values[3])
	a := must(t, Config{Heads: q[2], KVHeads: pages[2], HeadDim: pages[3], ValueDim: values[3], Causal: true, Scale: scale(t, f)})
	pool, err := a.NewPages(PagesConfig{PageTokens: pages[1]})
	if err != nil {
		t.Fatal(err)
	}
	// One state that has all pages, in their order, which others then share.
	all, err := a.NewState(StateConfig{Pages: pool})
	if err != nil {
		t.Fatal(err)
	}
	if err := all.Append(k, v); err != nil {
		t.Fatal(err)
	}
	c := &Call{Q: general(f.Float32("q"), q[0]*q[1], q[2]*q[3]), QOffsets: []int{0}}
	tables, width := f.Int64("block_table"), f.Shape("block_table")[1]
	for b, tokens := range f.Int64("seqlens") {
		cfg := StateConfig{Pages: pool, Tokens: int(tokens)}
		for i := range (int(tokens) + pages[1] - 1) / pages[1] {
			cfg.Table = append(cfg.Table, int(tables[b*width+i]))
		}
		s, err := a.NewState(cfg)
		if err != nil {
			t.Fatal(err)
		}
		c.States, c.QOffsets = append(c.States, s), append(c.QOffsets, (b+1)*q[1])
	}
	c.Dst, c.LSE = blank(c.Q.Rows, q[2]*values[3]), blank(c.Q.Rows, q[2])
	if err := a.Run(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	if f.Has("out") {
		f.Compare("out", c.Dst.Data, golden.Tolerance{Abs: 1e-5, Rel: 1e-5})
	}
	if f.Has("lse") { // [batch, heads, queries]
		var lse []float32
		for b := range q[0] {
			lse = append(lse, headMajor(part(c.LSE, b*q[1], (b+1)*q[1]))...)
		}
		f.Compare("lse", lse, golden.Tolerance{Abs: 2e-5, Rel: 1e-5})
	}
}

func goldenQuant(t *testing.T, f *golden.File) {
	q, k, v, cfg := inputs(f, "")
	cfg.Causal, cfg.Scale = true, scale(t, f)
	a := must(t, cfg)
	for name, format := range map[string]asm.Format{"f32": asm.Float32, "f16": asm.Float16, "bf16": asm.BFloat16, "i8": asm.Int8} {
		s, err := a.NewState(StateConfig{Format: format})
		if err != nil {
			t.Fatal(err)
		}
		n := k.Rows - q.Rows
		c := &Call{State: s, Q: q, Dst: blank(q.Rows, cfg.Heads*cfg.ValueDim), LSE: blank(q.Rows, cfg.Heads)}
		if n < 0 { // queries before the first key: they look at what is there
			n = k.Rows
		} else {
			c.K, c.V = []blas32.General{part(k, n, k.Rows)}, []blas32.General{part(v, n, v.Rows)}
		}
		if err := s.Append(part(k, 0, n), part(v, 0, n)); err != nil {
			t.Fatal(err)
		}
		if err := a.Run(context.Background(), c); err != nil {
			t.Fatal(err)
		}
		compare(f, name, c.Dst, c.LSE)
		if format == asm.Float32 {
			continue
		}
		if len(s.blocks) == 0 { // no keys
			f.Ignore(func(n string) bool { return strings.HasPrefix(n, "k_") || strings.HasPrefix(n, "v_") })
			continue
		}
		for what, st := range map[string]*store{"k_": &s.blocks[0].k, "v_": &s.blocks[0].v} {
			dim := st.dim
			got, scales := blank(k.Rows, st.heads*dim), blank(k.Rows, st.heads)
			for h := range st.heads {
				m := got
				m.Cols, m.Data = dim, got.Data[min(h*dim, len(got.Data)):]
				st.widen(m, h, 0)
				for i := range k.Rows {
					if format == asm.Int8 {
						scales.Data[i*scales.Stride+h] = st.scales(h, i, 1)[0]
					}
				}
			}
			if format == asm.Int8 {
				if f.Has(what + "scale") {
					f.Compare(what+"scale", scales.Data, golden.Tolerance{Rel: 1e-7})
				}
				if f.Has(what + "i8") {
					stored := make([]int64, len(got.Data))
					for i := range stored {
						stored[i] = int64(st.int8[i])
					}
					f.CompareInts(what+"i8", stored)
				}
			} else if f.Has(what + name) {
				f.Compare(what+name, got.Data, golden.Tolerance{})
			}
		}
	}
}

func goldenMLA(t *testing.T, f *golden.File) {
	text := f.Meta("rope")
	cfg := MLAConfig{Rotation: rope.Config{Layout: rope.Half}, LongCat: f.Meta("longcat_scaling") == "True",
		Eps: float32(number(t, f, "rms_eps", 1e-6)), Scale: scale(t, f)}
	for key, to := range map[string]*int{"hidden": &cfg.Hidden, "heads": &cfg.Heads, "q_lora_rank": &cfg.QRank, "kv_lora_rank": &cfg.KVRank,
		"qk_nope": &cfg.NopeDim, "qk_rope": &cfg.RopeDim, "v_dim": &cfg.ValueDim} {
		*to = int(number(t, f, key, 0))
	}
	if strings.Contains(text, "interleaved") {
		cfg.Rotation.Layout = rope.Interleaved
	}
	if _, theta, ok := strings.Cut(text, "theta "); ok {
		if _, err := fmt.Sscan(strings.FieldsFunc(theta, func(r rune) bool { return r == ',' || r == ';' || r == ' ' })[0], &cfg.Rotation.Base); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) blas32.General {
		s := f.Shape(name)
		return general(f.Float32(name), s[0], s[1])
	}
	w := &MLAWeights{QB: read("q_b"), KVA: read("kv_a"), KVB: read("kv_b"), O: read("o"), KVANorm: f.Float32("kv_a_norm")}
	if cfg.QRank > 0 {
		w.QA, w.QANorm = read("q_a"), f.Float32("q_a_norm")
	}
	m, err := NewMLA(cfg, w)
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
	dst := blank(n, cfg.Hidden)
	if err := m.Forward(dst, x); err != nil {
		t.Fatal(err)
	}
	compare(dst)
	s, err := m.NewState(StateConfig{})
	if err != nil {
		t.Fatal(err)
	}
	dst = blank(n, cfg.Hidden)
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
	one := blank(n, cfg.Hidden)
	for i := range n {
		if err := m.Step(part(one, i, i+1), part(x, i, i+1), s); err != nil {
			t.Fatal(err)
		}
	}
	if f.Has("out") {
		f.Compare("out", one.Data)
	}
}

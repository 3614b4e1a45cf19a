package attention

import (
	"context"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/golden"
)

// stepped is attend by way of states, one for each sequence: all keys are appended,
// and the queries look at them. It returns false for what has no states.
func stepped(t *testing.T, cfg Config, c Call, k, v blas32.General) (out, lse blas32.General, ok bool) {
	t.Helper()
	if c.Offsets == nil {
		c.Offsets, c.KOffsets = []int{0, c.Q.Rows}, []int{0, k.Rows}
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
	f.Sizes(map[string]int{"page_size": pages[1]})
	q := f.Shape("q") // [batch, queries, heads, D]
	n := pages[0] * pages[1]
	k := general(f.Float32("k_pages"), n, pages[2]*pages[3])
	v := general(f.Float32("v_pages"), n, values[2]*values[3])
	a := must(t, Config{Heads: q[2], KVHeads: pages[2], HeadDim: pages[3], ValueDim: values[3], Causal: true, Scale: f.Scale()})
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
	c := &Call{Q: general(f.Float32("q"), q[0]*q[1], q[2]*q[3]), Offsets: []int{0}}
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
		c.States, c.Offsets = append(c.States, s), append(c.Offsets, (b+1)*q[1])
	}
	c.Dst, c.LSE = blank(c.Q.Rows, q[2]*values[3]), blank(c.Q.Rows, q[2])
	if err := a.Run(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	tol, lseTol := tolerances(f)
	if f.Has("out") {
		f.Compare("out", c.Dst.Data, tol)
	}
	if f.Has("lse") { // [batch, heads, queries]
		var lse []float32
		for b := range q[0] {
			lse = append(lse, headMajor(part(c.LSE, b*q[1], (b+1)*q[1]))...)
		}
		f.Compare("lse", lse, lseTol)
	}
}

func goldenQuant(t *testing.T, f *golden.File) {
	q, k, v, cfg := inputs(f, "")
	cfg.Causal, cfg.Scale = true, f.Scale()
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
						scales.Data[i*scales.Stride+h] = st.scales(0, h, i, 1)[0]
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

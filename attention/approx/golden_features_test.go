package approx

import (
	"context"
	"math"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

// heads is the shape of a file's q, k and v, which are [batch, heads, tokens, dim].
func headsOf(f *golden.File) (sh shape, batch, queries, keys int) {
	q, k := f.Shape("q"), f.Shape("k")
	return shape{q[1], k[1], q[3], f.Shape("v")[3]}, q[0], q[2], k[2]
}

// goldenRun returns what an operator makes of a file's q, k and v, in their order.
func goldenRun(t *testing.T, f *golden.File, run func(context.Context, *request) error) []float32 {
	t.Helper()
	sh, batch, queries, keys := headsOf(f)
	c := &request{Q: packed(f, "q", false), K: packed(f, "k", false), V: packed(f, "v", false), Offsets: offsets(batch, queries), KOffsets: offsets(batch, keys)}
	c.Dst = mat.New(batch*queries, sh.heads*sh.valueDim)
	if err := run(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	return unordered(c.Dst, batch, sh.heads)
}

// whole and stepped are ways to run a featured operator: at once, and in steps.
func whole(l *featured) func(context.Context, *request) error {
	return func(ctx context.Context, c *request) error { return l.attend(ctx, c.call()) }
}

func stepped(l *featured, each int) func(context.Context, *request) error {
	return func(ctx context.Context, c *request) error {
		for b := range len(c.Offsets) - 1 {
			st, err := l.newState(StateConfig{})
			if err != nil {
				return err
			}
			for at := c.Offsets[b]; at < c.Offsets[b+1]; at += each {
				if err := l.attend(ctx, stepCall(c, at, min(at+each, c.Offsets[b+1]), st).call()); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func goldenBased(t *testing.T, f *golden.File) {
	sh, _, _, _ := headsOf(f)
	b := value[*Based](t)(NewBased(BasedConfig{Heads: sh.heads, KVHeads: sh.kvHeads, HeadDim: sh.dim, ValueDim: sh.valueDim}))
	f.Compare("out_causal", goldenRun(t, f, whole(&b.featured)))
	for _, each := range []int{1, 5, 11} {
		f.Compare("out_causal", goldenRun(t, f, stepped(&b.featured, each)))
	}
}

func goldenLinformer(t *testing.T, f *golden.File) {
	sh, _, _, _ := headsOf(f)
	e := f.Shape("E") // [heads, rows, tokens]
	l := value[*Linformer](t)(NewLinformer(LinformerConfig{Heads: sh.heads, KVHeads: sh.kvHeads, HeadDim: sh.dim, ValueDim: sh.valueDim, E: mat.Of(f.Float32("E"), e[0]*e[1], e[2])}))
	f.Compare("out", goldenRun(t, f, func(ctx context.Context, c *request) error {
		if f.Has("mask") {
			c.Valid = mask(f, "mask")
		}
		return l.Run(ctx, c.call())
	}))
}

func goldenPerformer(t *testing.T, f *golden.File) {
	sh, batch, _, _ := headsOf(f)
	w := f.Shape("proj")
	cfg := PerformerConfig{Heads: sh.heads, KVHeads: sh.kvHeads, HeadDim: sh.dim, ValueDim: sh.valueDim, Projection: mat.Of(f.Float32("proj"), w[0], w[1])}
	if eps, _, _ := strings.Cut(f.Meta("causal_eps"), " "); eps != "" && number(t, eps) != 1e-6 {
		t.Fatalf("causal_eps is %q", eps)
	}
	for _, relu := range []bool{false, true} {
		for _, causal := range []bool{false, true} {
			name := "out_favor"
			if relu {
				name = "out_relu"
			}
			if causal {
				name += "_causal"
			}
			if !f.Has(name) {
				continue
			}
			cfg.ReLU, cfg.Causal = relu, causal
			p := value[*Performer](t)(NewPerformer(cfg))
			f.Compare(name, goldenRun(t, f, whole(&p.featured)))
			if p.still == "" {
				f.Compare(name, goldenRun(t, f, stepped(&p.featured, 3)))
			}
		}
	}
	cfg.ReLU, cfg.Causal = false, false
	p := value[*Performer](t)(NewPerformer(cfg))
	favor, work := p.phi.(*favor), new(featureWork)
	of := func(name string, heads int, keys bool) {
		x := packed(f, name, false)
		tokens := x.Rows / max(batch, 1)
		phi := mat.New(x.Rows, heads*w[0])
		for b := range batch {
			own := func(m blas32.General) blas32.General { return mat.Rows(m, b*tokens, (b+1)*tokens) }
			if !keys {
				favor.queries(work, own(phi), own(x), heads)
				continue
			}
			tops := make([]float32, heads)
			for h := range tops {
				tops[h] = float32(math.Inf(-1))
				if tokens > 0 {
					tops[h] = favor.top(work, mat.Columns(own(x), h*sh.dim, sh.dim))
				}
			}
			favor.keys(work, own(phi), own(x), heads, tops)
		}
		f.Compare(name+"_feat", unordered(phi, batch, heads))
	}
	of("q", sh.heads, false)
	of("k", sh.kvHeads, true)
}

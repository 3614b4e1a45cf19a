package sparse

import (
	"context"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

// goldenMoBA runs a packed batch at once, and its sequences token by token.
func goldenMoBA(t *testing.T, f *golden.File) {
	q, heads := f.Heads("q")
	k, kvHeads := f.Heads("k")
	v, _ := f.Heads("v")
	cfg := MoBAConfig{Heads: heads, KVHeads: kvHeads, HeadDim: q.Cols / heads, ValueDim: v.Cols / kvHeads, Scale: f.Scale(), Block: int(f.Number("chunk", 4096)), TopK: int(f.Number("topk", 12))}
	m := mustMoBA(t, cfg)
	offsets := []int{0, q.Rows}
	if f.Has("cu_seqlens") {
		offsets = nil
		for _, x := range f.Int64("cu_seqlens") {
			offsets = append(offsets, int(x))
		}
	}
	c := &attention.Call{Dst: mat.New(q.Rows, heads*cfg.ValueDim), Q: q, K: []blas32.General{k}, V: []blas32.General{v}, Offsets: offsets, LSE: mat.New(q.Rows, heads)}
	if err := m.Run(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	steps := mat.New(q.Rows, heads*cfg.ValueDim)
	for b, from := range offsets[:len(offsets)-1] {
		s, err := m.NewState(MoBAStateConfig{})
		if err != nil {
			t.Fatal(err)
		}
		for i := from; i < offsets[b+1]; i++ {
			one := func(m blas32.General) blas32.General { return mat.Rows(m, i, i+1) }
			if err := m.Step(one(steps), one(q), one(k), one(v), s); err != nil {
				t.Fatal(err)
			}
		}
	}
	if f.Has("out") {
		f.Compare("out", c.Dst.Data)
		f.Compare("out", steps.Data)
	}
	if f.Has("lse") {
		f.Compare("lse", c.LSE.Data)
	}
}

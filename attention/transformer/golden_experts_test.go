package transformer

import (
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
)

// goldenZeroExperts is a layer of experts of which some compute nothing: all tokens, and some
// of them, which changes no bit.
func goldenZeroExperts(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		p := e.Prefix
		x := f.Matrix(p + "x")
		cfg := &Experts{Count: e.Int("routed", 0), TopK: e.Int("topk", 0), Inner: e.Int("expert_hidden", 0), scale: float32(e.Float("scale", 1)), zero: e.Int("zero", 0)}
		if e.Int("tokens", 0) != x.Rows || e.Int("hidden", 0) != x.Cols {
			t.Fatalf("%d x %d inputs", x.Rows, x.Cols)
		}
		e.Done()
		router, up, down := f.Matrix(p+"router.classifier.weight"), f.Float32(p+"experts.gate_up_proj"), f.Float32(p+"experts.down_proj")
		m := &experts{cfg: cfg, dim: x.Cols, wide: x.Cols, router: dense.NewLinear(asm.Float32, router, nil), correction: f.Float32(p + "router.e_score_correction_bias")}
		inner, dim := cfg.Inner, x.Cols
		for i := range cfg.Count {
			both := mat.Of(up[i*2*inner*dim:], 2*inner, dim)
			turned := mat.New(2*inner, dim) // the input first, then the gate
			mat.Copy(mat.Rows(turned, 0, inner), mat.Rows(both, inner, 2*inner))
			mat.Copy(mat.Rows(turned, inner, 2*inner), mat.Rows(both, 0, inner))
			m.list = append(m.list, lm.MLP(&dense.Gated{Up: dense.NewLinear(asm.Float32, turned, nil), Down: dense.NewLinear(asm.Float32, mat.Of(down[i*dim*inner:], dim, inner), nil)}))
		}
		run := func(x blas32.General) blas32.General {
			dst, hidden := mat.New(x.Rows, x.Cols), mat.New(x.Rows, m.Hidden())
			m.Forward(nil, dst, x, hidden)
			return dst
		}
		dst := run(x)
		f.Compare(p+"expected.out", dst.Data)
		from, to := min(1, x.Rows), min(3, x.Rows)
		if some := run(mat.Rows(x, from, to)); !slices.Equal(some.Data, dst.Data[from*dim:to*dim]) {
			t.Errorf("some tokens give %v, among others %v", some.Data, dst.Data[from*dim:to*dim])
		}

		var chosen, real []int64
		var weights []float32
		for i := range x.Rows {
			scores, by, k, w := make([]float32, cfg.choices()), make([]float32, cfg.choices()), make([]float32, cfg.TopK), make([]float32, cfg.TopK)
			m.router.Forward(mat.Vector(scores), mat.Rows(x, i, i+1))
			m.route(scores, by, nil, k, w)
			order := make([]int, len(k))
			for j := range order {
				order[j] = j
			}
			slices.SortFunc(order, func(a, b int) int { return int(k[a] - k[b]) })
			routed := int64(0)
			for _, j := range order {
				chosen, weights = append(chosen, int64(k[j])), append(weights, w[j])
				if int(k[j]) < cfg.Count {
					routed++
				}
			}
			real = append(real, routed)
		}
		f.CompareInts(p+"expected.experts", chosen)
		f.CompareInts(p+"expected.real", real)
		f.Compare(p+"expected.weights", weights)
	}
}

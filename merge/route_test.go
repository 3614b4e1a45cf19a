package merge

import (
	"fmt"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

// goldenRoute is a layer of Duo-LLM's kind: a router sends each token through a big MLP, a
// small one, or none.
func goldenRoute(t *testing.T, f *golden.File) {
	const small, big, skip = 0, 1, 2
	for _, e := range f.Entries() {
		p := e.Prefix
		x, router := f.Matrix(p+"x"), f.Matrix(p+"router.weight")
		norm := dense.Norm{Weight: f.Float32(p + "norm.weight"), Eps: float32(e.Float("eps", 0)), RMS: true}
		mlp := func(name string) *dense.Gated {
			gate, up, down := f.Matrix(p+name+".gate_proj.weight"), f.Matrix(p+name+".up_proj.weight"), f.Matrix(p+name+".down_proj.weight")
			if up.Rows != e.Int(name, 0) {
				t.Fatalf("%s is %d wide", name, up.Rows)
			}
			both := mat.New(2*up.Rows, up.Cols)
			mat.Copy(both, up)
			mat.Copy(mat.Rows(both, up.Rows, 2*up.Rows), gate)
			return &dense.Gated{Up: dense.NewLinear(asm.Float32, both, nil), Down: dense.NewLinear(asm.Float32, down, nil)}
		}
		paths := []*dense.Gated{small: mlp("small"), big: mlp("big")}
		if e.Int("tokens", 0) != x.Rows || e.Int("dim", 0) != x.Cols || e.Bool("skip") != (router.Rows > skip) {
			t.Fatalf("%d x %d inputs, %d routes", x.Rows, x.Cols, router.Rows)
		}
		e.Done()
		h, scores := mat.New(x.Rows, x.Cols), mat.New(x.Rows, router.Rows)
		norm.Forward(h, x)
		dense.NewLinear(asm.Float32, router, nil).Forward(scores, h)
		through := func(route []int32) blas32.General {
			out := mat.New(x.Rows, x.Cols)
			mat.Copy(out, x)
			var plan Plan
			for path, layer := range paths {
				must(t, plan.SetRoute(route, int32(path)))
				few, made, all := mat.New(plan.Len(), x.Cols), mat.New(plan.Len(), x.Cols), mat.New(x.Rows, x.Cols)
				must(t, plan.Apply(few, h, Sum))
				layer.Forward(nil, made, few, mat.New(plan.Len(), layer.Hidden()))
				must(t, plan.Unmerge(all, made))
				asm.Add(out.Data, out.Data, all.Data)
			}
			return out
		}
		var route []int32
		counts := make([]int64, 3)
		for i := range x.Rows {
			best := 0
			for r, v := range mat.Row(scores, i) {
				if v > mat.Row(scores, i)[best] {
					best = r
				}
			}
			route = append(route, int32(best))
			counts[best]++
		}
		f.CompareInts(p+"expected.counts", counts)
		f.Compare(p+"expected.out", through(route).Data)
		f.CompareInts(p+"expected.route", int64s(route))
		if f.Has(p + "forced") {
			f.Compare(p+"expected.out_forced", through(int32s(f.Int64(p+"forced"))).Data)
		}
	}
}

func int64s(list []int32) (wide []int64) {
	for _, v := range list {
		wide = append(wide, int64(v))
	}
	return wide
}

func int32s(list []int64) (narrow []int32) {
	for _, v := range list {
		narrow = append(narrow, int32(v))
	}
	return narrow
}

// Three tokens take three paths: the first is doubled, the second gets 1 more, the third is
// left as it was.
func ExamplePlan_SetRoute() {
	x := mat.Of([]float32{5, 6, 7}, 3, 1)
	route := []int32{0, 1, 2}
	out := mat.Of([]float32{5, 6, 7}, 3, 1)
	var plan Plan
	for path, layer := range []func(float32) float32{func(v float32) float32 { return v }, func(float32) float32 { return 1 }} {
		if err := plan.SetRoute(route, int32(path)); err != nil {
			fmt.Println(err)
			return
		}
		few, all := mat.New(plan.Len(), 1), mat.New(3, 1)
		if err := plan.Apply(few, x, Sum); err != nil {
			fmt.Println(err)
			return
		}
		for i, v := range few.Data {
			few.Data[i] = layer(v)
		}
		if err := plan.Unmerge(all, few); err != nil {
			fmt.Println(err)
			return
		}
		asm.Add(out.Data, out.Data, all.Data)
	}
	fmt.Println(out.Data, "cost", RouteCost(route, []float64{10, 1}))
	// Output: [10 7 7] cost 11
}

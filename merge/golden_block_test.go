package merge

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

// rSpec parses what ToMe takes as r: an int, (r, inflect) or a list.
func rSpec(t *testing.T, text string, layers int) (list []int) {
	t.Helper()
	text = strings.TrimSpace(text)
	inner := strings.Split(strings.Trim(text, "[]() "), ",")
	number := func(s string) float64 {
		v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil {
			t.Fatalf("r is %q", text)
		}
		return v
	}
	var err error
	switch text[0] {
	case '[':
		for _, s := range inner {
			if strings.TrimSpace(s) != "" {
				list = append(list, int(number(s)))
			}
		}
		for len(list) < layers {
			list = append(list, 0)
		}
	case '(':
		list, err = Schedule(layers, int(number(inner[0])), number(inner[1]))
	default:
		list, err = Schedule(layers, int(number(inner[0])), 0)
	}
	must(t, err)
	return list
}

func goldenParseR(t *testing.T, f *golden.File) {
	cases := regexp.MustCompile(`\((\d+), (\([^)]*\)|\[[^\]]*\]|-?\d+)\)`).FindAllStringSubmatch(f.Meta("cases"), -1)
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for i, c := range cases {
		layers, err := strconv.Atoi(c[1])
		must(t, err)
		if name := fmt.Sprintf("c%d.r", i); f.Has(name) {
			f.CompareInts(name, wide(rSpec(t, c[2], layers)))
		}
	}
}

func wide(list []int) (out []int64) {
	for _, v := range list {
		out = append(out, int64(v))
	}
	return out
}

func linear(f *golden.File, name string) *dense.Linear {
	s := f.Shape(name + ".weight")
	var bias []float32
	if f.Has(name + ".bias") {
		bias = f.Float32(name + ".bias")
	}
	return dense.NewLinear(asm.Float32, mat.Of(f.Float32(name+".weight"), s[0], s[1]), bias)
}

func norm(f *golden.File, name string, x blas32.General, eps float32) blas32.General {
	w, b, out := f.Float32(name+".weight"), f.Float32(name+".bias"), mat.New(x.Rows, x.Cols)
	for t := range x.Rows {
		asm.LayerNorm(mat.Row(out, t), mat.Row(x, t), w, b, eps)
	}
	return out
}

// attend is ToMe's attention: sizes, if any, weigh the keys.
func attend(t *testing.T, f *golden.File, prefix string, x blas32.General, heads int, size []float32) (out, metric blas32.General) {
	t.Helper()
	n, d := x.Rows, x.Cols
	qkv := mat.New(n, 3*d)
	linear(f, prefix+"qkv").Forward(qkv, x)
	q, k, v := mat.Columns(qkv, 0, d), mat.Columns(qkv, d, d), mat.Columns(qkv, 2*d, d)
	a, err := attention.New(attention.Config{Heads: heads, HeadDim: d / heads})
	must(t, err)
	mixed := mat.New(n, d)
	call := &attention.Call{Dst: mixed, Q: q, K: []blas32.General{k}, V: []blas32.General{v}}
	if size != nil {
		call.LogWeights = mat.New(n, 1)
		must(t, LogSizes(call.LogWeights.Data, size))
	}
	must(t, a.Run(context.Background(), call))
	out, metric = mat.New(n, d), mat.New(n, d/heads)
	linear(f, prefix+"proj").Forward(out, mixed)
	must(t, MeanHeads(metric, k, heads))
	return out, metric
}

func goldenPropAttention(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		res := golden.NewResults(f, e.Prefix)
		x := batch(f, e.Prefix+"x")
		size := optional(f, e.Prefix+"size", len(x))
		heads := e.Int("H", 1)
		s := f.Shape(e.Prefix + "x")
		e.Sizes(map[string]int{"B": s[0], "T": s[1], "D": s[2]})
		e.Done()
		for b := range x {
			out, metric := attend(t, f, e.Prefix, x[b], heads, size[b].Data)
			res.Add("out", out)
			res.Add("metric", metric)
			out, _ = attend(t, f, e.Prefix, x[b], heads, nil)
			res.Add("out_nosize", out)
		}
		res.Compare()
	}
}

func goldenBlockStack(t *testing.T, f *golden.File) {
	number := func(key string) int {
		v, err := strconv.Atoi(f.Meta(key))
		must(t, err)
		return v
	}
	heads, layers := number("heads"), number("layers")
	schedule := rSpec(t, f.Meta("r"), layers)
	if f.Has("r_schedule") {
		f.CompareInts("r_schedule", wide(schedule))
	}
	shape := f.Shape("x")
	f.Sizes(map[string]int{"B": shape[0], "T": shape[1], "D": shape[2], "mlp_hidden": f.Shape("blocks.0.mlp.fc1.weight")[0]})
	prop := f.Meta("prop_attn") != "False"
	m := newMatcher(t, Config{Order: Published, ClassToken: f.Meta("class_token") == "True", DistillToken: f.Meta("distill_token") == "True"})
	res := golden.NewResults(f, "expected.")
	for _, x := range batch(f, "x") {
		var all, plan Plan
		must(t, all.SetIdentity(x.Rows))
		var size []float32
		for i := range layers {
			block := fmt.Sprintf("blocks.%d.", i)
			weights := size
			if !prop {
				weights = nil
			}
			mixed, metric := attend(t, f, block+"attn.", norm(f, block+"norm1", x, 1e-6), heads, weights)
			asm.Add(x.Data[:len(mixed.Data)], x.Data[:len(mixed.Data)], mixed.Data)
			must(t, m.Run(context.Background(), &Call{Plan: &plan, Metric: metric, R: schedule[i], AtMost: true}))
			must(t, all.Compose(&all, &plan))
			merged, total := mat.New(plan.Len(), x.Cols), make([]float32, plan.Len())
			must(t, plan.ApplyWeighted(merged, x, total, size))
			x, size = merged, total
			hidden := linear(f, block+"mlp.fc1")
			inner := mat.New(x.Rows, f.Shape(block + "mlp.fc1.weight")[0])
			hidden.Forward(inner, norm(f, block+"norm2", x, 1e-6))
			asm.GELU(inner.Data, inner.Data)
			out := mat.New(x.Rows, x.Cols)
			linear(f, block+"mlp.fc2").Forward(out, inner)
			asm.Add(x.Data, x.Data, out.Data)
			res.Add(fmt.Sprintf("out%d", i), x)
			res.Add(fmt.Sprintf("size%d", i), mat.Of(size, len(size), 1))
		}
		source := mat.New(all.Len(), all.Tokens())
		for t, j := range all.Map() {
			source.Data[int(j)*source.Stride+t] = 1
		}
		res.Add("source_final", source)
	}
	res.Compare()
}

package attention

import (
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
)

func goldenMerge(t *testing.T, f *golden.File) {
	q, k, v, cfg := inputs(f, "")
	cfg.Causal, cfg.Scale = true, f.Scale()
	cuts := f.Int64("cuts")
	tol, lseTol := tolerances(f)
	var given, ours []Partial
	for n := range len(cuts) - 1 {
		from, to := int(cuts[n]), int(cuts[n+1])
		rows := func(m blas32.General) blas32.General {
			return general(m.Data[from*m.Cols:to*m.Cols], to-from, m.Cols)
		}
		c := Call{Q: q, QueryPos: []int64{int64(k.Rows - q.Rows)}, KeyPos: []int64{int64(from)}, Partial: true}
		out, lse := attend(t, cfg, c, rows(k), rows(v))
		ours = append(ours, Partial{out, lse})
		prefix := fmt.Sprintf("part%d_", n)
		if f.Has(prefix + "out") {
			f.Compare(prefix+"out", out.Data, tol)
		}
		if f.Has(prefix + "lse") {
			f.Compare(prefix+"lse", headMajor(lse), lseTol)
		}
		if f.Has(prefix+"out") && f.Has(prefix+"lse") {
			stored := general(make([]float32, len(lse.Data)), lse.Rows, lse.Cols)
			for i, x := range f.Float32(prefix + "lse") {
				stored.Data[i%lse.Rows*lse.Stride+i/lse.Rows] = x
			}
			given = append(given, Partial{general(f.Float32(prefix+"out"), out.Rows, out.Cols), stored})
		}
	}
	for _, parts := range [][]Partial{ours, given} {
		if len(parts) != len(cuts)-1 {
			continue
		}
		dst := Partial{general(make([]float32, q.Rows*cfg.Heads*cfg.ValueDim), q.Rows, cfg.Heads*cfg.ValueDim), general(make([]float32, q.Rows*cfg.Heads), q.Rows, cfg.Heads)}
		if err := Merge(dst, nil, parts...); err != nil {
			t.Fatal(err)
		}
		if f.Has("out") {
			f.Compare("out", dst.Out.Data, tol)
		}
		if f.Has("lse") {
			f.Compare("lse", headMajor(dst.LSE), lseTol)
		}
	}
}

func goldenReLU(t *testing.T, f *golden.File) {
	q, k, v, base := inputs(f, "")
	base.Causal = true
	tol := f.Strict()
	n := k.Rows
	// With the unit matrix for values the output is the weights.
	unit := general(make([]float32, n*base.KVHeads*n), n, base.KVHeads*n)
	for j := range n {
		for g := range base.KVHeads {
			unit.Data[j*unit.Stride+g*n+j] = 1
		}
	}
	for _, name := range []string{"relu", "softmax"} {
		cfg := base
		if n == 0 {
			f.Ignore(func(s string) bool { return s == "weights_"+name }) // no elements
		}
		cfg.ReLU = name == "relu"
		if f.Has("out_" + name) {
			out, _ := attend(t, cfg, Call{Q: q}, k, v)
			f.Compare("out_"+name, out.Data, tol)
		}
		if f.Has("weights_"+name) && n > 0 {
			cfg.ValueDim = n
			out, _ := attend(t, cfg, Call{Q: q}, k, unit) // [queries, H, keys]
			weights := make([]float32, 0, len(out.Data))
			for h := range cfg.Heads {
				for i := range q.Rows {
					weights = append(weights, out.Data[i*out.Stride+h*n:][:n]...)
				}
			}
			f.Compare("weights_"+name, weights, tol)
		}
	}
	stats := new(Stats)
	mass := general(make([]float32, n*base.Heads), n, base.Heads)
	entropy := general(make([]float32, q.Rows*base.Heads), q.Rows, base.Heads)
	attend(t, base, Call{Q: q, Mass: mass, Entropy: entropy, Stats: stats}, k, v)
	for i := range mass.Data {
		mass.Data[i] /= float32(q.Rows)
	}
	for i := range q.Rows {
		seen := float64(i + n - q.Rows + 1)
		for h := range base.Heads {
			if e := &entropy.Data[i*base.Heads+h]; seen > 1 {
				*e /= float32(math.Log(seen))
			}
		}
	}
	var mean, alpha, norms []float32
	var dormant []int64
	for h := range base.Heads {
		mean = append(mean, float32(stats.MeanEntropy(h)))
		for j := range n {
			alpha = append(alpha, float32(stats.Alpha(h, j)))
		}
		dormant = append(dormant, map[bool]int64{true: 1}[stats.Dormant(h, 0.3)])
	}
	for g := range base.KVHeads {
		for _, x := range stats.ValueNorm[g] {
			norms = append(norms, float32(x))
		}
	}
	for name, got := range map[string][]float32{
		"column_mass": headMajor(mass), "row_entropy_normalised": headMajor(entropy),
		"mean_entropy": mean, "sink_alpha": alpha, "value_norm": norms,
	} {
		if f.Has(name) {
			f.Compare(name, got, tol)
		}
	}
	if f.Has("sink_head_eps03") {
		f.CompareInts("sink_head_eps03", dormant)
	}
}

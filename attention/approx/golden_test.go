package approx

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "attention/approx", map[string]func(*testing.T, *golden.File){
		"attention.based_taylor":  goldenBased,
		"attention.linear_elu":    goldenLinear,
		"attention.linformer":     goldenLinformer,
		"attention.mra2":          goldenMRA2,
		"attention.nystrom":       goldenNystrom,
		"attention.nystrom_cases": goldenNystromCases,
		"attention.performer":     goldenPerformer,
	})
}

// packed reads [batch, heads, tokens, dim], or [batch, tokens, heads, dim] with
// tokensFirst, as the rows of a packed batch.
func packed(f *golden.File, name string, tokensFirst bool) blas32.General {
	s := f.Shape(name)
	batch, heads, tokens, dim := s[0], s[1], s[2], s[3]
	if tokensFirst {
		heads, tokens = tokens, heads
		return mat.Of(f.Float32(name), batch*tokens, heads*dim)
	}
	return reorder(f.Float32(name), batch, heads, tokens, dim)
}

// reorder makes rows of [batch, heads, tokens, dim].
func reorder(data []float32, batch, heads, tokens, dim int) blas32.General {
	m := mat.New(batch*tokens, heads*dim)
	for b := range batch {
		for h := range heads {
			for t := range tokens {
				copy(m.Data[(b*tokens+t)*m.Stride+h*dim:], data[((b*heads+h)*tokens+t)*dim:][:dim])
			}
		}
	}
	return m
}

// unordered is the inverse of reorder.
func unordered(m blas32.General, batch, heads int) []float32 {
	tokens, dim := m.Rows/max(batch, 1), m.Cols/heads
	var list []float32
	for b := range batch {
		for h := range heads {
			for t := range tokens {
				list = append(list, m.Data[(b*tokens+t)*m.Stride+h*dim:][:dim]...)
			}
		}
	}
	return list
}

func offsets(batch, tokens int) []int {
	list := []int{0}
	for b := range batch {
		list = append(list, (b+1)*tokens)
	}
	return list
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	x, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func goldenLinear(t *testing.T, f *golden.File) {
	q, k, v := packed(f, "q", true), packed(f, "k", true), packed(f, "v", true)
	s := f.Shape("q")
	batch, tokens, heads, d, dv := s[0], s[1], s[2], s[3], f.Shape("v")[3]
	eps, _, _ := strings.Cut(f.Meta("eps"), " ")
	cfg := LinearConfig{Heads: heads, KVHeads: f.Shape("k")[2], HeadDim: d, ValueDim: dv, Eps: number(t, eps)}
	if m := f.Meta("feature_map"); m != "elu(x)+1" {
		t.Fatalf("feature_map is %q", m)
	}
	for name, causal := range map[string]bool{"out_full": false, "out_causal": true} {
		if !f.Has(name) {
			continue
		}
		cfg.Causal = causal
		l := value[*Linear](t)(NewLinear(cfg))
		dst := mat.New(q.Rows, heads*dv)
		call := &request{Dst: dst, Q: q, K: k, V: v, Offsets: offsets(batch, tokens), KOffsets: offsets(batch, k.Rows/max(batch, 1))}
		if err := l.Run(context.Background(), call.call()); err != nil {
			t.Fatal(err)
		}
		f.Compare(name, dst.Data)
	}
	cfg.Causal = true
	l := value[*Linear](t)(NewLinear(cfg))
	for _, each := range []int{1, 5, max(tokens, 1)} {
		var sums, zs, out []float32
		for b := range batch {
			st := value[*LinearState](t)(l.NewState(StateConfig{}))
			dst := mat.New(tokens, heads*dv)
			for at := 0; at < tokens; at += each {
				to := min(at+each, tokens)
				of := func(m blas32.General) blas32.General { return mat.Rows(m, b*tokens+at, b*tokens+to) }
				if err := l.Step(mat.Rows(dst, at, to), of(q), of(k), of(v), st); err != nil {
					t.Fatal(err)
				}
			}
			out = append(out, dst.Data...)
			for h := range heads {
				s, z := st.Sums(h / l.sums.group())
				sums, zs = append(sums, s.Data...), append(zs, z...)
			}
		}
		tol := f.Tolerance()
		tol.Rel = max(tol.Rel, 1e-5)
		for name, got := range map[string][]float32{"final_S": sums, "final_Z": zs} {
			if f.Has(name) {
				f.Compare(name, got, tol)
			}
		}
		if f.Has("out_causal") {
			f.Compare("out_causal", out)
		}
	}
}

// mask reads numbers, or booleans, that are not 0 where a key is.
func mask(f *golden.File, name string) []bool {
	list := make([]bool, 0, 1)
	switch f.Type(name) {
	case "F32", "F64", "F16", "BF16":
		for _, m := range f.Float32(name) {
			list = append(list, m != 0)
		}
	default:
		for _, m := range f.Int64(name) {
			list = append(list, m != 0)
		}
	}
	return list
}

// nystromCase runs one case, whose tensors' names begin with prefix.
func nystromCase(t *testing.T, f *golden.File, prefix string, cfg NystromConfig, init string) {
	t.Helper()
	switch init {
	case "exact":
	case "original":
		cfg.Init = InitOriginal
	default:
		t.Fatalf("init is %q", init)
	}
	s := f.Shape(prefix + "q")
	batch, tokens := s[0], s[2]
	cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.ValueDim = s[1], f.Shape(prefix + "k")[1], s[3], f.Shape(prefix + "v")[3]
	if name := prefix + "conv_weight"; f.Has(name) {
		taps := f.Float32(name)
		cfg.Conv = mat.Of(taps, cfg.Heads, len(taps)/cfg.Heads)
	}
	n := value[*Nystrom](t)(NewNystrom(cfg))
	call := &request{Q: packed(f, prefix+"q", false), K: packed(f, prefix+"k", false), V: packed(f, prefix+"v", false), Offsets: offsets(batch, tokens)}
	call.Dst = mat.New(batch*tokens, cfg.Heads*cfg.ValueDim)
	if f.Has(prefix + "mask") {
		call.Valid = mask(f, prefix+"mask")
	}
	if err := n.Run(context.Background(), call.call()); err != nil {
		t.Fatal(err)
	}
	if f.Has(prefix + "out") {
		f.Compare(prefix+"out", unordered(call.Dst, batch, cfg.Heads))
	}
}

func goldenNystrom(t *testing.T, f *golden.File) {
	cfg := NystromConfig{Landmarks: int(number(t, f.Meta("num_landmarks"))), Iterations: int(number(t, f.Meta("n_iter")))}
	taps := 0
	if f.Has("conv_weight") {
		shape := f.Shape("conv_weight")
		taps = shape[len(shape)-1]
	}
	f.Sizes(map[string]int{"seg_len": f.Shape("q")[2] / cfg.Landmarks, "conv": taps})
	nystromCase(t, f, "", cfg, f.Meta("init"))
}

func goldenNystromCases(t *testing.T, f *golden.File) {
	for _, e := range f.Entries() {
		if e.Has("conv_kernel") != f.Has(e.Prefix+"conv_weight") {
			t.Fatalf("case %s: conv_kernel is %s", e.Prefix, e.Text("conv_kernel"))
		}
		nystromCase(t, f, e.Prefix, NystromConfig{Landmarks: e.Int("landmarks", 0)}, e.Text("init"))
		s := f.Shape(e.Prefix + "q")
		e.Sizes(map[string]int{"B": s[0], "H": s[1], "N": s[2], "dh": s[3]})
		e.Done("seed", "masked_tail_last_batch") // which the mask tells
	}
}

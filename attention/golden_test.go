package attention

import (
	"context"
	"math"
	"strconv"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/golden"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "attention", map[string]func(*testing.T, *golden.File){
		"attention.exact":           everyPrecision(goldenExact),
		"attention.exact_headdims":  everyPrecision(goldenHeadDims),
		"attention.exact_mask_bias": everyPrecision(goldenMaskBias),
		"attention.exact_varlen":    everyPrecision(goldenVarlen),
		"attention.gptoss_sink":     everyPrecision(goldenSink),
		"attention.kv_quant":        goldenQuant,
		"attention.merge_states":    goldenMerge,
		"attention.paged_kv":        goldenPaged,
		"attention.relu_sink_diag":  goldenReLU,
		"rope.bias":                 goldenBias, // end to end; package rope tests the biases
		"rope.flexrope_far":         goldenFAR,
	})
}

// inputs reads q, k and v and what they say of the Config.
func inputs(f *golden.File, prefix string) (q, k, v blas32.General, cfg Config) {
	q, cfg.Heads = f.Heads(prefix + "q")
	k, cfg.KVHeads = f.Heads(prefix + "k")
	v, _ = f.Heads(prefix + "v")
	cfg.HeadDim, cfg.ValueDim = q.Cols/cfg.Heads, v.Cols/cfg.KVHeads
	f.Sizes(map[string]int{"Sq": q.Rows, "Sk": k.Rows, "Hq": cfg.Heads, "Hkv": cfg.KVHeads, "D": cfg.HeadDim, "Dv": cfg.ValueDim})
	return q, k, v, cfg
}

// logitReach is the largest size that a logit may have, in units of 8 and 1 at least: the rounding
// of queries and keys moves logits, and the logarithm of weights, by as much more.
func logitReach(a *Attention, q, k blas32.General) float64 {
	of := func(m blas32.General, heads int) (most float64) {
		for i := range m.Rows {
			for h := range heads {
				row := m.Data[i*m.Stride+h*a.cfg.HeadDim:][:a.cfg.HeadDim]
				most = max(most, float64(asm.Dot(row, row)))
			}
		}
		return math.Sqrt(most)
	}
	return max(1, float64(a.cfg.Scale)*of(q, a.cfg.Heads)*of(k, a.cfg.KVHeads)/8)
}

// valueReach is the largest size of a value, in units of 8 and 1 at least.
func valueReach(v blas32.General) float64 {
	most := 8.0
	for _, x := range v.Data {
		most = max(most, math.Abs(float64(x)))
	}
	return most / 8
}

// headMajor turns [rows, heads] into [heads, rows].
func headMajor(m blas32.General) []float32 {
	out := make([]float32, 0, m.Rows*m.Cols)
	for h := range m.Cols {
		for i := range m.Rows {
			out = append(out, m.Data[i*m.Stride+h])
		}
	}
	return out
}

func attend(t *testing.T, cfg Config, c Call, k, v blas32.General) (out, lse blas32.General) {
	t.Helper()
	cfg.Precision = goldenPrecision
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	goldenReach = logitReach(a, c.Q, k)
	out = general(make([]float32, c.Q.Rows*cfg.Heads*a.cfg.ValueDim), c.Q.Rows, cfg.Heads*a.cfg.ValueDim)
	c.Dst, c.K, c.V = out, []blas32.General{k}, []blas32.General{v}
	if !cfg.ReLU {
		lse = general(make([]float32, c.Q.Rows*cfg.Heads), c.Q.Rows, cfg.Heads)
		c.LSE = lse
	}
	if err := a.Run(context.Background(), &c); err != nil {
		t.Fatal(err)
	}
	// The same by way of a state; queries before the first key are none of its.
	c.LSE = blas32.General{}
	if dst, logs, ok := stepped(t, cfg, c, k, v); ok {
		tol := 1e-5 * goldenReach
		if goldenPrecision != asm.Single {
			tol *= goldenWider[goldenPrecision]
		}
		close64(t, "by steps: out", dst.Data, out.Data, tol*valueReach(v))
		close64(t, "by steps: lse", logs.Data, lse.Data, tol)
	}
	return out, lse
}

// tolerances returns those of outputs and of logarithms.
func tolerances(f *golden.File) (out, lse golden.Tolerance) {
	out, lse = f.Strict(), f.Tolerance()
	lse.Abs, lse.Rel = max(out.Abs, min(lse.Abs, 2e-5)), out.Rel // twice as wide, says the prose
	return widened(out), widened(lse)
}

func compare(f *golden.File, name string, out, lse blas32.General) {
	tol, lseTol := tolerances(f)
	if name == "big" { // logits in the hundreds
		tol = widened(golden.Tolerance{Abs: 1e-4, Rel: 1e-4})
		lseTol = tol
	}
	if f.Has("out_" + name) {
		f.Compare("out_"+name, out.Data, tol)
	}
	if f.Has("lse_" + name) {
		f.Compare("lse_"+name, headMajor(lse), lseTol)
	}
}

// names returns the cases for which there is an expected tensor.
func names(f *golden.File) (list []string) {
	seen := map[string]bool{}
	for _, n := range f.Names() {
		for _, p := range []string{"out_", "lse_"} {
			if c, ok := strings.CutPrefix(n, p); ok && !seen[c] {
				seen[c] = true
				list = append(list, c)
			}
		}
	}
	return list
}

// window sets what FlashAttention calls (left, right), -1 for no limit.
func (cfg *Config) window(left, right int) {
	cfg.Window, cfg.LookAhead = left+1, nil
	if right >= 0 {
		cfg.LookAhead = &right
	}
}

// alibi is -slope |query - key|.
type alibi []float64

func (b alibi) AddTo(s blas32.General, head int, query, key int64) {
	for i := range s.Rows {
		for j := range s.Cols {
			s.Data[i*s.Stride+j] -= float32(b[head] * math.Abs(float64(query+int64(i)-key-int64(j))))
		}
	}
}

func (b alibi) Most(head int, query, key int64, queries, keys int) float32 {
	apart := max(key-query-int64(queries)+1, query-key-int64(keys)+1, 0)
	return -float32(b[head] * float64(apart))
}

func goldenExact(t *testing.T, f *golden.File) {
	q, k, v, base := inputs(f, "")
	base.Scale = f.Scale()
	left := int(f.Number("window_left", -1))
	both := int(f.Number("window_right_both", -1))
	softcap := float32(f.Number("softcap", 0))
	var sinks []float32
	if f.Has("sink") {
		sinks = f.Float32("sink")
	}
	var bias alibi
	if f.Has("alibi_slopes") {
		for _, s := range f.Float32("alibi_slopes") {
			bias = append(bias, float64(s))
		}
	}
	for _, name := range names(f) {
		cfg := base
		switch name {
		case "full":
		case "causal":
			cfg.Causal = true
		case "window_causal":
			cfg.window(left, 0)
		case "window_both":
			cfg.window(left, both)
		case "softcap_causal":
			cfg.Causal, cfg.Softcap = true, softcap
		case "alibi_causal":
			cfg.Causal, cfg.Bias = true, bias
		case "alibi_full":
			cfg.Bias = bias
		case "sink_causal":
			cfg.Causal, cfg.Sinks = true, sinks
		case "sink_window":
			cfg.window(left, 0)
			cfg.Sinks = sinks
		case "everything":
			cfg.window(left, 0)
			cfg.Causal, cfg.Sinks, cfg.Softcap, cfg.Bias = true, sinks, softcap, bias
		default:
			t.Errorf("unknown case %s", name)
			continue
		}
		out, lse := attend(t, cfg, Call{Q: q}, k, v)
		compare(f, name, out, lse)
	}
}

func goldenHeadDims(t *testing.T, f *golden.File) {
	seen := map[string]bool{}
	for _, n := range f.Names() {
		name, _, _ := strings.Cut(n, ".")
		if seen[name] {
			continue
		}
		seen[name] = true
		q, k, v, cfg := inputs(f, name+".")
		cfg.Causal, cfg.Scale = true, f.Scale()
		out, lse := attend(t, cfg, Call{Q: q}, k, v)
		tol, lseTol := tolerances(f)
		if f.Has(name + ".out") {
			f.Compare(name+".out", out.Data, tol)
		}
		if f.Has(name + ".lse") {
			f.Compare(name+".lse", headMajor(lse), lseTol)
		}
	}
}

func goldenMaskBias(t *testing.T, f *golden.File) {
	q, k, v, base := inputs(f, "")
	// The matrices hold one call's queries: row i is query i, wherever it stands.
	var bias MatrixBias
	var mask MatrixMask
	if f.Has("bias") {
		s, data := f.Shape("bias"), f.Float32("bias")
		for h := range s[0] {
			bias = append(bias, general(data[h*s[1]*s[2]:], s[1], s[2]))
		}
	}
	if f.Has("mask") {
		s := f.Shape("mask")
		mask = MatrixMask{Queries: s[0], Keys: s[1]}
		for _, x := range f.Int64("mask") {
			mask.Seen = append(mask.Seen, x != 0)
		}
	}
	f.Ignore(func(n string) bool { return n == "q_big" && !f.Has("out_big") || n == "k_same" && !f.Has("out_same_k") })
	scale := f.Scale()
	if _, text, ok := strings.Cut(f.Meta("cases"), "softmax scale "); ok {
		text = strings.TrimRight(strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == ' ' })[0], ".,")
		x, err := strconv.ParseFloat(text, 32)
		if err != nil {
			t.Fatal(err)
		}
		scale = float32(x)
	}
	for _, name := range names(f) {
		cfg, c, keys := base, Call{Q: q}, k
		switch name {
		case "bias":
			c.Bias = bias
		case "mask":
			c.Mask = mask
		case "mask_bias_causal":
			cfg.Causal, c.Bias, c.Mask = true, bias, mask
		case "big":
			c.Q, _ = f.Heads("q_big")
			cfg.Causal = true
		case "scale":
			cfg.Scale = scale
		case "zero_q":
			c.Q, cfg.Causal = general(make([]float32, len(q.Data)), q.Rows, q.Cols), true
		case "same_k":
			keys, _ = f.Heads("k_same")
		default:
			t.Errorf("unknown case %s", name)
			continue
		}
		out, lse := attend(t, cfg, c, keys, v)
		compare(f, name, out, lse)
	}
}

func goldenVarlen(t *testing.T, f *golden.File) {
	q, k, v, base := inputs(f, "")
	base.Scale = f.Scale()
	offsets := func(name string) (list []int) {
		for _, x := range f.Int64(name) {
			list = append(list, int(x))
		}
		return list
	}
	c := Call{Q: q, Offsets: offsets("cu_seqlens_q"), KOffsets: offsets("cu_seqlens_k")}
	left := int(f.Number("window_left", -1))
	for _, name := range names(f) {
		cfg := base
		switch name {
		case "full":
		case "causal":
			cfg.Causal = true
		case "window":
			cfg.window(left, 0)
		default:
			t.Errorf("unknown case %s", name)
			continue
		}
		out, lse := attend(t, cfg, c, k, v)
		compare(f, name, out, lse)
	}
}

func goldenSink(t *testing.T, f *golden.File) {
	s := f.Shape("q") // [n, Hkv, q_mult, D]
	q := general(f.Float32("q"), s[0], s[1]*s[2]*s[3])
	k, _ := f.Heads("k")
	v, _ := f.Heads("v")
	base := Config{Heads: s[1] * s[2], KVHeads: s[1], HeadDim: s[3], ValueDim: v.Cols / s[1], Scale: f.Scale(), Causal: true, Sinks: f.Float32("sinks")}
	window := int(f.Number("sliding_window", 0))
	for _, name := range names(f) {
		cfg := base
		switch name {
		case "full":
		case "sliding":
			cfg.Window = window
		default:
			t.Errorf("unknown case %s", name)
			continue
		}
		out, lse := attend(t, cfg, Call{Q: q}, k, v)
		compare(f, name, out, lse)
	}
}

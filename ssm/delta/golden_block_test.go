package delta

import (
	"encoding/json"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

// parameter returns a weight of a file, or the zero matrix: of a convolution [D, 1, W] it
// is [D, W], and a vector is a row.
func parameter(f *golden.File, name string) blas32.General {
	if name = "param." + name; !f.Has(name) {
		return blas32.General{}
	}
	shape := f.Shape(name)
	rows := shape[0]
	if len(shape) == 1 {
		rows = 1
	}
	data := f.Float32(name)
	if rows == 0 {
		return zeros(0, shape[len(shape)-1])
	}
	return mat.Of(data, rows, len(data)/rows)
}

func vectorOf(f *golden.File, name string) []float32 { return parameter(f, name).Data }

// inputs is what block files say beside their config.
func blockOffsets(t *testing.T, f *golden.File) (offsets, first []int) {
	must(t, json.Unmarshal([]byte(f.Meta("offsets")), &offsets))
	if f.Meta("first") != "" {
		must(t, json.Unmarshal([]byte(f.Meta("first")), &first))
	}
	return offsets, first
}

// gatedBlock is what GatedDelta and KDA share.
type gatedBlock interface {
	Block
	ReadWindow(conv blas32.General, st *State) error
	ReadStates(m blas32.General, st *State) error
}

// goldenGated runs a packed batch whole, and the first tokens of each sequence and then
// one at a time; it compares outputs, convolutions' windows, cut into channels with the
// prefixes given, and states.
func goldenGated(t *testing.T, f *golden.File, op gatedBlock, b *gated, prefixes []string, channels []int) {
	offsets, first := blockOffsets(t, f)
	shape := f.Shape("x")
	n, dim := shape[0], shape[1]
	x := mat.Of(f.Float32("x"), n, dim)
	y := zeros(n, dim)
	must(t, op.Run(t.Context(), &BlockCall{Dst: y, X: x, Offsets: offsets}))
	f.Compare("y", y.Data)
	windows, states := map[string][]float32{}, map[string][]float32{}
	keep := func(suffix string, st *State) {
		w, s := zeros(b.taps.Rows-1, b.taps.Cols), zeros(b.rec.cfg.Heads*b.rec.cfg.KeyDim, b.rec.cfg.ValueDim)
		must(t, op.ReadWindow(w, st))
		must(t, op.ReadStates(s, st))
		at := 0
		for i, c := range channels {
			name := prefixes[i] + "conv_state" + suffix
			windows[name] = append(windows[name], golden.Transposed(mat.Columns(w, at, c)).Data...)
			at += c
		}
		states["state"+suffix] = append(states["state"+suffix], s.Data...)
	}
	for s := range len(offsets) - 1 {
		from, to := offsets[s], offsets[s+1]
		st := value[*State](t)(op.NewState(StateConfig{}))
		head := to - from
		if first != nil {
			head = min(head, first[s])
		}
		step := zeros(to-from, dim)
		must(t, op.Step(mat.Rows(step, 0, head), mat.Rows(x, from, from+head), st))
		keep("", st)
		for i := from + head; i < to; i++ {
			must(t, op.StepBatch(mat.Rows(step, i-from, i-from+1), mat.Rows(x, i, i+1), []*State{st}))
		}
		keep("_end", st)
		copy(y.Data[from*dim:], step.Data)
	}
	f.Compare("y", y.Data)
	for name, got := range windows {
		f.Compare(name, got)
	}
	for name, got := range states {
		f.Compare(name, got)
	}
}

func goldenGDN(t *testing.T, f *golden.File) {
	var c struct {
		Hidden   int     `json:"hidden_size"`
		KeyHeads int     `json:"linear_num_key_heads"`
		Heads    int     `json:"linear_num_value_heads"`
		KeyDim   int     `json:"linear_key_head_dim"`
		ValueDim int     `json:"linear_value_head_dim"`
		Taps     int     `json:"linear_conv_kernel_dim"`
		Eps      float64 `json:"rms_norm_eps"`
		Negative bool    `json:"linear_allow_neg_eigval"`
		Act      string  `json:"hidden_act"`
	}
	f.Config("config", &c)
	if c.Act != "" && c.Act != "silu" {
		t.Fatalf("hidden_act is %q", c.Act)
	}
	cfg := GatedDeltaConfig{Heads: c.Heads, KeyHeads: c.KeyHeads, KeyDim: c.KeyDim, ValueDim: c.ValueDim, NormEps: c.Eps, NegativeEigen: c.Negative}
	w := GatedDeltaWeights{
		InQKV: parameter(f, "in_proj_qkv.weight"), InZ: parameter(f, "in_proj_z.weight"), InB: parameter(f, "in_proj_b.weight"), InA: parameter(f, "in_proj_a.weight"),
		Conv: parameter(f, "conv1d.weight"), ALog: vectorOf(f, "A_log"), DtBias: vectorOf(f, "dt_bias"), Norm: vectorOf(f, "norm.weight"), Out: parameter(f, "out_proj.weight"),
	}
	if w.Conv.Cols != c.Taps || w.Out.Rows != c.Hidden {
		t.Fatalf("%d taps, width %d", w.Conv.Cols, w.Out.Rows)
	}
	if layout := f.Meta("layout_name"); layout == "qwen3_next" {
		var err error
		w.InQKV, w.InZ, w.InB, w.InA, err = SplitQKVZ(cfg, parameter(f, "in_proj_qkvz.weight"), parameter(f, "in_proj_ba.weight"))
		must(t, err)
	} else if layout != "qwen3_5" {
		t.Fatalf("layout_name is %q", layout)
	}
	op := value[*GatedDelta](t)(NewGatedDelta(cfg, w))
	goldenGated(t, f, op, &op.gated, []string{""}, []int{op.taps.Cols})
}

func goldenKDA(t *testing.T, f *golden.File) {
	var c struct {
		Hidden   int     `json:"hidden_size"`
		KeyHeads int     `json:"num_heads"`
		Heads    int     `json:"num_v_heads"`
		KeyDim   int     `json:"head_dim"`
		ValueDim int     `json:"head_v_dim"`
		Taps     int     `json:"short_conv_kernel_size"`
		Eps      float64 `json:"rms_norm_eps"`
		Bound    float32 `json:"gate_lower_bound"`
		Negative bool    `json:"allow_neg_eigval"`
	}
	f.Config("config", &c)
	if c.Heads == 0 {
		c.Heads = c.KeyHeads
	}
	cfg := KDAConfig{Heads: c.Heads, KeyHeads: c.KeyHeads, KeyDim: c.KeyDim, ValueDim: c.ValueDim, LowerBound: c.Bound, NormEps: c.Eps, NegativeEigen: c.Negative}
	either := func(names ...string) blas32.General {
		i := slices.IndexFunc(names, func(name string) bool { return f.Has("param." + name) })
		return parameter(f, names[max(i, 0)])
	}
	w := KDAWeights{
		Q: parameter(f, "q_proj.weight"), K: parameter(f, "k_proj.weight"), V: parameter(f, "v_proj.weight"),
		QConv: parameter(f, "q_conv1d.weight"), KConv: parameter(f, "k_conv1d.weight"), VConv: parameter(f, "v_conv1d.weight"),
		FA: either("f_a_proj.weight", "f_proj.0.weight"), FB: either("f_b_proj.weight", "f_proj.1.weight"), DtBias: vectorOf(f, "dt_bias"), ALog: vectorOf(f, "A_log"),
		B: parameter(f, "b_proj.weight"), GA: either("g_a_proj.weight", "g_proj.0.weight"), GB: either("g_b_proj.weight", "g_proj.1.weight"),
		G: parameter(f, "g_proj.weight"), Norm: vectorOf(f, "o_norm.weight"), Out: parameter(f, "o_proj.weight"),
	}
	if f.Has("param.A_log") { // [1, 1, H, 1]
		w.ALog = f.Float32("param.A_log")
	}
	if bias := either("g_b_proj.bias", "g_proj.1.bias"); mat.Given(bias) {
		w.GBias = bias.Data
	}
	if w.QConv.Cols != c.Taps || w.Out.Rows != c.Hidden {
		t.Fatalf("%d taps, width %d", w.QConv.Cols, w.Out.Rows)
	}
	op := value[*KDA](t)(NewKDA(cfg, w))
	goldenGated(t, f, op, &op.gated, []string{"q_", "k_", "v_"}, []int{w.Q.Rows, w.K.Rows, w.V.Rows})
}

func goldenRWKV7(t *testing.T, f *golden.File) {
	var c struct {
		Width int `json:"n_embd"`
		Size  int `json:"head_size"`
		Heads int `json:"n_head"`
		Wide  int `json:"dim_ffn"`
	}
	f.Config("config", &c)
	offsets, _ := blockOffsets(t, f)
	m, v := func(name string) blas32.General { return parameter(f, "att."+name) }, func(name string) []float32 { return vectorOf(f, "att."+name) }
	cfg := RWKV7Config{HeadDim: c.Size, First: f.Meta("layer") == "0"}
	rk := m("r_k")
	op := value[*RWKV7](t)(NewRWKV7(cfg, RWKV7Weights{
		XR: m("x_r").Data, XW: m("x_w").Data, XK: m("x_k").Data, XV: m("x_v").Data, XA: m("x_a").Data, XG: m("x_g").Data,
		W0: v("w0"), W1: m("w1"), W2: m("w2"), A0: v("a0"), A1: m("a1"), A2: m("a2"), V0: v("v0"), V1: m("v1"), V2: m("v2"), G1: m("g1"), G2: m("g2"),
		KK: v("k_k"), KA: v("k_a"), RK: rk.Data, Receptance: m("receptance.weight"), Key: m("key.weight"), Value: m("value.weight"), Out: m("output.weight"),
		Norm: v("ln_x.weight"), NormBias: v("ln_x.bias"),
	}))
	ffn := value[*RWKV7FFN](t)(NewRWKV7FFN(RWKV7FFNConfig{}, RWKV7FFNWeights{XK: vectorOf(f, "ffn.x_k"), Key: parameter(f, "ffn.key.weight"), Value: parameter(f, "ffn.value.weight")}))
	if rk.Rows != c.Heads || op.dim != c.Width || len(ffn.zeros) != c.Wide {
		t.Fatalf("%d heads, width %d and %d", rk.Rows, op.dim, len(ffn.zeros))
	}
	norm := func(name string) dense.Norm {
		return dense.Norm{Weight: vectorOf(f, name+".weight"), Bias: vectorOf(f, name+".bias"), Eps: 1e-5}
	}
	ln1, ln2 := norm("ln1"), norm("ln2")
	x := f.Matrix("x")
	n, dim := x.Rows, c.Width
	first := zeros(n, dim)
	if !cfg.First {
		first = f.Matrix("v_first")
	}
	size := c.Heads * c.Size * c.Size
	initial, attShift, ffnShift := f.Optional("initial_state"), f.Optional("initial_att_shift"), f.Optional("initial_ffn_shift")
	var att, channels []*State
	for s := range len(offsets) - 1 {
		a, b := value[*State](t)(op.NewState(StateConfig{})), value[*State](t)(ffn.NewState(StateConfig{}))
		if initial != nil {
			must(t, op.WriteStates(a, mat.Of(initial[s*size:], c.Heads*c.Size, c.Size)))
		}
		if attShift != nil {
			must(t, op.WriteShift(a, mat.Of(attShift[s*dim:], 1, dim)))
		}
		if ffnShift != nil {
			must(t, ffn.WriteShift(b, mat.Of(ffnShift[s*dim:], 1, dim)))
		}
		att, channels = append(att, a), append(channels, b)
	}
	add := func(to, x blas32.General) {
		for i, v := range x.Data {
			to.Data[i] += v
		}
	}
	y, h := zeros(n, dim), zeros(n, dim)
	mat.Copy(y, x)
	ln1.Forward(h, y)
	must(t, op.Run(t.Context(), &BlockCall{Dst: h, X: h, First: first, Offsets: offsets, States: att}))
	add(y, h)
	ln2.Forward(h, y)
	must(t, ffn.Run(t.Context(), &BlockCall{Dst: h, X: h, Offsets: offsets, States: channels}))
	add(y, h)
	f.Compare("y", y.Data)
	if cfg.First {
		f.Compare("v_first", first.Data)
	}
	var states, shifts, ffnShifts []float32
	for i := range att {
		s, a, b := zeros(c.Heads*c.Size, c.Size), zeros(1, dim), zeros(1, dim)
		must(t, op.ReadStates(s, att[i]))
		must(t, op.ReadShift(a, att[i]))
		must(t, ffn.ReadShift(b, channels[i]))
		states, shifts, ffnShifts = append(states, s.Data...), append(shifts, a.Data...), append(ffnShifts, b.Data...)
	}
	f.Compare("final_state", states)
	f.Compare("final_att_shift", shifts)
	f.Compare("final_ffn_shift", ffnShifts)
}

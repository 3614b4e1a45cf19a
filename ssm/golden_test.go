package ssm

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "ssm", map[string]func(*testing.T, *golden.File){
		"ssm.conv1d":              goldenConv,
		"ssm.mamba1_scan":         goldenScan,
		"ssm.state_update":        goldenStateUpdate,
		"ssm.rmsnorm_gated":       goldenNorm,
		"ssm.mamba2_ssd_combined": goldenSSD,
		"ssm.mamba2_ssd_minimal":  goldenMinimal,
		"ssm.mamba3_siso":         goldenSISO,
		"ssm.mamba1_block":        goldenMamba,
		"ssm.mamba2_block":        goldenMamba2,
	})
}

func zeros(rows, cols int) blas32.General { return mat.New(rows, cols) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func value[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func flag(t *testing.T, f *golden.File, key string) bool {
	switch f.Meta(key) {
	case "True":
		return true
	case "False", "None", "":
		return false
	}
	t.Fatalf("metadata %s is %q", key, f.Meta(key))
	return false
}

func number(t *testing.T, text string) float64 {
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	must(t, err)
	return v
}

// limits reads "(least, most)".
func limits(t *testing.T, text string) (least, most float32) {
	if text == "" || text == "None" {
		return 0, 0
	}
	a, b, ok := strings.Cut(strings.Trim(text, "()[]"), ",")
	if !ok {
		t.Fatalf("dt_limit is %q", text)
	}
	return float32(number(t, a)), limit(number(t, b))
}

// limit is a DtMax: 0 for an infinite one.
func limit(v float64) float32 {
	if v > math.MaxFloat32 {
		return 0
	}
	return float32(v)
}

func goldenConv(t *testing.T, f *golden.File) {
	w := f.Shape("weight")
	channels, taps := w[0], w[len(w)-1]
	f.Sizes(map[string]int{"width": taps})
	silu := f.Meta("activation") == "silu" || f.Meta("activation") == "swish"
	if !silu && f.Meta("activation") != "None" {
		t.Fatalf("activation %q", f.Meta("activation"))
	}
	op := value[*Conv](t)(NewConv(ConvConfig{SiLU: silu}, ConvWeights{mat.Of(f.Float32("weight"), channels, taps), f.Optional("bias")}))
	if f.Has("x") {
		shape := f.Shape("x")
		x, initial := f.Elements("x"), f.Elements("initial_states")
		var out, final []float32
		for b := range shape[0] {
			st := value[*State](t)(op.NewState(StateConfig{}))
			copy(st.fixed.Values, initial.Columns(b, taps-1, channels).Data)
			y := zeros(shape[2], channels)
			must(t, op.Step(y, x.Columns(b, shape[2], channels), st))
			out = append(out, golden.Transposed(y).Data...)
			final = append(final, golden.Transposed(mat.Of(st.fixed.Values, taps-1, channels)).Data...)
		}
		f.Compare("out", out)
		f.Compare("final_states", final)
	}
	if !f.Has("upd_x") {
		return
	}
	// One token at a time for a batch of states, of which the file keeps one column
	// more than is read.
	shape := f.Shape("upd_x")
	x, state := f.Elements("upd_x"), f.Initial("upd_conv_state")
	var states []*State
	var windows []blas32.General
	for b := range shape[1] {
		st := value[*State](t)(op.NewState(StateConfig{}))
		window := state.Columns(b, taps, channels)
		copy(st.fixed.Values, window.Data[channels:])
		states, windows = append(states, st), append(windows, window)
	}
	var out, end []float32
	for i := range shape[0] {
		for b, st := range states {
			copy(windows[b].Data[:channels], st.fixed.Values) // what the step drops
		}
		y := zeros(shape[1], channels)
		must(t, op.StepBatch(y, x.Matrix(i, shape[1], channels), states))
		out = append(out, y.Data...)
	}
	for b, st := range states {
		copy(windows[b].Data[channels:], st.fixed.Values)
		if taps == 1 && shape[0] > 0 {
			copy(windows[b].Data, x.At(shape[0] - 1)[b*channels:])
		}
		end = append(end, golden.Transposed(windows[b]).Data...)
	}
	f.Compare("upd_out", out)
	f.Compare("upd_conv_state", end)
}

func goldenNorm(t *testing.T, f *golden.File) {
	cfg := GatedNormConfig{Eps: number(t, f.Meta("eps")), NormBeforeGate: flag(t, f, "norm_before_gate")}
	if size := f.Meta("group_size"); size != "None" && size != "" {
		cfg.GroupSize = int(number(t, size))
	}
	op := value[*GatedNorm](t)(NewGatedNorm(cfg, GatedNormWeights{f.Float32("weight")}))
	cols := len(f.Float32("weight"))
	matrix := func(name string) blas32.General {
		x := f.Optional(name)
		if x == nil {
			return blas32.General{}
		}
		return mat.Of(x, len(x)/cols, cols)
	}
	x := matrix("x")
	out := zeros(x.Rows, cols)
	must(t, op.Forward(out, x, matrix("z")))
	f.Compare("out", out.Data)
}

// scanWeights reads what the scan and its single step have in common.
func scanWeights(f *golden.File, bias string, channels, states int) ScanWeights {
	return ScanWeights{A: mat.Of(f.Float32("A"), channels, states), D: f.Optional("D"), DtBias: f.Optional(bias)}
}

func goldenScan(t *testing.T, f *golden.File) {
	shape := f.Shape("u")
	batch, channels, n := shape[0], shape[1], shape[2]
	states := f.Shape("A")[1]
	w := scanWeights(f, "delta_bias", channels, states)
	cfg := ScanConfig{Channels: channels, States: states, Softplus: flag(t, f, "delta_softplus")}
	shared, each := map[string]golden.Elements{}, map[string]int{}
	for name, constant := range map[string]*blas32.General{"B": &w.B, "C": &w.C} {
		switch s := f.Shape(name); len(s) {
		case 2:
			*constant = mat.Of(f.Float32(name), channels, states)
		case 3:
			shared[name], each[name] = f.Elements(name), 1
		case 4:
			shared[name], each[name] = f.Elements(name), s[1]
			cfg.Groups = max(cfg.Groups, s[1])
		}
	}
	op := value[*Scan](t)(NewScan(cfg, w))
	u, delta, z, initial := f.Elements("u"), f.Elements("delta"), f.Elements("z"), f.Initial("state")
	split := min(int(f.Number("split", 0)), n)
	var out, last, middle []float32
	for b := range batch {
		st := value[*State](t)(op.NewState(StateConfig{}))
		if initial.Given() {
			must(t, op.Write(st, initial.Matrix(b, channels, states)))
		}
		y := zeros(n, channels)
		call := ScanCall{Dst: y, X: u.Columns(b, n, channels), Dt: delta.Columns(b, n, channels), Z: z.Columns(b, n, channels), State: st}
		groups := func(name string) blas32.General { // one for all groups, where the other is for each
			m := shared[name].Columns(b, n, each[name]*states)
			if each[name] != 1 || cfg.Groups <= 1 {
				return m
			}
			all := zeros(n, cfg.Groups*states)
			for g := range cfg.Groups {
				mat.Copy(mat.Columns(all, g*states, states), m)
			}
			return all
		}
		call.B, call.C = groups("B"), groups("C")
		h := zeros(channels, states)
		for i, part := range [][2]int{{0, split}, {split, n}} {
			c := call
			for _, m := range []*blas32.General{&c.Dst, &c.X, &c.Dt, &c.B, &c.C, &c.Z} {
				if mat.Given(*m) {
					*m = mat.Rows(*m, part[0], part[1])
				}
			}
			must(t, op.Run(t.Context(), &c))
			must(t, op.Read(h, st))
			if i == 0 {
				middle = append(middle, h.Data...)
			}
		}
		out, last = append(out, golden.Transposed(y).Data...), append(last, h.Data...)
	}
	f.Compare("out", out)
	f.CompareLargest("out_max_abs", out)
	f.Compare("last_state", last)
	f.Compare("state_after_split", middle)
}

func goldenStateUpdate(t *testing.T, f *golden.File) {
	shape := f.Shape("x") // steps, batch, [heads,] channels
	steps, batch := shape[0], shape[1]
	channels, states := 1, f.Shape("A")[len(f.Shape("A"))-1]
	for _, d := range shape[2:] {
		channels *= d
	}
	cfg := ScanConfig{Channels: channels, States: states, Softplus: flag(t, f, "dt_softplus")}
	if s := f.Shape("B"); len(s) == 4 {
		cfg.Groups = s[2]
	}
	op := value[*Scan](t)(NewScan(cfg, scanWeights(f, "dt_bias", channels, states)))
	x, dt, b, c, z := f.Elements("x"), f.Elements("dt"), f.Elements("B"), f.Elements("C"), f.Elements("z")
	first := f.Initial("state")
	var list []*State
	for i := range batch {
		st := value[*State](t)(op.NewState(StateConfig{}))
		must(t, op.Write(st, first.Matrix(i, channels, states)))
		list = append(list, st)
	}
	offsets := make([]int, batch+1)
	for i := range offsets {
		offsets[i] = i
	}
	var out, after []float32
	for i := range steps {
		y, wide := zeros(batch, channels), max(cfg.Groups, 1)*states
		must(t, op.Run(t.Context(), &ScanCall{
			Dst: y, X: x.Matrix(i, batch, channels), Dt: dt.Matrix(i, batch, channels), Z: z.Matrix(i, batch, channels),
			B: b.Matrix(i, batch, wide), C: c.Matrix(i, batch, wide), Offsets: offsets, States: list,
		}))
		out = append(out, y.Data...)
		for _, st := range list {
			h := zeros(channels, states)
			must(t, op.Read(h, st))
			after = append(after, h.Data...)
		}
	}
	f.Compare("out", out)
	f.Compare("states", after)
}

// near fails the test unless got and want differ by at most tol of the largest value.
var near = mattest.NearLargest

package longmamba

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/ssm"
)

func TestGolden(t *testing.T) {
	golden.Run(t, "ssm/longmamba", map[string]func(*testing.T, *golden.File){
		"ssm.longmamba_filters":       goldenRules,
		"ssm.longmamba_mamba1":        goldenLongMamba,
		"ssm.longmamba_mamba2":        goldenLongMamba,
		"ssm.longmamba_mamba2_module": goldenLongMambaBlock,
		"ssm.decimamba":               goldenDecimation,
	})
}

// officialMethods are the names of the official code, "" being its default.
var officialMethods = map[string]Method{
	"": ByThreshold, "dt_thre": ByThreshold, "alpha": ByRank, "offline": ByOwnThreshold, "bound": ByBound, "norm": Normalized,
	"channelwise_topk": TopTokens, "all_topk": TopNormTokens, "delta_ratio": DeltaRatio,
}

// meta returns the first of some metadata that is there, or a default.
func meta(f *golden.File, without string, keys ...string) string {
	for _, k := range keys {
		if v := f.Meta(k); v != "" && v != "None" {
			return v
		}
	}
	return without
}

// filterConfig reads the options of a filter.
func filterConfig(t *testing.T, f *golden.File) FilterConfig {
	method, ok := officialMethods[meta(f, "", "method", "our_method")]
	if !ok {
		t.Fatalf("method %q", meta(f, "", "method", "our_method"))
	}
	cfg := FilterConfig{
		Method: method, Threshold: number(t, meta(f, "0.05", "channel_threshold_c", "c")), Scale: number(t, meta(f, "1", "b")),
		TopK: int(number(t, meta(f, "2000", "k", "topk"))), Response: int(number(t, meta(f, "0", "response_length"))),
	}
	if cfg.Threshold == 0 {
		cfg.All = true // all decays are above it
	}
	if cfg.Scale == 0 {
		cfg.Method = Silence
	}
	return cfg
}

func ints(f *golden.File, name string) (list []int) {
	for _, v := range f.Int64(name) {
		list = append(list, int(v))
	}
	return list
}

func compareFlags(f *golden.File, name string, flags []bool) {
	if !f.Has(name) {
		return
	}
	got := make([]int64, len(flags))
	for i, v := range flags {
		if v {
			got[i] = 1
		}
	}
	f.CompareInts(name, got)
}

func compare64(f *golden.File, name string, got []float64) {
	if f.Has(name) {
		f.Compare64(name, got)
	}
}

// goldenLongMamba calibrates a scan or an SSD, filters a sequence, and compares
// tables, steps, outputs and states.
func goldenLongMamba(t *testing.T, f *golden.File) {
	calShape := f.Shape("cal_dt_raw")
	sequences, channels, train := calShape[0], calShape[1], calShape[2]
	shape := f.Shape("dt_raw")
	batch, n := shape[0], shape[2]
	f.Sizes(map[string]int{"train_len": train, "eval_len": n})
	f.CompareMeta("lens", ints(f, "lens"))
	f.Margin("min_rel_margin_dt_vs_thre")
	if kind := f.Meta("kind"); kind != "" && f.Meta("op") != "ssm.longmamba_"+kind {
		t.Fatalf("kind is %q", kind)
	}
	run, op := goldenRecurrence(t, f, channels)
	cal := value[*Calibrator](t)(NewCalibrator(op, CalibrationConfig{
		TrainLength: train, Lengths: ints(f, "lens"), Clamp: number(t, meta(f, "0", "clamp_top", "clamp")), Max: meta(f, "avg", "aggregate") == "max",
	}))
	calDt := f.Elements("cal_dt_raw")
	for k := range sequences {
		run(train, calDt.Columns(k, train, channels), -1, nil, cal.Record)
		must(t, cal.Next())
	}
	c := value[*Calibration](t)(cal.Calibration())
	table := c.Tables[0]
	flat := func(rows [][]float32) []float32 { return slices.Concat(rows...) }
	f.Compare("alpha", flat(table.Alpha))
	f.Compare("dt_thre", flat(table.Threshold))
	compare64(f, "decay_dt_sum", table.DtSum)
	remains := make([]float64, channels)
	for i, v := range table.LogDecay {
		remains[i] = math.Exp(v)
	}
	compare64(f, "tA_prod", remains)
	if want := f.Meta("selected_len"); want != "" && c.Lengths[c.row(n)] != int(number(t, want)) {
		t.Errorf("the row of %d is for %d tokens, want %s", n, c.Lengths[c.row(n)], want)
	}

	filter := value[*Filter](t)(c.NewFilter(filterConfig(t, f)))
	compareFlags(f, "is_global", value[[]bool](t)(filter.Global(0)))
	dt := f.Elements("dt_raw")
	var out, last, filtered, vanilla, lastVanilla []float32
	kept := make([]float64, channels)
	for b := range batch {
		raw, steps := dt.Columns(b, n, channels), zeros(n, channels)
		y, h := run(n, raw, b, nil, ssm.RecordSteps(steps))
		if n > 0 {
			vanilla = append(vanilla, y.Data[(n-1)*y.Cols:n*y.Cols]...)
		}
		lastVanilla = append(lastVanilla, h.Data...)
		must(t, filter.Apply(0, steps))
		if filter.cfg.Method.causal() && n > 0 {
			y, h = run(n, raw, b, filter, ssm.RecordSteps(steps))
		} else {
			y, h = run(n, raw, b, nil, ssm.ReplaySteps(steps))
		}
		filtered = append(filtered, golden.Transposed(steps).Data...)
		for i, v := range steps.Data {
			if v > 0 {
				kept[i%channels] += 1 / float64(batch*n)
			}
		}
		if f.Meta("op") == "ssm.longmamba_mamba1" {
			y = golden.Transposed(y)
		}
		out, last = append(out, y.Data...), append(last, h.Data...)
	}
	f.Compare("dt_filtered", filtered)
	compare64(f, "kept_fraction", kept)
	for i, want := range f.Numbers("kept") {
		if math.Abs(kept[i]-want) > 0.0005+1e-9 { // three digits
			t.Errorf("channel %d keeps %v of its steps, want %v", i, kept[i], want)
		}
	}
	f.Compare("out", out)
	f.Compare("last_state", last)
	f.Compare("out_vanilla_last", vanilla)
	f.Compare("last_state_vanilla", lastVanilla)
}

// runner runs a recurrence over n rows of raw steps: over element b of the file's
// inputs, or over zeros where b is negative. With a filter it runs in three pieces.
type runner func(n int, dt blas32.General, b int, filter *Filter, hook ssm.DeltaFilter) (y, h blas32.General)

// goldenRecurrence returns the recurrence of a file.
func goldenRecurrence(t *testing.T, f *golden.File, channels int) (runner, Operator) {
	x, bs, cs, z := f.Elements("x"), f.Elements("B"), f.Elements("C"), f.Elements("z")
	a, d, bias := f.Float32("A"), f.Optional("D"), f.Float32("dt_bias")
	if f.Meta("op") == "ssm.longmamba_mamba1" {
		states := len(a) / channels
		op := value[*ssm.Scan](t)(ssm.NewScan(ssm.ScanConfig{Channels: channels, States: states, Softplus: true}, ssm.ScanWeights{A: mat.Of(a, channels, states), D: d, DtBias: bias}))
		return func(n int, dt blas32.General, b int, filter *Filter, hook ssm.DeltaFilter) (y, h blas32.General) {
			y, h = zeros(n, channels), zeros(channels, states)
			call := ssm.ScanCall{X: zeros(n, channels), B: zeros(n, states), C: zeros(n, states)}
			if b >= 0 {
				call = ssm.ScanCall{X: x.Columns(b, n, channels), B: bs.Columns(b, n, states), C: cs.Columns(b, n, states), Z: z.Columns(b, n, channels)}
			}
			call.State = value[*ssm.State](t)(op.NewState(ssm.StateConfig{Filter: filter, Prompt: n}))
			pieces(n, filter, func(rows func(m blas32.General) blas32.General) {
				must(t, op.Run(t.Context(), &ssm.ScanCall{Dst: rows(y), X: rows(call.X), Dt: rows(dt), B: rows(call.B), C: rows(call.C), Z: rows(call.Z), State: call.State, Filter: hook}))
			})
			must(t, op.Read(h, call.State))
			return y, h
		}, op
	}
	width, groups, states := f.Shape("x")[3], f.Shape("B")[2], f.Shape("B")[3]
	wide, shared := channels*width, groups*states
	op := value[*ssm.SSD](t)(ssm.NewSSD(ssm.SSDConfig{Heads: channels, HeadDim: width, States: states, Groups: groups, Softplus: true}, ssm.SSDWeights{A: a, D: d, DtBias: bias}))
	return func(n int, dt blas32.General, b int, filter *Filter, hook ssm.DeltaFilter) (y, h blas32.General) {
		y, h = zeros(n, wide), zeros(wide, states)
		call := ssm.SSDCall{X: zeros(n, wide), B: zeros(n, shared), C: zeros(n, shared)}
		if b >= 0 {
			call = ssm.SSDCall{X: x.Matrix(b, n, wide), B: bs.Matrix(b, n, shared), C: cs.Matrix(b, n, shared), Z: z.Matrix(b, n, wide)}
		}
		call.State = value[*ssm.State](t)(op.NewState(ssm.StateConfig{Filter: filter, Prompt: n}))
		pieces(n, filter, func(rows func(m blas32.General) blas32.General) {
			must(t, op.Run(t.Context(), &ssm.SSDCall{Dst: rows(y), X: rows(call.X), Dt: rows(dt), B: rows(call.B), C: rows(call.C), Z: rows(call.Z), State: call.State, Filter: hook}))
		})
		must(t, op.Read(h, call.State))
		return y, h
	}, op
}

// pieces calls f once, or with a filter three times, with what takes a piece's rows.
func pieces(n int, filter *Filter, f func(rows func(m blas32.General) blas32.General)) {
	cuts := []int{0, n}
	if filter != nil {
		cuts = []int{0, n / 3, n / 3 * 2, n}
	}
	for i, from := range cuts[:len(cuts)-1] {
		f(func(m blas32.General) blas32.General {
			if !mat.Given(m) {
				return m
			}
			return mat.Rows(m, from, cuts[i+1])
		})
	}
}

// goldenLongMambaBlock runs a block with tables from the file, and then some tokens
// of decoding.
func goldenLongMambaBlock(t *testing.T, f *golden.File) {
	op, cfg, w := goldenMamba2Block(t, f)
	const trained = 2000 // what the official code has for all models
	from := 3000
	if _, text, ok := strings.Cut(f.Meta("gate"), "seqlen >= "); ok {
		from = int(number(t, text))
	}
	f.Margin("min_rel_margin")
	lens, heads := ints(f, "lens"), len(w.ALog)
	table := Table{DtSum: make([]float64, heads)}
	for _, v := range f.Float64("tA_prod") {
		table.LogDecay = append(table.LogDecay, math.Log(v))
	}
	thresholds := f.Float32("dt_thre")
	for i := range lens {
		table.Threshold = append(table.Threshold, thresholds[i*heads:][:heads])
		table.Alpha = append(table.Alpha, make([]float32, heads))
	}
	c := &Calibration{TrainLength: trained, Lengths: lens, Tables: []Table{table}}
	options := filterConfig(t, f)
	options.From = from
	filter := value[*Filter](t)(c.NewFilter(options))
	global := value[[]bool](t)(filter.Global(0))
	compareFlags(f, "is_global", global)
	count := 0
	for _, g := range global {
		count += int(state.Bool(g))
	}
	f.Sizes(map[string]int{"n_global": count})

	embedding, dim := f.Float32("E"), f.Shape("E")[1]
	embed := func(ids []int) blas32.General {
		m := zeros(len(ids), dim)
		for i, id := range ids {
			copy(m.Data[i*dim:][:dim], embedding[id*dim:])
		}
		return m
	}
	ids := ints(f, "ids")
	n := len(ids) // of one sequence
	if want := f.Meta("selected_len"); want != "" && c.Lengths[c.row(n)] != int(number(t, want)) {
		t.Errorf("the row of %d is for %d tokens, want %s", n, c.Lengths[c.row(n)], want)
	}
	x := embed(ids)
	rows := func(y blas32.General) (out []float32) {
		for _, at := range ints(f, "positions") {
			out = append(out, y.Data[at*dim:][:dim]...)
		}
		return out
	}
	y := zeros(n, dim)
	must(t, op.Forward(y, x))
	f.Compare("y_vanilla_at_positions", rows(y))

	st := value[*ssm.State](t)(op.NewState(ssm.StateConfig{Filter: filter, Prompt: n}))
	steps, split := zeros(n, heads), max(n-1, 0)
	step := func(from, to int) {
		must(t, op.Run(t.Context(), &ssm.BlockCall{Dst: mat.Rows(y, from, to), X: mat.Rows(x, from, to), State: st, Filter: ssm.RecordSteps(steps)}))
	}
	conv := zeros(w.Conv.Cols, w.Conv.Rows) // a row more than is read
	step(0, split)
	must(t, op.ReadWindow(mat.Rows(conv, 0, conv.Rows-1), st))
	step(split, n)
	must(t, op.ReadWindow(mat.Rows(conv, 1, conv.Rows), st))
	f.Compare("y_at_positions", rows(y))
	f.Compare("conv_state", golden.Transposed(conv).Data)
	h := zeros(heads*cfg.HeadDim, cfg.States)
	must(t, op.ReadSSD(h, st))
	f.Compare("ssm_state", h.Data)
	if f.Has("n_kept") {
		kept := make([]int64, heads)
		for i, v := range steps.Data {
			if v > 0 {
				kept[i%heads]++
			}
		}
		f.CompareInts("n_kept", kept)
	}
	if f.Has("ids_decode") {
		next := embed(ints(f, "ids_decode"))
		out := zeros(next.Rows, dim)
		for i := range next.Rows {
			must(t, op.Step(mat.Rows(out, i, i+1), mat.Rows(next, i, i+1), st))
		}
		f.Compare("y_decode", out.Data)
	}
}

// goldenMamba2Block returns the block of a file.
func goldenMamba2Block(t *testing.T, f *golden.File) (*ssm.Mamba2, ssm.Mamba2Config, ssm.Mamba2Weights) {
	var official golden.MambaConfig
	f.Python("config", &official)
	cfg := ssm.Mamba2Config{States: official.DState, HeadDim: official.HeadDim, Groups: official.Groups, NormBeforeGate: official.NormBeforeGate}
	cfg.NoNorm = official.RMSNorm != nil && !*official.RMSNorm
	if l := official.DtLimit; l != nil {
		if cfg.DtMin = float32((*l)[0]); (*l)[1] <= math.MaxFloat32 {
			cfg.DtMax = float32((*l)[1])
		}
	}
	matrix := func(name string) blas32.General {
		shape := f.Shape("param." + name)
		data := f.Float32("param." + name)
		return mat.Of(data, shape[0], len(data)/shape[0])
	}
	vector := func(name string) []float32 { return f.Optional("param." + name) }
	w := ssm.Mamba2Weights{
		In: matrix("in_proj.weight"), InBias: vector("in_proj.bias"), Conv: matrix("conv1d.weight"), ConvBias: vector("conv1d.bias"),
		DtBias: vector("dt_bias"), ALog: vector("A_log"), D: vector("D"), Norm: vector("norm.weight"),
		Out: matrix("out_proj.weight"), OutBias: vector("out_proj.bias"),
	}
	return value[*ssm.Mamba2](t)(ssm.NewMamba2(cfg, w)), cfg, w
}

func number(t *testing.T, text string) float64 {
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	must(t, err)
	return v
}

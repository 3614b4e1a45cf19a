package ssm

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

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
		Tokens: int(number(t, meta(f, "2000", "k", "topk"))), Response: int(number(t, meta(f, "0", "response_length"))),
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
	run, op := goldenRecurrence(t, f, channels)
	cal := value[*Calibrator](t)(op.NewCalibrator(CalibrationConfig{
		TrainLength: train, Lengths: ints(f, "lens"), Clamp: number(t, meta(f, "0", "clamp_top", "clamp")), Max: meta(f, "avg", "aggregate") == "max",
	}))
	calDt := batched(f, "cal_dt_raw")
	for k := range sequences {
		run(train, calDt.columns(k, train, channels), -1, nil, cal.Record)
		must(t, cal.Next())
	}
	c := value[*Calibration](t)(cal.Calibration())
	table := c.Tables[0]
	flat := func(rows [][]float32) []float32 { return slices.Concat(rows...) }
	compare(f, "alpha", flat(table.Alpha))
	compare(f, "dt_thre", flat(table.Threshold))
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
	dt := batched(f, "dt_raw")
	var out, last, filtered, vanilla, lastVanilla []float32
	kept := make([]float64, channels)
	for b := range batch {
		raw, steps := dt.columns(b, n, channels), zeros(n, channels)
		y, h := run(n, raw, b, nil, RecordSteps(steps))
		if n > 0 {
			vanilla = append(vanilla, y.Data[(n-1)*y.Cols:n*y.Cols]...)
		}
		lastVanilla = append(lastVanilla, h.Data...)
		must(t, filter.Apply(0, steps))
		if filter.cfg.Method.causal() && n > 0 {
			y, h = run(n, raw, b, filter, RecordSteps(steps))
		} else {
			y, h = run(n, raw, b, nil, ReplaySteps(steps))
		}
		filtered = append(filtered, transposed(steps).Data...)
		for i, v := range steps.Data {
			if v > 0 {
				kept[i%channels] += 1 / float64(batch*n)
			}
		}
		if f.Meta("op") == "ssm.longmamba_mamba1" {
			y = transposed(y)
		}
		out, last = append(out, y.Data...), append(last, h.Data...)
	}
	compare(f, "dt_filtered", filtered)
	compare64(f, "kept_fraction", kept)
	compare(f, "out", out)
	compare(f, "last_state", last)
	compare(f, "out_vanilla_last", vanilla)
	compare(f, "last_state_vanilla", lastVanilla)
}

// calibrated is a Scan or an SSD.
type calibrated interface {
	NewCalibrator(cfg CalibrationConfig) (*Calibrator, error)
}

// runner runs a recurrence over n rows of raw steps: over element b of the file's
// inputs, or over zeros where b is negative. With a filter it runs in three pieces.
type runner func(n int, dt blas32.General, b int, filter *Filter, hook DeltaFilter) (y, h blas32.General)

// goldenRecurrence returns the recurrence of a file.
func goldenRecurrence(t *testing.T, f *golden.File, channels int) (runner, calibrated) {
	x, bs, cs, z := batched(f, "x"), batched(f, "B"), batched(f, "C"), batched(f, "z")
	a, d, bias := f.Float32("A"), optional(f, "D"), f.Float32("dt_bias")
	if f.Meta("op") == "ssm.longmamba_mamba1" {
		states := len(a) / channels
		op := value[*Scan](t)(NewScan(ScanConfig{Channels: channels, States: states, Softplus: true}, ScanWeights{A: mat.Of(a, channels, states), D: d, DtBias: bias}))
		return func(n int, dt blas32.General, b int, filter *Filter, hook DeltaFilter) (y, h blas32.General) {
			y, h = zeros(n, channels), zeros(channels, states)
			call := ScanCall{X: zeros(n, channels), B: zeros(n, states), C: zeros(n, states)}
			if b >= 0 {
				call = ScanCall{X: x.columns(b, n, channels), B: bs.columns(b, n, states), C: cs.columns(b, n, states), Z: z.columns(b, n, channels)}
			}
			call.State = value[*State](t)(op.NewState(StateConfig{Filter: filter, Prompt: n}))
			pieces(n, filter, func(rows func(m blas32.General) blas32.General) {
				must(t, op.Run(t.Context(), &ScanCall{Dst: rows(y), X: rows(call.X), Dt: rows(dt), B: rows(call.B), C: rows(call.C), Z: rows(call.Z), State: call.State, Filter: hook}))
			})
			must(t, op.Read(h, call.State))
			return y, h
		}, op
	}
	width, groups, states := f.Shape("x")[3], f.Shape("B")[2], f.Shape("B")[3]
	wide, shared := channels*width, groups*states
	op := value[*SSD](t)(NewSSD(SSDConfig{Heads: channels, HeadDim: width, States: states, Groups: groups, Softplus: true}, SSDWeights{A: a, D: d, DtBias: bias}))
	return func(n int, dt blas32.General, b int, filter *Filter, hook DeltaFilter) (y, h blas32.General) {
		y, h = zeros(n, wide), zeros(wide, states)
		call := SSDCall{X: zeros(n, wide), B: zeros(n, shared), C: zeros(n, shared)}
		if b >= 0 {
			call = SSDCall{X: x.matrix(b, n, wide), B: bs.matrix(b, n, shared), C: cs.matrix(b, n, shared), Z: z.matrix(b, n, wide)}
		}
		call.State = value[*State](t)(op.NewState(StateConfig{Filter: filter, Prompt: n}))
		pieces(n, filter, func(rows func(m blas32.General) blas32.General) {
			must(t, op.Run(t.Context(), &SSDCall{Dst: rows(y), X: rows(call.X), Dt: rows(dt), B: rows(call.B), C: rows(call.C), Z: rows(call.Z), State: call.State, Filter: hook}))
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
			if !gated(m) {
				return m
			}
			return mat.Rows(m, from, cuts[i+1])
		})
	}
}

// goldenLongMambaBlock runs a block with tables from the file, and then some tokens
// of decoding.
func goldenLongMambaBlock(t *testing.T, f *golden.File) {
	op := goldenMamba2Block(t, f)
	const trained, from = 2000, 3000 // what the official code has for all models
	lens, heads := ints(f, "lens"), op.heads
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
	compareFlags(f, "is_global", value[[]bool](t)(filter.Global(0)))

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
	compare(f, "y_vanilla_at_positions", rows(y))

	st := value[*State](t)(op.NewState(StateConfig{Filter: filter, Prompt: n}))
	steps, split := zeros(n, heads), max(n-1, 0)
	step := func(from, to int) {
		must(t, op.Run(t.Context(), &BlockCall{Dst: mat.Rows(y, from, to), X: mat.Rows(x, from, to), State: st, Filter: RecordSteps(steps)}))
	}
	conv := zeros(op.conv.taps.Rows, op.conv.taps.Cols) // a row more than is read
	step(0, split)
	must(t, op.ReadWindow(mat.Rows(conv, 0, conv.Rows-1), st))
	step(split, n)
	must(t, op.ReadWindow(mat.Rows(conv, 1, conv.Rows), st))
	compare(f, "y_at_positions", rows(y))
	compare(f, "conv_state", transposed(conv).Data)
	h := zeros(heads*op.cfg.HeadDim, op.cfg.States)
	must(t, op.ReadSSD(h, st))
	compare(f, "ssm_state", h.Data)
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
		compare(f, "y_decode", out.Data)
	}
}

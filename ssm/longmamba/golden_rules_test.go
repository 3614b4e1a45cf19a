package longmamba

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

// goldenRules compares every rule on the steps of one prompt.
func goldenRules(t *testing.T, f *golden.File) {
	shape := f.Shape("dt")
	batch, channels, n := shape[0], shape[1], shape[2]
	options := filterConfig(t, f)
	options.All = true
	input := func(name string) []float32 { // which a file may lack
		if v := f.Optional(name); v != nil {
			return v
		}
		return make([]float32, channels)
	}
	alphas, thresholds := input("alpha"), input("dt_thre")
	var decay []float64
	for _, v := range input("decay") {
		decay = append(decay, float64(v))
	}
	clamped := func(most float64) (alpha []float32) {
		for _, v := range alphas {
			alpha = append(alpha, float32(min(float64(v), most)))
		}
		return alpha
	}
	// filtered returns the steps that a method makes, [batch, n, channels].
	filtered := func(m Method, most float64) []blas32.General {
		cfg := options
		cfg.Method = m
		c := &Calibration{TrainLength: 1, Lengths: []int{max(n, 1)}, Tables: []Table{{
			LogDecay: make([]float64, channels), DtSum: decay, Alpha: [][]float32{clamped(most)}, Threshold: [][]float32{thresholds},
		}}}
		filter := value[*Filter](t)(c.NewFilter(cfg))
		filter.cfg.From = 0
		var out []blas32.General
		for b := range batch {
			dt := f.Elements("dt").Columns(b, n, channels)
			must(t, filter.Apply(0, dt))
			out = append(out, dt)
		}
		return out
	}
	mask := func(name string, m Method, most float64) {
		if !f.Has(name) {
			return
		}
		var got []bool
		for _, dt := range filtered(m, most) {
			for _, v := range golden.Transposed(dt).Data {
				got = append(got, v != 0)
			}
		}
		compareFlags(f, name, got)
	}
	mask("mask_top_alpha", ByRank, 1)
	mask("mask_top_bound", ByBound, 1)
	mask("mask_dt_thre", ByThreshold, 1)
	mask("mask_topk_channelwise", TopTokens, 1)
	most := 0.95 // of the files that do not say: an alpha of 1 has no threshold
	for _, name := range f.Names() {
		if limit, ok := strings.CutPrefix(name, "mask_offline_alpha"); ok {
			most = number(t, strings.TrimPrefix(limit, "_max"))
			mask(name, ByOwnThreshold, most)
		}
	}
	mask("mask_offline", ByOwnThreshold, 1)
	if f.Has("offline_thre") {
		var got []float64
		dt := f.Elements("dt").Columns(0, n, channels)
		for i, alpha := range clamped(most) {
			var steps []float64
			for t := range n {
				steps = append(steps, float64(dt.Data[t*channels+i]))
			}
			got = append(got, ownThreshold(steps, n-options.Response, alpha*float32(options.Scale)))
		}
		f.Compare64("offline_thre", got)
	}
	if f.Has("dt_norm") {
		var got []float32
		for _, dt := range filtered(Normalized, 1) {
			got = append(got, golden.Transposed(dt).Data...)
		}
		f.Compare("dt_norm", got)
	}
	if f.Has("idx_topk_shared") {
		var got []int64
		for t, dt := 0, filtered(TopNormTokens, 1)[0]; t < n; t++ {
			if slices.ContainsFunc(dt.Data[t*channels:][:channels], func(v float32) bool { return v != 0 }) {
				got = append(got, int64(t))
			}
		}
		f.CompareInts("idx_topk_shared", got)
	}
}

// goldenDecimation compares which tokens go on.
func goldenDecimation(t *testing.T, f *golden.File) {
	var official struct {
		Activate    bool    `json:"activate"`
		Type        string  `json:"type"`
		Beta        float64 `json:"beta"`
		MinSeqLen   int     `json:"min_seq_len"`
		LBase       float64 `json:"L_base"`
		Layers      []int   `json:"decimating_layers"`
		RecordDebug bool    `json:"record_debug_params"`
	}
	f.Python("config", &official)
	if official.Type != "max_p" && official.Activate {
		t.Fatalf("type %q", official.Type)
	}
	cfg := DecimationConfig{Base: int(min(official.LBase, math.MaxInt32)), Beta: official.Beta, MinTokens: official.MinSeqLen, Response: int(number(t, meta(f, "0", "response_length")))}
	if official.Activate {
		cfg.Layers = official.Layers
	}
	if cfg.MinTokens == 0 {
		cfg.MinTokens = -1
	}
	d := value[*Decimation](t)(NewDecimation(cfg))
	shape := f.Shape("dt_raw")
	channels, n := shape[1], shape[2]
	raw, bias := f.Elements("dt_raw").Columns(0, n, channels), f.Float32("dt_bias")
	dt := zeros(n, channels)
	for t := range n {
		asm.Add(mat.Row(dt, t), mat.Row(raw, t), bias)
		asm.Softplus(mat.Row(dt, t), mat.Row(dt, t))
	}
	layer, err := strconv.Atoi(meta(f, "-1", "layer", "layer_num"))
	must(t, err)
	kept := value[[]int](t)(d.Keep(layer, dt))
	if f.Has("indices") {
		got := make([]int64, len(kept))
		for i, v := range kept {
			got[i] = int64(v)
		}
		f.CompareInts("indices", got)
	}
}

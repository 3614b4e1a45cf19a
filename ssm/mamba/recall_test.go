package mamba

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/ssm"
	"github.com/subquad/subquad/ssm/longmamba"
)

// recall is the trained model of examples/recall, and what the official code makes of
// it, in float64.
type recall struct {
	model              *Model
	calibration, cases *weights.File
}

func openRecall(t *testing.T) *recall {
	t.Helper()
	dir := filepath.Join("..", "..", "examples", "recall")
	m, err := Open(filepath.Join(dir, "model", "model.safetensors"), Config{})
	must(t, err)
	r := &recall{model: m}
	for name, file := range map[string]**weights.File{"calibration": &r.calibration, "cases": &r.cases} {
		f, err := weights.Open(filepath.Join(dir, "testdata", name+".safetensors"))
		must(t, err)
		t.Cleanup(func() { f.Close() })
		*file = f
	}
	return r
}

func floats(t *testing.T, f *weights.File, name string) []float64 {
	t.Helper()
	v, err := f.Tensor(name).Float64()
	must(t, err)
	return v
}

func ints(t *testing.T, f *weights.File, name string) []int {
	t.Helper()
	v, err := f.Tensor(name).Int64()
	must(t, err)
	out := make([]int, len(v))
	for i, x := range v {
		out[i] = int(x)
	}
	return out
}

// sequences returns the rows of a matrix of tokens.
func sequences(t *testing.T, f *weights.File, name string) (list [][]int32) {
	t.Helper()
	ids, n := ints(t, f, name), f.Tensor(name).Shape[1]
	for from := 0; from < len(ids); from += n {
		var s []int32
		for _, id := range ids[from : from+n] {
			s = append(s, int32(id))
		}
		list = append(list, s)
	}
	return list
}

// calibrate makes the tables from scratch; prefix is "" or "alt.".
func (r *recall) calibrate(t *testing.T, prefix string) *longmamba.Calibration {
	t.Helper()
	c, err := r.model.Calibrate(t.Context(), sequences(t, r.calibration, "calib_ids"), longmamba.CalibrationConfig{
		Lengths: ints(t, r.calibration, "lens"), Clamp: floats(t, r.calibration, prefix+"clamp")[0],
	})
	must(t, err)
	return c
}

func (r *recall) filter(t *testing.T, c *longmamba.Calibration, prefix string, response int) *longmamba.Filter {
	t.Helper()
	f, err := c.NewFilter(longmamba.FilterConfig{
		Threshold: floats(t, r.calibration, "c")[0], Scale: floats(t, r.calibration, prefix+"b")[0], Response: response,
	})
	must(t, err)
	return f
}

// TestRecallTables compares calibrations with the official code's.
func TestRecallTables(t *testing.T) {
	r := openRecall(t)
	isatest.Run(t, func(t *testing.T) {
		for _, prefix := range []string{"", "alt."} {
			if prefix != "" && testing.Short() {
				continue
			}
			c := r.calibrate(t, prefix)
			for i, table := range c.Tables {
				name := func(s string) string { return prefix + "layers." + string(rune('0'+i)) + "." + s }
				within := func(s string, got []float64, tol float64) {
					t.Helper()
					if r.calibration.Tensor(name(s)) == nil {
						return
					}
					for j, want := range floats(t, r.calibration, name(s)) {
						if !(math.Abs(got[j]-want) <= tol*math.Max(math.Abs(want), 1e-3)) {
							t.Errorf("%s: element %d is %v, want %v", name(s), j, got[j], want)
						}
					}
				}
				var remains, alpha, thresholds []float64
				for _, v := range table.LogDecay {
					remains = append(remains, math.Exp(v))
				}
				for row := range c.Lengths {
					for j := range table.LogDecay {
						alpha, thresholds = append(alpha, float64(table.Alpha[row][j])), append(thresholds, float64(table.Threshold[row][j]))
					}
				}
				within("tA_prod", remains, 1e-5)
				within("decay_dt_sum", table.DtSum, 1e-5)
				within("alpha", alpha, 1e-5)
				within("dt_thre", thresholds, 1e-5)
				filter, err := c.NewFilter(longmamba.FilterConfig{})
				must(t, err)
				global, err := filter.Global(i)
				must(t, err)
				for j, want := range ints(t, r.calibration, name("is_global")) {
					if global[j] != (want == 1) {
						t.Errorf("%s: head %d is %v", name("is_global"), j, global[j])
					}
				}
			}
		}
		if testing.Short() {
			return
		}
		// The file's logarithms are the mean of the sequences'.
		var mean [2][8]float64
		ids := sequences(t, r.calibration, "calib_ids")
		for _, s := range ids {
			c, err := r.model.Calibrate(t.Context(), [][]int32{s}, longmamba.CalibrationConfig{Clamp: 0.12})
			must(t, err)
			for i, table := range c.Tables {
				for j, v := range table.LogDecay {
					mean[i][j] += v / float64(len(ids))
				}
			}
		}
		for i, name := range []string{"layers.0.log_tA", "layers.1.log_tA"} {
			for j, want := range floats(t, r.calibration, name) {
				if !(math.Abs(mean[i][j]-want) <= 1e-5*math.Abs(want)) {
					t.Errorf("%s: %d is %v, want %v", name, j, mean[i][j], want)
				}
			}
		}
	})
}

// TestRecallCases compares logits and counts of kept tokens, of prompts whole and in
// pieces.
func TestRecallCases(t *testing.T) {
	r := openRecall(t)
	isatest.Run(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		calibrations := map[string]*longmamba.Calibration{}
		for _, c := range []struct {
			name, logits, kept, tables string
			response                   int
			vanilla                    bool
		}{
			{name: "x1", logits: "logits_vanilla", vanilla: true},
			{name: "x1", logits: "logits_longmamba"},
			{name: "x1", logits: "logits_longmamba_query_unfiltered", response: 12},
			{name: "odd300", logits: "logits_vanilla", vanilla: true},
			{name: "odd300", logits: "logits_longmamba", kept: "kept_tokens"},
			{name: "x8", logits: "logits_vanilla", vanilla: true},
			{name: "x8", logits: "logits_longmamba", kept: "kept_tokens"},
			{name: "x8", logits: "logits_longmamba_query_unfiltered", response: 12},
			{name: "x8", logits: "logits_longmamba_alt", kept: "kept_tokens_alt", tables: "alt."},
			{name: "x32", logits: "logits_vanilla", vanilla: true},
			{name: "x32", logits: "logits_longmamba", kept: "kept_tokens"},
			{name: "x32", logits: "logits_longmamba_query_unfiltered", response: 12},
			{name: "x32", logits: "logits_longmamba_alt", kept: "kept_tokens_alt", tables: "alt."},
		} {
			list := sequences(t, r.cases, c.name+".ids")
			switch {
			case c.name == "x32" && (testing.Short() || asm.Active() == "generic"), c.name == "x8" && testing.Short() && asm.Active() == "generic":
				t.Logf("%s left out, for it takes long", c.name)
				continue
			case testing.Short():
				list = list[:1]
			}
			var filter *longmamba.Filter
			if !c.vanilla {
				if calibrations[c.tables] == nil {
					calibrations[c.tables] = r.calibrate(t, c.tables)
				}
				filter = r.filter(t, calibrations[c.tables], c.tables, c.response)
			}
			for i, ids := range list {
				whole, steps := r.run(t, ids, filter, []int{len(ids)})
				r.compare(t, c.name, c.logits, i, whole)
				if c.kept != "" {
					r.compareKept(t, c.name+"."+c.kept, i, steps)
				}
				cuts := []int{random.IntN(len(ids)), random.IntN(len(ids)), len(ids)}
				slices.Sort(cuts)
				pieces, _ := r.run(t, ids, filter, cuts)
				near(t, "in pieces", pieces.Data, whole.Data, 1e-4)
			}
		}
	})
}

// run returns the logits after each token of a prompt in pieces, and the steps.
func (r *recall) run(t *testing.T, ids []int32, f *longmamba.Filter, cuts []int) (logits blas32.General, steps []blas32.General) {
	t.Helper()
	st, err := r.model.NewState(ssm.StateConfig{Filter: f, Prompt: len(ids)})
	must(t, err)
	logits = zeros(len(ids), r.model.cfg.Vocab)
	for _, b := range r.model.blocks {
		steps = append(steps, zeros(len(ids), b.Channels()))
	}
	record := func(layer int) ssm.DeltaFilter { return ssm.RecordSteps(steps[layer]) }
	from := 0
	for _, to := range cuts {
		must(t, r.model.Run(t.Context(), &Call{Tokens: ids[from:to], Logits: mat.Rows(logits, from, to), State: st, Filter: record}))
		from = to
	}
	return logits, steps
}

func (r *recall) compare(t *testing.T, name, tensor string, sequence int, logits blas32.General) {
	t.Helper()
	at, want := ints(t, r.cases, name+".answer_pos"), floats(t, r.cases, name+"."+tensor)
	answers, v := r.cases.Tensor(name + ".answer_pos").Shape[1], logits.Cols
	for j := range answers {
		got := mat.Row(logits, at[sequence*answers+j])
		for k, w := range want[(sequence*answers+j)*v:][:v] {
			if d := math.Abs(float64(got[k]) - w); !(d <= 1e-3) {
				t.Fatalf("%s.%s: sequence %d, answer %d: logit %d is %v, want %v", name, tensor, sequence, j, k, got[k], w)
			}
		}
	}
}

// compareKept compares how many steps are not 0: exactly in layer 0, and to one in
// layer 1, where a step lies closer to its threshold than float32 can tell.
func (r *recall) compareKept(t *testing.T, name string, sequence int, steps []blas32.General) {
	t.Helper()
	want := ints(t, r.cases, name)
	for layer, m := range steps {
		for h := range m.Cols {
			kept := 0
			for i := range m.Rows {
				if mat.Row(m, i)[h] > 0 {
					kept++
				}
			}
			if w := want[(sequence*len(steps)+layer)*m.Cols+h]; kept < w-layer || kept > w+layer {
				t.Errorf("%s: sequence %d, layer %d, head %d keeps %d tokens, want %d", name, sequence, layer, h, kept, w)
			}
		}
	}
}

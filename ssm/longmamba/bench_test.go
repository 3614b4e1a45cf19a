package longmamba

import (
	"fmt"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/ssm"
)

// benchmarkTable is a calibration of which a filter keeps about a fraction of the
// tokens in three channels of four, global ones.
func benchmarkTable(b testing.TB, block ssm.Block, dt blas32.General, kept float64) *Calibration {
	channels := block.Channels()
	t := Table{DtSum: make([]float64, channels), LogDecay: make([]float64, channels), Alpha: [][]float32{make([]float32, channels)}, Threshold: [][]float32{make([]float32, channels)}}
	for i := range channels {
		if i%4 == 3 {
			t.LogDecay[i] = -1e3
		}
		var steps []float64
		for row := range dt.Rows {
			steps = append(steps, float64(dt.Data[row*dt.Stride+i]))
		}
		t.Threshold[0][i] = float32(sorted(steps)[int(kept*float64(len(steps)))])
	}
	return &Calibration{TrainLength: 1, Lengths: []int{1}, Tables: []Table{t}}
}

// BenchmarkLongMamba is a prefill of one block, of the shapes of the models of 130
// million parameters, without a filter and with one.
func BenchmarkLongMamba(b *testing.B) {
	const n, dim = 2048, 768
	w2 := mamba2Weights(dim, 24, 64, 128, 1, 4)
	for i := range w2.DtBias { // dt of 0.001 to 0.1 and A of -1 to -16, as at the begin of training
		w2.DtBias[i], w2.ALog[i] = -7+float32(i%24)*0.2, float32(i%24)*0.115
	}
	w1 := mambaWeights(dim, 2*dim, 16, 48, 4)
	for i := range w1.DtBias {
		w1.DtBias[i] = -7 + float32(i%24)*0.2
	}
	for name, block := range map[string]ssm.Block{
		"mamba1": value[*ssm.Mamba](b)(ssm.NewMamba(ssm.MambaConfig{}, w1)),
		"mamba2": value[*ssm.Mamba2](b)(ssm.NewMamba2(ssm.Mamba2Config{}, w2)),
	} {
		x, y, dt := random(1, n, dim, 0.2, 0), zeros(n, dim), zeros(n, block.Channels())
		must(b, block.Run(b.Context(), &ssm.BlockCall{Dst: y, X: x, Filter: ssm.RecordSteps(dt)}))
		for _, kept := range []float64{-1, 0.5, 0.01} {
			var filter *Filter
			what := "vanilla"
			if kept >= 0 {
				filter = value[*Filter](b)(benchmarkTable(b, block, dt, kept).NewFilter(FilterConfig{}))
				what = fmt.Sprintf("kept=%g", kept)
			}
			b.Run(fmt.Sprintf("%s/%s/n=%d", name, what, n), func(b *testing.B) {
				st := value[*ssm.State](b)(block.NewState(ssm.StateConfig{Filter: filter, Prompt: n}))
				b.ReportAllocs()
				for b.Loop() {
					st.Reset()
					must(b, block.Step(y, x, st))
				}
				b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
	}
}

package ssm

import (
	"math"
	"runtime"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"
)

// TestMillion runs a million tokens in the memory that a thousand took, right to
// the end.
func TestMillion(t *testing.T) {
	n := 1 << 20
	if testing.Short() {
		t.Log("-short: 8192 tokens instead of 1048576")
		n = 1 << 13
	}
	const states = 2
	a := blas32.General{Rows: 1, Cols: states, Stride: states, Data: []float32{-0.5, -1e-5}}
	scan := value[*Scan](t)(NewScan(ScanConfig{Channels: 1, States: states, Workers: 1}, ScanWeights{A: a}))
	ssd := value[*SSD](t)(NewSSD(SSDConfig{Heads: 1, HeadDim: 1, States: states, Workers: 1}, SSDWeights{A: []float32{-1e-4}}))
	x, dt, b, c := random(1, n, 1, 1, 0), random(2, n, 1, 0.3, 0.5), random(3, n, states, 1, 0), random(4, n, states, 1, 0)
	for i, v := range dt.Data {
		dt.Data[i] = float32(math.Abs(float64(v)))
	}
	dst := zeros(n, 1)
	first := func(m blas32.General) blas32.General { m.Rows = 1000; return m }
	for name, run := range map[string]struct {
		forward func(dst, x, dt, b, c blas32.General) error
		said    func(tokens int) int64
		want    []float32
	}{
		"scan": {scan.Forward, scan.ScratchBytes, scan64(ScanConfig{Channels: 1, States: states, Groups: 1}, ScanWeights{A: a}, &ScanCall{X: x, Dt: dt, B: b, C: c}, make([]float64, states))},
		"SSD":  {ssd.Forward, ssd.ScratchBytes, ssd64(x, dt, b, c, []float32{-1e-4}, []float32{0}, 1, 1)},
	} {
		if a, b := run.said(1000), run.said(n); a != b {
			t.Errorf("%s: 1000 tokens take %d bytes, %d take %d", name, a, n, b)
		}
		must(t, run.forward(first(dst), first(x), first(dt), first(b), first(c)))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		must(t, run.forward(dst, x, dt, b, c))
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 32<<10 { // what else runs may take some
			t.Errorf("%s: %d bytes allocated", name, took)
		}
		near(t, name, dst.Data, run.want, 1e-4)
	}
}

package ssm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"
)

func normal(seed uint64, scale, offset float64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(offset + scale*r.NormFloat64())
	}
	return x
}

func random(seed uint64, rows, cols int, scale, offset float64) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: normal(seed, scale, offset, rows*cols)}
}

// decays returns n random negative rates, exp of a normal distribution.
func decays(seed uint64, n int) []float32 {
	a := normal(seed, 1, 1, n)
	for i, v := range a {
		a[i] = -float32(math.Exp(float64(v)))
	}
	return a
}

func BenchmarkScan(b *testing.B) {
	const d, s = 1536, 16
	op := value[*Scan](b)(NewScan(ScanConfig{Channels: d, States: s, Softplus: true},
		ScanWeights{A: blas32.General{Rows: d, Cols: s, Stride: s, Data: decays(1, d*s)}}))
	for _, n := range []int{2048, 8192} {
		b.Run(fmt.Sprintf("mamba1/d=%d/s=%d/n=%d", d, s, n), func(b *testing.B) {
			benchmarkScan(b, op, d, s, n)
		})
	}
}

// BenchmarkScanLong is row 13 of the scoreboard: the cost of an element does not
// grow with the length.
func BenchmarkScanLong(b *testing.B) {
	const d, s = 64, 16
	op := value[*Scan](b)(NewScan(ScanConfig{Channels: d, States: s, Softplus: true},
		ScanWeights{A: blas32.General{Rows: d, Cols: s, Stride: s, Data: decays(1, d*s)}}))
	for _, n := range []int{8 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("d=%d/s=%d/n=%d", d, s, n), func(b *testing.B) { benchmarkScan(b, op, d, s, n) })
	}
}

func benchmarkScan(b *testing.B, op *Scan, d, s, n int) {
	x, dt := random(2, n, d, 0.5, 0), random(3, n, d, 1, -4)
	bs, cs, dst := random(4, n, s, 0.5, 0), random(5, n, s, 0.5, 0), zeros(n, d)
	must(b, op.Forward(dst, x, dt, bs, cs))
	b.ReportAllocs()
	for b.Loop() {
		must(b, op.Forward(dst, x, dt, bs, cs))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n*d*s), "ns/state·step")
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "tokens/s")
}

// BenchmarkSSD has the rates and steps of the program it is compared with: A from -1
// to -5, dt from 0.01 to 0.06.
func BenchmarkSSD(b *testing.B) {
	const h, p, s = 24, 64, 128
	r := rand.New(rand.NewPCG(1, 1))
	a := make([]float32, h)
	for i := range a {
		a[i] = float32(-1 - 4*r.Float64())
	}
	op := value[*SSD](b)(NewSSD(SSDConfig{Heads: h, HeadDim: p, States: s, Softplus: true}, SSDWeights{A: a}))
	for _, n := range []int{2048, 16384} {
		b.Run(fmt.Sprintf("h=%d/p=%d/s=%d/n=%d", h, p, s, n), func(b *testing.B) {
			x, dt := random(2, n, h*p, 0.5, 0), zeros(n, h)
			for i := range dt.Data { // in front of the softplus
				dt.Data[i] = float32(math.Log(math.Expm1(0.01 + 0.05*r.Float64())))
			}
			bs, cs, dst := random(4, n, s, 0.5, 0), random(5, n, s, 0.5, 0), zeros(n, h*p)
			must(b, op.Forward(dst, x, dt, bs, cs))
			b.ReportAllocs()
			for b.Loop() {
				must(b, op.Forward(dst, x, dt, bs, cs))
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n*h*p*s), "ns/state·step")
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

// BenchmarkSSDPiece is what decides where chunks begin to pay: pieces of n tokens.
func BenchmarkSSDPiece(b *testing.B) {
	const h, p, s = 24, 64, 128
	for _, n := range []int{1, 4, 8, 12, 16, 24, 32, 64} {
		for _, recurrent := range []bool{false, true} {
			op := value[*SSD](b)(NewSSD(SSDConfig{Heads: h, HeadDim: p, States: s, Softplus: true, Recurrent: recurrent}, SSDWeights{A: decays(1, h)}))
			b.Run(fmt.Sprintf("recurrent=%v/n=%d", recurrent, n), func(b *testing.B) {
				x, dt := random(2, n, h*p, 0.5, 0), random(3, n, h, 1, -4)
				bs, cs, dst := random(4, n, s, 0.5, 0), random(5, n, s, 0.5, 0), zeros(n, h*p)
				st := value[*State](b)(op.NewState(StateConfig{}))
				for b.Loop() {
					st.fixed.N = 0
					must(b, op.Step(dst, x, dt, bs, cs, st))
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n*h*p*s), "ns/state·step")
			})
		}
	}
}

// BenchmarkSSDFiltered is the recurrence alone, of which a filter keeps a part.
func BenchmarkSSDFiltered(b *testing.B) {
	const h, p, s, n = 24, 64, 128, 2048
	a := make([]float32, h)
	for i := range a {
		a[i] = -1 - 4*float32(i)/h
	}
	op := value[*SSD](b)(NewSSD(SSDConfig{Heads: h, HeadDim: p, States: s}, SSDWeights{A: a}))
	x, bs, cs, dst := random(2, n, h*p, 0.5, 0), random(4, n, s, 0.5, 0), random(5, n, s, 0.5, 0), zeros(n, h*p)
	r := rand.New(rand.NewPCG(1, 1))
	for _, kept := range []float64{1, 0.5, 0.05, 0.01, 0} {
		b.Run(fmt.Sprintf("h=%d/p=%d/s=%d/n=%d/kept=%g", h, p, s, n, kept), func(b *testing.B) {
			dt := zeros(n, h)
			for i := range dt.Data {
				if r.Float64() < kept {
					dt.Data[i] = 0.01 + 0.05*r.Float32()
				}
			}
			for b.Loop() {
				must(b, op.Forward(dst, x, dt, bs, cs))
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n*h*p*s), "ns/state·step")
		})
	}
}

package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// TestCosSin takes the ends and the middle of every eighth of a turn, and phases
// spread over all of it.
func TestCosSin(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		var phases []uint32
		for eighth := range uint32(8) {
			for d := range uint32(64) {
				phases = append(phases, eighth<<29+d-32, eighth<<29+1<<28+d-32)
			}
		}
		r := rand.New(rand.NewPCG(1, 2))
		for range 1 << 17 {
			phases = append(phases, r.Uint32(), r.Uint32()>>r.IntN(32), -(r.Uint32() >> r.IntN(32)))
		}
		for _, factor := range []float32{1, -1.5} {
			cos, sin := random(1, len(phases)), random(2, len(phases))
			CosSin(cos, sin, phases, factor)
			var worst float64
			for i, p := range phases {
				angle := float64(int32(p)) * (math.Pi / (1 << 31))
				worst = max(worst, math.Abs(float64(cos[i])-float64(factor)*math.Cos(angle)), math.Abs(float64(sin[i])-float64(factor)*math.Sin(angle)))
			}
			limit := 1.2e-7
			if factor != 1 {
				limit = 2e-7 * math.Abs(float64(factor))
			}
			if !(worst < limit) {
				t.Errorf("factor %v: error %.3g, want less than %.3g", factor, worst, limit)
			}
		}
	})
}

func TestCosSinGuarded(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, low := range []bool{false, true} {
			for n := 1; n < 40; n++ {
				words := guarded(t, n, low)
				phase := unsafe.Slice((*uint32)(unsafe.Pointer(&words[0])), n)
				CosSin(guarded(t, n, low), guarded(t, n, low), phase, 1)
			}
		}
	})
}

func TestCosSinPanics(t *testing.T) {
	x, c := make([]float32, 12), make([]float32, 4)
	mustPanic(t, "kernel: CosSin: sin has 2 elements, want 3", func() { CosSin(c[:3], x[:2], make([]uint32, 3), 1) })
	mustPanic(t, "kernel: CosSin: cos overlaps sin", func() { CosSin(x[:3], x[1:4], make([]uint32, 3), 1) })
}

func BenchmarkCosSin(b *testing.B) {
	const n = 64
	phase, cos, sin := make([]uint32, n), make([]float32, n), make([]float32, n)
	for i := range phase {
		phase[i] = uint32(i) << 26
	}
	for b.Loop() {
		CosSin(cos, sin, phase, 1)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/element")
}

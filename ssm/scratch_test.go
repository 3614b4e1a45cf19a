package ssm

import (
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// scratchLengths are fewer tokens than a chunk and than a piece, and more.
func scratchLengths() []int {
	if testing.Short() {
		return []int{1, 100}
	}
	return []int{1, 100, 1300}
}

// TestScratchBytes compares the memory that a call keeps with what was said before.
func TestScratchBytes(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		mamba := value[*Mamba](t)(NewMamba(MambaConfig{Workers: 2}, mambaWeights(24, 96, 5, 3, 4)))
		mamba2 := value[*Mamba2](t)(NewMamba2(Mamba2Config{States: 36, HeadDim: 40, Groups: 2, Workers: 2}, mamba2Weights(24, 5, 4, 40, 36, 2, 4)))
		scan := value[*Scan](t)(NewScan(ScanConfig{Channels: 1000, States: 7, Workers: 2}, ScanWeights{A: mat.Of(decays(1, 7000), 1000, 7)}))
		constant := value[*Scan](t)(NewScan(ScanConfig{Channels: 40, States: 7, Workers: 2}, ScanWeights{A: mat.Of(decays(1, 280), 40, 7), C: random(1, 40, 7, 1, 0)}))
		ssd := value[*SSD](t)(NewSSD(SSDConfig{Heads: 6, HeadDim: 33, States: 20, Groups: 3, Workers: 2}, SSDWeights{A: decays(1, 6)}))
		fast := value[*SSD](t)(NewSSD(SSDConfig{Heads: 6, HeadDim: 33, States: 20, Groups: 3, Workers: 2}, SSDWeights{A: []float32{-900, -900, -900, -900, -900, -1}}))
		siso := value[*SISO](t)(NewSISO(SISOConfig{Heads: 4, HeadDim: 40, States: 160, Angles: 3, Workers: 2}, SISOWeights{}))
		conv := value[*Conv](t)(NewConv(ConvConfig{Workers: 2}, ConvWeights{Weight: random(1, 3000, 4, 1, 0)}))
		ones := func(rows, cols int) blas32.General {
			m := zeros(rows, cols)
			for i := range m.Data {
				m.Data[i] = 0.1
			}
			return m
		}
		for _, s := range []struct {
			name    string
			forward func(n int) error
			said    func(tokens int) int64
			scratch func() any
		}{
			{"Mamba", func(n int) error { return mamba.Forward(zeros(n, 24), ones(n, 24)) }, mamba.ScratchBytes, func() any { return mamba.scratch.list.Get() }},
			{"Mamba2", func(n int) error { return mamba2.Forward(zeros(n, 24), ones(n, 24)) }, mamba2.ScratchBytes, func() any { return mamba2.scratch.list.Get() }},
			{"Scan", func(n int) error {
				return scan.Forward(zeros(n, 1000), ones(n, 1000), ones(n, 1000), ones(n, 7), ones(n, 7))
			}, scan.ScratchBytes, func() any { return scan.scratch.Get() }},
			{"Scan with a constant", func(n int) error {
				return constant.Forward(zeros(n, 40), ones(n, 40), ones(n, 40), ones(n, 7), blas32.General{})
			}, constant.ScratchBytes, func() any { return constant.scratch.Get() }},
			{"SSD", func(n int) error {
				return ssd.Forward(zeros(n, 198), ones(n, 198), ones(n, 6), ones(n, 60), ones(n, 60))
			}, ssd.ScratchBytes, func() any { return ssd.scratch.Get() }},
			{"SSD by products", func(n int) error {
				return fast.Forward(zeros(n, 198), ones(n, 198), ones(n, 6), ones(n, 60), ones(n, 60))
			}, fast.ScratchBytes, func() any { return fast.scratch.Get() }},
			{"SSD of which a head passes over tokens", func(n int) error {
				return ssd.Run(t.Context(), &SSDCall{
					Dst: zeros(n, 198), X: ones(n, 198), Dt: ones(n, 6), B: ones(n, 60), C: ones(n, 60),
					Filter: func(pos, _ int, dt []float32) {
						if pos%32 > 0 {
							dt[0] = 0
						}
					},
				})
			}, ssd.ScratchBytes, func() any { return ssd.scratch.Get() }},
			{"SISO", func(n int) error {
				return siso.Forward(zeros(n, 160), ones(n, 160), ones(n, 4), ones(n, 4), ones(n, 4), ones(n, 160), ones(n, 160), ones(n, 12))
			}, siso.ScratchBytes, func() any { return siso.scratch.Get() }},
			{"Conv", func(n int) error { return conv.Forward(zeros(n, 3000), ones(n, 3000)) }, conv.ScratchBytes, func() any { return conv.scratch.Get() }},
		} {
			for _, n := range scratchLengths() {
				must(t, s.forward(n))
				if said, held := s.said(n), isatest.Held(s.scratch()); held > said || held < said/6 {
					t.Errorf("%s: %d tokens take %d bytes, said %d", s.name, n, held, said)
				}
			}
		}
	})
}

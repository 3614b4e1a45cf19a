package hyena

import (
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// TestConvScratchBytes compares what a call keeps with what was said before.
func TestConvScratchBytes(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, channels := range []int{1, 3, 70} {
			for _, n := range []int{1, 40, 700, 5000} {
				for _, spectra := range []int64{1, 0} {
					c := mustConv(t, ConvConfig{Kernel: matrix(1, n, channels, 0), Workers: 3, SpectraBytes: spectra})
					u := matrix(2, n, channels, 0)
					if err := c.Forward(u, u); err != nil {
						t.Fatal(err)
					}
					s := c.scratch.convs.Get()
					s.units = nil
					held := isatest.Held(s)
					if said := c.ScratchBytes(n); held > said || spectra == 1 && held < said/8 {
						t.Errorf("%d channels of %d, spectra in %d bytes: holds %d bytes, said %d", channels, n, spectra, held, said)
					}
				}
			}
		}
	})
}

// TestOperatorScratchBytes does so for an operator, with the convolutions it uses.
func TestOperatorScratchBytes(t *testing.T) {
	for _, n := range []int{1, 40, 700, 5000} {
		op := mustOperator(t, OperatorConfig{Dim: 24, Order: 3, Workers: 3, SpectraBytes: 1}, testWeights(t, 24, 3, 3, n))
		x := small(1, n, 24)
		if err := op.Forward(x, x); err != nil {
			t.Fatal(err)
		}
		convs := op.scratch.convs.Get()
		convs.units = nil
		held := isatest.Held(op.scratch.operators.Get()) + isatest.Held(convs)
		if said := op.ScratchBytes(n); held > said || held < said/8 {
			t.Errorf("%d tokens: holds %d bytes, said %d", n, held, said)
		}
	}
}

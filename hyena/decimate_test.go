package hyena

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/subquad/subquad/internal/mat"
)

// TestDecimate: every M-th output of the convolution, however the inputs are cut.
func TestDecimate(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 60 {
		n, taps, factor, c := 1+r.IntN(300), 1+r.IntN(40), 1+r.IntN(9), 1+r.IntN(20)
		k, x := quiet(1, taps, c), matrix(2, n, c, 1)
		d, err := NewDecimate(DecimateConfig{Kernel: k, Factor: factor})
		if err != nil {
			t.Fatal(err)
		}
		got, all := mat.New(d.Outputs(0, n), c), mat.New(n, c)
		if err := d.Forward(got, x); err != nil {
			t.Fatal(err)
		}
		if err := mustConv(t, ConvConfig{Kernel: k}).Forward(all, x); err != nil {
			t.Fatal(err)
		}
		want := mat.New(got.Rows, c)
		for i := range want.Rows {
			copy(mat.Row(want, i), mat.Row(all, i*factor))
		}
		near(t, "decimated", got, want, 2e-6)
		st, pieces := mustState(t, d, StateConfig{Snapshots: 1}), mat.New(got.Rows, c)
		for from, out := 0, 0; from < n; {
			m := min(1+r.IntN(2*taps), n-from)
			rows := d.Outputs(from, m)
			if err := d.Step(mat.Rows(pieces, out, out+rows), mat.Rows(x, from, from+m), st); err != nil {
				t.Fatal(err)
			}
			from, out = from+m, out+rows
			if r.IntN(3) == 0 {
				st = st.Clone()
			}
		}
		if !slices.Equal(pieces.Data, got.Data) {
			t.Fatalf("%d inputs, %d taps by %d: other bits in pieces", n, taps, factor)
		}
	}
}

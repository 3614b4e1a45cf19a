package hyena

import (
	"context"
	"math"
	"testing"

	"github.com/subquad/subquad/internal/mat"
)

// TestDistill: modes come back as they were; a filter of HyenaDNA's kind with a small error,
// which is what the convolutions differ by.
func TestDistill(t *testing.T) {
	modes := randomModes(t, 5, 3, 4)
	k := mat.New(400, 3)
	if err := modes.Kernel(k, 0); err != nil {
		t.Fatal(err)
	}
	k.Data[0] += 2 // a skip
	d, err := Distill(context.Background(), k, DistillConfig{Order: 4})
	if err != nil {
		t.Fatal(err)
	}
	for c, e := range d.Errors {
		if e.Relative > 1e-5 || len(e.Hankel) != 8 {
			t.Errorf("channel %d: %+v", c, e)
		}
	}
	filter := testFilter(t, 6, 3000)
	k = mat.New(3000, 6)
	if err := filter.Kernel(k, 0); err != nil {
		t.Fatal(err)
	}
	if d, err = Distill(context.Background(), k, DistillConfig{Order: 12}); err != nil {
		t.Fatal(err)
	}
	exact := mustConv(t, ConvConfig{Kernel: k})
	modal, err := NewModal(ModalConfig{Modes: d.Modes, Skip: d.Skip})
	if err != nil {
		t.Fatal(err)
	}
	x := matrix(3, 3000, 6, 0)
	want, got := mat.New(3000, 6), mat.New(3000, 6)
	if err := exact.Forward(want, x); err != nil {
		t.Fatal(err)
	}
	if err := modal.Step(got, x, mustState(t, modal, StateConfig{})); err != nil {
		t.Fatal(err)
	}
	most := 0.0
	for _, v := range x.Data {
		most = max(most, math.Abs(float64(v)))
	}
	for c, e := range d.Errors {
		t.Logf("channel %d: relative error %.2g, largest %.2g", c, e.Relative, e.Max)
		if e.Relative > 0.01 {
			t.Errorf("channel %d: relative error %v", c, e.Relative)
		}
		for i := range 3000 {
			if d := math.Abs(float64(mat.Row(got, i)[c] - mat.Row(want, i)[c])); d > e.Sum*most+1e-3 {
				t.Fatalf("channel %d: token %d is off by %v, more than %v", c, i, d, e.Sum*most)
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Distill(ctx, k, DistillConfig{}); err != context.Canceled {
		t.Errorf("error %v", err)
	}
	if d, err := Distill(context.Background(), mat.New(1, 2), DistillConfig{}); err != nil || d.Errors[0].Relative != 0 {
		t.Errorf("a filter of one tap: %v", err)
	}
}

package hyena

import (
	"slices"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// TestKernelColumns: a kernel of which some channels are computed at a time gives the bits that
// it gives as a whole, in the memory that was said, in one call and token by token.
func TestKernelColumns(t *testing.T) {
	was := kernelChannels
	kernelChannels = 1 // as many as the workers transform
	t.Cleanup(func() { kernelChannels = was })
	isatest.Run(t, func(t *testing.T) {
		const dim, n = 37, 200
		for _, order := range []int{2, 3} {
			for _, c := range []struct {
				name       string
				normalized bool
				major      bool
			}{{"order major", false, false}, {"channel major", false, true}, {"normalized", true, false}} {
				w := testWeights(t, dim, order, 3, n)
				w.Filter.cfg.Normalized = c.normalized
				x := small(1, n, dim)
				whole := mat.New(n, dim)
				cfg := OperatorConfig{Dim: dim, Order: order, ChannelMajor: c.major, Workers: 1}
				if err := mustOperator(t, cfg, w).Forward(whole, x); err != nil {
					t.Fatal(err)
				}
				cfg.SpectraBytes = 1
				op := mustOperator(t, cfg, w)
				got := mat.New(n, dim)
				for range 2 {
					if err := op.Forward(got, x); err != nil || !slices.Equal(got.Data, whole.Data) {
						t.Fatalf("order %d, %s: other bits, error %v", order, c.name, err)
					}
				}
				convs := op.scratch.convs.Get()
				if rows := len(convs.filter.rows); c.normalized != (rows == n*(order-1)*dim) {
					t.Errorf("order %d, %s: computes %d elements of a kernel at once", order, c.name, rows)
				}
				convs.units = nil
				if held, said := isatest.Held(op.scratch.operators.Get())+isatest.Held(convs), op.ScratchBytes(n); held > said {
					t.Errorf("order %d, %s: holds %d bytes, said %d", order, c.name, held, said)
				}
				// In steps, with more of the kernel there than they ask for, and with less.
				cfg.SpectraBytes = 0
				cold, warm := mustOperator(t, cfg, w), mustOperator(t, cfg, w)
				if err := warm.Prepare(t.Context(), n); err != nil {
					t.Fatal(err)
				}
				for i, op := range []*Operator{cold, warm, op} {
					s, err := op.NewState(StateConfig{})
					if err == nil {
						err = op.Step(got, x, s)
					}
					if err != nil {
						t.Fatal(err)
					}
					if i == 0 {
						mat.Copy(whole, got)
					} else if !slices.Equal(got.Data, whole.Data) {
						t.Errorf("order %d, %s: other bits in steps, %d", order, c.name, i)
					}
				}
			}
		}
	})
}

// TestHeldSpectra: a call that has found its spectra keeps them, whatever others make of the
// cache meanwhile.
func TestHeldSpectra(t *testing.T) {
	const dim, n = 20, 300
	op := mustOperator(t, OperatorConfig{Dim: dim, Workers: 1}, testWeights(t, dim, 2, 3, n))
	conv, u, want, got := op.convs[0], small(1, n, dim), mat.New(n, dim), mat.New(n, dim)
	if err := conv.Forward(want, u); err != nil {
		t.Fatal(err)
	}
	var r convRun
	r.all = conv.units(nil, n)
	if next, err := r.begin(t.Context(), conv, n, 1, 0, len(r.all)); err != nil || next != len(r.all) {
		t.Fatalf("unit %d is next, error %v", next, err)
	}
	for conv.cache.dropSpectrum(0) {
	}
	if err := r.convolveUnits(t.Context(), conv, got, u, 1); err != nil || !slices.Equal(got.Data, want.Data) {
		t.Errorf("other bits, error %v", err)
	}
}

// TestSharedGrid: filters with the same positions take their memory once.
func TestSharedGrid(t *testing.T) {
	const channels, n, emb = 4, 100, 5
	w := FilterWeights{Out: small(1, channels, emb), Z: random(2, n*emb), T: random(3, n)}
	cfg := FilterConfig{Channels: channels, MaxLen: n, EmbDim: emb}
	first, err := NewFilter(cfg, w)
	if err != nil {
		t.Fatal(err)
	}
	grid := floatBytes(n*emb + n)
	like := w
	like.Like, like.Z = first, slices.Clone(w.Z)
	second, err := NewFilter(cfg, like)
	if err != nil {
		t.Fatal(err)
	}
	if second.Bytes() != first.Bytes()-grid {
		t.Errorf("the first filter takes %d bytes and the second %d, want %d less", first.Bytes(), second.Bytes(), grid)
	}
	a, b := mat.New(n, channels), mat.New(n, channels)
	if err := first.Kernel(a, 0); err != nil {
		t.Fatal(err)
	}
	if err := second.Kernel(b, 0); err != nil || !slices.Equal(a.Data, b.Data) {
		t.Errorf("other bits, error %v", err)
	}
	like.Z[7]++
	if third, err := NewFilter(cfg, like); err != nil || third.Bytes() != first.Bytes()-floatBytes(n) {
		t.Errorf("another Z: %d bytes, error %v", third.Bytes(), err)
	}
}

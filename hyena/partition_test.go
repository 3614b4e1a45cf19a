package hyena

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

func mustPartition(t testing.TB, cfg PartitionConfig) *Partition {
	t.Helper()
	p, err := NewPartition(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// quiet is a random kernel whose output is about as loud as its input.
func quiet(seed uint64, taps, channels int) blas32.General {
	k := matrix(seed, taps, channels, 1)
	for i := range k.Data {
		k.Data[i] /= float32(math.Sqrt(float64(taps)))
	}
	return k
}

// late is the output of a convolution some samples late.
func late(t testing.TB, k, x blas32.General, delay int) blas32.General {
	t.Helper()
	y := mat.New(x.Rows, x.Cols)
	if x.Rows > delay {
		if err := mustConv(t, ConvConfig{Kernel: k}).Forward(mat.Rows(y, delay, x.Rows), mat.Rows(x, 0, x.Rows-delay)); err != nil {
			t.Fatal(err)
		}
	}
	return y
}

// TestPartition: partitioned = direct, uniform and not, however the signal is cut.
func TestPartition(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, s := range []struct{ samples, taps, channels, block, largest int }{
			{100, 1, 1, 16, 16}, {500, 64, 2, 32, 32}, {1000, 300, 1, 64, 64}, {3000, 1000, 3, 16, 128}, {6000, 5000, 2, 64, 1024},
			{5000, 4000, 17, 32, 256}, {9000, 9000, 1, 16, 0}, {2000, 129, 5, 64, 512},
		} {
			name := fmt.Sprint(s)
			k, x := quiet(1, s.taps, s.channels), matrix(2, s.samples, s.channels, 1)
			p := mustPartition(t, PartitionConfig{Kernel: k, Block: s.block, Largest: s.largest})
			whole := mat.New(s.samples, s.channels)
			if err := p.Forward(whole, x); err != nil {
				t.Fatal(err)
			}
			near(t, name, whole, late(t, k, x, p.Latency()), 3e-6)
			st, err := p.NewState()
			if err != nil {
				t.Fatal(err)
			}
			r, got := rand.New(rand.NewPCG(1, 2)), mat.New(s.samples, s.channels)
			for from := 0; from < s.samples; {
				n := min(1+r.IntN(3*s.block), s.samples-from)
				if err := p.Step(mat.Rows(got, from, from+n), mat.Rows(x, from, from+n), st); err != nil {
					t.Fatal(err)
				}
				switch from += n; r.IntN(8) {
				case 0, 1:
					st = st.Clone()
				case 2:
					var file bytes.Buffer
					if _, err := st.WriteTo(&file); err != nil {
						t.Fatal(err)
					}
					if st, err = p.ReadState(&file); err != nil {
						t.Fatal(err)
					}
				}
			}
			if !slices.Equal(got.Data, whole.Data) {
				t.Errorf("%s: other bits in pieces", name)
			}
			st.Reset()
			if err := p.Step(got, x, st); err != nil || !slices.Equal(got.Data, whole.Data) {
				t.Errorf("%s: other bits after Reset: %v", name, err)
			}
		}
	})
}

// TestReplace: a kernel takes another's place while a signal runs, in a straight line.
func TestReplace(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const samples, fade = 8000, 500
		a, b := quiet(1, 900, 2), quiet(2, 1500, 2)
		x := matrix(3, samples, 2, 0)
		p := mustPartition(t, PartitionConfig{Kernel: a, Block: 32, Largest: 256, MaxTaps: 2000, Fade: 7})
		q := mustPartition(t, PartitionConfig{Kernel: b, Block: 32, Largest: 256, MaxTaps: 2000, Fade: fade})
		st, err := p.NewState()
		if err != nil {
			t.Fatal(err)
		}
		got := mat.New(samples, 2)
		step := func(from, to int) {
			if err := p.Step(mat.Rows(got, from, to), mat.Rows(x, from, to), st); err != nil {
				t.Fatal(err)
			}
		}
		step(0, 3011)
		if err := st.Replace(q); err != nil {
			t.Fatal(err)
		}
		if err := st.Replace(p); err == nil {
			t.Error("two kernels on their way")
		}
		step(3011, samples)
		if st.Replacing() {
			t.Error("the kernel has not come")
		}
		before, after := late(t, a, x, 32), late(t, b, x, 32)
		begin := 0
		for i := range samples {
			for c, v := range mat.Row(got, i) {
				from, to := float64(mat.Row(before, i)[c]), float64(mat.Row(after, i)[c])
				if begin == 0 && math.Abs(float64(v)-from) > 1e-4 {
					begin = i
				}
				if begin == 0 {
					continue
				}
				g := min(float64(i-begin+1)/fade, 1)
				// The first difference may be a little later than the first sample of the line.
				if want := from + (to-from)*g; math.Abs(float64(v)-want) > 1e-5+math.Abs(to-from)*3/fade {
					t.Fatalf("sample %d: %v, want %v between %v and %v", i, v, want, from, to)
				}
			}
		}
		if begin < 3011 || begin > 3011+2*256+4*32 {
			t.Errorf("it begins at sample %d", begin)
		}
	})
}

// TestResetWhileReplacing: after a Reset the state is one of the kernel that was on its way, and
// is stored as such.
func TestResetWhileReplacing(t *testing.T) {
	a, b := quiet(1, 300, 2), quiet(2, 200, 2)
	x := matrix(3, 500, 2, 0)
	p := mustPartition(t, PartitionConfig{Kernel: a, Block: 16, Largest: 64})
	q := mustPartition(t, PartitionConfig{Kernel: b, Block: 16, Largest: 64, MaxTaps: 300})
	st, err := p.NewState()
	if err != nil {
		t.Fatal(err)
	}
	y := mat.New(x.Rows, x.Cols)
	if err := p.Step(y, x, st); err != nil {
		t.Fatal(err)
	}
	if err := st.Replace(q); err != nil {
		t.Fatal(err)
	}
	st.Reset()
	if err := p.Step(mat.Rows(y, 0, 100), mat.Rows(x, 0, 100), st); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := st.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	if _, err := p.ReadState(bytes.NewReader(file.Bytes())); !errors.Is(err, ErrState) {
		t.Errorf("it is stored as one of the kernel that it had: error %v", err)
	}
	again, err := q.ReadState(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Step(mat.Rows(y, 100, 500), mat.Rows(x, 100, 500), again); err != nil {
		t.Fatal(err)
	}
	near(t, "stored", y, late(t, b, x, 16), 1e-5)
}

func TestPartitionAllocations(t *testing.T) {
	p := mustPartition(t, PartitionConfig{Kernel: quiet(1, 5000, 2), Block: 64, Largest: 512})
	st, err := p.NewState()
	if err != nil {
		t.Fatal(err)
	}
	x := matrix(2, 64, 2, 0)
	if a := isatest.Allocations(func() { p.Step(x, x, st) }); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

// TestSignalFiles: a file that is cut or changed anywhere is an error.
func TestSignalFiles(t *testing.T) {
	p := mustPartition(t, PartitionConfig{Kernel: quiet(1, 20, 1), Block: 16, Largest: 16})
	st, err := p.NewState()
	if err != nil {
		t.Fatal(err)
	}
	x := matrix(2, 50, 1, 0)
	if err := p.Step(x, x, st); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := st.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	statetest.Damage(t, file.Bytes(), func(r io.Reader) error { _, err := p.ReadState(r); return err })
}

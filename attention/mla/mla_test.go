package mla

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/state/statetest"
	"github.com/subquad/subquad/internal/tile"
	"github.com/subquad/subquad/rope"
	"gonum.org/v1/gonum/blas/blas32"
)

var mlaOp = Config{Dim: 24, Heads: 3, QRank: 16, KVRank: 32, NopeDim: 9, RopeDim: 16, ValueDim: 7, Rotation: rope.Config{Layout: rope.Interleaved}}

func mlaWeights(c Config) Weights {
	in := c.QRank
	if in == 0 {
		in = c.Dim
	}
	w := Weights{
		QA: matrix(1, c.QRank, c.Dim), QB: matrix(2, c.Heads*(c.NopeDim+c.RopeDim), in), KVA: matrix(3, c.KVRank+c.RopeDim, c.Dim),
		KVB: matrix(4, c.Heads*(c.NopeDim+c.ValueDim), c.KVRank), Out: matrix(5, c.Dim, c.Heads*c.ValueDim),
		QANorm: random(6, c.QRank), KVANorm: random(7, c.KVRank),
	}
	for _, m := range [][]float32{w.QA.Data, w.QB.Data, w.KVA.Data, w.KVB.Data, w.Out.Data} {
		for i := range m {
			m[i] *= 0.2
		}
	}
	return w
}

// TestMLA compares the naive form of whole sequences with the absorbed one in
// steps, over every storage.
func TestMLA(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		for trial, format := range []asm.Format{asm.Float32, asm.BFloat16, asm.Float16, asm.Int8} {
			cfg := mlaOp
			cfg.LongCat, cfg.Workers = trial%2 == 0, trial
			if trial == 3 {
				cfg.QRank = 0
			}
			end := tile.Small()
			m, err := New(cfg, mlaWeights(cfg))
			end()
			if err != nil {
				t.Fatal(err)
			}
			const n = 130
			x, want, got := matrix(9, n, cfg.Dim), blank(n, cfg.Dim), blank(n, cfg.Dim)
			if err := m.Forward(want, x); err != nil {
				t.Fatal(err)
			}
			pages, err := m.NewPages(attention.PagesConfig{PageTokens: 11, Format: format})
			if err != nil {
				t.Fatal(err)
			}
			for _, state := range []attention.StateConfig{{Format: format}, {Pages: pages}} {
				s, err := m.NewState(state)
				if err != nil {
					t.Fatal(err)
				}
				from := 0
				for _, k := range randomSteps(r, n) {
					if err := m.Step(part(got, from, from+k), part(x, from, from+k), s); err != nil {
						t.Fatal(err)
					}
					from += k
				}
				close64(t, format.String(), got.Data, want.Data, 10*formats[format])
				// The last token again, in a batch of two.
				fork := s.Clone()
				for _, s := range []*attention.State{s, fork} {
					if err := s.Truncate(n - 1); err != nil {
						t.Fatal(err)
					}
				}
				two, last := blank(2, cfg.Dim), matrix(9, 2, cfg.Dim)
				for i := range 2 {
					copy(last.Data[i*cfg.Dim:], x.Data[(n-1)*cfg.Dim:])
				}
				if err := m.StepBatch(two, last, []*attention.State{s, fork}); err != nil {
					t.Fatal(err)
				}
				for i := range 2 {
					close64(t, "in a batch", two.Data[i*cfg.Dim:][:cfg.Dim], want.Data[(n-1)*cfg.Dim:], 10*formats[format])
				}
			}
			if want := int64(48); format == asm.Float32 && m.latent.StateBytes(attention.StateConfig{SharedValues: true}, 1) != 4*want {
				t.Errorf("a token takes %d bytes, want 4 (KVRank + RopeDim)", m.latent.StateBytes(attention.StateConfig{SharedValues: true}, 1))
			}
		}
	})
}

// TestMLASizes has latents that are much smaller than rotated keys, or larger: storing them
// as int8 keeps both, with products of integers too.
func TestMLASizes(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for i, size := range []float32{0.03, 1, 30, 0.03, 1, 30} {
			cfg := Config{Dim: 64, Heads: 4, KVRank: 64, NopeDim: 32, RopeDim: 16, ValueDim: 32, Rotation: rope.Config{Layout: rope.Interleaved}, Int8Products: i >= 3}
			w := mlaWeights(cfg)
			for i := range w.KVANorm {
				w.KVANorm[i] = size
			}
			for i := range w.KVB.Data {
				w.KVB.Data[i] /= size
			}
			m, err := New(cfg, w)
			if err != nil {
				t.Fatal(err)
			}
			const n = 100
			x, want, got := matrix(9, n, cfg.Dim), blank(n, cfg.Dim), blank(n, cfg.Dim)
			if err := m.Forward(want, x); err != nil {
				t.Fatal(err)
			}
			s, err := m.NewState(attention.StateConfig{Format: asm.Int8})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Step(got, x, s); err != nil {
				t.Fatal(err)
			}
			sum, all := 0.0, 0.0
			for i, y := range want.Data {
				d := float64(got.Data[i] - y)
				sum, all = sum+d*d, all+float64(y)*float64(y)
			}
			e := math.Sqrt(sum / all)
			t.Logf("latents of %v: error %.2g", size, e)
			if !(e < 0.015) {
				t.Errorf("latents of %v: error %.2g, want at most 0.015", size, e)
			}
		}
	})
}

// TestMLAFormats compares weights as they are with weights of less precision, and a
// state read back with the one that was written.
func TestMLAFormats(t *testing.T) {
	const n = 20
	x, want := matrix(9, n, mlaOp.Dim), blank(n, mlaOp.Dim)
	for _, format := range []asm.Format{asm.Float32, asm.Float16, asm.BFloat16, asm.Int8} {
		cfg := mlaOp
		cfg.Format = format
		m, err := New(cfg, mlaWeights(cfg))
		if err != nil {
			t.Fatal(err)
		}
		got := blank(n, cfg.Dim)
		if err := m.Forward(got, x); err != nil {
			t.Fatal(err)
		}
		if format == asm.Float32 {
			copy(want.Data, got.Data)
		}
		close64(t, format.String(), got.Data, want.Data, 10*formats[format])

		s, err := m.NewState(attention.StateConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Step(blank(n-1, cfg.Dim), part(x, 0, n-1), s); err != nil {
			t.Fatal(err)
		}
		var file bytes.Buffer
		if _, err := s.WriteTo(&file); err != nil {
			t.Fatal(err)
		}
		back, err := m.ReadState(&file)
		if err != nil {
			t.Fatal(err)
		}
		one, other := blank(1, cfg.Dim), blank(1, cfg.Dim)
		for dst, s := range map[*blas32.General]*attention.State{&one: s, &other: back} {
			if err := m.Step(*dst, part(x, n-1, n), s); err != nil {
				t.Fatal(err)
			}
		}
		sameBits(t, "after reading", other.Data, one.Data)
	}
}

// TestMLAPacked has sequences of a batch give what they give alone, in both forms, and
// the same for any Workers of the call.
func TestMLAPacked(t *testing.T) {
	m, err := New(mlaOp, mlaWeights(mlaOp))
	if err != nil {
		t.Fatal(err)
	}
	const n = 60
	x, want := matrix(9, n, mlaOp.Dim), blank(n, mlaOp.Dim)
	offsets := []int{0, 20, 20, 51, n}
	for b := range 4 {
		from, to := offsets[b], offsets[b+1]
		if err := m.Forward(part(want, from, to), part(x, from, to)); err != nil {
			t.Fatal(err)
		}
	}
	for _, workers := range []int{0, 1, 3} {
		for _, stepping := range []bool{false, true} {
			c := &Call{Dst: blank(n, mlaOp.Dim), X: x, Offsets: offsets, Workers: workers}
			for range 4 {
				s, err := m.NewState(attention.StateConfig{})
				if err != nil {
					t.Fatal(err)
				}
				if stepping {
					c.States = append(c.States, s)
				}
			}
			if err := m.Run(context.Background(), c); err != nil {
				t.Fatal(err)
			}
			close64(t, "packed", c.Dst.Data, want.Data, 3e-5)
		}
	}
}

// TestMLACancel has a call that ends early leave its state as it was, wherever it ends.
func TestMLACancel(t *testing.T) {
	m, err := New(mlaOp, mlaWeights(mlaOp))
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.NewState(attention.StateConfig{})
	if err != nil {
		t.Fatal(err)
	}
	const n = 60
	x, want, got := matrix(9, n, mlaOp.Dim), blank(n, mlaOp.Dim), blank(n, mlaOp.Dim)
	if err := m.Forward(want, x); err != nil {
		t.Fatal(err)
	}
	for _, states := range [][]*attention.State{nil, {s}} {
		ended := 0
		for asked := 0; ; asked++ {
			call := &Call{Dst: got, X: x, States: states, Offsets: []int{0, n}}
			err := m.Run(&statetest.Ending{Context: context.Background(), Left: asked}, call)
			if err == nil {
				break
			}
			if ended++; err != context.Canceled || s.Len() != 0 {
				t.Fatalf("error %v, %d tokens", err, s.Len())
			}
		}
		if ended < 3 {
			t.Errorf("the context was asked %d times", ended)
		}
		close64(t, "after cancellations", got.Data, want.Data, 3e-5)
	}
}

// TestMLAScratchBytes compares what calls hold with what was said before.
func TestMLAScratchBytes(t *testing.T) {
	for _, n := range []int{1, 50, 700} {
		for _, stepping := range []bool{false, true} {
			m, err := New(mlaOp, mlaWeights(mlaOp))
			if err != nil {
				t.Fatal(err)
			}
			before := isatest.HeldBehind(m)
			x, dst := matrix(9, n, mlaOp.Dim), blank(n, mlaOp.Dim)
			said := m.ScratchBytes(n)
			if stepping {
				said = m.StepScratchBytes(n, n)
				s, err := m.NewState(attention.StateConfig{})
				if err != nil {
					t.Fatal(err)
				}
				err = m.Step(dst, x, s)
				if err != nil {
					t.Fatal(err)
				}
			} else if err := m.Forward(dst, x); err != nil {
				t.Fatal(err)
			}
			if held := isatest.HeldBehind(m) - before; held > said || held < said/8 {
				t.Errorf("%d tokens, stepping %v: holds %d bytes, said %d", n, stepping, held, said)
			}
		}
	}
}

func TestMLAAllocations(t *testing.T) {
	for _, workers := range []int{1, 4} {
		cfg := mlaOp
		cfg.Workers = workers
		m, err := New(cfg, mlaWeights(cfg))
		if err != nil {
			t.Fatal(err)
		}
		s, err := m.NewState(attention.StateConfig{MaxTokens: 300})
		if err != nil {
			t.Fatal(err)
		}
		x, dst := matrix(1, 20, cfg.Dim), blank(20, cfg.Dim)
		if n := isatest.Allocations(func() {
			if err := m.Forward(dst, x); err != nil {
				t.Fatal(err)
			}
			if err := m.Step(dst, x, s); err != nil {
				t.Fatal(err)
			}
			s.Reset()
		}); n != 0 {
			t.Errorf("%d workers: %v allocations", workers, n)
		}
	}
}

func TestMLAErrors(t *testing.T) {
	for want, change := range map[string]func(*Config, *Weights){
		"mla: Heads is 0, want 1 to 2^20":                                                                   func(c *Config, _ *Weights) { c.Heads = 0 },
		"mla: RopeDim is 0, want 2 to 2^20":                                                                 func(c *Config, _ *Weights) { c.RopeDim = 0 },
		"mla: Format is 4, want Float32, BFloat16, Int8 or Float16":                                         func(c *Config, _ *Weights) { c.Format = asm.Float16 + 1 },
		"mla: Eps is -1, want a finite number, 0 or more":                                                   func(c *Config, _ *Weights) { c.Eps = -1 },
		"mla: KVA has 47 rows, want 48":                                                                     func(_ *Config, w *Weights) { w.KVA.Rows = 47 },
		"mla: KVANorm has 31 elements, want its rank = 32":                                                  func(_ *Config, w *Weights) { w.KVANorm = w.KVANorm[:31] },
		"mla: Rotation: rope: the rotary dimension is 3, want an even number from 2 to HeadDim-Offset = 16": func(c *Config, _ *Weights) { c.Rotation.RotaryDim = 3 },
	} {
		cfg, w := mlaOp, mlaWeights(mlaOp)
		change(&cfg, &w)
		_, err := New(cfg, w)
		if err == nil || err.Error() != want || !errors.Is(err, attention.ErrConfig) && !errors.Is(err, attention.ErrShape) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	m, err := New(mlaOp, mlaWeights(mlaOp))
	if err != nil {
		t.Fatal(err)
	}
	a, err := attention.New(attention.Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := a.NewState(attention.StateConfig{})
	if err != nil {
		t.Fatal(err)
	}
	w := mlaWeights(mlaOp)
	for i := range w.KVB.Data {
		w.KVB.Data[i] *= -3
	}
	other, err := New(mlaOp, w)
	if err != nil {
		t.Fatal(err)
	}
	others, err := other.NewState(attention.StateConfig{})
	if err != nil {
		t.Fatal(err)
	}
	x := matrix(1, 2, 24)
	for _, c := range []struct {
		kind error
		err  error
	}{
		{attention.ErrState, m.Step(blank(2, 24), x, foreign)},
		{attention.ErrState, m.Step(blank(2, 24), x, others)},
		{attention.ErrState, m.Step(blank(2, 24), x, nil)},
		{attention.ErrShape, m.Forward(x, x)},
		{attention.ErrShape, m.Forward(blank(2, 23), x)},
		{attention.ErrCall, m.StepBatch(blank(2, 24), x, nil)},
		{attention.ErrCall, m.Run(nil, &Call{Dst: blank(2, 24), X: x})},
		{attention.ErrCall, m.Run(context.Background(), nil)},
		{attention.ErrCall, m.Run(context.Background(), &Call{Dst: blank(2, 24), X: x, Workers: -1})},
	} {
		if !errors.Is(c.err, c.kind) {
			t.Errorf("error %v, want %v", c.err, c.kind)
		}
	}
	if _, err := m.NewState(attention.StateConfig{Rotation: &rope.Config{HeadDim: 48}}); !errors.Is(err, attention.ErrConfig) {
		t.Errorf("a second rotation: %v", err)
	}
}

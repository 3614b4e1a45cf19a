package attention

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/rope"
)

func newState(t testing.TB, a *Attention, cfg StateConfig) *State {
	t.Helper()
	s, err := a.NewState(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newPages(t testing.TB, a *Attention, cfg PagesConfig) *Pages {
	t.Helper()
	p, err := a.NewPages(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sequence is random tokens for an operator.
type sequence struct{ q, k, v blas32.General }

func tokens(a *Attention, seed uint64, n int) sequence {
	c := &a.cfg
	return sequence{matrix(seed, n, c.Heads*c.HeadDim), matrix(seed+1, n, c.KVHeads*c.HeadDim), matrix(seed+2, n, c.KVHeads*c.ValueDim)}
}

func (x sequence) part(from, to int) sequence {
	return sequence{part(x.q, from, to), part(x.k, from, to), part(x.v, from, to)}
}

// step returns the outputs of tokens.
func step(t testing.TB, a *Attention, s *State, x sequence) []float32 {
	t.Helper()
	dst := blank(x.q.Rows, a.cfg.Heads*a.cfg.ValueDim)
	if err := a.Step(dst, x.q, x.k, x.v, s); err != nil {
		t.Fatal(err)
	}
	return dst.Data
}

var stateOp = Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true}

// kinds are states of an operator, one of each kind and storage.
func kinds(t testing.TB, a *Attention) map[string]StateConfig {
	list := map[string]StateConfig{}
	for format := range formats {
		pages := newPages(t, a, PagesConfig{PageTokens: 7, Format: format})
		list[fmt.Sprint("growing/", format)] = StateConfig{Format: format}
		list[fmt.Sprint("bounded/", format)] = StateConfig{Format: format, MaxTokens: 300}
		list[fmt.Sprint("ring/", format)] = StateConfig{Format: format, Window: 20, Keep: 3}
		list[fmt.Sprint("paged/", format)] = StateConfig{Pages: pages}
		if filed, err := a.NewPages(PagesConfig{PageTokens: 7, Format: format, Folder: t.TempDir()}); err == nil {
			list[fmt.Sprint("file/", format)] = StateConfig{Pages: filed} // the process takes the mapping along
		} else if !errors.Is(err, errors.ErrUnsupported) {
			t.Fatal(err)
		}
		list[fmt.Sprint("turned/", format)] = StateConfig{Format: format, Rotation: &rope.Config{HeadDim: 16}, Policy: rope.EachStep}
	}
	return list
}

// TestFork goes two ways from one state: neither moves the other's bits.
func TestFork(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		a := must(t, stateOp)
		smallSteps(a)
		x, y := tokens(a, 1, 90), tokens(a, 7, 40)
		for name, cfg := range kinds(t, a) {
			alone := newState(t, a, cfg)
			step(t, a, alone, x.part(0, 50))
			want := step(t, a, alone, x.part(50, 90))

			s := newState(t, a, cfg)
			step(t, a, s, x.part(0, 50))
			fork := s.Clone()
			// Taken back into what is shared, and on from there.
			if err := fork.Truncate(45); err != nil {
				t.Fatal(err)
			}
			step(t, a, fork, y)
			sameBits(t, name+": the parent", step(t, a, s, x.part(50, 90)), want)

			again := newState(t, a, cfg)
			step(t, a, again, x.part(0, 50))
			if err := again.Truncate(45); err != nil {
				t.Fatal(err)
			}
			if err := fork.Truncate(45); err != nil {
				t.Fatal(err)
			}
			sameBits(t, name+": the fork", step(t, a, fork, y), step(t, a, again, y))
			if p := cfg.Pages; p != nil {
				alone.Reset()
				s.Reset()
				again.Reset()
				if p.Used() != len(fork.Table()) {
					t.Errorf("%s: %d pages are in use, want %d", name, p.Used(), len(fork.Table()))
				}
				if fork.Reset(); p.Used() != 0 {
					t.Errorf("%s: %d pages are in use, want 0", name, p.Used())
				}
			}
		}
	})
}

// TestPagedIsContiguous has the same bits from pages of any size.
func TestPagedIsContiguous(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		a := must(t, stateOp)
		smallSteps(a)
		x := tokens(a, 1, 100)
		for format := range formats {
			whole := newState(t, a, StateConfig{Format: format})
			want := slices.Concat(step(t, a, whole, x.part(0, 90)), step(t, a, whole, x.part(90, 100)))
			for _, size := range []int{1, 5, 64, 1000} {
				s := newState(t, a, StateConfig{Pages: newPages(t, a, PagesConfig{PageTokens: size, Format: format})})
				got := slices.Concat(step(t, a, s, x.part(0, 90)), step(t, a, s, x.part(90, 100)))
				sameBits(t, fmt.Sprint(format, ", pages of ", size), got, want)
			}
		}
	})
}

func fill(s *State, r io.Reader) error {
	_, err := s.ReadFrom(r)
	return err
}

// TestSaved goes on from a written state, into each kind of memory.
func TestSaved(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		a := must(t, stateOp)
		smallSteps(a)
		x := tokens(a, 1, 130)
		for name, cfg := range kinds(t, a) {
			s := newState(t, a, cfg)
			step(t, a, s, x.part(0, 100))
			var file bytes.Buffer
			if n, err := s.WriteTo(&file); err != nil || n != int64(file.Len()) {
				t.Fatalf("%s: %d of %d bytes, %v", name, n, file.Len(), err)
			}
			data := file.Bytes()
			want := step(t, a, s, x.part(100, 130))
			back := newState(t, a, cfg)
			if err := fill(back, bytes.NewReader(data)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			sameBits(t, name+": loaded", step(t, a, back, x.part(100, 130)), want)
			read, err := a.ReadState(bytes.NewReader(data))
			if cfg.Rotation != nil {
				if !errors.Is(err, ErrState) {
					t.Errorf("%s: ReadState: %v", name, err)
				}
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			} else {
				sameBits(t, name+": read", step(t, a, read, x.part(100, 130)), want)
			}
			// Damaged anywhere, cut off anywhere: an error, the state empty.
			for i := 0; i < len(data); i += 1 + len(data)/40 {
				bad := slices.Clone(data)
				bad[i] ^= 1 << (i % 8)
				back.Reset()
				if err := fill(back, bytes.NewReader(bad)); err == nil || back.Len() != 0 {
					t.Fatalf("%s: byte %d of %d changed: %v, %d tokens", name, i, len(data), err, back.Len())
				}
				if err := fill(back, bytes.NewReader(data[:i])); !errors.Is(err, ErrState) {
					t.Fatalf("%s: %d of %d bytes: %v", name, i, len(data), err)
				}
			}
			other := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true, Softcap: 3})
			if _, err := other.ReadState(bytes.NewReader(data)); !errors.Is(err, ErrState) {
				t.Errorf("%s: another operator: %v", name, err)
			}
		}
	})
}

// TestRerotate follows a scheme whose frequencies change as the sequence grows:
// cached keys are brought over, or turned at each step.
func TestRerotate(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		a := must(t, stateOp)
		smallSteps(a)
		rotation := rope.Config{HeadDim: 16, Scheme: rope.DynamicNTK{Factor: 2, MaxPosition: 30}}
		for _, policy := range []rope.Policy{rope.EachStep, rope.Rerotate} {
			s := newState(t, a, StateConfig{Rotation: &rotation, Policy: policy})
			x := tokens(a, 1, 80)
			step(t, a, s, x.part(0, 20))
			step(t, a, s, x.part(20, 50))
			got := step(t, a, s, x.part(50, 80))
			now := rotation
			now.Length = 80
			r, err := rope.New(now)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range []blas32.General{x.q, x.k} {
				if err := r.Rotate(m, 0); err != nil {
					t.Fatal(err)
				}
			}
			want := exact(t, a, x.q, x.k, x.v, 0, 0)
			close64(t, fmt.Sprint("policy ", policy), got, want.Data[50*64:], 5e-6)
		}
	})
}

// TestStateSegments reads back what was appended.
func TestStateSegments(t *testing.T) {
	a := must(t, stateOp)
	x := tokens(a, 1, 100)
	for name, cfg := range kinds(t, a) {
		if cfg.Rotation != nil {
			continue
		}
		s := newState(t, a, cfg)
		step(t, a, s, x)
		held, next := 0, 0
		for _, g := range s.Segments(nil) {
			if g.Position < next {
				t.Errorf("%s: segment at %d after %d", name, g.Position, next)
			}
			next = g.Position + g.Tokens
			held += g.Tokens
			dst := blank(g.Tokens, 16)
			for h := range 2 {
				for _, part := range []struct {
					get func(blas32.General, int, int) error
					of  blas32.General
				}{{g.Keys, x.k}, {g.Values, x.v}} {
					if err := part.get(dst, h, 0); err != nil {
						t.Fatal(err)
					}
					for i := range g.Tokens {
						close64(t, name, dst.Data[i*16:][:16], part.of.Data[(g.Position+i)*32+h*16:][:16], formats[s.cfg.Format])
					}
				}
			}
			k, v, ok := g.Float32()
			if ok != (s.cfg.Format == asm.Float32) {
				t.Errorf("%s: Float32 is %v", name, ok)
			} else if ok {
				sameBits(t, name, k.Data[:32], x.k.Data[g.Position*32:][:32])
				sameBits(t, name, v.Data[:32], x.v.Data[g.Position*32:][:32])
			}
			if err := g.Keys(dst, 2, 0); !errors.Is(err, ErrCall) {
				t.Errorf("%s: head 2: %v", name, err)
			}
		}
		if want := map[bool]int{true: 87, false: 100}[cfg.Window > 0]; next != 100 || held != want {
			t.Errorf("%s: %d tokens to %d, want %d", name, held, next, want)
		}
	}
}

// TestSoak has many goroutines step, fork and take back over one pool.
func TestSoak(t *testing.T) {
	a := must(t, stateOp)
	pages := newPages(t, a, PagesConfig{PageTokens: 5, MaxPages: 400})
	first := newState(t, a, StateConfig{Pages: pages})
	x := tokens(a, 1, 60)
	step(t, a, first, x.part(0, 33))
	length := time.Second
	if testing.Short() {
		length = 300 * time.Millisecond
	}
	end := time.Now().Add(length)
	var group sync.WaitGroup
	for g := range 8 {
		s := first.Clone()
		group.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			dst := blank(4, 64)
			for time.Now().Before(end) {
				switch n := 1 + r.IntN(4); {
				case s.Len() > 100 || r.IntN(4) == 0:
					if err := s.Truncate(r.IntN(s.Len() + 1)); err != nil {
						t.Error(err)
						return
					}
				case r.IntN(3) == 0:
					fork := s.Clone()
					if r.IntN(2) == 0 {
						fork, s = s, fork
					}
					fork.Reset()
				default:
					y := x.part(0, n)
					if err := a.Step(part(dst, 0, n), y.q, y.k, y.v, s); err != nil && !errors.Is(err, ErrFull) {
						t.Error(err)
						return
					}
				}
			}
			s.Reset()
		})
	}
	group.Wait()
	if want := len(first.Table()); pages.Used() != want {
		t.Errorf("%d pages are in use, want %d", pages.Used(), want)
	}
	again := newState(t, a, StateConfig{})
	step(t, a, again, x.part(0, 33))
	sameBits(t, "the parent of all", step(t, a, first, x.part(33, 60)), step(t, a, again, x.part(33, 60)))
}

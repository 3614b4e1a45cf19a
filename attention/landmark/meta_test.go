package landmark

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/state/statetest"
)

func mustMeta(t testing.TB, cfg MetaConfig) *Meta {
	t.Helper()
	m, err := NewMeta(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMeta compares with causal attention under a mask of all pairs, and Forward
// with steps.
func TestMeta(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for seed := range uint64(20) {
			const heads, d = 4, 6
			r := rand.New(rand.NewPCG(seed, 1))
			n := r.IntN(90)
			q, k, v := matrix(seed, n, heads*d), matrix(seed+1, n, 2*d), matrix(seed+2, n, 2*d)
			meta := make([]bool, n)
			mask := attention.MatrixMask{Queries: n, Keys: n, Seen: make([]bool, n*n)}
			for i := range meta {
				meta[i] = r.IntN(5) == 0
				for j := range i + 1 {
					mask.Seen[i*n+j] = meta[i] && meta[j]
				}
			}
			m := mustMeta(t, MetaConfig{Heads: heads, KVHeads: 2, HeadDim: d, Workers: 1 + r.IntN(2)})
			want, got := zeroMatrix(n, heads*d), matrix(9, n, heads*d)
			if err := m.att.Run(context.Background(), &attention.Call{Dst: want, Q: q, K: []blas32.General{k}, V: []blas32.General{v}, Mask: mask}); err != nil {
				t.Fatal(err)
			}
			if err := m.Forward(got, q, k, v, meta); err != nil {
				t.Fatal(err)
			}
			close64(t, "gathered", got.Data, want.Data, 5e-6)
			s, _ := m.NewState(MetaStateConfig{MaxTokens: n})
			for at := 0; at < n; {
				to := min(at+1+r.IntN(9), n)
				if err := m.Step(part(got, at, to), part(q, at, to), part(k, at, to), part(v, at, to), meta[at:to], s); err != nil {
					t.Fatal(err)
				}
				at = to
				switch r.IntN(3) {
				case 0:
					s = s.Clone()
				case 1:
					var file bytes.Buffer
					if _, err := s.WriteTo(&file); err != nil {
						t.Fatal(err)
					}
					var err error
					if s, err = m.ReadState(&file); err != nil {
						t.Fatal(err)
					}
				}
			}
			if s.Len() != n {
				t.Fatalf("%d tokens, want %d", s.Len(), n)
			}
			close64(t, "steps", got.Data, want.Data, 5e-6)
		}
	})
}

// TestMetaCancel has a state stand where it was after a step that ended early.
func TestMetaCancel(t *testing.T) {
	const n = 20
	m := mustMeta(t, MetaConfig{Heads: 2, HeadDim: 4})
	q, k, v, is := matrix(1, n, 8), matrix(2, n, 8), matrix(3, n, 8), make([]bool, n)
	for i := range is {
		is[i] = i%3 != 1
	}
	want, got := zeroMatrix(n, 8), zeroMatrix(n, 8)
	if err := m.Forward(want, q, k, v, is); err != nil {
		t.Fatal(err)
	}
	s, _ := m.NewState(MetaStateConfig{})
	for at := 0; at < n; at += 5 {
		call := &flat{Dst: part(got, at, at+5), Q: part(q, at, at+5), K: part(k, at, at+5), V: part(v, at, at+5), Meta: is[at : at+5], State: s}
		for asked := 0; ; asked++ {
			err := call.runMeta(&statetest.Ending{Context: context.Background(), Left: asked}, m)
			if err == nil {
				break
			}
			if err != context.Canceled || s.Len() != at {
				t.Fatalf("error %v, %d tokens", err, s.Len())
			}
		}
	}
	close64(t, "after cancellations", got.Data, want.Data, 1e-5)
}

func TestMetaErrors(t *testing.T) {
	if _, err := NewMeta(MetaConfig{}); !errors.Is(err, attention.ErrConfig) {
		t.Errorf("error %v", err)
	}
	m, other := mustMeta(t, MetaConfig{Heads: 2, HeadDim: 4}), mustMeta(t, MetaConfig{Heads: 2, HeadDim: 4, Scale: 1})
	s, _ := m.NewState(MetaStateConfig{})
	alien, _ := other.NewState(MetaStateConfig{})
	for want, change := range map[string]func(c *flat){
		"meta has 4 elements, want one for each token = 3": func(c *flat) { c.Meta = make([]bool, 4) },
		"q has 7 columns, want Heads*HeadDim = 8":          func(c *flat) { c.Q.Cols-- },
		"k has 2 rows, want 3":                             func(c *flat) { c.K.Rows-- },
		"v has 9 columns, want KVHeads*ValueDim = 8":       func(c *flat) { c.V = zeroMatrix(3, 9) },
		"dst has 2 rows, want 3":                           func(c *flat) { c.Dst.Rows-- },
		"dst shares elements with an input":                func(c *flat) { c.Dst = c.V },
		"State is of another operator":                     func(c *flat) { c.State = alien },
	} {
		c := &flat{Dst: zeroMatrix(3, 8), Q: zeroMatrix(3, 8), K: zeroMatrix(3, 8), V: zeroMatrix(3, 8), Meta: make([]bool, 3)}
		change(c)
		if err := c.runMeta(context.Background(), m); err == nil || err.Error() != "landmark: "+want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	x := matrix(1, 3, 8)
	if err := m.Step(zeroMatrix(3, 8), x, x, x, make([]bool, 3), nil); !errors.Is(err, attention.ErrState) {
		t.Errorf("error %v without a state", err)
	}
	if err := m.Step(zeroMatrix(3, 8), x, x, x, []bool{true, false, true}, s); err != nil || s.Len() != 3 {
		t.Errorf("error %v, %d tokens", err, s.Len())
	}
	var file bytes.Buffer
	if _, err := s.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	statetest.Damage(t, file.Bytes(), func(r io.Reader) error { _, err := m.ReadState(r); return err })
	s.Reset()
	if s.Len() != 0 || s.Bytes() == 0 {
		t.Errorf("%d tokens, %d bytes after Reset", s.Len(), s.Bytes())
	}
	for _, most := range []int{-1, math.MaxInt} {
		if _, err := m.NewState(MetaStateConfig{MaxTokens: most}); !errors.Is(err, attention.ErrConfig) {
			t.Errorf("MaxTokens %d: error %v", most, err)
		}
	}
	tight, _ := m.NewState(MetaStateConfig{MaxTokens: 1})
	if err := m.Step(zeroMatrix(3, 8), x, x, x, []bool{true, false, true}, tight); !errors.Is(err, attention.ErrFull) || tight.Len() != 0 {
		t.Errorf("error %v, %d tokens", err, tight.Len())
	}
	dst, meta := zeroMatrix(3, 8), []bool{true, false, true}
	if x := isatest.Allocations(func() { m.Forward(dst, x, x, x, meta) }); x != 0 {
		t.Errorf("%v allocations a call", x)
	}
}

package attention

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
)

// TestStateSkip has tokens pass that are not held, before, between and after others;
// what is seen of the rest is as if they had been forgotten.
func TestStateSkip(t *testing.T) {
	const d = 4
	a := must(t, Config{Heads: 2, HeadDim: d, Causal: true})
	pool, err := a.NewPages(PagesConfig{PageTokens: 3})
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]StateConfig{"float32": {}, "bounded": {MaxTokens: 8}, "int8": {Format: asm.Int8}, "pages": {Pages: pool}} {
		s, err := a.NewState(cfg)
		if err != nil {
			t.Fatal(err)
		}
		x := matrix(1, 8, 2*d)
		skip := func(n int) {
			t.Helper()
			if err := s.Skip(n); err != nil {
				t.Fatal(err)
			}
		}
		put := func(from, to int) {
			t.Helper()
			if err := s.Append(part(x, from, to), part(x, from, to)); err != nil {
				t.Fatal(err)
			}
		}
		skip(5)
		put(0, 3)
		skip(0)
		put(3, 4)
		skip(2)
		put(4, 8)
		want := []int64{5, 6, 7, 8, 11, 12, 13, 14}
		if got := s.Positions(nil); !slices.Equal(got, want) || s.Len() != 15 || s.Held() != 8 {
			t.Fatalf("%s: positions %v of %d", name, got, s.Len())
		}
		var file bytes.Buffer
		if _, err := s.WriteTo(&file); err != nil {
			t.Fatal(err)
		}
		read, err := a.ReadState(&file)
		if err != nil || !slices.Equal(read.Positions(nil), want) {
			t.Fatalf("%s: read %v, error %v", name, read, err)
		}
		at := 0
		for pos := range 20 {
			g, ok := s.Segment(pos)
			if held := slices.Contains(want, int64(pos)); ok != held {
				t.Fatalf("%s: token %d: held %v, want %v", name, pos, ok, held)
			}
			if !ok {
				continue
			}
			if g.Position != pos || g.Tokens < 1 || pos <= 8 && pos+g.Tokens > 9 || pos+g.Tokens > 15 {
				t.Fatalf("%s: segment %d, %d tokens at %d", name, g.Position, g.Tokens, pos)
			}
			k := mat.New(1, d)
			if err := g.Keys(k, 1, 0); err != nil {
				t.Fatal(err)
			}
			close64(t, name, k.Data, mat.Row(x, at)[d:], 0.02)
			at++
		}
		for from := range 16 {
			for to := range 17 {
				all := true
				for pos := from; pos < to; pos++ {
					all = all && slices.Contains(want, int64(pos))
				}
				if s.Holds(from, to) != all {
					t.Fatalf("%s: Holds(%d, %d) is not %v", name, from, to, all)
				}
			}
		}
		if err := s.Truncate(10); !errors.Is(err, ErrState) {
			t.Errorf("%s: error %v", name, err)
		}
		if err := s.Truncate(12); err != nil || s.Held() != 5 {
			t.Errorf("%s: error %v, %d tokens", name, err, s.Held())
		}
		if c := s.Config(); c.Format != s.cfg.Format || c.MaxTokens != cfg.MaxTokens {
			t.Errorf("%s: Config %+v", name, c)
		}
		s.Reset()
		skip(3)
		if err := s.Truncate(0); err != nil || s.Len() != 0 || s.Held() != 0 {
			t.Errorf("%s: error %v, %d tokens", name, err, s.Len())
		}
		if err := s.Skip(-1); !errors.Is(err, ErrCall) {
			t.Errorf("error %v", err)
		}
	}
	ring, err := a.NewState(StateConfig{Window: 3, Keep: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.Skip(1); !errors.Is(err, ErrCall) {
		t.Errorf("error %v", err)
	}
	n := 2*(3+slack) + 5
	x := matrix(1, n, 2*d)
	if err := ring.Append(x, x); err != nil {
		t.Fatal(err)
	}
	held := ring.Positions(nil)
	for pos := range n + 2 {
		g, ok := ring.Segment(pos)
		if ok != slices.Contains(held, int64(pos)) {
			t.Fatalf("token %d of a ring: held %v", pos, ok)
		}
		if ok {
			k := mat.New(1, d)
			if err := g.Keys(k, 0, 0); err != nil {
				t.Fatal(err)
			}
			sameBits(t, "ring", k.Data, mat.Row(x, pos)[:d])
		}
	}
}

// TestSegmentOfNone: what Segment returns with false has nothing to read.
func TestSegmentOfNone(t *testing.T) {
	s := newState(t, must(t, Config{Heads: 1, HeadDim: 2, Causal: true}), StateConfig{})
	g, ok := s.Segment(0)
	if _, _, held := g.Float32(); ok || held {
		t.Errorf("a segment of an empty state: %v, held %v", ok, held)
	}
	for _, err := range []error{g.Keys(matrix(1, 1, 2), 0, 0), g.Values(matrix(1, 1, 2), 0, 0), g.LogWeights(make([]float32, 1), 0, 0)} {
		if !errors.Is(err, ErrState) {
			t.Errorf("error %v, want one that matches ErrState", err)
		}
	}
}

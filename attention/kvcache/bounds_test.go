package kvcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/rope"
)

// TestOdd (law 8): constant keys, zero queries, NaN: never a hang, and NaN only where it
// came in.
func TestOdd(t *testing.T) {
	eachLaw(t, func(t *testing.T, c *lawCase, shape lawShape) {
		a := operator(t, c.config(shape))
		x := newText(10, &a.cfg, lawTokens)
		for i := range x.k.Data {
			x.k.Data[i] = 0.5
		}
		for i := range 20 {
			clear(mat.Row(x.q, i))
		}
		for _, v := range x.run(t, a, newState(t, a, StateConfig{}), 0, lawTokens).Data {
			if v-v != 0 {
				t.Fatalf("%v of finite inputs", v)
			}
		}
		mat.Row(x.k, 11)[0] = float32(math.NaN())
		mat.Row(x.q, 33)[0] = float32(math.Inf(1))
		x.run(t, a, newState(t, a, StateConfig{}), 0, lawTokens)
	})
}

// TestFormats: stored in 16 or 8 bits, close to float32.
func TestFormats(t *testing.T) {
	for i := range lawCases {
		c := &lawCases[i]
		a := operator(t, c.config(lawShapes[3]))
		x := newText(11, &a.cfg, 30)
		for _, f := range []asm.Format{asm.Float16, asm.BFloat16, asm.Int8} {
			s := newState(t, a, StateConfig{Format: f})
			for _, v := range x.run(t, a, s, 0, 30).Data {
				if v-v != 0 || math.Abs(float64(v)) > 10 {
					t.Fatalf("%s in %v: %v", c.name, f, v)
				}
			}
		}
	}
}

// TestSteadyState (law 13): a step allocates nothing.
func TestSteadyState(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for i := range lawCases {
		c := &lawCases[i]
		cfg := c.config(lawShapes[1])
		cfg.Workers = 4
		a := operator(t, cfg)
		x := newText(12, &a.cfg, 200)
		s, longer := newState(t, a, StateConfig{MaxTokens: 400}), newState(t, a, StateConfig{MaxTokens: 400})
		x.run(t, a, s, 0, 100)
		x.run(t, a, longer, 0, 200)
		dst := mat.New(1, a.cfg.Heads*a.cfg.ValueDim)
		call := callOf(dst, mat.Rows(x.q, 150, 151), mat.Rows(x.k, 150, 151), mat.Rows(x.v, 150, 151))
		call.State = longer // by which working memory comes to its size
		ctx := t.Context()
		steps := func() {
			for range 20 { // more than any policy waits before it does something
				if err := a.Run(ctx, call); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 10 {
			steps()
		}
		call.State = s
		steps()
		if n := testing.AllocsPerRun(8, steps); n > 0 {
			t.Errorf("%s: %v allocations in 20 steps", c.name, n)
		}
	}
}

// TestAppend: a prefix that is only taken up leaves what one that was attended from does.
func TestAppend(t *testing.T) {
	for _, p := range []Selector{Top{TopK: 5}, TokenSelect{TopK: 5}, Quest{Page: 4, Budget: 12}, RetroInfer{Segment: 16}, Landmarks{Block: 4, TopK: 2}} {
		a := operator(t, Config{Heads: 4, KVHeads: 2, HeadDim: 8, Keep: 2, Recent: 5, Chunk: 1, Select: p, Rotation: &rope.Config{HeadDim: 8}})
		x := newText(13, &a.cfg, lawTokens)
		one, other := newState(t, a, StateConfig{}), newState(t, a, StateConfig{})
		x.run(t, a, one, 0, 50)
		must(t, other.Append(mat.Rows(x.k, 0, 50), mat.Rows(x.v, 0, 50)))
		bitsAgree(t, fmt.Sprintf("%T", p), x.run(t, a, other, 50, lawTokens), x.run(t, a, one, 50, lawTokens))
	}
	for _, cfg := range []Config{{Select: InfLLM{Block: 4}, Recent: 4, Positions: Far}, {Evict: H2O{Budget: 9}}} {
		cfg.Heads, cfg.HeadDim = 1, 4
		a := operator(t, cfg)
		if err := newState(t, a, StateConfig{}).Append(mat.New(3, 4), mat.New(3, 4)); !errors.Is(err, ErrCall) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

// TestCancel: a done context is returned itself, and the state stands where it stood.
func TestCancel(t *testing.T) {
	for i := range lawCases {
		c := &lawCases[i]
		a := operator(t, c.config(lawShapes[1]))
		x := newText(14, &a.cfg, 40)
		s := newState(t, a, StateConfig{})
		x.run(t, a, s, 0, 30)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		call := callOf(mat.New(10, a.cfg.Heads*a.cfg.ValueDim), mat.Rows(x.q, 30, 40), mat.Rows(x.k, 30, 40), mat.Rows(x.v, 30, 40))
		call.State = s
		if err := a.Run(ctx, call); err != ctx.Err() || s.Len() != 30 {
			t.Errorf("%s: %v after %d tokens", c.name, err, s.Len())
		}
	}
}

// TestFarAway (law 9): with Far and InCache outputs do not depend on where a sequence
// stands; and InCache is attention to the compacted sequence.
func TestFarAway(t *testing.T) {
	r := &rope.Config{HeadDim: 8}
	for _, p := range []Positions{InCache, Far, FarInCache} {
		a := operator(t, Config{Heads: 2, HeadDim: 8, Recent: 9, Distance: 9, Select: All{}, Rotation: r, Positions: p, Chunk: 1})
		x := newText(15, &a.cfg, 30)
		near := x.run(t, a, newState(t, a, StateConfig{}), 0, 30)
		s := newState(t, a, StateConfig{})
		const away = 10_000_000
		for _, st := range s.heads {
			must(t, st.Skip(away))
		}
		s.n = away
		for g := range s.at {
			s.at[g] = []int{} // holds nothing of them
		}
		far := x.run(t, a, s, 0, 30)
		for i, v := range near.Data {
			if math.Abs(float64(far.Data[i]-v)) > 1e-5 {
				t.Fatalf("Positions %d: %v, at the origin %v", p, far.Data[i], v)
			}
		}
	}
}

// TestBadInput: each mistake is an error that names it, and changes nothing.
func TestBadInput(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		says string
	}{
		{Config{Keep: 4, Recent: 8, Evict: H2O{Budget: 11}}, "Keep + Recent = 12"},
		{Config{Keep: 4, Recent: 8, Evict: AdaKV{Evict: Knorm{Budget: 11}}}, "Keep + Recent = 12"},
		{Config{Evict: AdaKV{Evict: StreamingLLM{}}, Recent: 1}, "only scores tokens"},
		{Config{Evict: AdaKV{}}, "Evict is nil"},
		{Config{Evict: Block{Evict: H2O{Budget: 4}}}, "keys and values alone"},
		{Config{Evict: CriticalKV{Evict: Knorm{Budget: 4}}}, "Heads*ValueDim"},
		{Config{Select: TokenSelect{TopK: 4}, Evict: H2O{Budget: 4}}, "together with Evict"},
		{Config{Select: Quest{Budget: 16}, Rotation: &rope.Config{HeadDim: 8}, Positions: InCache}, "AtOrigin"},
		{Config{Select: InfLLM{}}, "want Far"},
		{Config{Select: Cached{Select: InfLLM{}}, Positions: Far, Recent: 4}, "InfLLM"},
		{Config{Select: Cached{Select: Window{}}, Recent: 4}, "kvcache.Window"},
		{Config{Select: Quest{Budget: 8}}, "at least a Page = 16"},
		{Config{Evict: Merging{Evict: StreamingLLM{}}, Recent: 1}, "scores tokens"},
		{Config{Evict: Merging{Evict: Knorm{Budget: 4}, Similarity: 2}}, "Similarity is 2"},
		{Config{Evict: Merging{}}, "Evict is nil"},
		{Config{Evict: AdaKV{Evict: Merging{Evict: Knorm{Budget: 4}}}}, "only scores tokens"},
		{Config{Positions: Far}, "Recent 0"},
		{Config{Positions: Grouped, Recent: 4}, "GroupSize is 0"},
		{Config{GroupSize: 2}, "GroupSize is 2"},
		{Config{Select: InfLLM{}, Positions: Grouped, GroupSize: 2, Recent: 4}, "want Far"},
		{Config{Rotation: &rope.Config{HeadDim: 6}}, "want HeadDim = 8"},
	} {
		c.cfg.Heads, c.cfg.KVHeads, c.cfg.HeadDim = 4, 2, 8
		if _, err := New(c.cfg); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "kvcache: ") {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.says)
		}
	}
	a := operator(t, Config{Heads: 4, KVHeads: 2, HeadDim: 8, Keep: 2, Recent: 4, Evict: H2O{Budget: 8}, Chunk: 1})
	x := newText(16, &a.cfg, 30)
	s := newState(t, a, StateConfig{})
	x.run(t, a, s, 0, 20)
	before := fmt.Sprint(s.Len(), s.Positions(nil, 0), s.Positions(nil, 1))
	other := operator(t, Config{Heads: 4, KVHeads: 2, HeadDim: 8, Keep: 2, Recent: 4, Evict: H2O{Budget: 9}, Chunk: 1})
	var file bytes.Buffer
	if _, err := s.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"truncation across what is forgotten": s.Truncate(15),
		"a file of another policy":            func() error { _, err := other.ReadState(bytes.NewReader(file.Bytes())); return err }(),
		"a cut file":                          func() error { _, err := a.ReadState(bytes.NewReader(file.Bytes()[:file.Len()-9])); return err }(),
		"a state of another policy":           other.Step(mat.New(1, 32), mat.New(1, 32), mat.New(1, 16), mat.New(1, 16), s),
		"a copy of another policy's":          newState(t, other, StateConfig{}).CopyFrom(s),
	} {
		if err == nil || what != "a cut file" && !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.Compact(5); !errors.Is(err, ErrCall) {
		t.Errorf("a budget below Keep + Recent: %v", err)
	}
	if after := fmt.Sprint(s.Len(), s.Positions(nil, 0), s.Positions(nil, 1)); after != before {
		t.Errorf("the state is %s, was %s", after, before)
	}
}

package kvcache

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/rope"
)

// TestRoomyIsExact (law 1): with a budget that holds all the bits are those of
// attention.Step.
func TestRoomyIsExact(t *testing.T) {
	eachLaw(t, func(t *testing.T, c *lawCase, shape lawShape) {
		if c.roomy == nil {
			t.Skip("no budget holds all, or what is read goes through other sums")
		}
		cfg := c.config(shape)
		c.roomy(&cfg)
		a := operator(t, cfg)
		exact, err := attention.New(attention.Config{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Causal: true})
		must(t, err)
		st, err := exact.NewState(attention.StateConfig{})
		must(t, err)
		x := newText(1, &a.cfg, lawTokens)
		s := newState(t, a, StateConfig{})
		for i := range lawTokens {
			got := x.run(t, a, s, i, i+1)
			want := mat.New(1, got.Cols)
			must(t, exact.Step(want, mat.Rows(x.q, i, i+1), mat.Rows(x.k, i, i+1), mat.Rows(x.v, i, i+1), st))
			if c.name == "Window" || s.marks.rule.mass || c.name == "RetroInfer" { // through sums of its own
				for j, y := range want.Data {
					if math.Abs(float64(got.Data[j]-y)) > 1e-5 {
						t.Fatalf("token %d: %v, want %v", i, got.Data[j], y)
					}
				}
				continue
			}
			bitsAgree(t, fmt.Sprintf("token %d", i), got, want)
		}
	})
}

// TestSplits (law 4) and TestWorkers (law 13): any cut at a query a chunk, any workers,
// pages, batches.
func TestSplits(t *testing.T) {
	eachLaw(t, func(t *testing.T, c *lawCase, shape lawShape) {
		a := operator(t, c.config(shape))
		x := newText(2, &a.cfg, lawTokens)
		s := newState(t, a, StateConfig{})
		want := x.run(t, a, s, 0, lawTokens)
		r := rand.New(rand.NewPCG(3, 3))
		for way := range 4 {
			cfg := StateConfig{}
			if way > 0 {
				p, err := a.NewPages(attention.PagesConfig{PageTokens: []int{1, 16, 64}[way-1]})
				must(t, err)
				cfg.Pages = p
			}
			other := c.config(shape)
			other.Workers = 1 + 3*way%8
			b := operator(t, other)
			if way > 0 {
				b = a // whose pages these are
			}
			s := newState(t, b, cfg)
			for at := 0; at < lawTokens; {
				to := min(at+1+r.IntN(9), lawTokens)
				bitsAgree(t, "split", x.run(t, b, s, at, to), mat.Rows(want, at, to))
				at = to
			}
			if cfg.Pages != nil {
				s.Reset()
				if n := cfg.Pages.Used(); n != 0 {
					t.Errorf("%d pages are left", n)
				}
			}
		}
	})
}

// TestForkAndFile (law 3): clones go their own ways; what is written goes on bit for bit.
func TestForkAndFile(t *testing.T) {
	eachLaw(t, func(t *testing.T, c *lawCase, shape lawShape) {
		a := operator(t, c.config(shape))
		x, y := newText(4, &a.cfg, lawTokens), newText(5, &a.cfg, lawTokens)
		whole := x.run(t, a, newState(t, a, StateConfig{}), 0, lawTokens)
		const fork = 37
		mixed := newState(t, a, StateConfig{})
		x.run(t, a, mixed, 0, fork)
		other := y.run(t, a, mixed, fork, lawTokens)

		s := newState(t, a, StateConfig{})
		for at := range lawTokens {
			if at%7 == 3 || at == fork {
				var file bytes.Buffer
				n, err := s.WriteTo(&file)
				must(t, err)
				if n != int64(file.Len()) {
					t.Fatalf("WriteTo says %d bytes, wrote %d", n, file.Len())
				}
				back, err := a.ReadState(&file)
				must(t, err)
				if back.Len() != s.Len() || file.Len() != 0 {
					t.Fatalf("read %d tokens, want %d; %d bytes left", back.Len(), s.Len(), file.Len())
				}
				bitsAgree(t, "read back", x.run(t, a, back, at, lawTokens), mat.Rows(whole, at, lawTokens))
			}
			if at == fork {
				bitsAgree(t, "fork", y.run(t, a, s.Clone(), fork, lawTokens), other)
				copied := newState(t, a, StateConfig{})
				must(t, copied.CopyFrom(s))
				bitsAgree(t, "copy", y.run(t, a, copied, fork, lawTokens), other)
			}
			bitsAgree(t, "one by one", x.run(t, a, s, at, at+1), mat.Rows(whole, at, at+1))
		}
	})
}

// TestRollback (law 3): what was taken back leaves nothing.
func TestRollback(t *testing.T) {
	eachLaw(t, func(t *testing.T, c *lawCase, shape lawShape) {
		a := operator(t, c.config(shape))
		x, y := newText(6, &a.cfg, lawTokens), newText(7, &a.cfg, lawTokens)
		want := x.run(t, a, newState(t, a, StateConfig{}), 0, lawTokens)
		s := newState(t, a, StateConfig{Rollback: 4})
		for at := 0; at < lawTokens; at++ {
			for range at % 4 {
				y.run(t, a, s, at, at+1)
				must(t, s.Truncate(at))
			}
			for i := range at % 3 { // several calls, one way back
				if at+i < lawTokens {
					y.run(t, a, s, at+i, at+i+1)
				}
			}
			must(t, s.Truncate(at))
			bitsAgree(t, "after going back", x.run(t, a, s, at, at+1), mat.Rows(want, at, at+1))
		}
		// Without versions: as far as the policy can, or an error that changes nothing.
		s = newState(t, a, StateConfig{})
		x.run(t, a, s, 0, 40)
		err := s.Truncate(33)
		if err != nil && s.Len() != 40 || err == nil && s.Len() != 33 {
			t.Errorf("Truncate gives %v and leaves %d tokens", err, s.Len())
		}
		at := s.Len()
		if err == nil {
			bitsAgree(t, "truncated", x.run(t, a, s, at, lawTokens), mat.Rows(want, at, lawTokens))
		} else {
			bitsAgree(t, "as before", x.run(t, a, s, at, lawTokens), mat.Rows(want, at, lawTokens))
		}
	})
}

// TestPoison (law 2): keys and values that are not read may be anything.
func TestPoison(t *testing.T) {
	eachLaw(t, func(t *testing.T, c *lawCase, shape lawShape) {
		cfg := c.config(shape)
		a := operator(t, cfg)
		x := newText(8, &a.cfg, lawTokens)
		s := newState(t, a, StateConfig{})
		x.run(t, a, s, 0, lawTokens-1)
		r := new(run)
		out := mat.New(1, cfg.Heads*cfg.ValueDim)
		at := lawTokens - 1
		must(t, r.serve(t.Context(), a, attention.Call{Dst: out, Q: mat.Rows(x.q, at, at+1), Options: &Options{Importance: x.importance[at:]}},
			mat.Rows(x.k, at, at+1), mat.Rows(x.v, at, at+1), batchOf(s.Clone())))
		if cfg.Evict != nil || r.choice.All {
			return // all that is held is read
		}
		// Values of what no head reads become NaN.
		nan := float32(math.NaN())
		poisoned := lawText{x.q, x.k, mat.New(x.v.Rows, x.v.Cols), x.importance}
		mat.Copy(poisoned.v, x.v)
		tasks := max(r.units, a.cfg.KVHeads)
		for g := range a.cfg.KVHeads {
			read := make([]bool, lawTokens)
			for task := g * tasks / a.cfg.KVHeads; task < (g+1)*tasks/a.cfg.KVHeads; task++ {
				for _, x := range slices.Concat(r.runs[task], r.fars[task]) {
					for i := x.From; i < x.To; i++ {
						read[i] = true
					}
				}
			}
			unread := 0
			for i, is := range read[:at] {
				if !is {
					unread++
					for j := range a.cfg.ValueDim {
						mat.Part(poisoned.v, i, g*a.cfg.ValueDim, a.cfg.ValueDim)[j] = nan
					}
				}
			}
			if unread == 0 {
				t.Error("all is read")
			}
		}
		if c.name == "RetroInfer" {
			return // clusters are sums of values
		}
		p := newState(t, a, StateConfig{})
		poisoned.run(t, a, p, 0, at)
		if c.name != "Cached" { // whose choice may be an older one
			bitsAgree(t, "poisoned", poisoned.run(t, a, p, at, at+1), out)
		}
	})
}

// TestGroups (law 7): key heads that are repeated choose alike, where each query head
// chooses alone.
func TestGroups(t *testing.T) {
	cfg := Config{Heads: 6, KVHeads: 2, HeadDim: 8, Keep: 1, Recent: 3, Chunk: 1}
	for _, p := range []Selector{Top{Tokens: 4, Group: Alone}, Quest{Page: 2, Budget: 6, Group: Alone}, TokenSelect{Tokens: 5}} {
		cfg.Select = p
		a := operator(t, cfg)
		wide := cfg
		wide.KVHeads = 6
		b := operator(t, wide)
		x := newText(9, &a.cfg, 40)
		repeated := lawText{q: x.q, k: mat.New(40, 48), v: mat.New(40, 48), importance: x.importance}
		for i := range 40 {
			for h := range 6 {
				copy(mat.Part(repeated.k, i, h*8, 8), mat.Part(x.k, i, h/3*8, 8))
				copy(mat.Part(repeated.v, i, h*8, 8), mat.Part(x.v, i, h/3*8, 8))
			}
		}
		bitsAgree(t, fmt.Sprintf("%T", p), repeated.run(t, b, newState(t, b, StateConfig{}), 0, 40), x.run(t, a, newState(t, a, StateConfig{}), 0, 40))
	}
}

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
		switch c.name {
		case "InfLLM", "RetroInfer", "SnapKV", "Pyramid", "Knorm", "KeyDiff", "LagKV", "Observed", "AdaKV", "Chunk", "TOVA",
			"CUR", "Leverage", "NonCausal", "Compactor", "ExpectedAttention", "FINCH", "CriticalKV", "Block":
			continue // which allocate when they make a block, or forget
		}
		cfg.Workers = 4
		a := operator(t, cfg)
		x := newText(12, &a.cfg, 200)
		s := newState(t, a, StateConfig{MaxTokens: 300})
		x.run(t, a, s, 0, 100)
		dst := mat.New(1, a.cfg.Heads*a.cfg.ValueDim)
		call := callOf(dst, mat.Rows(x.q, 150, 151), mat.Rows(x.k, 150, 151), mat.Rows(x.v, 150, 151))
		call.State = s
		ctx := t.Context()
		step := func() {
			if err := a.Run(ctx, call); err != nil {
				t.Fatal(err)
			}
		}
		for range 40 {
			step()
		}
		if n := testing.AllocsPerRun(20, step); n >= 1 {
			t.Errorf("%s: %v allocations a step", c.name, n)
		}
	}
}

// TestAppend: a prefix that is only taken up leaves what one that was attended from does.
func TestAppend(t *testing.T) {
	for _, p := range []Selector{Top{Tokens: 5}, TokenSelect{Tokens: 5}, Quest{Page: 4, Budget: 12}, RetroInfer{Segment: 16}, Landmarks{Block: 4, Blocks: 2}} {
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

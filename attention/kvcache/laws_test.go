package kvcache

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/rope"
)

// lawCase is a policy in the table of laws.
type lawCase struct {
	name   string
	change func(cfg *Config)
	roomy  func(cfg *Config) // a budget that holds all; nil where there is none
	far    bool              // outputs are not those of plain attention, whatever the budget
	scores bool              // Truncate needs Rollback
}

var lawCases = []lawCase{
	{name: "All", change: func(c *Config) { c.Select = All{} }, roomy: func(*Config) {}},
	{name: "Window", change: func(c *Config) { c.Select = Window{} }, roomy: func(c *Config) { c.Recent = 1000 }},
	{name: "Top", change: func(c *Config) { c.Select = Top{Tokens: 5} }, roomy: func(c *Config) { c.Select = Top{Tokens: 1000} }},
	{name: "TopAlone", change: func(c *Config) { c.Select = Top{Tokens: 5, Group: Alone} }, roomy: func(c *Config) { c.Select = Top{Tokens: 1000, Group: Alone} }},
	{name: "TopMax", change: func(c *Config) { c.Select = Top{Tokens: 5, Group: GroupMax} }, roomy: func(c *Config) { c.Select = Top{Tokens: 1000, Group: GroupMax} }},
	{name: "TokenSelect", change: func(c *Config) { c.Select = TokenSelect{Tokens: 6, Pool: 3} }, roomy: func(c *Config) { c.Select = TokenSelect{Tokens: 1000} }},
	{name: "TokenSelectInCache", change: func(c *Config) {
		c.Select, c.Rotation, c.Positions = TokenSelect{Tokens: 6}, &rope.Config{HeadDim: c.HeadDim &^ 1, RotaryDim: 0}, InCache
	}, far: true},
	{name: "Quest", change: func(c *Config) { c.Select = Quest{Page: 4, Budget: 12} }, roomy: func(c *Config) { c.Select = Quest{Page: 4, Budget: 4000} }},
	{name: "QuestAlone", change: func(c *Config) { c.Select = Quest{Page: 4, Budget: 12, Group: Alone} }, roomy: func(c *Config) { c.Select = Quest{Page: 4, Budget: 4000} }},
	{name: "InfLLM", change: func(c *Config) {
		c.Select, c.Positions = InfLLM{Block: 4, Blocks: 2, Representatives: 2}, Far
	}, far: true, scores: true},
	{name: "RetroInfer", change: func(c *Config) { c.Select = RetroInfer{Segment: 16, Read: 0.3, Estimate: 0.5} }, roomy: func(c *Config) { c.Select = RetroInfer{Segment: 1 << 20} }, scores: true},
	{name: "Landmarks", change: func(c *Config) { c.Select = Landmarks{Block: 4, Blocks: 2} }, roomy: func(c *Config) { c.Select = Landmarks{Block: 4, Blocks: 1000} }},
	{name: "Cached", change: func(c *Config) {
		c.Select = Cached{Select: TokenSelect{Tokens: 6}, Similarity: 0.2, MaxAge: 5, Follow: true}
	}},
	{name: "StreamingLLM", change: func(c *Config) { c.Evict = StreamingLLM{} }, roomy: func(c *Config) { c.Recent = 1000 }},
	{name: "SirLLM", change: func(c *Config) { c.Evict = SirLLM{Tokens: 9, Decay: 0.9} }, roomy: func(c *Config) { c.Evict = SirLLM{Tokens: 1000} }, scores: true},
	{name: "External", change: func(c *Config) { c.Evict = External{Budget: 15} }, roomy: func(c *Config) { c.Evict = External{Budget: 1000} }},
	{name: "H2O", change: func(c *Config) { c.Evict = H2O{Budget: 15} }, scores: true},
	{name: "TOVA", change: func(c *Config) { c.Evict = TOVA{Budget: 15} }, roomy: func(c *Config) { c.Evict = TOVA{Budget: 1000} }, scores: true},
	{name: "SnapKV", change: func(c *Config) { c.Evict, c.Every = SnapKV{Budget: 15, Window: 4}, 4 }, roomy: func(c *Config) { c.Evict = SnapKV{Budget: 1000, Window: 4} }, scores: true},
	{name: "Pyramid", change: func(c *Config) {
		c.Evict, c.Every = Pyramid{SnapKV: SnapKV{Budget: 15, Window: 4}, Layer: 1, Layers: 2, Beta: 2}, 4
	}, scores: true},
	{name: "Knorm", change: func(c *Config) { c.Evict, c.Every = Knorm{Budget: 15}, 4 }, roomy: func(c *Config) { c.Evict = Knorm{Budget: 1000} }},
	{name: "KeyDiff", change: func(c *Config) { c.Evict, c.Every = KeyDiff{Budget: 15}, 4 }, roomy: func(c *Config) { c.Evict = KeyDiff{Budget: 1000} }},
	{name: "LagKV", change: func(c *Config) { c.Evict, c.Every = LagKV{Budget: 15, Lag: 4}, 4 }, roomy: func(c *Config) { c.Evict = LagKV{Budget: 1000, Lag: 4} }},
	{name: "Observed", change: func(c *Config) { c.Evict, c.Every = ObservedAttention{Budget: 15}, 4 }, scores: true},
	{name: "CUR", change: func(c *Config) { c.Evict, c.Every = CUR{Budget: 15}, 4 }},
	{name: "Leverage", change: func(c *Config) { c.Evict, c.Every = Leverage{Budget: 15}, 4 }},
	{name: "NonCausal", change: func(c *Config) { c.Evict, c.Every = NonCausal{Budget: 15, Window: 24}, 4 }, scores: true},
	{name: "Compactor", change: func(c *Config) { c.Evict, c.Every = Compactor{Budget: 15, Window: 24}, 4 }, scores: true},
	{name: "ExpectedAttention", change: func(c *Config) {
		c.Evict, c.Every, c.Rotation = ExpectedAttention{Budget: 15, Window: 24}, 4, &rope.Config{}
	}, scores: true},
	{name: "FINCH", change: func(c *Config) { c.Evict, c.Every = FINCH{Budget: 15, Window: 4}, 4 }, scores: true},
	{name: "CriticalKV", change: func(c *Config) {
		c.Evict, c.Every = CriticalKV{Evict: Knorm{Budget: 15}, Output: blas32.General{Rows: 3, Cols: c.Heads * c.ValueDim, Stride: c.Heads * c.ValueDim, Data: slices.Repeat([]float32{1, -2, 3}, c.Heads*c.ValueDim)}}, 4
	}},
	{name: "Block", change: func(c *Config) { c.Evict, c.Every = Block{Evict: KeyDiff{Budget: 15}, Length: 4}, 4 }},
	{name: "AdaKV", change: func(c *Config) { c.Evict, c.Every = AdaKV{Evict: Knorm{Budget: 15}}, 4 }, roomy: func(c *Config) { c.Evict = AdaKV{Evict: Knorm{Budget: 1000}} }},
	{name: "Chunk", change: func(c *Config) { c.Evict, c.Every = Chunk{Evict: Knorm{Budget: 15}, Length: 3}, 4 }, roomy: func(c *Config) { c.Evict = Chunk{Evict: Knorm{Budget: 1000}} }},
}

// shape is a sequence of the laws.
type lawShape struct{ heads, kvHeads, dim int }

var lawShapes = []lawShape{{3, 1, 7}, {4, 1, 16}, {2, 2, 16}, {6, 2, 10}}

// config is the policy's for a shape, a query at a time.
func (c *lawCase) config(s lawShape) Config {
	cfg := Config{Heads: s.heads, KVHeads: s.kvHeads, HeadDim: s.dim, ValueDim: s.dim + 1, Keep: 2, Recent: 5, Chunk: 1, Workers: 1}
	c.change(&cfg)
	if cfg.Rotation != nil {
		cfg.Rotation = &rope.Config{HeadDim: s.dim, RotaryDim: s.dim &^ 1}
	}
	return cfg
}

type lawText struct {
	q, k, v    blas32.General
	importance []float32
}

func newText(seed uint64, cfg *Config, n int) lawText {
	r := rand.New(rand.NewPCG(seed, 1))
	m := func(cols int) blas32.General {
		x := mat.New(n, cols)
		for i := range x.Data {
			x.Data[i] = float32(r.NormFloat64())
		}
		return x
	}
	kv := cfg.KVHeads
	if kv == 0 {
		kv = cfg.Heads
	}
	x := lawText{q: m(cfg.Heads * cfg.HeadDim), k: m(kv * cfg.HeadDim), v: m(kv * cfg.ValueDim)}
	for range n {
		x.importance = append(x.importance, float32(r.ExpFloat64()))
	}
	return x
}

// run takes rows from ... to of a text into a state and returns the outputs.
func (x *lawText) run(t testing.TB, a *Attention, s *State, from, to int) blas32.General {
	t.Helper()
	dst := mat.New(to-from, a.cfg.Heads*a.cfg.ValueDim)
	c := callOf(dst, mat.Rows(x.q, from, to), mat.Rows(x.k, from, to), mat.Rows(x.v, from, to))
	c.State, c.Options = s, &Options{Importance: x.importance[from:to]}
	must(t, a.Run(t.Context(), c))
	return dst
}

func bitsAgree(t *testing.T, what string, a, b blas32.General) {
	t.Helper()
	for i := range a.Rows {
		for j, x := range mat.Row(a, i) {
			if y := mat.Row(b, i)[j]; math.Float32bits(x) != math.Float32bits(y) {
				t.Fatalf("%s: row %d, column %d is %v, want %v", what, i, j, x, y)
			}
		}
	}
}

const lawTokens = 61

func eachLaw(t *testing.T, law func(t *testing.T, c *lawCase, s lawShape)) {
	isatest.Run(t, func(t *testing.T) {
		for i := range lawCases {
			c := &lawCases[i]
			t.Run(c.name, func(t *testing.T) {
				for n, s := range lawShapes {
					if testing.Short() && n != i%len(lawShapes) {
						continue
					}
					t.Run(fmt.Sprintf("%d-%d-%d", s.heads, s.kvHeads, s.dim), func(t *testing.T) { law(t, c, s) })
				}
			})
		}
	})
}

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

package kvcache

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

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
	scores bool              // Truncate needs Snapshots
}

var lawCases = []lawCase{
	{name: "All", change: func(c *Config) { c.Select = All{} }, roomy: func(*Config) {}},
	{name: "Window", change: func(c *Config) { c.Select = Window{} }, roomy: func(c *Config) { c.Recent = 1000 }},
	{name: "Top", change: func(c *Config) { c.Select = Top{TopK: 5} }, roomy: func(c *Config) { c.Select = Top{TopK: 1000} }},
	{name: "TopAlone", change: func(c *Config) { c.Select = Top{TopK: 5, Group: Alone} }, roomy: func(c *Config) { c.Select = Top{TopK: 1000, Group: Alone} }},
	{name: "TopMax", change: func(c *Config) { c.Select = Top{TopK: 5, Group: GroupMax} }, roomy: func(c *Config) { c.Select = Top{TopK: 1000, Group: GroupMax} }},
	{name: "TokenSelect", change: func(c *Config) { c.Select = TokenSelect{TopK: 6, Kernel: 3} }, roomy: func(c *Config) { c.Select = TokenSelect{TopK: 1000} }},
	{name: "TokenSelectInCache", change: func(c *Config) {
		c.Select, c.Rotation, c.Positions = TokenSelect{TopK: 6}, &rope.Config{HeadDim: c.HeadDim &^ 1, RotaryDim: 0}, InCache
	}, far: true},
	{name: "TokenSelectCopy", change: func(c *Config) { c.Select = TokenSelect{TopK: 6, Bits: 8} }, roomy: func(c *Config) { c.Select = TokenSelect{TopK: 1000, Bits: 8} }},
	{name: "Grouped", change: func(c *Config) {
		c.Select, c.Rotation, c.Positions, c.GroupSize = All{}, &rope.Config{}, Grouped, 3
	}, far: true},
	{name: "WindowInCache", change: func(c *Config) {
		c.Select, c.Evict, c.Rotation, c.Positions = Window{}, StreamingLLM{}, &rope.Config{}, InCache
	}, far: true},
	{name: "Quest", change: func(c *Config) { c.Select = Quest{Page: 4, Budget: 12} }, roomy: func(c *Config) { c.Select = Quest{Page: 4, Budget: 4000} }},
	{name: "QuestAlone", change: func(c *Config) { c.Select = Quest{Page: 4, Budget: 12, Group: Alone} }, roomy: func(c *Config) { c.Select = Quest{Page: 4, Budget: 4000} }},
	{name: "InfLLM", change: func(c *Config) {
		c.Select, c.Positions = InfLLM{Block: 4, TopK: 2, Representatives: 2}, Far
	}, far: true, scores: true},
	{name: "RetroInfer", change: func(c *Config) { c.Select = RetroInfer{Segment: 16, Read: 0.3, Estimate: 0.5} }, roomy: func(c *Config) { c.Select = RetroInfer{Segment: 1 << 20} }, scores: true},
	{name: "Landmarks", change: func(c *Config) { c.Select = Landmarks{Block: 4, TopK: 2} }, roomy: func(c *Config) { c.Select = Landmarks{Block: 4, TopK: 1000} }},
	{name: "Cached", change: func(c *Config) {
		c.Select = Cached{Select: TokenSelect{TopK: 6}, Similarity: 0.2, MaxAge: 5, Follow: true}
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
		c.Evict, c.Every = CriticalKV{Evict: Knorm{Budget: 15}, Out: blas32.General{Rows: 3, Cols: c.Heads * c.ValueDim, Stride: c.Heads * c.ValueDim, Data: slices.Repeat([]float32{1, -2, 3}, c.Heads*c.ValueDim)}}, 4
	}},
	{name: "Block", change: func(c *Config) { c.Evict, c.Every = Block{Evict: KeyDiff{Budget: 15}, Length: 4}, 4 }},
	{name: "Merging", change: func(c *Config) { c.Evict, c.Every = Merging{Evict: Knorm{Budget: 15}}, 4 }, roomy: func(c *Config) { c.Evict = Merging{Evict: Knorm{Budget: 1000}} }},
	{name: "MergingH2O", change: func(c *Config) { c.Evict = Merging{Evict: H2O{Budget: 15}, Similarity: 0.3} }, scores: true},
	{name: "MergingAdaKV", change: func(c *Config) { c.Evict, c.Every = Merging{Evict: AdaKV{Evict: KeyDiff{Budget: 15}}}, 4 }},
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

package kvcache

import (
	"math"
	"testing"

	"github.com/subquad/subquad/internal/mat"
)

// TestAnySize: whatever the numbers of a Config are, it is refused, or takes up a text
// without an error.
func TestAnySize(t *testing.T) {
	const large = math.MaxInt>>23 + 1 // 2^40, and 2^8 on 32 bits
	bad := []int{math.MinInt, -1, 0, 1, 2, 7, 100, 1 << 20, math.MaxInt>>32 + 1, large, math.MaxInt}
	x := func() Config { return Config{Heads: 4, KVHeads: 2, HeadDim: 8, Keep: 1, Recent: 3, Chunk: 2} }
	for _, a := range bad {
		for _, b := range []int{0, 1, 3, large} {
			for _, p := range []Selector{
				Top{TopK: a},
				TokenSelect{TopK: a},
				TokenSelect{TopK: a, Bits: 4},
				Quest{Budget: a, Page: min(b, 1<<16)},
				Quest{Budget: 64, Page: a},
				InfLLM{Block: a},
				InfLLM{TopK: a, Block: 4},
				InfLLM{Representatives: a},
				RetroInfer{Segment: a},
				Landmarks{Block: a, TopK: 2},
				Landmarks{Block: 2, TopK: a},
				Shadow{TopK: a},
				Cached{Select: Top{TopK: a},
					MaxAge: b},
				Window{},
				All{},
			} {
				for _, pos := range []Positions{AtOrigin, InCache, Far, FarInCache, Grouped} {
					cfg := x()
					cfg.Select, cfg.Recent, cfg.Keep, cfg.Positions, cfg.Dense = p, b, b, pos, 3
					if pos == Grouped {
						cfg.GroupSize = b
					}
					takesUp(t, cfg)
				}
			}
			for _, p := range []Evictor{
				StreamingLLM{},
				SirLLM{Tokens: a},
				H2O{a},
				TOVA{a},
				SnapKV{Budget: a, Window: 3},
				SnapKV{Budget: 20, Window: a},
				SnapKV{Budget: 20, Window: 3, Kernel: a},
				Knorm{Budget: a},
				LagKV{Budget: a, Lag: 4},
				LagKV{Budget: 20, Lag: a},
				External{a},
				CUR{Budget: a},
				Leverage{Budget: a},
				NonCausal{Budget: a, Window: 24},
				NonCausal{Budget: 20, Window: a},
				Compactor{Budget: a},
				FINCH{Budget: a, Window: 4},
				FINCH{Budget: 20, Window: a},
				Block{Evict: Knorm{Budget: a}, Length: 4},
				Block{Evict: Knorm{Budget: 20}, Length: a},
				Chunk{Evict: Knorm{Budget: 20}, Length: a},
				Chunk{Evict: Knorm{Budget: a}, Length: 4},
				AdaKV{Evict: Knorm{Budget: a}},
				Merging{Evict: H2O{a}},
				ObservedAttention{Budget: a},
				KeyDiff{Budget: a},
				Pyramid{SnapKV: SnapKV{Budget: a, Window: 3}, Layer: 1, Layers: 2},
				Pyramid{SnapKV: SnapKV{Budget: 20, Window: 3}, Layer: a, Layers: 2},
				Pyramid{SnapKV: SnapKV{Budget: 20, Window: 3}, Layer: 0, Layers: a},
			} {
				cfg := x()
				cfg.Evict, cfg.Every, cfg.Recent = p, b, min(b, 3)
				if b == 3 {
					cfg.Keep = 0
				}
				takesUp(t, cfg)
				cfg.Select = Window{}
				takesUp(t, cfg)
			}
		}
	}
}

// takesUp takes up a text by any policy.
func takesUp(t *testing.T, cfg Config) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("%+v: panic %v", cfg, r)
		}
	}()
	a, err := New(cfg)
	if err != nil {
		return
	}
	tx := newText(1, &a.cfg, 40)
	s, err := a.NewState(StateConfig{})
	if err != nil {
		return
	}
	for at := 0; at < 40; at += 8 {
		c := callOf(mat.New(8, 32), mat.Rows(tx.q, at, at+8), mat.Rows(tx.k, at, at+8), mat.Rows(tx.v, at, at+8))
		c.State = s
		if err := a.Run(t.Context(), c); err != nil {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	s.Compact(0)
	s.Compact(math.MaxInt)
}

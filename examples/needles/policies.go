package main

import (
	"bytes"
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention/kvcache"
	"github.com/subquad/subquad/attention/transformer"
	"github.com/subquad/subquad/rope"
)

// trained is how many tokens the model was trained to.
const trained = 512

// policy is a way to read a long sequence with a model that was trained on short ones.
type policy struct {
	name string
	// scheme is what becomes of the rotation, for a sequence of that many tokens.
	scheme func(tokens int) func(layer int, cfg rope.Config) rope.Config
	// layer is what a layer looks at and forgets, of a context and the queries after it.
	layer func(layer, context int) *kvcache.Config
	// turn is how many tokens of the context go in one call; 0 is all.
	turn int
	// surprise tells SirLLM how little the model expected each token.
	surprise bool
	// compact forgets at the end of the context.
	compact bool
	// asked says that it runs only where -policies names it.
	asked bool
}

// all gives every layer the same.
func all(cfg kvcache.Config) func(int, int) *kvcache.Config {
	return func(int, int) *kvcache.Config { c := cfg; return &c }
}

// prompt is all for policies that read the context in full and choose for queries only.
func prompt(cfg kvcache.Config) func(int, int) *kvcache.Config {
	return func(_, context int) *kvcache.Config { c := cfg; c.Dense = context; return &c }
}

// stretched changes the rotation by how many times the training's length a sequence has.
func stretched(change func(cfg *rope.Config, factor float64)) func(int) func(int, rope.Config) rope.Config {
	return func(tokens int) func(int, rope.Config) rope.Config {
		return func(_ int, cfg rope.Config) rope.Config {
			change(&cfg, max(1, float64(tokens)/trained))
			return cfg
		}
	}
}

var (
	yarn = stretched(func(cfg *rope.Config, f float64) {
		if f > 1 {
			cfg.Scheme = rope.YaRN{Factor: f, Original: trained}
		}
	})
	tokenSelect = kvcache.Config{Keep: 4, Recent: 128, Chunk: 64, Select: kvcache.TokenSelect{TopK: 64}, Positions: kvcache.InCache}
	infLLM      = kvcache.Config{Keep: 4, Recent: 256, Chunk: 64, Select: kvcache.InfLLM{Block: 8, TopK: 32, Representatives: 2}, Positions: kvcache.Far}
)

// policies are what is compared.
var policies = []policy{
	{name: "plain"},
	{name: "linear", scheme: stretched(func(cfg *rope.Config, f float64) { cfg.Scheme = rope.Linear{Factor: f} })},
	{name: "ntk", scheme: stretched(func(cfg *rope.Config, f float64) { cfg.Scheme = rope.NTK{Factor: f} })},
	{name: "dynamic_ntk", scheme: stretched(func(cfg *rope.Config, f float64) { cfg.Scheme = rope.NTK{Factor: 2*f - 1} })},
	{name: "yarn", scheme: yarn},
	{name: "abf", scheme: stretched(func(cfg *rope.Config, _ float64) { cfg.Base = 40000 })},
	{name: "giraffe", scheme: stretched(func(cfg *rope.Config, _ float64) { cfg.Scheme = rope.Giraffe{Power: 1} })},
	{name: "far_clamp", layer: all(kvcache.Config{Recent: 256, Select: kvcache.All{}, Positions: kvcache.Far, Distance: 256})},
	{name: "self_extend", asked: true, layer: func(_, context int) *kvcache.Config {
		far := context + queryTokens - 256
		return &kvcache.Config{Recent: 256, Select: kvcache.All{}, Positions: kvcache.Grouped, GroupSize: max(1, (far+255)/256)}
	}},
	{name: "streaming", layer: all(kvcache.Config{Keep: 4, Recent: 256, Chunk: 1, Evict: kvcache.StreamingLLM{}, Positions: kvcache.InCache})},
	{name: "infllm", layer: all(infLLM)},
	{name: "infllm_repr4", layer: all(kvcache.Config{Keep: 4, Recent: 256, Chunk: 64, Select: kvcache.InfLLM{Block: 16, TopK: 8, Representatives: 4}, Positions: kvcache.Far})},
	{name: "tokenselect", layer: all(tokenSelect)},
	{name: "window_tokenselect", layer: func(layer, _ int) *kvcache.Config {
		if layer == 0 {
			// What StreamingLLM sees a token at a time, for many queries together.
			return &kvcache.Config{Keep: 4, Recent: 256, Select: kvcache.Window{}, Positions: kvcache.FarInCache, Distance: 259}
		}
		c := tokenSelect
		c.Chunk = 128
		return &c
	}},
	{name: "top_head_cache_index", layer: all(kvcache.Config{Keep: 4, Recent: 128, Chunk: 64, Select: kvcache.Top{TopK: 64, Group: kvcache.Alone}, Positions: kvcache.InCache})},
	{name: "h2o", layer: all(kvcache.Config{Recent: 64, Chunk: 16, Evict: kvcache.H2O{Budget: 448}, Positions: kvcache.InCache})},
	{name: "sirllm", layer: all(kvcache.Config{Keep: 4, Recent: 64, Chunk: 16, Evict: kvcache.SirLLM{Tokens: 384}, Positions: kvcache.InCache}), turn: 16, surprise: true},
	{name: "top_yarn", scheme: yarn, layer: prompt(kvcache.Config{Keep: 4, Recent: 64, Select: kvcache.Top{TopK: 64, Group: kvcache.Alone}})},
	{name: "quest_yarn", scheme: yarn, layer: prompt(kvcache.Config{Keep: 4, Recent: 64, Select: kvcache.Quest{Page: 16, Budget: 256, Group: kvcache.Alone}})},
	{name: "snapkv_yarn_late", scheme: yarn, layer: all(kvcache.Config{Evict: kvcache.SnapKV{Window: 16, Budget: 128}}), compact: true},
	{name: "streaming_508", asked: true, layer: all(kvcache.Config{Keep: 4, Recent: 508, Chunk: 1, Evict: kvcache.StreamingLLM{}, Positions: kvcache.InCache})},
	{name: "tokenselect_4", asked: true, layer: all(kvcache.Config{Keep: 4, Recent: 128, Chunk: 64, Select: kvcache.TokenSelect{TopK: 4}, Positions: kvcache.InCache})},
	{name: "top_plain", asked: true, layer: prompt(kvcache.Config{Keep: 4, Recent: 64, Select: kvcache.Top{TopK: 64, Group: kvcache.Alone}})},
	{name: "quest_plain", asked: true, layer: prompt(kvcache.Config{Keep: 4, Recent: 64, Select: kvcache.Quest{Page: 16, Budget: 256, Group: kvcache.Alone}})},
	{name: "quest_128_yarn", asked: true, scheme: yarn, layer: prompt(kvcache.Config{Keep: 4, Recent: 64, Select: kvcache.Quest{Page: 16, Budget: 128, Group: kvcache.Alone}})},
	{name: "snapkv_late", asked: true, layer: all(kvcache.Config{Evict: kvcache.SnapKV{Window: 16, Budget: 128}}), compact: true},
}

// open returns the model as the policy has it for a sequence of that many tokens.
func (p *policy) open(tokens, workers int) (*transformer.Model, error) {
	cfg := transformer.Config{Workers: workers}
	if p.scheme != nil {
		cfg.Rope = p.scheme(tokens)
	}
	return transformer.Read(bytes.NewReader(checkpoint), int64(len(checkpoint)), config, cfg)
}

// answers returns the logits [queries, vocabulary] of the tokens after each key that is
// asked for: the context goes first, then the queries, a token a step. seen, if not nil, is
// told what the model remembers after the context and after each query token.
func (p *policy) answers(ctx context.Context, m *transformer.Model, tokens []int32, seen func(st *transformer.State)) (blas32.General, error) {
	vocabulary := m.Shape().Vocab
	out := matrix(pairs, vocabulary)
	before := len(tokens) - queryTokens
	var cfg transformer.StateConfig
	if p.layer != nil {
		cfg.Policies = func(layer int) *kvcache.Config { return p.layer(layer, before) }
	}
	st, err := m.NewState(cfg)
	if err != nil {
		return out, err
	}
	report := func() {
		if seen != nil {
			seen(st)
		}
	}
	var last []float32 // logits of the token before a turn
	for from := 0; from < before; {
		to := before
		if p.turn > 0 {
			to = min(from+p.turn, before)
		}
		if last, err = p.take(ctx, m, st, tokens[from:to], blas32.General{}, last); err != nil {
			return out, err
		}
		from = to
	}
	if p.compact {
		for l := range m.Shape().Layers {
			if err := transformer.Past(st, l).Compact(0); err != nil {
				return out, err
			}
		}
	}
	report()
	step := 1
	if p.turn > 0 {
		step = 3 // a query is a turn
	}
	for from := before; from < len(tokens); from += step {
		logits := matrix(step, vocabulary)
		if last, err = p.take(ctx, m, st, tokens[from:from+step], logits, last); err != nil {
			return out, err
		}
		report()
		for i := range step {
			if at := from + i - before; at%3 == 1 { // the key
				copy(out.Data[at/3*vocabulary:], logits.Data[i*vocabulary:][:vocabulary])
			}
		}
	}
	return out, nil
}

// take gives a state the next tokens, and SirLLM their surprise. It returns the logits after
// the last one.
func (p *policy) take(ctx context.Context, m *transformer.Model, st *transformer.State, tokens []int32, logits blas32.General, last []float32) ([]float32, error) {
	call := &transformer.Call{Tokens: tokens, State: st, Logits: logits}
	if !p.surprise {
		return nil, m.Run(ctx, call)
	}
	vocabulary := m.Shape().Vocab
	if logits.Rows == 0 {
		call.Logits = matrix(len(tokens), vocabulary)
	}
	if err := m.Run(ctx, call); err != nil {
		return nil, err
	}
	surprise := make([]float32, len(tokens))
	if err := kvcache.SelfInformation(surprise, call.Logits, tokens); err != nil {
		return nil, err
	}
	if last != nil {
		surprise[0] = surpriseOf(last, tokens[0])
	}
	for l := range m.Shape().Layers {
		if err := transformer.Past(st, l).SetImportance(surprise); err != nil {
			return nil, err
		}
	}
	return call.Logits.Data[(len(tokens)-1)*vocabulary:], nil
}

// surpriseOf is -log P of a token.
func surpriseOf(logits []float32, token int32) float32 {
	sum := 0.0
	for _, x := range logits {
		sum += math.Exp(float64(x - logits[token]))
	}
	return float32(math.Log(sum))
}

func matrix(rows, cols int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, rows*cols)}
}

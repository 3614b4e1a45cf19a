package lm

import (
	"context"
	"iter"
	"slices"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// GenerateConfig says how a text goes on.
type GenerateConfig struct {
	SampleConfig
	// MaxTokens is how many tokens to generate at the most; 0 is no limit.
	MaxTokens int
	// Stop are tokens that end the text, and are not part of it.
	Stop []int32
}

// Generate continues a prompt after what the state has seen, and yields the tokens one by
// one. The prompt is not yielded. It must have a token, for what follows is predicted from
// its last one. When the loop ends, the state has seen the prompt and the yielded tokens,
// of which the last one only where a token of Stop came after it: another turn begins with
// what the state has not seen.
//
// It ends after MaxTokens, at a token of Stop, or with an error: of the arguments, matching
// ErrShape, ErrCall, ErrState or ErrConfig, or ctx.Err() once ctx is done.
func (m *Model) Generate(ctx context.Context, prompt []int32, st *State, cfg GenerateConfig) iter.Seq2[int32, error] {
	return func(yield func(int32, error) bool) {
		if err := m.generate(ctx, prompt, st, cfg, yield); err != nil {
			yield(0, err)
		}
	}
}

func (m *Model) generate(ctx context.Context, prompt []int32, st *State, cfg GenerateConfig, yield func(int32, error) bool) error {
	pkg := m.cfg.Package
	sampler, err := NewSampler(pkg, cfg.SampleConfig)
	if err != nil {
		return err
	}
	switch {
	case cfg.MaxTokens < 0:
		return check.Errorf(subquad.ErrConfig, "%s: MaxTokens is %d, want 0 or more", pkg, cfg.MaxTokens)
	case len(prompt) == 0:
		return check.Errorf(subquad.ErrShape, "%s: the prompt is empty, want a token", pkg)
	}
	if err := m.checkState("State", st); err != nil {
		return err
	}
	logits := make([]float32, m.vocab)
	call := Call{Tokens: prompt, State: st, Last: mat.Of(logits, 1, m.vocab)}
	next := make([]int32, 1)
	for n := 0; cfg.MaxTokens == 0 || n < cfg.MaxTokens; n++ {
		if err := m.Run(ctx, &call); err != nil {
			return err
		}
		if next[0], err = sampler.Sample(logits[:m.cfg.Words]); err != nil {
			return err
		}
		if slices.Contains(cfg.Stop, next[0]) || !yield(next[0], nil) {
			return nil
		}
		call.Tokens = next
	}
	return nil
}

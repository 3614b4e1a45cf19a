package lm

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/topk"
)

// SampleConfig says how the next token is chosen.
type SampleConfig struct {
	// Temperature divides the logits; 0 takes the likeliest token, the first of
	// equals, and leaves the rest without meaning.
	Temperature float64
	// TopK keeps only the TopK likeliest tokens; 0 keeps all.
	TopK int
	// TopP keeps only the likeliest tokens whose probabilities together reach TopP,
	// at least one; 0 keeps all.
	TopP float64
	// Seed begins the random numbers: the same seed makes the same choices.
	Seed uint64
}

// Sampler chooses tokens. It must not be used by two goroutines at once.
type Sampler struct {
	pkg     string
	cfg     SampleConfig
	random  *rand.Rand
	choices []choice
}

// choice is a token that may be sampled.
type choice struct {
	token int32
	p     float64 // its probability, not normalised
}

// compare puts the likelier first, and of equals the first.
func (c choice) compare(d choice) int {
	switch {
	case c.p > d.p:
		return -1
	case c.p < d.p:
		return 1
	}
	return int(c.token - d.token)
}

// NewSampler returns a sampler of a package, or an error that matches ErrConfig.
func NewSampler(pkg string, cfg SampleConfig) (*Sampler, error) {
	switch {
	case !(cfg.Temperature >= 0) || math.IsInf(cfg.Temperature, 0):
		return nil, check.Errorf(subquad.ErrConfig, "%s: Temperature is %v, want a finite number, 0 or more", pkg, cfg.Temperature)
	case cfg.TopK < 0:
		return nil, check.Errorf(subquad.ErrConfig, "%s: TopK is %d, want 0 or more", pkg, cfg.TopK)
	case !(cfg.TopP >= 0 && cfg.TopP <= 1):
		return nil, check.Errorf(subquad.ErrConfig, "%s: TopP is %v, want 0 to 1", pkg, cfg.TopP)
	}
	return &Sampler{pkg: pkg, cfg: cfg, random: rand.New(rand.NewPCG(cfg.Seed, 0))}, nil
}

// Sample returns a token for logits, as many as there are tokens to choose from;
// NaN is never chosen. It returns an error that matches ErrShape where there is none
// to choose. After the first call of a length it allocates nothing.
func (s *Sampler) Sample(logits []float32) (int32, error) {
	best, top := -1, float32(math.Inf(-1))
	for i, v := range logits {
		if v > top {
			best, top = i, v
		}
	}
	if best < 0 {
		return 0, check.Errorf(subquad.ErrShape, "%s: none of %d logits is a number", s.pkg, len(logits))
	}
	if s.cfg.Temperature == 0 || math.IsInf(float64(top), 1) {
		return int32(best), nil
	}
	s.choices = slices.Grow(s.choices[:0], len(logits))
	var sum float64
	for i, v := range logits {
		if p := math.Exp(float64(v-top) / s.cfg.Temperature); p > 0 {
			s.choices = append(s.choices, choice{int32(i), p})
			sum += p
		}
	}
	if s.cfg.TopK > 0 || s.cfg.TopP > 0 {
		if k := s.cfg.TopK; k > 0 && k < len(s.choices) {
			s.choices, sum = topk.First(s.choices, k, choice.compare), 0
			for _, c := range s.choices {
				sum += c.p
			}
		} else if least := (1 - s.cfg.TopP) * sum / float64(len(s.choices)); s.cfg.TopP > 0 {
			// All that are less likely than this do not together reach what is left out.
			s.choices = slices.DeleteFunc(s.choices, func(c choice) bool { return c.p < least })
		}
		slices.SortFunc(s.choices, choice.compare)
		if s.cfg.TopP > 0 {
			var kept float64
			for i, c := range s.choices {
				if kept += c.p; kept >= s.cfg.TopP*sum {
					s.choices, sum = s.choices[:i+1], kept
					break
				}
			}
		}
	}
	at := s.random.Float64() * sum
	for _, c := range s.choices {
		if at -= c.p; at < 0 {
			return c.token, nil
		}
	}
	return s.choices[len(s.choices)-1].token, nil
}

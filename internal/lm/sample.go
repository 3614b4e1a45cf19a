package lm

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/topk"
)

// SampleConfig says how the next token is chosen of logits. What it asks for is done in
// the order in which it stands here, which is that of Hugging Face's transformers; each
// filter works with the probabilities that those before it leave, which then sum to 1 again.
// The zero value takes the likeliest token.
type SampleConfig struct {
	// RepetitionPenalty makes tokens less likely that are there already (Sampler.See; in
	// Generate those of the prompt, of Seen, and the generated ones): their logits are
	// divided by it where they are above 0 and multiplied by it else, once however often a
	// token is there (Keskar et al. 2019, arXiv 1909.05858). 0 and 1 change nothing, and
	// below 1 it makes them likelier.
	RepetitionPenalty float64
	// Temperature divides the logits; 0 takes the likeliest token, the first of
	// equals, and leaves the rest without meaning.
	Temperature float64
	// TopK keeps only the TopK likeliest tokens, the first of equals; 0 keeps all.
	TopK int
	// TopP keeps only the likeliest tokens whose probabilities together reach TopP,
	// at least one; 0 keeps all (Holtzman et al. 2020, arXiv 1904.09751).
	TopP float64
	// MinP keeps only tokens with at least MinP times the probability of the likeliest
	// one; 0 keeps all (Nguyen et al. 2024, arXiv 2407.01082).
	MinP float64
	// Seed begins the random numbers: the same seed makes the same choices.
	Seed uint64
}

func (cfg *SampleConfig) check(pkg string) error {
	switch {
	case !(cfg.RepetitionPenalty >= 0) || math.IsInf(cfg.RepetitionPenalty, 0):
		return check.Errorf(subquad.ErrConfig, "%s: RepetitionPenalty is %v, want a finite number, 0 or more", pkg, cfg.RepetitionPenalty)
	case !(cfg.Temperature >= 0) || math.IsInf(cfg.Temperature, 0):
		return check.Errorf(subquad.ErrConfig, "%s: Temperature is %v, want a finite number, 0 or more", pkg, cfg.Temperature)
	case cfg.TopK < 0:
		return check.Errorf(subquad.ErrConfig, "%s: TopK is %d, want 0 or more", pkg, cfg.TopK)
	case !(cfg.TopP >= 0 && cfg.TopP <= 1):
		return check.Errorf(subquad.ErrConfig, "%s: TopP is %v, want 0 to 1", pkg, cfg.TopP)
	case !(cfg.MinP >= 0 && cfg.MinP <= 1):
		return check.Errorf(subquad.ErrConfig, "%s: MinP is %v, want 0 to 1", pkg, cfg.MinP)
	}
	return nil
}

// penalises tells whether tokens that are there already count.
func (cfg *SampleConfig) penalises() bool {
	return cfg.RepetitionPenalty != 0 && cfg.RepetitionPenalty != 1
}

// Sampler chooses tokens. It must not be used by two goroutines at once.
type Sampler struct {
	pkg     string
	cfg     SampleConfig
	random  *rand.Rand
	choices []choice
	first   []int32 // by TopK

	waiting []int32 // given to See, and not yet in seen
	seen    []int32 // each once
	marked  []bool  // by token, as long as the logits
	scaled  []float32
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
	if err := cfg.check(pkg); err != nil {
		return nil, err
	}
	return &Sampler{pkg: pkg, cfg: cfg, random: rand.New(rand.NewPCG(cfg.Seed, 0))}, nil
}

// See tells of tokens that are there already, for RepetitionPenalty. Those that Sample
// returns must be told of too; numbers that have no logit count for nothing.
func (s *Sampler) See(tokens ...int32) {
	if s.cfg.penalises() {
		s.waiting = append(s.waiting, tokens...)
	}
}

// Sample returns a token for logits, as many as there are tokens to choose from;
// NaN is never chosen. It returns an error that matches ErrShape where there is none
// to choose. The logits stay as they are. After the first call of a length it allocates
// nothing.
func (s *Sampler) Sample(logits []float32) (int32, error) {
	if s.cfg.penalises() {
		logits = s.penalised(logits)
	}
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
	sum := s.weigh(logits, top)
	sum = s.keepFirst(sum)
	if s.cfg.MinP > 0 {
		// The likeliest token has p = 1, whatever was left out before.
		s.choices = slices.DeleteFunc(s.choices, func(c choice) bool { return c.p < s.cfg.MinP })
		sum = total(s.choices)
	}
	at := s.random.Float64() * sum
	for _, c := range s.choices {
		if at -= c.p; at < 0 {
			return c.token, nil
		}
	}
	return s.choices[len(s.choices)-1].token, nil
}

// penalised returns logits in which tokens that have been seen are penalised.
func (s *Sampler) penalised(logits []float32) []float32 {
	if len(s.marked) != len(logits) {
		s.waiting = append(s.waiting, s.seen...)
		s.seen, s.marked, s.scaled = s.seen[:0], make([]bool, len(logits)), make([]float32, len(logits))
	}
	for _, id := range s.waiting {
		if id >= 0 && int(id) < len(logits) && !s.marked[id] {
			s.marked[id], s.seen = true, append(s.seen, id)
		}
	}
	s.waiting = s.waiting[:0]
	copy(s.scaled, logits)
	for _, id := range s.seen {
		if v := float64(logits[id]); v > 0 {
			s.scaled[id] = float32(v / s.cfg.RepetitionPenalty)
		} else {
			s.scaled[id] = float32(v * s.cfg.RepetitionPenalty)
		}
	}
	return s.scaled
}

// weigh makes choices of the tokens that have a chance, the TopK likeliest of these, and
// returns the sum of their p, the likeliest having 1.
func (s *Sampler) weigh(logits []float32, top float32) (sum float64) {
	// Exponentials are what costs: there are none of tokens that are left out by their logits.
	least := -746.0 // exp of less is 0
	if s.cfg.MinP > 0 && s.cfg.TopP == 0 {
		least = math.Log(s.cfg.MinP) - 1e-6 // MinP itself decides
	}
	s.choices = slices.Grow(s.choices[:0], len(logits))
	note := func(i int) {
		if x := float64(logits[i]-top) / s.cfg.Temperature; x >= least {
			s.choices = append(s.choices, choice{int32(i), x})
		}
	}
	if k := s.cfg.TopK; k > 0 && k < len(logits) {
		s.first = topk.Select(s.first, logits, k)
		for _, id := range s.first {
			note(int(id))
		}
	} else {
		for i := range logits {
			note(i)
		}
	}
	kept := s.choices[:0]
	for _, c := range s.choices {
		if c.p = math.Exp(c.p); c.p > 0 {
			kept = append(kept, c)
			sum += c.p
		}
	}
	s.choices = kept
	return sum
}

// keepFirst keeps the likeliest choices, by TopP, and returns their sum.
func (s *Sampler) keepFirst(sum float64) float64 {
	if s.cfg.TopK == 0 && s.cfg.TopP == 0 {
		return sum
	}
	if s.cfg.TopP > 0 && (s.cfg.TopK == 0 || s.cfg.TopK >= len(s.choices)) {
		// All that are less likely than this do not together reach what is left out.
		least := (1 - s.cfg.TopP) * sum / float64(len(s.choices))
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
	return sum
}

func total(choices []choice) (sum float64) {
	for _, c := range choices {
		sum += c.p
	}
	return sum
}

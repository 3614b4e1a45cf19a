package lm

import (
	"cmp"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/subquad/subquad"
)

func TestSample(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	logits := []float32{1, 3, nan, 2, 3, -inf}
	count := func(cfg SampleConfig) []int {
		s, err := NewSampler("lm", cfg)
		must(t, err)
		n := make([]int, len(logits))
		for range 20000 {
			id, err := s.Sample(logits)
			must(t, err)
			n[id]++
		}
		return n
	}
	if n := count(SampleConfig{}); n[1] != 20000 {
		t.Errorf("greedy: %v", n)
	}
	weight := func(temperature float64, kept ...int) []float64 {
		p, sum := make([]float64, len(logits)), 0.0
		for _, i := range kept {
			p[i] = math.Exp(float64(logits[i]) / temperature)
			sum += p[i]
		}
		for i := range p {
			p[i] /= sum
		}
		return p
	}
	for _, c := range []struct {
		cfg  SampleConfig
		want []float64
	}{
		{SampleConfig{Temperature: 1}, weight(1, 0, 1, 3, 4)},
		{SampleConfig{Temperature: 2, Seed: 5}, weight(2, 0, 1, 3, 4)},
		{SampleConfig{Temperature: 1, TopK: 3}, weight(1, 1, 3, 4)},
		{SampleConfig{Temperature: 1, TopK: 100}, weight(1, 0, 1, 3, 4)},
		{SampleConfig{Temperature: 1, TopP: 0.5}, weight(1, 1, 4)},
		{SampleConfig{Temperature: 1, TopP: 1e-9}, weight(1, 1)},
		{SampleConfig{Temperature: 1, TopK: 1, TopP: 1}, weight(1, 1)},
	} {
		for i, n := range count(c.cfg) {
			if d := math.Abs(float64(n)/20000 - c.want[i]); !(d < 0.02) {
				t.Errorf("%+v: token %d came %d times in 20000, want %.3f of them", c.cfg, i, n, c.want[i])
			}
		}
	}
	s, err := NewSampler("lm", SampleConfig{Temperature: 1, TopP: 0.9})
	must(t, err)
	if n := testing.AllocsPerRun(10, func() { _, _ = s.Sample(logits) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for _, none := range [][]float32{nil, {nan}, {-inf, nan}} {
		if _, err := s.Sample(none); !errors.Is(err, subquad.ErrShape) {
			t.Errorf("%v: error %v", none, err)
		}
	}
	for want, cfg := range map[string]SampleConfig{
		"lm: Temperature is NaN, want a finite number, 0 or more": {Temperature: math.NaN()},
		"lm: TopK is -1, want 0 or more":                          {TopK: -1},
		"lm: TopP is 1.5, want 0 to 1":                            {TopP: 1.5},
	} {
		if _, err := NewSampler("lm", cfg); !errors.Is(err, subquad.ErrConfig) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// TestSampleMany compares, over a large vocabulary with equals in it, what may be
// chosen with what sorting gives.
func TestSampleMany(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	logits, order := make([]float32, 3000), make([]int, 3000)
	for i := range logits {
		logits[i], order[i] = float32(r.IntN(60))/10, i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(logits[b], logits[a]) })
	for _, cfg := range []SampleConfig{{TopK: 1}, {TopK: 77}, {TopK: 2999}, {TopP: 0.3}, {TopP: 0.999}, {TopK: 500, TopP: 0.5}} {
		kept := order[:min(cmp.Or(cfg.TopK, 3000), 3000)]
		if cfg.TopP > 0 {
			sum, reached := 0.0, 0.0
			for _, i := range kept {
				sum += math.Exp(float64(logits[i]))
			}
			for n, i := range kept {
				if reached += math.Exp(float64(logits[i])); reached >= cfg.TopP*sum {
					kept = kept[:n+1]
					break
				}
			}
		}
		cfg.Temperature = 1
		s, err := NewSampler("lm", cfg)
		must(t, err)
		seen := map[int]bool{}
		for range 60 {
			id, err := s.Sample(logits)
			must(t, err)
			seen[int(id)] = true
			if len(s.choices) != len(kept) {
				t.Fatalf("%+v: %d tokens to choose from, want %d", cfg, len(s.choices), len(kept))
			}
		}
		for id := range seen {
			if !slices.Contains(kept, id) {
				t.Fatalf("%+v: chose token %d", cfg, id)
			}
		}
	}
}

package lm

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/subquad/subquad"
)

// reference returns the distribution that a token is drawn from, in float64 and the slow
// way: the processors and warpers of Hugging Face's generate, in their order. Of equal
// tokens at the border of TopK the first are kept.
func reference(cfg SampleConfig, seen []int32, logits []float32) []float64 {
	scores := make([]float64, len(logits))
	for i, v := range logits {
		if scores[i] = float64(v); v != v {
			scores[i] = math.Inf(-1)
		}
	}
	if p := cfg.RepetitionPenalty; p != 0 {
		done := map[int32]bool{}
		for _, id := range seen {
			if id < 0 || int(id) >= len(scores) || done[id] {
				continue
			}
			done[id] = true
			if scores[id] < 0 {
				scores[id] *= p
			} else {
				scores[id] /= p
			}
			scores[id] = float64(float32(scores[id]))
		}
	}
	for i := range scores {
		scores[i] /= cfg.Temperature
	}
	softmax := func() []float64 {
		top, sum, p := slices.Max(scores), 0.0, make([]float64, len(scores))
		for i, v := range scores {
			p[i] = math.Exp(v - top)
			sum += p[i]
		}
		for i := range p {
			p[i] /= sum
		}
		return p
	}
	order := make([]int, len(scores))
	rank := func() []int {
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(scores[b], scores[a]) })
		return order
	}
	if cfg.TopK > 0 && cfg.TopK < len(scores) {
		for _, i := range rank()[cfg.TopK:] {
			scores[i] = math.Inf(-1)
		}
	}
	if cfg.TopP > 0 {
		p, reached := softmax(), 0.0
		for _, i := range rank() {
			if reached >= cfg.TopP {
				scores[i] = math.Inf(-1)
			}
			reached += p[i]
		}
	}
	if cfg.MinP > 0 {
		p := softmax()
		least := cfg.MinP * slices.Max(p)
		for i := range scores {
			if p[i] < least {
				scores[i] = math.Inf(-1)
			}
		}
	}
	return softmax()
}

// TestFilters compares what a token is drawn from with the reference, for all combinations
// of filters over small vocabularies.
func TestFilters(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	cases := 0
	for _, n := range []int{1, 2, 7, 50} {
		logits, seen := make([]float32, n), []int32{0, 0, int32(n - 1), int32(n + 3), -1}
		for i := range logits {
			logits[i] = float32(r.NormFloat64() * 3)
		}
		if n > 6 {
			logits[2], logits[3], logits[4] = float32(math.NaN()), logits[5], float32(math.Inf(-1))
		}
		for _, penalty := range []float64{0, 1, 1.3, 0.7} {
			for _, temperature := range []float64{0.5, 1, 2.5} {
				for _, k := range []int{0, 1, 3, 1000} {
					for _, topP := range []float64{0, 0.2, 0.77, 1} {
						for _, minP := range []float64{0, 0.05, 0.4, 1} {
							cfg := SampleConfig{RepetitionPenalty: penalty, Temperature: temperature, TopK: k, TopP: topP, MinP: minP}
							checkFilter(t, cfg, seen, logits)
							cases++
						}
					}
				}
			}
		}
	}
	if cases != 4*4*3*4*4*4 {
		t.Errorf("%d cases", cases)
	}
}

func checkFilter(t *testing.T, cfg SampleConfig, seen []int32, logits []float32) {
	t.Helper()
	s, err := NewSampler("lm", cfg)
	must(t, err)
	s.See(seen...)
	before := slices.Clone(logits)
	id, err := s.Sample(logits)
	must(t, err)
	want := reference(cfg, seen, logits)
	got, sum := make([]float64, len(logits)), total(s.choices)
	for _, c := range s.choices {
		got[c.token] = c.p / sum
	}
	what := fmt.Sprintf("%+v of %d", cfg, len(logits))
	for i, w := range want {
		if math.Abs(got[i]-w) > 1e-6 {
			t.Fatalf("%s: token %d has %v, want %v", what, i, got[i], w)
		}
	}
	if want[id] == 0 {
		t.Errorf("%s: chose token %d, which has no chance", what, id)
	}
	for i, v := range before {
		if v != logits[i] && v == v {
			t.Fatalf("%s: logit %d was changed", what, i)
		}
	}
}

// TestDraws counts draws from a filtered distribution.
func TestDraws(t *testing.T) {
	logits, seen := []float32{2, 1.5, 1, 0, -1, -2}, []int32{0, 5}
	cfg := SampleConfig{RepetitionPenalty: 1.5, Temperature: 1.2, TopK: 5, TopP: 0.95, MinP: 0.1, Seed: 3}
	want := reference(cfg, seen, logits)
	s, err := NewSampler("lm", cfg)
	must(t, err)
	s.See(seen...)
	const n = 50000
	var count [6]int
	for range n {
		id, err := s.Sample(logits)
		must(t, err)
		count[id]++
	}
	for i, w := range want {
		if got := float64(count[i]) / n; math.Abs(got-w) > 4*math.Sqrt(w*(1-w)/n) {
			t.Errorf("token %d: %.4f of the draws, want %.4f", i, got, w)
		}
	}
}

// TestPenalty: tokens that are there count once, greedy choices change too, and another
// number of logits forgets nothing.
func TestPenalty(t *testing.T) {
	s, err := NewSampler("lm", SampleConfig{RepetitionPenalty: 2})
	must(t, err)
	sample := func(want int32, logits ...float32) {
		t.Helper()
		if id, err := s.Sample(logits); err != nil || id != want {
			t.Errorf("chose %d of %v, want %d; error %v", id, logits, want, err)
		}
	}
	sample(0, 4, 3, 1)
	s.See(0)
	sample(1, 4, 3, 1)
	s.See(0, 0)
	sample(0, 4, 1.9, 1)
	s.See(1)
	sample(1, -3, -1, -2.1)
	sample(2, -3, -1.1, -2.1)
	sample(3, 4, 3, 1, 2.5) // 2, 1.5, 1, 2.5
	if n := testing.AllocsPerRun(50, func() {
		s.See(1)
		_, _ = s.Sample([]float32{1, 2, 3, 4})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for want, cfg := range map[string]SampleConfig{
		"lm: MinP is -0.5, want 0 to 1":                                  {MinP: -0.5},
		"lm: MinP is NaN, want 0 to 1":                                   {MinP: math.NaN()},
		"lm: RepetitionPenalty is -1, want a finite number, 0 or more":   {RepetitionPenalty: -1},
		"lm: RepetitionPenalty is +Inf, want a finite number, 0 or more": {RepetitionPenalty: math.Inf(1)},
	} {
		if _, err := NewSampler("lm", cfg); !errors.Is(err, subquad.ErrConfig) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// BenchmarkSample chooses among as many tokens as Qwen's models have.
func BenchmarkSample(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	logits := make([]float32, 151936)
	for i := range logits {
		logits[i] = float32(r.NormFloat64() * 3)
	}
	for name, cfg := range map[string]SampleConfig{
		"greedy": {}, "temperature": {Temperature: 0.8}, "top-k": {Temperature: 0.8, TopK: 50}, "top-p": {Temperature: 0.8, TopP: 0.9}, "min-p": {Temperature: 0.8, MinP: 0.05},
		"penalty": {RepetitionPenalty: 1.1},
	} {
		b.Run(name, func(b *testing.B) {
			s, err := NewSampler("lm", cfg)
			must(b, err)
			s.See(1, 2, 3)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Sample(logits); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package mamba

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/subquad/subquad/internal/mat"
)

func TestSample(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	logits := []float32{1, 3, nan, 2, 3, -inf}
	count := func(cfg SampleConfig) []int {
		s, err := NewSampler(cfg)
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
	s, err := NewSampler(SampleConfig{Temperature: 1, TopP: 0.9})
	must(t, err)
	if n := testing.AllocsPerRun(10, func() { _, _ = s.Sample(logits) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for _, none := range [][]float32{nil, {nan}, {-inf, nan}} {
		if _, err := s.Sample(none); !errors.Is(err, ErrShape) {
			t.Errorf("%v: error %v", none, err)
		}
	}
	for want, cfg := range map[string]SampleConfig{
		"mamba: Temperature is NaN, want a finite number, 0 or more": {Temperature: math.NaN()},
		"mamba: TopK is -1, want 0 or more":                          {TopK: -1},
		"mamba: TopP is 1.5, want 0 to 1":                            {TopP: 1.5},
	} {
		if _, err := NewSampler(cfg); !errors.Is(err, ErrConfig) || err.Error() != want {
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
		kept := order[:min(first(cfg.TopK, 3000), 3000)]
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
		s, err := NewSampler(cfg)
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

// TestGenerate compares with the logits of the whole text.
func TestGenerate(t *testing.T) {
	m := random(false, 2, 1).model(t, small)
	prompt := tokens(1, 10)
	st := newState(t, m, 0)
	text := slices.Clone(prompt)
	for id, err := range m.Generate(t.Context(), prompt, st, GenerateConfig{MaxTokens: 20}) {
		must(t, err)
		text = append(text, id)
	}
	if len(text) != 30 || st.Len() != 29 {
		t.Fatalf("%d tokens, the state has seen %d", len(text), st.Len())
	}
	logits := zeros(30, vocab)
	must(t, m.Forward(logits, text))
	for i := 10; i < 30; i++ {
		z := row(logits, i-1)
		if float64(slices.Max(z)-z[text[i]]) > 1e-4 {
			t.Errorf("token %d is %d, not the likeliest", i, text[i])
		}
	}
	generate := func(cfg GenerateConfig) (list []int32) {
		st.Reset()
		for id, err := range m.Generate(t.Context(), prompt, st, cfg) {
			must(t, err)
			if list = append(list, id); len(list) == 15 {
				break
			}
		}
		return list
	}
	warm := GenerateConfig{SampleConfig: SampleConfig{Temperature: 1, Seed: 7}}
	if a, b := generate(warm), generate(warm); !slices.Equal(a, b) || len(a) != 15 {
		t.Errorf("the same seed gives %v and %v", a, b)
	}
	if got := generate(GenerateConfig{Stop: text[10:11]}); len(got) != 0 {
		t.Errorf("%v behind a stop", got)
	}
	end := 11 // of what comes before a token that is new
	for slices.Contains(text[10:end], text[end]) {
		end++
	}
	if got := generate(GenerateConfig{Stop: text[end : end+1]}); len(got) != end-10 || st.Len() != end {
		t.Errorf("%d tokens before a stop, want %d; the state has seen %d", len(got), end-10, st.Len())
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for want, f := range map[string]func() (context.Context, []int32, *State, GenerateConfig){
		"mamba: the prompt is empty, want a token": func() (context.Context, []int32, *State, GenerateConfig) {
			return t.Context(), nil, st, GenerateConfig{}
		},
		"mamba: MaxTokens is -1, want 0 or more": func() (context.Context, []int32, *State, GenerateConfig) {
			return t.Context(), prompt, st, GenerateConfig{MaxTokens: -1}
		},
		"mamba: the state is nil": func() (context.Context, []int32, *State, GenerateConfig) {
			return t.Context(), prompt, nil, GenerateConfig{}
		},
		"mamba: Tokens[0] is 24, want 0 to 23": func() (context.Context, []int32, *State, GenerateConfig) {
			return t.Context(), []int32{24}, st, GenerateConfig{}
		},
		"mamba: context canceled": func() (context.Context, []int32, *State, GenerateConfig) {
			return canceled, prompt, st, GenerateConfig{}
		},
		"mamba: TopK is -1, want 0 or more": func() (context.Context, []int32, *State, GenerateConfig) {
			return t.Context(), prompt, st, GenerateConfig{SampleConfig: SampleConfig{TopK: -1}}
		},
	} {
		n := 0
		for _, err := range m.Generate(f()) {
			if n++; err == nil || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
		}
		if n != 1 {
			t.Errorf("%s: came %d times", want, n)
		}
	}
}

func TestCallErrors(t *testing.T) {
	m := random(false, 2, 1).model(t, small)
	other := random(false, 2, 1).model(t, small)
	st := newState(t, m, 0)
	ids := tokens(1, 4)
	for want, c := range map[string]Call{
		"mamba: Tokens[1] is -1, want 0 to 23":                        {Tokens: []int32{0, -1}},
		"mamba: Logits has 3 rows, want 4":                            {Tokens: ids, Logits: zeros(3, vocab)},
		"mamba: Hidden has 11 columns, want Dim = 12":                 {Tokens: ids, Hidden: zeros(4, 11)},
		"mamba: Last has 2 rows, want 1":                              {Tokens: ids, Last: zeros(2, vocab)},
		"mamba: Last is wanted, but sequence 0 has no tokens":         {Last: zeros(1, vocab)},
		"mamba: LogLikelihood has 4 elements, want len(Tokens)-1 = 3": {Tokens: ids, LogLikelihood: make([]float32, 4)},
		"mamba: Targets[0] is 24, want less than 24":                  {Tokens: ids, Targets: []int32{24}, LogLikelihood: make([]float32, 1)},
		"mamba: Workers is -1, want 0 or more":                        {Tokens: ids, Workers: -1},
		"mamba: the state is of another model":                        {Tokens: ids, State: newState(t, other, 0)},
		"mamba: the state was not made by NewState":                   {Tokens: ids, State: new(State)},
		"mamba: States is given without Offsets":                      {Tokens: ids, States: []*State{st}},
		"mamba: States has 1 elements, want one for each sequence, 2": {Tokens: ids, Offsets: []int{0, 1, 4}, States: []*State{st}},
		"mamba: one state stands for two sequences":                   {Tokens: ids, Offsets: []int{0, 1, 4}, States: []*State{st, st}},
		"mamba: Offsets[2] is 4, less than the one before it":         {Tokens: ids, Offsets: []int{0, 5, 4}},
	} {
		err := m.Run(t.Context(), &c)
		if !errors.Is(err, ErrShape) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	if err := m.StepBatch(zeros(2, vocab), ids[:2], []*State{st}); err == nil || err.Error() != "mamba: 1 states for 2 tokens" {
		t.Errorf("error %v", err)
	}
	must(t, m.Forward(mat.Rows(zeros(1, vocab), 0, 0), nil))
}

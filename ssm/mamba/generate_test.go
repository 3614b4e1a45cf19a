package mamba

import (
	"context"
	"errors"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
)

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
		z := mat.Row(logits, i-1)
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
		t.Errorf("%v after a stop", got)
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
		"mamba: State is nil, want one of NewState": func() (context.Context, []int32, *State, GenerateConfig) {
			return t.Context(), prompt, nil, GenerateConfig{}
		},
		"mamba: Tokens[0] is 24, want 0 to 23": func() (context.Context, []int32, *State, GenerateConfig) {
			return t.Context(), []int32{24}, st, GenerateConfig{}
		},
		"context canceled": func() (context.Context, []int32, *State, GenerateConfig) {
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
	changed := random(false, 2, 1)
	changed.State["backbone.layers.0.mixer.D"].Data[0]++
	other := changed.model(t, small)
	st, done := newState(t, m, 0), func(t *testing.T) context.Context {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		return ctx
	}(t)
	ids := tokens(1, 4)
	for _, c := range []struct {
		kind error
		want string
		call Call
	}{
		{ErrShape, "mamba: Tokens[1] is -1, want 0 to 23", Call{Tokens: []int32{0, -1}}},
		{ErrShape, "mamba: Logits has 3 rows, want 4", Call{Tokens: ids, Logits: zeros(3, vocab)}},
		{ErrShape, "mamba: Hidden has 11 columns, want Dim = 12", Call{Tokens: ids, Hidden: zeros(4, 11)}},
		{ErrShape, "mamba: Residuals has 2 elements, want Layers+1 = 3", Call{Tokens: ids, Residuals: make([]blas32.General, 2)}},
		{ErrShape, "mamba: Last has 2 rows, want 1", Call{Tokens: ids, Last: zeros(2, vocab)}},
		{ErrShape, "mamba: Last is wanted, but sequence 0 has no tokens", Call{Last: zeros(1, vocab)}},
		{ErrShape, "mamba: LogLikelihood has 4 elements, want len(Tokens)-1 = 3", Call{Tokens: ids, LogLikelihood: make([]float32, 4)}},
		{ErrShape, "mamba: Targets[0] is 24, want less than 24", Call{Tokens: ids, Targets: []int32{24}, LogLikelihood: make([]float32, 1)}},
		{ErrShape, "mamba: Pooled has 3 elements, want Dim = 12", Call{Tokens: ids, Pooled: make([]float32, 3)}},
		{ErrShape, "mamba: Pooled has 12 elements, want 2 sequences * Dim = 24", Call{Tokens: ids, Offsets: []int{0, 1, 4}, Pooled: make([]float32, 12)}},
		{ErrShape, "mamba: Mask has 3 elements, want len(Tokens) = 4", Call{Tokens: ids, Mask: make([]bool, 3)}},
		{ErrCall, "mamba: Pooling is 5, want Mean, Sum, Max, First or Last", Call{Tokens: ids, Pooling: 5}},
		{ErrCall, "mamba: Classes is wanted, but the checkpoint has no head for them", Call{Tokens: ids, Classes: []float32{1}}},
		{ErrCall, "mamba: Workers is -1, want 0 to 65536", Call{Tokens: ids, Workers: -1}},
		{ErrState, "mamba: State is of another model, or one with other weights", Call{Tokens: ids, State: newState(t, other, 0)}},
		{ErrState, "mamba: State was not made by NewState", Call{Tokens: ids, State: new(State)}},
		{ErrCall, "mamba: 1 States for 4 rows, want one for each row, or Offsets", Call{Tokens: ids, States: []*State{st}}},
		{ErrCall, "mamba: 1 States for 2 sequences", Call{Tokens: ids, Offsets: []int{0, 1, 4}, States: []*State{st}}},
		{ErrState, "mamba: States[1] is given twice", Call{Tokens: ids, Offsets: []int{0, 1, 4}, States: []*State{st, st}}},
		{ErrState, "mamba: a state of States is nil, want one of NewState", Call{Tokens: ids[:1], States: []*State{nil}}},
		{ErrCall, "mamba: Offsets runs backwards, from 5 to 4 at 2", Call{Tokens: ids, Offsets: []int{0, 5, 4}}},
	} {
		err := m.Run(t.Context(), &c.call)
		if !errors.Is(err, c.kind) || err.Error() != c.want {
			t.Errorf("error %v, want %s", err, c.want)
		}
		if err := m.Run(done, &Call{Tokens: ids, State: st}); err != context.Canceled || st.Len() != 0 {
			t.Errorf("error %v, %d tokens", err, st.Len())
		}
	}
	if err := m.Run(t.Context(), nil); !errors.Is(err, ErrCall) {
		t.Errorf("error %v", err)
	}
	if err := m.Run(nil, &Call{}); !errors.Is(err, ErrCall) { //nolint:staticcheck // on purpose
		t.Errorf("error %v", err)
	}
	if err := m.StepBatch(zeros(2, vocab), ids[:2], []*State{st}); err == nil || !errors.Is(err, ErrCall) {
		t.Errorf("error %v", err)
	}
	must(t, m.Forward(mat.Rows(zeros(1, vocab), 0, 0), nil))
}

package dna

import (
	"errors"
	"slices"
	"testing"

	"github.com/subquad/subquad/internal/mat"
)

// TestGenerate: the likeliest base after all that come before, in letters too.
func TestGenerate(t *testing.T) {
	m := small.random(4).model(t, small.config())
	prompt, all := bases(1, 50), []int32(nil)
	all = append(all, prompt...)
	text := ""
	st, err := m.NewState(StateConfig{})
	must(t, err)
	for p, err := range m.Stream(t.Context(), prompt, st, GenerateConfig{MaxTokens: 12, Words: m.Tokenizer(NoSpecial), LogProbs: true}) {
		must(t, err)
		if text += string(p.Text); p.End == Going {
			all = append(all, p.Token)
		}
	}
	if len(all) != 62 || text != m.Tokenizer(NoSpecial).Decode(all[50:]) {
		t.Fatalf("%d tokens, text %q", len(all), text)
	}
	logits := mat.Of(make([]float32, 62*m.cfg.Vocab), 62, m.cfg.Vocab)
	must(t, m.Run(t.Context(), &Call{Tokens: all, Logits: logits}))
	for i := 50; i < 62; i++ {
		z := mat.Row(logits, i-1)[:m.vocabulary.Size()]
		if float64(slices.Max(z)-z[all[i]]) > 1e-4 {
			t.Errorf("token %d is %d, not the likeliest", i, all[i])
		}
	}
	// Another turn, from what the state has not seen, gives what one call does.
	fork := st.Clone()
	more := func(st *State, prompt []int32, n int) (out []int32) {
		for id, err := range m.Generate(t.Context(), prompt, st, GenerateConfig{MaxTokens: n}) {
			must(t, err)
			out = append(out, id)
		}
		return out
	}
	st.Reset()
	if got := append(all[50:62:62], more(fork, all[fork.Len():], 5)...); fork.Len() != 66 || !slices.Equal(got, more(st, prompt, 17)) {
		t.Errorf("a state of %d tokens went on to %v", fork.Len(), got)
	}
	for _, err := range m.Generate(t.Context(), prompt, nil, GenerateConfig{}) {
		if !errors.Is(err, ErrState) {
			t.Errorf("error %v of no state", err)
		}
	}
	st.Reset()
	for _, err := range m.Generate(t.Context(), bases(1, m.cfg.MaxLen+1), st, GenerateConfig{}) {
		if !errors.Is(err, ErrTooLong) {
			t.Errorf("error %v", err)
		}
	}
}

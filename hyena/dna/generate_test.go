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
	for p, err := range m.Stream(t.Context(), prompt, GenerateConfig{MaxTokens: 12, Words: m.Tokenizer(NoSpecial), LogProbs: true}) {
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
		z := mat.Row(logits, i-1)[:m.vocabulary.Len()]
		if float64(slices.Max(z)-z[all[i]]) > 1e-4 {
			t.Errorf("token %d is %d, not the likeliest", i, all[i])
		}
	}
	for _, err := range m.Generate(t.Context(), bases(1, m.cfg.MaxLen+1), GenerateConfig{}) {
		if !errors.Is(err, ErrTooLong) {
			t.Errorf("error %v", err)
		}
	}
}

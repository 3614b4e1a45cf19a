package lm

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/mat"
)

// syllables are words whose tokens are pieces of letters: parts of characters too.
type syllables []string

func (w syllables) Size() int { return len(w) }
func (w syllables) AppendText(dst []byte, _, token int32) []byte {
	return append(dst, w[token]...)
}

// TestHeld: whatever the tokens and the stops, what is told piece by piece is what a search
// through the whole text would give, which no piece goes beyond, and none ends in a character.
func TestHeld(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	parts := syllables{"a", "b", "ab", "aab", "", "ba", "é"[:1], "é"[1:], "€"[:1], "€"[1:2], "€"[2:], "\n", "\xff"}
	for range 3000 {
		var h held
		var stops []string
		for range r.IntN(3) {
			stop := ""
			for stop == "" {
				for range 1 + r.IntN(3) {
					stop += []string{"a", "b", "aab", "é", "€a", "\n"}[r.IntN(6)]
				}
			}
			stops, h.stops = append(stops, stop), append(h.stops, []byte(stop))
		}
		var told, all strings.Builder
		ended := false
		for range 12 {
			id := int32(r.IntN(len(parts)))
			all.WriteString(parts[id])
			ended = h.add(parts, -1, id)
			told.Write(h.ready())
			if ended {
				break
			}
			if text := told.String(); text == all.String() && wholeRunes([]byte(text)) != len(text) {
				t.Fatalf("%q of %q ends within a character", text, all.String())
			}
		}
		told.Write(h.rest())
		want := all.String()
		for _, stop := range stops {
			if before, _, found := strings.Cut(all.String(), stop); found && len(before) < len(want) {
				want = before
			}
		}
		if (want != all.String()) != ended || told.String() != want {
			t.Fatalf("%q with stops %q: told %q, want %q, ended %v", all.String(), stops, told.String(), want, ended)
		}
	}
}

// letters has a letter for each token of the model.
func letters() (w syllables) {
	for i := range vocab {
		w = append(w, string(rune('a'+i%26)))
	}
	return w
}

func collect(t *testing.T, m *Model, prompt []int32, cfg GenerateConfig) (ids []int32, text string, logp []float32, end End, st *State) {
	t.Helper()
	if m.streams {
		st = newState(t, m, StateConfig{})
	}
	for p, err := range m.Stream(t.Context(), prompt, st, cfg) {
		must(t, err)
		if end != Going {
			t.Fatal("a piece after the last")
		}
		if text += string(p.Text); p.End != Going {
			if end = p.End; p.Token != -1 {
				t.Errorf("the last piece has token %d", p.Token)
			}
			continue
		}
		ids, logp = append(ids, p.Token), append(logp, p.LogProb)
	}
	return
}

// TestStream: tokens, text and log-probabilities of a generated text are those of Generate
// and of a call over the whole.
func TestStream(t *testing.T) {
	m, prompt, words := hybrid(t), tokens(3, 9), letters()
	warm := SampleConfig{Temperature: 1.5, TopK: 9, TopP: 0.9, MinP: 0.02, RepetitionPenalty: 1.2, Seed: 4}
	for _, sample := range []SampleConfig{{}, warm} {
		cfg := GenerateConfig{SampleConfig: sample, MaxTokens: 40, Words: words, LogProbs: true}
		ids, text, logp, end, st := collect(t, m, prompt, cfg)
		want := ""
		for _, id := range ids {
			want += words[id]
		}
		if len(ids) != 40 || text != want || end != AtLimit || st.Len() != len(prompt)+39 {
			t.Fatalf("%d tokens, text %q, want %q, ended at %v, the state has %d", len(ids), text, want, end, st.Len())
		}
		var plain []int32
		for id, err := range m.Generate(t.Context(), prompt, newState(t, m, StateConfig{}), GenerateConfig{SampleConfig: sample, MaxTokens: 40}) {
			must(t, err)
			plain = append(plain, id)
		}
		if !slices.Equal(plain, ids) {
			t.Errorf("Generate gives %v, Stream %v", plain, ids)
		}
		all := slices.Concat(prompt, ids)
		whole := make([]float32, len(all)-1)
		must(t, m.Run(t.Context(), &Call{Tokens: all, LogLikelihood: whole}))
		for i, v := range logp {
			if w := whole[len(prompt)-1+i]; math.Abs(float64(v-w)) > 1e-4 {
				t.Errorf("token %d has log-probability %v, want %v", i, v, w)
			}
		}
		// A stop across tokens cuts the text, wherever it begins.
		for at := 2; at < 6; at++ {
			stop := want[at : at+3]
			first := strings.Index(want, stop)
			cfg := cfg
			cfg.StopText = []string{"no such text", stop}
			ids, text, _, end, st := collect(t, m, prompt, cfg)
			if text != want[:first] || end != AtText || len(ids) != first+3 || st.Len() != len(prompt)+first+2 {
				t.Errorf("stop %q: text %q, want %q; %d tokens, ended at %v, the state has %d", stop, text, want[:first], len(ids), end, st.Len())
			}
		}
		cfg.Stop = ids[5:6]
		first := slices.Index(ids, ids[5])
		if got, text, _, end, st := collect(t, m, prompt, cfg); len(got) != first || text != want[:first] || end != AtToken || st.Len() != len(prompt)+first {
			t.Errorf("stop token: %d tokens, text %q, ended at %v, the state has %d", len(got), text, end, st.Len())
		}
	}
}

// TestNoSuchWord: tokens that the tokenizer does not have are not generated, however likely.
func TestNoSuchWord(t *testing.T) {
	m, prompt := hybrid(t), tokens(3, 9)
	ids, _, _, _, _ := collect(t, m, prompt, GenerateConfig{SampleConfig: SampleConfig{Temperature: 3}, MaxTokens: 60})
	if slices.Max(ids) < 7 {
		t.Fatalf("%v: the test needs larger tokens", ids)
	}
	ids, _, _, _, _ = collect(t, m, prompt, GenerateConfig{SampleConfig: SampleConfig{Temperature: 3}, MaxTokens: 60, Words: letters()[:7]})
	if slices.Max(ids) > 6 {
		t.Errorf("%v, want tokens up to 6", ids)
	}
	// And those in between that it lacks; the probabilities of others are the model's.
	cfg := GenerateConfig{SampleConfig: SampleConfig{Temperature: 3}, MaxTokens: 60, Words: gaps{letters()}, LogProbs: true}
	ids, _, logp, _, _ := collect(t, m, prompt, cfg)
	all := slices.Concat(prompt, ids)
	whole := make([]float32, len(all)-1)
	must(t, m.Run(t.Context(), &Call{Tokens: all, LogLikelihood: whole}))
	for i, id := range ids {
		if id%2 == 1 || math.Abs(float64(logp[i]-whole[len(prompt)-1+i])) > 1e-4 {
			t.Errorf("token %d is %d of log-probability %v, want an even one of %v", i, id, logp[i], whole[len(prompt)-1+i])
		}
	}
}

// gaps are words that lack every other token.
type gaps struct{ syllables }

func (gaps) Missing(n int) (list []int32) {
	for id := int32(1); int(id) < n; id += 2 {
		list = append(list, id)
	}
	return list
}

// TestSeen: RepetitionPenalty counts the prompt and Seen.
func TestSeen(t *testing.T) {
	m, prompt := hybrid(t), tokens(3, 9)
	cfg := GenerateConfig{SampleConfig: SampleConfig{RepetitionPenalty: 1e9}, MaxTokens: 12}
	all, _, _, _, _ := collect(t, m, prompt, cfg)
	if cfg.Seen = all[:3]; len(all) != 12 {
		t.Fatal(all)
	}
	ids, _, _, _, _ := collect(t, m, prompt, cfg)
	for i, id := range ids {
		// Every logit below 0 is far below all others then, until none is left.
		if slices.Contains(cfg.Seen, id) && i < 4 {
			t.Errorf("token %d is %d, which was seen", i, id)
		}
	}
}

// TestGenerateAllocations: a token more allocates nothing.
func TestGenerateAllocations(t *testing.T) {
	m, prompt, st := hybrid(t), tokens(3, 9), newState(t, hybrid(t), StateConfig{MaxTokens: 400})
	cfg := GenerateConfig{Words: letters(), LogProbs: true, StopText: []string{"no such text"},
		SampleConfig: SampleConfig{Temperature: 1, TopK: 20, TopP: 0.9, MinP: 0.01, RepetitionPenalty: 1.1}}
	run := func(n int) float64 {
		return testing.AllocsPerRun(5, func() {
			st.Reset()
			cfg.MaxTokens = n
			for _, err := range m.Stream(context.Background(), prompt, st, cfg) {
				must(t, err)
			}
		})
	}
	run(300)
	if few, many := run(50), run(300); many > few {
		t.Errorf("%v allocations for 50 tokens, %v for 300", few, many)
	}
}

// TestGenerateErrors: mistakes are errors, and a done context is its own.
func TestGenerateErrors(t *testing.T) {
	m, prompt := hybrid(t), tokens(3, 9)
	first := func(ctx context.Context, cfg GenerateConfig) (err error) {
		for _, err = range m.Stream(ctx, prompt, newState(t, m, StateConfig{}), cfg) {
			if err != nil {
				break
			}
		}
		return err
	}
	for want, cfg := range map[string]GenerateConfig{
		"lm: StopText is given without Words": {StopText: []string{"x"}},
		"lm: StopText[1] is empty":            {StopText: []string{"x", ""}, Words: letters()},
		"lm: MaxTokens is -1, want 0 or more": {MaxTokens: -1},
		"lm: TopP is 2, want 0 to 1":          {SampleConfig: SampleConfig{TopP: 2}},
		"lm: Words has no tokens: is it nil?": {Words: syllables{}},
	} {
		err := first(t.Context(), cfg)
		if err == nil || !strings.HasSuffix(err.Error(), strings.TrimPrefix(want, "lm")) {
			t.Errorf("error %v, want %s", err, want)
		}
		if !errors.Is(err, subquad.ErrConfig) && !errors.Is(err, subquad.ErrShape) {
			t.Errorf("%v matches no sentinel", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n, st := 0, newState(t, m, StateConfig{})
	for _, err := range m.Stream(ctx, prompt, st, GenerateConfig{}) {
		if n++; n == 5 {
			cancel()
		}
		if err != nil {
			if err != context.Canceled || n != 6 || st.Len() != len(prompt)+4 {
				t.Errorf("error %v after %d pieces, the state has %d", err, n, st.Len())
			}
			break
		}
	}
}

// TestGenerateWhole: a model that cannot go on from a state reads the text again for each
// token, up to its longest sequence.
func TestGenerateWhole(t *testing.T) {
	m := whole(t, 30)
	prompt := tokens(2, 5)
	ids, text, _, end, _ := collect(t, m, prompt, GenerateConfig{Words: letters()})
	if len(ids) != 26 || end != AtLongest || len(text) != 26 {
		t.Fatalf("%d tokens, %q, ended at %v", len(ids), text, end)
	}
	all := slices.Concat(prompt, ids)[:30]
	logits := zeros(30, vocab)
	must(t, m.Forward(logits, all))
	for i, id := range ids {
		z := mat.Row(logits, 4+i)
		if float64(slices.Max(z)-z[id]) > 1e-4 {
			t.Errorf("token %d is %d, not the likeliest", i, id)
		}
	}
}

// means is a mixer without a state: the mean of the tokens so far.
type means struct{}

func (means) Kind() string                       { return "means" }
func (means) Bytes() int64                       { return 0 }
func (means) ScratchBytes(int) int64             { return 0 }
func (means) Prepare(context.Context, int) error { return nil }
func (means) Mix(_ context.Context, mix *Mix) error {
	for t := 1; t < mix.X.Rows; t++ {
		for c, v := range mat.Row(mix.X, t-1) {
			row := mat.Row(mix.X, t)
			row[c] = (v*float32(t) + row[c]) / float32(t+1)
		}
	}
	return nil
}

func whole(t *testing.T, longest int) *Model {
	t.Helper()
	cfg := hybridConfig(2)
	r := random{rand.New(rand.NewPCG(2, 3))}
	cfg.Layers, cfg.MaxLen, cfg.TooLong = []Layer{{{Norm: r.norm(true), Mixer: means{}}}}, longest, subquad.ErrShape
	m, err := New(cfg)
	must(t, err)
	return m
}

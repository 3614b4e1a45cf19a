package transformer

import (
	"slices"
	"testing"
)

// written is a text that a model writes, how many calls that took, and the state then.
func written(t *testing.T, m *Model, st *State, prompt []int32, cfg GenerateConfig) (text []int32, calls int) {
	t.Helper()
	for p, err := range m.Stream(t.Context(), prompt, st, cfg) {
		must(t, err)
		if p.End == Going {
			text = append(text, p.Token)
			if !p.Drafted {
				calls++
			}
		}
	}
	return text, calls
}

// TestDraft: with every kind of draft, for every kind of layers and states, a text is the one
// without, and the state goes on as the one without: to the bit, for chains.
func TestDraft(t *testing.T) {
	warm := SampleConfig{Temperature: 0.8, TopP: 0.95, RepetitionPenalty: 1.1, Seed: 7}
	states := policies()
	states["plain"], states["ring"] = StateConfig{}, StateConfig{Window: 24, Keep: 2}
	names := []string{"stories", "gemma3", "deepseek_v3", "bamba", "kimi_linear", "phi3_longrope", "gpt_oss_mxfp4"}
	if testing.Short() {
		names = names[:2]
	}
	for _, name := range names {
		m, prompt := (*Model)(nil), []int32{1, 403, 407, 261, 378, 432, 400, 383, 286, 261, 376}
		if name == "stories" {
			var err error
			m, err = Open(stories, Config{})
			must(t, err)
		} else {
			m = open(t, name, Config{})
			prompt = tokens(m, 20)
		}
		for what, cfg := range states {
			if cfg.Policies != nil && (name != "stories" || testing.Short() && what != "TokenSelect" && what != "H2O") {
				continue
			}
			for _, sample := range []SampleConfig{{}, warm} {
				g := GenerateConfig{SampleConfig: sample, MaxTokens: 60, Stop: []int32{}}
				st := newState(t, m, cfg)
				want, _ := written(t, m, st, prompt, g)
				source := func(cfg StateConfig) Source {
					s, err := m.NewSourceWith(cfg)
					must(t, err)
					return s
				}
				drafts := map[string]Drafter{"itself": &ModelDraft{Source: source(StateConfig{})}, "near": Near{Keep: 1, Recent: 12}, "lookup": Lookup{}}
				if what == "plain" && name == "stories" {
					drafts["a tree"] = &ModelDraft{Source: source(StateConfig{}), Width: 3}
					drafts["window"] = &ModelDraft{Source: source(StateConfig{Window: 16, Keep: 1})}
					drafts["policy"] = &ModelDraft{Source: source(states["TokenSelect"])}
				}
				for by, draft := range drafts {
					g.Draft, g.Drafts = draft, 6+14*(len(by)%2) // also more than are attended to in tiles
					drafted := newState(t, m, cfg)
					got, calls := written(t, m, drafted, prompt, g)
					if !slices.Equal(got, want) || drafted.Len() != st.Len() {
						t.Errorf("%s, %s, drafts by %s, temperature %v: %v of %d, want %v of %d", name, what, by, sample.Temperature, got, drafted.Len(), want, st.Len())
						continue
					}
					if sample.Temperature == 0 && what == "plain" && by != "lookup" && by != "near" && calls > 40 {
						t.Errorf("%s, drafts by %s: %d calls for 60 tokens", name, by, calls)
					}
					a, b := zeros(1, m.shape.Vocab), zeros(1, m.shape.Vocab)
					must(t, m.Step(a, want[59:], st.Clone()))
					must(t, m.Step(b, want[59:], drafted))
					if by == "a tree" { // whose keys do not stand where a chain's do
						near(t, "logits after a text by a tree", b.Data, a.Data, 1e-5)
					} else if !slices.Equal(b.Data, a.Data) {
						t.Errorf("%s, %s, drafts by %s, temperature %v: other bits after the text", name, what, by, sample.Temperature)
					}
				}
			}
		}
	}
}

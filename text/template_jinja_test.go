package text

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// jinjaFile has what matters of published templates, and what Jinja 3.1 makes of conversations
// with them, set up as transformers does: blocks take the line break after them and the blanks
// before them.
type jinjaFile struct {
	Templates []struct {
		Name, Text, Family, BOS, EOS string
		Thinking                     bool
		Want                         string             // of talk, with the beginning of an answer
		More                         map[string]*string // of Talks, nil for an error; with and without that
	}
	Talks map[string][]Message
}

func readJinja(t testing.TB) (f jinjaFile) {
	t.Helper()
	data, err := os.ReadFile("testdata/templates.json")
	must(t, err)
	must(t, json.Unmarshal(data, &f))
	return f
}

// everyTemplate returns these too.
func everyTemplate(t testing.TB) []templateCase {
	t.Helper()
	list := append([]templateCase(nil), templates...)
	for _, c := range readJinja(t).Templates {
		list = append(list, templateCase{name: c.Name, text: c.Text, family: c.Family, bos: c.BOS, eos: c.EOS, want: c.Want})
	}
	return list
}

func caseOf(t testing.TB, name string) templateCase {
	t.Helper()
	for _, c := range everyTemplate(t) {
		if c.name == name {
			return c
		}
	}
	t.Fatalf("no template is called %s", name)
	return templateCase{}
}

// TestJinja: conversations of all kinds are what the published template's own language makes of
// them, and an error where that is one.
func TestJinja(t *testing.T) {
	f := readJinja(t)
	for _, c := range f.Templates {
		p, err := ParseTemplate(c.Text, words(t), TemplateConfig{BOS: c.BOS, EOS: c.EOS, Date: day, Thinking: c.Thinking})
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		got, err := p.Text(talk, true)
		if err != nil || got != c.Want || p.Family() != c.Family {
			t.Errorf("%s: %s gives\n%q, want\n%q; error %v", c.Name, p.Family(), got, c.Want, err)
		}
		for name, want := range c.More {
			talk, begun := strings.CutSuffix(name, " begun")
			got, err := p.Text(f.Talks[talk], begun)
			switch {
			case want == nil && err == nil:
				t.Errorf("%s, %s: %q, want an error", c.Name, name, got)
			case want != nil && (err != nil || got != *want):
				t.Errorf("%s, %s:\n%q, want\n%q; error %v", c.Name, name, got, *want, err)
			}
		}
	}
}

// TestMarksOfThoughts: what a template writes itself of thoughts is their tokens, what a message
// has of them is text.
func TestMarksOfThoughts(t *testing.T) {
	tok := words(t, "<think>", "</think>") // 300 and 301
	for name, c := range map[string]struct {
		text string
		cfg  TemplateConfig
		want string
	}{
		"Qwen3 without":    {qwen3, TemplateConfig{NoThinking: true}, "01"},
		"Qwen3.5":          {caseOf(t, "Qwen3.5").text, TemplateConfig{}, "0"},
		"Qwen3.5 without":  {caseOf(t, "Qwen3.5").text, TemplateConfig{NoThinking: true}, "01"},
		"Qwen3.5 0.8B":     {caseOf(t, "Qwen3.5 0.8B").text, TemplateConfig{}, "01"},
		"and thinking":     {caseOf(t, "Qwen3.5 0.8B").text, TemplateConfig{Thinking: true}, "0"},
		"SmolLM3":          {caseOf(t, "SmolLM3").text, TemplateConfig{}, "01"}, // of its instructions
		"SmolLM3 without":  {caseOf(t, "SmolLM3").text, TemplateConfig{NoThinking: true}, "01"},
		"DeepSeek-R1":      {caseOf(t, "DeepSeek-R1").text, TemplateConfig{}, "0"},
		"DeepSeek-V3.1":    {caseOf(t, "DeepSeek-V3.1").text, TemplateConfig{}, "1"},
		"and its thoughts": {caseOf(t, "DeepSeek-V3.1").text, TemplateConfig{Thinking: true}, "0"},
	} {
		p, err := ParseTemplate(c.text, tok, c.cfg)
		must(t, err)
		ids, err := p.Apply([]Message{{User, "a <think> b </think> c"}}, true)
		must(t, err)
		got := ""
		for _, id := range ids {
			if id >= 300 {
				got += string(rune('0' + id - 300))
			}
		}
		if got != c.want {
			t.Errorf("%s: marks %s, want %s", name, got, c.want)
		}
	}
	if _, err := ParseTemplate(qwen3, tok, TemplateConfig{Thinking: true, NoThinking: true}); err == nil {
		t.Error("Thinking and NoThinking")
	}
}

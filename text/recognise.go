package text

import (
	"regexp"
	"slices"
	"strings"

	"github.com/subquad/subquad/internal/check"
)

// source is a template's text, to be asked what it does.
type source struct {
	text  string   // line breaks of its literals written as such
	marks []string // that stand in it, each once
}

var (
	markPattern = regexp.MustCompile(`<\|[^|<>\n'"]{1,40}\|>|<[a-z]+_of_turn>|\[/?[A-Z][A-Z_]+\]|<</?SYS>>|<｜[^｜<>]{1,40}｜>|</?think>`)
	// comments of Jinja say nothing of what a template does.
	commentPattern = regexp.MustCompile(`(?s)\{#.*?#\}`)
	// systemDefault finds a system prompt that a template has of its own in a variable.
	systemDefault = regexp.MustCompile(`set (?:default_)?system_(?:message|prompt) ?= ?["'][^"']`)
)

func newSource(template string) *source {
	s := &source{text: strings.ReplaceAll(commentPattern.ReplaceAllString(template, ""), `\n`, "\n")}
	for _, m := range markPattern.FindAllString(s.text, -1) {
		if !slices.Contains(s.marks, m) {
			s.marks = append(s.marks, m)
		}
	}
	return s
}

// has tells whether all of some texts stand in the template, any whether one does.
func (s *source) has(all ...string) bool {
	for _, text := range all {
		if !strings.Contains(s.text, text) {
			return false
		}
	}
	return true
}

func (s *source) any(some ...string) bool {
	return slices.ContainsFunc(some, func(text string) bool { return strings.Contains(s.text, text) })
}

// only tells whether the template has no marks but some.
func (s *source) only(allowed ...string) bool {
	return !slices.ContainsFunc(s.marks, func(m string) bool { return !slices.Contains(allowed, m) })
}

// matches tells whether a regular expression finds something in the template.
func (s *source) matches(pattern string) bool { return regexp.MustCompile(pattern).MatchString(s.text) }

// recognisers try to recognise a template, in their order; nil is that they do not.
var recognisers = []func(*source) family{newHarmony, newQwen35, newSmolLM3, newChatML, newLlama3, newLlama2, newMistral7, newMistral, newGemma, newPhi3, newZephyr, newDeepSeek}

// recognise returns the family of a template, with its variant.
func recognise(template string) (family, error) {
	s := newSource(template)
	for _, try := range recognisers {
		if f := try(s); f != nil {
			return f, nil
		}
	}
	what := "no marks of a known family"
	if len(s.marks) > 0 {
		what = strings.Join(s.marks[:min(len(s.marks), 8)], " ")
	}
	begin := strings.Join(strings.Fields(s.text), " ")
	return nil, check.Errorf(ErrCheckpoint, "text: the chat template is not one of ChatML, Llama 2 and 3, Mistral, Gemma, Phi-3, Zephyr, DeepSeek, SmolLM3, Qwen3.5 and gpt-oss in a form that is known; it has %s, and begins %.80q", what, begin)
}

// strip is Jinja's trim and Python's str.strip.
func strip(text string) string { return strings.TrimFunc(text, blank) }

// stripRight is str.rstrip.
func stripRight(text string) string { return strings.TrimRightFunc(text, blank) }

// blank tells what Python takes for white space.
func blank(r rune) bool {
	switch {
	case r >= 0x1c && r <= 0x1f, r == ' ', r >= '\t' && r <= '\r':
		return true
	case r == 0x85, r == 0xa0, r == 0x1680, r >= 0x2000 && r <= 0x200a, r == 0x2028, r == 0x2029, r == 0x202f, r == 0x205f, r == 0x3000:
		return true
	}
	return false
}

// turns returns an error unless messages of a user and an assistant follow each other in
// turns, the user's first, after a system prompt where first is 1.
func turns(messages []Message, first int) error {
	for i, m := range messages[first:] {
		if want := [...]string{User, Assistant}[i%2]; m.Role != want {
			return errorf("message %d is of role %s, want %s: they must take turns", i+first, m.Role, want)
		}
	}
	return nil
}

// system returns the system prompt that a conversation begins with, and how many messages
// that is.
func system(messages []Message) (prompt string, n int) {
	if messages[0].Role == System {
		return messages[0].Content, 1
	}
	return "", 0
}

package text

import (
	"regexp"
	"strings"
)

// mistral7 is [SYSTEM_PROMPT], [/SYSTEM_PROMPT], [INST] and [/INST] around contents, and answers
// with EOS.
type mistral7 struct {
	blank      string   // before contents: Mistral Large has one
	standard   []string // the system prompt of conversations that have none: between these the day
	anywhere   bool     // system prompts may stand between other messages
	alternates bool
	never      bool // an answer is never empty
}

var (
	mistralDefault = regexp.MustCompile(`set default_system_message ?= ?`)
	mistralToday   = regexp.MustCompile(`set today ?= ?strftime_now\(["']%Y-%m-%d["']\)`)
)

func newMistral7(s *source) family {
	const prompt, content = `['"]\[SYSTEM_PROMPT\]`, `(system_message|message\['content'\])`
	if !s.has("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]", "bos_token", "eos_token") || s.any("trim", "strip", "<<SYS>>") ||
		!s.only("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[IMG]", "[ARGS]", "[CALL_ID]") {
		return nil
	}
	m := &mistral7{anywhere: s.matches(`elif message\[.role.\] == .system.`), alternates: s.has("must alternate")}
	question := func(blank string) bool {
		return s.matches(`['"]\[INST\]` + blank + `['"] \+ message\[.content.\] \+ ['"]\[/INST\]['"]`)
	}
	switch {
	case s.matches(prompt+` ['"] \+ message\['content'\] \+ ['"]\[/SYSTEM_PROMPT\]`) && question(" ") && s.matches(`['"] ['"] \+ message\['content'\] \+ eos_token`):
		m.blank = " "
	case s.matches(prompt+`['"] \+ `+content+` \+ ['"]\[/SYSTEM_PROMPT\]`) && question("") && s.matches(`[{-] ?message\['content'\] \+ eos_token`):
	case s.matches(prompt+`['"] -?\}\}`) && s.matches(`\{\{-? ?messages\[0\]\['content'\] -?\}\}`) && question("") && s.matches(`\{\{- message\['content'\] \}\}`) && s.matches(`\{\{- eos_token \}\}`):
		m.never = s.has("Assistant message must have")
	default:
		return nil
	}
	at := mistralDefault.FindStringIndex(s.text)
	if at == nil {
		if s.has("default_system") {
			return nil
		}
		return m
	}
	var ok bool
	if m.standard, ok = literals(s.text[at[1]:], "today"); !ok || len(m.standard) > 1 && !mistralToday.MatchString(s.text) {
		return nil
	}
	if len(m.standard) == 1 && m.standard[0] == "" {
		m.standard = nil
	}
	return m
}

// literals reads a sum of strings and of a variable, and returns the strings around that.
func literals(text, variable string) (list []string, ok bool) {
	list = []string{""}
	for first := true; ; first = false {
		if text = strings.TrimLeft(text, " \n"); strings.HasPrefix(text, "%}") || strings.HasPrefix(text, "-%}") {
			return list, !first
		}
		if !first {
			if text, ok = strings.CutPrefix(text, "+"); !ok {
				return nil, false
			}
			text = strings.TrimLeft(text, " \n")
		}
		if rest, ok := strings.CutPrefix(text, variable); ok {
			list, text = append(list, ""), rest
			continue
		}
		if text == "" || text[0] != '"' && text[0] != '\'' {
			return nil, false
		}
		quote, end := text[0], 1
		for ; end < len(text) && text[end] != quote; end++ {
			if text[end] == '\\' {
				if end++; end == len(text) || text[end] != '"' && text[end] != '\'' {
					return nil, false
				}
			}
		}
		if end == len(text) {
			return nil, false
		}
		list[len(list)-1] += strings.NewReplacer(`\"`, `"`, `\'`, `'`).Replace(text[1:end])
		text = text[end+1:]
	}
}

func (m *mistral7) name() string { return "Mistral v7" }
func (m *mistral7) marks() []string {
	return []string{"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]"}
}
func (m *mistral7) ends() []string { return nil }

func (m *mistral7) render(w *writer, messages []Message, _ bool) error {
	_, first := system(messages)
	if m.alternates {
		if err := turns(messages, first); err != nil {
			return err
		}
	}
	w.mark(w.cfg.BOS)
	if first == 0 && len(m.standard) > 0 {
		m.between(w, "SYSTEM_PROMPT", strings.Join(m.standard, w.date.Format("2006-01-02")))
	}
	for i, x := range messages {
		switch {
		case x.Role == System && i > 0 && !m.anywhere:
			return errorf("message %d is a system prompt, which must come first", i)
		case x.Role == System:
			m.between(w, "SYSTEM_PROMPT", x.Content)
		case x.Role == User:
			m.between(w, "INST", x.Content)
		case x.Content == "" && m.never:
			return errorf("message %d is an empty answer", i)
		default:
			w.text(m.blank + x.Content)
			w.mark(w.cfg.EOS)
		}
	}
	return nil
}

func (m *mistral7) between(w *writer, mark, content string) {
	w.mark("[" + mark + "]")
	w.text(m.blank + content)
	w.mark("[/" + mark + "]")
}

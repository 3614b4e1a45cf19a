package text

import "strings"

// mistral is [INST], the content, [/INST], the answer and EOS, with blanks that differ.
type mistral struct {
	version string
	inst    string // what a question begins and ends with
	end     string
	answer  string // what stands before an answer
	after   string // and after its EOS
	trims   bool   // answers lose white space around them
	system  bool   // a system prompt is allowed
	last    bool   // and stands in the last question, not in the first
}

func newMistral(s *source) family {
	if !s.has("[INST]", "[/INST]", "eos_token", "bos_token", "raise_exception") || s.any("<<SYS>>", "strip()", "[SYSTEM_PROMPT]", "default_system") ||
		!s.only("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]") {
		return nil
	}
	m := &mistral{system: s.has("system_message is defined"), last: s.has("loop.last and system_message is defined"), trims: s.matches(`content["']?\]? ?\| ?trim`)}
	quoted := func(text string) bool { return s.any(`"`+text+`"`, `'`+text+`'`) }
	switch {
	case quoted(" [INST] ") && quoted(" [/INST]"):
		m.version, m.inst, m.end, m.answer = "v1", " [INST] ", " [/INST]", " "
		if !m.system || !s.matches(`["'] ["'] ?\+ ?message`) {
			return nil
		}
	case quoted("[INST] ") && quoted("[/INST]"):
		m.version, m.inst, m.end, m.answer = "v3", "[INST] ", "[/INST]", " "
		if !m.system || !s.matches(`["'] ["'] ?\+ ?message`) {
			return nil
		}
	case quoted("[INST]") && quoted("[/INST]"):
		m.version, m.inst, m.end = "v3-tekken", "[INST]", "[/INST]"
		if !m.system || s.matches(`["'] ["'] ?\+ ?message`) {
			return nil
		}
	case quoted("[INST] ") && quoted(" [/INST]"):
		m.version, m.inst, m.end = "before v1", "[INST] ", " [/INST]"
		if m.system || s.matches(`["'] ["'] ?\+ ?message`) || s.has("system_message") {
			return nil
		}
		if s.matches(`eos_token ?\+ ?["'] ["']`) {
			m.after = " "
		}
	default:
		return nil
	}
	return m
}

func (m *mistral) name() string    { return "Mistral " + m.version }
func (m *mistral) marks() []string { return []string{"[INST]", "[/INST]"} }
func (m *mistral) ends() []string  { return nil }

func (m *mistral) render(w *writer, messages []Message, _ bool) error {
	prompt, first := system(messages)
	if first > 0 && !m.system {
		return errorf("it has no place for a system prompt")
	}
	if err := turns(messages, first); err != nil {
		return err
	}
	if messages = messages[first:]; len(messages) == 0 {
		return errorf("there is a system prompt alone")
	}
	at := 0 // the question with the system prompt: a last one that is no question has none
	if m.last {
		at = len(messages) - 1
	}
	w.mark(w.cfg.BOS)
	for i, x := range messages {
		if x.Role == User {
			w.spaced(m.inst)
			if first > 0 && i == at {
				w.text(prompt + "\n\n")
			}
			w.text(x.Content)
			w.spaced(m.end)
			continue
		}
		content := x.Content
		if m.trims {
			content = strip(content)
		}
		w.text(m.answer + content)
		w.mark(w.cfg.EOS)
		w.text(m.after)
	}
	return nil
}

// spaced writes a mark with blanks around it.
func (w *writer) spaced(text string) {
	name := strings.Trim(text, " ")
	before, after, _ := strings.Cut(text, name)
	w.text(before)
	w.mark(name)
	w.text(after)
}

package text

import (
	"regexp"
	"strings"
)

// smolLM3 is ChatML with a system prompt that tells the day and whether to think, around the
// conversation's own.
type smolLM3 struct {
	chatML
	thinking, plain string // instructions of conversations that have none
	tools           string // what is said where there are none
	closed          bool   // the system prompt ends with <|im_end|> where there are no tools
}

var (
	smolThinking = regexp.MustCompile(`elif reasoning_mode == "/think" -%\}\s*\{\{- "([^"]*)" -\}\}\s*\{%- else -%\}\s*\{\{- "([^"]*)" -\}\}\s*\{%- endif -%\}`)
	smolClosed   = regexp.MustCompile(`\{\{- "\n\n" -\}\}\s*(\{%- endif -%\})?\s*\{\{- "<\|im_end\|>\n" -\}\}\s*\{%- endif -%\}\s*(\{%- endif -%\})?`)
)

func newSmolLM3(s *source) family {
	switch {
	case !s.has(`"<|im_start|>system`+"\n"+`" -}}`, `"## Metadata`+"\n\n", `"Knowledge Cutoff Date: June 2025`+"\n", `strftime_now("%d %B %Y")`, `"Reasoning Mode: " + reasoning_mode + "`+"\n\n",
		`"## Custom Instructions`+"\n\n", `"/system_override" in system_message`, `"/no_think" in system_message`, `custom_instructions + "`+"\n\n"):
		return nil
	case !s.has(`"<|im_start|>assistant`+"\n"+`" + content.lstrip("`+"\n"+`") + "<|im_end|>`+"\n", `"<think>`+"\n\n</think>\n"+`" + content.lstrip("`+"\n"+`")`,
		`"<|im_start|>" + message.role + "`+"\n"+`"  + content + "<|im_end|>`+"\n"):
		return nil
	case !s.only(imStart, imEnd, "<think>", "</think>"):
		return nil
	}
	text, closed := smolThinking.FindStringSubmatch(s.text), smolClosed.FindStringSubmatch(s.text)
	if text == nil || closed == nil {
		return nil
	}
	m := &smolLM3{thinking: text[1], plain: text[2]}
	switch inside, twice := closed[1] == "", closed[2] != ""; {
	case s.has(`"## Tools`+"\n\n", `"### XML Tools`+"\n\n", `"### Python Tools`+"\n\n", `"None"`) && inside && !twice:
		m.tools, m.closed = "## Tools\n\n### XML Tools\n\nNone\n\n### Python Tools\n\nNone\n\n", true
	case s.has(`"### Tools`+"\n\n") && !s.has(`"## Tools`) && inside && twice: // only where there are tools
	case s.has(`"### Tools`+"\n\n") && !s.has(`"## Tools`) && !inside && !twice && s.matches(`endif -%\}\s*\{\{- "<\|im_end\|>`):
		m.closed = true
	default:
		return nil
	}
	return m
}

func (m *smolLM3) name() string { return "SmolLM3" }

func (m *smolLM3) render(w *writer, messages []Message, answer bool) error {
	prompt, first := system(messages)
	think := !w.cfg.NoThinking
	switch {
	case strings.Contains(prompt, "/no_think"):
		think = false
	case strings.Contains(prompt, "/think"):
		think = true
	}
	own := stripRight(strings.ReplaceAll(strings.ReplaceAll(prompt, "/no_think", ""), "/think", ""))
	w.mark(imStart)
	w.text(System + "\n")
	if strings.Contains(prompt, "/system_override") {
		w.text(stripRight(strings.ReplaceAll(own, "/system_override", "")))
		w.mark(imEnd)
		w.text("\n")
	} else {
		m.instruct(w, own, think)
	}
	for i, x := range messages[first:] {
		switch {
		case x.Role == System:
			return errorf("message %d is a system prompt, which must come first", i+first)
		case x.Role == User:
			m.turn(w, User, x.Content)
		default:
			m.begin(w, think)
			w.text(strings.TrimLeft(x.Content, "\n"))
			w.mark(imEnd)
			w.text("\n")
		}
	}
	if answer {
		m.begin(w, think)
	}
	return nil
}

// instruct writes the system prompt, with a conversation's own instructions or, where it has
// none, the model's.
func (m *smolLM3) instruct(w *writer, own string, think bool) {
	mode := "/no_think"
	if think {
		mode = "/think"
	}
	w.text("## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: " + w.date.Format("02 January 2006") + "\nReasoning Mode: " + mode + "\n\n## Custom Instructions\n\n")
	switch {
	case own != "":
		w.text(own + "\n\n")
	case think:
		w.marked(m.thinking, "<think>", "</think>")
	default:
		w.marked(m.plain, "<think>", "</think>")
	}
	w.text(m.tools)
	if m.closed {
		w.mark(imEnd)
		w.text("\n")
	}
}

// begin writes the beginning of an answer.
func (m *smolLM3) begin(w *writer, think bool) {
	w.mark(imStart)
	w.text(Assistant + "\n")
	if !think {
		w.marked("<think>\n\n</think>\n", "<think>", "</think>")
	}
}

// marked writes a text of the template in which some names stand for tokens.
func (w *writer) marked(text string, names ...string) {
	for text != "" {
		at, name := len(text), ""
		for _, n := range names {
			if i := strings.Index(text, n); i >= 0 && i < at {
				at, name = i, n
			}
		}
		w.text(text[:at])
		w.mark(name)
		text = text[at+len(name):]
	}
}

package text

// harmony is <|start|>role<|message|>, the content and <|end|>, with a channel for answers.
type harmony struct {
	spaced bool // an empty line ends the system prompt
}

func newHarmony(s *source) family {
	if !s.has("<|start|>", "<|channel|>", "<|message|>", "<|return|>", "You are ChatGPT, a large language model trained by OpenAI.", "Knowledge cutoff: 2024-06\n",
		`strftime_now("%Y-%m-%d")`, "Reasoning: ", `Channel must be included for every message." }}`, "# Instructions\n\n") {
		return nil
	}
	return &harmony{spaced: s.matches(`developer_message \}\}\s*\{\{- "\n\n" \}\}`)}
}

func (h *harmony) name() string { return "gpt-oss" }
func (h *harmony) marks() []string {
	return []string{"<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>", "<|constrain|>"}
}
func (h *harmony) ends() []string { return []string{"<|return|>", "<|call|>"} }

func (h *harmony) render(w *writer, messages []Message, answer bool) error {
	h.turn(w, System, "", "You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\nCurrent date: "+
		w.date.Format("2006-01-02")+"\n\nReasoning: "+w.cfg.Reasoning+"\n\n# Valid channels: analysis, commentary, final. Channel must be included for every message.", "<|end|>")
	prompt, first := system(messages)
	if prompt != "" {
		prompt = "# Instructions\n\n" + prompt
		if h.spaced {
			prompt += "\n\n"
		}
		h.turn(w, "developer", "", prompt, "<|end|>")
	}
	for i, m := range messages[first:] {
		switch {
		case m.Role == System:
			return errorf("message %d is a system prompt, which must be the first message", i+first)
		case m.Role == User:
			h.turn(w, User, "", m.Content, "<|end|>")
		case !answer && i+first == len(messages)-1:
			h.turn(w, Assistant, "final", m.Content, "<|return|>")
		default:
			h.turn(w, Assistant, "final", m.Content, "<|end|>")
		}
	}
	if answer {
		w.mark("<|start|>")
		w.text(Assistant)
	}
	return nil
}

func (h *harmony) turn(w *writer, role, channel, content, end string) {
	w.mark("<|start|>")
	w.text(role)
	if channel != "" {
		w.mark("<|channel|>")
		w.text(channel)
	}
	w.mark("<|message|>")
	w.text(content)
	w.mark(end)
}

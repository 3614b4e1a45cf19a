package text

// phi3 is <|role|>, a line break, the content, <|end|> and a line break.
type phi3 struct {
	bos    bool
	system bool   // a system prompt is allowed
	begins bool   // a question ends with the beginning of an answer, and an answer has none
	eos    bool   // a conversation without the beginning of an answer ends with EOS
	line   string // the line break, or ""
}

func newPhi3(s *source) family {
	const user, assistant, end = "<|user|>", "<|assistant|>", "<|end|>"
	named := s.any("'<|' + message['role'] + '|>'", `"<|" + message["role"] + "|>"`, "'<|' + message.role + '|>'")
	if !s.has(assistant, end) || !named && !s.has(user) || !s.only("<|system|>", user, assistant, end, "<|tool|>", "<|/tool|>", "<|endoftext|>") || s.any("trim", "strip") {
		return nil
	}
	p := &phi3{bos: s.has("bos_token"), system: named || s.has("<|system|>"), line: "\n", eos: s.matches(`else -?%\}\s*\{\{-? ?eos_token`)}
	switch broken := s.matches(`\|>['"]? ?\+? ?['"]?\n`); {
	case !broken && s.has("'<|' + message['role'] + '|>' + message['content'] + '<|end|>'"): // Phi-4-mini
		p.line = ""
	case !broken:
		return nil
	}
	p.begins = !s.has("add_generation_prompt")
	return p
}

func (p *phi3) name() string { return "Phi-3" }
func (p *phi3) marks() []string {
	return []string{"<|system|>", "<|user|>", "<|assistant|>", "<|end|>"}
}
func (p *phi3) ends() []string { return []string{"<|end|>"} }

func (p *phi3) render(w *writer, messages []Message, answer bool) error {
	if p.bos {
		w.mark(w.cfg.BOS)
	}
	for i, m := range messages {
		if m.Role == System && !p.system {
			return errorf("it has no place for a system prompt")
		}
		if !p.begins || m.Role != Assistant {
			p.head(w, m.Role)
		} else if i == 0 || messages[i-1].Role != User {
			return errorf("message %d is an answer, and no question stands before it", i)
		}
		w.text(m.Content)
		w.mark("<|end|>")
		w.text(p.line)
		if p.begins && m.Role == User {
			p.head(w, Assistant)
		}
	}
	switch {
	case p.begins:
	case answer:
		p.head(w, Assistant)
	case p.eos:
		w.mark(w.cfg.EOS)
	}
	return nil
}

func (p *phi3) head(w *writer, role string) {
	w.mark("<|" + role + "|>")
	w.text(p.line)
}

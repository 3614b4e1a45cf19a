package text

// llama2 is [INST], the content, [/INST], the answer, each turn between BOS and EOS; a system
// prompt stands in the first question.
type llama2 struct{}

func newLlama2(s *source) family {
	switch {
	case !s.has("<<SYS>>\n", "\n<</SYS>>\n\n", "bos_token + '[INST] ' + content.strip() + ' [/INST]'", "content.strip() + ' ' + eos_token", "loop.index0 == 0 and system_message != false", "raise_exception"):
		return nil
	case !s.matches(`' ' *\+ content\.strip\(\) \+ ' ' \+ eos_token`), s.matches(`\b[Tt]rue == true`), !s.only("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"):
		return nil
	}
	return llama2{}
}

func (llama2) name() string    { return "Llama 2" }
func (llama2) marks() []string { return []string{"[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"} }
func (llama2) ends() []string  { return nil }

func (llama2) render(w *writer, messages []Message, _ bool) error {
	prompt, first := system(messages)
	if err := turns(messages, first); err != nil {
		return err
	}
	if len(messages) == first {
		return errorf("there is a system prompt alone")
	}
	for i, m := range messages[first:] {
		if m.Role == Assistant {
			w.text(" " + strip(m.Content) + " ")
			w.mark(w.cfg.EOS)
			continue
		}
		w.mark(w.cfg.BOS)
		w.mark("[INST]")
		w.text(" ")
		if i == 0 && first > 0 {
			w.mark("<<SYS>>")
			w.text("\n" + prompt + "\n")
			w.mark("<</SYS>>")
			w.text(stripRight("\n\n" + m.Content))
		} else {
			w.text(strip(m.Content))
		}
		w.text(" ")
		w.mark("[/INST]")
	}
	return nil
}

package text

import "regexp"

// zephyr is <|role|>, a line break, the content, EOS and mostly a line break.
type zephyr struct {
	after string // EOS
	begun string // after the mark that an answer begins with
}

var zephyrAnswer = regexp.MustCompile(`add_generation_prompt %\}\n?\{\{ ?'<\|assistant\|>(\n?)' ?\}\}(\n?)`)

func newZephyr(s *source) family {
	if !s.has("eos_token", "loop.last and add_generation_prompt") || s.any("bos_token", "raise_exception", "trim", "strip", "{%-", "-%}", "{{-", "-}}") || !s.only("<|system|>", "<|user|>", "<|assistant|>") {
		return nil
	}
	z := &zephyr{}
	for i, role := range [...]string{System, User, Assistant} {
		turn := regexp.MustCompile(`'<\|` + role + `\|>\n' *\+ *message\['content'\] *\+ *eos_token( *\+ *'\n')? *\}\}(\n?)`).FindStringSubmatch(s.text)
		if turn == nil {
			return nil
		}
		after := turn[2]
		if turn[1] != "" {
			after += "\n"
		}
		if i > 0 && after != z.after {
			return nil
		}
		z.after = after
	}
	answer := zephyrAnswer.FindStringSubmatch(s.text)
	if answer == nil {
		return nil
	}
	z.begun = answer[1] + answer[2]
	return z
}

func (z *zephyr) name() string    { return "Zephyr" }
func (z *zephyr) marks() []string { return []string{"<|system|>", "<|user|>", "<|assistant|>"} }
func (z *zephyr) ends() []string  { return nil }

func (z *zephyr) render(w *writer, messages []Message, answer bool) error {
	for _, m := range messages {
		w.mark("<|" + m.Role + "|>")
		w.text("\n" + m.Content)
		w.mark(w.cfg.EOS)
		w.text(z.after)
	}
	if answer {
		w.mark("<|assistant|>")
		w.text(z.begun)
	}
	return nil
}

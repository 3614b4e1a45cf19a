package text

import "strings"

const (
	deepUser      = "<｜User｜>"
	deepAssistant = "<｜Assistant｜>"
	deepEnd       = "<｜end▁of▁sentence｜>"
)

// deepSeek is BOS, the system prompt, and then a mark and the content, with an end after answers:
// V3, R1 and its smaller ones, V3.1.
type deepSeek struct {
	joins  bool // system prompts are joined, and the last one alone is not all
	splits bool // answers lose their thoughts
	think  bool // an answer begins with thoughts
	both   bool // V3.1: it begins with thoughts or without
}

func newDeepSeek(s *source) family {
	tools := []string{"<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>",
		"<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"}
	switch {
	case !s.has("'"+deepUser+"' + message['content']", deepAssistant, deepEnd, "ns.system_prompt", "add_generation_prompt"), !s.only(append(tools, deepUser, deepAssistant, deepEnd, "<think>", "</think>")...):
		return nil
	case !s.matches(`\{\{ ?bos_token ?\}\}\{\{ ?ns\.system_prompt ?\}\}`), s.any("trim", "strip", "strftime_now"):
		return nil
	case s.matches(`\}\}\s+\{[%{][^-]`), s.matches(`[^-]%\}\s+\{\{[^-]`): // white space that stays
		return nil
	}
	d := &deepSeek{joins: s.has("ns.system_prompt + '\n\n' + message['content']")}
	if !d.joins && !s.has("ns.system_prompt = message['content']") {
		return nil
	}
	if s.has("is_last_user") {
		d.both = s.has("split('</think>', 1)[1]", "{{content + '"+deepEnd+"'}}", "{{'"+deepAssistant+"'}}", "if not thinking", "{{'</think>'}}", "{{'<think>'}}") && s.matches(`set thinking = false`)
		if !d.both {
			return nil
		}
		return d
	}
	d.splits = s.has("content.split('</think>')[-1]")
	if !s.matches(`'`+deepAssistant+`' \+ (content|message\['content'\]) \+ '`+deepEnd+`'`) || !d.splits && s.has("</think>") {
		return nil
	}
	switch {
	case s.has("{{'" + deepAssistant + "<think>\n'}}"):
		d.think = true
	case !s.has("{{'"+deepAssistant+"'}}") || s.has("<think>"):
		return nil
	}
	return d
}

func (d *deepSeek) name() string    { return "DeepSeek" }
func (d *deepSeek) marks() []string { return []string{deepUser, deepAssistant, deepEnd} }
func (d *deepSeek) ends() []string  { return []string{deepEnd} }

func (d *deepSeek) render(w *writer, messages []Message, answer bool) error {
	prompt, prompts := "", 0
	for _, m := range messages {
		if m.Role != System {
			continue
		}
		if d.joins && prompts > 0 {
			prompt += "\n\n" + m.Content
		} else {
			prompt = m.Content
		}
		prompts++
	}
	w.mark(w.cfg.BOS)
	w.text(prompt)
	asked := false // the last message but system prompts is a question
	for _, m := range messages {
		switch m.Role {
		case User:
			w.mark(deepUser)
			w.text(m.Content)
			asked = true
		case Assistant:
			content := m.Content
			switch {
			case d.both:
				if _, after, ok := strings.Cut(content, "</think>"); ok {
					content = after
				}
				if asked {
					w.mark(deepAssistant)
					w.mark("</think>")
				}
			default:
				if _, after, ok := cutLast(content, "</think>"); ok && d.splits {
					content = after
				}
				w.mark(deepAssistant)
			}
			w.text(content)
			w.mark(deepEnd)
			asked = false
		}
	}
	if !answer || d.both && !asked {
		return nil
	}
	w.mark(deepAssistant)
	switch {
	case d.both && w.cfg.Thinking:
		w.mark("<think>")
	case d.both:
		w.mark("</think>")
	case d.think:
		w.mark("<think>")
		w.text("\n")
	}
	return nil
}

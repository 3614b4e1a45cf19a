package text

import (
	"slices"
	"strings"
)

// qwen35 is ChatML as Qwen3.5 has it: contents lose white space around them, answers after the
// last question are written with their thoughts, and a new one begins with thoughts or without.
type qwen35 struct {
	chatML
	asked bool // thoughts come only if they are asked for
}

func newQwen35(s *source) family {
	switch {
	case !s.has(imStart, imEnd+"\n", "render_content(message.content, true)|trim", "last_query_index", "lstrip('\n')", "split('</think>')", "reasoning_content|trim",
		"No user query found in messages.", "System message must be at the beginning.", imStart+"assistant\n", "loop.index0 > ns.last_query_index", "<think>\n\n</think>\n\n"):
		return nil
	case s.any("reasoning_effort", "reasoning_instructions", "strftime_now", "bos_token"), systemDefault.MatchString(s.text):
		return nil
	case s.has("preserve_thinking") && !s.has("preserve_thinking is defined and preserve_thinking is true"):
		return nil
	case !s.only(append(slices.Clone(chatMLPictures), imStart, imEnd, "<|endoftext|>", "<think>", "</think>")...):
		return nil
	}
	q := &qwen35{asked: s.has("enable_thinking is defined and enable_thinking is true")}
	if q.asked == s.has("enable_thinking is defined and enable_thinking is false") {
		return nil
	}
	return q
}

func (q *qwen35) name() string { return "Qwen3.5" }

func (q *qwen35) render(w *writer, messages []Message, answer bool) error {
	question := -1
	for i, m := range messages {
		if c := strip(m.Content); m.Role == User && !(strings.HasPrefix(c, "<tool_response>") && strings.HasSuffix(c, "</tool_response>")) {
			question = i
		}
	}
	if question < 0 {
		return errorf("there is no question")
	}
	for i, m := range messages {
		content := strip(m.Content)
		if m.Role == System && i > 0 {
			return errorf("message %d is a system prompt, which must come first", i)
		}
		if m.Role != Assistant {
			q.turn(w, m.Role, content)
			continue
		}
		thoughts := ""
		if before, _, ok := strings.Cut(content, "</think>"); ok {
			_, content, _ = cutLast(content, "</think>")
			content = strings.TrimLeft(content, "\n")
			if _, after, ok := cutLast(before, "<think>"); ok {
				before = after
			}
			thoughts = strip(before)
		}
		w.mark(imStart)
		w.text(Assistant + "\n")
		if i > question {
			w.thoughts(thoughts)
		}
		w.text(content)
		w.mark(imEnd)
		w.text("\n")
	}
	if !answer {
		return nil
	}
	w.mark(imStart)
	w.text(Assistant + "\n")
	if q.asked && !w.cfg.Thinking || w.cfg.NoThinking {
		w.thoughts("")
		return nil
	}
	w.mark("<think>")
	w.text("\n")
	return nil
}

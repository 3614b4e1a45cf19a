package text

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

const (
	imStart = "<|im_start|>"
	imEnd   = "<|im_end|>"
)

// chatML is <|im_start|>role, a line break, the content, <|im_end|> and a line break.
type chatML struct {
	bos      bool
	always   bool   // an answer begins whether it is asked for or not
	standard string // the system prompt of conversations that have none, or ""
	history  bool   // thoughts of earlier answers are left out
	last     bool   // and those of answers after the last question are written in full
	think    bool   // an answer begins with thoughts
	skips    bool   // and may be told to do without
}

var chatMLDefault = regexp.MustCompile(`<\|im_start\|>system\n([^<"'{}]*)`)

// chatMLPictures are marks of models that see, which no text has.
var chatMLPictures = []string{"<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"}

func newChatML(s *source) family {
	switch {
	case !s.has(imStart, imEnd), !s.only(append(slices.Clone(chatMLPictures), imStart, imEnd, "<|endoftext|>", "<think>", "</think>")...):
		return nil
	case !s.matches(`<\|im_end\|>(\n|['"] ?\+ ?['"]\n)`): // another end of a turn
		return nil
	case s.any("strftime_now", "trim", ".strip()", "## Metadata"), systemDefault.MatchString(s.text):
		return nil
	}
	c := &chatML{bos: s.has("bos_token"), always: !s.has("add_generation_prompt")}
	for _, m := range chatMLDefault.FindAllStringSubmatchIndex(s.text, -1) {
		prompt, rest := s.text[m[2]:m[3]], s.text[m[1]:]
		switch {
		case strings.TrimSpace(prompt) == "": // that of the conversation or of tools follows
		case !strings.HasPrefix(rest, imEnd):
			if !strings.Contains(prompt, "# Tools") {
				return nil
			}
		case c.standard != "" && c.standard != prompt:
			return nil
		default:
			c.standard = prompt
		}
	}
	if s.any("<think>", "</think>") {
		if !s.has("split('</think>')", "lstrip('\n')") {
			return nil
		}
		c.history = true
		if c.last = s.has("last_query_index"); c.last && !s.has("loop.last or (not loop.last and reasoning_content)") {
			return nil
		}
		c.think = s.any(imStart + "assistant\n<think>\n")
		c.skips = s.has("enable_thinking", "<think>\n\n</think>\n\n")
		if !c.think && s.matches(`else -?%\}\s*\{\{-? ?['"]<think>\n['"]`) {
			return nil // answers begin in another way
		}
	}
	return c
}

func (c *chatML) name() string    { return "ChatML" }
func (c *chatML) marks() []string { return []string{imStart, imEnd} }
func (c *chatML) ends() []string  { return []string{imEnd} }

func (c *chatML) render(w *writer, messages []Message, answer bool) error {
	if c.bos {
		w.mark(w.cfg.BOS)
	}
	if c.standard != "" && messages[0].Role != System {
		c.turn(w, System, c.standard)
	}
	question := len(messages) - 1 // the last one, where there is one
	for i, m := range slices.Backward(messages) {
		if m.Role == User && !(strings.HasPrefix(m.Content, "<tool_response>") && strings.HasSuffix(m.Content, "</tool_response>")) {
			question = i
			break
		}
	}
	for i, m := range messages {
		if m.Role == Assistant && c.history {
			c.answered(w, m.Content, c.last && i > question, i == len(messages)-1)
			continue
		}
		c.turn(w, m.Role, m.Content)
	}
	if !answer && !c.always {
		return nil
	}
	w.mark(imStart)
	w.text(Assistant + "\n")
	switch {
	case c.skips && w.cfg.NoThinking:
		w.thoughts("")
	case c.think:
		w.mark("<think>")
		w.text("\n")
	}
	return nil
}

// thoughts writes what comes before an answer that is thought about, or is not.
func (w *writer) thoughts(text string) {
	w.mark("<think>")
	w.text("\n" + text + "\n")
	w.mark("</think>")
	w.text("\n\n")
}

func (c *chatML) turn(w *writer, role, content string) {
	w.mark(imStart)
	w.text(role + "\n" + content)
	w.mark(imEnd)
	w.text("\n")
}

// answered writes an answer without its thoughts or, where they are kept, with those of one that
// is the last message or has some.
func (c *chatML) answered(w *writer, content string, keep, last bool) {
	before, after, thought := cutLast(content, "</think>")
	if !thought {
		before, after = "", content
	} else {
		after = strings.TrimLeft(after, "\n")
	}
	if at := strings.LastIndex(before, "<think>"); at >= 0 {
		before = before[at+len("<think>"):]
	}
	before = strings.Trim(before, "\n")
	w.mark(imStart)
	w.text(Assistant + "\n")
	if keep && (last || before != "") {
		w.thoughts(before)
		after = strings.TrimLeft(after, "\n")
	}
	w.text(after)
	w.mark(imEnd)
	w.text("\n")
}

// cutLast cuts around the last of what is looked for.
func cutLast(text, sep string) (before, after string, found bool) {
	if at := strings.LastIndex(text, sep); at >= 0 {
		return text[:at], text[at+len(sep):], true
	}
	return text, "", false
}

package text

import "regexp"

const (
	startHeader = "<|start_header_id|>"
	endHeader   = "<|end_header_id|>"
	endOfTurn   = "<|eot_id|>"
)

// llama3 is <|start_header_id|>role<|end_header_id|>, an empty line, the content, <|eot_id|>.
type llama3 struct {
	bos    bool
	always bool   // an answer begins whether it is asked for or not
	trims  bool   // contents lose white space around them
	dates  bool   // a system prompt with dates stands before all
	date   string // the day it tells, "" for the day itself
}

var llamaDate = regexp.MustCompile(`set date_string ?= ?["']([^"']+)["']`)

func newLlama3(s *source) family {
	switch {
	case !s.has(startHeader, endHeader+"\n\n", endOfTurn), !s.only(startHeader, endHeader, endOfTurn, "<|begin_of_text|>", "<|python_tag|>", "<|eom_id|>", "<|image|>"):
		return nil
	case systemDefault.MatchString(s.text):
		return nil
	}
	l := &llama3{bos: s.any("bos_token", "<|begin_of_text|>"), always: !s.has("add_generation_prompt"), trims: s.matches(`\| ?trim`)}
	if !s.has("Cutting Knowledge Date: ") {
		return l
	}
	if l.dates = s.has("Cutting Knowledge Date: December 2023\n", "Today Date: "); !l.dates {
		return nil
	}
	switch m := llamaDate.FindStringSubmatch(s.text); {
	case s.has("strftime_now(\"%d %b %Y\")"):
	case m != nil && !s.has("strftime_now"):
		l.date = m[1]
	default:
		return nil
	}
	return l
}

func (l *llama3) name() string    { return "Llama 3" }
func (l *llama3) marks() []string { return []string{startHeader, endHeader, endOfTurn} }
func (l *llama3) ends() []string  { return []string{endOfTurn, "<|eom_id|>"} }

func (l *llama3) render(w *writer, messages []Message, answer bool) error {
	if l.bos {
		w.mark(w.cfg.BOS)
	}
	if l.dates {
		prompt, n := system(messages)
		date := l.date
		if date == "" {
			date = w.date.Format("02 Jan 2006")
		}
		l.turn(w, System, "Cutting Knowledge Date: December 2023\nToday Date: "+date+"\n\n"+l.trim(prompt))
		messages = messages[n:]
	}
	for _, m := range messages {
		l.turn(w, m.Role, l.trim(m.Content))
	}
	if answer || l.always {
		l.head(w, Assistant)
	}
	return nil
}

func (l *llama3) trim(content string) string {
	if l.trims {
		return strip(content)
	}
	return content
}

func (l *llama3) head(w *writer, role string) {
	w.mark(startHeader)
	w.text(role)
	w.mark(endHeader)
	w.text("\n\n")
}

func (l *llama3) turn(w *writer, role, content string) {
	l.head(w, role)
	w.text(content)
	w.mark(endOfTurn)
}

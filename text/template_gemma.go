package text

const (
	startTurn = "<start_of_turn>"
	endTurn   = "<end_of_turn>"
)

// gemma is <start_of_turn>user or model, a line break, the content, <end_of_turn> and a line
// break.
type gemma struct{ bos, system bool }

func newGemma(s *source) family {
	if !s.has(startTurn, endTurn+"\n", "raise_exception", "add_generation_prompt") || !s.any("'model'", `"model"`) ||
		!s.only(startTurn, endTurn, "<start_of_image>") || !s.matches(`\| ?trim`) {
		return nil
	}
	g := &gemma{bos: s.has("bos_token"), system: s.has("first_user_prefix")}
	if !g.system && !s.has("System role not supported") {
		return nil
	}
	return g
}

func (g *gemma) name() string    { return "Gemma" }
func (g *gemma) marks() []string { return []string{startTurn, endTurn} }
func (g *gemma) ends() []string  { return []string{endTurn} }

func (g *gemma) render(w *writer, messages []Message, answer bool) error {
	prompt, first := system(messages)
	if first > 0 && !g.system {
		return errorf("it has no place for a system prompt")
	}
	if err := turns(messages, first); err != nil {
		return err
	}
	if first == len(messages) {
		return errorf("there is a system prompt alone")
	}
	if g.bos {
		w.mark(w.cfg.BOS)
	}
	for i, m := range messages[first:] {
		role := m.Role
		if role == Assistant {
			role = "model"
		}
		w.mark(startTurn)
		w.text(role + "\n")
		if i == 0 && first > 0 {
			w.text(prompt + "\n\n")
		}
		w.text(strip(m.Content))
		w.mark(endTurn)
		w.text("\n")
	}
	if answer {
		w.mark(startTurn)
		w.text("model\n")
	}
	return nil
}

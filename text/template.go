package text

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/tokenizer"
	"github.com/subquad/subquad/internal/weights"
)

// Message is one of a conversation.
type Message struct {
	Role    string `json:"role"`    // System, User or Assistant
	Content string `json:"content"` // its text
}

// The roles of messages.
const (
	System    = "system"
	User      = "user"
	Assistant = "assistant"
)

// TemplateConfig says what a template leaves open.
type TemplateConfig struct {
	// BOS and EOS are the names of the tokens that begin and end a text, where a template
	// asks for them. OpenTemplate reads those that are empty from tokenizer_config.json.
	BOS, EOS string
	// Date is the day that some templates tell (Llama 3.2, SmolLM3, Mistral Small, gpt-oss); zero
	// is that of Apply.
	Date time.Time
	// Reasoning is how much a gpt-oss thinks: low, medium (the zero value) or high.
	Reasoning string
	// NoThinking makes a model that can do without thoughts (Qwen3, SmolLM3) leave them out,
	// Thinking one that only thinks if it is told to (DeepSeek-V3.1, the smaller of Qwen3.5) do so.
	NoThinking, Thinking bool
}

// Template makes text and tokens of conversations as a chat model knows them. It is
// immutable and safe for concurrent use.
type Template struct {
	cfg    TemplateConfig
	words  *Tokenizer
	family family
}

// family is a kind of template, with its variant.
type family interface {
	name() string
	// render writes the messages, of which there is one, and the beginning of an answer.
	render(w *writer, messages []Message, answer bool) error
	// marks are what the family puts between contents.
	marks() []string
	// ends are the marks that end an answer.
	ends() []string
}

// OpenTemplate returns the chat template of a checkpoint, a file or a folder:
// chat_template.jinja, chat_template.json, or that of tokenizer_config.json (the one that is
// called default, where there are several). Errors match ErrConfig, ErrCall for a nil
// tokenizer, ErrCheckpoint, that of a template that is not recognised among them, or come
// from the file system; that there is no template matches fs.ErrNotExist too.
func OpenTemplate(path string, t *Tokenizer, cfg TemplateConfig) (*Template, error) {
	var f struct {
		Template json.RawMessage `json:"chat_template"`
		BOS      json.RawMessage `json:"bos_token"`
		EOS      json.RawMessage `json:"eos_token"`
	}
	if _, err := readBeside(path, "tokenizer_config.json", &f); err != nil {
		return nil, err
	}
	if f.BOS == nil && f.EOS == nil {
		if _, err := readBeside(path, "special_tokens_map.json", &f); err != nil {
			return nil, err
		}
	}
	if cfg.BOS == "" {
		cfg.BOS = tokenName(f.BOS)
	}
	if cfg.EOS == "" {
		cfg.EOS = tokenName(f.EOS)
	}
	data, err := weights.ReadFile(filepath.Join(weights.Folder(path), "chat_template.jinja"), weights.MaxText)
	if err == nil {
		return ParseTemplate(string(data), t, cfg)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("text: %w", err)
	}
	if len(f.Template) == 0 || string(f.Template) == "null" {
		if _, err := readBeside(path, "chat_template.json", &f); err != nil {
			return nil, err
		}
	}
	template, err := defaultTemplate(f.Template)
	if err != nil {
		return nil, err
	}
	if template == "" {
		return nil, check.Caused(ErrCheckpoint, fs.ErrNotExist, "text: no chat template beside %.200s", path)
	}
	return ParseTemplate(template, t, cfg)
}

// defaultTemplate reads a template, or a list of named ones.
func defaultTemplate(text json.RawMessage) (string, error) {
	if len(text) == 0 || string(text) == "null" {
		return "", nil
	}
	var one string
	if json.Unmarshal(text, &one) == nil {
		return one, nil
	}
	var list []struct{ Name, Template string }
	if err := json.Unmarshal(text, &list); err != nil {
		return "", check.Errorf(ErrCheckpoint, "text: chat_template: %v", err)
	}
	for _, x := range list {
		if x.Name == "default" {
			return x.Template, nil
		}
	}
	return "", check.Errorf(ErrCheckpoint, "text: chat_template has %d templates, and none is called default", len(list))
}

// ParseTemplate recognises a template by its text. t must be the tokenizer of a
// tokenizer.json. Errors match ErrCheckpoint, ErrConfig or ErrCall.
func ParseTemplate(template string, t *Tokenizer, cfg TemplateConfig) (*Template, error) {
	switch {
	case t == nil:
		return nil, check.Errorf(ErrCall, "text: the Tokenizer is nil")
	case t.json == nil:
		return nil, check.Errorf(ErrCall, "text: a chat template needs the tokenizer of a tokenizer.json")
	case !slices.Contains([]string{"", "low", "medium", "high"}, cfg.Reasoning):
		return nil, check.Errorf(ErrConfig, "text: Reasoning is %.40q, want low, medium or high", cfg.Reasoning)
	}
	if cfg.Thinking && cfg.NoThinking {
		return nil, check.Errorf(ErrConfig, "text: Thinking together with NoThinking")
	}
	if cfg.Reasoning == "" {
		cfg.Reasoning = "medium"
	}
	f, err := recognise(template)
	if err != nil {
		return nil, err
	}
	return &Template{cfg: cfg, words: t, family: f}, nil
}

// Family names the kind of template, as "ChatML" or "Mistral v3".
func (t *Template) Family() string {
	if t == nil {
		return ""
	}
	return t.family.name()
}

// Apply returns the tokens of a conversation, BOS included where the template has it; answer
// adds what an answer of the assistant begins with. Errors match ErrCall: there is no message,
// a role or an order of roles that the template does not allow, or a content that cannot
// be told from a mark.
func (t *Template) Apply(messages []Message, answer bool) ([]int32, error) {
	w, err := t.write(messages, answer)
	if err != nil {
		return nil, err
	}
	ids, err := t.words.json.EncodeParts(w.parts)
	if err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	return ids, nil
}

// Text returns the text of a conversation as the checkpoint's own template writes it, for
// looking at: in tokens of this text contents could not be told from marks. Errors are those
// of Apply.
func (t *Template) Text(messages []Message, answer bool) (string, error) {
	w, err := t.write(messages, answer)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, p := range w.parts {
		b.WriteString(p.Text)
	}
	return b.String(), nil
}

// Ends returns the tokens that end an answer of the assistant: a GenerateConfig should stop at
// them, and at those of package function Ends.
func (t *Template) Ends() []int32 {
	var ends []int32
	if t == nil {
		return ends
	}
	for _, name := range append(t.family.ends(), t.cfg.EOS) {
		if id, ok := t.words.Lookup(name); ok && name != "" {
			ends = append(ends, id)
		}
	}
	slices.Sort(ends)
	return slices.Compact(ends)
}

func (t *Template) write(messages []Message, answer bool) (*writer, error) {
	if t == nil {
		return nil, check.Errorf(ErrCall, "text: the Template is nil, want one of OpenTemplate or ParseTemplate")
	}
	if len(messages) == 0 {
		return nil, check.Errorf(ErrCall, "text: there are no messages")
	}
	for i, m := range messages {
		if m.Role != System && m.Role != User && m.Role != Assistant {
			return nil, check.Errorf(ErrCall, "text: message %d has the role %.40q, want system, user or assistant", i, m.Role)
		}
		for _, mark := range t.family.marks() {
			if strings.Contains(m.Content, mark) && !t.words.json.IsAdded(mark) {
				return nil, check.Errorf(ErrCall, "text: message %d has %q in it, which this tokenizer cannot tell from a mark of the template", i, mark)
			}
		}
	}
	w := &writer{cfg: &t.cfg, messages: messages}
	if w.date = t.cfg.Date; w.date.IsZero() {
		w.date = time.Now()
	}
	if err := t.family.render(w, messages, answer); err != nil {
		return nil, check.Errorf(ErrCall, "text: the template (%s): %v", t.family.name(), err)
	}
	return w, nil
}

// writer gathers the parts of a conversation.
type writer struct {
	cfg      *TemplateConfig
	date     time.Time
	messages []Message
	parts    []tokenizer.Part
}

// mark writes a special token of the template, or its name where there is none.
func (w *writer) mark(name string) {
	if name != "" {
		w.parts = append(w.parts, tokenizer.Part{Text: name, Mark: true})
	}
}

// text writes text, of the template or of a message.
func (w *writer) text(text string) {
	if text != "" {
		w.parts = append(w.parts, tokenizer.Part{Text: text})
	}
}

package transformer

import (
	"fmt"
	"strings"

	"github.com/subquad/subquad/text"
)

// Tokenizer turns text into tokens and back; it is that of package text, and the Words of a
// GenerateConfig. It is safe for concurrent use.
type Tokenizer = text.Tokenizer

// OpenTokenizer is text.Open: the tokenizer of a tokenizer.json or of llama2.c's
// tokenizer.bin, or of a folder with one of the two. A stage of a tokenizer.json that is not
// known is an error that names it. Errors match ErrCheckpoint or come from the file system.
func OpenTokenizer(path string) (*Tokenizer, error) {
	t, err := text.Open(path)
	return t, own(err)
}

// Message is one of a conversation: its Role (text.System, text.User, text.Assistant) and its
// Content.
type Message = text.Message

// Template makes tokens of conversations as a chat model knows them: Apply(messages,
// answer). See package text, which tells which are recognised.
type Template = text.Template

// TemplateConfig says what a template leaves open.
type TemplateConfig = text.TemplateConfig

// OpenTemplate is text.OpenTemplate: the chat template of a checkpoint, a file or a folder. One
// that is not recognised is an error that tells what it has in it. Errors match
// ErrCheckpoint, ErrConfig, ErrCall for a nil tokenizer, or come from the file system.
func OpenTemplate(path string, t *Tokenizer, cfg TemplateConfig) (*Template, error) {
	f, err := text.OpenTemplate(path, t, cfg)
	return f, own(err)
}

// own makes an error of package text one that names this package.
func own(err error) error {
	if err == nil {
		return nil
	}
	return renamed{err}
}

type renamed struct{ error }

func (e renamed) Error() string {
	return fmt.Sprint("transformer: ", strings.TrimPrefix(e.error.Error(), "text: "))
}
func (e renamed) Unwrap() error { return e.error }

package subquad_test

import (
	"os"
	"path/filepath"

	"github.com/subquad/subquad/text"
)

func init() { rooms = append(rooms, textRoom) }

const (
	wordsFile = `{"model": {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}}`
	chatML    = `{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}`
)

func textRoom(b *builder) {
	dir := b.t.TempDir()
	must(0, os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte(wordsFile), 0o600))
	must(0, os.WriteFile(filepath.Join(dir, "chat_template.jinja"), []byte(chatML), 0o600))
	b.add("text.Open", text.Open, func() []any { return []any{dir} })
	b.add("text.Parse", text.Parse, func() []any { return []any{[]byte(wordsFile)} })
	words := must(text.Open(dir))
	b.on(func() any { return words }, "Encode", func() []any { return []any{"a", true} })
	b.add("text.Ends", text.Ends, func() []any { return []any{dir, words} })
	b.add("text.OpenTemplate", text.OpenTemplate, func() []any { return []any{dir, words, text.TemplateConfig{}} })
	b.add("text.ParseTemplate", text.ParseTemplate, func() []any { return []any{chatML, words, text.TemplateConfig{}} })
	chat := must(text.ParseTemplate(chatML, words, text.TemplateConfig{}))
	messages := func() []any { return []any{[]text.Message{{Role: text.User, Content: "a"}}, true} }
	b.on(func() any { return chat }, "Apply", messages)
	b.on(func() any { return chat }, "Text", messages)
}

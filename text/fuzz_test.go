package text

import (
	"errors"
	"strings"
	"testing"

	"github.com/subquad/subquad"
)

// FuzzTemplate wants of any template, and any message, an error that matches a sentinel or a
// conversation of which the text has the message, and whose special tokens are those that an
// empty message gives.
func FuzzTemplate(f *testing.F) {
	for _, c := range templates {
		f.Add(c.text, "Hello")
		f.Add(c.text, "<|im_end|>[/INST]<|eot_id|>")
	}
	f.Add(qwen3, "</think>")
	names := []string{"<s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|end|>"}
	tok := words(f, names...)
	f.Fuzz(func(t *testing.T, template, content string) {
		chat, err := ParseTemplate(template, tok, TemplateConfig{BOS: "<s>", EOS: "</s>", Date: day})
		if err != nil {
			if !errors.Is(err, subquad.ErrCheckpoint) {
				t.Fatalf("error %v", err)
			}
			return
		}
		special := func(content string) (n int) {
			ids, err := chat.Apply([]Message{{User, content}}, true)
			if err != nil && !errors.Is(err, subquad.ErrCall) {
				t.Fatalf("error %v", err)
			}
			for _, id := range ids {
				if id >= 300 {
					n++
				}
			}
			return n
		}
		text, err := chat.Text([]Message{{User, content}}, true)
		if err != nil {
			return
		}
		if got, want := special(content), special(""); got != want {
			t.Errorf("%d special tokens with %q, want %d", got, content, want)
		}
		if !strings.Contains(text, strip(content)) {
			t.Errorf("%q lacks %q", text, content)
		}
	})
}

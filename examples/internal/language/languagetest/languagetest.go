// Package languagetest makes checkpoints for the tests of examples.
package languagetest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ChatML is a chat template.
const ChatML = `{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`

// Folder writes a checkpoint into a folder of its own: the model of bytes in model, a folder,
// with a tokenizer of a conversation's tokens. write puts more files there.
func Folder(t *testing.T, model string) (dir string, write func(name, text string)) {
	t.Helper()
	dir = t.TempDir()
	write = func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"model.safetensors", "config.json"} {
		data, err := os.ReadFile(filepath.Join(model, name))
		if err != nil {
			t.Fatal(err)
		}
		write(name, string(data))
	}
	write("tokenizer.json", tokenizer())
	return dir, write
}

// tokenizer is one of bytes, with a few tokens more, as chat models have.
func tokenizer() string {
	var vocab []string
	next := 0x100
	for b := range 256 {
		r := rune(b)
		if !('!' <= r && r <= '~' || 0xa1 <= r && r <= 0xac || 0xae <= r) {
			r = rune(next)
			next++
		}
		token, _ := json.Marshal(string(r))
		if b >= 250 { // valid UTF-8 has none of these
			token = []byte(fmt.Sprintf(`"unused%d"`, b))
		}
		vocab = append(vocab, fmt.Sprintf("%s: %d", token, b))
	}
	return `{"added_tokens": [{"id": 250, "content": "<|im_start|>", "special": true, "normalized": false}, {"id": 251, "content": "<|im_end|>", "special": true, "normalized": false},
		{"id": 252, "content": "    ", "special": false, "normalized": true}],
		"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "decoder": {"type": "ByteLevel"},
		"model": {"type": "BPE", "vocab": {` + strings.Join(vocab, ", ") + `}, "merges": []}}`
}

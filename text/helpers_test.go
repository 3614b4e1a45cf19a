package text

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// file is a tokenizer.json of bytes, which are their own tokens, and of special ones from 300
// on.
func file(special ...string) string {
	var vocab []string
	next := 0x100
	for b := range 256 {
		r := rune(b)
		if !('!' <= r && r <= '~' || 0xa1 <= r && r <= 0xac || 0xae <= r) {
			r = rune(next)
			next++
		}
		token, _ := json.Marshal(string(r))
		vocab = append(vocab, fmt.Sprintf("%s: %d", token, b))
	}
	var added []string
	for i, name := range special {
		token, _ := json.Marshal(name)
		added = append(added, fmt.Sprintf(`{"id": %d, "content": %s, "special": true, "normalized": false}`, 300+i, token))
	}
	return `{"added_tokens": [` + strings.Join(added, ", ") + `],
		"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "decoder": {"type": "ByteLevel"},
		"model": {"type": "BPE", "vocab": {` + strings.Join(vocab, ", ") + `}, "merges": []}}`
}

func words(t testing.TB, special ...string) *Tokenizer {
	t.Helper()
	w, err := Parse([]byte(file(special...)))
	must(t, err)
	return w
}

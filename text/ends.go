package text

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/weights"
)

// endNames are names of tokens that end a text, for where no file of a checkpoint says which do.
var endNames = []string{"<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|eos|>", "[EOS]"}

// Ends returns the tokens that end a text, in order: those that the files beside a
// checkpoint name (generation_config.json, config.json, tokenizer_config.json,
// special_tokens_map.json: eos_token_id, eos_token), or else those that the tokenizer has
// under a well-known name, or llama2.c's 1 and 2. path is the checkpoint or its folder; t may
// be nil. Errors match ErrCheckpoint or come from the file system.
func Ends(path string, t *Tokenizer) ([]int32, error) {
	var ends []int32
	named := t != nil && t.json != nil
	for _, name := range []string{"generation_config.json", "config.json", "tokenizer_config.json", "special_tokens_map.json"} {
		var f struct {
			ID    json.RawMessage `json:"eos_token_id"`
			Token json.RawMessage `json:"eos_token"`
		}
		if _, err := readBeside(path, name, &f); err != nil {
			return nil, err
		}
		ids, err := numbers(f.ID)
		if err != nil {
			return nil, check.Errorf(ErrCheckpoint, "text: %s: eos_token_id: %v", name, err)
		}
		ends = append(ends, ids...)
		if token := tokenName(f.Token); token != "" && named {
			if id, ok := t.Lookup(token); ok {
				ends = append(ends, id)
			}
		}
	}
	switch {
	case len(ends) > 0:
	case named:
		for _, token := range endNames {
			if id, ok := t.Lookup(token); ok {
				ends = append(ends, id)
			}
		}
	case t != nil && t.scored != nil:
		ends = []int32{1, 2}
	}
	slices.Sort(ends)
	return slices.Compact(ends), nil
}

// readBeside decodes a JSON file beside a checkpoint, and tells whether there is one.
func readBeside(path, name string, v any) (bool, error) {
	path = filepath.Join(weights.Folder(path), name)
	data, err := weights.ReadFile(path, weights.MaxText)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("text: %w", err)
	}
	if err := weights.DecodeConfig(data, v); err != nil {
		return false, check.Errorf(ErrCheckpoint, "text: %.200s: %v", path, err)
	}
	return true, nil
}

// numbers reads a number, a list of them, or null.
func numbers(text json.RawMessage) (list []int32, err error) {
	if len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	if text[0] == '[' {
		return list, json.Unmarshal(text, &list)
	}
	list = make([]int32, 1)
	return list, json.Unmarshal(text, &list[0])
}

// tokenName reads a token's text, or an object with it.
func tokenName(text json.RawMessage) string {
	var name string
	if json.Unmarshal(text, &name) == nil {
		return name
	}
	var f struct{ Content string }
	_ = json.Unmarshal(text, &f) // it may be null, or of a form that is not known
	return f.Content
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	files "github.com/subquad/subquad/internal/weights"
)

// ends are the names of tokens that end a text, where no file of a checkpoint says which do.
var ends = []string{"<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|eos|>", "[EOS]"}

// stopTokens returns the tokens that end a text: those that the files beside a checkpoint
// name, generation_config.json, config.json, tokenizer_config.json and
// special_tokens_map.json, or else those that the tokenizer has under a well-known name.
func stopTokens(checkpoint string, v vocabulary) ([]int32, error) {
	w, text := v.(words)
	var stop []int32
	for _, name := range []string{"generation_config.json", "config.json", "tokenizer_config.json", "special_tokens_map.json"} {
		path := filepath.Join(files.Folder(checkpoint), name)
		file, err := files.ReadFile(path, files.MaxText)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var f struct {
			ID    json.RawMessage `json:"eos_token_id"`
			Token json.RawMessage `json:"eos_token"`
		}
		if err := files.DecodeConfig(file, &f); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		ids, err := numbersOf(f.ID)
		if err != nil {
			return nil, fmt.Errorf("%s: eos_token_id: %w", path, err)
		}
		stop = append(stop, ids...)
		if token := nameOf(f.Token); token != "" && text {
			if id, ok := w.t.Lookup(token); ok {
				stop = append(stop, id)
			}
		}
	}
	if text && len(stop) == 0 {
		for _, token := range ends {
			if id, ok := w.t.Lookup(token); ok {
				stop = append(stop, id)
			}
		}
	}
	slices.Sort(stop)
	return slices.Compact(stop), nil
}

// numbersOf reads a number, a list of them, or null.
func numbersOf(text json.RawMessage) (list []int32, err error) {
	if len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	if text[0] == '[' {
		return list, json.Unmarshal(text, &list)
	}
	list = make([]int32, 1)
	return list, json.Unmarshal(text, &list[0])
}

// nameOf reads a token's text, or an object with it.
func nameOf(text json.RawMessage) string {
	var name string
	if json.Unmarshal(text, &name) == nil {
		return name
	}
	var f struct{ Content string }
	_ = json.Unmarshal(text, &f) // it may be null, or of a form that is not known
	return f.Content
}

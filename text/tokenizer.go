package text

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/tokenizer"
	"github.com/subquad/subquad/internal/weights"
)

// Tokenizer turns text into tokens and back. What it does never changes, and it is safe for
// concurrent use.
type Tokenizer struct {
	json   *tokenizer.Tokenizer
	scored *tokenizer.Llama2C
	// Neither is set in the tokenizer of bytes.
}

// mostTokenizer bounds the size of a tokenizer's file; large ones have 40 MB.
const mostTokenizer = 1 << 28

// Open returns the tokenizer of a tokenizer.json or of llama2.c's tokenizer.bin, or of a
// folder, or the folder that a checkpoint's file is in, with one of the two, or with a single
// tok*.bin. A stage of a tokenizer.json that is not known is an error that names it. Errors
// match ErrCheckpoint or come from the file system; that there is no tokenizer matches
// fs.ErrNotExist too.
func Open(path string) (*Tokenizer, error) {
	if !isTokenizer(filepath.Base(path)) {
		var err error
		if path, err = find(weights.Folder(path)); err != nil {
			return nil, err
		}
	}
	data, err := weights.ReadFile(path, mostTokenizer)
	if err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	t, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%w (%.200s)", err, path)
	}
	return t, nil
}

// find returns the tokenizer's file in a folder.
func find(folder string) (string, error) {
	for _, name := range []string{"tokenizer.json", "tokenizer.bin"} {
		path := filepath.Join(folder, name)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path, nil // reading it tells what else is wrong
		}
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return "", fmt.Errorf("text: %w", err)
	}
	found := ""
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, "tok") && strings.HasSuffix(name, ".bin") {
			if found != "" {
				return "", check.Errorf(ErrCheckpoint, "text: %.200s has %s and %s: name one of them", folder, found, name)
			}
			found = name
		}
	}
	if found == "" {
		return "", check.Caused(ErrCheckpoint, fs.ErrNotExist, "text: no tokenizer.json and no tokenizer.bin in %.200s", folder)
	}
	return filepath.Join(folder, found), nil
}

// isTokenizer tells whether a file's name is that of a tokenizer rather than of weights or of
// their configuration.
func isTokenizer(base string) bool {
	switch {
	case strings.HasPrefix(base, "tok"):
		return strings.HasSuffix(base, ".json") || strings.HasSuffix(base, ".bin")
	case strings.HasSuffix(base, ".index.json"), base == "config.json", base == "params.json":
		return false
	}
	return strings.HasSuffix(base, ".json")
}

// Parse returns the tokenizer of a tokenizer.json or a tokenizer.bin, by what is in it.
// Errors match ErrCheckpoint.
func Parse(data []byte) (*Tokenizer, error) {
	t := new(Tokenizer)
	var err error
	if begin := bytes.TrimLeft(data, " \t\r\n\ufeff"); len(begin) > 0 && begin[0] == '{' {
		t.json, err = tokenizer.Read(data)
	} else {
		t.scored, err = tokenizer.ReadLlama2C(data)
	}
	if err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	return t, nil
}

// Bytes returns the tokenizer of models whose 256 tokens are the values of bytes.
func Bytes() *Tokenizer { return new(Tokenizer) }

// Encode returns the tokens of a text; begin puts those before it, and after it, that a
// text begins and ends with (BOS). Names of added tokens in the text of a tokenizer.json
// stand for these tokens: Template is for text of others. Errors match ErrCall: the text
// has what no token stands for.
func (t *Tokenizer) Encode(text string, begin bool) ([]int32, error) {
	switch {
	case t == nil:
		return nil, check.Errorf(ErrCall, "text: the Tokenizer is nil")
	case t.scored != nil:
		return t.scored.Encode(text, begin), nil
	case t.json == nil:
		ids := make([]int32, len(text))
		for i := range len(text) {
			ids[i] = int32(text[i])
		}
		return ids, nil
	}
	ids, err := t.json.Encode(text, begin)
	if err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	return ids, nil
}

// Decode returns the text of tokens; a number that is no token is nothing. Text that ends
// within a character ends so.
func (t *Tokenizer) Decode(tokens []int32) string {
	switch {
	case t == nil:
		return ""
	case t.scored != nil:
		return t.scored.Decode(tokens)
	case t.json != nil:
		return t.json.Decode(tokens)
	}
	var text []byte
	for _, id := range tokens {
		text = t.AppendText(text, -1, id)
	}
	return string(text)
}

// AppendText appends the text of a token that comes after the token before, which is
// negative where a text begins; it may end within a character. All of them one after the
// other are what Decode gives.
func (t *Tokenizer) AppendText(dst []byte, before, token int32) []byte {
	switch {
	case t == nil:
	case t.scored != nil:
		return t.scored.AppendText(dst, before, token)
	case t.json != nil:
		return t.json.AppendText(dst, before, token)
	case token >= 0 && token < 256:
		dst = append(dst, byte(token))
	}
	return dst
}

// Size returns one more than the largest token, 0 of a nil Tokenizer. A model may have more rows.
func (t *Tokenizer) Size() int {
	switch {
	case t == nil:
		return 0
	case t.scored != nil:
		return t.scored.Size()
	case t.json != nil:
		return t.json.Size()
	}
	return 256
}

// Missing returns the numbers below n that are no tokens, in order: some files leave gaps,
// and a model has rows for these too. A GenerateConfig asks for them. The caller must not
// change them.
func (t *Tokenizer) Missing(n int) []int32 {
	if t != nil && t.json != nil {
		return t.json.Missing(n)
	}
	var list []int32
	for id := t.Size(); id < n; id++ {
		list = append(list, int32(id))
	}
	return list
}

// Lookup returns the token of a name, as "<|im_end|>" or a token of the vocabulary as the
// tokenizer.json writes it. Other tokenizers have no names.
func (t *Tokenizer) Lookup(name string) (token int32, ok bool) {
	if t == nil || t.json == nil {
		return 0, false
	}
	return t.json.Lookup(name)
}

// Vocabulary is a tokenizer as a model of bytes needs it (NewBytes of package transformer and
// of package mamba).
type Vocabulary = tokenizer.Vocabulary

// Vocabulary returns the tokenizer as one of bytes. It must be a BPE of bytes, or of characters
// with bytes for those without a token, or one of llama2.c; others match ErrCall: a beginning
// of a text says too little there of how the whole becomes tokens.
func (t *Tokenizer) Vocabulary() (Vocabulary, error) {
	switch {
	case t == nil:
		return Vocabulary{}, check.Errorf(ErrCall, "text: the Tokenizer is nil")
	case t.scored != nil:
		return t.scored.Vocabulary(), nil
	case t.json == nil:
		v := Vocabulary{Begin: -1, Encode: func(dst []int32, text []byte) []int32 {
			for _, c := range text {
				dst = append(dst, int32(c))
			}
			return dst
		}}
		for c := range 256 {
			v.Bytes = append(v.Bytes, []byte{byte(c)})
		}
		return v, nil
	}
	v, err := t.json.Vocabulary()
	if err != nil {
		return v, fmt.Errorf("text: %w", err)
	}
	return v, nil
}

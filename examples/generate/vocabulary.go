package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sugarme/tokenizer"
	"github.com/sugarme/tokenizer/pretrained"

	"github.com/subquad/subquad/ssm/mamba"
)

// vocabulary turns a prompt into tokens, and tokens into text.
type vocabulary interface {
	encode(text string) ([]int32, error)
	decode(tokens []int32) string
	// whole tells whether a text does not end within a letter.
	whole(text string) bool
}

// openVocabulary returns the tokenizer beside a checkpoint or, where there is none,
// bytes or numbers.
func openVocabulary(checkpoint string, m *mamba.Model) (vocabulary, error) {
	if checkpoint != "" {
		dir := filepath.Dir(checkpoint)
		if info, err := os.Stat(checkpoint); err == nil && info.IsDir() {
			dir = checkpoint
		}
		path := filepath.Join(dir, "tokenizer.json")
		if _, err := os.Stat(path); err == nil {
			t, err := pretrained.FromFile(path)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			return words{t}, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if m.Config().Words == 256 {
		return letters{}, nil
	}
	return numbers{m.Config().Words}, nil
}

// letters are bytes.
type letters struct{}

func (letters) encode(text string) (tokens []int32, err error) {
	if text == "" {
		text = "In the beginning "
	}
	for _, b := range []byte(text) {
		tokens = append(tokens, int32(b))
	}
	return tokens, nil
}

func (letters) decode(tokens []int32) string {
	b := make([]byte, len(tokens))
	for i, t := range tokens {
		b[i] = byte(t)
	}
	return string(b)
}

func (letters) whole(string) bool { return true }

// numbers are token ids.
type numbers struct{ n int }

func (v numbers) encode(text string) (tokens []int32, err error) {
	if text == "" {
		return []int32{0}, nil
	}
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' }) {
		id, err := strconv.Atoi(word)
		if err != nil || id < 0 || id >= v.n {
			return nil, fmt.Errorf("without a tokenizer.json beside the checkpoint, text is token ids from 0 to %d, and %q is none", v.n-1, word)
		}
		tokens = append(tokens, int32(id))
	}
	return tokens, nil
}

func (numbers) decode(tokens []int32) string {
	var b strings.Builder
	for _, t := range tokens {
		fmt.Fprint(&b, t, " ")
	}
	return b.String()
}

func (numbers) whole(string) bool { return true }

// words are those of a tokenizer.json.
type words struct{ t *tokenizer.Tokenizer }

func (v words) encode(text string) (tokens []int32, err error) {
	if text == "" {
		text = "In the beginning "
	}
	e, err := v.t.EncodeSingle(text)
	if err != nil {
		return nil, err
	}
	for _, id := range e.Ids {
		tokens = append(tokens, int32(id))
	}
	return tokens, nil
}

func (v words) decode(tokens []int32) string {
	ids := make([]int, len(tokens))
	for i, t := range tokens {
		ids[i] = int(t)
	}
	return v.t.Decode(ids, true)
}

func (words) whole(text string) bool {
	r, _ := utf8.DecodeLastRuneInString(text)
	return r != utf8.RuneError
}

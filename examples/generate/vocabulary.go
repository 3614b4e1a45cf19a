package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/subquad/subquad/internal/tokenizer"
	files "github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/ssm/mamba"
)

// vocabulary turns a prompt into tokens, and tokens into text.
type vocabulary interface {
	encode(text string) ([]int32, error)
	decode(tokens []int32) string
	// whole tells whether a text does not end within a letter.
	whole(text string) bool
}

// maxTokenizer bounds the size of a tokenizer.json; large ones have 40 MB.
const maxTokenizer = 1 << 28

// openVocabulary returns the tokenizer beside a checkpoint or, where there is none,
// bytes or numbers.
func openVocabulary(checkpoint string, m *mamba.Model) (vocabulary, error) {
	if checkpoint != "" {
		path := filepath.Join(files.Folder(checkpoint), "tokenizer.json")
		text, err := files.ReadFile(path, maxTokenizer)
		if err == nil {
			t, err := tokenizer.Read(text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			return words{t}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
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
	return v.t.Encode(text, true)
}

func (v words) decode(tokens []int32) string { return v.t.Decode(tokens) }

func (words) whole(text string) bool {
	r, size := utf8.DecodeLastRuneInString(text)
	return r != utf8.RuneError || size > 1 // U+FFFD itself has three bytes
}

package language

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/subquad/subquad/attention/transformer"
	"github.com/subquad/subquad/hyena/dna"
	"github.com/subquad/subquad/text"
)

// Vocabulary turns text into tokens, and tokens into text.
type Vocabulary interface {
	transformer.Words
	// Encode returns the tokens of a text, with those that a text begins with.
	Encode(text string) ([]int32, error)
}

// Decode returns the text of tokens.
func Decode(v Vocabulary, tokens []int32) string {
	var text []byte
	before := int32(-1)
	for _, id := range tokens {
		text, before = v.AppendText(text, before, id), id
	}
	return string(text)
}

// tokenizer is that of a checkpoint, or of bytes.
type tokenizer struct{ *text.Tokenizer }

func (t tokenizer) Encode(text string) ([]int32, error) { return t.Tokenizer.Encode(text, true) }

// letters are those of DNA.
type letters struct{ *dna.Tokenizer }

func (l letters) Encode(text string) ([]int32, error) { return l.AppendDNA(nil, text) }

// numbers are token ids, of models without a tokenizer.
type numbers struct{ n int }

func (v numbers) Size() int { return v.n }

func (v numbers) Encode(text string) (tokens []int32, err error) {
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' || r == '\n' }) {
		id, err := strconv.Atoi(word)
		if err != nil || id < 0 || id >= v.n {
			return nil, fmt.Errorf("without a tokenizer.json beside the checkpoint, text is token ids from 0 to %d, and %q is none", v.n-1, word)
		}
		tokens = append(tokens, int32(id))
	}
	return tokens, nil
}

func (v numbers) AppendText(dst []byte, _, token int32) []byte {
	return append(strconv.AppendInt(dst, int64(token), 10), ' ')
}

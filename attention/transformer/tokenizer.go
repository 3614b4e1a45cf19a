package transformer

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/tokenizer"
	"github.com/subquad/subquad/internal/weights"
)

// Tokenizer turns text into tokens and back. It is immutable and safe for concurrent use.
type Tokenizer struct {
	json   *tokenizer.Tokenizer
	scored *tokenizer.Llama2C
}

// mostTokenizer bounds the size of a tokenizer's file; large ones have 40 MB.
const mostTokenizer = 1 << 28

// OpenTokenizer returns the tokenizer of a tokenizer.json or of llama2.c's tokenizer.bin, or
// of a folder with one of the two. A stage of a tokenizer.json that is not known is an error
// that names it. Errors match ErrCheckpoint or come from the file system.
func OpenTokenizer(path string) (*Tokenizer, error) {
	for _, name := range []string{"tokenizer.json", "tokenizer.bin", ""} {
		if weights.Folder(path) != path { // it is a file
			name = ""
		}
		text, err := weights.ReadFile(filepath.Join(path, name), mostTokenizer)
		if name != "" && errors.Is(err, fs.ErrNotExist) {
			if name == "tokenizer.bin" {
				return nil, check.Errorf(ErrCheckpoint, "transformer: no tokenizer.json and no tokenizer.bin in %.200s", path)
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("transformer: %w", err)
		}
		t := new(Tokenizer)
		if strings.HasSuffix(path+name, ".bin") {
			t.scored, err = tokenizer.ReadLlama2C(text)
		} else {
			t.json, err = tokenizer.Read(text)
		}
		if err != nil {
			return nil, fmt.Errorf("transformer: %w", err)
		}
		return t, nil
	}
	return nil, nil // never
}

// Encode returns the tokens of a text; begin puts those before it, and after it, that a
// text begins and ends with (BOS). Names of added tokens in the text of a tokenizer.json
// stand for these tokens. Errors match ErrCall: the text has what no token stands for.
func (t *Tokenizer) Encode(text string, begin bool) ([]int32, error) {
	if t.scored != nil {
		return t.scored.Encode(text, begin), nil
	}
	ids, err := t.json.Encode(text, begin)
	if err != nil {
		return nil, fmt.Errorf("transformer: %w", err)
	}
	return ids, nil
}

// Decode returns the text of tokens; a number that is no token is nothing. Text that ends
// within a character ends so.
func (t *Tokenizer) Decode(tokens []int32) string {
	if t.scored != nil {
		return t.scored.Decode(tokens)
	}
	return t.json.Decode(tokens)
}

// Size returns one more than the largest token. A model may have more rows (Shape.Vocab).
func (t *Tokenizer) Size() int {
	if t.scored != nil {
		return t.scored.Size()
	}
	return t.json.Size()
}

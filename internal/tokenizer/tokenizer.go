// Package tokenizer turns text into tokens and back as the tokenizer.json of a published
// checkpoint says, the file of Hugging Face's tokenizers library.
//
// Text passes five stages, each of which a file may leave out:
//
//	added tokens     are found in the text first, the longest that begins leftmost, and cut it
//	                 into segments: those that are "normalized" in normalised text, others in
//	                 the text as it is
//	normalizer       changes the characters of a segment: NFC, lower case, "▁" for spaces
//	pre-tokenizer    cuts it into words
//	model            makes tokens of a word: BPE, WordPiece, WordLevel, Unigram
//	post-processor   puts special tokens around the whole: [BOS]
//
// Tokens are turned into text by the decoder, but for added tokens, which are their content.
//
// # Laws
//
// With a byte-level BPE, decoding gives back any text, valid UTF-8 or not, as far as its
// normalizer leaves it as it is (NFC composes accents, for instance), and as no added token
// takes white space beside it (lstrip, rstrip). Nothing is dropped in silence: text that a
// model has no token for is an error where it has none for unknown text either.
//
// # Provenance
//
// The stages are re-derived from the documentation and formats of the tokenizers library, and
// checked with GPT-NeoX's 20B tokenizer. A kind of stage that is not known here is an error
// that names it.
package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"sync"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

// Tokenizer is safe for concurrent use. What it does never changes.
type Tokenizer struct {
	raw        *added    // added tokens that are found in text as it is
	normalized *added    // and those that are found in normalised text
	normalize  normalize // never nil
	split      split     // never nil
	letters    bool      // words are yet to be written with a character for every byte
	model      model
	decoders   []decode
	// lastDiffers tells that a decoder treats the last token of a text unlike others.
	lastDiffers bool
	before      []int32 // what the post-processor puts before and after a text
	after       []int32

	contents map[int32]string // of added tokens
	ids      map[string]int32 // by their content
	added    map[int32]addedToken

	// blankRaw and blankNormalized are those of raw and normalized that are white space and
	// not special: all that is found in text that nobody vouches for.
	blankRaw, blankNormalized *added

	mutex sync.RWMutex
	inner map[int32]string // texts of tokens within a text, as they were asked for
	// gaps are the numbers below counted that are no tokens.
	counted int
	gaps    []int32
}

// model makes tokens of words.
type model interface {
	// encode appends the tokens of a word, or returns an error about text without a token.
	encode(dst []int32, word string) ([]int32, error)
	// token returns a token's text, as the model has it.
	token(id int32) (string, bool)
	lookup(token string) (int32, bool)
	size() int
}

// section is a part of the file, of a type.
type section struct {
	Type string `json:"type"`
	text json.RawMessage
}

func (s *section) UnmarshalJSON(text []byte) error {
	s.text = append(s.text[:0], text...)
	type plain section
	return json.Unmarshal(text, (*plain)(s))
}

// as decodes the fields of a section.
func as[T any](s *section) (v T, err error) {
	if err = json.Unmarshal(s.text, &v); err != nil {
		err = fmt.Errorf("%s: %w", s.Type, err)
	}
	return v, err
}

// Read returns the tokenizer of a tokenizer.json. Errors match subquad.ErrCheckpoint.
func Read(text []byte) (*Tokenizer, error) {
	t, err := read(text)
	if err != nil {
		return nil, check.Errorf(subquad.ErrCheckpoint, "tokenizer: %v", err)
	}
	return t, nil
}

func read(text []byte) (*Tokenizer, error) {
	var f struct {
		Added         []addedToken `json:"added_tokens"`
		Normalizer    *section     `json:"normalizer"`
		PreTokenizer  *section     `json:"pre_tokenizer"`
		PostProcessor *section     `json:"post_processor"`
		Decoder       *section     `json:"decoder"`
		Model         *section     `json:"model"`
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	if f.Model == nil {
		return nil, fmt.Errorf("there is no model: this is not a tokenizer.json")
	}
	for _, stages := range [][]*section{{f.Normalizer, f.PreTokenizer}, {f.Decoder}} {
		if err := checkGrowth(stages); err != nil {
			return nil, err
		}
	}
	t := &Tokenizer{contents: map[int32]string{}, ids: map[string]int32{}}
	var err error
	if t.model, err = newModel(f.Model); err != nil {
		return nil, err
	}
	if t.normalize, err = newNormalize(f.Normalizer); err != nil {
		return nil, err
	}
	if t.split, t.letters, err = newWords(f.PreTokenizer); err != nil {
		return nil, err
	}
	if t.decoders, err = newDecoders(f.Decoder); err != nil {
		return nil, err
	}
	t.lastDiffers = f.Decoder != nil && bytes.Contains(f.Decoder.text, []byte(`"BPEDecoder"`))
	if err := t.add(f.Added); err != nil {
		return nil, err
	}
	return t, t.readTemplate(f.PostProcessor)
}

// Size returns one more than the largest token.
func (t *Tokenizer) Size() int {
	n := t.model.size()
	for id := range t.contents {
		n = max(n, int(id)+1)
	}
	return n
}

// Lookup returns the token of that text: an added token's content, or a token as the model
// has it.
func (t *Tokenizer) Lookup(token string) (int32, bool) {
	if id, ok := t.ids[token]; ok {
		return id, true
	}
	return t.model.lookup(token)
}

// readTemplate reads what stands before and after a text.
func (t *Tokenizer) readTemplate(s *section) error {
	if s == nil {
		return nil
	}
	switch s.Type {
	case "ByteLevel": // changes offsets, which are not kept
		return nil
	case "Sequence":
		f, err := as[struct{ Processors []*section }](s)
		for _, p := range f.Processors {
			if err == nil {
				err = t.readTemplate(p)
			}
		}
		return err
	case "TemplateProcessing":
		return t.readSingle(s)
	case "BertProcessing", "RobertaProcessing":
		f, err := as[struct{ Sep, Cls []any }](s)
		if err != nil {
			return err
		}
		for i, pair := range [][]any{f.Cls, f.Sep} {
			if len(pair) != 2 {
				return fmt.Errorf("%s: want a token and its number", s.Type)
			}
			id, ok := pair[1].(float64)
			if !ok {
				return fmt.Errorf("%s: %v is no number", s.Type, pair[1])
			}
			if !(id >= 0 && id < math.MaxInt32) {
				return fmt.Errorf("%s: token %v", s.Type, id)
			}
			if err := t.surround(i > 0, int32(id)); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("the post_processor is of type %q, which is not known", s.Type)
}

// readSingle reads the template of a single text.
func (t *Tokenizer) readSingle(s *section) error {
	type named struct {
		ID string `json:"id"`
	}
	f, err := as[struct {
		Single []struct{ SpecialToken, Sequence *named }
		Tokens map[string]struct{ IDs []int32 } `json:"special_tokens"`
	}](s)
	if err != nil {
		return err
	}
	seen := false
	for _, x := range f.Single {
		if x.SpecialToken == nil {
			seen = true
			continue
		}
		token, ok := f.Tokens[x.SpecialToken.ID]
		if !ok {
			return fmt.Errorf("%s: %q is not among its special_tokens", s.Type, x.SpecialToken.ID)
		}
		if err := t.surround(seen, token.IDs...); err != nil {
			return err
		}
	}
	return nil
}

// mostTemplate bounds the tokens that stand before and after a text.
const mostTemplate = 1 << 12

// surround puts tokens before a text, or after it.
func (t *Tokenizer) surround(after bool, ids ...int32) error {
	list := &t.before
	if after {
		list = &t.after
	}
	if len(ids) > mostTemplate-len(*list) {
		return fmt.Errorf("the post_processor puts more than %d tokens before a text, or after it", mostTemplate)
	}
	for _, id := range ids {
		if id < 0 || id == math.MaxInt32 {
			return fmt.Errorf("the post_processor has token %d", id)
		}
	}
	*list = append(*list, ids...)
	return nil
}

package dna

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/subquad/subquad/internal/check"
)

// Special says which special tokens stand around a sequence. Three conventions
// are in use; models were trained with AppendSep.
type Special uint8

const (
	// NoSpecial is the bases alone.
	NoSpecial Special = iota
	// AppendSep is the bases and [SEP], as in hyena-dna's training and the Hugging
	// Face tokenizer.
	AppendSep
	// ClsSep is [CLS], the bases, [SEP], as in the standalone file.
	ClsSep
)

// TokenizerConfig fixes a tokenizer.
type TokenizerConfig struct {
	// Vocabulary numbers the tokens; the zero value is Official.
	Vocabulary Vocabulary
	// Special tokens are added; the zero value adds none.
	Special Special
	// UpperCase takes acgtn for ACGTN. Without it they are unknown, as they are to
	// the published tokenizers.
	UpperCase bool
	// RNA takes U for T (and u, with UpperCase). Without it U is unknown, as it is to the
	// published tokenizers.
	RNA bool
	// MaxLen is the most tokens an encoding has, special ones included: the end of
	// longer text is cut off. 0 cuts nothing.
	MaxLen int
	// PadRight pads after the tokens, and not before them as HyenaDNA does.
	PadRight bool
}

// Tokenizer turns text into tokens, one for each character (Unicode code point):
// A, C, G, T and N have theirs, all others are unknown. The names of special
// tokens, as "[MASK]", stand for the tokens; white space before a mask goes with it.
// Encode and Append take any text, as the published tokenizers do; AppendDNA takes
// nucleotide codes only.
//
// A Tokenizer is immutable and safe for concurrent use.
type Tokenizer struct {
	cfg     TokenizerConfig
	ids     [utf8.RuneSelf]int32
	bracket byte // begins the names of special tokens
}

// NewTokenizer returns a tokenizer, or an error that matches ErrConfig.
func NewTokenizer(cfg TokenizerConfig) (*Tokenizer, error) {
	switch {
	case int(cfg.Vocabulary) >= len(vocabularies):
		return nil, check.Errorf(ErrConfig, "dna: Vocabulary is %d, want Official or MultiMolecule", cfg.Vocabulary)
	case cfg.Special > ClsSep:
		return nil, check.Errorf(ErrConfig, "dna: Special is %d, want NoSpecial, AppendSep or ClsSep", cfg.Special)
	case cfg.MaxLen < 0:
		return nil, check.Errorf(ErrConfig, "dna: MaxLen is %d, want 0 or more", cfg.MaxLen)
	}
	v := &vocabularies[cfg.Vocabulary]
	t := &Tokenizer{cfg: cfg, bracket: v.tokens[0][0]}
	for c := range t.ids {
		t.ids[c] = v.unknown
	}
	for id, token := range v.tokens {
		if len(token) == 1 {
			t.ids[token[0]] = int32(id)
			if cfg.UpperCase {
				t.ids[token[0]|0x20] = int32(id)
			}
		}
	}
	if cfg.RNA {
		t.ids['U'], t.ids['u'] = t.ids['T'], t.ids['t']
	}
	return t, nil
}

// Encode returns the tokens of text.
func (t *Tokenizer) Encode(text string) []int32 {
	return t.Append(make([]int32, 0, len(text)+2), text)
}

// AppendDNA appends the tokens of a sequence to dst, or returns dst and an error that
// matches ErrCall where a character is no nucleotide code (A, C, G, T, U, N, the IUPAC
// ambiguity codes and the gaps "-" and ".", in either case). Of these A, C, G, T and N have
// tokens of their own; the others are unknown ones, but for what RNA and UpperCase say.
func (t *Tokenizer) AppendDNA(dst []int32, sequence string) ([]int32, error) {
	for i := range len(sequence) {
		if letters[sequence[i]] <= blank {
			r, _ := utf8.DecodeRuneInString(sequence[i:])
			return dst, check.Errorf(ErrCall, "dna: the sequence has %q at byte %d, which is no nucleotide code", r, i)
		}
	}
	return t.Append(dst, sequence), nil
}

// Append appends the tokens of text to dst.
func (t *Tokenizer) Append(dst []int32, text string) []int32 {
	v := &vocabularies[t.cfg.Vocabulary]
	from := len(dst)
	if t.cfg.Special == ClsSep {
		dst = append(dst, v.cls)
	}
	blanks := 0 // how many of the last tokens are white space
	for len(text) > 0 {
		if id, length := t.literal(text); length > 0 {
			if id == v.mask {
				dst = dst[:len(dst)-blanks]
			}
			dst, text, blanks = append(dst, id), text[length:], 0
			continue
		}
		r, size := utf8.DecodeRuneInString(text)
		id := v.unknown
		if r < utf8.RuneSelf {
			id = t.ids[r]
		}
		blanks++
		if !unicode.IsSpace(r) {
			blanks = 0
		}
		dst, text = append(dst, id), text[size:]
	}
	if t.cfg.Special == NoSpecial {
		return t.cut(dst, from, 0)
	}
	return append(t.cut(dst, from, 1), v.sep)
}

// cut leaves room for more within MaxLen.
func (t *Tokenizer) cut(dst []int32, from, more int) []int32 {
	if most := t.cfg.MaxLen - more; t.cfg.MaxLen > 0 && len(dst)-from > most {
		return dst[:from+most]
	}
	return dst
}

// literal returns the special token whose name text begins with, and the name's length.
func (t *Tokenizer) literal(text string) (id int32, length int) {
	if text[0] != t.bracket {
		return 0, 0
	}
	v := &vocabularies[t.cfg.Vocabulary]
	for _, id := range v.literals {
		if strings.HasPrefix(text, v.tokens[id]) {
			return id, len(v.tokens[id])
		}
	}
	return 0, 0
}

// EncodeBatch returns the tokens of each text, padded to the same length: that of
// the longest, or length where that is more. Padding changes what a model makes
// of a sequence; Model.RunBatch takes sequences as they are.
func (t *Tokenizer) EncodeBatch(texts []string, length int) [][]int32 {
	batch := make([][]int32, len(texts))
	for i, text := range texts {
		batch[i] = t.Encode(text)
		length = max(length, len(batch[i]))
	}
	for i, ids := range batch {
		padded := make([]int32, 0, length)
		if t.cfg.PadRight {
			padded = append(padded, ids...)
		}
		for range length - len(ids) {
			padded = append(padded, t.cfg.Vocabulary.Pad())
		}
		if !t.cfg.PadRight {
			padded = append(padded, ids...)
		}
		batch[i] = padded
	}
	return batch
}

// Decode returns the text of tokens, special ones by their names; a number that
// is no token is written as an unknown one.
func (t *Tokenizer) Decode(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		if id < 0 || int(id) >= t.cfg.Vocabulary.Size() {
			id = vocabularies[t.cfg.Vocabulary].unknown
		}
		b.WriteString(t.cfg.Vocabulary.Token(id))
	}
	return b.String()
}

// AppendText appends the text of a token, as Decode has it, whatever comes before it.
func (t *Tokenizer) AppendText(dst []byte, _, token int32) []byte {
	if token < 0 || int(token) >= t.Size() {
		token = vocabularies[t.cfg.Vocabulary].unknown
	}
	return append(dst, vocabularies[t.cfg.Vocabulary].tokens[token]...)
}

// Size returns the number of tokens. A model may have more rows.
func (t *Tokenizer) Size() int { return t.cfg.Vocabulary.Size() }

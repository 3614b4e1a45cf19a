package dna

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func mustTokenizer(t testing.TB, cfg TokenizerConfig) *Tokenizer {
	t.Helper()
	tok, err := NewTokenizer(cfg)
	must(t, err)
	return tok
}

func TestTokenizer(t *testing.T) {
	for _, c := range []struct {
		cfg  TokenizerConfig
		text string
		want []int32
	}{
		{TokenizerConfig{}, "", nil},
		{TokenizerConfig{}, "ACGTNacgtn", []int32{7, 8, 9, 10, 11, 6, 6, 6, 6, 6}},
		{TokenizerConfig{UpperCase: true}, "ACGTNacgtn", []int32{7, 8, 9, 10, 11, 7, 8, 9, 10, 11}},
		{TokenizerConfig{RNA: true}, "ACGUNu", []int32{7, 8, 9, 10, 11, 6}},
		{TokenizerConfig{UpperCase: true, RNA: true}, "aUu", []int32{7, 10, 10}},
		{TokenizerConfig{Vocabulary: MultiMolecule, RNA: true}, "UT", []int32{9, 9}},
		{TokenizerConfig{Special: ClsSep}, "RA", []int32{0, 6, 7, 1}},
		{TokenizerConfig{Special: AppendSep}, "Aé\xff世", []int32{7, 6, 6, 6, 1}},
		{TokenizerConfig{}, "[CLS]A[SEP][BOS][PAD][UNK]", []int32{0, 7, 1, 2, 4, 6}},
		{TokenizerConfig{}, "A \t[MASK] A", []int32{7, 3, 6, 7}},
		{TokenizerConfig{}, "[SEP] [MASK]", []int32{1, 3}},
		{TokenizerConfig{}, "A [SEP]", []int32{7, 6, 1}},
		{TokenizerConfig{}, "[RES", []int32{6, 6, 6, 6}},
		{TokenizerConfig{}, "[", []int32{6}},
		{TokenizerConfig{MaxLen: 3}, "ACGT", []int32{7, 8, 9}},
		{TokenizerConfig{MaxLen: 3, Special: AppendSep}, "ACGT", []int32{7, 8, 1}},
		{TokenizerConfig{MaxLen: 3, Special: ClsSep}, "ACGT", []int32{0, 7, 1}},
		{TokenizerConfig{MaxLen: 1, Special: ClsSep}, "ACGT", []int32{1}},
		{TokenizerConfig{Vocabulary: MultiMolecule, Special: ClsSep}, "ACGTN<mask>U", []int32{1, 6, 7, 8, 9, 10, 4, 3, 2}},
	} {
		got := mustTokenizer(t, c.cfg).Encode(c.text)
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v, %q: %v, want %v", c.cfg, c.text, got, c.want)
		}
		if got := mustTokenizer(t, c.cfg).Append([]int32{99}, c.text); !slices.Equal(got, append([]int32{99}, c.want...)) {
			t.Errorf("%+v, %q: appended %v", c.cfg, c.text, got)
		}
	}
	if got := mustTokenizer(t, TokenizerConfig{}).Decode([]int32{0, 7, 8, 11, 6, 1, -1, 99}); got != "[CLS]ACN[UNK][SEP][UNK][UNK]" {
		t.Errorf("decoded %s", got)
	}
	if id, ok := Official.Lookup("T"); !ok || id != 10 {
		t.Errorf("T is %d, %v", id, ok)
	}
	if _, ok := Official.Lookup("<pad>"); ok {
		t.Error("<pad> is in the official vocabulary")
	}
	for want, cfg := range map[string]TokenizerConfig{
		"dna: MaxLen is -1, want 0 or more":                      {MaxLen: -1},
		"dna: Special is 9, want NoSpecial, AppendSep or ClsSep": {Special: 9},
		"dna: Vocabulary is 2, want Official or MultiMolecule":   {Vocabulary: 2},
	} {
		if _, err := NewTokenizer(cfg); !errors.Is(err, ErrConfig) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// TestAppendDNA takes nucleotide codes and nothing else.
func TestAppendDNA(t *testing.T) {
	tok := mustTokenizer(t, TokenizerConfig{UpperCase: true, RNA: true, Special: AppendSep})
	codes := "ACGTUNRYSWKMBDHV-.acgtunryswkmbdhv"
	got, err := tok.AppendDNA([]int32{99}, codes)
	must(t, err)
	if want := append([]int32{99}, tok.Encode(codes)...); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for text, want := range map[string]string{
		"HELLO":    `dna: the sequence has 'E' at byte 1, which is no nucleotide code`,
		"AC\n":     `dna: the sequence has '\n' at byte 2, which is no nucleotide code`,
		"AC GT":    `dna: the sequence has ' ' at byte 2, which is no nucleotide code`,
		"A[SEP]":   `dna: the sequence has '[' at byte 1, which is no nucleotide code`,
		"ACé":      `dna: the sequence has 'é' at byte 2, which is no nucleotide code`,
		">a\nACGT": `dna: the sequence has '>' at byte 0, which is no nucleotide code`,
		"AX":       `dna: the sequence has 'X' at byte 1, which is no nucleotide code`,
	} {
		got, err := tok.AppendDNA([]int32{99}, text)
		if !errors.Is(err, ErrCall) || err.Error() != want || !slices.Equal(got, []int32{99}) {
			t.Errorf("%q: %v, error %v", text, got, err)
		}
	}
}

// FuzzTokenizer: text gives one token for each character, special tokens' names aside,
// and the text back where all of it is known.
func FuzzTokenizer(f *testing.F) {
	f.Add("ACGT")
	f.Add("AC [MASK]GT\xff[PAD")
	f.Fuzz(func(t *testing.T, text string) {
		tok := mustTokenizer(t, TokenizerConfig{})
		ids := tok.Encode(text)
		if n := utf8.RuneCountInString(text); len(ids) > n || !strings.Contains(text, "[") && len(ids) != n {
			t.Fatalf("%d tokens of %d characters", len(ids), n)
		}
		if !slices.Contains(ids, 6) && !strings.Contains(text, "[MASK]") && tok.Decode(ids) != text {
			t.Fatalf("%q came back as %q", text, tok.Decode(ids))
		}
	})
}

package dna

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// records reads all of a file: "name|description|bases".
func records(text io.Reader, keepCase bool) (list []string, last Composition, err error) {
	r, err := NewReader(text)
	if err != nil {
		return nil, last, err
	}
	r.KeepCase = keepCase
	for {
		h, err := r.Next()
		if err == io.EOF {
			return list, last, nil
		}
		if err != nil {
			return list, last, err
		}
		seq, err := io.ReadAll(r)
		if err != nil {
			return list, last, err
		}
		list, last = append(list, h.Name+"|"+h.Description+"|"+string(seq)), r.Composition()
	}
}

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(text))
	z.Close()
	return b.String()
}

func TestFASTA(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "",
		"\n\n":                                  "",
		">a":                                    "a||",
		">a\nACGT":                              "a||ACGT",
		">a b  c\nAC\nGT\n\n>d\r\nTT\r\nNN\r\n": "a|b  c|ACGT d||TTNN",
		"; old style\n> x y \nAC GT\t\n;c\nA":   "x|y|ACGTA",
		">a\nacgtN-.RyU\n":                      "a||ACGTN-.RYU",
		">a\n>b\n>c\nA":                         "a|| b|| c||A",
		">a\n" + strings.Repeat("A", 200000):    "a||" + strings.Repeat("A", 200000),
	} {
		for name, r := range map[string]io.Reader{
			"plain": strings.NewReader(text), "gzip": strings.NewReader(zipped(text)),
			"two members":      strings.NewReader(zipped(text[:len(text)/2]) + zipped(text[len(text)/2:])),
			"a byte at a time": iotest.OneByteReader(strings.NewReader(text)),
		} {
			got, _, err := records(r, false)
			if err != nil || strings.Join(got, " ") != want {
				t.Errorf("%.40q, %s: %.60q, error %v", text, name, got, err)
			}
		}
	}
	got, count, err := records(strings.NewReader(">a\nacgtN-.RyUn\n"), true)
	if err != nil || got[0] != "a||acgtN-.RyUn" || count != (Composition{Bases: 11, Lower: 6, N: 2, IUPAC: 2, Uracil: 1, Gap: 2}) {
		t.Errorf("%q, %+v, error %v", got, count, err)
	}
}

func TestFASTAErrors(t *testing.T) {
	for text, want := range map[string]string{
		"ACGT":                           `dna: FASTA, line 1: 'A' before the first ">"`,
		"\n\n@fastq\nAC":                 `dna: FASTA, line 3: '@' before the first ">"`,
		">a\nACGT\nAC!T\n":               `dna: FASTA, line 3: '!' is no nucleotide code`,
		">a\nAC>T\n":                     `dna: FASTA, line 2: '>' is no nucleotide code`,
		">p\nMEEPQ*\n":                   `dna: FASTA, line 2: 'E' is no nucleotide code`,
		">" + strings.Repeat("x", 2<<20): `dna: FASTA, line 1: a header of more than 1048576 bytes`,
		"\x1f\x8bnot gzip":               "dna: gzip: invalid header",
	} {
		if _, _, err := records(strings.NewReader(text), false); !errors.Is(err, ErrFASTA) || err.Error() != want {
			t.Errorf("%.40q: error %v", text, err)
		}
	}
	broken := zipped(">a\nACGT\n")
	if _, _, err := records(strings.NewReader(broken[:len(broken)-6]), false); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v", err)
	}
	failing := io.MultiReader(strings.NewReader(">a\nAC"), iotest.ErrReader(fmt.Errorf("disk on fire")))
	got, _, err := records(failing, false)
	if err == nil || err.Error() != "dna: FASTA, line 2: disk on fire" {
		t.Errorf("%q, error %v", got, err)
	}
	// An error stays.
	r, err := NewReader(strings.NewReader(">a\n!\n>b\nA"))
	must(t, err)
	for range 2 {
		r.Next()
	}
	if _, err := r.Next(); !errors.Is(err, ErrFASTA) {
		t.Errorf("error %v", err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, ErrFASTA) {
		t.Errorf("%d bases, error %v", n, err)
	}
}

func TestReverseComplement(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "A": "T", "ACG": "CGT", "AACGTTn": "nAACGTT", "RYSWKMBDHVN-.?U": "A?.-NBDHVKMWSRY", "acgu": "acgt",
	} {
		seq := []byte(in)
		dst := make([]byte, len(seq))
		must(t, ReverseComplement(dst, seq))
		must(t, ReverseComplement(seq, seq))
		if string(dst) != want || string(seq) != want {
			t.Errorf("%q: %q and, in place, %q, want %q", in, dst, seq, want)
		}
	}
	if err := ReverseComplement(nil, []byte("A")); !errors.Is(err, ErrShape) {
		t.Errorf("error %v", err)
	}
}

// FuzzFASTA wants an error or nothing but nucleotide codes, the same whether they
// are read in large pieces or small ones.
func FuzzFASTA(f *testing.F) {
	f.Add([]byte(">a b\nACGT\n;c\n>d\r\nNN-"))
	f.Add([]byte(zipped(">a\nACGT")))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, count, err := records(bytes.NewReader(b), false)
		pieces, again, err2 := records(iotest.OneByteReader(bytes.NewReader(b)), false)
		if fmt.Sprint(whole, count, err) != fmt.Sprint(pieces, again, err2) {
			t.Fatalf("%q, %+v, %v in one piece; %q, %+v, %v in many", whole, count, err, pieces, again, err2)
		}
		for _, rec := range whole {
			seq := rec[strings.LastIndexByte(rec, '|')+1:]
			for _, c := range []byte(seq) {
				if letters[c] <= 1 || c >= 'a' {
					t.Fatalf("%q in %q", c, seq)
				}
			}
		}
	})
}

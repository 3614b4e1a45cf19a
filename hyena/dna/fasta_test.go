package dna

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
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
		">a\nacgtN-.RyUu\n":                     "a||ACGTN-.RYTT",
		">a\rAC\rGT\r>b c\rTT\r":                "a||ACGT b|c|TT",
		">a\nAC\r\r\nGT\n>b\rTT\n":              "a||ACGT b||TT", // a CR within an LF file ends a line too
		"\xef\xbb\xbf>a\nA":                     "a||A",
		">\nA\n> \nC\n>\v\nG":                   "||A ||C ||G",
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
	if err != nil || got[0] != "a||acgtN-.RyTn" || count != (Composition{Bases: 11, Lower: 6, N: 2, IUPAC: 2, Uracil: 1, Gap: 2}) {
		t.Errorf("%q, %+v, error %v", got, count, err)
	}
}

func TestFASTAErrors(t *testing.T) {
	for text, want := range map[string]string{
		"ACGT":                           `dna: FASTA, line 1: 'A' before the first ">"`,
		"\n\n@fastq\nAC":                 `dna: FASTA, line 3: '@' before the first ">": this is a FASTQ file`,
		">a\nACGT\nAC!T\n":               `dna: FASTA, line 3: '!' is no nucleotide code`,
		">a\nAC>T\n":                     `dna: FASTA, line 2: '>' is no nucleotide code`,
		">p\nMEEPQ*\n":                   `dna: FASTA, line 2: 'E' is no nucleotide code`,
		">" + strings.Repeat("x", 2<<20): `dna: FASTA, line 1: a header of more than 1048576 bytes`,
		"\x1f\x8bnot gzip":               "dna: gzip: invalid header",
		">a\rACGT\r!":                    `dna: FASTA, line 3: '!' is no nucleotide code`,
		">a\r\nACGT\r\n!":                `dna: FASTA, line 3: '!' is no nucleotide code`,
		">a\nAC\x00":                     `dna: FASTA, line 2: '\x00' is no nucleotide code`,
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

// TestMask reads what is no nucleotide code as N.
func TestMask(t *testing.T) {
	r, err := NewReader(strings.NewReader(">a\nACGTXXxx*?EN\nu"))
	must(t, err)
	r.Mask, r.KeepCase, r.KeepU = true, true, true
	_, err = r.Next()
	must(t, err)
	seq, err := io.ReadAll(r)
	must(t, err)
	if string(seq) != "ACGTNNnnNNNNu" || r.Composition() != (Composition{Bases: 13, Lower: 3, N: 1, Uracil: 1, Masked: 7}) {
		t.Errorf("%q, %+v", seq, r.Composition())
	}
	for _, text := range []string{">a\nA!", ">a\nA>b", ">a\nA\xff", ">a\nA\x00", ">a\nA1"} {
		r, err := NewReader(strings.NewReader(text))
		must(t, err)
		r.Mask = true
		_, err = r.Next()
		must(t, err)
		if _, err := io.ReadAll(r); !errors.Is(err, ErrFASTA) {
			t.Errorf("%q: error %v", text, err)
		}
	}
}

// TestFiles reads files as they come from other programs.
func TestFiles(t *testing.T) {
	for name, want := range map[string]string{
		"cr_only.fa":              "seq1|old mac|ACGTACGTTTTT seq2||GGGG",
		"bom.fa":                  "seq1||ACGT",
		"no_name.fa":              "||ACGT ||GG spaced|name|CC",
		"masked_by_x.fa":          `dna: FASTA, line 2: 'X' is no nucleotide code`,
		"bgzf_cut_at_block.fa.gz": "dna: FASTA, line 2: BGZF without its end mark: the file is cut short: unexpected EOF",
	} {
		f, err := os.Open("testdata/fasta/" + name)
		must(t, err)
		got, _, err := records(f, false)
		f.Close()
		if err != nil {
			got = []string{err.Error()}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	padded, err := os.ReadFile("testdata/fasta/zero_padded.fa.gz")
	must(t, err)
	got, _, err := records(bytes.NewReader(padded), false)
	if err != nil || len(got) != 2 {
		t.Errorf("padded by zeros: %q, error %v", got, err)
	}
	// Another member may follow the zeros; anything else may not.
	more, _, err := records(strings.NewReader(string(padded)+zipped(">x\nAC\n")), false)
	if err != nil || len(more) != 3 || more[2] != "x||AC" {
		t.Errorf("padded, and another member: %q, error %v", more, err)
	}
	for text, want := range map[string]string{
		string(padded) + "hello":          `dna: FASTA, line 6: after the gzip data and zeros come bytes that are not gzip: "hello"`,
		zipped(">a\nAC\n") + "\x1f hello": `dna: FASTA, line 3: after the gzip data come bytes that are not gzip: "\x1f hello"`,
	} {
		if _, _, err := records(strings.NewReader(text), false); !errors.Is(err, ErrFASTA) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	cut, err := os.ReadFile("testdata/fasta/bgzf_cut_at_block.fa.gz")
	must(t, err)
	if _, _, err := records(bytes.NewReader(cut), false); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v", err)
	}
	mark := "\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff\x06\x00BC\x02\x00\x1b\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	whole, _, err := records(strings.NewReader(string(cut)+mark), false)
	if err != nil || len(whole) != 1 {
		t.Errorf("with its end mark: %q, error %v", whole, err)
	}
}

// TestForeign names files that are given by mistake.
func TestForeign(t *testing.T) {
	for text, want := range map[string]string{
		"@read1\nACGT\n+\nIIII\n":                               "a FASTQ file",
		"@read1 long\n" + strings.Repeat("ACGT", 1000):          "a FASTQ file",
		"@HD\tVN:1.6\n":                                         "a SAM file",
		"##gff-version 3\nchr1\t.\tgene\t1\t9\t.\t+\t.\tID=1\n": "a GFF file",
		"chr1\tx\tgene\t1\t9\t.\t+\t.\tID=1\n":                  "a GFF file",
		"chr1\t0\t100\n":                                        "a table, BED for instance",
		"<!DOCTYPE html>\n<html>":                               "an HTML page: the download went wrong",
		"\n  <html><body>":                                      "an HTML page: the download went wrong",
		"version https://git-lfs.github.com/spec/v1\noid ":      "a Git LFS pointer: the file itself has not been downloaded (git lfs pull)",
		"BZh91AY&SY":                                            "a bzip2 file: unpack it first",
		"\xfd7zXZ\x00\x00":                                      "an xz file: unpack it first",
		"\x28\xb5\x2f\xfd":                                      "a Zstandard file: unpack it first",
		"PK\x03\x04\x14":                                        "a zip file, or a document or a PyTorch checkpoint, which are such: unpack it first",
		"LOCUS       NC_001416":                                 "a GenBank file",
		"\x43\x27\x41\x1a\x00":                                  "a 2bit file: make FASTA of it with twoBitToFa",
		"\xff\xfe>\x00a\x00":                                    "a text in UTF-16, want ASCII or UTF-8",
		zipped(">a\nA\n"):                                       "a gzip file: unpack it first", // twice
		"\x10\x00\x00\x00\x00\x00\x00\x00{}":                    "a safetensors file",
		`{"a": 1}`:                                              "a JSON file",
	} {
		texts := []string{zipped(text)}
		if !strings.HasPrefix(text, "\x1f\x8b") {
			texts = append(texts, text)
		}
		for _, text := range texts {
			_, _, err := records(strings.NewReader(text), false)
			if !errors.Is(err, ErrFASTA) || !strings.HasSuffix(err.Error(), `before the first ">": this is `+want) {
				t.Errorf("%.20q: error %v, want %s", text, err, want)
			}
		}
	}
}

func TestReverseComplement(t *testing.T) {
	for in, want := range map[string][2]string{
		"": {"", ""}, "A": {"T", "U"}, "ACG": {"CGT", "CGU"}, "AACGTTn": {"nAACGTT", "nTTCGUU"},
		"RYSWKMBDHVN-.?U": {"U?.-NBDHVKMWSRY", "A?.-NBDHVKMWSRY"}, "acgu": {"ucgt", "acgu"},
	} {
		for i, f := range []func(dst, sequence []byte) error{ReverseComplement, ReverseComplementRNA} {
			seq := []byte(in)
			dst := make([]byte, len(seq))
			must(t, f(dst, seq))
			must(t, f(seq, seq))
			if string(dst) != want[i] || string(seq) != want[i] {
				t.Errorf("%q: %q and, in place, %q, want %q", in, dst, seq, want[i])
			}
		}
	}
	// Twice gives back any text.
	var all []byte
	for c := range 256 {
		all = append(all, byte(c))
	}
	for _, f := range []func(dst, sequence []byte) error{ReverseComplement, ReverseComplementRNA} {
		twice := bytes.Clone(all)
		must(t, f(twice, twice))
		must(t, f(twice, twice))
		if !bytes.Equal(twice, all) {
			t.Errorf("twice: %q", twice)
		}
	}
	if err := ReverseComplement(nil, []byte("A")); !errors.Is(err, ErrShape) {
		t.Errorf("error %v", err)
	}
}

// FuzzFASTA: any text gives an error or nothing but nucleotide codes, the same whether they
// are read in large pieces or small ones.
func FuzzFASTA(f *testing.F) {
	f.Add([]byte(">a b\nACGT\n;c\n>d\r\nNN-"))
	f.Add([]byte(zipped(">a\nACGT")))
	f.Add([]byte("\xef\xbb\xbf>a\rACGU\r\n>\rTT\r\r\nNN-"))
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

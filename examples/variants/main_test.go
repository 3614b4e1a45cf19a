package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/subquad/subquad/examples/internal/program/programtest"
)

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := command(t.Context(), args, &out, io.Discard)
	return out.String(), err
}

// TestStretch scores a stretch of lambda, writes the table and draws it.
func TestStretch(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	text, err := run(t, "-length", "4", "-window", "64", "-out", out)
	if err != nil {
		t.Fatal(err)
	}
	programtest.Prints(t, text, "bases 37921 to 37924: 12 changes of a single base", "least likely", "most likely", "wrote "+out+".tsv and "+out+".png")
	table, err := os.ReadFile(out + ".tsv")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(string(table)), "\n"); len(lines) != 13 || !strings.HasPrefix(lines[0], "contig\tposition\tid\tref\talt\tln_ratio") {
		t.Errorf("table %q", table)
	}
	programtest.Pictures(t, out+".png")
}

// TestShortGenome: without more flags, the stretch is one that a genome has.
func TestShortGenome(t *testing.T) {
	dir := t.TempDir()
	fasta := filepath.Join(dir, "a.fa")
	if err := os.WriteFile(fasta, []byte(">a\nACGTACGTAC\nGTAC\n>b\nACNN\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"a, bases 1 to 14: 42 changes": nil, "b, bases 1 to 4: 6 changes": {"-contig", "b"}, "a, bases 9 to 14: 18 changes": {"-from", "9"}, "a, bases 1 to 2: 6 changes": {"-length", "2"},
	} {
		if text, err := run(t, append(args, "-fasta", fasta, "-out", filepath.Join(dir, "out"))...); err != nil || !strings.Contains(text, want) {
			t.Errorf("%v: printed %q, error %v, want %q", args, text, err, want)
		}
	}
}

// TestVCF scores a file, and says what is wrong with others.
func TestVCF(t *testing.T) {
	dir := t.TempDir()
	path := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	fasta := path("a.fa", ">chr\nACGTACGTACGTACGTACGT\nACGTACGT\n")
	out := filepath.Join(dir, "out")
	text, err := run(t, "-fasta", fasta, "-vcf", path("a.vcf", "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\nchr\t5\tx\tA\tG,<DEL>\nchr\t5\t.\tACG\tA\n"), "-window", "16", "-out", out)
	if err != nil || !strings.Contains(text, "2 changes, 1 alleles that are no bases passed over") {
		t.Fatalf("printed %q, error %v", text, err)
	}
	table, err := os.ReadFile(out + ".tsv")
	if err != nil || !strings.Contains(string(table), "chr\t5\tx\tA\tG\t") || !strings.Contains(string(table), "chr\t5\t.\tACG\tA\t") {
		t.Errorf("table %q, error %v", table, err)
	}
	for want, args := range map[string][]string{
		"after 0 changes: dna: variant 0, chr:6 A>G: the sequence has C there": {"-fasta", fasta, "-vcf", path("b.vcf", "#\nchr\t6\t.\tA\tG\n")},
		"there is no such sequence":                 {"-fasta", fasta, "-vcf", path("c.vcf", "#\nchr2\t6\t.\tA\tG\n")},
		"this is a FASTA file":                      {"-fasta", fasta, "-vcf", fasta},
		"want a stretch of chr, which has 28 bases": {"-fasta", fasta, "-from", "20", "-length", "10"},
		"-length is -1, want 1 to 100000":           {"-length", "-1"},
		"of which the genome has no record":         {"-contig", "x"},
		"no such file or directory":                 {"-fasta", filepath.Join(dir, "none")},
	} {
		if _, err := run(t, append(args, "-out", out)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want %s", args, err, want)
		}
	}
	if _, err := run(t, "-out", "/nosuch/x"); err == nil {
		t.Error("nothing is said of a file that cannot be written")
	}
}

func TestProgram(t *testing.T) { programtest.Check(t, "variants", command) }

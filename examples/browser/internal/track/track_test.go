package track

import (
	"bytes"
	"io"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/subquad/subquad/examples/internal/ecoli"
)

// TestRead reads a genome and wants the bits per base that the official code finds in float64,
// each base once, and names what it cannot read.
func TestRead(t *testing.T) {
	m, err := ecoli.Open("", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	var letters, expected int
	var sum, count float64
	r := Reader{Model: m, Window: 1024,
		Record: func(name string, bases int) { names, expected = append(names, name), expected+bases },
		Piece: func(piece []byte, bits []float32) {
			letters += len(piece)
			for _, v := range bits {
				if v == v {
					sum, count = sum+float64(v), count+1
				}
			}
		},
	}
	read := func(file io.Reader) error {
		names, letters, expected, sum, count = nil, 0, 0, 0, 0
		return r.Read(t.Context(), file)
	}
	file, err := os.ReadFile("../../../genome/testdata/phix174_NC_001422.fna.gz")
	if err != nil {
		t.Fatal(err)
	}
	if err := read(bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	const want = 1.97147 // phix174@1024 of the official code
	if got := sum / count; letters != 5386 || expected != letters || count != 5385 || math.Abs(got-want) > 1e-4 {
		t.Errorf("%v: %d of %d bases, %v predicted, %.5f bits, want %.5f", names, letters, expected, count, got, want)
	}
	if err := read(strings.NewReader(">a b\nACGT\n>empty\n>c\nNNGA\n")); err != nil || strings.Join(names, "|") != "a|empty|c" || letters != 8 || count != 5 {
		t.Errorf("%q: %d letters, %v predicted, error %v", names, letters, count, err)
	}
	for text, want := range map[string]string{"": "no", ">a\nAC7T\n": "FASTA"} {
		if err := read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", text, err, want)
		}
	}
	if err := read(io.MultiReader(strings.NewReader(">a\nAC\n>b\n"), strings.NewReader(strings.Repeat("A", mostBases+1)))); err == nil || !strings.Contains(err.Error(), `record "b" has more than`) || letters != 2 {
		t.Errorf("a long record: %d letters, error %v", letters, err)
	}
	r.Window = 1
	if err := read(strings.NewReader(">a\nACGT\n")); err == nil || !strings.Contains(err.Error(), "window of 1 ") {
		t.Errorf("error %v", err)
	}
}

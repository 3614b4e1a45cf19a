package dna

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// fastaText is a FASTA file of records in lines of width bases, and the records.
func fastaText(seed uint64, width int, ends string, lengths ...int) (string, map[string]string) {
	r := rand.New(rand.NewPCG(seed, 1))
	var b strings.Builder
	records := map[string]string{}
	for i, n := range lengths {
		name := fmt.Sprintf("record%d", i)
		letters := make([]byte, n)
		for j := range letters {
			letters[j] = "ACGTacgtN"[r.IntN(9)]
		}
		records[name] = string(letters)
		fmt.Fprintf(&b, ">%s some words%s", name, ends)
		for len(letters) > 0 {
			w := min(width, len(letters))
			fmt.Fprintf(&b, "%s%s", letters[:w], ends)
			letters = letters[w:]
		}
	}
	return b.String(), records
}

// bgzip compresses a text in blocks, and returns its .gzi too.
func bgzip(t testing.TB, text string, block int) (file, index []byte) {
	t.Helper()
	const where = 16 // of a block's size
	var list []byte
	for at, n := 0, 0; ; n++ {
		part := text[at:min(at+block, len(text))]
		if n > 0 && part != "" {
			list = binary.LittleEndian.AppendUint64(list, uint64(len(file)))
			list = binary.LittleEndian.AppendUint64(list, uint64(at))
		}
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Extra = []byte{'B', 'C', 2, 0, 0, 0}
		_, err := io.WriteString(z, part)
		must(t, err)
		must(t, z.Close())
		packed := b.Bytes()
		binary.LittleEndian.PutUint16(packed[where:], uint16(len(packed)-1))
		file = append(file, packed...)
		if part == "" {
			break
		}
		at += len(part)
	}
	return file, append(binary.LittleEndian.AppendUint64(nil, uint64(len(list)/16)), list...)
}

// TestGenome: stretches are those of the records, by an index that is made or read, of a
// plain file and of one in blocks.
func TestGenome(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, ends := range []string{"\n", "\r\n"} {
		text, records := fastaText(1, 60, ends, 1, 60, 61, 1000, 59, 120)
		if ends == "\r\n" { // what has such ends may have a byte-order mark
			text = "\xef\xbb\xbf" + text
		}
		packed, gzi := bgzip(t, text, 300)
		plain, err := NewGenome(strings.NewReader(text), int64(len(text)), nil, nil)
		must(t, err)
		var fai bytes.Buffer
		must(t, plain.WriteIndex(&fai))
		for name, c := range map[string]struct {
			file       string
			index, gzi []byte
		}{
			"plain": {text, nil, nil}, "plain, index": {text, fai.Bytes(), nil},
			"blocks": {string(packed), nil, nil}, "blocks, index": {string(packed), fai.Bytes(), nil}, "blocks, both indices": {string(packed), fai.Bytes(), gzi},
		} {
			g, err := NewGenome(strings.NewReader(c.file), int64(len(c.file)), c.index, c.gzi)
			must(t, err)
			if len(g.Contigs()) != len(records) {
				t.Fatalf("%s: records %v", name, g.Contigs())
			}
			for record, want := range records {
				if n, ok := g.Len(record); !ok || n != int64(len(want)) {
					t.Fatalf("%s: %s has %d bases, want %d", name, record, n, len(want))
				}
				for range 20 {
					from := r.IntN(len(want) + 1)
					got := make([]byte, r.IntN(len(want)-from+1))
					must(t, g.ReadBases(got, record, int64(from)))
					if string(got) != want[from:from+len(got)] {
						t.Fatalf("%s: bases %d to %d of %s are %q, want %q", name, from, from+len(got), record, got, want[from:from+len(got)])
					}
				}
			}
			for _, err := range []error{g.ReadBases(make([]byte, 2), "record0", 0), g.ReadBases(make([]byte, 1), "record3", -1), g.ReadBases(nil, "none", 0), g.ReadBases(make([]byte, 1), "record3", 1<<62)} {
				if !errors.Is(err, ErrCall) {
					t.Errorf("%s: error %v", name, err)
				}
			}
		}
	}
}

// endless is a file whose first record is one line of A.
type endless struct{}

func (endless) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		p[i] = 'A'
		if at := off + int64(i); at < 3 {
			p[i] = ">a\n"[at]
		}
	}
	return len(p), nil
}

// TestLongLines: an index takes no memory for lines, however long, with any end.
func TestLongLines(t *testing.T) {
	const size = 64 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	g, err := NewGenome(endless{}, size, nil, nil)
	must(t, err)
	runtime.ReadMemStats(&after)
	if n, _ := g.Len("a"); n != size-3 {
		t.Errorf("%d bases, want %d", n, size-3)
	}
	if taken := after.TotalAlloc - before.TotalAlloc; taken > 4<<20 {
		t.Errorf("a line of %d bytes takes %d", size, taken)
	}
	for _, ends := range []string{"\n", "\r\n"} {
		for n := 1<<16 - 5; n < 1<<16+5; n++ { // about the reader's buffer
			text := ">a" + ends + strings.Repeat("A", n) + ends + strings.Repeat("C", n) + ends + ">b " + strings.Repeat("x", n) + ends + "G"
			g, err := NewGenome(strings.NewReader(text), int64(len(text)), nil, nil)
			must(t, err)
			got := make([]byte, 2)
			must(t, g.ReadBases(got, "a", int64(n-1)))
			if all := g.Contigs(); len(all) != 2 || all[0].Bases != int64(2*n) || all[1] != (Contig{"b", 1}) || string(got) != "AC" {
				t.Errorf("lines of %d: %v, %q", n, all, got)
			}
			bad := text[:3+n/2] + "\r" + text[3+n/2:]
			if _, err := NewGenome(strings.NewReader(bad), int64(len(bad)), nil, nil); !errors.Is(err, ErrFASTA) {
				t.Errorf("a CR within %d: error %v", n, err)
			}
		}
	}
	long := ">" + strings.Repeat("x", maxHeader+1)
	if _, err := NewGenome(strings.NewReader(long), int64(len(long)), nil, nil); !errors.Is(err, ErrFASTA) || !strings.Contains(err.Error(), "header of more than") {
		t.Errorf("a long header: error %.100v", err)
	}
}

// TestGenomeNames: an index that is made has the names that a Reader gives.
func TestGenomeNames(t *testing.T) {
	const text = ">a b\nAC\n>\tb\tc\nAC\n>  c d\nAC\n>d\ve\nAC\n>\nAC\n"
	g, err := NewGenome(strings.NewReader(text), int64(len(text)), nil, nil)
	must(t, err)
	r, err := NewReader(strings.NewReader(text))
	must(t, err)
	for i, want := range []string{"a", "b", "c", "d", ""} {
		h, err := r.Next()
		must(t, err)
		if got := g.Contigs()[i].Name; got != want || h.Name != want {
			t.Errorf("record %d is %q by the index and %q by a Reader, want %q", i, got, h.Name, want)
		}
	}
}

// TestOpenGenome reads files beside each other.
func TestOpenGenome(t *testing.T) {
	text, records := fastaText(2, 50, "\n", 333)
	packed, gzi := bgzip(t, text, 100)
	dir := t.TempDir()
	path := filepath.Join(dir, "a.fa.gz")
	for name, data := range map[string][]byte{"a.fa.gz": packed, "a.fa.gz.gzi": gzi} {
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	g, err := OpenGenome(path)
	must(t, err)
	got := make([]byte, 100)
	must(t, g.ReadBases(got, "record0", 200))
	if want := records["record0"][200:300]; string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
	must(t, g.Close())
	if _, err := OpenGenome(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: error %v", err)
	}
	if _, err := OpenGenome(dir); err == nil {
		t.Error("a folder was opened")
	}
}

// TestGenomeErrors: what is wrong with a file or an index is said.
func TestGenomeErrors(t *testing.T) {
	text, _ := fastaText(2, 50, "\n", 333)
	var plain bytes.Buffer
	z := gzip.NewWriter(&plain)
	_, _ = z.Write([]byte(text))
	must(t, z.Close())
	packed, gzi := bgzip(t, text, 100)
	for name, c := range map[string]struct {
		file       string
		index, gzi string
		want       string
	}{
		"uneven lines":     {">a\nACGT\nAC\nACGT\n", "", "", "line 4: lines of \"a\" before it are shorter or empty"},
		"a longer line":    {">a\nAC\nACGT\n", "", "", "line 3: 4 bases, those of \"a\" before it have 2"},
		"a space":          {">a\nACGT \nACGT \n", "", "", "line 2: white space"},
		"a tab":            {">a\nAC\tGT\n", "", "", "line 2: white space"},
		"a comment":        {">a\nACGT\n;CGT\nACGT\n", "", "", "line 3: a comment"},
		"a comment before": {";CGT\n>a\nACGT\n", "", "", "line 1: a comment"},
		"ends of CR":       {">a\rACGT\rACGT\r", "", "", "line 1: a line end of CR alone"},
		"one end of CR":    {">a\nACGT\rACGT\n", "", "", "line 2: a line end of CR alone"},
		"no header":        {"hello", "", "", "line 1: 'h' before the first"},
		"GenBank":          {"LOCUS       X 10 bp\n", "", "", "this is a GenBank file"},
		"FASTQ":            {"@a\nACGT\n+\nIIII\n", "", "", "this is a FASTQ file"},
		"twice":            {">a\nAC\n>a\nAC\n", "", "", "two records are named \"a\""},
		"a foreign index":  {">a\nAC\n", "a\t200\t3\t60\t61\n", "", "the index is of another file"},
		"a damaged index":  {">a\nAC\n", "a\t2\t3\tx\t61\n", "", "\"x\" is no number"},
		"no lines":         {">a\nAC\n", "a\t2\t3\t0\t61\n", "", "lines of 0 bases"},
		"an endless one":   {">a\nAC\n", "a\t9223372036854775807\t3\t1\t3\n", "", "the index is of another file"},
		"plain gzip":       {plain.String(), "", "", "no block of BGZF"},
		"cut":              {string(packed[:len(packed)-40]), "", "", "cut short"},
		"a foreign .gzi":   {string(packed[:len(packed)/2]), "", string(gzi), "another file"},
		"half a .gzi":      {string(packed), "", string(gzi[:len(gzi)-3]), "other blocks than it has"},
		"a changed length": {string(packed[:len(packed)-28-4]) + "\xff\xff\xff\x7f" + string(packed[len(packed)-28:]), "", "", "a block of"},
	} {
		var index, blocks []byte
		if c.index != "" {
			index = []byte(c.index)
		}
		if c.gzi != "" {
			blocks = []byte(c.gzi)
		}
		_, err := NewGenome(strings.NewReader(c.file), int64(len(c.file)), index, blocks)
		if !errors.Is(err, ErrFASTA) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %s", name, err, c.want)
		}
	}
}

// FuzzGenome: no file and no index panics, hangs or takes memory.
func FuzzGenome(f *testing.F) {
	text, _ := fastaText(2, 50, "\n", 133)
	packed, gzi := bgzip(f, text, 60)
	f.Add([]byte(text), []byte(nil), []byte(nil))
	f.Add(packed, []byte("record0\t133\t20\t50\t51\n"), gzi)
	f.Fuzz(func(t *testing.T, file, index, blocks []byte) {
		if len(index) == 0 {
			index = nil
		}
		if len(blocks) == 0 {
			blocks = nil
		}
		g, err := NewGenome(bytes.NewReader(file), int64(len(file)), index, blocks)
		if err != nil {
			return
		}
		for _, c := range g.Contigs() {
			got := make([]byte, min(c.Bases, 1000))
			_ = g.ReadBases(got, c.Name, c.Bases-int64(len(got)))
		}
	})
}

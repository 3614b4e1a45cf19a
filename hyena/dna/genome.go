package dna

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/subquad/subquad/internal/check"
)

// Genome gives stretches of the records of a FASTA file without reading what is before them,
// by an index as samtools faidx makes it. A file may be plain, or compressed in blocks
// (bgzip); one of plain gzip can only be read from its beginning. It is safe for concurrent
// use.
type Genome struct {
	text    io.ReaderAt
	contigs []contig
	byName  map[string]int
	file    io.Closer
}

// Contig is a record of a FASTA file: its Name, the first word of its header, and how many
// Bases it has.
type Contig struct {
	Name  string
	Bases int64
}

// contig is a line of an index.
type contig struct {
	Contig
	at            int64 // of its first base, in the text
	bases, length int64 // of a line, without and with its end
}

// OpenGenome opens a FASTA file with its index, path.fai, which is made, in memory, where
// there is none: that reads the file once. What an index cannot tell of matches ErrFASTA and is
// named by its line: lines that are not all alike, comments, white space within a sequence, line
// ends of CR alone. A byte-order mark is passed over. A file in blocks may have path.gzi beside it;
// where there is none, its blocks are found by their headers. Errors match ErrFASTA or come
// from the file system.
func OpenGenome(path string) (*Genome, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("dna: %w", err)
	}
	g, err := openGenome(f, path)
	if err != nil {
		f.Close()
		return nil, err
	}
	g.file = f
	return g, nil
}

// mostIndex bounds the size of an index.
const mostIndex = 1 << 28

func openGenome(f *os.File, path string) (*Genome, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("dna: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, check.Errorf(ErrFASTA, "dna: %.200s is no regular file, which stretches could be read of", path)
	}
	blocks, err := readBeside(path + ".gzi")
	if err != nil {
		return nil, err
	}
	index, err := readBeside(path + ".fai")
	if err != nil {
		return nil, err
	}
	return NewGenome(f, info.Size(), index, blocks)
}

// readBeside returns the contents of a file, nil where there is none.
func readBeside(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("dna: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, mostIndex+1))
	if err != nil {
		return nil, fmt.Errorf("dna: %w", err)
	}
	if len(text) > mostIndex {
		return nil, check.Errorf(ErrFASTA, "dna: the index %.200s has more than %d bytes", path, mostIndex)
	}
	return text, nil
}

// NewGenome is OpenGenome of a file of size bytes that is read through r. index is the text
// of its .fai, and blocks the contents of its .gzi; either may be nil. Errors match ErrFASTA
// or are those of r.
func NewGenome(r io.ReaderAt, size int64, index, blocks []byte) (*Genome, error) {
	if r == nil {
		return nil, check.Errorf(ErrFASTA, "dna: the reader is nil")
	}
	g := &Genome{text: r, byName: map[string]int{}}
	length := size
	magic := make([]byte, 2)
	if n, _ := r.ReadAt(magic, 0); n == 2 && bytes.Equal(magic, gzipMagic) {
		b, err := newBlocks(r, size, blocks)
		if err != nil {
			return nil, err
		}
		g.text, length = b, b.length()
	}
	var err error
	if index == nil {
		g.contigs, err = makeIndex(io.NewSectionReader(g.text, 0, length))
	} else {
		g.contigs, err = parseIndex(index, length)
	}
	if err != nil {
		return nil, err
	}
	for i, c := range g.contigs {
		if _, again := g.byName[c.Name]; again {
			return nil, check.Errorf(ErrFASTA, "dna: FASTA: two records are named %.100q", c.Name)
		}
		g.byName[c.Name] = i
	}
	return g, nil
}

// parseIndex reads a .fai: name, bases, where the first is, bases of a line, bytes of a line.
func parseIndex(text []byte, size int64) (list []contig, err error) {
	for i, line := range strings.Split(strings.TrimRight(string(text), "\r\n"), "\n") {
		if line == "" && len(text) == 0 {
			break
		}
		fields := strings.Split(strings.TrimRight(line, "\r"), "\t")
		if len(fields) != 5 {
			return nil, check.Errorf(ErrFASTA, "dna: the index, line %d: %d fields, want 5", i+1, len(fields))
		}
		c := contig{Contig: Contig{Name: fields[0]}}
		for j, to := range []*int64{&c.Bases, &c.at, &c.bases, &c.length} {
			if *to, err = strconv.ParseInt(fields[j+1], 10, 64); err != nil || *to < 0 {
				return nil, check.Errorf(ErrFASTA, "dna: the index, line %d: %.40q is no number", i+1, fields[j+1])
			}
		}
		switch {
		case c.Bases > 0 && (c.bases <= 0 || c.length < c.bases || c.length > c.bases+2):
			return nil, check.Errorf(ErrFASTA, "dna: the index, line %d: lines of %d bases in %d bytes", i+1, c.bases, c.length)
		case c.at > size || c.Bases > size || c.Bases > 0 && c.end() > size:
			return nil, check.Errorf(ErrFASTA, "dna: the index, line %d: %.100q ends after the text, which has %d bytes: the index is of another file", i+1, c.Name, size)
		}
		list = append(list, c)
	}
	return list, nil
}

// place returns where base i is in the text.
func (c *contig) place(i int64) int64 {
	if c.bases == 0 {
		return c.at
	}
	return c.at + i/c.bases*c.length + i%c.bases
}

// end returns where the last base ends, or a number beyond every file.
func (c *contig) end() int64 {
	if c.Bases/c.bases > (math.MaxInt64-c.at-c.bases)/c.length {
		return math.MaxInt64
	}
	return c.place(c.Bases-1) + 1
}

// Contigs returns the records, in the order of the file.
func (g *Genome) Contigs() (list []Contig) {
	for _, c := range g.contigs {
		list = append(list, c.Contig)
	}
	return list
}

// Len returns the bases of a record, or false where there is none of that name.
func (g *Genome) Len(name string) (bases int64, ok bool) {
	i, ok := g.byName[name]
	if !ok {
		return 0, false
	}
	return g.contigs[i].Bases, true
}

// ReadBases sets dst to the letters of a record from base from (0 is the first) on, as they
// stand in the file but for U, which is read as T. A stretch that is not all within the
// record, and a record that there is not, match ErrCall; a character that is no nucleotide
// code matches ErrFASTA.
func (g *Genome) ReadBases(dst []byte, name string, from int64) error {
	i, ok := g.byName[name]
	if !ok {
		return check.Errorf(ErrCall, "dna: there is no record %.100q", name)
	}
	c := &g.contigs[i]
	if from < 0 || int64(len(dst)) > c.Bases || from > c.Bases-int64(len(dst)) {
		return check.Errorf(ErrCall, "dna: bases %d to %d of %.100q, which has %d", from, from+int64(len(dst)), name, c.Bases)
	}
	if len(dst) == 0 {
		return nil
	}
	begin, end := c.place(from), c.place(from+int64(len(dst))-1)+1
	r := bufio.NewReaderSize(io.NewSectionReader(g.text, begin, end-begin), 1<<15)
	for n := 0; n < len(dst); {
		b, err := r.ReadByte()
		if err != nil {
			return check.Errorf(ErrFASTA, "dna: base %d of %.100q: %v", from+int64(n), name, err)
		}
		switch kind := letters[b]; {
		case b == '\n' || b == '\r':
			continue
		case kind == blank || kind == invalid:
			return check.Errorf(ErrFASTA, "dna: base %d of %.100q: %q is no nucleotide code, or the index is of another file", from+int64(n), name, b)
		case kind == uracil:
			b-- // T, in the letter's case
		}
		dst[n] = b
		n++
	}
	return nil
}

// WriteIndex writes the index, as a .fai has it. Errors match ErrCall or are those of w.
func (g *Genome) WriteIndex(w io.Writer) error {
	if err := check.Stream(ErrCall, "dna", "writer", w); err != nil {
		return err
	}
	b := bufio.NewWriter(w)
	for _, c := range g.contigs {
		fmt.Fprintf(b, "%s\t%d\t%d\t%d\t%d\n", c.Name, c.Bases, c.at, c.bases, c.length)
	}
	return b.Flush()
}

// Close closes the file of OpenGenome; errors are those of the file system.
func (g *Genome) Close() error {
	if g.file == nil {
		return nil
	}
	return g.file.Close()
}

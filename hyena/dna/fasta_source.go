package dna

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/weights"
)

// openText returns the text of a FASTA file: unpacked where it is compressed by gzip,
// without a byte-order mark, and with LF for every line end.
func openText(r io.Reader) (*bufio.Reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	if magic, _ := b.Peek(2); bytes.Equal(magic, gzipMagic) {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, check.Errorf(ErrFASTA, "dna: %v", err)
		}
		z.Multistream(false)
		b = bufio.NewReaderSize(&members{file: b, member: z, blocked: isBlock(z)}, 64<<10)
	}
	if mark, _ := b.Peek(len(byteOrderMark)); bytes.Equal(mark, byteOrderMark) {
		_, _ = b.Discard(len(mark)) // it has just been peeked at
	}
	return bufio.NewReaderSize(&lineEnds{r: b}, 64<<10), nil
}

var (
	gzipMagic     = []byte{0x1f, 0x8b}
	byteOrderMark = []byte("\xef\xbb\xbf")
)

// members reads a gzip file of one or more members, as gzip.Reader does, but passes over
// zeros after a member, with which files are padded, tells what else may follow, and asks for
// the end mark of BGZF, the blocked form that bgzip writes: without it such a file is cut
// between two blocks, which nothing else would show.
type members struct {
	file    *bufio.Reader
	member  *gzip.Reader
	blocked bool // the first member is a block of BGZF
	length  int64
}

func (m *members) Read(p []byte) (int, error) {
	for {
		n, err := m.member.Read(p)
		m.length += int64(n)
		if err != io.EOF {
			return n, err
		}
		if n > 0 {
			return n, nil // the member's end comes again with the next call
		}
		if err := m.next(); err != nil {
			return 0, err
		}
	}
}

// next goes to the next member.
func (m *members) next() error {
	padded := false
	for {
		c, err := m.file.ReadByte()
		if err == io.EOF {
			if m.blocked && !(isBlock(m.member) && m.length == 0) {
				return fmt.Errorf("BGZF without its end mark: the file is cut short: %w", io.ErrUnexpectedEOF)
			}
			return io.EOF
		}
		if err != nil {
			return err
		}
		if c != 0 {
			_ = m.file.UnreadByte() // it has just been read
			break
		}
		padded = true
	}
	first, err := m.file.Peek(len(gzipMagic))
	if !bytes.Equal(first, gzipMagic) {
		if err != nil && err != io.EOF {
			return err
		}
		rest, _ := m.file.Peek(16)
		after := "the gzip data"
		if padded {
			after += " and zeros"
		}
		return check.Errorf(ErrFASTA, "after %s come bytes that are not gzip: %q", after, rest)
	}
	m.length = 0
	err = m.member.Reset(m.file)
	m.member.Multistream(false)
	return err
}

// isBlock tells whether a gzip member is a block of BGZF, by the subfield of its header.
func isBlock(z *gzip.Reader) bool {
	for extra := z.Extra; len(extra) >= 4; {
		length := int(extra[2]) | int(extra[3])<<8
		if extra[0] == 'B' && extra[1] == 'C' && length == 2 {
			return true
		}
		extra = extra[min(4+length, len(extra)):]
	}
	return false
}

// lineEnds writes LF for the line ends CR LF and CR.
type lineEnds struct {
	r  io.Reader
	cr bool // the last character was CR
}

func (l *lineEnds) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if n == 0 || !l.cr && bytes.IndexByte(p[:n], '\r') < 0 {
		return n, err
	}
	to := 0
	for _, c := range p[:n] {
		after := l.cr
		if l.cr = c == '\r'; l.cr {
			c = '\n'
		} else if c == '\n' && after {
			continue
		}
		p[to] = c
		to++
	}
	return to, err
}

// foreign are the beginnings of other files of biology, and of what else is given where
// FASTA is expected.
var foreign = []struct{ magic, what string }{
	{"@HD\t", "a SAM file"},
	{"@SQ\t", "a SAM file"},
	{"@RG\t", "a SAM file"},
	{"@PG\t", "a SAM file"},
	{"BAM\x01", "a BAM file"},
	{"CRAM", "a CRAM file"},
	{"BCF\x02", "a BCF file"},
	{"CSI\x01", "an index of another file"},
	{"TBI\x01", "an index of another file"},
	{"BAI\x01", "an index of another file"},
	{"\x43\x27\x41\x1a", "a 2bit file: make FASTA of it with twoBitToFa"},
	{"\x1a\x41\x27\x43", "a 2bit file: make FASTA of it with twoBitToFa"},
	{"LOCUS ", "a GenBank file"},
	{"ID   ", "an EMBL file"},
	{"##", "a GFF file, or another of annotations"},
	{"#!gff", "a GFF file"},
	{"#gff", "a GFF file"},
	{"#gtf", "a GTF file"},
	{"#!genome-build", "a GTF file"},
	{"#NEXUS", "a NEXUS file"},
	{"# STOCKHOLM", "a Stockholm file"},
	{"CLUSTAL", "a Clustal alignment"},
	{"track ", "a BED or bedGraph file"},
	{"browser ", "a BED or bedGraph file"},
	{"{\\rtf", "a text with formatting (RTF), want plain text"},
	{"PK\x03\x04", "a zip file, or a document or a PyTorch checkpoint, which are such: unpack it first"},
	{"LZIP", "an lzip file: unpack it first"},
	{"\x04\x22\x4d\x18", "an lz4 file: unpack it first"},
	{"\x1f\x9d", "a file of compress (.Z): unpack it first"},
	{"\x89HDF", "an HDF5 file"},
	{"ABIF", "a chromatogram (ABI)"},
	{".scf", "a chromatogram (SCF)"},
	{".sff", "an SFF file"},
	{"\xff\xfe", "a text in UTF-16, want ASCII or UTF-8"},
	{"\xfe\xff", "a text in UTF-16, want ASCII or UTF-8"},
}

// kindOf says what file begins so, "a FASTQ file" for instance, or "".
func kindOf(first []byte) string {
	if what := weights.Sniff(first); what != "" && !bytes.HasPrefix(first, []byte("{\\rtf")) {
		return what
	}
	for _, k := range foreign {
		if bytes.HasPrefix(first, []byte(k.magic)) {
			return k.what
		}
	}
	line, _, whole := strings.Cut(string(first), "\n")
	fields := strings.Split(line, "\t")
	switch {
	case len(first) > 262 && string(first[257:262]) == "ustar":
		return "a tar archive: unpack it first"
	case len(first) > 8 && first[8] == '{' && first[7] == 0:
		return "a safetensors file"
	case strings.HasPrefix(line, "@") && len(fields) == 1:
		return "a FASTQ file"
	case len(fields) >= 11:
		return "a SAM file, or another table"
	case len(fields) == 9 && strings.Contains("+-.?", fields[6]):
		return "a GFF file"
	case len(fields) >= 3 && whole:
		return "a table, BED for instance"
	}
	return ""
}

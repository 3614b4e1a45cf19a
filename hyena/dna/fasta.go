package dna

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/subquad/subquad/internal/check"
)

// Header begins a record of a FASTA file.
type Header struct {
	// Name is the first word after the ">", Description the rest of the line.
	Name, Description string
}

// Composition counts the letters of a record.
type Composition struct {
	// Bases counts all letters; the rest say how many of them are not A, C, G or T
	// in upper case.
	Bases int64
	// Lower counts lower-case letters: soft-masked repeats in most genomes.
	Lower int64
	// N counts unknown bases, IUPAC the other ambiguity codes (R, Y, S, W, K, M, B,
	// D, H, V), Uracil the U of RNA, Gap the "-" and "." of alignments. Tokenizers
	// know N; the others become unknown tokens, but for U, which is read as T.
	N, IUPAC, Uracil, Gap int64
	// Masked counts characters that are no nucleotide code and were read as N, which
	// Reader.Mask allows. N does not count them.
	Masked int64
}

// Reader reads a FASTA file, as archive/tar's reader does: Next goes to the next
// record, and Read then reads its bases, without line ends, until io.EOF. The
// memory it takes does not depend on the file.
//
// Lower-case letters are read as upper-case ones, and the U of RNA as T, for models of
// genomes know no U. Lines may have any length and end in LF, CR LF or CR; blank lines and
// those that begin with ";" are passed over, and so is a byte-order mark. Characters that
// are no nucleotide code are an error, which matches ErrFASTA and names the line; where the
// file is of another kind, FASTQ for instance, it says so.
//
// A file may be compressed by gzip. One in blocks (bgzip) must have its end mark: without,
// it is cut short, an error that matches io.ErrUnexpectedEOF. Zeros after the data are
// passed over; other bytes there are an error.
//
// A Reader is not safe for concurrent use.
type Reader struct {
	// KeepCase leaves lower-case letters as they are. Set it before reading, as the others.
	KeepCase bool
	// KeepU leaves U as it is.
	KeepU bool
	// Mask reads letters that are no nucleotide code, "*" and "?" as N: the X with which
	// vectors and repeats are masked, for instance.
	Mask bool

	r     *bufio.Reader
	line  int
	begin bool // at the beginning of a line
	in    bool // within a record
	buf   []byte
	err   error
	count Composition
}

// NewReader returns a reader of r, which may be compressed by gzip. Errors match ErrFASTA, or
// are those of r.
func NewReader(r io.Reader) (*Reader, error) {
	if err := check.Stream(ErrFASTA, "dna", "reader", r); err != nil {
		return nil, err
	}
	text, err := openText(r)
	if err != nil {
		return nil, err
	}
	return &Reader{r: text, line: 1, begin: true}, nil
}

// maxHeader bounds the line that begins a record.
const maxHeader = 1 << 20

// Next passes over the rest of the current record and returns the next one's
// header, or io.EOF after the last. Errors match ErrFASTA or are those of the source, and
// stay.
func (r *Reader) Next() (Header, error) {
	for r.in {
		r.fill()
	}
	r.buf, r.count = nil, Composition{}
	for r.err == nil {
		c, err := r.r.ReadByte()
		switch {
		case err != nil:
			r.fail(err)
		case c == '>':
			return r.header()
		case c == ';':
			r.skipLine()
		case c == '\n':
			r.line++
		case c != ' ' && c != '\t':
			_ = r.r.UnreadByte() // it has just been read
			first, _ := r.r.Peek(512)
			if what := kindOf(first); what != "" {
				r.fail(r.errorf("%q before the first \">\": this is %s", c, what))
			} else {
				r.fail(r.errorf("%q before the first \">\"", c))
			}
		}
	}
	return Header{}, r.err
}

func (r *Reader) header() (Header, error) {
	var text []byte
	for {
		part, err := r.r.ReadSlice('\n')
		if text = append(text, part...); len(text) > maxHeader {
			r.fail(r.errorf("a header of more than %d bytes", maxHeader))
			return Header{}, r.err
		}
		if err == nil {
			r.line++
			break
		}
		if err == io.EOF {
			break
		}
		if err != bufio.ErrBufferFull {
			r.fail(err)
			return Header{}, r.err
		}
	}
	r.in, r.begin = true, true
	return parseHeader(string(text)), nil
}

// parseHeader returns the header of a line, its ">" left out.
func parseHeader(line string) Header {
	line = strings.TrimSpace(line)
	end := strings.IndexAny(line, " \t\v\f")
	if end < 0 {
		end = len(line)
	}
	return Header{line[:end], strings.TrimSpace(line[end:])}
}

// Read reads bases of the current record. It returns io.EOF at the record's end,
// and before the first Next; errors are those of Next.
func (r *Reader) Read(p []byte) (int, error) {
	for len(r.buf) == 0 {
		if !r.in {
			if r.err != nil && r.err != io.EOF {
				return 0, r.err
			}
			return 0, io.EOF
		}
		r.fill()
	}
	n := copy(p, r.buf)
	r.buf = r.buf[n:]
	return n, nil
}

// Composition counts the letters of the current record that have been read so
// far, and a few more that wait in a buffer.
func (r *Reader) Composition() Composition { return r.count }

// fill reads the next stretch of the record's bases, within a line, into buf.
func (r *Reader) fill() {
	r.buf = nil
	if r.begin {
		next, err := r.r.Peek(1)
		switch {
		case err != nil:
			r.fail(err)
			return
		case next[0] == '>':
			r.in = false
			return
		case next[0] == ';':
			r.skipLine()
			return
		}
	}
	line, err := r.r.ReadSlice('\n')
	bases := line[:0]
	for _, c := range line {
		switch kind := letters[c]; kind {
		case blank:
			continue
		case invalid:
			if !r.Mask || !maskable(c) {
				r.fail(r.errorf("%q is no nucleotide code", c))
				return
			}
			r.tally(kind, c)
			lower := c >= 'a'
			if c = 'N'; lower {
				c = 'n'
			}
		default:
			r.tally(kind, c)
			if kind == uracil && !r.KeepU {
				c-- // T, in the letter's case
			}
		}
		if !r.KeepCase && 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		bases = append(bases, c)
	}
	r.buf, r.begin = bases, err == nil
	if err == nil {
		r.line++
	} else if err != bufio.ErrBufferFull {
		r.fail(err)
	}
}

// maskable tells whether Mask reads a character as N.
func maskable(c byte) bool {
	return c == '*' || c == '?' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

func (r *Reader) skipLine() {
	for {
		_, err := r.r.ReadSlice('\n')
		if err == nil {
			r.line++
			return
		}
		if err != bufio.ErrBufferFull {
			r.fail(err)
			return
		}
	}
}

// fail ends the record and the file.
func (r *Reader) fail(err error) {
	if _, told := err.(*lineError); !told && err != io.EOF { //nolint:errorlint // errors of this file as they are
		err = &lineError{r.line, err}
	}
	r.err, r.in = err, false
}

func (r *Reader) errorf(format string, args ...any) error {
	return &lineError{r.line, check.Errorf(ErrFASTA, format, args...)}
}

// lineError is an error with its place.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string { return fmt.Sprintf("dna: FASTA, line %d: %v", e.line, e.err) }
func (e *lineError) Unwrap() error { return e.err }

// letter says what a character of a sequence line is.
type letter uint8

const (
	invalid letter = iota
	blank
	base
	unknown
	ambiguous
	uracil
	gap
)

// letters and complements are indexed by character.
var letters, complements = func() (l [256]letter, comp [256]byte) {
	for c := range comp {
		comp[c] = byte(c)
	}
	set := func(kind letter, codes, complement string) {
		for i, c := range codes {
			lower := c | 0x20
			l[c], comp[c] = kind, complement[i]
			if c >= 'A' {
				l[lower], comp[lower] = kind, complement[i]|0x20
			}
		}
	}
	set(base, "ACGT", "TGCA")
	set(unknown, "N", "N")
	set(ambiguous, "RYSWKMBDHV", "YRSWMKVHDB")
	set(uracil, "U", "U")
	set(gap, "-.", "-.")
	set(blank, " ", " ")
	for _, c := range "\t\n" {
		l[c] = blank
	}
	return l, comp
}()

// rnaComplements are those of RNA, where U stands for T.
var rnaComplements = func() (comp [256]byte) {
	comp = complements
	comp['A'], comp['a'], comp['U'], comp['u'], comp['T'], comp['t'] = 'U', 'u', 'A', 'a', 'T', 't'
	return comp
}()

func (r *Reader) tally(kind letter, c byte) {
	r.count.Bases++
	if c >= 'a' {
		r.count.Lower++
	}
	switch kind {
	case invalid:
		r.count.Masked++
	case unknown:
		r.count.N++
	case ambiguous:
		r.count.IUPAC++
	case uracil:
		r.count.Uracil++
	case gap:
		r.count.Gap++
	}
}

// ReverseComplement sets dst to the other strand of DNA, read in its own direction: the
// complements of the letters, the last first. Ambiguity codes have theirs, case is kept, and
// letters that are no code of DNA stay as they are, so that two calls give back what was
// there. U is one of these, for the complement of U would be A, and that of A is T: read
// RNA as DNA first, as [Reader] does, or use [ReverseComplementRNA].
// dst is sequence itself or does not overlap it; their lengths are the same. Errors match
// ErrShape.
func ReverseComplement(dst, sequence []byte) error {
	return reverseComplement(dst, sequence, &complements)
}

// ReverseComplementRNA is ReverseComplement for RNA: A and U are each other's complement,
// and T stays as it is. Errors match ErrShape.
func ReverseComplementRNA(dst, sequence []byte) error {
	return reverseComplement(dst, sequence, &rnaComplements)
}

// readAsDNA writes T for the U of RNA, in its case, as models read it.
func readAsDNA(text []byte) {
	for i, c := range text {
		if letters[c] == uracil {
			text[i]--
		}
	}
}

func reverseComplement(dst, sequence []byte, complements *[256]byte) error {
	if len(dst) != len(sequence) {
		return check.Errorf(ErrShape, "dna: dst has %d elements, want len(sequence) = %d", len(dst), len(sequence))
	}
	for i, j := 0, len(sequence)-1; i <= j; i, j = i+1, j-1 {
		dst[i], dst[j] = complements[sequence[j]], complements[sequence[i]]
	}
	return nil
}

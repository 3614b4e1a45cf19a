package dna

import (
	"bufio"
	"bytes"
	"io"

	"github.com/subquad/subquad/internal/check"
)

// makeIndex reads a FASTA file and returns its index. It takes no memory for lines of bases.
func makeIndex(r io.Reader) (list []contig, err error) {
	b := bufio.NewReaderSize(r, 1<<16)
	var c *contig
	at, number, last := int64(0), 0, false
	if mark, _ := b.Peek(len(byteOrderMark)); bytes.Equal(mark, byteOrderMark) {
		n, _ := b.Discard(len(mark)) // it has just been peeked at
		at = int64(n)
	}
	for {
		line, err := scanLine(b)
		if err != nil && err != io.EOF {
			return nil, err
		}
		if line.length == 0 && err == io.EOF {
			return list, nil
		}
		number++
		begin := at
		at += line.length
		switch {
		case line.unindexed != "" && (c != nil || line.isHeader() || line.begin[0] == ';'):
			return nil, check.Errorf(ErrFASTA, "dna: FASTA, line %d: %s, which no index tells of: write the file without", number, line.unindexed)
		case line.isHeader():
			if line.text > maxHeader {
				return nil, check.Errorf(ErrFASTA, "dna: FASTA, line %d: a header of more than %d bytes", number, maxHeader)
			}
			list = append(list, contig{Contig: Contig{Name: parseHeader(string(line.begin[1:])).Name}, at: at})
			c, last = &list[len(list)-1], false
		case c == nil && line.text > 0:
			if what := kindOf(line.begin); what != "" {
				return nil, check.Errorf(ErrFASTA, "dna: FASTA, line %d: %q before the first \">\": this is %s", number, line.begin[0], what)
			}
			return nil, check.Errorf(ErrFASTA, "dna: FASTA, line %d: %q before the first \">\"", number, line.begin[0])
		case c == nil:
		case line.text == 0:
			last = last || c.Bases > 0 // what may follow is another record
		case last:
			return nil, check.Errorf(ErrFASTA, "dna: FASTA, line %d: lines of %.100q before it are shorter or empty; an index is of records whose lines are all alike", number, c.Name)
		default:
			if c.Bases == 0 {
				c.at, c.bases, c.length = begin, line.text, line.length
			}
			if line.text > c.bases {
				return nil, check.Errorf(ErrFASTA, "dna: FASTA, line %d: %d bases, those of %.100q before it have %d; an index is of records whose lines are all alike", number, line.text, c.Name, c.bases)
			}
			last = line.text < c.bases || line.length < c.length
			c.Bases += line.text
		}
	}
}

// fastaLine is what an index tells of a line.
type fastaLine struct {
	begin        []byte // its first bytes, with the end where that is there; until the next line is read
	text, length int64  // bytes without and with its end
	unindexed    string // what it has that a Reader passes over, and that makes places wrong
}

func (l *fastaLine) isHeader() bool { return l.text > 0 && l.begin[0] == '>' }

// scanLine reads a line, of which it keeps the beginning and, of a header, all that may be.
func scanLine(b *bufio.Reader) (l fastaLine, err error) {
	for {
		part, err := b.ReadSlice('\n')
		more := err == bufio.ErrBufferFull
		if more && part[len(part)-1] == '\r' { // which may be the beginning of the end
			_ = b.UnreadByte() // it has just been read
			part = part[:len(part)-1]
		}
		text := part
		if !more {
			text = bytes.TrimSuffix(bytes.TrimSuffix(part, []byte("\n")), []byte("\r"))
		}
		first := l.length == 0
		l.text, l.length = l.text+int64(len(text)), l.length+int64(len(part))
		switch {
		case first && more:
			l.begin = bytes.Clone(part)
		case first:
			l.begin = part
		case l.begin[0] == '>' && l.text <= maxHeader:
			l.begin = append(l.begin, part...)
		}
		switch {
		case first && len(text) > 0 && text[0] == ';':
			l.unindexed = "a comment"
		case bytes.IndexByte(text, '\r') >= 0:
			l.unindexed = "a line end of CR alone"
		case len(l.begin) > 0 && l.begin[0] != '>' && (bytes.IndexByte(text, ' ') >= 0 || bytes.IndexByte(text, '\t') >= 0):
			l.unindexed = "white space"
		}
		if !more {
			return l, err
		}
	}
}

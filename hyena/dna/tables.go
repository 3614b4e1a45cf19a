package dna

import (
	"bufio"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/subquad/subquad/internal/check"
)

// ErrTable is matched by errors about text that is not VCF or BED. It matches ErrCheckpoint,
// as every error about what is in a file does.
var ErrTable = check.Errorf(ErrCheckpoint, "dna: not a table")

// table reads the lines of a text file with tabs, plain or compressed by gzip.
type table struct {
	kind string
	r    *bufio.Reader
	line int
	err  error
}

func newTable(kind string, r io.Reader) (table, error) {
	if err := check.Stream(ErrTable, "dna", "reader", r); err != nil {
		return table{}, err
	}
	text, err := openText(r)
	return table{kind: kind, r: text}, err
}

// mostLine bounds a line: VCF files of many samples have long ones.
const mostLine = 1 << 28

// next returns the fields of the next line, at most of them, the last of which has the rest;
// it passes over empty lines and over those that begin with skip, or are that.
func (t *table) next(most int, skip ...string) ([]string, error) {
lines:
	for t.err == nil {
		text, err := t.text()
		if err != nil {
			t.err = err
			break
		}
		if strings.TrimSpace(text) == "" {
			continue
		}
		for _, s := range skip {
			if strings.HasPrefix(text, s) || text == strings.TrimSpace(s) {
				continue lines
			}
		}
		return strings.SplitN(text, "\t", most), nil
	}
	return nil, t.err
}

// text returns the next line, of which it keeps no more than the fields that are asked for.
func (t *table) text() (string, error) {
	var kept strings.Builder
	length := 0
	for {
		part, err := t.r.ReadSlice('\n')
		length += len(part)
		const most = 1 << 20 // alleles and names are not longer
		if kept.Len() < most {
			kept.Write(part)
		}
		switch {
		case err == nil || err == io.EOF && length > 0:
			t.line++
			return strings.TrimRight(kept.String(), "\n"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", err
		case length > mostLine:
			return "", t.errorf("a line of more than %d bytes", mostLine)
		}
	}
}

func (t *table) errorf(format string, args ...any) error {
	args = append([]any{t.kind, t.line}, args...)
	return check.Errorf(ErrTable, "dna: %s, line %d: "+format, args...)
}

// number reads a field, from least on.
func (t *table) number(name, text string, least int64) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > math.MaxInt64/4 {
		return 0, t.errorf("%s is %.40q, want a number from %d on", name, text, least)
	}
	return n, nil
}

// VariantReader reads the variants of a VCF file (versions 4.0 to 4.5), plain or compressed by
// gzip: the first five columns of each line, one variant for each alternative allele.
// Alleles that are no bases (<DEL>, *, breakends, those that are missing) are passed over and
// counted. It is not safe for concurrent use.
type VariantReader struct {
	table
	waiting []Variant
	skipped int
	begun   bool
}

// NewVariantReader returns a reader of r. Errors match ErrTable, or are those of r.
func NewVariantReader(r io.Reader) (*VariantReader, error) {
	t, err := newTable("VCF", r)
	return &VariantReader{table: t}, err
}

// Skipped returns how many alleles were passed over so far, for they are no bases.
func (r *VariantReader) Skipped() int { return r.skipped }

// Next returns the next variant, or io.EOF after the last. Errors match ErrTable or are those of
// the source.
func (r *VariantReader) Next() (Variant, error) {
	for len(r.waiting) == 0 {
		if err := r.read(); err != nil {
			return Variant{}, err
		}
	}
	v := r.waiting[0]
	r.waiting = r.waiting[1:]
	return v, nil
}

func (r *VariantReader) read() error {
	if !r.begun {
		first, _ := r.r.Peek(512)
		if len(first) > 0 && first[0] != '#' && len(strings.Split(strings.SplitN(string(first), "\n", 2)[0], "\t")) < 5 {
			r.line = 1
			what := kindOf(first)
			if first[0] == '>' {
				what = "a FASTA file"
			}
			if what != "" {
				what = ": this is " + what
			}
			return r.errorf("%q, want ##fileformat=VCF%s", first[:min(len(first), 20)], what)
		}
		r.begun = true
	}
	fields, err := r.next(6, "#")
	if err != nil {
		return err
	}
	if len(fields) < 5 {
		return r.errorf("%d columns, want CHROM, POS, ID, REF and ALT", len(fields))
	}
	at, err := r.number("POS", fields[1], 0)
	if err != nil {
		return err
	}
	v := Variant{Contig: fields[0], Position: at, Ref: fields[3]}
	if fields[2] != "." {
		v.ID = fields[2]
	}
	if !isAllele(v.Ref) {
		return r.errorf("REF is %.40q, want bases", v.Ref)
	}
	for alt := range strings.SplitSeq(fields[4], ",") {
		if !isAllele(alt) || at == 0 { // position 0 is a telomere's
			r.skipped++
			continue
		}
		v.Alt = alt
		r.waiting = append(r.waiting, v)
	}
	return nil
}

// isAllele tells whether an allele is bases.
func isAllele(text string) bool {
	for i := range len(text) {
		if k := letters[text[i]]; k == invalid || k == blank || k == gap {
			return false
		}
	}
	return text != ""
}

// Region is a stretch of a sequence, as a line of a BED file tells it.
type Region struct {
	// Contig is the name of the sequence; the stretch has the bases From to To-1, 0 being the
	// first.
	Contig   string
	From, To int64
	// Name is any name, or none. Reverse says that the stretch is on the other strand.
	Name    string
	Reverse bool
}

// RegionReader reads the regions of a BED file, plain or compressed by gzip: the first six
// columns, of which three must be there. It is not safe for concurrent use.
type RegionReader struct{ table }

// NewRegionReader returns a reader of r. Errors match ErrTable, or are those of r.
func NewRegionReader(r io.Reader) (*RegionReader, error) {
	t, err := newTable("BED", r)
	return &RegionReader{t}, err
}

// Next returns the next region, or io.EOF after the last. Errors match ErrTable or are those of
// the source.
func (r *RegionReader) Next() (Region, error) {
	fields, err := r.next(7, "#", "track ", "browser ")
	if err != nil {
		return Region{}, err
	}
	if len(fields) < 3 {
		return Region{}, r.errorf("%d columns with tabs between, want a name and two numbers", len(fields))
	}
	v := Region{Contig: fields[0]}
	if v.From, err = r.number("the first base", fields[1], 0); err != nil {
		return Region{}, err
	}
	if v.To, err = r.number("the base after the last", strings.TrimSpace(fields[2]), v.From); err != nil {
		return Region{}, err
	}
	if len(fields) > 3 {
		v.Name = fields[3]
	}
	if len(fields) > 5 {
		switch fields[5] {
		case "-":
			v.Reverse = true
		case "+", ".":
		default:
			return Region{}, r.errorf("the strand is %.20q, want +, - or .", fields[5])
		}
	}
	return v, nil
}

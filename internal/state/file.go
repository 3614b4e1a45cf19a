// Package state is what states of all operators share: how they are stored, the
// fingerprint that tells whose a state is, and the ring of snapshots that Truncate
// goes back to; and all of those that do not grow (Fixed), with the segments of a call that
// goes on from them.
//
// A stored state is a kind of 8 bytes, the fingerprint of the operator, the state's
// numbers and data, and the CRC-32 (IEEE) of all that. All is little-endian: numbers
// as int64, lists of float32 after their length.
package state

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

// Writer writes a file. Its first error ends it, and is End's.
type Writer struct {
	w     io.Writer
	n     int64
	sum   uint32
	err   error
	bytes []byte
}

// NewWriter begins a file. What stores a state has checked its writer by check.Stream, with
// its package's name; a nil one is an error here too.
func NewWriter(w io.Writer, kind string, fingerprint []int64) *Writer {
	s := &Writer{w: w, err: check.Stream(subquad.ErrState, "state", "writer", w)}
	s.Bytes([]byte(kind))
	s.Ints(int64(len(fingerprint)))
	s.Ints(fingerprint...)
	return s
}

// Bytes writes bytes as they are.
func (s *Writer) Bytes(b []byte) {
	if s.err != nil {
		return
	}
	s.sum = crc32.Update(s.sum, crc32.IEEETable, b)
	n, err := s.w.Write(b)
	s.n, s.err = s.n+int64(n), err
}

// Ints writes numbers.
func (s *Writer) Ints(list ...int64) {
	s.bytes = s.bytes[:0]
	for _, x := range list {
		s.bytes = binary.LittleEndian.AppendUint64(s.bytes, uint64(x))
	}
	s.Bytes(s.bytes)
}

const floatsPerBlock = 1 << 14

// Floats writes the length of a list and then the list.
func (s *Writer) Floats(x []float32) {
	s.Ints(int64(len(x)))
	for len(x) > 0 {
		n := min(len(x), floatsPerBlock)
		s.bytes = s.bytes[:0]
		for _, v := range x[:n] {
			s.bytes = binary.LittleEndian.AppendUint32(s.bytes, math.Float32bits(v))
		}
		s.Bytes(s.bytes)
		x = x[n:]
	}
}

// End writes the sum and then the files of the parts that the state is made of; it returns
// what WriteTo of the state does.
func (s *Writer) End(parts ...io.WriterTo) (int64, error) {
	s.Bytes(binary.LittleEndian.AppendUint32(nil, s.sum))
	for i := 0; i < len(parts) && s.err == nil; i++ {
		n, err := parts[i].WriteTo(s.w)
		s.n, s.err = s.n+n, err
	}
	return s.n, s.err
}

// Reader reads a file. After an error what it returns is zero, and the first error
// is Err's and End's.
type Reader struct {
	r       io.Reader
	pkg     string
	invalid error
	n       int64
	sum     uint32
	err     error
	bytes   []byte
}

// NewReader begins a file of the kind, of an operator with the fingerprint. Errors
// name the package; those about what is in the file match invalid, others r's.
func NewReader(r io.Reader, pkg string, invalid error, kind string, fingerprint []int64) *Reader {
	s := &Reader{r: r, pkg: pkg, invalid: invalid, err: check.Stream(invalid, pkg, "reader", r)}
	if got := string(s.Bytes(len(kind))); s.err == nil && got != kind {
		s.Fail("it begins with %q, want %q", got, kind)
	}
	if n := s.Int(); s.err == nil && n != int64(len(fingerprint)) {
		s.Fail("it is of another operator: the Config or the weights differ")
	}
	for _, want := range fingerprint {
		if got := s.Int(); s.err == nil && got != want {
			s.Fail("it is of another operator: the Config or the weights differ")
		}
	}
	return s
}

// Fail keeps the first error.
func (s *Reader) Fail(format string, args ...any) {
	if s.err == nil {
		s.err = check.Errorf(s.invalid, s.pkg+": state: "+format, args...)
	}
}

// Err returns the first error.
func (s *Reader) Err() error { return s.err }

// N returns how many bytes have been read.
func (s *Reader) N() int64 { return s.n }

// Bytes reads n bytes, which are the reader's until its next read.
func (s *Reader) Bytes(n int) []byte {
	if cap(s.bytes) < n {
		s.bytes = make([]byte, n)
	}
	b := s.bytes[:n]
	if s.err != nil {
		clear(b)
		return b
	}
	got, err := io.ReadFull(s.r, b)
	s.n += int64(got)
	if err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			s.Fail("it ends too early")
		} else {
			s.err = fmt.Errorf("%s: state: %w", s.pkg, err)
		}
		clear(b)
	}
	s.sum = crc32.Update(s.sum, crc32.IEEETable, b)
	return b
}

// Int reads a number.
func (s *Reader) Int() int64 { return int64(binary.LittleEndian.Uint64(s.Bytes(8))) }

// Floats reads a list that must have n elements. Memory grows with what is there.
func (s *Reader) Floats(n int64) (x []float32) {
	if got := s.Int(); s.err == nil && (got != n || n < 0 || n > math.MaxInt/4) {
		s.Fail("it has %d numbers where there should be %d", got, n)
	}
	for s.err == nil && int64(len(x)) < n {
		b := s.Bytes(4 * int(min(n-int64(len(x)), floatsPerBlock)))
		for i := 0; i < len(b); i += 4 {
			x = append(x, math.Float32frombits(binary.LittleEndian.Uint32(b[i:])))
		}
	}
	return x
}

// End reads the sum and returns the first error.
func (s *Reader) End() error {
	want := s.sum
	if got := binary.LittleEndian.Uint32(s.Bytes(4)); s.err == nil && got != want {
		s.Fail("its checksum is %08x, want %08x", got, want)
	}
	return s.err
}

// Bool is how a truth is written: 1 or 0.
func Bool(x bool) int64 {
	if x {
		return 1
	}
	return 0
}

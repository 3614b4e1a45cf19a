package attention

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"math"

	"github.com/subquad/subquad/internal/check"
)

// A state's file is a kind of 8 bytes, the fingerprint of its operator, the
// state's numbers and data, and the CRC-32 of all that: little-endian, numbers as
// int64, lists of float32 after their length.

type stateWriter struct {
	w     io.Writer
	n     int64
	sum   uint32
	err   error
	bytes []byte
}

func newStateWriter(w io.Writer, kind string, fingerprint []int64) *stateWriter {
	s := &stateWriter{w: w}
	s.write([]byte(kind))
	s.ints(int64(len(fingerprint)))
	s.ints(fingerprint...)
	return s
}

func (s *stateWriter) write(b []byte) {
	if s.err != nil {
		return
	}
	s.sum = crc32.Update(s.sum, crc32.IEEETable, b)
	n, err := s.w.Write(b)
	s.n, s.err = s.n+int64(n), err
}

func (s *stateWriter) ints(list ...int64) {
	s.bytes = s.bytes[:0]
	for _, x := range list {
		s.bytes = binary.LittleEndian.AppendUint64(s.bytes, uint64(x))
	}
	s.write(s.bytes)
}

const floatsPerBlock = 1 << 14

func (s *stateWriter) floats(x []float32) {
	s.ints(int64(len(x)))
	for len(x) > 0 {
		n := min(len(x), floatsPerBlock)
		s.bytes = s.bytes[:0]
		for _, v := range x[:n] {
			s.bytes = binary.LittleEndian.AppendUint32(s.bytes, math.Float32bits(v))
		}
		s.write(s.bytes)
		x = x[n:]
	}
}

// end writes the sum; it returns what WriteTo does.
func (s *stateWriter) end() (int64, error) {
	s.write(binary.LittleEndian.AppendUint32(nil, s.sum))
	return s.n, s.err
}

type stateReader struct {
	r     io.Reader
	n     int64
	sum   uint32
	err   error
	bytes []byte
}

func newStateReader(r io.Reader, kind string, fingerprint []int64) *stateReader {
	s := &stateReader{r: r}
	if got := string(s.read(len(kind))); s.err == nil && got != kind {
		s.fail("it begins with %q, want %q", got, kind)
	}
	if n := s.int(); s.err == nil && n != int64(len(fingerprint)) {
		s.fail("it is of another operator")
	}
	for _, want := range fingerprint {
		if got := s.int(); s.err == nil && got != want {
			s.fail("it is of another operator")
		}
	}
	return s
}

// fail keeps the first error.
func (s *stateReader) fail(format string, args ...any) {
	if s.err == nil {
		s.err = check.Errorf(ErrState, "attention: state: "+format, args...)
	}
}

func (s *stateReader) read(n int) []byte {
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
			s.fail("it ends too early")
		} else {
			s.err = err
		}
		clear(b)
	}
	s.sum = crc32.Update(s.sum, crc32.IEEETable, b)
	return b
}

func (s *stateReader) int() int64 { return int64(binary.LittleEndian.Uint64(s.read(8))) }

// floats reads a list that must have n elements. Memory grows with what is
// there.
func (s *stateReader) floats(n int64) (x []float32) {
	if got := s.int(); s.err == nil && (got != n || n < 0 || n > math.MaxInt/4) {
		s.fail("it has %d numbers where there should be %d", got, n)
	}
	for s.err == nil && int64(len(x)) < n {
		b := s.read(4 * int(min(n-int64(len(x)), floatsPerBlock)))
		for i := 0; i < len(b); i += 4 {
			x = append(x, math.Float32frombits(binary.LittleEndian.Uint32(b[i:])))
		}
	}
	return x
}

// end reads the sum and returns the first error.
func (s *stateReader) end() error {
	want := s.sum
	if got := binary.LittleEndian.Uint32(s.read(4)); s.err == nil && got != want {
		s.fail("its checksum is %08x, want %08x", got, want)
	}
	return s.err
}

// writeTo writes what the queue holds.
func (q *queue) writeTo(s *stateWriter) {
	s.ints(q.first)
	s.floats(q.K().Data)
	s.floats(q.V().Data)
}

// readFrom reads a queue that ends at end and begins at most at needed.
func (q *queue) readFrom(s *stateReader, needed, end int64) {
	q.first = s.int()
	rows := end - q.first
	if s.err == nil && (q.first < 0 || q.first > needed || rows > math.MaxInt32/int64(max(q.kCols, q.vCols))) {
		s.fail("it holds rows from %d to %d", q.first, end)
	}
	if s.err != nil {
		return
	}
	q.k, q.v = s.floats(rows*int64(q.kCols)), s.floats(rows*int64(q.vCols))
	q.rows = int(rows)
}

func bit(x bool) int64 {
	if x {
		return 1
	}
	return 0
}

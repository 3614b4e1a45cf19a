package statetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/subquad/subquad"
)

// Mutate reads files that a program wrote which is not ours: that of s with numbers, bits or
// parts changed, and right checksums. Each is refused with subquad.ErrState, in little memory,
// or gives a state that works: what it writes is read back as it was, it can be cloned and
// truncated, and use, which steps, returns nil or an error that is documented. What is read, and
// used, is always the same.
func Mutate[S io.WriterTo](t *testing.T, s io.WriterTo, read func(io.Reader) (S, error), use func(S) error) {
	t.Helper()
	file := written(t, s)
	m := mutator{rand.New(rand.NewPCG(1, uint64(len(file)))), sections(file), nil}
	m.try(t, file, func(fail failure) { attempt(t, fail, file, read, use, true) })
	for range Mutations() {
		data := m.mutant()
		m.try(t, data, func(fail failure) { attempt(t, fail, data, read, use, false) })
	}
}

// Mutations is how many files are made of one, unless SUBQUAD_MUTATIONS says otherwise.
func Mutations() int {
	if n, err := strconv.Atoi(os.Getenv("SUBQUAD_MUTATIONS")); err == nil {
		return n
	}
	return 60
}

func written(t *testing.T, s io.WriterTo) []byte {
	t.Helper()
	var file bytes.Buffer
	if _, err := s.WriteTo(&file); err != nil {
		t.Fatalf("writing: %v", err)
	}
	return file.Bytes()
}

// sections returns what each checksum of a file is of: there is one wherever four bytes are
// the sum of all after the last.
func sections(file []byte) (list [][]byte) {
	const least = 16 // bytes of a section: a kind and a number
	from, sum := 0, uint32(0)
	for i := range file {
		if i-from >= least && i+4 <= len(file) && binary.LittleEndian.Uint32(file[i:]) == sum {
			list = append(list, file[from:i])
			from, sum = i+4, 0
		}
		if i >= from {
			sum = crc32.Update(sum, crc32.IEEETable, file[i:i+1])
		}
	}
	return list
}

// mutator makes files of a file's sections, and tells what it changed in the last one.
type mutator struct {
	r    *rand.Rand
	of   [][]byte
	what []string
}

// failure notes what is wrong with a file.
type failure func(format string, args ...any)

// try calls read, and names the changes where it panics or fails.
func (m *mutator) try(t *testing.T, file []byte, read func(failure)) {
	t.Helper()
	var wrong []string
	fail := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	func() {
		defer func() {
			if err := recover(); err != nil {
				fail("panic: %v\n%s", err, debug.Stack())
			}
		}()
		read(fail)
	}()
	if wrong != nil {
		t.Fatalf("a file of %d bytes with %q:\n%s", len(file), m.what, strings.Join(wrong, "\n"))
	}
}

// mutant returns a file with a few changes.
func (m *mutator) mutant() (file []byte) {
	list := make([][]byte, len(m.of))
	for i, s := range m.of {
		list[i] = bytes.Clone(s)
	}
	m.what = m.what[:0]
	for range 1 + m.r.IntN(3) {
		i := m.r.IntN(len(list))
		switch s := list[i]; m.r.IntN(16) {
		case 0:
			list[i] = m.cut(s)
		case 1:
			list = m.move(list, i)
		case 2, 3:
			at := m.r.IntN(len(s))
			s[at] ^= 1 << m.r.IntN(8)
			m.note("bit of byte %d of section %d", at, i)
		case 4, 5, 6, 7:
			m.everywhere(list, s)
		default:
			at := m.place(s)
			x := m.number(m.any(list), binary.LittleEndian.Uint64(s[at:]))
			binary.LittleEndian.PutUint64(s[at:], x)
			m.note("%d at %d of section %d", int64(x), at, i)
		}
	}
	for _, s := range list {
		file = append(file, s...)
		file = binary.LittleEndian.AppendUint32(file, crc32.ChecksumIEEE(s))
	}
	if m.r.IntN(32) == 0 {
		file = file[:m.r.IntN(len(file))]
		m.note("cut to %d", len(file))
	}
	return file
}

func (m *mutator) note(format string, args ...any) {
	m.what = append(m.what, fmt.Sprintf(format, args...))
}

// place returns where a number may stand, of those that a section begins with more often than
// not, and seldom of its kind.
func (m *mutator) place(s []byte) int {
	n := len(s)/8 - 1
	if m.r.IntN(8) == 0 {
		return m.r.IntN(len(s)-7) &^ 3
	}
	if m.r.IntN(2) == 0 {
		n = min(n, 32)
	}
	return 8 * (1 + m.r.IntN(n))
}

// any returns a number of the file.
func (m *mutator) any(list [][]byte) uint64 {
	s := list[m.r.IntN(len(list))]
	return binary.LittleEndian.Uint64(s[m.place(s):])
}

// number returns what may come in place of x.
func (m *mutator) number(other, x uint64) uint64 {
	switch m.r.IntN(16) {
	case 0:
		return x + 1
	case 1:
		return x - 1
	case 2:
		return 2 * x
	case 3:
		return -x
	case 4:
		return uint64(1) << m.r.IntN(64)
	case 5:
		return uint64(1)<<m.r.IntN(64) - 1
	case 6:
		return uint64(m.r.IntN(256))
	case 7: // two numbers of float32
		special := []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1e38, -1e38, 1e-45, 0, -1}
		x := math.Float32bits(float32(special[m.r.IntN(len(special))]))
		return uint64(x)<<32 | uint64(x)
	case 8:
		return m.r.Uint64()
	case 9:
		return x + uint64(m.r.IntN(32)) - 16
	case 10:
		return other
	}
	list := [...]int64{0, 1, -1, -2, 1 << 30, math.MaxInt32, 1 << 60, 1 << 62, math.MaxInt64, math.MinInt64}
	return uint64(list[m.r.IntN(len(list))])
}

// everywhere changes a number of s wherever the file has it, as where it is told twice.
func (m *mutator) everywhere(list [][]byte, s []byte) {
	old := binary.LittleEndian.Uint64(s[m.place(s):])
	x := m.number(m.any(list), old)
	for _, s := range list {
		for at := 8; at+8 <= len(s); at += 8 {
			if binary.LittleEndian.Uint64(s[at:]) == old {
				binary.LittleEndian.PutUint64(s[at:], x)
			}
		}
	}
	m.note("%d for every %d", int64(x), int64(old))
}

// cut takes some of a section away, or adds some.
func (m *mutator) cut(s []byte) []byte {
	from := m.place(s)
	n := min(8*(1+m.r.IntN(4)), len(s)-from)
	if m.r.IntN(2) == 0 {
		m.note("%d bytes twice at %d", n, from)
		return slices.Insert(s, from, bytes.Clone(s[from:from+n])...)
	}
	m.note("%d bytes less at %d", n, from)
	return append(slices.Delete(s, from, from+n), make([]byte, max(0, 16-len(s)+n))...)
}

// move takes a section away, adds it once more, or puts another in its place.
func (m *mutator) move(list [][]byte, i int) [][]byte {
	j := m.r.IntN(len(list))
	switch m.r.IntN(3) {
	case 0:
		if len(list) > 1 {
			m.note("no section %d", i)
			return slices.Delete(list, i, i+1)
		}
	case 1:
		m.note("section %d again at %d", i, j)
		return slices.Insert(list, j, bytes.Clone(list[i]))
	}
	m.note("section %d at %d", j, i)
	list[i] = bytes.Clone(list[j])
	return list
}

// Allocated returns how many bytes have been allocated, but for what is small.
func Allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// attempt reads a file, and uses what it gives.
func attempt[S io.WriterTo](t *testing.T, fail failure, file []byte, read func(io.Reader) (S, error), use func(S) error, ours bool) {
	before := Allocated()
	s, err := read(bytes.NewReader(file))
	if n := Allocated() - before; n > 1<<22+64*uint64(len(file)) {
		fail("%d bytes for a file of %d, error %v", n, len(file), err)
	}
	if err != nil {
		if ours || !errors.Is(err, subquad.ErrState) {
			fail("error %v", err)
		}
		return
	}
	again := func(what string) {
		var files [2][]byte // what a file leaves open is settled when it is read
		from := io.WriterTo(s)
		for i := range files {
			back, err := read(bytes.NewReader(written(t, from)))
			if err != nil {
				fail("%s is written, and read: %v", what, err)
				return
			}
			files[i], from = written(t, back), back
		}
		if !bytes.Equal(files[0], files[1]) {
			fail("%s is another when it is read", what)
		}
	}
	step := func(s S) {
		err := use(s)
		if err != nil && !errors.Is(err, subquad.ErrFull) && (ours || !errors.Is(err, subquad.ErrCall) && !errors.Is(err, subquad.ErrState)) {
			fail("used: error %v", err)
		}
	}
	again("what was read")
	if x, ok := any(s).(interface{ Clone() S }); ok {
		step(x.Clone())
	}
	if x, ok := any(s).(interface{ Bytes() int64 }); ok && x.Bytes() < 0 {
		fail("%d bytes", x.Bytes())
	}
	step(s)
	again("what was used")
	if x, ok := any(s).(interface {
		Truncate(int) error
		Len() int
	}); ok {
		for _, n := range []int{x.Len() - 1, x.Len() / 2} {
			if err := x.Truncate(n); err != nil && !errors.Is(err, subquad.ErrState) {
				fail("truncated to %d of %d: error %v", n, x.Len(), err)
			}
		}
		step(s)
		again("what was truncated")
	}
}

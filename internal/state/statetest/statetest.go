// Package statetest tests states and their files.
package statetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"sync/atomic"
	"testing"

	"github.com/subquad/subquad"
)

// Damage reads a file whole, cut short anywhere, and with any byte changed: only the
// first may succeed, the others fail with subquad.ErrState. A reader's own error comes
// through.
func Damage(t *testing.T, file []byte, read func(io.Reader) error) {
	t.Helper()
	if err := read(bytes.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	for n := range file {
		if err := read(bytes.NewReader(file[:n])); !errors.Is(err, subquad.ErrState) {
			t.Fatalf("cut to %d of %d bytes: error %v", n, len(file), err)
		}
		bad := bytes.Clone(file)
		bad[n] ^= 0x40
		if err := read(bytes.NewReader(bad)); !errors.Is(err, subquad.ErrState) {
			t.Fatalf("byte %d of %d damaged: error %v", n, len(file), err)
		}
	}
	trouble := errors.New("trouble")
	if err := read(io.MultiReader(bytes.NewReader(file[:20]), &Failing{trouble})); !errors.Is(err, trouble) {
		t.Errorf("error %v of the reader", err)
	}
}

// Failing is a reader and writer that always fails with Err.
type Failing struct{ Err error }

func (f *Failing) Read([]byte) (int, error)  { return 0, f.Err }
func (f *Failing) Write([]byte) (int, error) { return 0, f.Err }

// Ending is a context that is done after it was asked Left times.
type Ending struct {
	context.Context
	Left int

	asked atomic.Int64
}

// Err counts how often it is asked, by several goroutines if need be.
func (c *Ending) Err() error {
	if c.asked.Add(1) > int64(c.Left) {
		return context.Canceled
	}
	return nil
}

// Asked is how often it has been asked.
func (c *Ending) Asked() int { return int(c.asked.Load()) }

// Add gives a fuzz test a state's file without its checksum, which Sealed puts back:
// the fuzzer need not find it.
func Add(f *testing.F, s io.WriterTo) {
	f.Helper()
	var file bytes.Buffer
	if _, err := s.WriteTo(&file); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes()[:file.Len()-4])
}

// Sealed returns data with the checksum of a state's file.
func Sealed(data []byte) io.Reader {
	return bytes.NewReader(binary.LittleEndian.AppendUint32(bytes.Clone(data), crc32.ChecksumIEEE(data)))
}

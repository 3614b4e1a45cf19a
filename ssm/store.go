package ssm

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"

	"github.com/subquad/subquad/internal/check"
)

// A stored state is this header, little-endian, and then its values in float32 and
// a CRC-32 (IEEE) of both. Snapshots are not stored.
type header struct {
	Magic  [8]byte
	Kind   uint64 // the fingerprint of the operator
	Tokens uint64
	Values uint64
}

var magic = [8]byte{'s', 'u', 'b', 'q', 's', 's', 'm', '1'}

// WriteTo stores the state, without its snapshots and filter. It implements
// io.WriterTo.
func (st *State) WriteTo(w io.Writer) (int64, error) {
	if st.kind == nil {
		return 0, check.Errorf(ErrShape, "ssm: the state was not made by NewState")
	}
	b, err := binary.Append(nil, binary.LittleEndian, header{magic, st.kind.hash, uint64(st.n), uint64(len(st.values))})
	if err != nil {
		return 0, wrap(err)
	}
	for _, v := range st.values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	n, err := w.Write(b)
	return int64(n), wrap(err)
}

// readState reads a state that WriteTo wrote.
func (k *kind) readState(r io.Reader) (*State, error) {
	sum := crc32.NewIEEE()
	from := io.TeeReader(r, sum)
	var h header
	if err := binary.Read(from, binary.LittleEndian, &h); err != nil {
		return nil, readError(err)
	}
	switch {
	case h.Magic != magic:
		return nil, check.Errorf(ErrState, "ssm: not a stored state")
	case h.Kind != k.hash:
		return nil, check.Errorf(ErrState, "ssm: the stored state is of another operator than this %s, or of other weights", k.name)
	case h.Values != uint64(k.size) || h.Tokens > math.MaxInt32 && uint64(int(h.Tokens)) != h.Tokens || int(h.Tokens) < 0:
		return nil, check.Errorf(ErrState, "ssm: the stored state has %d values behind %d tokens, want %d values", h.Values, h.Tokens, k.size)
	}
	st := &State{kind: k, values: make([]float32, k.size), n: int(h.Tokens)}
	if err := binary.Read(from, binary.LittleEndian, st.values); err != nil {
		return nil, readError(err)
	}
	want := sum.Sum32()
	var got uint32
	if err := binary.Read(r, binary.LittleEndian, &got); err != nil {
		return nil, readError(err)
	}
	if got != want {
		return nil, check.Errorf(ErrState, "ssm: the stored state is damaged: its checksum is %08x, want %08x", want, got)
	}
	return st, nil
}

func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return check.Errorf(ErrState, "ssm: the stored state ends early")
	}
	return wrap(err)
}

// ReadState reads a state that WriteTo wrote of this convolution, or of one with
// the same weights. Errors match ErrState or are those of r.
func (op *Conv) ReadState(r io.Reader) (*State, error) { return op.kind.readState(r) }

// ReadState reads a state that WriteTo wrote of this scan, or of one with the same
// weights. Errors match ErrState or are those of r.
func (op *Scan) ReadState(r io.Reader) (*State, error) { return op.kind.readState(r) }

// ReadState reads a state that WriteTo wrote of this SSD, or of one with the same
// weights. Errors match ErrState or are those of r.
func (op *SSD) ReadState(r io.Reader) (*State, error) { return op.kind.readState(r) }

// ReadState reads a state that WriteTo wrote of this SISO, or of one with the same
// weights. Errors match ErrState or are those of r.
func (op *SISO) ReadState(r io.Reader) (*State, error) { return op.kind.readState(r) }

// ReadState reads a state that WriteTo wrote of this block, or of one with the same
// weights. Errors match ErrState or are those of r.
func (b *block) ReadState(r io.Reader) (*State, error) { return b.kind.readState(r) }

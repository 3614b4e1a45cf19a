package attention

import (
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/fnv"
	"io"
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
)

// A written state is a header, all in little-endian: the magic, the fingerprint, and
// six numbers; then the tokens that are held, oldest first: keys, values, and what
// scales they have; then the CRC-32 of all that.
const stateMagic = "subquadkv1"

// stateHeader is Len, what it was at most, the tokens held, MaxTokens, Format and
// SharedValues.
type stateHeader [6]uint64

// fingerprint tells operators and ways to keep keys apart.
func (s *State) fingerprint() uint64 {
	h := fnv.New64a()
	c := s.op.cfg
	fmt.Fprintln(h, c.Heads, c.KVHeads, c.HeadDim, c.ValueDim, c.Scale, c.Window, c.Softcap, c.Sinks, c.ReLU)
	fmt.Fprintf(h, "%T\n", c.Bias)
	fmt.Fprintln(h, uint8(s.cfg.Format), s.cfg.SharedValues, s.cfg.Window, s.cfg.Keep)
	if r := s.cfg.Rotation; r != nil {
		x := *r
		x.Workers = 0
		fmt.Fprintf(h, "%+v %v %d\n", x, x.Scheme, s.cfg.Policy)
	}
	return h.Sum64()
}

// counted passes writes on and keeps their number and checksum.
type counted struct {
	w   io.Writer
	n   int64
	crc hash.Hash32
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.crc.Write(p[:n])
	return n, err
}

// WriteTo writes the tokens that the state holds, as they are stored, with a
// fingerprint of the operator and of the kind of state: io.WriterTo. What is read
// back goes on bit for bit.
func (s *State) WriteTo(w io.Writer) (int64, error) {
	c := &counted{w: w, crc: crc32.NewIEEE()}
	spans := s.spans(nil, 0, s.n)
	header := stateHeader{uint64(s.n), uint64(s.reached), 0, uint64(s.cfg.MaxTokens), uint64(s.cfg.Format)}
	if s.cfg.Window > 0 {
		header[1] = uint64(s.high)
	}
	for _, x := range spans {
		header[2] += uint64(x.n)
	}
	if s.cfg.SharedValues {
		header[5] = 1
	}
	if _, err := io.WriteString(c, stateMagic); err != nil {
		return c.n, err
	}
	if err := binary.Write(c, binary.LittleEndian, s.fingerprint()); err != nil {
		return c.n, err
	}
	if err := binary.Write(c, binary.LittleEndian, header); err != nil {
		return c.n, err
	}
	buffer := make([]byte, s.op.tokenBytes(&s.cfg))
	for _, x := range spans {
		for i := range x.n {
			x.b.token(buffer, x.row+i, true)
			if _, err := c.Write(buffer); err != nil {
				return c.n, err
			}
		}
	}
	err := binary.Write(c, binary.LittleEndian, c.crc.Sum32())
	return c.n, err
}

// ReadState reads a state that is neither a ring nor has a Rotation, whatever kind
// of memory it was written from, into memory of its own. Errors match ErrState
// where the state is damaged or another operator's; memory is taken only as data
// comes in.
func (a *Attention) ReadState(r io.Reader) (*State, error) {
	s := &State{op: a}
	if err := s.load(r, true); err != nil {
		return nil, err
	}
	return s, nil
}

// Load fills an empty state with one that was written by a state of the same
// configuration, MaxTokens and Pages apart. After an error it is empty.
func (s *State) Load(r io.Reader) error {
	if s.n != 0 {
		return check.Errorf(ErrState, "attention: Load into a state with %d tokens, want an empty one", s.n)
	}
	err := s.load(r, false)
	if err != nil {
		s.Reset()
	}
	return err
}

func (s *State) load(r io.Reader, own bool) error {
	fail := func(format string, args ...any) error {
		return check.Errorf(ErrState, "attention: reading a state: "+format, args...)
	}
	crc := crc32.NewIEEE()
	in := io.TeeReader(r, crc)
	magic := make([]byte, len(stateMagic))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != stateMagic {
		return fail("it does not begin with %q", stateMagic)
	}
	var print uint64
	var header stateHeader
	if err := binary.Read(in, binary.LittleEndian, &print); err != nil {
		return fail("%v", err)
	}
	if err := binary.Read(in, binary.LittleEndian, &header); err != nil {
		return fail("%v", err)
	}
	for i, x := range header {
		if x > math.MaxInt/2 {
			return fail("number %d of the header is %d", i, x)
		}
	}
	n, high, held, most := int(header[0]), int(header[1]), int(header[2]), int(header[3])
	if own {
		if header[4] > uint64(asm.Float16) || header[5] > 1 {
			return fail("format %d, shared %d", header[4], header[5])
		}
		s.cfg = StateConfig{Format: asm.Format(header[4]), SharedValues: header[5] == 1}
		if err := s.op.checkState(&s.cfg); err != nil {
			return fail("%v", err)
		}
		s.cfg.MaxTokens = most
	}
	switch {
	case print != s.fingerprint():
		return fail("it is of another operator, or of another kind of state")
	case s.cfg.MaxTokens > 0 && n > s.cfg.MaxTokens:
		return check.Errorf(ErrFull, "attention: reading a state of %d tokens, want at most MaxTokens = %d", n, s.cfg.MaxTokens)
	case n > high && s.cfg.Window > 0 || s.cfg.Window == 0 && held != n:
		return fail("%d tokens of %d, at most %d, are held", held, n, high)
	}
	if s.cfg.Window > 0 {
		s.high = high
		want := 0
		for _, x := range s.spans(nil, 0, n) {
			want += x.n
		}
		if held != want {
			return fail("%d tokens of %d, at most %d, are held, want %d", held, n, high, want)
		}
	}
	s.reached = high
	buffer := make([]byte, s.op.tokenBytes(&s.cfg))
	read := func(pos, count int) error {
		for i := range count {
			s.n = pos + i
			if s.cfg.Window == 0 {
				if err := s.reserve(1); err != nil {
					return err
				}
			}
			if _, err := io.ReadFull(in, buffer); err != nil {
				return fail("token %d of %d: %v", pos+i, n, err)
			}
			b, row, _ := s.place(pos + i)
			b.token(buffer, row, false)
		}
		return nil
	}
	var err error
	if s.cfg.Window == 0 {
		err = read(0, n)
	} else {
		for _, x := range s.spans(nil, 0, n) {
			if err = read(x.pos, x.n); err != nil {
				break
			}
		}
	}
	if err != nil {
		return err
	}
	sum := crc.Sum32()
	var want uint32
	if err := binary.Read(r, binary.LittleEndian, &want); err != nil || want != sum {
		return fail("it is damaged: its checksum is %08x, want %08x", sum, want)
	}
	s.n = n
	if s.schedule != nil {
		if s.rotation, _, err = s.schedule.Step(int64(s.reached)); err != nil {
			return fail("%v", err)
		}
	}
	return nil
}

// token moves the keys and values of a token to bytes, or from them.
func (b *block) token(data []byte, row int, out bool) {
	data = b.k.token(data, row, out)
	if !b.shared {
		b.v.token(data, row, out)
	}
}

func (s *store) token(data []byte, row int, out bool) []byte {
	cols := s.heads * s.dim
	four := func(x *float32) {
		if out {
			binary.LittleEndian.PutUint32(data, math.Float32bits(*x))
		} else {
			*x = math.Float32frombits(binary.LittleEndian.Uint32(data))
		}
		data = data[4:]
	}
	switch at := row * cols; s.format {
	case asm.Float32:
		for i := range cols {
			four(&s.float32[at+i])
		}
	case asm.Int8:
		for i := range s.int8[at:][:cols] {
			if out {
				data[i] = byte(s.int8[at+i])
			} else {
				s.int8[at+i] = int8(data[i])
			}
		}
		data = data[cols:]
		for h := range s.heads {
			four(&s.scale[h*s.tokens+row])
		}
	default:
		for i := range cols {
			if out {
				binary.LittleEndian.PutUint16(data, s.half[at+i])
			} else {
				s.half[at+i] = binary.LittleEndian.Uint16(data)
			}
			data = data[2:]
		}
	}
	return data
}

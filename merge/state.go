package merge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/subquad/subquad/internal/check"
)

// StateConfig is what must be known of a state in advance: nothing.
type StateConfig struct{}

// State is what a Stream remembers: the first token of a pair while it waits for the
// second. It must not be used by two calls at once.
type State struct {
	op        StreamConfig
	made      bool
	n         int64
	waiting   bool
	x, metric []float32
	size      float32
}

// NewState returns an empty state.
func (op *Stream) NewState(StateConfig) (*State, error) {
	st := new(State)
	st.fit(op)
	return st, nil
}

func (op *Stream) checkState(st *State) error {
	switch {
	case st == nil:
		return check.Errorf(ErrState, "merge: the state is nil")
	case !st.made:
		return check.Errorf(ErrState, "merge: the state was not made by NewState")
	case st.op != op.cfg:
		return check.Errorf(ErrState, "merge: the state is of a stream %+v, want %+v", st.op, op.cfg)
	}
	return nil
}

// Len returns how many tokens the state has seen.
func (st *State) Len() int { return int(st.n) }

// Waiting returns 1 while a token waits for the second of its pair, and else 0.
func (st *State) Waiting() int {
	if st.waiting {
		return 1
	}
	return 0
}

// Bytes returns the memory of the state.
func (st *State) Bytes() int { return 4 * (len(st.x) + len(st.metric)) }

// Reset makes the state what NewState made it.
func (st *State) Reset() {
	st.n, st.waiting, st.size = 0, false, 0
	clear(st.x)
	clear(st.metric)
}

// Clone returns a copy.
func (st *State) Clone() *State {
	c := *st
	c.x, c.metric = append([]float32(nil), st.x...), append([]float32(nil), st.metric...)
	return &c
}

// A stored state is this header, little-endian, and then, while a token waits, its row of
// x and of the metric in float32, and a CRC-32 (IEEE) of all.
type header struct {
	Magic          [8]byte
	MetricDim, Dim uint32
	Above, Size    float32
	Tokens         uint64
	Waiting        uint64
}

var magic = [8]byte{'s', 'u', 'b', 'q', 'm', 'r', 'g', '1'}

// WriteTo stores the state. It implements io.WriterTo.
func (st *State) WriteTo(w io.Writer) (int64, error) {
	if !st.made {
		return 0, check.Errorf(ErrState, "merge: the state was not made by NewState")
	}
	b, err := binary.Append(nil, binary.LittleEndian, header{magic, uint32(st.op.MetricDim), uint32(st.op.Dim), st.op.Above, st.size, uint64(st.n), uint64(st.Waiting())})
	if err != nil {
		return 0, fmt.Errorf("merge: %w", err)
	}
	if st.waiting {
		for _, list := range [...][]float32{st.x, st.metric} {
			for _, v := range list {
				b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
			}
		}
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	n, err := w.Write(b)
	if err != nil {
		err = fmt.Errorf("merge: %w", err)
	}
	return int64(n), err
}

// ReadState reads a state that WriteTo wrote of a stream of the same Config. Errors match
// ErrState or are those of r.
func (op *Stream) ReadState(r io.Reader) (*State, error) {
	sum := crc32.NewIEEE()
	from := io.TeeReader(r, sum)
	var h header
	if err := binary.Read(from, binary.LittleEndian, &h); err != nil {
		return nil, readError(err)
	}
	switch {
	case h.Magic != magic:
		return nil, check.Errorf(ErrState, "merge: not a stored state")
	case int64(h.MetricDim) != int64(op.cfg.MetricDim) || int64(h.Dim) != int64(op.cfg.Dim) || h.Above != op.cfg.Above:
		return nil, check.Errorf(ErrState, "merge: the stored state is of a stream of MetricDim %d, Dim %d, Above %v, want %d, %d, %v", h.MetricDim, h.Dim, h.Above, op.cfg.MetricDim, op.cfg.Dim, op.cfg.Above)
	case h.Waiting > 1 || h.Tokens > math.MaxInt || h.Waiting == 1 && (h.Tokens == 0 || !(h.Size > 0 && h.Size <= math.MaxFloat32)):
		return nil, check.Errorf(ErrState, "merge: the stored state has %d tokens, %d waiting of size %v", h.Tokens, h.Waiting, h.Size)
	}
	st := new(State)
	st.fit(op)
	st.n, st.waiting = int64(h.Tokens), h.Waiting == 1
	if st.waiting {
		st.size = h.Size
		for _, list := range [...][]float32{st.x, st.metric} {
			if err := binary.Read(from, binary.LittleEndian, list); err != nil {
				return nil, readError(err)
			}
		}
	}
	want := sum.Sum32()
	var got uint32
	if err := binary.Read(r, binary.LittleEndian, &got); err != nil {
		return nil, readError(err)
	}
	if got != want {
		return nil, check.Errorf(ErrState, "merge: the stored state is damaged: its checksum is %08x, want %08x", got, want)
	}
	return st, nil
}

func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return check.Errorf(ErrState, "merge: the stored state ends early")
	}
	return fmt.Errorf("merge: %w", err)
}

package dna

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"sort"
	"sync"

	"github.com/subquad/subquad/internal/check"
)

// blocks are those of a BGZF file: members of gzip of at most 64 KiB of text each.
type blocks struct {
	r     io.ReaderAt
	size  int64   // of the file
	begin []int64 // of each block in the file, and at last where the last one ends
	text  []int64 // of each block in the text, and at last the text's length

	mu      sync.Mutex
	current int // the block that unpacked has, or -1
	unpack  []byte
}

const (
	mostBlock  = 1 << 16
	headBytes  = 18 // of a block whose only extra field is its size
	mostBlocks = 1 << 26
)

// newBlocks finds the blocks of a file by its .gzi or, without one, by their headers.
func newBlocks(r io.ReaderAt, size int64, index []byte) (*blocks, error) {
	b := &blocks{r: r, size: size, current: -1}
	if index != nil {
		return b, b.parse(index)
	}
	var text int64
	for at := int64(0); at < size; {
		if len(b.begin) > mostBlocks {
			return nil, check.Errorf(ErrFASTA, "dna: BGZF of more than %d blocks", mostBlocks)
		}
		packed, unpacked, err := b.measure(at)
		if err != nil {
			return nil, err
		}
		b.begin, b.text = append(b.begin, at), append(b.text, text)
		at, text = at+packed, text+unpacked
	}
	b.begin, b.text = append(b.begin, size), append(b.text, text)
	return b, nil
}

// measure returns the length of the block at a place, packed and unpacked.
func (b *blocks) measure(at int64) (packed, unpacked int64, err error) {
	head := make([]byte, 12)
	if _, err := b.r.ReadAt(head, at); err != nil {
		return 0, 0, check.Errorf(ErrFASTA, "dna: BGZF, byte %d: the file is cut short: %v", at, err)
	}
	const extraFlag = 4
	if !bytes.Equal(head[:2], gzipMagic) || head[3]&extraFlag == 0 {
		return 0, 0, check.Errorf(ErrFASTA, "dna: byte %d is no block of BGZF: stretches cannot be read of plain gzip; unpack the file, or compress it with bgzip", at)
	}
	extra := make([]byte, binary.LittleEndian.Uint16(head[10:]))
	if _, err := b.r.ReadAt(extra, at+int64(len(head))); err != nil {
		return 0, 0, check.Errorf(ErrFASTA, "dna: BGZF, byte %d: the file is cut short: %v", at, err)
	}
	for len(extra) >= 4 {
		n := int(binary.LittleEndian.Uint16(extra[2:]))
		if extra[0] == 'B' && extra[1] == 'C' && n == 2 && len(extra) >= 6 {
			packed = int64(binary.LittleEndian.Uint16(extra[4:])) + 1
			break
		}
		extra = extra[min(4+n, len(extra)):]
	}
	if packed < headBytes || packed > b.size-at {
		return 0, 0, check.Errorf(ErrFASTA, "dna: byte %d is no block of BGZF, or the file is cut short: stretches cannot be read of plain gzip; unpack the file, or compress it with bgzip", at)
	}
	tail := make([]byte, 4)
	if _, err := b.r.ReadAt(tail, at+packed-4); err != nil {
		return 0, 0, check.Errorf(ErrFASTA, "dna: BGZF, byte %d: the file is cut short: %v", at, err)
	}
	if unpacked = int64(binary.LittleEndian.Uint32(tail)); unpacked > mostBlock {
		return 0, 0, check.Errorf(ErrFASTA, "dna: BGZF, byte %d: a block of %d bytes, want at most %d", at, unpacked, mostBlock)
	}
	return packed, unpacked, nil
}

// parse reads a .gzi: the number of blocks but the first, and where each begins in the file
// and in the text.
func (b *blocks) parse(index []byte) error {
	if len(index) < 8 || uint64(len(index)-8)/16 != binary.LittleEndian.Uint64(index) || (len(index)-8)%16 != 0 {
		return check.Errorf(ErrFASTA, "dna: a .gzi of %d bytes tells of other blocks than it has", len(index))
	}
	b.begin, b.text = []int64{0}, []int64{0}
	for rest := index[8:]; len(rest) > 0; rest = rest[16:] {
		at, text := int64(binary.LittleEndian.Uint64(rest)), int64(binary.LittleEndian.Uint64(rest[8:]))
		last := len(b.begin) - 1
		if at <= b.begin[last] || at > b.size-headBytes || text < b.text[last] || text-b.text[last] > mostBlock {
			return check.Errorf(ErrFASTA, "dna: block %d of the .gzi begins at %d, in the text at %d, of a file of %d: it is of another file", last+1, at, text, b.size)
		}
		b.begin, b.text = append(b.begin, at), append(b.text, text)
	}
	// What comes after the last that is told of: its rest, and an empty block.
	for at, text := b.begin[len(b.begin)-1], b.text[len(b.text)-1]; at < b.size; {
		packed, unpacked, err := b.measure(at)
		if err != nil {
			return err
		}
		at, text = at+packed, text+unpacked
		b.begin, b.text = append(b.begin, at), append(b.text, text)
	}
	return nil
}

func (b *blocks) length() int64 { return b.text[len(b.text)-1] }

// ReadAt implements io.ReaderAt, of the text.
func (b *blocks) ReadAt(p []byte, off int64) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n < len(p) {
		at := off + int64(n)
		if at < 0 || at >= b.length() {
			return n, io.EOF
		}
		i := sort.Search(len(b.text), func(i int) bool { return b.text[i] > at }) - 1
		if err := b.load(i); err != nil {
			return n, err
		}
		n += copy(p[n:], b.unpack[at-b.text[i]:])
	}
	return n, nil
}

// load unpacks a block.
func (b *blocks) load(i int) error {
	if b.current == i {
		return nil
	}
	b.current = -1
	z, err := gzip.NewReader(io.NewSectionReader(b.r, b.begin[i], b.begin[i+1]-b.begin[i]))
	if err != nil {
		return check.Errorf(ErrFASTA, "dna: BGZF, byte %d: %v", b.begin[i], err)
	}
	text, err := io.ReadAll(io.LimitReader(z, mostBlock+1))
	if err != nil || int64(len(text)) != b.text[i+1]-b.text[i] {
		return check.Errorf(ErrFASTA, "dna: BGZF, byte %d: a block of %d bytes, its index and header say %d: %v", b.begin[i], len(text), b.text[i+1]-b.text[i], err)
	}
	b.unpack, b.current = text, i
	return nil
}

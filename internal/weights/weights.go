// Package weights reads tensors from safetensors files and from those of PyTorch's
// torch.save ("pytorch_model.bin", "weights.ckpt").
//
// Files are not trusted: every size is checked against the file before memory
// is taken for it, tensors are read only when asked for, and a pickle is read
// without running anything it names.
package weights

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"sort"
	"strings"
)

// ErrFormat is matched by every error about a file that is not well formed.
var ErrFormat = errors.New("weights: not a well-formed file of safetensors or PyTorch")

// maxHeader bounds the JSON header, as the reference implementation does.
const maxHeader = 100 << 20

// File is an opened file. Its methods are safe for concurrent use.
type File struct {
	// Metadata is the __metadata__ of a safetensors header, nil if there is none.
	Metadata map[string]string

	tensors map[string]*Tensor
	closer  io.Closer
}

// Tensor is one tensor of a file.
type Tensor struct {
	Name  string
	Type  Type
	Shape []int

	data    *io.SectionReader
	strides []int // in elements; nil where the elements follow each other
	big     bool  // the elements are big-endian
}

// Len returns the number of elements.
func (t *Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Open opens the file at path. Close it when the tensors have been read.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("weights: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		var file *File
		if file, err = Read(f, info.Size()); err == nil {
			file.closer = f
			return file, nil
		}
	}
	f.Close()
	return nil, fmt.Errorf("%s: %w", path, err)
}

// Close closes a file that Open opened.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// Read reads the header of a safetensors file or the pickle of a PyTorch file of
// size bytes, which of them its first bytes tell. r must stay valid while tensors
// are read.
func Read(r io.ReaderAt, size int64) (*File, error) {
	var first [len(legacyMagic)]byte
	if size < 8 {
		return nil, formatError("%d bytes are too few", size)
	}
	if _, err := r.ReadAt(first[:min(size, int64(len(first)))], 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("weights: %w", err)
	}
	switch {
	case string(first[:len(zipMagic)]) == zipMagic:
		return readTorch(r, size)
	case string(first[:]) == legacyMagic:
		return nil, formatError("the format of torch.save before PyTorch 1.6; convert it in Python: torch.save(torch.load(path, map_location=\"cpu\", weights_only=True), path)")
	}
	return readSafetensors(r, size, binary.LittleEndian.Uint64(first[:]))
}

// readSafetensors reads a file with a header of n bytes.
func readSafetensors(r io.ReaderAt, size int64, n uint64) (*File, error) {
	if n > uint64(size-8) || n > maxHeader {
		return nil, formatError("a header of %d bytes in a file of %d", n, size)
	}
	header := make([]byte, n)
	if _, err := r.ReadAt(header, 8); err != nil {
		return nil, fmt.Errorf("weights: %w", err)
	}
	entries, err := members(header)
	if err != nil {
		return nil, err
	}
	f := &File{tensors: make(map[string]*Tensor, len(entries))}
	body := size - 8 - int64(n)
	var spans []span
	for name, raw := range entries {
		if name == "__metadata__" {
			if err := json.Unmarshal(raw, &f.Metadata); err != nil {
				return nil, formatError("__metadata__: %v", err)
			}
			continue
		}
		t, s, err := parseTensor(name, raw, body)
		if err != nil {
			return nil, err
		}
		t.data = io.NewSectionReader(r, 8+int64(n)+s.from, s.to-s.from)
		f.tensors[name] = t
		spans = append(spans, s)
	}
	return f, checkSpans(spans, body)
}

func formatError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// members splits a JSON object into its members; a name that comes twice is an error.
func members(text []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, formatError("the header is not a JSON object")
	}
	out := map[string]json.RawMessage{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, formatError("header: %v", err)
		}
		name := key.(string) // a member's name is a string, or Token has failed
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, formatError("header: %v", err)
		}
		if _, ok := out[name]; ok {
			return nil, formatError("%q comes twice", name)
		}
		out[name] = raw
	}
	if _, err := d.Token(); err != nil {
		return nil, formatError("header: %v", err)
	}
	return out, nil
}

// span is where a tensor stands in the body of the file.
type span struct {
	name     string
	from, to int64
}

func parseTensor(name string, raw json.RawMessage, body int64) (*Tensor, span, error) {
	var h struct {
		DType   Type    `json:"dtype"`
		Shape   []int64 `json:"shape"`
		Offsets []int64 `json:"data_offsets"`
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		return nil, span{}, formatError("tensor %q: %v", name, err)
	}
	size, ok := sizes[h.DType]
	if !ok {
		return nil, span{}, formatError("tensor %q: unknown dtype %q", name, h.DType)
	}
	if len(h.Offsets) != 2 || h.Offsets[0] < 0 || h.Offsets[1] < h.Offsets[0] || h.Offsets[1] > body {
		return nil, span{}, formatError("tensor %q: data_offsets %v in a body of %d bytes", name, h.Offsets, body)
	}
	s := span{name, h.Offsets[0], h.Offsets[1]}
	t := &Tensor{Name: name, Type: h.DType, Shape: make([]int, len(h.Shape))}
	// The product is compared by division, so that it cannot overflow.
	left := (s.to - s.from) / int64(size)
	if left > math.MaxInt/8 {
		return nil, span{}, formatError("tensor %q: %d elements are more than this machine can address", name, left)
	}
	exact := (s.to-s.from)%int64(size) == 0
	empty := false
	for i, d := range h.Shape {
		t.Shape[i] = int(d)
		switch {
		case d < 0 || int64(int(d)) != d:
			exact = false
		case d == 0:
			empty = true
		case !empty:
			exact = exact && left%d == 0
			left /= d
		}
	}
	if empty && s.to != s.from || !empty && left != 1 || !exact {
		return nil, span{}, formatError("tensor %q: %d bytes for shape %v of %s", name, s.to-s.from, h.Shape, h.DType)
	}
	return t, s, nil
}

// checkSpans wants the tensors to fill the body without a hole or an overlap.
func checkSpans(spans []span, body int64) error {
	sort.Slice(spans, func(i, j int) bool {
		a, b := spans[i], spans[j]
		return a.from < b.from || a.from == b.from && a.to < b.to
	})
	var end int64
	for _, s := range spans {
		if s.from != end {
			return formatError("tensor %q begins at %d, where %d is expected: a hole or an overlap", s.name, s.from, end)
		}
		end = s.to
	}
	if end != body {
		return formatError("tensors end at %d of %d", end, body)
	}
	return nil
}

// Names returns the names of all tensors, sorted.
func (f *File) Names() []string {
	names := make([]string, 0, len(f.tensors))
	for n := range f.tensors {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Tensor returns the tensor of a name, nil if there is none.
func (f *File) Tensor(name string) *Tensor { return f.tensors[name] }

// Under returns the tensors whose names begin with prefix, under what follows it.
func (f *File) Under(prefix string) *File {
	out := &File{Metadata: f.Metadata, tensors: map[string]*Tensor{}}
	for n, t := range f.tensors {
		if short, ok := strings.CutPrefix(n, prefix); ok {
			out.tensors[short] = t
		}
	}
	return out
}

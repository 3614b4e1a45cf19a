// Package weights reads tensors from safetensors files and from those of PyTorch's
// torch.save ("pytorch_model.bin", "weights.ckpt").
//
// Files are not trusted: every size is checked against the file before memory
// is taken for it, tensors are read only when asked for, and a pickle is read
// without running anything it names.
package weights

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

// ErrFormat is matched by every error about a file that is not well formed. It matches
// subquad.ErrCheckpoint.
var ErrFormat = check.Errorf(subquad.ErrCheckpoint, "not a well-formed file of safetensors or PyTorch")

// File is an opened file. Its methods are safe for concurrent use.
type File struct {
	// Metadata is the __metadata__ of a safetensors header, nil if there is none.
	Metadata map[string]string

	tensors map[string]*Tensor
	closer  io.Closer
}

// Tensor is one tensor of a file.
type Tensor struct {
	// Name is the tensor's name in the file.
	Name  string
	Type  Type
	Shape []int

	data    *io.SectionReader // the elements, from the first to the last
	strides []int             // in elements; nil where the elements follow each other
	big     bool              // the elements are big-endian
	what    string            // what it is, if that cannot be read
}

// Len returns the number of elements.
func (t *Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Part returns element i of the first dimension as a tensor of the others, so that a large
// one need not be read at once. There must be such an element.
func (t *Tensor) Part(i int) *Tensor {
	p := *t
	p.Shape = t.Shape[1:]
	size := int64(sizeOf(t.Type))
	if t.what != "" { // it cannot be read, and says so when it is
		return &p
	}
	if t.strides == nil {
		n := int64(p.Len()) * size
		p.data = io.NewSectionReader(t.data, int64(i)*n, n)
		return &p
	}
	p.strides = t.strides[1:]
	from := int64(i) * int64(t.strides[0]) * size
	p.data = io.NewSectionReader(t.data, from, t.data.Size()-from)
	return &p
}

// readable returns an error that names a tensor that cannot be read.
func (t *Tensor) readable() error {
	if t.what == "" {
		return nil
	}
	return fmt.Errorf("tensor %.200q is %s, which is not read", t.Name, t.what)
}

// Close closes a file that Open opened.
func (f *File) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// Read reads the header of a safetensors file, the pickle of a PyTorch file or the tensors'
// headers of a file of rwkv.cpp, of size bytes, which of them its first bytes tell. r must stay valid while tensors
// are read.
func Read(r io.ReaderAt, size int64) (*File, error) {
	first := make([]byte, min(max(size, 0), sniffBytes))
	if n, err := r.ReadAt(first, 0); n < len(first) {
		return nil, short(err)
	}
	f, err := readAny(r, size, first)
	if err != nil {
		return nil, err
	}
	f.rename()
	return f, nil
}

func readAny(r io.ReaderAt, size int64, first []byte) (*File, error) {
	// A header's length may be any bytes, but what follows it is an object.
	if len(first) > 8 && first[8] == '{' {
		if n := binary.LittleEndian.Uint64(first); n >= 2 && n <= uint64(size-8) && n <= maxHeader {
			return readSafetensors(r, size, n)
		}
	}
	switch {
	case strings.HasPrefix(string(first), zipMagic):
		return readTorch(r, size)
	case strings.HasPrefix(string(first), ggmfMagic):
		return readGGMF(r, size)
	case strings.HasPrefix(string(first), legacyMagic):
		return nil, formatError("the format of torch.save before PyTorch 1.6; convert it in Python: torch.save(torch.load(path, map_location=\"cpu\", weights_only=True), path)")
	}
	if what := Sniff(first); what != "" {
		return nil, formatError("it is %s", what)
	}
	if size < 8 {
		return nil, formatError("%d bytes are too few", size)
	}
	return readSafetensors(r, size, binary.LittleEndian.Uint64(first))
}

// unexpected is the error of a text that ends early.
func unexpected(err error) error {
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// short is the error of a read that gave less than the file should have there. A file that
// ends is not well formed; other errors are the reader's.
func short(err error) error {
	if err = unexpected(err); err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return err
}

func formatError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// wrappers are what training and wrapping in Python put before the names of tensors,
// in the order in which those under one win over those under the next.
var wrappers = []string{"module.", "base_model.model.", "model_state.", "ema."}

// plainName returns a name without wrappers, and how far down the order the last of
// them is. torch.compile puts its own anywhere.
func plainName(name string) (plain string, rank int) {
	for again := true; again; {
		again = false
		for i, w := range wrappers {
			if short, ok := strings.CutPrefix(name, w); ok && short != "" {
				name, rank, again = short, max(rank, i+1), true
			}
		}
	}
	if strings.Contains(name, "_orig_mod.") {
		name = strings.ReplaceAll(name, "_orig_mod.", "")
	}
	return name, rank
}

// rename gives tensors their plain names; where two would have one, the second keeps
// its own.
func (f *File) rename() {
	wrapped := map[int][]string{}
	for name := range f.tensors {
		if plain, rank := plainName(name); plain != name && plain != "" {
			wrapped[rank] = append(wrapped[rank], name)
		}
	}
	for _, rank := range slices.Sorted(maps.Keys(wrapped)) {
		slices.Sort(wrapped[rank])
		for _, name := range wrapped[rank] {
			if plain, _ := plainName(name); f.tensors[plain] == nil {
				f.tensors[plain] = f.tensors[name]
				delete(f.tensors, name)
			}
		}
	}
}

// Names returns the names of all tensors, sorted: those in the file, without what
// wrappers of modules put before them. Among them are those that cannot be read.
func (f *File) Names() []string {
	return slices.Sorted(maps.Keys(f.tensors))
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

package weights

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

const (
	zipMagic = "PK\x03\x04"
	// legacyMagic begins the files of PyTorch before 1.6: a pickle of the number
	// 0x1950a86a20f9469cfc6c.
	legacyMagic = "\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

	// maxPickle bounds the bytes of data.pkl: names and shapes, not elements.
	maxPickle = maxHeader
	// maxGrowth is how many times the size of the file its storages may be when
	// unpacked, and its tensors, of which several may share a storage.
	maxGrowth = 16
	// maxNested is how deep dictionaries are looked for in dictionaries.
	maxNested = 8
	// maxNames is how many times the size of its pickle the names and shapes of a file's
	// tensors may be, of which several may share a dictionary; fewNames is what any may.
	maxNames, fewNames = 4, 64 << 10
)

// archive is a file of torch.save: a zip file of data.pkl, a pickle of the object,
// data/KEY, the storages its tensors are in, byteorder and version.
type archive struct {
	r       io.ReaderAt
	size    int64                // of the file, in bytes
	entries map[string]*zip.File // by name, without the folder that all are in
	records map[string]*record   // those that have been asked for
	big     bool                 // the storages are big-endian

	// What may still be asked for, in bytes: of the file, of what is unpacked, of tensors,
	// of names and shapes.
	packed, unpacked, tensors, names uint64
}

// readTorch reads a file of torch.save without running its pickle. The tensors are
// those of the state dict: of the dictionary that was saved, of its "state_dict",
// as of PyTorch Lightning, or of its "model_state_dict". Those of dictionaries
// within it have names with a dot between, of which rename takes those of other wrappers.
func readTorch(r io.ReaderAt, size int64) (*File, error) {
	a, err := newArchive(r, size)
	if err != nil {
		return nil, err
	}
	// It is not compressed by torch.save, and elements take more than names do.
	text, err := a.read("data.pkl", min(maxPickle, uint64(size)+1<<20))
	if err != nil {
		return nil, err
	}
	a.names = fewNames + maxNames*uint64(len(text))
	root, err := unpickle(text)
	if err != nil {
		return nil, err
	}
	d, ok := root.(*dict)
	if !ok {
		return nil, formatError("data.pkl is %s where a dictionary of tensors is expected: save the state_dict() of a module", describe(root))
	}
	for _, name := range []string{"state_dict", "model_state_dict"} {
		if inner, ok := d.items[name].(*dict); ok {
			d = inner
			break
		}
	}
	f := &File{tensors: map[string]*Tensor{}}
	return f, a.collect(f, "", d, maxNested)
}

// describe names a value for errors.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case opaque:
		switch v {
		case "torch._utils._rebuild_qtensor":
			return "a quantized tensor"
		case "torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_sparse_csr_tensor":
			return "a sparse tensor"
		case "torch._utils._rebuild_nested_tensor":
			return "a nested tensor"
		case "int", "float", "bytes", "list", "set", "frozenset", "object":
			return "a Python " + string(v)
		}
		return fmt.Sprintf("an instance of %.100q", string(v))
	case *view:
		return "a tensor"
	case *storage:
		return "a storage"
	case int64:
		return "a Python int"
	case string:
		return "a Python str"
	case bool:
		return "a Python bool"
	case tuple:
		return "a Python tuple"
	case global:
		return fmt.Sprintf("the name %.100q", string(v))
	}
	return fmt.Sprintf("a %T", v)
}

func newArchive(r io.ReaderAt, size int64) (*archive, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, zipError(err)
	}
	// The entries stand in a folder of any name.
	folder, found := "", 0
	for _, f := range z.File {
		if dir, ok := strings.CutSuffix(f.Name, "data.pkl"); ok && (dir == "" || strings.Index(dir, "/") == len(dir)-1) {
			folder, found = dir, found+1
		}
	}
	if found != 1 {
		return nil, formatError("a zip file with %d data.pkl, where torch.save writes one", found)
	}
	growth := maxGrowth * uint64(min(size, math.MaxInt64/maxGrowth))
	a := &archive{
		r: r, size: size, entries: map[string]*zip.File{}, records: map[string]*record{},
		packed: uint64(size), unpacked: growth, tensors: growth,
	}
	for _, f := range z.File {
		name, ok := strings.CutPrefix(f.Name, folder)
		if !ok {
			continue
		}
		if a.entries[name] != nil {
			return nil, formatError("%.100q comes twice", f.Name)
		}
		a.entries[name] = f
	}
	return a, a.checkFormat()
}

// checkFormat reads the entries that tell how the others are to be read.
func (a *archive) checkFormat() error {
	if a.entries["version"] != nil {
		text, err := a.read("version", 100)
		if err != nil {
			return err
		}
		if v, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || v < 1 || v > 10 {
			return formatError("version %.20q of torch.save's format, want 1 to 10", text)
		}
	}
	if a.entries["byteorder"] == nil {
		return nil
	}
	text, err := a.read("byteorder", 100)
	if err != nil {
		return err
	}
	a.big = string(text) == "big"
	if !a.big && string(text) != "little" {
		return formatError("byteorder %.20q, want little or big", text)
	}
	return nil
}

// read returns an entry of limit bytes at most.
func (a *archive) read(name string, limit uint64) ([]byte, error) {
	rec, err := a.record(name)
	if err != nil {
		return nil, zipError(err)
	}
	if n := rec.entry.UncompressedSize64; n > limit {
		return nil, formatError("%s of %d bytes, want %d at most", name, n, limit)
	}
	b, err := io.ReadAll(io.NewSectionReader(rec, 0, int64(rec.entry.UncompressedSize64)))
	if err != nil {
		return nil, zipError(err)
	}
	return b, nil
}

// zipError tells an error of the file system from one about the file.
func zipError(err error) error {
	var system *fs.PathError
	if errors.As(err, &system) {
		return fmt.Errorf("%w", err)
	}
	return formatError("%v", err)
}

// collect adds the tensors of a dictionary to f, and what stands in their place and
// cannot be read.
func (a *archive) collect(f *File, prefix string, d *dict, nested int) error {
	for _, key := range slices.Sorted(maps.Keys(d.items)) {
		name := prefix + key
		if err := a.account(len(name) + 32); err != nil {
			return err
		}
		t := &Tensor{Name: name}
		switch v := d.items[key].(type) {
		case nil:
			continue
		case *dict:
			if nested > 0 {
				if err := a.collect(f, name+".", v, nested-1); err != nil {
					return err
				}
			}
			continue
		case *view:
			if err := a.account(16 * len(v.shape)); err != nil {
				return err
			}
			var err error
			if t, err = a.tensor(name, v); err != nil {
				return err
			}
		default:
			t.what = describe(v)
		}
		if f.tensors[name] != nil {
			return formatError("two tensors are called %.100q", name)
		}
		f.tensors[name] = t
	}
	return nil
}

// account takes n bytes from those that names and shapes may have.
func (a *archive) account(n int) error {
	if uint64(n) > a.names {
		return formatError("names of more than %d times their pickle's bytes", maxNames)
	}
	a.names -= uint64(n)
	return nil
}

// tensor checks a tensor against its storage, and that against the file.
func (a *archive) tensor(name string, v *view) (*Tensor, error) {
	t := &Tensor{Name: name, Type: v.kind, Shape: make([]int, len(v.shape)), big: a.big}
	if v.negated {
		t.what = fmt.Sprintf("a view of %.60s with the other sign", v.kind)
	}
	wrong := func(format string, args ...any) (*Tensor, error) {
		return nil, formatError("tensor %.100q of shape %.100s and strides %.100s: %s", name, fmt.Sprint(v.shape), fmt.Sprint(v.strides), fmt.Sprintf(format, args...))
	}
	shape, strideList := v.shape.numbers(), v.strides.numbers()
	size := int64(sizeOf(v.kind)) // 0 where the type is not known: it cannot be read
	// Elements are limited by division, so that no product overflows.
	limit := int64(min(a.tensors/uint64(max(size, 1)), math.MaxInt/8))
	n, strides := int64(1), make([]int, len(shape))
	empty := slices.Contains(shape, 0)
	for i, d := range shape {
		if d < 0 || int64(int(d)) != d || !empty && n > limit/d {
			return wrong("more than the %d elements that a file of %d bytes may hold", limit, a.size)
		}
		t.Shape[i] = int(d)
		n *= d
	}
	if n > limit { // a scalar
		return wrong("more than the %d elements that a file of %d bytes may hold", limit, a.size)
	}
	a.tensors -= uint64(n * size)
	if n == 0 || size == 0 {
		return t, nil
	}
	rec, count, err := a.storage(v.storage, size)
	if err != nil {
		return wrong("%v", err)
	}
	// last is the element that stands last in the storage.
	last, rowMajor, expect := v.offset, true, int64(1)
	for i := len(shape) - 1; i >= 0; i-- {
		d, stride := shape[i], strideList[i]
		if d == 1 {
			continue
		}
		if stride < 0 || last < 0 || last >= count || stride > (count-1-last)/(d-1) {
			return wrong("offset %d leaves a storage of %d elements", v.offset, count)
		}
		last += stride * (d - 1)
		rowMajor = rowMajor && stride == expect
		expect *= d
		strides[i] = int(stride)
	}
	if last < 0 || last >= count {
		return wrong("offset %d leaves a storage of %d elements", v.offset, count)
	}
	span := last - v.offset + 1
	if !rowMajor {
		if span > math.MaxInt/8 {
			return wrong("%d elements of a storage are more than this machine can address", span)
		}
		t.strides = strides
	}
	t.data = io.NewSectionReader(rec, v.offset*size, span*size)
	return t, nil
}

// storage returns where a storage stands, and its length in elements of size bytes.
func (a *archive) storage(s *storage, size int64) (*record, int64, error) {
	rec, err := a.record("data/" + s.key)
	if err != nil {
		return nil, 0, err
	}
	have, each := int64(rec.entry.UncompressedSize64), int64(sizeOf(s.kind))
	if s.kind == untyped {
		each = 1
	}
	if each == 0 || s.count != have/each || have%each != 0 {
		return nil, 0, fmt.Errorf("a storage of %d %s has %d bytes", s.count, s.kind, have)
	}
	return rec, have / size, nil
}

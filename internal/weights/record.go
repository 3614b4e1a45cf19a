package weights

import (
	"archive/zip"
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// record is an entry of a zip file. Its check sum is compared when it is first
// read; a compressed one is unpacked then and kept.
type record struct {
	entry *zip.File
	raw   *io.SectionReader // the entry where it is stored, nil where compressed

	once sync.Once
	data []byte // unpacked, where it is compressed
	err  error  // of the first reading, kept
}

// record returns the entry of a name: its bytes in the file must be those of no
// other, and what they unpack to is bounded.
func (a *archive) record(name string) (*record, error) {
	if rec := a.records[name]; rec != nil {
		return rec, nil
	}
	f := a.entries[name]
	if f == nil {
		return nil, fmt.Errorf("no %.100q in the zip file", name)
	}
	at, err := f.DataOffset()
	if err != nil {
		return nil, fmt.Errorf("%.100q: %v", f.Name, err)
	}
	packed, unpacked := f.CompressedSize64, f.UncompressedSize64
	if at < 0 || at > a.size || packed > uint64(a.size-at) || packed > a.packed || unpacked > a.unpacked {
		return nil, fmt.Errorf("%.100q has %d bytes in %d at byte %d of a file of %d", f.Name, unpacked, packed, at, a.size)
	}
	rec := &record{entry: f}
	switch f.Method {
	case zip.Store:
		if packed != unpacked {
			return nil, fmt.Errorf("%.100q has %d bytes in %d", f.Name, unpacked, packed)
		}
		rec.raw = io.NewSectionReader(a.r, at, int64(packed))
	case zip.Deflate:
	default:
		return nil, fmt.Errorf("%.100q: compression method %d is not known", f.Name, f.Method)
	}
	a.packed, a.unpacked = a.packed-packed, a.unpacked-unpacked
	a.records[name] = rec
	return rec, nil
}

// ReadAt reads from the unpacked entry.
func (rec *record) ReadAt(b []byte, at int64) (int, error) {
	rec.once.Do(func() { rec.err = rec.check() })
	switch {
	case rec.err != nil:
		return 0, rec.err
	case rec.raw != nil:
		return rec.raw.ReadAt(b, at)
	}
	return bytes.NewReader(rec.data).ReadAt(b, at)
}

func (rec *record) check() error {
	if rec.raw != nil {
		sum := crc32.NewIEEE()
		if _, err := io.Copy(sum, io.NewSectionReader(rec.raw, 0, rec.raw.Size())); err != nil {
			return err
		}
		// PyTorch can be told to leave the sum out.
		if want := rec.entry.CRC32; want != 0 && sum.Sum32() != want {
			return fmt.Errorf("%.100q: %w", rec.entry.Name, zip.ErrChecksum)
		}
		return nil
	}
	r, err := rec.entry.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	// The declared size was checked, so no more than that is kept.
	size := int64(rec.entry.UncompressedSize64)
	if rec.data, err = io.ReadAll(io.LimitReader(r, size+1)); err == nil && int64(len(rec.data)) != size {
		err = fmt.Errorf("%.100q unpacks to other than its %d bytes", rec.entry.Name, size)
	}
	return err
}

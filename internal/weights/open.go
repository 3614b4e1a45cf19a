package weights

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/exp/mmap"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

// Source is an opened regular file.
type Source struct {
	io.ReaderAt
	closer io.Closer
	size   int64
}

// Size returns the number of bytes.
func (s *Source) Size() int64 { return s.size }

// Reader returns a reader of the whole file.
func (s *Source) Reader() io.Reader { return io.NewSectionReader(s, 0, s.size) }

// Close closes the file; a mapped one must not be read any more.
func (s *Source) Close() error { return s.closer.Close() }

// OpenFile opens a regular file. Others (folders, devices, pipes) are an error: they may
// have no end, or never begin.
func OpenFile(path string, options ...subquad.OpenOption) (*Source, error) {
	// Before it is opened, because to open a pipe waits for a writer. A file that is not
	// there is left to Open.
	if info, err := os.Stat(path); err == nil {
		if err := checkRegular(path, info); err != nil {
			return nil, err
		}
	}
	mapped := false
	for _, o := range options {
		mapped = mapped || o.Mmap()
	}
	if mapped {
		m, err := mmap.Open(path)
		if err != nil {
			return nil, fmt.Errorf("%w", err)
		}
		return &Source{m, m, int64(m.Len())}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w", err)
	}
	info, err := f.Stat()
	if err != nil {
		err = fmt.Errorf("%w", err)
	} else {
		err = checkRegular(path, info)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Source{f, f, info.Size()}, nil
}

// checkRegular returns an error, of a file's kind, unless path is a regular file.
func checkRegular(path string, info os.FileInfo) error {
	mode := info.Mode()
	if mode.IsRegular() {
		return nil
	}
	what := "a device or the like"
	switch {
	case mode.IsDir():
		what = "a folder"
	case mode&os.ModeNamedPipe != 0:
		what = "a pipe"
	}
	return check.Errorf(subquad.ErrCheckpoint, "%s is %s, want a regular file", path, what)
}

// MaxText bounds files of text: configurations, indexes, tokenizers.
const MaxText = 64 << 20

// ReadFile returns a regular file of at most this many bytes. An error about one that is
// not there matches fs.ErrNotExist.
func ReadFile(path string, most int64) ([]byte, error) {
	s, err := OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if s.size > most {
		return nil, check.Errorf(subquad.ErrCheckpoint, "%s has %d bytes, want %d at most", path, s.size, most)
	}
	// Some files, of a system's own, have more than their size says.
	text, err := io.ReadAll(io.NewSectionReader(s, 0, most+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w", err)
	case int64(len(text)) > most:
		return nil, check.Errorf(subquad.ErrCheckpoint, "%s has more than %d bytes", path, most)
	}
	return text, nil
}

// Open opens the file at path. Close it when the tensors have been read.
func Open(path string, options ...subquad.OpenOption) (*File, error) {
	s, err := OpenFile(path, options...)
	if err != nil {
		return nil, err
	}
	f, err := Read(s, s.size)
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.closer = s
	return f, nil
}

// Folder returns the folder of a checkpoint's other files: path itself where it is
// one.
func Folder(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return path
	}
	return filepath.Dir(path)
}

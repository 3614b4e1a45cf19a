package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/filesystem"

	"github.com/subquad/subquad/examples/internal/ecoli"
)

// Files are those of Beam's file systems: local paths, gs:// and whatever else is registered.

// builtIn is the name of a FASTA file that is built in: the genome of phage lambda.
const builtIn = "phage-lambda"

// isLocal says whether a path is of this machine's files.
func isLocal(path string) bool { return !strings.Contains(path, "://") }

// openFile opens a file for reading. A pipe is none, for it cannot be read again, and a device may
// have no end.
func openFile(ctx context.Context, path string) (io.ReadCloser, error) {
	if path == builtIn {
		return io.NopCloser(bytes.NewReader(ecoli.Lambda)), nil
	}
	if isLocal(path) {
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is a folder, a pipe or a device, want a file", path)
		}
	}
	fs, err := filesystem.New(ctx, path)
	if err != nil {
		return nil, err
	}
	return fs.OpenRead(ctx, path)
}

// listFiles returns the files of a pattern.
func listFiles(ctx context.Context, pattern string) ([]string, error) {
	fs, err := filesystem.New(ctx, pattern)
	if err != nil {
		return nil, err
	}
	defer fs.Close()
	return fs.List(ctx, pattern)
}

// readFile returns a file whole.
func readFile(ctx context.Context, path string) ([]byte, error) {
	f, err := openFile(ctx, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// writeFile makes a file of what write writes. It gets its name when it is whole: a bundle that
// fails half-way leaves no half of it, and one that is run twice writes the same file twice.
func writeFile(ctx context.Context, path string, write func(io.Writer) error) error {
	fs, err := filesystem.New(ctx, path)
	if err != nil {
		return err
	}
	defer fs.Close()
	part := fmt.Sprintf("%s.part-%016x", path, rand.Uint64())
	w, err := fs.OpenWrite(ctx, part)
	if err != nil {
		return err
	}
	if err = errors.Join(write(w), w.Close()); err == nil {
		err = filesystem.Rename(ctx, fs, part, path)
	}
	if remover, ok := fs.(filesystem.Remover); ok && err != nil {
		err = errors.Join(err, remover.Remove(ctx, part))
	}
	return err
}

// writable returns an error where nothing can be written to a folder: hours of work should not
// end there.
func writable(ctx context.Context, folder string) error {
	path := join(folder, "writable"+unfinished)
	if err := writeFile(ctx, path, func(io.Writer) error { return nil }); err != nil {
		return fmt.Errorf("-out %s: %w", folder, err)
	}
	fs, err := filesystem.New(ctx, path)
	if err != nil {
		return err
	}
	defer fs.Close()
	if remover, ok := fs.(filesystem.Remover); ok {
		return remover.Remove(ctx, path)
	}
	return nil
}

func renameFile(ctx context.Context, from, to string) error {
	fs, err := filesystem.New(ctx, to)
	if err != nil {
		return err
	}
	defer fs.Close()
	return filesystem.Rename(ctx, fs, from, to)
}

// join is a path below a folder, whatever the file system.
func join(folder, name string) string { return strings.TrimSuffix(folder, "/") + "/" + name }

// writeFloats makes a file of numbers, little-endian float32.
func writeFloats(ctx context.Context, path string, x []float32) error {
	return writeFile(ctx, path, func(w io.Writer) error { return binary.Write(w, binary.LittleEndian, x) })
}

// readFloats returns the numbers of such a file.
func readFloats(ctx context.Context, path string) ([]float32, error) {
	text, err := readFile(ctx, path)
	if err != nil {
		return nil, err
	}
	x := make([]float32, len(text)/4)
	_, err = binary.Decode(text, binary.LittleEndian, x)
	return x, err
}

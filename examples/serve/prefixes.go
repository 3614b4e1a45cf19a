package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/subquad/subquad/attention/transformer"
	"github.com/subquad/subquad/examples/internal/language"
)

// openPrefixes returns what a file has of prompts, or nothing where there is none yet.
func openPrefixes(m *language.Model, most int64, file string) (*transformer.Prefixes, error) {
	if file == "" {
		return m.NewPrefixes(most)
	}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return m.NewPrefixes(most)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := m.ReadPrefixes(bufio.NewReader(f), most)
	if errors.Is(err, transformer.ErrState) {
		return nil, fmt.Errorf("-prefix-file %s: %w (want a whole file of the same model and -format, or none)", file, err)
	}
	if err != nil {
		return nil, fmt.Errorf("-prefix-file %s: %w", file, err)
	}
	return p, nil
}

// keep stores what is known of prompts, in place of what a file had.
func (s *server) keep(file string) (err error) {
	if file == "" || s.known == nil {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	w := bufio.NewWriter(f)
	_, err = s.known.WriteTo(w)
	if err := errors.Join(err, w.Flush(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

package attention

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
)

// TestFolder: pages in a file leave nothing behind, are given back by Close and not before,
// and a full bound or a missing folder is an error.
func TestFolder(t *testing.T) {
	a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true})
	folder := t.TempDir()
	p, err := a.NewPages(PagesConfig{PageTokens: 4, Format: asm.Int8, LogWeights: true, Folder: folder, MaxPages: 3})
	if errors.Is(err, errors.ErrUnsupported) && errors.Is(err, ErrConfig) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if names, err := filepath.Glob(filepath.Join(folder, "*")); err != nil || len(names) > 0 {
		t.Errorf("%v in the folder (%v)", names, err)
	}
	s := newState(t, a, StateConfig{Pages: p})
	x := tokens(a, 1, 13)
	if err := s.Append(mat.Rows(x.k, 0, 12), mat.Rows(x.v, 0, 12)); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(mat.Rows(x.k, 12, 13), mat.Rows(x.v, 12, 13)); !errors.Is(err, ErrFull) || s.Len() != 12 {
		t.Errorf("a fourth page of three: %v, %d tokens", err, s.Len())
	}
	if err := p.Close(); !errors.Is(err, ErrState) {
		t.Errorf("Close while a state has pages: %v", err)
	}
	s.Reset()
	for range 2 {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if err := s.Append(x.k, x.v); !errors.Is(err, ErrState) || s.Len() != 0 {
		t.Errorf("tokens after Close: %v, %d tokens", err, s.Len())
	}
	if _, err := a.NewPages(PagesConfig{Folder: filepath.Join(folder, "none")}); !errors.Is(err, ErrConfig) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := a.NewPages(PagesConfig{Folder: folder, Collected: true}); !errors.Is(err, ErrConfig) {
		t.Errorf("Collected in a folder: %v", err)
	}
}

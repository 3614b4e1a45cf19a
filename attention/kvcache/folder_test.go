package kvcache

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
)

// folderPages is a pool in a file.
func folderPages(t *testing.T, a *Attention) *attention.Pages {
	t.Helper()
	p, err := a.NewPages(attention.PagesConfig{PageTokens: 8, Folder: t.TempDir()})
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) }) // of which no state has a page any more
	return p
}

// TestFolder: states in a file have the bits of states on the heap, fork, go back, and are
// stored and read into another file.
func TestFolder(t *testing.T) {
	eachLaw(t, func(t *testing.T, c *lawCase, shape lawShape) {
		a := operator(t, c.config(shape))
		x, y := newText(27, &a.cfg, lawTokens), newText(28, &a.cfg, lawTokens)
		want := x.run(t, a, newState(t, a, StateConfig{}), 0, lawTokens)
		one, other := folderPages(t, a), folderPages(t, a)
		s := newState(t, a, StateConfig{Pages: one, Snapshots: 2})
		const at = 40
		bitsAgree(t, "in a file", x.run(t, a, s, 0, at), mat.Rows(want, 0, at))
		y.run(t, a, s, at, at+3)
		must(t, s.Truncate(at))
		fork := s.Clone()
		y.run(t, a, fork, at, lawTokens)
		var file bytes.Buffer
		_, err := s.WriteTo(&file)
		must(t, err)
		size := int64(file.Len())
		back := newState(t, a, StateConfig{Pages: other, Snapshots: 2})
		n, err := back.ReadFrom(bytes.NewReader(file.Bytes()))
		must(t, err)
		if n != size {
			t.Errorf("ReadFrom took %d bytes of %d", n, size)
		}
		for i, st := range []*State{s, back} {
			bitsAgree(t, fmt.Sprintf("state %d", i), x.run(t, a, st, at, lawTokens), mat.Rows(want, at, lawTokens))
		}
		if _, err := back.ReadFrom(bytes.NewReader(file.Bytes())); !errors.Is(err, ErrState) {
			t.Errorf("ReadFrom into a state that has tokens: %v", err)
		}
		for _, st := range []*State{s, fork, back} {
			st.Reset()
		}
		if _, err := back.ReadFrom(bytes.NewReader(file.Bytes()[:file.Len()-5])); err == nil || back.Len() != 0 {
			t.Errorf("a cut file: %v, and %d tokens", err, back.Len())
		}
		back.Reset()
		if n := one.Used() + other.Used(); n != 0 {
			t.Errorf("%d pages are left", n)
		}
	})
}

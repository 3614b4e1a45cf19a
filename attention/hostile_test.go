package attention

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
	"github.com/subquad/subquad/rope"
)

// TestHostileFiles reads files of states of all kinds that another program has changed.
func TestHostileFiles(t *testing.T) {
	a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 2, ValueDim: 2, Causal: true})
	q, x := matrix(1, 24, 8), matrix(2, 24, 4)
	values := func(s *State, from, to int) blas32.General {
		if s.cfg.SharedValues {
			return blas32.General{}
		}
		return mat.Rows(x, from, to)
	}
	rotation := &rope.Config{HeadDim: 2}
	for _, cfg := range []StateConfig{
		{}, {MaxTokens: 20, LogWeights: true}, {SharedValues: true}, {SharedValues: true, Format: asm.Int8}, {Format: asm.Int8}, {Format: asm.Float16},
		{Window: 5, Keep: 2}, {Window: 5, Keep: 1, Format: asm.BFloat16}, {Window: 30, LogWeights: true},
		{Rotation: rotation}, {Rotation: rotation, Policy: rope.Rerotate}, {Window: 5, Rotation: rotation},
	} {
		step := func(s *State) error {
			if err := a.Step(mat.New(1, 8), mat.Rows(q, 20, 21), mat.Rows(x, 20, 21), values(s, 20, 21), s); err != nil {
				return err
			}
			return a.Step(mat.New(3, 8), mat.Rows(q, 21, 24), mat.Rows(x, 21, 24), values(s, 21, 24), s)
		}
		read := a.ReadState
		if cfg.Rotation != nil {
			read = func(r io.Reader) (*State, error) { return a.ReadRotated(r, cfg.Rotation, cfg.Policy) }
		}
		s := newState(t, a, cfg)
		must0(t, s.Append(mat.Rows(x, 0, 13), values(s, 0, 13)))
		statetest.Mutate(t, s, read, step)
		statetest.Mutate(t, s, func(r io.Reader) (*State, error) {
			to := newState(t, a, cfg)
			_, err := to.ReadFrom(r)
			return to, err
		}, step)
		if cfg.Window == 0 { // with positions
			must0(t, s.Keep([]int32{1, 4, 5, 11}))
			statetest.Mutate(t, s, read, step)
			must0(t, s.Forget(s.Len()))
			must0(t, s.Append(mat.Rows(x, 0, 3), values(s, 0, 3)))
			statetest.Mutate(t, s, read, step)
		}
	}
}

// TestHostilePages reads such files into pages.
func TestHostilePages(t *testing.T) {
	a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 2, ValueDim: 2, Causal: true})
	q, x := matrix(1, 24, 8), matrix(2, 24, 4)
	p := newPages(t, a, PagesConfig{PageTokens: 4, Format: asm.Int8, Collected: true})
	cfg := StateConfig{Pages: p, Format: asm.Int8}
	s := newState(t, a, cfg)
	must0(t, s.Append(mat.Rows(x, 0, 11), mat.Rows(x, 0, 11)))
	read := func(r io.Reader) (*State, error) {
		to := newState(t, a, cfg)
		_, err := to.ReadFrom(r)
		return to, err
	}
	step := func(s *State) error {
		if err := s.Forget(s.Len() / 2); err != nil {
			return err
		}
		return a.Step(mat.New(5, 8), mat.Rows(q, 0, 5), mat.Rows(x, 0, 5), mat.Rows(x, 0, 5), s)
	}
	statetest.Mutate(t, s, read, step)
	must0(t, s.Keep([]int32{1, 4, 5, 6, 7, 8}))
	statetest.Mutate(t, s, read, step)
	s.Reset()
	must0(t, s.Append(mat.Rows(x, 0, 11), mat.Rows(x, 0, 11)))
	page, err := p.Take(s, 4, 4)
	must0(t, err)
	readPage := func(r io.Reader) (*Page, error) { return p.ReadPage(r, cfg) }
	statetest.Mutate(t, page, readPage, func(page *Page) error {
		s, err := p.Join(cfg, []*Page{page}, page.Tokens())
		if err != nil {
			return err
		}
		return step(s)
	})
}

// TestStoredPositions: a file of positions that no state has is a wrong state. Before, one of a
// state that had forgotten nothing, or something after what Truncate can go back to, was read, and
// was stored as another.
func TestStoredPositions(t *testing.T) {
	a := must(t, Config{Heads: 1, HeadDim: 2, Causal: true})
	s := newState(t, a, StateConfig{})
	x := matrix(1, 12, 2)
	must0(t, s.Append(mat.Rows(x, 0, 10), mat.Rows(x, 0, 10)))
	must0(t, s.Keep([]int32{1, 4, 5}))
	must0(t, s.Append(mat.Rows(x, 10, 12), mat.Rows(x, 10, 12)))
	var file bytes.Buffer
	if _, err := s.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	const token = 8 + 2*2*4 // bytes: a position, a key and a value
	floor := file.Len() - 4 - 5*token - 16
	for what, change := range map[string]map[int]uint64{
		"as it was":                     {},
		"nothing is forgotten":          {floor: 0},
		"a gap after the last one":      {floor: 9},
		"one after all that are held":   {floor + 16 + 4*token: 10},
		"none of the last":              {floor: 12, floor + 16 + 4*token: 12},
		"fewer than have not been lost": {floor: 6},
		"all, of which some are lost":   {floor - 24: 5},
	} {
		data := bytes.Clone(file.Bytes()[:file.Len()-4])
		for at, n := range change {
			binary.LittleEndian.PutUint64(data[at:], n)
		}
		_, err := a.ReadState(statetest.Sealed(data))
		if len(change) == 0 && err != nil || len(change) > 0 && !errors.Is(err, ErrState) {
			t.Errorf("%s: error %v", what, err)
		}
	}
}

// TestMostTokens: a state of as many tokens as can be counted is full, and can be stored.
func TestMostTokens(t *testing.T) {
	a := must(t, Config{Heads: 1, HeadDim: 2, Causal: true})
	s := newState(t, a, StateConfig{})
	x := matrix(1, 2, 2)
	must0(t, s.Skip(mostTokens-1))
	must0(t, a.Step(mat.New(1, 2), mat.Rows(x, 0, 1), mat.Rows(x, 0, 1), mat.Rows(x, 0, 1), s))
	if err := a.Step(mat.New(1, 2), mat.Rows(x, 0, 1), mat.Rows(x, 0, 1), mat.Rows(x, 0, 1), s); !errors.Is(err, ErrFull) || s.Len() != mostTokens {
		t.Errorf("error %v, %d tokens", err, s.Len())
	}
	var file bytes.Buffer
	if _, err := s.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	if back, err := a.ReadState(&file); err != nil || back.Len() != s.Len() {
		t.Errorf("read: %v", err)
	}
}

// TestStoredRotation: a file of what has no Rotation is not read with one.
func TestStoredRotation(t *testing.T) {
	a := must(t, Config{Heads: 1, HeadDim: 2, Causal: true})
	rotation := &rope.Config{HeadDim: 2}
	s := newState(t, a, StateConfig{Rotation: rotation})
	s.cfg.SharedValues = true
	var file bytes.Buffer
	if _, err := s.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ReadRotated(&file, rotation, rope.Fixed); !errors.Is(err, ErrState) {
		t.Errorf("error %v", err)
	}
}

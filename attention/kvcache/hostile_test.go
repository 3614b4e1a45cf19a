package kvcache

import (
	"bytes"
	"errors"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileFiles: of files whose numbers were changed and whose checksum is right all the
// same, each is an error that matches ErrState, or a state that goes on: it steps, forks,
// goes back and is stored.
func TestHostileFiles(t *testing.T) {
	for i := range lawCases {
		c := &lawCases[i]
		t.Run(c.name, func(t *testing.T) {
			a := operator(t, c.config(lawShapes[i%len(lawShapes)]))
			x := newText(31, &a.cfg, lawTokens)
			s := newState(t, a, StateConfig{})
			if i == 0 { // which takes little memory
				s = newState(t, a, StateConfig{Snapshots: maxSnapshots})
			}
			x.run(t, a, s, 0, 40)
			step := func(s *State, from, to int) error {
				c := callOf(mat.New(to-from, a.cfg.Heads*a.cfg.ValueDim), mat.Rows(x.q, from, to), mat.Rows(x.k, from, to), mat.Rows(x.v, from, to))
				c.State, c.Options = s, &Options{Importance: x.importance[from:to], Report: new(Report)}
				return a.Run(t.Context(), c)
			}
			statetest.Mutate(t, s, a.ReadState, func(s *State) error {
				if err := step(s, 40, 41); err != nil {
					return err
				}
				if a.cfg.Evict != nil {
					if err := s.Compact(0); err != nil {
						return err
					}
				}
				s.Positions(nil, 0)
				return step(s, 41, 46)
			})
		})
	}
}

// carryOn does with a state what can be done; errors are none of this test's business.
func carryOn(t *testing.T, what string, a *Attention, s *State, x *lawText) {
	t.Helper()
	fork := s.Clone()
	for i := 40; i < 44; i++ {
		c := callOf(mat.New(1, a.cfg.Heads*a.cfg.ValueDim), mat.Rows(x.q, i, i+1), mat.Rows(x.k, i, i+1), mat.Rows(x.v, i, i+1))
		c.State, c.Options = s, &Options{Importance: x.importance[i : i+1], Report: new(Report)}
		a.Run(t.Context(), c)
	}
	fork.Truncate(38)
	c := callOf(mat.New(1, a.cfg.Heads*a.cfg.ValueDim), mat.Rows(x.q, 50, 51), mat.Rows(x.k, 50, 51), mat.Rows(x.v, 50, 51))
	c.State = fork
	a.Run(t.Context(), c)
	if a.cfg.Evict != nil {
		fork.Compact(0)
	}
	var file bytes.Buffer
	if _, err := s.WriteTo(&file); err != nil {
		t.Errorf("%s: WriteTo: %v", what, err)
	}
	s.Positions(nil, 0)
}

// TestHostileStates: likewise of files of states that no operator makes.
func TestHostileStates(t *testing.T) {
	cached := func(spoil func(x *cachedIndex)) func(t *testing.T, s *State) {
		return func(t *testing.T, s *State) {
			x := s.index.(*cachedIndex)
			if x.at == 0 {
				t.Fatal("no choice is kept")
			}
			spoil(x)
		}
	}
	gaps := func(t *testing.T, s *State) {
		for g := range s.heads {
			must(t, s.forget(g, []int32{0, 1, 2, 7, 8, 9, 31, 39}))
		}
	}
	sure := Cached{Select: Top{TopK: 5}, Similarity: -1}
	for _, c := range []struct {
		name  string
		p     Selector
		spoil func(t *testing.T, s *State)
	}{
		{"a choice without a query", sure, cached(func(x *cachedIndex) { x.query = nil })},
		{"a choice without lists", sure, cached(func(x *cachedIndex) { x.choice.Lists = nil })},
		{"a choice of three lists", sure, cached(func(x *cachedIndex) { x.choice.Lists = append(x.choice.Lists, nil) })},
		{"Top with gaps", Top{TopK: 5}, gaps},
		{"Quest with gaps", Quest{Page: 4, Budget: 8}, gaps},
		{"RetroInfer with gaps", RetroInfer{Segment: 16}, gaps},
		{"Landmarks with gaps", Landmarks{Block: 4, TopK: 2}, gaps},
		{"TokenSelect of 8 bits with gaps", TokenSelect{TopK: 5, Bits: 8}, gaps},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{Heads: 4, KVHeads: 2, HeadDim: 8, Keep: 2, Recent: 4, Chunk: 1, Select: c.p}
			a := operator(t, cfg)
			x := newText(33, &a.cfg, lawTokens)
			s := newState(t, a, StateConfig{})
			x.run(t, a, s, 0, 40)
			func() {
				defer func() { recover() }() // of what follows a forgetting
				c.spoil(t, s)
			}()
			var file bytes.Buffer
			_, err := s.WriteTo(&file)
			must(t, err)
			back, err := a.ReadState(&file)
			if err == nil {
				carryOn(t, c.name, a, back, &x)
			}
			if !errors.Is(err, ErrState) {
				t.Errorf("read: %v, want an error that matches ErrState", err)
			}
		})
	}
}

// TestAcrossTiers: what one tier has written, any other reads.
func TestAcrossTiers(t *testing.T) {
	for i := range lawCases {
		c := &lawCases[i]
		cfg := c.config(lawShape{3, 1, 7})
		files := make(map[string][]byte)
		isatest.Run(t, func(t *testing.T) {
			a := operator(t, cfg)
			x := newText(34, &a.cfg, lawTokens)
			s := newState(t, a, StateConfig{})
			x.run(t, a, s, 0, 40)
			var file bytes.Buffer
			_, err := s.WriteTo(&file)
			must(t, err)
			for from, data := range files {
				if _, err := a.ReadState(bytes.NewReader(data)); err != nil {
					t.Errorf("%s, written under %s: %v", c.name, from, err)
				}
			}
			files[t.Name()] = file.Bytes()
		})
	}
}

// TestStoredAfterTruncate: what has been taken back is stored as it then is.
func TestStoredAfterTruncate(t *testing.T) {
	for i := range lawCases {
		c := &lawCases[i]
		t.Run(c.name, func(t *testing.T) {
			a := operator(t, c.config(lawShapes[i%len(lawShapes)]))
			x := newText(35, &a.cfg, lawTokens)
			want := x.run(t, a, newState(t, a, StateConfig{}), 0, lawTokens)
			by := 10
			if testing.Short() {
				by = 25
			}
			for at := 1; at < 52; at += by {
				s := newState(t, a, StateConfig{Snapshots: 3})
				x.run(t, a, s, 0, at)
				for i := range 3 {
					x.run(t, a, s, at+i, at+i+1)
				}
				must(t, s.Truncate(at))
				var file bytes.Buffer
				_, err := s.WriteTo(&file)
				must(t, err)
				back, err := a.ReadState(&file)
				must(t, err)
				bitsAgree(t, "read back", x.run(t, a, back, at, lawTokens), mat.Rows(want, at, lawTokens))
				var mark Mark
				s = newState(t, a, StateConfig{})
				x.run(t, a, s, 0, at)
				s.Save(&mark)
				x.run(t, a, s, at, at+5)
				must(t, s.Restore(&mark))
				bitsAgree(t, "restored", x.run(t, a, s, at, lawTokens), mat.Rows(want, at, lawTokens))
				if s = newState(t, a, StateConfig{}); s.CanTruncate(at) {
					t.Fatal("a state without tokens goes back")
				}
				x.run(t, a, s, 0, at+3)
				if !s.CanTruncate(at) {
					continue
				}
				must(t, s.Truncate(at))
				file.Reset()
				_, err = s.WriteTo(&file)
				must(t, err)
				if back, err = a.ReadState(&file); err != nil {
					t.Fatal(err)
				}
				if c.name == "Cached" || c.name == "Shadow" {
					continue // a choice that is gone is made anew
				}
				bitsAgree(t, "shortened and read back", x.run(t, a, back, at, lawTokens), mat.Rows(want, at, lawTokens))
			}
		})
	}
}

// TestStoredChoice: a choice of rows that a Truncate has taken back is not stored.
func TestStoredChoice(t *testing.T) {
	a := operator(t, Config{Heads: 2, HeadDim: 8, Keep: 2, Recent: 4, Chunk: 1, Select: Cached{Select: Top{TopK: 5}, Similarity: -1}})
	x := newText(36, &a.cfg, lawTokens)
	s := newState(t, a, StateConfig{})
	x.run(t, a, s, 0, 40)
	must(t, s.Truncate(3))
	var file bytes.Buffer
	_, err := s.WriteTo(&file)
	must(t, err)
	_, err = a.ReadState(&file)
	must(t, err)
}

// TestStoredRoom: a file whose tokens, or whose key heads, do not fit its own MaxTokens is a
// wrong state.
func TestStoredRoom(t *testing.T) {
	a := operator(t, Config{Heads: 2, KVHeads: 1, HeadDim: 8, Keep: 2, Recent: 4, Select: Top{TopK: 5}})
	x := newText(37, &a.cfg, lawTokens)
	for _, most := range [][2]int{{39, 40}, {40, 41}, {0, 40}, {40, 0}} {
		s := newState(t, a, StateConfig{MaxTokens: most[1]})
		x.run(t, a, s, 0, 40)
		s.cfg.MaxTokens = most[0]
		var file bytes.Buffer
		_, err := s.WriteTo(&file)
		must(t, err)
		if _, err := a.ReadState(&file); !errors.Is(err, ErrState) {
			t.Errorf("MaxTokens %d with key heads of %d: error %v", most[0], most[1], err)
		}
	}
}

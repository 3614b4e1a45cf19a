package kvcache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
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
			x.run(t, a, s, 0, 40)
			var file bytes.Buffer
			_, err := s.WriteTo(&file)
			must(t, err)
			parts := 0
			for _, st := range s.heads {
				var part bytes.Buffer
				_, err := st.WriteTo(&part)
				must(t, err)
				parts += part.Len()
			}
			end := file.Len() - parts - 4 // where the sum is
			try := func(what string, data []byte) {
				t.Helper()
				defer func() {
					if r := recover(); r != nil {
						t.Errorf("%s: panic %v", what, r)
					}
				}()
				back, err := a.ReadState(bytes.NewReader(data))
				if err != nil {
					if !errors.Is(err, ErrState) {
						t.Errorf("%s: %v", what, err)
					}
					return
				}
				carryOn(t, what, a, back, &x)
			}
			words, tried := 0, 0
			for at := 24; at+8 <= end && words < 30; at += 8 {
				words++
				was := int64(binary.LittleEndian.Uint64(file.Bytes()[at:]))
				for _, v := range []int64{0, 1, was - 1, was + 1, 2 * was, -1, 3, 39, 40, 41, 1 << 31, 1 << 57, 1 << 58, 1 << 60, math.MaxInt64} {
					if tried++; testing.Short() && tried%4 != 0 { // the values, and the words, in turn
						continue
					}
					data := bytes.Clone(file.Bytes())
					binary.LittleEndian.PutUint64(data[at:], uint64(v))
					binary.LittleEndian.PutUint32(data[end:], crc32.ChecksumIEEE(data[:end]))
					try(fmt.Sprintf("%d in place of %d at byte %d of %d", v, was, at, end), data)
				}
			}
			for at := 0; at < file.Len(); at += 1 + file.Len()/37 {
				try(fmt.Sprintf("cut at byte %d", at), file.Bytes()[:at])
				data := bytes.Clone(file.Bytes())
				data[at] ^= 0x40
				if _, err := a.ReadState(bytes.NewReader(data)); !errors.Is(err, ErrState) {
					t.Errorf("a flipped bit in byte %d: %v", at, err)
				}
			}
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
	sure := Cached{Select: Top{Tokens: 5}, Similarity: -1}
	for _, c := range []struct {
		name  string
		p     Selector
		spoil func(t *testing.T, s *State)
	}{
		{"a choice without a query", sure, cached(func(x *cachedIndex) { x.query = nil })},
		{"a choice without lists", sure, cached(func(x *cachedIndex) { x.choice.Lists = nil })},
		{"a choice of three lists", sure, cached(func(x *cachedIndex) { x.choice.Lists = append(x.choice.Lists, nil) })},
		{"Top with gaps", Top{Tokens: 5}, gaps},
		{"Quest with gaps", Quest{Page: 4, Budget: 8}, gaps},
		{"RetroInfer with gaps", RetroInfer{Segment: 16}, gaps},
		{"Landmarks with gaps", Landmarks{Block: 4, Blocks: 2}, gaps},
		{"TokenSelect of 8 bits with gaps", TokenSelect{Tokens: 5, Bits: 8}, gaps},
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
				s := newState(t, a, StateConfig{Rollback: 3})
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

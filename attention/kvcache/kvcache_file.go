package kvcache

import (
	"io"
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// A state's file is a head, with the fingerprint, the numbers and what the policies know,
// then the files of the attention.States of its key heads.
const stateKind = "sqKVcac\x01"

// WriteTo writes the state, for a ReadState of an operator of the same configuration, on
// any machine: io.WriterTo. What is read back goes on bit for bit on a machine with the
// same tier. Versions for Truncate are not written. Errors match ErrState or are those of w.
func (s *State) WriteTo(w io.Writer) (int64, error) {
	if s.op == nil {
		return 0, check.Unmade("kvcache")
	}
	if err := check.Stream(ErrState, "kvcache", "writer", w); err != nil {
		return 0, err
	}
	f := state.NewWriter(w, stateKind, []int64{int64(s.op.print)})
	f.Ints(int64(s.n), int64(s.floor), int64(s.cfg.Format), int64(s.cfg.MaxTokens), int64(s.cfg.Snapshots))
	for g, st := range s.heads {
		f.Ints(int64(st.Held()), state.Bool(s.at[g] != nil))
	}
	if s.index != nil {
		s.index.save(f)
	}
	s.marks.save(f)
	parts := make([]io.WriterTo, len(s.heads))
	for g, st := range s.heads {
		parts[g] = st
	}
	return f.End(parts...)
}

// ReadState reads what WriteTo wrote; the state has memory of its own, also if it was one
// of pages: see ReadFrom. Errors match ErrState, or are r's. No more memory is taken than a
// small multiple of the bytes that there are to read.
func (a *Attention) ReadState(r io.Reader) (*State, error) {
	s, err := a.NewState(StateConfig{})
	if err != nil {
		return nil, err
	}
	if _, err := s.fill(r, true); err != nil {
		return nil, err
	}
	return s, nil
}

// ReadFrom fills an empty state with what one of the same Config and Format wrote, in the
// memory that the state's own StateConfig says: pages, a file. It is io.ReaderFrom, but
// reads no further than the state goes. Errors match ErrState, ErrFull where there is no
// room, or are r's; after one the state is empty.
func (s *State) ReadFrom(r io.Reader) (int64, error) {
	if s.op == nil {
		return 0, check.Unmade("kvcache")
	}
	if s.n != 0 {
		return 0, check.Errorf(ErrState, "kvcache: ReadFrom into a state with %d tokens, want an empty one", s.n)
	}
	n, err := s.fill(r, false)
	if err != nil {
		s.Reset()
	}
	return n, err
}

// fill reads a state into an empty one; where the configuration is to be the file's, that
// too.
func (s *State) fill(r io.Reader, own bool) (int64, error) {
	if err := check.Stream(ErrState, "kvcache", "reader", r); err != nil {
		return 0, err
	}
	a := s.op
	f := state.NewReader(r, "kvcache", ErrState, stateKind, []int64{int64(a.print)})
	n, floor, format, room, snapshots := f.Int(), f.Int(), f.Int(), f.Int(), f.Int()
	switch {
	case f.Err() != nil:
	case n < 0 || n > mostTokens || floor < 0 || floor > n || format < 0 || format > int64(asm.Float16) || room < 0 || room > math.MaxInt || snapshots < 0 || snapshots > maxSnapshots:
		f.Fail("it has %d tokens, %d before the last forgotten, of Format %d, MaxTokens %d, Snapshots %d", n, floor, format, room, snapshots)
	case room > 0 && a.cfg.Evict == nil && n > room:
		f.Fail("it has %d tokens, of at most MaxTokens = %d", n, room)
	case !own && format != int64(s.cfg.Format):
		f.Fail("it was written by a state of Format %d, want %d", format, s.cfg.Format)
	}
	held, gaps := make([]int64, a.cfg.KVHeads), make([]bool, a.cfg.KVHeads)
	for g := range held {
		held[g] = f.Int()
		gaps[g] = f.Int() != 0
		switch {
		case f.Err() != nil:
		case held[g] < 0 || held[g] > n || !gaps[g] && held[g] != n:
			f.Fail("key head %d holds %d of %d tokens", g, held[g], n)
		case gaps[g] && a.cfg.Evict == nil: // an index goes by rows that are positions
			f.Fail("key head %d has forgotten tokens, of an operator without an Evictor", g)
		}
	}
	if err := f.Err(); err != nil {
		return f.N(), err
	}
	if own {
		s.cfg = StateConfig{Format: asm.Format(format), MaxTokens: int(room), Snapshots: int(snapshots)}
		s.ring = newRing(s.cfg.Snapshots)
	}
	s.n, s.floor = int(n), int(floor)
	var delayed *questIndex // which is made of the keys
	if s.index != nil {
		if delayed = keyed(s.index); delayed == nil {
			s.index.load(f, s)
		} else if c, ok := s.index.(*cachedIndex); ok {
			c.loadChoice(f, s)
		}
	}
	s.marks.load(f, s, held)
	if err := f.End(); err != nil {
		return f.N(), err
	}
	read := f.N()
	for g := range s.heads {
		m, err := s.fillHead(r, g, own)
		if read += m; err != nil {
			return read, named(err)
		}
		st := s.heads[g]
		if of := st.Config(); own && (of.MaxTokens != s.cfg.MaxTokens || of.Window != 0 || of.SharedValues || of.LogWeights) {
			return read, check.Errorf(ErrState, "kvcache: key head %d of a stored state is of another MaxTokens, or has a Window, SharedValues or LogWeights", g)
		}
		if st.Len() != s.n || st.Held() != int(held[g]) || st.Config().Format != s.cfg.Format {
			return read, check.Errorf(ErrState, "kvcache: key head %d of a stored state has %d tokens, holds %d, want %d and %d", g, st.Len(), st.Held(), s.n, held[g])
		}
		if gaps[g] {
			for _, p := range st.Positions(nil) {
				s.at[g] = append(s.at[g], int(p))
			}
		}
	}
	if delayed != nil {
		delayed.load(f, s)
	}
	return read, nil
}

// fillHead reads a key head, where own says so into memory of its own.
func (s *State) fillHead(r io.Reader, head int, own bool) (int64, error) {
	if !own {
		return s.heads[head].ReadFrom(r)
	}
	st, err := s.op.op.ReadState(r)
	if err == nil {
		s.heads[head] = st
	}
	return 0, err
}

// keyed returns the index of bounds that an index is or wraps, or nil.
func keyed(x index) *questIndex {
	switch x := x.(type) {
	case *questIndex:
		return x
	case *cachedIndex:
		return keyed(x.inner)
	}
	return nil
}

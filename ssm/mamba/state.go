package mamba

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/ssm"
)

// State is what a model remembers of the tokens it has seen, in memory that does
// not grow: a prefix that can be kept, copied and gone on from. It is made by a
// model's NewState and must not be used by two calls at once.
type State struct {
	model  *Model
	layers []*ssm.State
	ring   []snapshot
	next   int
}

type snapshot struct {
	layers []*ssm.State
	n      int // -1 for none
}

// NewState returns an empty state.
func (m *Model) NewState(cfg ssm.StateConfig) (*State, error) {
	if cfg.Snapshots < 0 || cfg.Snapshots > 1<<20 {
		return nil, check.Errorf(ErrConfig, "mamba: Snapshots is %d, want 0 to %d", cfg.Snapshots, 1<<20)
	}
	st := &State{model: m, layers: m.newLayers()}
	for range cfg.Snapshots {
		st.ring = append(st.ring, snapshot{m.newLayers(), -1})
	}
	if err := st.SetFilter(cfg.Filter, cfg.Prompt); err != nil {
		return nil, err
	}
	return st, nil
}

func (m *Model) newLayers() (list []*ssm.State) {
	for _, l := range m.layers {
		st, err := l.mixer.NewState(ssm.StateConfig{})
		if err != nil {
			panic(err) // the configuration is not ours
		}
		list = append(list, st)
	}
	return list
}

// copyLayers copies the states of the same model's layers.
func copyLayers(dst, from []*ssm.State) {
	for i, st := range dst {
		if err := st.CopyFrom(from[i]); err != nil {
			panic(err)
		}
	}
}

// Len returns how many tokens the state has seen.
func (st *State) Len() int {
	if len(st.layers) == 0 {
		return 0
	}
	return st.layers[0].Len()
}

// Bytes returns the memory of the state, with its snapshots.
func (st *State) Bytes() (n int) {
	for _, l := range st.layers {
		n += l.Bytes() * (1 + len(st.ring))
	}
	return n
}

// Reset makes the state what NewState made it; a filter stays.
func (st *State) Reset() {
	for _, l := range st.layers {
		l.Reset()
	}
	st.forget(0)
}

// forget drops the snapshots behind more than n tokens.
func (st *State) forget(n int) {
	for i := range st.ring {
		if s := &st.ring[i]; s.n > n {
			s.n = -1
		}
	}
}

// Clone returns a copy, snapshots included: a fork, each side of which goes on by
// itself.
func (st *State) Clone() *State {
	c := &State{model: st.model, next: st.next, ring: slices.Clone(st.ring)}
	clone := func(list []*ssm.State) (out []*ssm.State) {
		for _, l := range list {
			out = append(out, l.Clone())
		}
		return out
	}
	c.layers = clone(st.layers)
	for i := range c.ring {
		c.ring[i].layers = clone(c.ring[i].layers)
	}
	return c
}

// CopyFrom makes the state what another of the same model is, filter included and
// without its snapshots; those of st are forgotten. It allocates nothing.
func (st *State) CopyFrom(from *State) error {
	if st.model == nil {
		return check.Errorf(ErrShape, "mamba: the state was not made by NewState")
	}
	if err := st.model.checkState(from); err != nil || from == st {
		return err
	}
	copyLayers(st.layers, from.layers)
	st.forget(-1)
	return nil
}

// Truncate goes back to the first n tokens, of which the state must have a
// snapshot (ssm.StateConfig.Snapshots: it keeps those behind its last calls) unless
// n is 0 or Len. It returns an error that matches ErrState, and changes nothing,
// where there is none.
func (st *State) Truncate(n int) error {
	switch {
	case n == st.Len():
		return nil
	case n == 0:
		st.Reset()
		return nil
	}
	found := slices.IndexFunc(st.ring, func(s snapshot) bool { return s.n == n })
	if found < 0 {
		return check.Errorf(ErrState, "mamba: no snapshot behind %d tokens in a state of %d; it keeps those behind its last %d calls", n, st.Len(), len(st.ring))
	}
	copyLayers(st.layers, st.ring[found].layers)
	st.forget(n)
	st.next = (found + 1) % len(st.ring)
	return nil
}

// keep takes a snapshot.
func (st *State) keep() {
	if len(st.ring) == 0 {
		return
	}
	s := &st.ring[st.next]
	copyLayers(s.layers, st.layers)
	s.n = st.Len()
	st.next = (st.next + 1) % len(st.ring)
}

func (m *Model) checkState(st *State) error {
	switch {
	case st == nil:
		return check.Errorf(ErrShape, "mamba: the state is nil")
	case st.model == nil:
		return check.Errorf(ErrShape, "mamba: the state was not made by NewState")
	case st.model != m:
		return check.Errorf(ErrShape, "mamba: the state is of another model")
	}
	return nil
}

var magic = [8]byte{'s', 'u', 'b', 'q', 'm', 'a', 'm', '1'}

// WriteTo stores the state, without its snapshots and filter: a header, and then
// each layer's as package ssm stores them, with fingerprints of the layers' weights.
// It implements io.WriterTo.
func (st *State) WriteTo(w io.Writer) (int64, error) {
	if st.model == nil {
		return 0, check.Errorf(ErrShape, "mamba: the state was not made by NewState")
	}
	written, err := w.Write(binary.LittleEndian.AppendUint64(slices.Clone(magic[:]), uint64(len(st.layers))))
	n := int64(written)
	for _, l := range st.layers {
		if err != nil {
			break
		}
		var k int64
		k, err = l.WriteTo(w)
		n += k
	}
	return n, wrap(err)
}

// ReadState reads a state that WriteTo wrote, of this model or of one read from the
// same checkpoint. Errors match ErrState or are those of r.
func (m *Model) ReadState(r io.Reader) (*State, error) {
	var head [16]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, check.Errorf(ErrState, "mamba: not a stored state: %v", err)
	}
	if [8]byte(head[:]) != magic {
		return nil, check.Errorf(ErrState, "mamba: not a stored state")
	}
	if n := binary.LittleEndian.Uint64(head[8:]); n != uint64(len(m.layers)) {
		return nil, check.Errorf(ErrState, "mamba: the stored state has %d layers, want %d", n, len(m.layers))
	}
	st := &State{model: m}
	for i, l := range m.layers {
		s, err := l.mixer.ReadState(r)
		if err != nil {
			return nil, check.Errorf(ErrState, "mamba: layer %d: %v", i, err)
		}
		if i > 0 && s.Len() != st.Len() {
			return nil, check.Errorf(ErrState, "mamba: layer %d has seen %d tokens, layer 0 %d", i, s.Len(), st.Len())
		}
		st.layers = append(st.layers, s)
	}
	return st, nil
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("mamba: %w", err)
}

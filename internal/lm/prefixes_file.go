package lm

import (
	"errors"
	"fmt"
	"io"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// The file of Prefixes begins with kindPrefixes, the model and how states keep what they do, and
// how many prefixes there are; each begins with kindPrefix, and has its parent's number, which is
// less than its own, its tokens, its pages and states.
const (
	kindPrefixes = "subqpfs1"
	kindPrefix   = "subqpfx1"
)

// print is what tells caches apart whose states mean something else.
func (p *Prefixes) print() []int64 {
	s := &p.cfg.State
	return []int64{int64(p.m.fingerprint), prefixTokens, int64(s.Length), int64(s.Policy), int64(s.Format), int64(s.Window), int64(s.Keep), state.Bool(s.WindowsOnly), state.Bool(s.Policies != nil)}
}

// WriteTo stores all that is kept, with a fingerprint of the model; it implements io.WriterTo.
// Other goroutines may go on meanwhile.
func (p *Prefixes) WriteTo(w io.Writer) (int64, error) {
	if w == nil {
		return 0, check.Errorf(subquad.ErrState, "%s: the writer is nil", p.m.cfg.Package)
	}
	type stored struct {
		*prefix
		parent int64
		whole  []LayerState
	}
	var list []stored
	p.mu.Lock()
	numbers := map[*prefix]int64{&p.root: -1}
	for x := p.root.older; x != &p.root; x = x.older { // parents first
		numbers[x] = int64(len(list))
		list = append(list, stored{x, numbers[x.parent], x.whole})
	}
	p.mu.Unlock()
	head := state.NewWriter(w, kindPrefixes, p.print())
	head.Ints(int64(len(list)))
	n, err := head.End()
	var parts []io.WriterTo
	for i := 0; i < len(list) && err == nil; i++ {
		x := &list[i]
		f := state.NewWriter(w, kindPrefix, nil)
		f.Ints(x.parent, state.Bool(x.whole != nil), int64(len(x.tokens)))
		for _, id := range x.tokens {
			f.Ints(int64(id))
		}
		parts = parts[:0]
		for j := range p.pages {
			if x.pages[j] != nil {
				parts = append(parts, x.pages[j])
			} else if x.whole != nil {
				parts = append(parts, x.whole[j])
			}
		}
		var m int64
		m, err = f.End(parts...)
		n += m
	}
	return n, wrapped(p.m.cfg.Package, err)
}

// ReadPrefixes reads what Prefixes.WriteTo wrote, of this model or of one with the same
// configuration and weights, and of states of the same StateConfig. What MaxBytes has no room for
// is left out, the least recently used. Errors match ErrConfig, ErrState or are those of r.
func (m *Model) ReadPrefixes(r io.Reader, cfg PrefixConfig) (*Prefixes, error) {
	p, err := m.NewPrefixes(cfg)
	if err != nil {
		return nil, err
	}
	pkg := m.cfg.Package
	if r == nil {
		return nil, check.Errorf(subquad.ErrState, "%s: the reader is nil", pkg)
	}
	head := state.NewReader(r, pkg, subquad.ErrState, kindPrefixes, p.print())
	count := head.Int()
	if err := head.End(); err != nil {
		return nil, err
	}
	if count < 0 {
		return nil, check.Errorf(subquad.ErrState, "%s: state: %d prefixes", pkg, count)
	}
	var list []*prefix // nil of those that are left out
	for i := range count {
		x, err := p.readPrefix(r, list)
		switch {
		case err != nil && errors.Is(err, subquad.ErrFull):
			return nil, check.Errorf(subquad.ErrState, "%s: prefix %d: %v", pkg, i, err)
		case err != nil:
			return nil, fmt.Errorf("%s: prefix %d: %w", pkg, i, err)
		}
		if x.parent != nil && x.bytes <= p.cfg.MaxBytes-p.used {
			p.add(x, x.parent)
			x.unlink()
			x.linkAfter(p.root.newer)
		} else {
			x = nil
		}
		list = append(list, x)
	}
	return p, nil
}

// readPrefix reads a prefix after others; it has no parent where that was left out.
func (p *Prefixes) readPrefix(r io.Reader, list []*prefix) (*prefix, error) {
	pkg := p.m.cfg.Package
	f := state.NewReader(r, pkg, subquad.ErrState, kindPrefix, nil)
	number, whole, n := f.Int(), f.Int(), f.Int()
	if f.Err() == nil && (number < -1 || number >= int64(len(list)) || whole>>1 != 0 || whole == 1 && !p.whole || n < 1 || n > prefixTokens) {
		f.Fail("a prefix of %d tokens after number %d of %d, with states: %d", n, number, len(list), whole)
	}
	if f.Err() != nil {
		return nil, f.Err()
	}
	parent, known := &p.root, true
	if number >= 0 {
		if parent = list[number]; parent == nil {
			parent, known = new(prefix), false
		} else if len(parent.tokens) != prefixTokens {
			f.Fail("a prefix after one of %d tokens, want %d", len(parent.tokens), prefixTokens)
		}
	}
	tokens := make([]int32, n)
	for i := range tokens {
		id := f.Int()
		if f.Err() == nil && (id < 0 || id >= int64(p.m.vocab)) {
			f.Fail("token %d, want 0 to %d", id, p.m.vocab-1)
		}
		tokens[i] = int32(id)
	}
	if err := f.End(); err != nil {
		return nil, err
	}
	x := p.newPrefix(parent, tokens)
	if known && p.twice(x) {
		return nil, check.Errorf(subquad.ErrState, "%s: state: the same tokens twice", pkg)
	}
	if whole == 1 {
		x.whole = make([]LayerState, len(p.pages))
	}
	for i, s := range p.m.streamers {
		var err error
		switch {
		case p.pages[i] != nil:
			if x.pages[i], err = p.pages[i].ReadPage(r); err == nil && x.pages[i].Tokens() != int(n) {
				err = check.Errorf(subquad.ErrState, "%d tokens, want %d", x.pages[i].Tokens(), n)
			}
		case whole == 1:
			x.whole[i], err = p.readWhole(r, s, i)
			if err == nil && known && x.whole[i].Len() != x.end {
				err = check.Errorf(subquad.ErrState, "a state of %d tokens, want %d", x.whole[i].Len(), x.end)
			}
			if err == nil {
				x.bytes += x.whole[i].Bytes()
			}
		}
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	if !known {
		x.parent = nil
	}
	return x, nil
}

// twice tells whether what a prefix stands for is there already.
func (p *Prefixes) twice(x *prefix) bool {
	for _, y := range x.parent.children[x.tokens[0]] {
		same := common(x.tokens, y.tokens)
		if same == len(x.tokens) && same == len(y.tokens) || !p.whole && same == min(len(x.tokens), len(y.tokens)) {
			return true
		}
	}
	return false
}

// readWhole reads the state of a mixer, which must be of the same StateConfig.
func (p *Prefixes) readWhole(r io.Reader, s Streamer, i int) (LayerState, error) {
	var l LayerState
	var err error
	if c, ok := s.(ConfigReader); ok {
		l, err = c.ReadStateWith(r, p.cfg.State)
	} else {
		l, err = s.ReadState(r)
	}
	if err != nil {
		return nil, err
	}
	if like, ok := p.like[i].(interface{ Alike(LayerState) bool }); ok && !like.Alike(l) {
		return nil, check.Errorf(subquad.ErrState, "a state of another StateConfig")
	}
	return l, nil
}

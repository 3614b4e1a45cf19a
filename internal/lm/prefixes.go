package lm

import (
	"context"
	"slices"
	"sync"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/ssm"
)

// PrefixConfig says what Prefixes keep.
type PrefixConfig struct {
	// MaxBytes bounds the memory of what is kept, those of states that Lookup has made and
	// their later tokens not counted; what was used least recently goes first. It must be
	// given.
	MaxBytes int64
	// Every is after how many tokens Prefill notes what recurrences, and keys and values with a
	// window, have come to: a multiple of 64, 0 for 512. Models that have neither go on from any
	// token.
	Every int
	// State is the StateConfig of the states that Lookup makes, and that Insert takes.
	State StateConfig
}

// prefixTokens is how many tokens a page has: the grid of recurrences, so that what goes on
// from a page's end has the bits of the whole.
const prefixTokens = ssm.Chunk

// Prefixes keeps what a model has computed of texts, for others that begin with the same
// tokens: keys and values of any number of the first tokens, in pages that texts and the
// states of Lookup share, and recurrent states after some of them. It is safe for concurrent
// use.
type Prefixes struct {
	m     *Model
	cfg   PrefixConfig
	pages []Pages      // of each mixer, nil where its states are kept whole
	like  []LayerState // an empty state of each mixer
	whole bool         // some mixer's states are

	mu   sync.Mutex
	root prefix // of no tokens; and the ends of the list by use
	used int64  // bytes
	held int    // tokens
}

// NewPrefixes returns an empty cache of a model's prefixes. Errors match ErrConfig, or ErrCall
// where the model cannot go on from a state.
func (m *Model) NewPrefixes(cfg PrefixConfig) (*Prefixes, error) {
	pkg := m.cfg.Package
	if cfg.Every == 0 {
		cfg.Every = 512
	}
	switch {
	case cfg.MaxBytes <= 0:
		return nil, check.Errorf(subquad.ErrConfig, "%s: MaxBytes is %d, want 1 or more", pkg, cfg.MaxBytes)
	case cfg.Every < 0 || cfg.Every%prefixTokens != 0:
		return nil, check.Errorf(subquad.ErrConfig, "%s: Every is %d, want a multiple of %d", pkg, cfg.Every, prefixTokens)
	}
	one := cfg.State
	one.MaxTokens = min(one.MaxTokens, 1) // no memory for what is only looked at
	empty, err := m.NewState(one)
	if err != nil {
		return nil, err
	}
	p := &Prefixes{m: m, cfg: cfg, like: empty.layers}
	p.root.newer, p.root.older = &p.root, &p.root
	for _, s := range m.streamers {
		var pages Pages
		if pager, ok := s.(Pager); ok {
			if pages, err = pager.NewPages(cfg.State, prefixTokens); err != nil {
				return nil, wrapped(pkg, err)
			}
		}
		p.pages = append(p.pages, pages)
		p.whole = p.whole || pages == nil
	}
	return p, nil
}

// Bytes returns the memory of what is kept, never more than MaxBytes.
func (p *Prefixes) Bytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used
}

// Len returns how many tokens are kept, those that several texts begin with counted once.
func (p *Prefixes) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

// Reset forgets all.
func (p *Prefixes) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.root.newer != &p.root {
		p.remove(p.root.newer)
	}
}

// Lookup returns a state of the first n of some tokens, as many as are known but not the last,
// which is to be run for its logits; n may be 0. The state is the caller's. It shares keys and
// values with what is kept until it goes on within a page, and costs the copy of a recurrent
// state.
func (p *Prefixes) Lookup(tokens []int32) (st *State, n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	end, n := p.find(tokens[:max(len(tokens)-1, 0)])
	p.touch(end)
	if st, err = p.join(end, n); err != nil {
		return nil, 0, err
	}
	return st, n, nil
}

// join returns a state of the first n tokens of a path.
func (p *Prefixes) join(end *prefix, n int) (*State, error) {
	var path []*prefix
	for x := end; x != &p.root; x = x.parent {
		path = append(path, x)
	}
	slices.Reverse(path)
	if n == 0 {
		path = nil
	}
	st := p.m.emptyState()
	st.tokens = n
	for i, s := range p.m.streamers {
		var l LayerState
		var err error
		switch {
		case p.pages[i] != nil:
			list := make([]Page, len(path))
			for j, x := range path {
				list[j] = x.pages[i]
			}
			l, err = p.pages[i].Join(list, n)
		case n > 0:
			l = end.whole[i].Clone()
		default:
			l, err = s.NewState(p.cfg.State)
		}
		if err != nil {
			return nil, wrapped(p.m.cfg.Package, err)
		}
		st.layers = append(st.layers, l)
	}
	st.ring = state.NewRing(p.cfg.State.Snapshots, st.newMarks)
	return st, nil
}

// Insert keeps what a state has of some tokens, the first that it has seen and, where the model
// has recurrences or windows, all of them. Pages of a state that Lookup made are shared, others
// copied. Less recently used ones make room, and what has none is not kept: that
// is no error. Errors match ErrShape or ErrState; a state that has a filter, forgets tokens or is
// of another StateConfig is not taken.
func (p *Prefixes) Insert(tokens []int32, st *State) error {
	if err := p.accept(tokens, st); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return wrapped(p.m.cfg.Package, p.insert(tokens, st))
}

// accept returns an error where a state is none of some tokens that could be kept.
func (p *Prefixes) accept(tokens []int32, st *State) error {
	pkg := p.m.cfg.Package
	if err := p.m.checkState("State", st); err != nil {
		return err
	}
	for t, id := range tokens {
		if id < 0 || int(id) >= p.m.vocab {
			return check.Errorf(subquad.ErrShape, "%s: Tokens[%d] is %d, want 0 to %d", pkg, t, id, p.m.vocab-1)
		}
	}
	switch {
	case len(tokens) > st.tokens:
		return check.Errorf(subquad.ErrState, "%s: the state has seen %d tokens, want all of %d", pkg, st.tokens, len(tokens))
	case p.whole && len(tokens) < st.tokens:
		return check.Errorf(subquad.ErrState, "%s: the state has seen %d tokens, want no more than %d, as it cannot go back", pkg, st.tokens, len(tokens))
	}
	for i, l := range st.layers {
		if r, ok := l.(*recurrentState); ok && r.filter != nil {
			return check.Errorf(subquad.ErrState, "%s: the state has a filter of its own", pkg)
		}
		if p.pages[i] != nil || len(tokens) == 0 {
			continue
		}
		if like, ok := p.like[i].(interface{ Alike(LayerState) bool }); ok && !like.Alike(l) {
			return check.Errorf(subquad.ErrState, "%s: the state is of another StateConfig", pkg)
		}
	}
	return nil
}

// Prefill returns a state of all of some tokens, made of what is known of them and of a run of the
// others, which are kept; known is how many were. last, if given, is set to the logits [1, V]
// after the last of them. Where ctx ends, what was computed before is kept all the same.
func (p *Prefixes) Prefill(ctx context.Context, tokens []int32, last blas32.General) (st *State, known int, err error) {
	if err := check.Call(p.m.cfg.Package, ctx, true); err != nil {
		return nil, 0, err
	}
	if st, known, err = p.Lookup(tokens); err != nil {
		return nil, 0, err
	}
	for at, begun := known, false; !begun || at < len(tokens); begun = true {
		to := len(tokens)
		if p.whole {
			to = min((at/p.cfg.Every+1)*p.cfg.Every, to)
		}
		call := Call{Tokens: tokens[at:to], State: st}
		if to == len(tokens) {
			call.Last = last
		}
		err := p.m.Run(ctx, &call)
		if at = st.Len(); err == nil || !p.whole && at > known {
			if e := p.Insert(tokens[:at], st); err == nil {
				err = e
			}
		}
		if err != nil {
			return nil, 0, err
		}
	}
	return st, known, nil
}

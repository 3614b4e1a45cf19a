package attention

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"

	"github.com/subquad/subquad/internal/check"
)

// Page is some tokens of a state, those of a page, which states share that are joined of
// pages. Its keys and values do not change. It is safe for concurrent use.
type Page struct {
	pages  *Pages
	b      *block
	tokens int
	turns  uint64 // what keys are rotated by
}

// Tokens returns how many tokens the page has.
func (g *Page) Tokens() int { return g.tokens }

// PageTokens returns how many tokens a page has at the most, and PageBytes its memory,
// which a page of fewer tokens takes too.
func (p *Pages) PageTokens() int { return p.cfg.PageTokens }

// PageBytes returns the memory of a page.
func (p *Pages) PageBytes() int64 {
	state := p.stateConfig()
	return int64(p.cfg.PageTokens) * p.op.tokenBytes(&state)
}

// Take returns tokens from ... from+n of a state as a page: the state's own page, shared from now
// on, where it begins there and is one of p, and otherwise a copy, of a state whose Format,
// SharedValues and LogWeights are those of p. n is 1 to PageTokens. Errors match ErrState, ErrCall
// or ErrFull.
func (p *Pages) Take(st *State, from, n int) (*Page, error) {
	c := &p.cfg
	switch {
	case st == nil:
		return nil, check.NilState("attention", "State")
	case st.op == nil || st.op.print != p.op.print:
		return nil, check.Errorf(ErrState, "attention: State belongs to an operator of another Config than the pool")
	case st.cfg.Format != c.Format || st.cfg.SharedValues != c.SharedValues || st.cfg.LogWeights != c.LogWeights:
		return nil, check.Errorf(ErrState, "attention: State is of another Format, SharedValues or LogWeights than the pool")
	case st.cfg.Window > 0:
		return nil, check.Errorf(ErrState, "attention: State is a ring, want one that keeps all tokens")
	case n < 1 || n > c.PageTokens || from < 0 || from > st.n-n:
		return nil, check.Errorf(ErrCall, "attention: tokens %d to %d of a state of %d, in a page of %d", from, from+n, st.n, c.PageTokens)
	case !st.Holds(from, from+n):
		return nil, check.Errorf(ErrState, "attention: State does not hold all tokens from %d to %d", from, from+n)
	}
	g := &Page{pages: p, tokens: n, turns: st.turns()}
	if st.cfg.Pages == p && st.list == nil && st.first == 0 && st.skip == 0 && from%c.PageTokens == 0 {
		g.b = st.blocks[from/c.PageTokens]
		p.addRefs(st.blocks[from/c.PageTokens:][:1])
		return g, nil
	}
	b, err := p.get()
	if err != nil {
		return nil, err
	}
	at := 0
	for _, x := range st.spans(nil, from, from+n) {
		b.moveRows(at, x.b, x.row, x.n)
		at += x.n
	}
	g.b = b
	return g, nil
}

// turns tells apart what states rotate their keys by.
func (s *State) turns() uint64 {
	list := s.rotationPrint()
	if list == nil {
		return 0
	}
	h, b := fnv.New64a(), make([]byte, 0, 8*len(list))
	for _, x := range list {
		b = binary.LittleEndian.AppendUint64(b, uint64(x))
	}
	h.Write(b)
	return h.Sum64() | 1
}

// Join returns a state of the first tokens of pages of p, which it shares until it writes to one,
// as all do that have a part in it: only the last page may be longer than what is wanted of it, or
// not full. cfg is as in NewState, of p's operator, and must rotate keys as they were when the
// pages were taken. Errors match ErrConfig, or ErrState about the pages.
func (p *Pages) Join(cfg StateConfig, pages []*Page, tokens int) (*State, error) {
	cfg.Pages, cfg.Table, cfg.Tokens = p, nil, 0
	s, err := p.op.NewState(cfg)
	if err != nil {
		return nil, err
	}
	most, turns := p.cfg.PageTokens, s.turns()
	if tokens < 0 || len(pages) != tokens/most+min(tokens%most, 1) || cfg.MaxTokens > 0 && tokens > cfg.MaxTokens {
		return nil, check.Errorf(ErrState, "attention: %d pages of %d tokens for a state of %d of at most %d", len(pages), most, tokens, cfg.MaxTokens)
	}
	for i, g := range pages {
		switch {
		case g == nil || g.pages != p:
			return nil, check.Errorf(ErrState, "attention: pages[%d] is not of the pool", i)
		case g.tokens < min(most, tokens-i*most):
			return nil, check.Errorf(ErrState, "attention: pages[%d] has %d tokens, want %d", i, g.tokens, min(most, tokens-i*most))
		case g.turns != turns:
			return nil, check.Errorf(ErrState, "attention: the keys of pages[%d] are rotated otherwise", i)
		}
		s.blocks = append(s.blocks, g.b)
	}
	p.addRefs(s.blocks)
	s.n, s.high, s.reached = tokens, tokens, tokens
	if s.schedule != nil {
		if s.rotation, _, err = s.schedule.Step(int64(tokens)); err != nil {
			return nil, check.Errorf(ErrConfig, "attention: %v", err)
		}
	}
	return s, nil
}

// Release gives a page back to its pool, unless others have it; it is needed, once, where pages
// are not Collected, and the page must not be used afterwards.
func (g *Page) Release() { g.pages.release([]*block{g.b}) }

// WriteTo writes the page, with a fingerprint of the operator: io.WriterTo. Errors match
// ErrState or are those of w.
func (g *Page) WriteTo(w io.Writer) (int64, error) {
	s := State{op: g.pages.op, cfg: g.pages.stateConfig(), n: g.tokens, high: g.tokens, reached: g.tokens, blocks: []*block{g.b}}
	return s.WriteTo(w)
}

// ReadPage reads a page that Page.WriteTo wrote, for states of a StateConfig that Join will be
// given: a Rotation is not in the file. Errors match ErrConfig, ErrState or ErrFull, or are r's.
func (p *Pages) ReadPage(r io.Reader, cfg StateConfig) (*Page, error) {
	cfg.Pages, cfg.Table, cfg.Tokens, cfg.MaxTokens = p, nil, 0, 0
	like, err := p.op.NewState(cfg)
	if err != nil {
		return nil, err
	}
	s, err := p.op.NewState(StateConfig{Pages: p, MaxTokens: p.cfg.PageTokens})
	if err != nil {
		return nil, err
	}
	if _, err := s.ReadFrom(r); errors.Is(err, ErrFull) && p.Free() > 0 {
		return nil, check.Errorf(ErrState, "%v", err)
	} else if err != nil {
		return nil, err
	}
	if s.n == 0 {
		return nil, check.Errorf(ErrState, "attention: a stored page of no tokens")
	}
	return &Page{pages: p, b: s.blocks[0], tokens: s.n, turns: like.turns()}, nil
}

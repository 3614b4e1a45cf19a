package attention

import (
	"math"
	"sync"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
)

// PagesConfig fixes a pool of pages.
type PagesConfig struct {
	// PageTokens is how many tokens a page holds; 0 stands for 64.
	PageTokens int
	// MaxPages is how many pages there may be; 0 for no bound. Memory is taken when a
	// page is first needed, and kept for the next that needs one.
	MaxPages int
	// Format, SharedValues and LogWeights are as in StateConfig.
	Format                   asm.Format
	SharedValues, LogWeights bool
	// Collected leaves pages to the garbage collector: the pool keeps none, and a state or
	// Page that nobody has any more need not be reset or released. Pages have no numbers
	// then (State.Table, StateConfig.Table), Used and Bytes are 0, and MaxPages must be.
	Collected bool
}

// Pages is a pool of pages for the states of one operator: sequences of unknown
// length share memory without gaps (Kwon et al. 2023, arXiv 2309.06180), and a
// state's clones share its pages until one of them writes. It is safe for
// concurrent use.
type Pages struct {
	op  *Attention
	cfg PagesConfig

	mu    sync.Mutex
	pages []*block
	free  []int
}

// NewPages returns a pool without pages, or an error that matches ErrConfig.
func (a *Attention) NewPages(cfg PagesConfig) (*Pages, error) {
	if cfg.PageTokens == 0 {
		cfg.PageTokens = 64
	}
	switch {
	case cfg.PageTokens < 0:
		return nil, check.Errorf(ErrConfig, "attention: PageTokens is %d, want 0 or more", cfg.PageTokens)
	case cfg.MaxPages < 0:
		return nil, check.Errorf(ErrConfig, "attention: MaxPages is %d, want 0 or more", cfg.MaxPages)
	case cfg.Collected && cfg.MaxPages > 0:
		return nil, check.Errorf(ErrConfig, "attention: MaxPages is %d of pages that are Collected, which are not counted", cfg.MaxPages)
	}
	p := &Pages{op: a, cfg: cfg}
	state := p.stateConfig()
	if err := a.checkStateConfig(&state); err != nil {
		return nil, err
	}
	if err := a.checkRoom(&state, cfg.PageTokens); err != nil {
		return nil, err
	}
	return p, nil
}

// Free returns how many pages a state could still get, and Used how many are in
// use. Without MaxPages Free is the largest int.
func (p *Pages) Free() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cfg.MaxPages == 0 {
		return math.MaxInt
	}
	return p.cfg.MaxPages - len(p.pages) + len(p.free)
}

// Used returns how many pages states hold, shared ones counted once.
func (p *Pages) Used() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pages) - len(p.free)
}

// Bytes returns the memory of all pages, free ones included.
func (p *Pages) Bytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	state := p.stateConfig()
	return int64(len(p.pages)) * int64(p.cfg.PageTokens) * p.op.tokenBytes(&state)
}

func (p *Pages) stateConfig() StateConfig {
	return StateConfig{Format: p.cfg.Format, SharedValues: p.cfg.SharedValues, LogWeights: p.cfg.LogWeights}
}

// get returns a page that nobody else has.
func (p *Pages) get() (*block, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		b := p.pages[p.free[n-1]]
		p.free = p.free[:n-1]
		b.refs = 1
		return b, nil
	}
	if p.cfg.MaxPages > 0 && len(p.pages) == p.cfg.MaxPages {
		return nil, check.Errorf(ErrFull, "attention: all %d pages of %d tokens are in use", p.cfg.MaxPages, p.cfg.PageTokens)
	}
	state := p.stateConfig()
	b := p.op.newBlock(&state, p.cfg.PageTokens)
	b.id, b.refs = len(p.pages), 1
	if !p.cfg.Collected {
		p.pages = append(p.pages, b)
	}
	return b, nil
}

// addRefs counts one more holder of pages.
func (p *Pages) addRefs(pages []*block) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range pages {
		b.refs++
	}
}

// release counts one less; a page without holders is free.
func (p *Pages) release(pages []*block) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range pages {
		if b.refs--; b.refs == 0 && !p.cfg.Collected {
			p.free = append(p.free, b.id)
		}
	}
}

// alone tells whether a page has one holder, who may then write to it: nobody
// else can become one.
func (p *Pages) alone(b *block) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return b.refs == 1
}

// adopt returns pages by their numbers, shared from now on.
func (p *Pages) adopt(table []int) ([]*block, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, id := range table {
		if id < 0 || id >= len(p.pages) {
			return nil, check.Errorf(ErrConfig, "attention: Table[%d] is page %d, want one of the pool's %d pages", i, id, len(p.pages))
		}
		if p.pages[id].refs == 0 {
			return nil, check.Errorf(ErrConfig, "attention: Table[%d] is page %d, which is free", i, id)
		}
	}
	pages := make([]*block, len(table))
	for i, id := range table {
		pages[i] = p.pages[id]
		pages[i].refs++
	}
	return pages, nil
}

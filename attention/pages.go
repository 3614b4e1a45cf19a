package attention

import (
	"math"
	"sync"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mapped"
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
	// Folder, if not empty, is where the pages stand: in a file of the pool's own, of which
	// the system keeps in memory what is in use. States may then be larger than memory; what
	// is read often should not be. The file has no name, so that nobody can shorten it, and
	// goes with Close or the process. Disk is taken before it is mapped, a step of up to
	// 64 MiB ahead, and a full one is an error that matches ErrFull. It needs linux or
	// darwin, elsewhere it is an error that matches ErrConfig and errors.ErrUnsupported, as
	// it is together with Collected. A folder of memory (tmpfs) gains nothing.
	Folder string
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
	file  *mapped.File // where they stand, or nil
	over  bool         // after Close
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
	case cfg.Collected && cfg.Folder != "":
		return nil, check.Errorf(ErrConfig, "attention: Folder of pages that are Collected: nothing would tell when the file can go")
	}
	p := &Pages{op: a, cfg: cfg}
	state := p.stateConfig()
	if err := a.checkStateConfig(&state); err != nil {
		return nil, err
	}
	if err := a.checkRoom(&state, cfg.PageTokens); err != nil {
		return nil, err
	}
	if cfg.Folder != "" {
		var err error
		if p.file, err = mapped.Create(cfg.Folder); err != nil {
			return nil, check.Caused(ErrConfig, err, "attention: Folder")
		}
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

// Bytes returns the memory of all pages, free ones included; in a Folder, of its file.
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
	if p.over {
		return nil, check.Errorf(ErrState, "attention: the pool of pages is closed")
	}
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
	b, err := p.newPage(&state)
	if err != nil {
		return nil, err
	}
	b.id, b.refs = len(p.pages), 1
	if !p.cfg.Collected {
		p.pages = append(p.pages, b)
	}
	return b, nil
}

// newPage makes a page, on the heap or in the file.
func (p *Pages) newPage(cfg *StateConfig) (*block, error) {
	if p.file == nil {
		return p.op.newBlock(cfg, p.cfg.PageTokens), nil
	}
	const lists = 5 // of a block: keys, values, their scales, log-weights
	n := p.cfg.PageTokens*int(p.op.tokenBytes(cfg)) + lists*mapped.RegionBytes(1)
	memory, err := p.file.Take(n)
	if err != nil {
		return nil, check.Caused(ErrFull, err, "attention: a page of %d bytes", n)
	}
	return p.op.newBlockIn(mapped.NewRegion(memory), cfg, p.cfg.PageTokens), nil
}

// Close gives back the file of a Folder, or the memory of the pages, and ends the pool: no
// state gets pages of it any more. While states hold pages it is an error that matches
// ErrState and does nothing: Reset them first. A second Close does nothing.
func (p *Pages) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if used := len(p.pages) - len(p.free); used > 0 {
		return check.Errorf(ErrState, "attention: Close of a pool of which states hold %d pages: Reset them first", used)
	}
	p.over, p.pages, p.free = true, nil, nil
	if p.file == nil {
		return nil
	}
	file := p.file
	p.file = nil
	if err := file.Close(); err != nil {
		return check.Caused(ErrState, err, "attention: Close of a pool of pages")
	}
	return nil
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

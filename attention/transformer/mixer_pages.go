package transformer

import (
	"io"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/rope"
)

var _, _ lm.Pager = (*mixer)(nil), (*latentMixer)(nil)

// pages are where states of a layer that share keys and values take memory from.
type pages struct {
	*attention.Pages
	join  attention.StateConfig
	cache cache // what states are but for State
}

// NewPages implements lm.Pager.
func (m *mixer) NewPages(cfg lm.StateConfig, tokens int) (lm.Pages, error) {
	c := m.stateConfig(cfg)
	if m.with != nil || cfg.Policies != nil || c.Window > 0 || c.Rotation != nil && c.Policy == rope.Rerotate {
		return nil, nil
	}
	p, err := m.op.NewPages(attention.PagesConfig{PageTokens: tokens, Format: c.Format, Collected: true})
	if err != nil {
		return nil, err
	}
	return &pages{p, c, cache{most: cfg.MaxTokens, length: cfg.Length, policy: cfg.Policy, owner: m}}, nil
}

// NewPages implements lm.Pager.
func (m *latentMixer) NewPages(cfg lm.StateConfig, tokens int) (lm.Pages, error) {
	c := m.stateConfig(cfg)
	if c.Window > 0 {
		return nil, nil
	}
	op, err := m.ofState(cfg)
	if err != nil {
		return nil, err
	}
	p, err := op.NewPages(attention.PagesConfig{PageTokens: tokens, Format: c.Format, Collected: true})
	if err != nil {
		return nil, err
	}
	return &pages{p, c, cache{most: cfg.MaxTokens, length: cfg.Length, policy: cfg.Policy, owner: m}}, nil
}

// Take implements lm.Pages.
func (p *pages) Take(st lm.LayerState, from, n int) (lm.Page, error) {
	c, ok := st.(*cache)
	if !ok {
		return nil, errAnother
	}
	g, err := p.Pages.Take(c.State, from, n)
	if err != nil {
		return nil, err
	}
	return g, nil
}

// Join implements lm.Pages.
func (p *pages) Join(list []lm.Page, tokens int) (lm.LayerState, error) {
	own := make([]*attention.Page, len(list))
	for i, g := range list {
		own[i], _ = g.(*attention.Page)
	}
	st, err := p.Pages.Join(p.join, own, tokens)
	if err != nil {
		return nil, err
	}
	c := p.cache
	c.State = st
	return &c, nil
}

// ReadPage implements lm.Pages.
func (p *pages) ReadPage(r io.Reader) (lm.Page, error) {
	g, err := p.Pages.ReadPage(r, p.join)
	if err != nil {
		return nil, err
	}
	return g, nil
}

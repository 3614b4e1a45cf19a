package lm

import (
	"context"
	"slices"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// Cutter is a LayerState that may be able to go back to any number of tokens from now on, with
// Truncate.
type Cutter interface{ Cuts() bool }

// Brancher is a LayerState whose tokens may come as a tree (Mix.Tree).
type Brancher interface {
	// Branches tells whether they may.
	Branches() bool
	// Accept keeps, of the last nodes tokens, which came as a tree, those of a path.
	Accept(nodes int, path []int) error
}

const (
	defaultDrafts = 5
	maxDrafts     = 256 // that a piece has room for
)

// cuts tells whether the state can go back to any number of tokens from now on.
func (st *State) cuts() bool {
	for _, l := range st.layers {
		if c, ok := l.(Cutter); !ok || !c.Cuts() {
			return false
		}
	}
	return true
}

// branches tells whether tokens of all layers may come as a tree.
func (st *State) branches() bool {
	for _, l := range st.layers {
		if b, ok := l.(Brancher); !ok || !b.Branches() {
			return false
		}
	}
	return true
}

// fits tells whether all layers have room for more tokens.
func (st *State) fits(tokens int) bool {
	for _, l := range st.layers {
		if l.Room(tokens) != nil {
			return false
		}
	}
	return true
}

// speculate is generate with drafts.
func (m *Model) speculate(ctx context.Context, prompt []int32, st *State, g *generation, yield func(Piece) bool) error {
	cfg := g.cfg
	v := &verifier{m: m, st: st}
	v.rows = mat.New(1+cfg.Drafts, m.vocab)
	v.drafts.pkg, v.drafts.stop, v.drafts.writer = m.cfg.Package, cfg.Stop, v
	text := slices.Concat(cfg.Seen, prompt)
	n, before, going := 0, prompt[len(prompt)-1], true
	last := func(end End) { yield(Piece{Token: -1, Text: g.text.rest(), End: end}) }
	choose := func(node int) (int32, bool, error) {
		g.logits = mat.Row(v.rows, node)
		p, end, err := g.choose(before)
		if err != nil {
			return 0, false, err
		}
		p.Drafted = node > 0
		if going = end == AtToken || yield(p); !going {
			return 0, false, nil
		}
		if end != Going {
			last(end)
			going = false
			return 0, false, nil
		}
		before, text = p.Token, append(text, p.Token)
		n++
		return p.Token, true, nil
	}
	for {
		if cfg.MaxTokens > 0 && n == cfg.MaxTokens {
			last(AtLimit)
			return nil
		}
		if n > 0 && m.cfg.MaxLen > 0 && st.Len()+1 > m.cfg.MaxLen {
			last(AtLongest)
			return nil
		}
		var err error
		if n == 0 {
			err = v.read(ctx, prompt)
		} else {
			most := cfg.Drafts
			if cfg.MaxTokens > 0 { // more would be thrown away
				most = min(most, cfg.MaxTokens-n-1)
			}
			err = v.look(ctx, cfg.Draft, text, most, g.words)
		}
		if err != nil {
			return err
		}
		err = v.drafts.walk(choose)
		if back := v.settle(ctx); err == nil {
			err = back
		}
		if err != nil || !going {
			return err
		}
	}
}

// read has the model read a prompt, which nothing is drafted after.
func (v *verifier) read(ctx context.Context, prompt []int32) error {
	v.drafts.begin(nil, 0, 0)
	v.looked, v.tokens, v.base = false, append(v.tokens[:0], prompt[len(prompt)-1]), v.st.Len()+len(prompt)-1
	return v.m.Run(ctx, &Call{Tokens: prompt, State: v.st, Last: mat.Rows(v.rows, 0, 1)})
}

// look has the model read the text's last token and what is drafted after it.
func (v *verifier) look(ctx context.Context, drafter Drafter, text []int32, most, words int) error {
	m, st, d := v.m, v.st, &v.drafts
	if most = max(0, most); m.cfg.MaxLen > 0 {
		most = min(most, m.cfg.MaxLen-st.Len()-1)
	}
	for most > 0 && !st.fits(1+most) {
		most--
	}
	v.looked, v.base, v.cuts = true, st.Len(), st.cuts()
	if !v.cuts && most > 0 {
		if v.marks == nil {
			v.marks = st.newMarks()
		}
		for i, l := range st.layers {
			l.Save(v.marks[i])
		}
	}
	d.begin(text, most, words)
	if most > 0 {
		if err := drafter.Draft(ctx, d); err != nil {
			return err
		}
	}
	if v.tree = d.branches(); v.tree && !st.branches() {
		d.straighten(len(d.tokens))
		v.tree = false
	}
	v.tokens = append(append(v.tokens[:0], text[len(text)-1]), d.tokens...)
	var how drafting
	if v.tree {
		how.tree = d.parent
	}
	return m.runDrafts(ctx, &Call{Tokens: v.tokens, State: st, Logits: mat.Rows(v.rows, 0, len(v.tokens))}, how)
}

// settle has the state have seen what is on the drafts' path, and no more.
func (v *verifier) settle(ctx context.Context) error {
	st, path, nodes := v.st, v.drafts.path, len(v.tokens)
	if st.Len() != v.base+nodes { // after an error within a call
		return nil
	}
	switch {
	case len(path) == nodes: // all of a chain, or of a tree that is one
	case v.tree:
		for _, l := range st.layers {
			if err := l.(Brancher).Accept(nodes, path); err != nil {
				return wrapped(st.pkg, err)
			}
		}
		st.tokens = v.base + len(path)
	case v.cuts:
		if err := v.back(v.base + len(path)); err != nil {
			return err
		}
	default:
		if err := v.back(v.base); err != nil {
			return err
		}
		if err := v.m.runDrafts(ctx, &Call{Tokens: v.tokens[:len(path)], State: st}, drafting{}); err != nil {
			return err
		}
	}
	if v.looked {
		st.keep()
	}
	return nil
}

// back takes the state back to n tokens, which are base where it has marks.
func (v *verifier) back(n int) error {
	st := v.st
	if n == st.tokens {
		return nil
	}
	for i, l := range st.layers {
		var err error
		if v.cuts {
			err = l.Truncate(n)
		} else {
			err = l.Restore(v.marks[i])
		}
		if err != nil {
			return wrapped(st.pkg, err)
		}
	}
	st.tokens = n
	return nil
}

// checkDrafts returns an error where drafts contradict the rest.
func (cfg *GenerateConfig) checkDrafts(pkg string, streams bool) error {
	switch {
	case cfg.Drafts < 0 || cfg.Drafts > maxDrafts:
		return check.Errorf(subquad.ErrConfig, "%s: Drafts is %d, want 0 to %d", pkg, cfg.Drafts, maxDrafts)
	case cfg.Drafts > 0 && cfg.Draft == nil:
		return check.Errorf(subquad.ErrConfig, "%s: Drafts is given without Draft", pkg)
	case cfg.Draft != nil && !streams:
		return check.Errorf(subquad.ErrCall, "%s: Draft is given, but the model cannot go on from a state", pkg)
	}
	if cfg.Draft != nil && cfg.Drafts == 0 {
		cfg.Drafts = defaultDrafts
	}
	return nil
}

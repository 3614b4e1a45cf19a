package lm

import (
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// Drafter proposes what comes next in a text, for the model that writes it to look at in a
// single call (speculative decoding). What it proposes never changes what is written, only
// how many calls that takes.
type Drafter interface {
	// Draft adds tokens to d, as many as have room and are likely enough; none is an answer
	// too.
	Draft(ctx context.Context, d *Drafts) error
}

// Drafts are tokens that may come next: a tree, whose root, node 0, is the last token of the
// text, which stands already. A chain is a tree, too.
type Drafts struct {
	text   []int32
	most   int     // tokens that may be added
	words  int     // tokens are 0 to words-1
	stop   []int32 // tokens that end the text
	tokens []int32 // of the nodes after the root
	parent []int   // of all nodes; -1 of the root
	path   []int   // that walk went

	pkg    string
	writer *verifier // of the model that writes, or nil: for Near
}

// Text returns the text so far, not to be changed.
func (d *Drafts) Text() []int32 { return d.text }

// Words returns how many tokens there are to choose from: they are 0 to Words() - 1.
func (d *Drafts) Words() int { return d.words }

// Room returns how many more tokens can be added.
func (d *Drafts) Room() int { return d.most - len(d.tokens) }

// Add adds a token that may come after a node, 0 for the end of the text, and returns its
// node. It returns -1, and adds nothing, where there is no room, no such node or no such
// token, or where the text would have ended before.
func (d *Drafts) Add(after int, token int32) int {
	if d.Room() <= 0 || after < 0 || after > len(d.tokens) || token < 0 || int(token) >= d.words {
		return -1
	}
	if after > 0 && slices.Contains(d.stop, d.tokens[after-1]) {
		return -1
	}
	d.tokens, d.parent = append(d.tokens, token), append(d.parent, after)
	return len(d.tokens)
}

// begin forgets what has been added.
func (d *Drafts) begin(text []int32, most, words int) {
	d.text, d.most, d.words = text, most, words
	d.tokens, d.parent, d.path = d.tokens[:0], append(d.parent[:0], -1), d.path[:0]
}

// branches tells whether some node has two children: otherwise the nodes are a chain.
func (d *Drafts) branches() bool {
	for i, p := range d.parent {
		if p != i-1 {
			return true
		}
	}
	return false
}

// straighten keeps the chain of first children only, and at most n nodes of it.
func (d *Drafts) straighten(n int) {
	kept, at := 0, 0
	for i := 1; i < len(d.parent) && kept < n; i++ {
		if d.parent[i] == at {
			d.tokens[kept], at = d.tokens[i-1], i
			kept++
		}
	}
	d.tokens, d.parent = d.tokens[:kept], d.parent[:kept+1]
	for i := range d.parent {
		d.parent[i] = i - 1
	}
}

// child is the first child of a node that carries a token, or -1.
func (d *Drafts) child(node int, token int32) int {
	for i := node + 1; i < len(d.parent); i++ {
		if d.parent[i] == node && d.tokens[i-1] == token {
			return i
		}
	}
	return -1
}

// walk asks at the root, and then at each node that carries what was chosen at its parent,
// for the token that comes after it. It ends where no node carries it, or where choose says
// so, and leaves in path the nodes at which it has asked. That is lossless however tokens are
// chosen: each choice is one of a row of logits after exactly what is written, and drafts do
// not take part in it. For drafts that were not drawn by chance it is the rule of Leviathan
// et al. (2023, arXiv 2211.17192), and for trees that of SpecInfer (Miao et al. 2023, arXiv
// 2305.09781): accept with p(token), else choose of what is left of p.
func (d *Drafts) walk(choose func(node int) (token int32, on bool, err error)) error {
	for at := 0; at >= 0; {
		d.path = append(d.path, at)
		token, on, err := choose(at)
		if err != nil || !on {
			return err
		}
		at = d.child(at, token)
	}
	return nil
}

// ModelDraft drafts with a model: a smaller one of the same tokens, or the same model that
// remembers less (a window, a policy).
type ModelDraft struct {
	// Source is the model and what it has read. It reads the whole text once.
	Source Source
	// Width is how many tokens are tried after each of a chain of likeliest tokens, 0 and 1
	// for that one alone: more make a tree, of the same number of calls of the draft.
	Width int

	partner *partner
}

// Draft implements Drafter.
func (x *ModelDraft) Draft(ctx context.Context, d *Drafts) error {
	if x == nil || x.Source == nil {
		return check.Errorf(subquad.ErrCall, "%s: a ModelDraft is nil, or its Source", d.pkg)
	}
	for i, token := range d.text {
		if token < 0 || int(token) >= x.Source.Vocab() {
			return check.Errorf(subquad.ErrCall, "%s: token %d of the text is %d, and the Source of a ModelDraft has %d tokens: want a model of the same ones", d.pkg, i, token, x.Source.Vocab())
		}
	}
	if x.partner == nil || x.partner.source != x.Source {
		x.partner = newPartner(x.Source, 1)
	}
	return x.partner.draft(ctx, d, 0, x.Width)
}

// draft adds the source's likeliest tokens after a node, one after the other, and after each
// of them the next likeliest.
func (p *partner) draft(ctx context.Context, d *Drafts, node, width int) error {
	p.text = append(p.text[:0], d.text...)
	for at := node; at > 0; at = d.parent[at] {
		p.text = append(p.text, 0)
	}
	for at, i := node, len(p.text)-1; at > 0; at, i = d.parent[at], i-1 {
		p.text[i] = d.tokens[at-1]
	}
	if node > 0 && slices.Contains(d.stop, d.tokens[node-1]) {
		return nil
	}
	for d.Room() > 0 {
		rows, err := p.after(ctx, p.text, 1)
		if err != nil {
			return err
		}
		row := rows.Data[:min(d.words, len(rows.Data))]
		best := argmax(row)
		next := d.Add(node, best)
		for range min(width, len(row)) - 1 {
			row[best] = float32(math.Inf(-1))
			best = argmax(row)
			d.Add(node, best)
		}
		if node = next; node < 0 || slices.Contains(d.stop, d.tokens[node-1]) {
			return nil
		}
		p.text = append(p.text, d.tokens[node-1])
	}
	return nil
}

// Lookup drafts what came after the last tokens where they stood before in the text, the last
// time: for texts that repeat themselves or their prompt. It costs next to nothing.
type Lookup struct {
	// Longest and Shortest are how many of the last tokens must have stood there, at best and
	// at least; 0 for 3 and 1.
	Longest, Shortest int
}

// Draft implements Drafter.
func (x Lookup) Draft(_ context.Context, d *Drafts) error {
	longest, shortest := x.Longest, x.Shortest
	if longest == 0 {
		longest = 3
	}
	if shortest == 0 {
		shortest = 1
	}
	if shortest < 0 || longest < shortest {
		return check.Errorf(subquad.ErrConfig, "%s: Lookup of %d to %d tokens, want 1 or more, and no fewer than that", d.pkg, shortest, longest)
	}
	text := d.text
	found, end := 0, 0 // tokens alike before text[end]
	for at := len(text) - 1; at >= shortest && found < longest; at-- {
		n := 0
		for n < min(longest, at) && text[at-1-n] == text[len(text)-1-n] {
			n++
		}
		if n >= shortest && n > found {
			found, end = n, at
		}
	}
	if found == 0 {
		return nil
	}
	for node, at := 0, end; node >= 0 && at < len(text); at++ {
		node = d.Add(node, text[at])
	}
	return nil
}

// Near drafts with the model that writes, and its own past, of which attention reads the first
// Keep tokens and the last Recent only: no second model, no second past. It saves time where
// the past is so long that reading it takes most of a token's time (self-speculation over a
// window; Yang et al., LongSpec, 2025, arXiv 2502.17421, has a trained layer instead). Layers
// without keys, with a window or with a policy read what they always do.
type Near struct{ Keep, Recent int }

// Draft implements Drafter.
func (x Near) Draft(ctx context.Context, d *Drafts) error {
	if x.Keep < 0 || x.Recent < 1 {
		return check.Errorf(subquad.ErrConfig, "%s: Near has Keep %d and Recent %d, want 0 and 1 or more", d.pkg, x.Keep, x.Recent)
	}
	if d.writer == nil {
		return nil
	}
	return d.writer.draftNear(ctx, x)
}

// draftNear has the model write a few tokens with a part of its past, and takes them back.
func (v *verifier) draftNear(ctx context.Context, x Near) error {
	m, st, d := v.m, v.st, &v.drafts
	v.near = scratch.Sized(v.near, m.vocab)
	row := mat.Of(v.near, 1, m.vocab)
	base, token, node := st.Len(), d.text[len(d.text)-1:], 0
	var err error
	for d.Room() > 0 && node >= 0 {
		if err = m.runDrafts(ctx, &Call{Tokens: token, State: st, Last: row}, drafting{near: x}); err != nil {
			break
		}
		if node = d.Add(node, argmax(row.Data[:d.words])); node > 0 {
			token = d.tokens[node-1 : node]
			if slices.Contains(d.stop, token[0]) {
				break
			}
		}
	}
	if back := v.back(base); err == nil {
		err = back
	}
	return err
}

// verifier has a model look at drafts.
type verifier struct {
	m      *Model
	st     *State
	drafts Drafts
	rows   blas32.General // logits after each node
	near   []float32
	tokens []int32 // of the call
	looked bool    // it is one of look
	base   int     // tokens of the state before it
	cuts   bool    // the state can go back to any point
	tree   bool    // the call is a tree's
	marks  []Mark  // of the state at base, where it cannot
}

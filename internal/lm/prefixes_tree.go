package lm

import "slices"

// prefix is up to a page of tokens after those of its parent. One that has children is a whole
// page.
type prefix struct {
	parent   *prefix
	children map[int32][]*prefix // by their first token
	tokens   []int32
	end      int          // tokens of all from the root to here
	pages    []Page       // of each mixer, nil of those that are kept whole
	whole    []LayerState // of each mixer after end tokens, nil of those that have pages; or none
	bytes    int64

	// By use: the root is before the newest and after the oldest. A parent is newer than its
	// children, so that the oldest has none.
	newer, older *prefix
}

// unlink takes x out of the list, linkAfter puts it there as the next older than y.
func (x *prefix) unlink() { x.newer.older, x.older.newer = x.older, x.newer }

func (x *prefix) linkAfter(y *prefix) {
	x.newer, x.older = y, y.older
	x.newer.older, x.older.newer = x, x
}

// touch makes x, and before it its parents, the newest.
func (p *Prefixes) touch(x *prefix) {
	for ; x != &p.root; x = x.parent {
		x.unlink()
		x.linkAfter(&p.root)
	}
}

// common returns how many tokens two lists begin with alike.
func common(a, b []int32) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// find returns where the longest known beginning of some tokens that a state can be made of
// ends, and its length.
func (p *Prefixes) find(tokens []int32) (end *prefix, n int) {
	end = &p.root
	for at := &p.root; at != nil && at.end < len(tokens); {
		var next *prefix
		for _, x := range at.children[tokens[at.end]] {
			same := common(x.tokens, tokens[at.end:])
			if same == prefixTokens {
				next = x
			}
			if p.whole && (same < len(x.tokens) || x.whole == nil) {
				continue
			}
			if at.end+same > n {
				end, n = x, at.end+same
			}
		}
		at = next
	}
	return end, n
}

// child returns the child of x that stands for some tokens, or nil.
func (p *Prefixes) child(x *prefix, tokens []int32) *prefix {
	for _, y := range x.children[tokens[0]] {
		if same := common(y.tokens, tokens); same == len(tokens) && (same == len(y.tokens) || !p.whole) {
			return y
		}
	}
	return nil
}

// insert is Insert of what has been accepted.
func (p *Prefixes) insert(tokens []int32, st *State) error {
	at := &p.root
	page := func() []int32 { return tokens[at.end:min(at.end+prefixTokens, len(tokens))] }
	for at.end < len(tokens) {
		next := p.child(at, page())
		if next == nil {
			break
		}
		at = next
	}
	p.touch(at)
	for at.end < len(tokens) {
		if !p.makeRoom(p.bytesOf(), at) {
			return nil
		}
		x, err := p.take(at, page(), st)
		if err != nil {
			return err
		}
		p.add(x, at)
		at = x
	}
	if p.whole && at != &p.root && at.whole == nil {
		p.addWhole(at, st)
	}
	return nil
}

// take makes a child of at of what a state has, without adding it to the tree.
func (p *Prefixes) take(at *prefix, tokens []int32, st *State) (*prefix, error) {
	x := p.newPrefix(at, slices.Clone(tokens))
	for i, pages := range p.pages {
		if pages == nil {
			continue
		}
		var err error
		if x.pages[i], err = pages.Take(st.layers[i], at.end, len(tokens)); err != nil {
			return nil, err
		}
	}
	return x, nil
}

func (p *Prefixes) newPrefix(parent *prefix, tokens []int32) *prefix {
	return &prefix{parent: parent, tokens: tokens, end: parent.end + len(tokens), pages: make([]Page, len(p.pages)), bytes: p.bytesOf()}
}

// bytesOf is the memory of a prefix, without states that are kept whole.
func (p *Prefixes) bytesOf() int64 {
	const one, each = 512 + 4*prefixTokens, 96
	n := one + each*int64(len(p.pages))
	for _, pages := range p.pages {
		if pages != nil {
			n += pages.PageBytes()
		}
	}
	return n
}

// add makes x, for which there is room, a child of at.
func (p *Prefixes) add(x, at *prefix) {
	first := x.tokens[0]
	if !p.whole { // what x begins with is in it
		for _, y := range slices.Clone(at.children[first]) {
			if len(y.tokens) < len(x.tokens) && common(y.tokens, x.tokens) == len(y.tokens) {
				p.remove(y)
			}
		}
	}
	if at.children == nil {
		at.children = map[int32][]*prefix{}
	}
	at.children[first] = append(at.children[first], x)
	x.linkAfter(at)
	p.used += x.bytes
	p.held += len(x.tokens)
}

// addWhole gives a prefix the states that are kept whole, where they have room.
func (p *Prefixes) addWhole(x *prefix, st *State) {
	var bytes int64
	for i, l := range st.layers {
		if p.pages[i] == nil {
			bytes += l.Bytes()
		}
	}
	if !p.makeRoom(bytes, x) {
		return
	}
	x.whole = make([]LayerState, len(st.layers))
	for i, l := range st.layers {
		if p.pages[i] == nil {
			x.whole[i] = l.Clone()
		}
	}
	x.bytes += bytes
	p.used += bytes
}

// makeRoom removes the oldest prefixes until there are so many bytes left, or tells that there will
// not be as many without removing x, the last of a path that has just been touched.
func (p *Prefixes) makeRoom(bytes int64, x *prefix) bool {
	for bytes > p.cfg.MaxBytes-p.used {
		oldest := p.root.newer
		if oldest == &p.root || oldest == x {
			return false
		}
		p.remove(oldest)
	}
	return true
}

// remove forgets a prefix without children.
func (p *Prefixes) remove(x *prefix) {
	x.unlink()
	first, siblings := x.tokens[0], x.parent.children
	siblings[first] = slices.DeleteFunc(siblings[first], func(y *prefix) bool { return y == x })
	if len(siblings[first]) == 0 {
		delete(siblings, first)
	}
	p.used -= x.bytes
	p.held -= len(x.tokens)
}

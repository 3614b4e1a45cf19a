package attention

import "github.com/subquad/subquad/internal/check"

// maxTree bounds the nodes of a tree.
const maxTree = 4096

// checkTree checks that parents come before their children. It fills d.depth.
func (d *stepRun) checkTree() error {
	c := &d.call
	d.depth = d.depth[:0]
	if c.Tree == nil {
		return nil
	}
	switch {
	case len(d.states) != 1:
		return check.Errorf(ErrCall, "attention: Tree with %d states, want 1", len(d.states))
	case len(c.Tree) != c.Q.Rows || d.look:
		return check.Errorf(ErrCall, "attention: Tree has %d nodes, want one for each new token = %d", len(c.Tree), d.news(0))
	case len(c.Tree) > maxTree:
		return check.Errorf(ErrCall, "attention: Tree has %d nodes, want at most %d", len(c.Tree), maxTree)
	case d.states[0].cfg.Window > 0 && len(c.Tree) > slack:
		return check.Errorf(ErrCall, "attention: Tree has %d nodes, want at most %d for a ring", len(c.Tree), slack)
	}
	for i, parent := range c.Tree {
		if parent < -1 || parent >= i {
			return check.Errorf(ErrCall, "attention: Tree[%d] is %d, want -1 or an earlier node", i, parent)
		}
		depth := 0
		if parent >= 0 {
			depth = d.depth[parent] + 1
		}
		d.depth = append(d.depth, depth)
	}
	return nil
}

// sees tells whether node i of the tree is node k or comes from it.
func (d *stepRun) sees(i, k int) bool {
	for i > k {
		i = d.call.Tree[i]
	}
	return i == k
}

// Accept keeps, of the last nodes tokens of the state, which came as a tree, those
// of path, ascending: a chain of nodes, each the parent of the next. The others go,
// and the state is as if the path had come alone, except that keys which were
// rotated must stand at the positions they were rotated for: path[i] must be of
// depth i. Errors match ErrCall and change nothing.
func (s *State) Accept(nodes int, path []int) error {
	if nodes < 0 || nodes > s.n || s.cfg.Window > 0 && nodes > slack {
		return check.Errorf(ErrCall, "attention: Accept from a tree of %d nodes of a state with %d tokens", nodes, s.n)
	}
	for i, p := range path {
		if p >= nodes || p < 0 || i > 0 && p <= path[i-1] {
			return check.Errorf(ErrCall, "attention: path[%d] is %d, want ascending nodes below %d", i, p, nodes)
		}
	}
	base := s.n - nodes
	if base < s.floor {
		return check.Errorf(ErrCall, "attention: Accept from a tree of %d nodes, of which the state has forgotten some", nodes)
	}
	if p := s.cfg.Pages; p != nil { // pages that were shared after the step
		if err := s.own(s.skip+s.rowsBefore(base), len(s.blocks)*p.cfg.PageTokens); err != nil {
			return err
		}
	}
	for i, node := range path {
		if i == node {
			continue
		}
		from, row, _ := s.place(base + node)
		to, at, _ := s.place(base + i)
		to.moveRows(at, from, row, 1)
	}
	if s.list != nil {
		s.list = s.list[:s.rowsBefore(base+len(path))]
	}
	s.n = base + len(path)
	s.trim()
	return nil
}

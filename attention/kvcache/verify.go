package kvcache

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// Speculative decoding proposes tokens with something cheap and has the model look at all of
// them in one call: a tree of tokens (attention.Call.Tree), of which a path is accepted
// (attention.State.Accept). The functions of this file say which path, so that the tokens
// that come out are those that the model alone would have generated, or are distributed as
// those it would have drawn.
//
// Node 0 is the root: the last token that stands already, which the state has not seen.
// tree[i] is the parent of node i, -1 of the root, and draft[i] the token that node i
// carries. The target's row i is what the model says comes after node i.

// Verify accepts drafted tokens that greedy decoding would have generated: next[i] is the
// model's likeliest token after node i. It returns the nodes that are accepted, the root
// first, and the token after each: those that were drafted, and one more. Of several
// chains of the same tokens the longest is accepted, and of equally long ones that which
// ends last. Errors match ErrCall.
func Verify(tree, draft, next []int) (path, tokens []int, err error) {
	if err := checkDraft(tree, draft); err != nil {
		return nil, nil, err
	}
	if len(next) != len(tree) {
		return nil, nil, check.Errorf(ErrCall, "kvcache: next has %d tokens, want one for each node = %d", len(next), len(tree))
	}
	depth := make([]int, len(tree)) // 0 where a node is not accepted
	depth[0] = 1
	last := 0
	for i := 1; i < len(tree); i++ {
		if p := tree[i]; depth[p] > 0 && next[p] == draft[i] {
			if depth[i] = depth[p] + 1; depth[i] >= depth[last] {
				last = i
			}
		}
	}
	path = make([]int, depth[last])
	for i, at := depth[last]-1, last; i >= 0; i, at = i-1, tree[at] {
		path[i] = at
	}
	for _, node := range path {
		tokens = append(tokens, next[node])
	}
	return path, tokens, nil
}

// VerifySampled accepts drafted tokens that were not drawn by chance, a beam of the draft's
// best say, so that the tokens that come out are independent draws from the target: at
// each node it draws from the target's row, goes to the child that carries the token, and
// ends with it where there is none. target [nodes, tokens] has probabilities, or numbers in
// proportion to them; uniform returns numbers from 0 (included) to 1 (excluded), of which
// one is used for each token that is returned. Errors match ErrShape or ErrCall; a row
// that is drawn from and is no distribution is an error.
//
// LongSpec's rule, which accepts child x with min(1, p(x)/q(x)), does not do that: its tree
// is not drawn from q.
func VerifySampled(tree, draft []int, target blas32.General, uniform func() float64) (path, tokens []int, err error) {
	if err := checkTarget(tree, draft, target, uniform); err != nil {
		return nil, nil, err
	}
	for at := 0; ; {
		path = append(path, at)
		token, err := draw(mat.Row(target, at), nil, uniform)
		if err != nil {
			return nil, nil, err
		}
		tokens = append(tokens, token)
		if at = childOf(tree, draft, at, token); at < 0 {
			return path, tokens, nil
		}
	}
}

// VerifyDrafted is VerifySampled for children that were drawn by chance, each by itself,
// from the draft's distribution after their parent, proposal[parent] (Leviathan et al.
// 2023, arXiv 2211.17192; Miao et al. 2023, arXiv 2305.09781): in their order, child x is
// accepted with probability min(1, p(x)/q(x)); where it is not, p becomes what is left of
// it, max(p - q, 0) in proportion. After the last a token is drawn from what is left. More
// of what was drafted is accepted than by VerifySampled, whose result is as right here. Errors
// match ErrShape or ErrCall.
func VerifyDrafted(tree, draft []int, target, proposal blas32.General, uniform func() float64) (path, tokens []int, err error) {
	if err := checkTarget(tree, draft, target, uniform); err != nil {
		return nil, nil, err
	}
	if err := check.Matrix(ErrShape, "kvcache", "proposal", proposal, target.Rows, target.Cols, "the target's"); err != nil {
		return nil, nil, err
	}
	left := make([]float64, target.Cols)
	for at := 0; ; {
		path = append(path, at)
		p, q := mat.Row(target, at), mat.Row(proposal, at)
		if err := scaled(left, p); err != nil {
			return nil, nil, err
		}
		next, mass := -1, 0.0 // mass is q's, once it is asked for
		for i := at + 1; i < len(tree) && next < 0; i++ {
			if tree[i] != at {
				continue
			}
			if mass == 0 {
				if mass, err = massOf(q); err != nil {
					return nil, nil, err
				}
			}
			x := draft[i]
			if uniform()*float64(q[x]) < left[x]*mass {
				next = i
				break
			}
			sum := 0.0
			for t := range left {
				left[t] = max(left[t]-float64(q[t])/mass, 0)
				sum += left[t]
			}
			if !(sum > 0) { // p is q but for rounding
				if err := scaled(left, p); err != nil {
					return nil, nil, err
				}
				continue
			}
			for t := range left {
				left[t] /= sum
			}
		}
		if next >= 0 {
			tokens = append(tokens, draft[next])
			at = next
			continue
		}
		token, err := draw(nil, left, uniform)
		if err != nil {
			return nil, nil, err
		}
		return path, append(tokens, token), nil
	}
}

// childOf is the first child of a node that carries a token, or -1.
func childOf(tree, draft []int, at, token int) int {
	for i := at + 1; i < len(tree); i++ {
		if tree[i] == at && draft[i] == token {
			return i
		}
	}
	return -1
}

// massOf is the sum of a row of probabilities.
func massOf(row []float32) (sum float64, err error) {
	for _, x := range row {
		if !(x >= 0) {
			return 0, check.Errorf(ErrCall, "kvcache: a probability is %v, want 0 or more", x)
		}
		sum += float64(x)
	}
	if !(sum > 0) || math.IsInf(sum, 0) {
		return 0, check.Errorf(ErrCall, "kvcache: probabilities add up to %v, want more than 0 and a finite number", sum)
	}
	return sum, nil
}

// scaled sets p to a row of probabilities, divided by their sum.
func scaled(p []float64, row []float32) error {
	sum, err := massOf(row)
	if err != nil {
		return err
	}
	for i, x := range row {
		p[i] = float64(x) / sum
	}
	return nil
}

// draw draws a token from a row of probabilities, or from p.
func draw(row []float32, p []float64, uniform func() float64) (int, error) {
	at, last := uniform(), -1
	if row != nil {
		sum, err := massOf(row)
		if err != nil {
			return 0, err
		}
		at *= sum
	}
	for i := range max(len(row), len(p)) {
		x := 0.0
		if row != nil {
			x = float64(row[i])
		} else {
			x = p[i]
		}
		if x == 0 {
			continue
		}
		if last = i; at < x {
			return i, nil
		}
		at -= x
	}
	return last, nil // of roundings
}

// checkDraft checks a tree and its tokens.
func checkDraft(tree, draft []int) error {
	if len(tree) == 0 || tree[0] != -1 {
		return check.Errorf(ErrCall, "kvcache: the tree has no root, want -1 as the parent of node 0")
	}
	for i, p := range tree[1:] {
		if p < 0 || p > i {
			return check.Errorf(ErrCall, "kvcache: tree[%d] is %d, want an earlier node", i+1, p)
		}
	}
	if len(draft) != len(tree) {
		return check.Errorf(ErrCall, "kvcache: draft has %d tokens, want one for each node = %d", len(draft), len(tree))
	}
	return nil
}

func checkTarget(tree, draft []int, target blas32.General, uniform func() float64) error {
	if err := checkDraft(tree, draft); err != nil {
		return err
	}
	if uniform == nil {
		return check.Errorf(ErrCall, "kvcache: uniform is nil")
	}
	if err := check.Matrix(ErrShape, "kvcache", "target", target, len(tree), max(target.Cols, 1), "tokens, 1 or more"); err != nil {
		return err
	}
	for i, x := range draft[1:] {
		if x < 0 || x >= target.Cols {
			return check.Errorf(ErrCall, "kvcache: draft[%d] is token %d, want 0 to %d", i+1, x, target.Cols-1)
		}
	}
	return nil
}

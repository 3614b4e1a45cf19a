package kvcache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
)

// goldenTree has LongSpec's tree: attention to the prefix and to the tree apart and
// together, what is verified, and the keys that stay.
func goldenTree(t *testing.T, f *golden.File) {
	q, kt, vt, kp, vp := f.Float32("q"), f.Float32("k_tree"), f.Float32("v_tree"), f.Float32("k_prefix"), f.Float32("v_prefix")
	shape, kv := f.Shape("q"), f.Shape("k_prefix")
	batch, n, h, d, most, hk := shape[0], shape[1], shape[2], shape[3], kv[1], kv[2]
	father, lens, mask := f.Int64("father"), f.Int64("prefix_lens"), f.Int64("tree_mask")
	draft, argmax := f.Int64("draft_tokens"), f.Int64("target_argmax")
	if levels := f.Numbers("tree_shape"); levels != nil { // nodes of each, the root apart
		sum := 1
		for _, x := range levels {
			sum += int(x)
		}
		if sum != n {
			t.Fatalf("levels of %v nodes, want %d with the root", levels, n)
		}
	}
	a, err := attention.New(attention.Config{Heads: h, KVHeads: hk, HeadDim: d, Causal: true})
	must(t, err)
	var out, prefixOut, treeOut, merge, prefixLSE, compacted []float32
	var nodes, tokens, count, double []int64
	width := 0
	for _, name := range []string{"accepted_nodes", "accepted_tokens"} {
		width = max(width, f.Width(name, 0))
	}
	if f.Has("k_compacted") {
		width = max(width, f.Shape("k_compacted")[1])
	}
	for b := range batch {
		rows := func(data []float32, of, heads, m int) blas32.General {
			return mat.Of(data[b*of*heads*d:], m, heads*d)
		}
		prefix := int(lens[b])
		tree := make([]int, n)
		for i := range tree {
			if tree[i] = int(father[b*n+i]); i == 0 {
				tree[i] = -1
			}
		}
		for i := range n {
			for j := range n {
				above := false
				for at := i; at >= 0; at = tree[at] {
					above = above || at == j
				}
				if above != (mask[(b*n+i)*n+j] != 0) {
					t.Fatalf("batch %d: node %d sees %d: the mask and the fathers differ", b, i, j)
				}
			}
		}
		s, err := a.NewState(attention.StateConfig{})
		must(t, err)
		must(t, s.Append(rows(kp, most, hk, prefix), rows(vp, most, hk, prefix)))
		attend := func(list attention.Selection) (dst, lse blas32.General, s2 *attention.State) {
			dst, lse, s2 = mat.New(n, h*d), mat.New(n, h), s.Clone()
			c := &attention.Call{State: s2, Tree: tree, Dst: dst, LSE: lse, Q: rows(q, n, h, n), K: []blas32.General{rows(kt, n, hk, n)}, V: []blas32.General{rows(vt, n, hk, n)}}
			if list != nil {
				c.Select = []attention.Selection{list}
			}
			must(t, a.Run(context.Background(), c))
			return dst, lse, s2
		}
		whole, _, after := attend(nil)
		before, lse, _ := attend(attention.Selection{{From: 0, To: prefix}})
		own, ownLSE, _ := attend(attention.Selection{{From: prefix, To: prefix + n}})
		out, prefixOut, treeOut = append(out, whole.Data...), append(prefixOut, before.Data...), append(treeOut, own.Data...)
		for head := range h {
			for i := range n {
				prefixLSE = append(prefixLSE, mat.Row(lse, i)[head])
			}
		}
		for i, x := range lse.Data {
			merge = append(merge, float32(1/(1+math.Exp(float64(ownLSE.Data[i]-x)))))
		}
		drafted, next := make([]int, n), make([]int, n)
		for i := range n {
			drafted[i], next[i] = int(draft[b*n+i]), int(argmax[b*n+i])
		}
		path, said, err := Verify(tree, drafted, next)
		must(t, err)
		depth, deepest := make([]int, n), 0
		for i := 1; i < n; i++ {
			depth[i] = depth[tree[i]] + 1
			deepest = max(deepest, depth[i])
		}
		for i := range width {
			x, y := int64(-1), int64(-1)
			if i < len(path) {
				x, y = int64(path[i]), int64(said[i])
			}
			nodes, tokens = append(nodes, x), append(tokens, y)
		}
		count = append(count, int64(len(path)))
		double = append(double, int64(b2i(depth[path[len(path)-1]] == deepest)))
		must(t, after.Accept(n, path))
		kept := mat.New(width, hk*d)
		for g := range hk {
			for i := range min(len(path), width) {
				segment, ok := after.Segment(prefix + i)
				if !ok {
					t.Fatalf("batch %d: token %d of the path is not held", b, i)
				}
				must(t, segment.Keys(blas32.General{Rows: 1, Cols: d, Stride: d, Data: mat.Part(kept, i, g*d, d)}, g, 0))
			}
		}
		compacted = append(compacted, kept.Data...)
	}
	f.Compare("out", out)
	f.Compare("prefix_out", prefixOut)
	f.Compare("tree_out", treeOut)
	f.Compare("prefix_lse", prefixLSE)
	f.Compare("merge_weight", merge)
	f.CompareInts("accepted_nodes", nodes)
	f.CompareInts("accepted_tokens", tokens)
	f.CompareInts("num_accepted", count)
	f.CompareInts("double_input", double)
	f.Compare("k_compacted", compacted)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// outcomes runs a function of uniform numbers for all of them: the unit interval is cut
// into cells, within which nothing changes, each time that a number is asked for.
func outcomes(cells int, run func(uniform func() float64) string) map[string]float64 {
	found := map[string]float64{}
	var explore func(numbers []float64, weight float64)
	explore = func(numbers []float64, weight float64) {
		at, more := 0, false
		result := run(func() float64 {
			if at++; at > len(numbers) {
				more = true
				return 0
			}
			return numbers[at-1]
		})
		if !more {
			found[result] += weight
			return
		}
		for i := range cells {
			explore(append(slices.Clone(numbers), (float64(i)+.5)/float64(cells)), weight/float64(cells))
		}
	}
	explore(nil, 1)
	return found
}

// TestVerifySampled enumerates all outcomes of every small tree: each node's token has the
// target's distribution, whatever came before.
func TestVerifySampled(t *testing.T) {
	rows := [][]float32{{1, 2, 1}, {0, 3, 1}, {2, 2, 0}, {1, 1, 2}, {4, 0, 0}}
	for _, tree := range [][]int{{-1}, {-1, 0}, {-1, 0, 0}, {-1, 0, 1}, {-1, 0, 0, 1, 1}, {-1, 0, 1, 0, 3}, {-1, 0, 0, 0, 2}} {
		target := mat.New(len(tree), 3)
		for i := range tree {
			copy(mat.Row(target, i), rows[i])
		}
		for code := range 1 << (2 * (len(tree) - 1)) {
			draft := make([]int, len(tree))
			for i := 1; i < len(tree); i++ {
				draft[i] = code >> (2 * (i - 1)) & 3
			}
			if slices.Max(draft) > 2 {
				continue
			}
			got := outcomes(4, func(uniform func() float64) string {
				path, tokens, err := VerifySampled(tree, draft, target, uniform)
				must(t, err)
				p := float64(1)
				for i, node := range path {
					p *= float64(target.Data[node*3+tokens[i]]) / 4
					if i > 0 && draft[node] != tokens[i-1] {
						t.Fatalf("tree %v, draft %v: path %v gives %v", tree, draft, path, tokens)
					}
				}
				return fmt.Sprint(path, tokens, " ", p)
			})
			total := 0.0
			for outcome, weight := range got {
				var p float64
				if _, err := fmt.Sscan(outcome[len(outcome)-len(fmt.Sprint(weight)):], &p); err != nil || math.Abs(p-weight) > 1e-12 {
					t.Fatalf("tree %v, draft %v: %s comes with %v", tree, draft, outcome, weight)
				}
				total += weight
			}
			if math.Abs(total-1) > 1e-12 {
				t.Fatalf("outcomes have %v together", total)
			}
		}
	}
}

// TestVerifyDrafted enumerates all outcomes, and all children that the draft may have
// drawn: the token has the target's distribution.
func TestVerifyDrafted(t *testing.T) {
	for _, c := range [][2][]float32{
		{{1, 2, 1}, {2, 1, 1}}, {{0, 3, 1}, {1, 1, 2}}, {{4, 0, 0}, {1, 2, 1}}, {{1, 1, 2}, {1, 1, 2}}, {{2, 2, 0}, {0, 2, 2}},
	} {
		target, proposal := mat.New(3, 3), mat.New(3, 3)
		for i := range 3 {
			copy(mat.Row(target, i), c[0])
			copy(mat.Row(proposal, i), c[1])
		}
		for children := range 3 {
			tree := []int{-1, 0, 0}[:children+1]
			var got [3]float64
			for code := range []int{1, 3, 9}[children] {
				draft, drawn := []int{0, code % 3, code / 3}[:children+1], 1.0
				for _, x := range draft[1:] {
					drawn *= float64(c[1][x]) / 4
				}
				if drawn == 0 {
					continue
				}
				for outcome, weight := range outcomes(36, func(uniform func() float64) string {
					path, tokens, err := VerifyDrafted(tree, draft, mat.Rows(target, 0, len(tree)), mat.Rows(proposal, 0, len(tree)), func() float64 { return uniform() })
					must(t, err)
					if len(path) > 1 { // the token after it is another matter
						tokens = tokens[:1]
					}
					return fmt.Sprint(tokens[0])
				}) {
					got[outcome[0]-'0'] += weight * drawn
				}
			}
			for x, p := range got {
				if math.Abs(p-float64(c[0][x])/4) > 1e-9 {
					t.Errorf("%v from %v with %d children: token %d comes with %v, want %v", c[0], c[1], children, x, p, c[0][x]/4)
				}
			}
		}
	}
}

func TestVerifyErrors(t *testing.T) {
	one := mat.Of([]float32{1, 1, 1, 1}, 2, 2)
	half := func() float64 { return .5 }
	sampled := func(tree, draft []int, target blas32.General, u func() float64) error {
		_, _, err := VerifySampled(tree, draft, target, u)
		return err
	}
	greedy := func(tree, draft, next []int) error { _, _, err := Verify(tree, draft, next); return err }
	drafted := func(m blas32.General) error {
		_, _, err := VerifyDrafted([]int{-1, 0}, []int{0, 1}, one, m, half)
		return err
	}
	for want, c := range map[string]struct{ err, kind error }{
		"kvcache: the tree has no root, want -1 as the parent of node 0":           {greedy(nil, nil, nil), ErrCall},
		"kvcache: tree[1] is 1, want an earlier node":                              {greedy([]int{-1, 1}, []int{0, 0}, []int{0, 0}), ErrCall},
		"kvcache: draft has 1 tokens, want one for each node = 2":                  {greedy([]int{-1, 0}, []int{0}, []int{0, 0}), ErrCall},
		"kvcache: next has 1 tokens, want one for each node = 2":                   {greedy([]int{-1, 0}, []int{0, 0}, []int{0}), ErrCall},
		"kvcache: uniform is nil":                                                  {sampled([]int{-1, 0}, []int{0, 1}, one, nil), ErrCall},
		"kvcache: target has 2 rows, want 1":                                       {sampled([]int{-1}, []int{0}, one, half), ErrShape},
		"kvcache: draft[1] is token 2, want 0 to 1":                                {sampled([]int{-1, 0}, []int{0, 2}, one, half), ErrCall},
		"kvcache: a probability is NaN, want 0 or more":                            {sampled([]int{-1}, []int{0}, mat.Of([]float32{float32(math.NaN()), 1}, 1, 2), half), ErrCall},
		"kvcache: probabilities add up to 0, want more than 0 and a finite number": {sampled([]int{-1}, []int{0}, mat.New(1, 2), half), ErrCall},
		"kvcache: proposal has 1 rows, want 2":                                     {drafted(mat.New(1, 2)), ErrShape},
	} {
		if !errors.Is(c.err, c.kind) || c.err.Error() != want {
			t.Errorf("error %v, want %s", c.err, want)
		}
	}
	// Two children of one token: the longer chain, and of equal ones the last.
	path, tokens, err := Verify([]int{-1, 0, 0, 1}, []int{0, 7, 7, 8}, []int{7, 8, 9, 5})
	must(t, err)
	if !slices.Equal(path, []int{0, 1, 3}) || !slices.Equal(tokens, []int{7, 8, 5}) {
		t.Errorf("path %v, tokens %v", path, tokens)
	}
}

package kvcache

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/subquad/subquad/internal/mat"
)

// TestChunks (law 4): steps of whole chunks give what one step does, in all policies.
func TestChunks(t *testing.T) {
	eachLaw(t, func(t *testing.T, c *lawCase, shape lawShape) {
		cfg := c.config(shape)
		cfg.Chunk, cfg.Recent = 4, 9
		a := operator(t, cfg)
		x := newText(32, &a.cfg, lawTokens)
		want := x.run(t, a, newState(t, a, StateConfig{}), 0, lawTokens)
		r := rand.New(rand.NewPCG(4, 4))
		s := newState(t, a, StateConfig{})
		for at := 0; at < lawTokens; {
			to := min(at+cfg.Chunk*(1+r.IntN(4)), lawTokens)
			bitsAgree(t, fmt.Sprintf("tokens %d to %d", at, to), x.run(t, a, s, at, to), mat.Rows(want, at, to))
			at = to
		}
	})
}

// TestPieces (law 4): what a policy keeps at the end of a prompt does not depend on the
// pieces that the prompt came in.
func TestPieces(t *testing.T) {
	for i := range lawCases {
		c := &lawCases[i]
		cfg := c.config(lawShapes[1])
		if cfg.Evict == nil {
			continue
		}
		cfg.Every = 1000 // at Compact alone
		a := operator(t, cfg)
		if u := cfg.Evict.rule(&a.cfg); u.before || u.each {
			continue
		}
		x := newText(33, &a.cfg, lawTokens)
		whole := newState(t, a, StateConfig{})
		x.run(t, a, whole, 0, lawTokens-1)
		must(t, whole.Compact(0))
		var held []string
		for g := range a.cfg.KVHeads {
			held = append(held, fmt.Sprint(whole.Positions(nil, g)))
		}
		want := x.run(t, a, whole, lawTokens-1, lawTokens)
		for _, piece := range []int{1, 3, 7, 25} {
			s := newState(t, a, StateConfig{})
			for at := 0; at < lawTokens-1; at += piece {
				x.run(t, a, s, at, min(at+piece, lawTokens-1))
			}
			must(t, s.Compact(0))
			for g := range a.cfg.KVHeads {
				if got := fmt.Sprint(s.Positions(nil, g)); got != held[g] {
					t.Errorf("%s, pieces of %d: key head %d holds %s, want %s", c.name, piece, g, got, held[g])
				}
			}
			bitsAgree(t, c.name, x.run(t, a, s, lawTokens-1, lawTokens), want)
		}
	}
}

// TestStepBatch (law 13): a batch of states goes on as each does alone.
func TestStepBatch(t *testing.T) {
	eachLaw(t, func(t *testing.T, c *lawCase, shape lawShape) {
		a := operator(t, c.config(shape))
		var texts []lawText
		var batch, alone []*State
		for i := range 3 {
			x := newText(uint64(34+i), &a.cfg, lawTokens)
			s := newState(t, a, StateConfig{})
			x.run(t, a, s, 0, 20+9*i)
			texts, batch, alone = append(texts, x), append(batch, s), append(alone, s.Clone())
		}
		for step := range 5 {
			q, k, v := mat.New(3, texts[0].q.Cols), mat.New(3, texts[0].k.Cols), mat.New(3, texts[0].v.Cols)
			for i, x := range texts {
				at := 20 + 9*i + step
				x.importance[at] = 0 // a batch has none
				copy(mat.Row(q, i), mat.Row(x.q, at))
				copy(mat.Row(k, i), mat.Row(x.k, at))
				copy(mat.Row(v, i), mat.Row(x.v, at))
			}
			dst := mat.New(3, a.cfg.Heads*a.cfg.ValueDim)
			must(t, a.StepBatch(dst, q, k, v, batch))
			for i, x := range texts {
				at := 20 + 9*i + step
				bitsAgree(t, fmt.Sprintf("step %d of state %d", step, i), mat.Rows(dst, i, i+1), x.run(t, a, alone[i], at, at+1))
			}
		}
	})
}

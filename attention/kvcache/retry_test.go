package kvcache

import (
	"bytes"
	"context"
	"errors"
	"math"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
)

// weary is a context that is done after so many looks.
type weary struct {
	context.Context
	looks *int
}

func (c weary) Err() error {
	if *c.looks--; *c.looks < 0 {
		return context.Canceled
	}
	return nil
}

// TestRetry: a step that ended early, for its context or for want of pages, leaves a state
// that goes on from its Len as if nothing had been tried.
func TestRetry(t *testing.T) {
	for i := range lawCases {
		c := &lawCases[i]
		t.Run(c.name, func(t *testing.T) {
			a := operator(t, c.config(lawShapes[i%len(lawShapes)]))
			x := newText(41, &a.cfg, lawTokens)
			want := x.run(t, a, newState(t, a, StateConfig{}), 0, lawTokens)
			s := newState(t, a, StateConfig{})
			early := 0
			for at := 0; at < lawTokens; at++ {
				for looks := range 4 {
					c := callOf(mat.New(1, want.Cols), mat.Rows(x.q, at, at+1), mat.Rows(x.k, at, at+1), mat.Rows(x.v, at, at+1))
					c.State, c.Options = s, &Options{Importance: x.importance[at : at+1]}
					if err := a.Run(weary{t.Context(), &looks}, c); err == nil {
						bitsAgree(t, "at once", c.Dst, mat.Rows(want, at, at+1))
						break
					} else if !errors.Is(err, context.Canceled) {
						t.Fatal(err)
					}
					early++
					if s.Len() != at {
						t.Fatalf("a cancelled step leaves %d tokens of %d", s.Len(), at)
					}
				}
				if s.Len() == at {
					bitsAgree(t, "after a cancelled step", x.run(t, a, s, at, at+1), mat.Rows(want, at, at+1))
				}
			}
			if early == 0 {
				t.Error("nothing was cancelled")
			}
			// Another state has the pages for a while.
			p, err := a.NewPages(attention.PagesConfig{PageTokens: 4, MaxPages: a.cfg.KVHeads*(lawTokens+3)/4 + 4*a.cfg.KVHeads})
			must(t, err)
			s = newState(t, a, StateConfig{Pages: p})
			full := 0
			for at := 0; at < lawTokens; at++ {
				thief, err := a.op.NewState(attention.StateConfig{Pages: p})
				must(t, err)
				if free := p.Free() - at%2*(a.cfg.KVHeads-1); free > 0 {
					must(t, thief.Append(mat.New(4*free, a.cfg.HeadDim), mat.New(4*free, a.cfg.ValueDim)))
				}
				c := callOf(mat.New(1, want.Cols), mat.Rows(x.q, at, at+1), mat.Rows(x.k, at, at+1), mat.Rows(x.v, at, at+1))
				c.State, c.Options = s, &Options{Importance: x.importance[at : at+1]}
				if err := a.Run(t.Context(), c); err == nil {
					bitsAgree(t, "with room", c.Dst, mat.Rows(want, at, at+1))
				} else if !errors.Is(err, ErrFull) {
					t.Fatal(err)
				}
				thief.Reset()
				if s.Len() == at {
					full++
					bitsAgree(t, "after a full pool", x.run(t, a, s, at, at+1), mat.Rows(want, at, at+1))
				}
			}
			if full == 0 {
				t.Error("the pool was never full")
			}
		})
	}
}

// TestWildInput: keys, queries and values that are no numbers, or all alike, and budgets of
// every size: an answer, whatever it is, and a state that goes on.
func TestWildInput(t *testing.T) {
	inf := float32(math.Inf(1))
	for i := range lawCases {
		c := &lawCases[i]
		t.Run(c.name, func(t *testing.T) {
			for n, w := range []float32{float32(math.NaN()), inf, -inf, 0, math.MaxFloat32, -math.MaxFloat32, 1e-42} {
				for chunk := range 3 {
					cfg := c.config(lawShapes[(i+n)%len(lawShapes)])
					cfg.Chunk = []int{1, 7, 64}[chunk]
					a := operator(t, cfg)
					x := newText(42, &a.cfg, lawTokens)
					for _, m := range [][]float32{x.k.Data, x.q.Data, x.v.Data, x.importance}[:1+n%4] {
						for j := range m {
							if j/5%7 == n%7 || n == 3 {
								m[j] = w
							}
						}
					}
					s := newState(t, a, StateConfig{})
					for at := 0; at < lawTokens; {
						to := min(lawTokens, at+[]int{1, 9, 33}[(at+n)%3])
						x.run(t, a, s, at, to)
						at = to
					}
					if a.cfg.Evict != nil {
						must(t, s.Compact(0))
						for _, p := range s.Positions(nil, 0) {
							if p < 0 || p >= lawTokens {
								t.Fatalf("position %d", p)
							}
						}
					}
				}
			}
		})
	}
}

// TestCopyOfAnotherKind: a copy has the memory of what it is a copy of, and gives it back.
func TestCopyOfAnotherKind(t *testing.T) {
	for i := range lawCases {
		c := &lawCases[i]
		t.Run(c.name, func(t *testing.T) {
			a := operator(t, c.config(lawShape{4, 2, 16}))
			x, y := newText(43, &a.cfg, lawTokens), newText(44, &a.cfg, lawTokens)
			pool := func() *attention.Pages {
				p, err := a.NewPages(attention.PagesConfig{PageTokens: 4, Format: asm.BFloat16})
				must(t, err)
				return p
			}
			one, two := pool(), pool()
			for _, from := range []StateConfig{{Format: asm.Int8, MaxTokens: 60}, {Format: asm.BFloat16, Pages: one}, {}} {
				for _, to := range []StateConfig{{Snapshots: 3}, {Snapshots: 3, Format: asm.BFloat16, Pages: two}} {
					f, s := newState(t, a, from), newState(t, a, to)
					x.run(t, a, f, 0, 40)
					y.run(t, a, s, 0, 9)
					y.run(t, a, s, 9, 12)
					must(t, s.CopyFrom(f))
					y.run(t, a, s, 40, 44)
					must(t, s.Truncate(40))
					var file bytes.Buffer
					_, err := s.WriteTo(&file)
					must(t, err)
					back, err := a.ReadState(&file)
					must(t, err)
					fork := f.Clone()
					want := x.run(t, a, fork, 40, 43)
					fork.Reset()
					bitsAgree(t, "read back", x.run(t, a, back, 40, 43), want)
					for i := range 3 {
						bitsAgree(t, "copied", x.run(t, a, s, 40+i, 41+i), mat.Rows(want, i, i+1))
					}
					if from.MaxTokens > 0 && a.cfg.Evict == nil {
						if err := s.checkRoom(18); !errors.Is(err, ErrFull) {
							t.Errorf("18 more tokens in a copy of MaxTokens 60: %v", err)
						}
					}
					s.Reset()
					f.Reset()
				}
			}
			for _, p := range []*attention.Pages{one, two} {
				if n := p.Used(); n != 0 {
					t.Errorf("%d pages are left", n)
				}
			}
		})
	}
}

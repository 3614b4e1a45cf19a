package kvcache

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/rope"
)

// TestTokenCopy: TokenSelect by a copy of the keys chooses what it chooses by the keys, in
// cuts, forks, after going back and from a file the same, and allocates nothing.
func TestTokenCopy(t *testing.T) {
	const n, before = 1400, 1300
	isatest.Run(t, func(t *testing.T) {
		for _, bits := range []int{8, 4} {
			for _, turns := range []bool{false, true} {
				cfg := Config{Heads: 4, KVHeads: 2, HeadDim: 24, Keep: 2, Recent: 16, Chunk: 8, Select: TokenSelect{TopK: 60}}
				if turns {
					cfg.Rotation, cfg.Positions = &rope.Config{HeadDim: 24}, InCache
				}
				exact := operator(t, cfg)
				cfg.Select = TokenSelect{TopK: 60, Bits: bits}
				a := operator(t, cfg)
				x, y := newText(40, &a.cfg, n), newText(41, &a.cfg, n)
				for i := range n { // what a mean is taken from
					for j := range mat.Row(x.k, i) {
						mat.Row(x.k, i)[j] += float32(j % 5)
					}
				}
				s, e := newState(t, a, StateConfig{}), newState(t, exact, StateConfig{})
				must(t, s.Append(mat.Rows(x.k, 0, before), mat.Rows(x.v, 0, before)))
				must(t, e.Append(mat.Rows(x.k, 0, before), mat.Rows(x.v, 0, before)))
				var file bytes.Buffer
				_, err := s.WriteTo(&file)
				must(t, err)
				back, err := a.ReadState(&file)
				must(t, err)
				fork := s.Clone()
				y.run(t, a, fork, before, n)
				must(t, fork.Truncate(before))
				s.Trace(true)
				e.Trace(true)
				whole := mat.New(n-before, 96)
				same, all := 0, 0
				for i := before; i < n; i += 8 {
					to := min(i+8, n)
					mat.Copy(mat.Rows(whole, i-before, to-before), x.run(t, a, s, i, to))
					x.run(t, exact, e, i, to)
					read := map[int64]bool{}
					for _, p := range e.Reads(nil, 0) {
						read[p] = true
					}
					for _, p := range s.Reads(nil, 0) {
						if all++; read[p] {
							same++
						}
					}
				}
				if least := map[int]float64{8: .995, 4: .93}[bits]; float64(same) < least*float64(all) {
					t.Errorf("%d bits, turns %v: %d of %d are what keys choose", bits, turns, same, all)
				}
				for i, st := range []*State{fork, back} {
					bitsAgree(t, fmt.Sprintf("%d bits, state %d", bits, i), x.run(t, a, st, before, n), whole)
				}
			}
		}
	})
	if _, err := New(Config{Heads: 1, HeadDim: 8, Select: TokenSelect{TopK: 4, Kernel: 3, Bits: 8}}); err == nil {
		t.Error("Bits with Pool")
	}
	if _, err := New(Config{Heads: 1, HeadDim: 8, Select: TokenSelect{TopK: 4, Bits: 5}}); err == nil {
		t.Error("5 bits")
	}
}

// TestTokenCopyOdd: what is not finite in keys or queries is looked at where it stands.
func TestTokenCopyOdd(t *testing.T) {
	cfg := Config{Heads: 2, HeadDim: 8, Keep: 1, Recent: 4, Chunk: 1, Select: TokenSelect{TopK: 20, Bits: 8}}
	a := operator(t, cfg)
	cfg.Select = TokenSelect{TopK: 20}
	exact := operator(t, cfg)
	const n = 1100
	for _, odd := range []float32{float32(math.NaN()), float32(math.Inf(1))} {
		x := newText(42, &a.cfg, n)
		x.k.Data[300*x.k.Stride+3], x.q.Data[(n-2)*x.q.Stride+1] = odd, odd
		s, e := newState(t, a, StateConfig{}), newState(t, exact, StateConfig{})
		must(t, s.Append(mat.Rows(x.k, 0, n-2), mat.Rows(x.v, 0, n-2)))
		must(t, e.Append(mat.Rows(x.k, 0, n-2), mat.Rows(x.v, 0, n-2)))
		s.Trace(true)
		e.Trace(true)
		for i := n - 2; i < n; i++ {
			x.run(t, a, s, i, i+1)
			x.run(t, exact, e, i, i+1)
			if got, want := fmt.Sprint(s.Reads(nil, 0)), fmt.Sprint(e.Reads(nil, 0)); got != want {
				t.Errorf("%v, query %d: reads %s, want %s", odd, i, got, want)
			}
		}
	}
}

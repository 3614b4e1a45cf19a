package kvcache

import (
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
)

// poisons is what must not be read.
var poisons = []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32}

// memoryOf returns the keys and values of a key head that is in one piece, where they stand,
// and all memory after them.
func memoryOf(t *testing.T, st *attention.State) (k, v blas32.General, rest [][]float32) {
	t.Helper()
	positions := st.Positions(nil)
	g, ok := st.Segment(int(positions[0]))
	if !ok {
		t.Fatal("no segment")
	}
	k, v, ok = g.Float32()
	if !ok {
		t.Fatal("keys are not float32")
	}
	for _, m := range []*blas32.General{&k, &v} {
		m.Rows = st.Held()
		all := m.Data[:cap(m.Data)]
		m.Data = all[:m.Rows*m.Stride]
		rest = append(rest, all[m.Rows*m.Stride:])
	}
	return k, v, rest
}

// TestPoisonedMemory (law 2): what a step does not read may be overwritten with anything
// where it stands: values of all selectors, and keys of those that choose by an index of
// their own, or use a choice again.
func TestPoisonedMemory(t *testing.T) {
	eachLaw(t, func(t *testing.T, c *lawCase, shape lawShape) {
		cfg := c.config(shape)
		if cfg.Evict != nil {
			t.Skip("see TestPoisonedRoom")
		}
		keys := true
		switch p := cfg.Select.(type) {
		case nil, All:
			t.Skip("reads all")
		case Top, TokenSelect:
			keys = false // it looks at all of them
		case Cached:
			p.Similarity, p.MaxAge, p.Follow = -1, 0, true // used for ever
			cfg.Select = p
		}
		a := operator(t, cfg)
		x := newText(23, &a.cfg, lawTokens)
		s := newState(t, a, StateConfig{MaxTokens: lawTokens})
		const at = lawTokens - 6
		x.run(t, a, s, 0, at)
		clean := s.Clone()
		for i := at; i < lawTokens; i++ {
			clean.Trace(true)
			want := x.run(t, a, clean, i, i+1)
			if i > at { // the memory of this one is spoilt, what was decided is not
				x.run(t, a, s, i-1, i)
			}
			unread := 0
			spoilt := s.Clone()
			for g, st := range spoilt.heads {
				read := map[int64]bool{}
				for h := g * a.group; h < (g+1)*a.group; h++ {
					for _, p := range clean.Reads(nil, h) {
						read[p] = true
					}
				}
				k, v, _ := memoryOf(t, st)
				spoil := k.Rows
				if index, ok := spoilt.index.(*retroIndex); ok {
					spoil = index.first + index.done // the step may make clusters of others
				}
				for row := range spoil {
					if read[int64(row)] {
						continue
					}
					unread++
					for j := range mat.Row(v, row) {
						mat.Row(v, row)[j] = poisons[(row+j)%len(poisons)]
					}
					for j := range mat.Row(k, row) {
						if keys {
							mat.Row(k, row)[j] = poisons[(row+2*j)%len(poisons)]
						}
					}
				}
			}
			if unread == 0 {
				t.Fatal("all is read")
			}
			bitsAgree(t, fmt.Sprintf("token %d", i), x.run(t, a, spoilt, i, i+1), want)
		}
	})
}

// TestPoisonedRoom (law 2): what is forgotten is gone: memory beyond what is held may hold
// anything, and no position comes back.
func TestPoisonedRoom(t *testing.T) {
	eachLaw(t, func(t *testing.T, c *lawCase, shape lawShape) {
		cfg := c.config(shape)
		if cfg.Evict == nil {
			t.Skip("forgets nothing")
		}
		a := operator(t, cfg)
		x := newText(24, &a.cfg, lawTokens)
		want := x.run(t, a, newState(t, a, StateConfig{}), 0, lawTokens)
		s := newState(t, a, StateConfig{MaxTokens: lawTokens})
		gone := make([]map[int64]bool, a.cfg.KVHeads)
		for i := range lawTokens {
			bitsAgree(t, fmt.Sprintf("token %d", i), x.run(t, a, s, i, i+1), mat.Rows(want, i, i+1))
			for g, st := range s.heads {
				_, _, rest := memoryOf(t, st)
				for _, m := range rest {
					for j := range m {
						m[j] = poisons[j%len(poisons)]
					}
				}
				held := map[int64]bool{}
				for _, p := range s.Positions(nil, g) {
					if held[p] = true; gone[g][p] {
						t.Fatalf("token %d: key head %d holds position %d again", i, g, p)
					}
				}
				if gone[g] == nil {
					gone[g] = map[int64]bool{}
				}
				for p := range int64(i + 1) {
					gone[g][p] = !held[p]
				}
			}
		}
	})
}

package kvcache

import (
	"slices"
	"testing"
)

// TestTrace: what a state says was read is what was, in every policy; and noting it changes
// no bit.
func TestTrace(t *testing.T) {
	for i := range lawCases {
		c := &lawCases[i]
		cfg := c.config(lawShapes[1])
		cfg.KVHeads, cfg.Chunk = 2, 3
		a := operator(t, cfg)
		x := newText(22, &a.cfg, lawTokens)
		s, plain := newState(t, a, StateConfig{}), newState(t, a, StateConfig{})
		s.Trace(true)
		for at := 0; at < lawTokens-1; at += 6 {
			to := min(at+6, lawTokens-1)
			bitsAgree(t, c.name, x.run(t, a, s, at, to), x.run(t, a, plain, at, to))
			for h := range cfg.Heads {
				got := s.Reads(nil, h)
				if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
					t.Fatalf("%s: head %d read %v", c.name, h, got)
				}
				if got[len(got)-1] != int64(to-1) {
					t.Fatalf("%s: head %d read %v, and not itself at %d", c.name, h, got, to-1)
				}
			}
		}
		if n := len(plain.Reads(nil, 0)) + len(s.Clone().Reads(nil, 0)) + len(s.Reads(nil, cfg.Heads)); n != 0 {
			t.Errorf("%s: %d reads of what does not note them", c.name, n)
		}
		s.Reset()
		if got := s.Reads(nil, 0); len(got) != 0 {
			t.Errorf("%s: %v after Reset", c.name, got)
		}
		x.run(t, a, s, 0, 3)
		if got := s.Reads(nil, 0); len(got) != 3 {
			t.Errorf("%s: %v of three tokens after Reset", c.name, got)
		}
	}
}

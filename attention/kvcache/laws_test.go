package kvcache

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
)

// TestRoomyIsExact (law 1): with a budget that holds all the bits are those of
// attention.Step.
func TestRoomyIsExact(t *testing.T) {
	eachLaw(t, func(t *testing.T, c *lawCase, shape lawShape) {
		if c.roomy == nil {
			t.Skip("no budget holds all, or what is read goes through other sums")
		}
		cfg := c.config(shape)
		c.roomy(&cfg)
		a := operator(t, cfg)
		exact, err := attention.New(attention.Config{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Causal: true})
		must(t, err)
		st, err := exact.NewState(attention.StateConfig{})
		must(t, err)
		x := newText(1, &a.cfg, lawTokens)
		s := newState(t, a, StateConfig{})
		for i := range lawTokens {
			got := x.run(t, a, s, i, i+1)
			want := mat.New(1, got.Cols)
			must(t, exact.Step(want, mat.Rows(x.q, i, i+1), mat.Rows(x.k, i, i+1), mat.Rows(x.v, i, i+1), st))
			if c.name == "Window" || s.marks.rule.mass || c.name == "RetroInfer" { // through sums of its own
				for j, y := range want.Data {
					if math.Abs(float64(got.Data[j]-y)) > 1e-5 {
						t.Fatalf("token %d: %v, want %v", i, got.Data[j], y)
					}
				}
				continue
			}
			bitsAgree(t, fmt.Sprintf("token %d", i), got, want)
		}
	})
}

// TestSplits (law 4) and TestWorkers (law 13): any cut at a query a chunk, any workers,
// pages, batches.
func TestSplits(t *testing.T) {
	eachLaw(t, func(t *testing.T, c *lawCase, shape lawShape) {
		a := operator(t, c.config(shape))
		x := newText(2, &a.cfg, lawTokens)
		s := newState(t, a, StateConfig{})
		want := x.run(t, a, s, 0, lawTokens)
		r := rand.New(rand.NewPCG(3, 3))
		for way := range 4 {
			cfg := StateConfig{}
			if way > 0 {
				p, err := a.NewPages(attention.PagesConfig{PageTokens: []int{1, 16, 64}[way-1]})
				must(t, err)
				cfg.Pages = p
			}
			other := c.config(shape)
			other.Workers = 1 + 3*way%8
			b := operator(t, other)
			if way > 0 {
				b = a // whose pages these are
			}
			s := newState(t, b, cfg)
			for at := 0; at < lawTokens; {
				to := min(at+1+r.IntN(9), lawTokens)
				bitsAgree(t, "split", x.run(t, b, s, at, to), mat.Rows(want, at, to))
				at = to
			}
			if cfg.Pages != nil {
				s.Reset()
				if n := cfg.Pages.Used(); n != 0 {
					t.Errorf("%d pages are left", n)
				}
			}
		}
	})
}

// TestForkAndFile (law 3): clones go their own ways; what is written goes on bit for bit.
func TestForkAndFile(t *testing.T) {
	eachLaw(t, func(t *testing.T, c *lawCase, shape lawShape) {
		a := operator(t, c.config(shape))
		x, y := newText(4, &a.cfg, lawTokens), newText(5, &a.cfg, lawTokens)
		whole := x.run(t, a, newState(t, a, StateConfig{}), 0, lawTokens)
		const fork = 37
		mixed := newState(t, a, StateConfig{})
		x.run(t, a, mixed, 0, fork)
		other := y.run(t, a, mixed, fork, lawTokens)

		s := newState(t, a, StateConfig{})
		for at := range lawTokens {
			if at%7 == 3 || at == fork {
				var file bytes.Buffer
				n, err := s.WriteTo(&file)
				must(t, err)
				if n != int64(file.Len()) {
					t.Fatalf("WriteTo says %d bytes, wrote %d", n, file.Len())
				}
				back, err := a.ReadState(&file)
				must(t, err)
				if back.Len() != s.Len() || file.Len() != 0 {
					t.Fatalf("read %d tokens, want %d; %d bytes left", back.Len(), s.Len(), file.Len())
				}
				bitsAgree(t, "read back", x.run(t, a, back, at, lawTokens), mat.Rows(whole, at, lawTokens))
			}
			if at == fork {
				bitsAgree(t, "fork", y.run(t, a, s.Clone(), fork, lawTokens), other)
				copied := newState(t, a, StateConfig{})
				must(t, copied.CopyFrom(s))
				bitsAgree(t, "copy", y.run(t, a, copied, fork, lawTokens), other)
			}
			bitsAgree(t, "one by one", x.run(t, a, s, at, at+1), mat.Rows(whole, at, at+1))
		}
	})
}

// TestSnapshots (law 3): what was taken back leaves nothing.
func TestSnapshots(t *testing.T) {
	eachLaw(t, func(t *testing.T, c *lawCase, shape lawShape) {
		a := operator(t, c.config(shape))
		x, y := newText(6, &a.cfg, lawTokens), newText(7, &a.cfg, lawTokens)
		want := x.run(t, a, newState(t, a, StateConfig{}), 0, lawTokens)
		s := newState(t, a, StateConfig{Snapshots: 4})
		for at := 0; at < lawTokens; at++ {
			for range at % 4 {
				y.run(t, a, s, at, at+1)
				must(t, s.Truncate(at))
			}
			for i := range at % 3 { // several calls, one way back
				if at+i < lawTokens {
					y.run(t, a, s, at+i, at+i+1)
				}
			}
			must(t, s.Truncate(at))
			bitsAgree(t, "after going back", x.run(t, a, s, at, at+1), mat.Rows(want, at, at+1))
		}
		// Without versions: as far as the policy can, or an error that changes nothing.
		s = newState(t, a, StateConfig{})
		x.run(t, a, s, 0, 40)
		err := s.Truncate(33)
		if err != nil && s.Len() != 40 || err == nil && s.Len() != 33 {
			t.Errorf("Truncate gives %v and leaves %d tokens", err, s.Len())
		}
		at := s.Len()
		if err == nil {
			bitsAgree(t, "truncated", x.run(t, a, s, at, lawTokens), mat.Rows(want, at, lawTokens))
		} else {
			bitsAgree(t, "as before", x.run(t, a, s, at, lawTokens), mat.Rows(want, at, lawTokens))
		}
	})
}

// TestPoison (law 2): keys and values that are not read may be anything.
func TestPoison(t *testing.T) {
	eachLaw(t, func(t *testing.T, c *lawCase, shape lawShape) {
		cfg := c.config(shape)
		a := operator(t, cfg)
		x := newText(8, &a.cfg, lawTokens)
		s := newState(t, a, StateConfig{})
		x.run(t, a, s, 0, lawTokens-1)
		r := new(run)
		out := mat.New(1, cfg.Heads*cfg.ValueDim)
		at := lawTokens - 1
		must(t, r.serve(t.Context(), a, attention.Call{Dst: out, Q: mat.Rows(x.q, at, at+1), Options: &Options{Importance: x.importance[at:]}},
			mat.Rows(x.k, at, at+1), mat.Rows(x.v, at, at+1), batchOf(s.Clone())))
		if cfg.Evict != nil || r.choice.All {
			return // all that is held is read
		}
		// Values of what no head reads become NaN.
		nan := float32(math.NaN())
		poisoned := lawText{x.q, x.k, mat.New(x.v.Rows, x.v.Cols), x.importance}
		mat.Copy(poisoned.v, x.v)
		tasks := max(r.units, a.cfg.KVHeads)
		for g := range a.cfg.KVHeads {
			read := make([]bool, lawTokens)
			for task := g * tasks / a.cfg.KVHeads; task < (g+1)*tasks/a.cfg.KVHeads; task++ {
				for _, x := range slices.Concat(r.runs[task], r.fars[task]) {
					for i := x.From; i < x.To; i++ {
						read[i] = true
					}
				}
			}
			unread := 0
			for i, is := range read[:at] {
				if !is {
					unread++
					for j := range a.cfg.ValueDim {
						mat.Part(poisoned.v, i, g*a.cfg.ValueDim, a.cfg.ValueDim)[j] = nan
					}
				}
			}
			if unread == 0 {
				t.Error("all is read")
			}
		}
		if c.name == "RetroInfer" {
			return // clusters are sums of values
		}
		p := newState(t, a, StateConfig{})
		poisoned.run(t, a, p, 0, at)
		if c.name != "Cached" { // whose choice may be an older one
			bitsAgree(t, "poisoned", poisoned.run(t, a, p, at, at+1), out)
		}
	})
}

// TestGroups (law 7): key heads that are repeated choose alike, where each query head
// chooses alone.
func TestGroups(t *testing.T) {
	cfg := Config{Heads: 6, KVHeads: 2, HeadDim: 8, Keep: 1, Recent: 3, Chunk: 1}
	for _, p := range []Selector{Top{TopK: 4, Group: Alone}, Quest{Page: 2, Budget: 6, Group: Alone}, TokenSelect{TopK: 5}} {
		cfg.Select = p
		a := operator(t, cfg)
		wide := cfg
		wide.KVHeads = 6
		b := operator(t, wide)
		x := newText(9, &a.cfg, 40)
		repeated := lawText{q: x.q, k: mat.New(40, 48), v: mat.New(40, 48), importance: x.importance}
		for i := range 40 {
			for h := range 6 {
				copy(mat.Part(repeated.k, i, h*8, 8), mat.Part(x.k, i, h/3*8, 8))
				copy(mat.Part(repeated.v, i, h*8, 8), mat.Part(x.v, i, h/3*8, 8))
			}
		}
		bitsAgree(t, fmt.Sprintf("%T", p), repeated.run(t, b, newState(t, b, StateConfig{}), 0, 40), x.run(t, a, newState(t, a, StateConfig{}), 0, 40))
	}
}

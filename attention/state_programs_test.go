package attention

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// step takes a random step, perhaps after one that fails, and compares it.
func (b *programRun) step() {
	r, c := b.r, &b.a.cfg
	n := [...]int{0, 1, 1, 1, 2, 3, 7, 40, 90}[r.IntN(9)]
	if b.cfg.MaxTokens > 0 {
		n = min(n, b.cfg.MaxTokens-len(b.m.tokens))
	}
	look := r.IntN(5) == 0
	if look {
		n = min(1+r.IntN(4), b.m.n)
	}
	var tree []int
	if !look && n > 0 && r.IntN(4) == 0 && (b.cfg.Window == 0 || n <= slack) {
		for i := range n {
			tree = append(tree, r.IntN(i+1)-1)
		}
	}
	var visible func(int64) (int64, int64)
	switch r.IntN(8) {
	case 0:
		visible = func(q int64) (int64, int64) { return q / 3, q - 1 }
	case 1:
		visible = func(q int64) (int64, int64) { return math.MinInt64, math.MaxInt64 }
	case 2:
		visible = func(q int64) (int64, int64) {
			if q%2 == 0 {
				return math.MaxInt64, math.MinInt64
			}
			return math.MinInt64, q
		}
	}
	q, k, v := b.rows(n, c.Heads*c.HeadDim, false), b.rows(n, c.KVHeads*c.HeadDim, r.IntN(3) == 0), b.rows(n, c.KVHeads*c.ValueDim, r.IntN(9) == 0)
	call := &Call{State: b.s, Q: q, Dst: blank(n, c.Heads*c.ValueDim), LSE: blank(n, c.Heads), Visible: visible, Tree: tree}
	base := b.m.n
	if !look {
		call.K, call.V = []blas32.General{k}, []blas32.General{v}
		if n > 2 && r.IntN(2) == 0 {
			call.K, call.V = []blas32.General{part(k, 0, 2), part(k, 2, n)}, []blas32.General{part(v, 0, 2), part(v, 2, n)}
		}
	}
	var w blas32.General
	if b.cfg.LogWeights && !look && r.IntN(2) == 0 && n > 0 {
		w = b.rows(n, [...]int{1, c.KVHeads}[r.IntN(2)], false)
		call.LogWeights = w
	}
	total := base + n
	if look {
		total = base
	}
	if b.cfg.Window == 0 && r.IntN(3) == 0 {
		call.Mass = blank(total, c.Heads)
	}
	if r.IntN(4) == 0 {
		call.Entropy = blank(n, c.Heads)
	}
	what := fmt.Sprintf("step of %d, look %v, tree %v, visible %v", n, look, tree, visible != nil)
	// First one that fails.
	if r.IntN(3) == 0 && n > 0 && (b.cfg.Window == 0 || n <= slack) {
		bad := *call
		ctx := context.Context(context.Background())
		kind := r.IntN(3)
		switch kind {
		case 0:
			ctx = &statetest.Ending{Context: ctx, Left: r.IntN(6)}
		case 1:
			bad.Visible = func(int64) (int64, int64) { panic("no") }
		case 2:
			bad.Visible = func(int64) (int64, int64) { runtime.Goexit(); return 0, 0 }
		}
		err := errors.New("the goroutine ended")
		ran := make(chan bool)
		go func() {
			defer close(ran)
			err = b.a.Run(ctx, &bad)
		}()
		<-ran
		if b.cfg.Window > 0 && !look {
			b.m.high = max(b.m.high, base+n)
			b.prune()
		}
		if err != nil {
			b.check(what + ", failed: " + err.Error())
		} else if !look { // it went through
			if err := b.s.Truncate(base); err != nil && base > 0 {
				b.t.Fatalf("%s: %s: %v", b.what, what, err)
			} else if err != nil {
				b.s.Reset()
			}
			if b.cfg.Window > 0 {
				b.m.high = max(b.m.high, base+n)
			}
		}
	}
	if err := b.a.Run(context.Background(), call); err != nil {
		b.t.Fatalf("%s: %s: %v", b.what, what, err)
	}
	most := rounded(2e-4)
	if int8Products {
		most *= 3 // of the largest keys, which move logits by most
	}
	depth := make([]int, n)
	for i, p := range tree {
		if p >= 0 {
			depth[i] = depth[p] + 1
		}
	}
	if !look {
		for i := range n {
			x := modelToken{pos: base + i, k: mat.Row(k, i), v: mat.Row(v, i), w: make([]float32, c.KVHeads)}
			if w.Rows > 0 {
				for g := range x.w {
					x.w[g] = w.Data[i*w.Stride+min(g, w.Cols-1)]
				}
			}
			b.m.tokens = append(b.m.tokens, x)
		}
		b.m.n += n
		b.m.high = max(b.m.high, b.m.n)
	}
	var got map[int]modelToken
	ring := b.cfg.Window > 0
	if ring {
		b.prune()
	}
	got = b.check(what)
	mass := map[int][]float64{}
	for i := range n {
		pos := base + i
		if look {
			pos = base - n + i
		}
		if tree != nil {
			pos = base + depth[i]
		}
		if ring && (n > slack || look) && (pos < b.m.high-slack) {
			continue // its window may be overwritten by now
		}
		var keys []seenKey
		for _, x := range got {
			key := seenKey{x, x.pos, x.pos, true}
			if tree != nil && x.pos >= base {
				node := x.pos - base
				key.pos = base + depth[node]
				at := i
				for at > node {
					at = tree[at]
				}
				key.ok = at == node
			}
			keys = append(keys, key)
		}
		out, lse, m := b.reference(mat.Row(q, i), pos, keys, visible)
		for at, row := range m {
			if mass[at] == nil {
				mass[at] = make([]float64, c.Heads)
			}
			for h, p := range row {
				mass[at][h] += p
			}
		}
		for j, x := range out {
			if d := math.Abs(float64(mat.Row(call.Dst, i)[j]) - x); !(d <= most*math.Max(1, math.Abs(x))) {
				b.t.Fatalf("%s: %s: query %d at %d, element %d: %v, want %v", b.what, what, i, pos, j, mat.Row(call.Dst, i)[j], x)
			}
		}
		for h, x := range lse {
			if y := float64(mat.Row(call.LSE, i)[h]); y != x && !(math.Abs(y-x) <= most*math.Max(1, math.Abs(x))) {
				b.t.Fatalf("%s: %s: query %d, LSE %v, want %v", b.what, what, i, y, x)
			}
		}
	}
	for at := range call.Mass.Rows {
		for h, y := range mat.Row(call.Mass, at) {
			x := 0.0
			if mass[at] != nil {
				x = mass[at][h]
			}
			if !(math.Abs(float64(y)-x) <= most) {
				b.t.Fatalf("%s: %s: mass of %d is %v, want %v", b.what, what, at, y, x)
			}
		}
	}
	if tree != nil { // keep a chain
		var path []int
		at := -1
		for i, p := range tree {
			if p == at && r.IntN(3) > 0 {
				path, at = append(path, i), i
			}
		}
		if err := b.s.Accept(n, path); err != nil {
			b.t.Fatalf("%s: %s: Accept: %v", b.what, what, err)
		}
		var keep []modelToken
		for _, x := range b.m.tokens {
			if x.pos < base {
				keep = append(keep, x)
			}
		}
		for i, node := range path {
			for _, x := range b.m.tokens {
				if x.pos == base+node {
					x.pos = base + i
					keep = append(keep, x)
				}
			}
		}
		b.m.tokens, b.m.n = keep, base+len(path)
		b.check(what + ", accepted")
	}
}

// TestPrograms runs random programs over states of every kind: steps, looks, trees, failures
// half way, Keep, Forget, Skip, Truncate, forks and files.
func TestPrograms(t *testing.T) {
	seeds := 30
	if testing.Short() || int8Products {
		seeds = 6
	}
	isatest.Run(t, func(t *testing.T) {
		for seed := range seeds {
			r := rand.New(rand.NewPCG(uint64(seed), 77))
			cfg := Config{Heads: 4, KVHeads: [...]int{1, 2, 4}[r.IntN(3)], HeadDim: [...]int{16, 32, 20, 7}[r.IntN(4)], Causal: true, Workers: 1 + r.IntN(3)}
			cfg.ValueDim = [...]int{cfg.HeadDim, 16, 5}[r.IntN(3)]
			switch r.IntN(5) {
			case 0:
				cfg.Window = 1 + r.IntN(30)
			case 1:
				cfg.Softcap = 5
			case 2:
				cfg.Bias = alibi{0.1, 0.2, 0.3, 0.4}
			case 3:
				cfg.Sinks = []float32{0, 1, -1, 2}
			}
			a := must(t, cfg)
			if r.IntN(3) > 0 {
				smallSteps(a)
			}
			format := asm.Format(r.IntN(4))
			sc := StateConfig{Format: format, LogWeights: r.IntN(3) == 0}
			var pool *Pages
			switch r.IntN(4) {
			case 0:
				sc.Window, sc.Keep = 1+r.IntN(40), r.IntN(5)
			case 1:
				pool = newPages(t, a, PagesConfig{PageTokens: 1 + r.IntN(9), Format: format, LogWeights: sc.LogWeights})
				sc.Pages = pool
			case 2:
				sc.MaxTokens = 150
			}
			b := &programRun{t: t, r: r, a: a, cfg: sc, s: newState(t, a, sc), m: &model{}, what: fmt.Sprintf("seed %d, %+v, %+v", seed, cfg, sc)}
			var others []*State
			var otherModels []*model
			for op := 0; op < 60; op++ {
				name := ""
				switch r.IntN(10) {
				case 0:
					if sc.Window > 0 {
						break
					}
					name = "Keep"
					var rows []int32
					var keep []modelToken
					for i, x := range b.m.tokens {
						if r.IntN(4) > 0 {
							rows, keep = append(rows, int32(i)), append(keep, x)
						}
					}
					if err := b.s.Keep(rows); err != nil {
						t.Fatalf("%s: Keep: %v", b.what, err)
					}
					b.m.tokens = keep
				case 1:
					if sc.Window > 0 {
						break
					}
					name = "Forget"
					before := r.IntN(b.m.n + 1)
					if r.IntN(2) == 0 {
						before = min(before, 20)
					}
					if err := b.s.Forget(before); err != nil {
						t.Fatalf("%s: Forget: %v", b.what, err)
					}
					var keep []modelToken
					for _, x := range b.m.tokens {
						if x.pos >= before {
							keep = append(keep, x)
						}
					}
					b.m.tokens = keep
				case 2:
					name = "Truncate"
					n := b.m.n - r.IntN(min(b.m.n+1, 70))
					if err := b.s.Truncate(n); err == nil {
						var keep []modelToken
						for _, x := range b.m.tokens {
							if x.pos < n {
								keep = append(keep, x)
							}
						}
						b.m.tokens, b.m.n = keep, n
						if n == 0 {
							b.m.tokens = nil
						}
					}
				case 3:
					name = "Clone"
					others, otherModels = append(others, b.s.Clone()), append(otherModels, b.m.clone())
				case 4:
					if len(others) > 0 {
						name = "swap"
						i := r.IntN(len(others))
						b.s, others[i] = others[i], b.s
						b.m, otherModels[i] = otherModels[i], b.m
					}
				case 5:
					name = "file"
					var file bytes.Buffer
					if _, err := b.s.WriteTo(&file); err != nil {
						t.Fatal(err)
					}
					old := b.s
					if sc.Pages == nil && r.IntN(2) == 0 {
						s, err := a.ReadState(bytes.NewReader(file.Bytes()))
						if err != nil {
							t.Fatalf("%s: ReadState: %v", b.what, err)
						}
						b.s = s
					} else {
						b.s = newState(t, a, sc)
						if _, err := b.s.ReadFrom(bytes.NewReader(file.Bytes())); err != nil {
							t.Fatalf("%s: ReadFrom: %v", b.what, err)
						}
					}
					old.Reset()
				case 6:
					if sc.Window > 0 {
						break
					}
					name = "Skip"
					n := r.IntN(5)
					if err := b.s.Skip(n); err != nil {
						t.Fatalf("%s: Skip: %v", b.what, err)
					}
					b.m.n += n
					b.m.high = max(b.m.high, b.m.n)
				case 7:
					if r.IntN(6) == 0 {
						name = "Reset"
						b.s.Reset()
						b.m = &model{}
					}
				}
				if name != "" {
					b.check(name)
				}
				b.step()
			}
			for i := range others {
				b.s, b.m = others[i], otherModels[i]
				b.check("at the end")
				b.s.Reset()
			}
		}
	})
}

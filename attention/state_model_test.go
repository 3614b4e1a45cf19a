package attention

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
)

// modelToken is a token that a state should hold.
type modelToken struct {
	pos  int
	k, v []float32
	w    []float32
}

// model is what a state should be: n tokens seen, high of them at the most, some held.
type model struct {
	n, high int
	tokens  []modelToken
}

func (m *model) clone() *model {
	c := *m
	c.tokens = append([]modelToken(nil), m.tokens...)
	return &c
}

// programRun is a random program over a state.
type programRun struct {
	t    *testing.T
	r    *rand.Rand
	a    *Attention
	cfg  StateConfig
	s    *State
	m    *model
	what string
}

// rows are random, and some with features that are larger than others.
func (b *programRun) rows(n, cols int, big bool) blas32.General {
	m := mat.New(n, cols)
	for i := range m.Data {
		m.Data[i] = float32(b.r.NormFloat64())
		if big && i%16 == 3 {
			m.Data[i] += 60
		}
	}
	return m
}

// readBack are the tokens as the state stores them, by position.
func (b *programRun) readBack() map[int]modelToken {
	c := &b.a.cfg
	out := map[int]modelToken{}
	for _, g := range b.s.Segments(nil) {
		k, v := mat.New(g.Tokens, c.KVHeads*c.HeadDim), mat.New(g.Tokens, c.KVHeads*c.ValueDim)
		w := mat.New(g.Tokens, c.KVHeads)
		for h := range c.KVHeads {
			if err := g.Keys(mat.Columns(k, h*c.HeadDim, c.HeadDim), h, 0); err != nil {
				b.t.Fatal(err)
			}
			if err := g.Values(mat.Columns(v, h*c.ValueDim, c.ValueDim), h, 0); err != nil {
				b.t.Fatal(err)
			}
			x := make([]float32, g.Tokens)
			if err := g.LogWeights(x, h, 0); err != nil {
				b.t.Fatal(err)
			}
			for i, y := range x {
				w.Data[i*w.Stride+h] = y
			}
		}
		for i := range g.Tokens {
			out[g.Position+i] = modelToken{g.Position + i, mat.Row(k, i), mat.Row(v, i), mat.Row(w, i)}
		}
	}
	return out
}

// check compares what a state holds with what it should.
func (b *programRun) check(when string) map[int]modelToken {
	if b.s.Len() != b.m.n {
		b.t.Fatalf("%s: %s: Len %d, want %d", b.what, when, b.s.Len(), b.m.n)
	}
	got := b.readBack()
	for _, x := range b.m.tokens {
		g, ok := got[x.pos]
		if !ok {
			b.t.Fatalf("%s: %s: token %d is not held", b.what, when, x.pos)
		}
		tol := map[asm.Format]float64{asm.Float32: 0, asm.Float16: 0.05, asm.BFloat16: 0.3, asm.Int8: 0.3}[b.s.cfg.Format]
		for i := range x.k {
			if d := math.Abs(float64(g.k[i] - x.k[i])); !(d <= tol) {
				b.t.Fatalf("%s: %s: token %d key %d: %v, want %v", b.what, when, x.pos, i, g.k[i], x.k[i])
			}
		}
		for i := range x.v {
			if d := math.Abs(float64(g.v[i] - x.v[i])); !(d <= tol) {
				b.t.Fatalf("%s: %s: token %d value %d: %v, want %v", b.what, when, x.pos, i, g.v[i], x.v[i])
			}
		}
		for i := range x.w {
			if g.w[i] != x.w[i] {
				b.t.Fatalf("%s: %s: token %d weight", b.what, when, x.pos)
			}
		}
	}
	if b.cfg.Window == 0 && len(got) != len(b.m.tokens) {
		b.t.Fatalf("%s: %s: holds %d, want %d", b.what, when, len(got), len(b.m.tokens))
	}
	if b.s.Held() != len(got) {
		b.t.Fatalf("%s: %s: Held %d, of %d", b.what, when, b.s.Held(), len(got))
	}
	return got
}

// prune forgets what a ring has overwritten.
func (b *programRun) prune() {
	keep := b.m.tokens[:0:0]
	for _, x := range b.m.tokens {
		if x.pos < b.cfg.Keep || x.pos >= b.m.high-b.cfg.Window-slack {
			keep = append(keep, x)
		}
	}
	b.m.tokens = keep
}

// seenKey is a key as a query sees it.
type seenKey struct {
	x   modelToken
	pos int // in the eyes of masks
	at  int // position in storage, for Mass
	ok  bool
}

// reference attends from one query, in float64.
func (b *programRun) reference(q []float32, pos int, keys []seenKey, visible func(int64) (int64, int64)) (out, lse []float64, mass map[int][]float64) {
	c := &b.a.cfg
	mass = map[int][]float64{}
	window := c.Window
	if w := b.cfg.Window; w > 0 && (window == 0 || w < window) {
		window = w
	}
	for h := range c.Heads {
		g := h / (c.Heads / c.KVHeads)
		var logits []float64
		var use []seenKey
		for _, k := range keys {
			if k.pos > pos || !k.ok {
				continue
			}
			if window > 0 && k.pos <= pos-window && !(b.cfg.Window > 0 && k.pos < b.cfg.Keep) {
				continue
			}
			if visible != nil {
				if f, t := visible(int64(pos)); int64(k.pos) < f || int64(k.pos) >= t {
					continue
				}
			}
			s := 0.0
			for d := range c.HeadDim {
				s += float64(q[h*c.HeadDim+d]) * float64(k.x.k[g*c.HeadDim+d])
			}
			s *= float64(c.Scale)
			if c.Softcap > 0 {
				s = float64(c.Softcap) * math.Tanh(s/float64(c.Softcap))
			}
			if c.Bias != nil {
				s += -0.1 * float64(h+1) * float64(pos-k.pos)
			}
			if k.x.w != nil {
				s += float64(k.x.w[g])
			}
			logits, use = append(logits, s), append(use, k)
		}
		top := math.Inf(-1)
		for _, x := range logits {
			top = math.Max(top, x)
		}
		if c.Sinks != nil {
			top = math.Max(top, float64(c.Sinks[h]))
		}
		sum := 0.0
		if c.Sinks != nil {
			sum = math.Exp(float64(c.Sinks[h]) - top)
		}
		o := make([]float64, c.ValueDim)
		for _, x := range logits {
			sum += math.Exp(x - top)
		}
		for i, x := range logits {
			p := math.Exp(x-top) / sum
			if mass[use[i].at] == nil {
				mass[use[i].at] = make([]float64, c.Heads)
			}
			mass[use[i].at][h] += p
			for d := range o {
				o[d] += p * float64(use[i].x.v[g*c.ValueDim+d])
			}
		}
		out = append(out, o...)
		if len(logits) == 0 && c.Sinks == nil {
			lse = append(lse, math.Inf(-1))
		} else {
			lse = append(lse, top+math.Log(sum))
		}
	}
	return out, lse, mass
}

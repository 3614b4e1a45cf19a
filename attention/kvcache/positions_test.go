package kvcache

import (
	"math"
	"testing"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/rope"
)

// TestGrouped: distances below Recent are as they are, others those of groups of
// positions, as the formula has it in float64, in a prompt and after it, with everything
// read and with a choice.
func TestGrouped(t *testing.T) {
	const heads, dim, recent, size, tokens = 4, 8, 7, 3, 60
	for _, p := range []Selector{nil, Top{TopK: 9}} {
		a := operator(t, Config{
			Heads: heads, KVHeads: 2, HeadDim: dim, Keep: 2, Recent: recent, Positions: Grouped, GroupSize: size,
			Rotation: &rope.Config{HeadDim: dim}, Select: p, Chunk: 1,
		})
		x := newText(21, &a.cfg, tokens)
		s := newState(t, a, StateConfig{})
		got := x.run(t, a, s, 0, 23)
		got.Data = append(got.Data, x.run(t, a, s, 23, tokens-1).Data...)
		r := new(run)
		last := mat.New(1, heads*dim)
		must(t, r.serve(t.Context(), a, *callOf(last, mat.Rows(x.q, tokens-1, tokens), x.k, x.v), mat.Rows(x.k, tokens-1, tokens), mat.Rows(x.v, tokens-1, tokens), batchOf(s)))
		got.Data = append(got.Data, last.Data...)
		got.Rows = tokens
		from := 0
		if p != nil {
			from = tokens - 1 // the choices of earlier queries are not kept
		}
		for i := from; i < tokens; i++ {
			for h := range heads {
				g := h / 2
				var w, out [dim + 1]float64 // sum of weights, then of values
				for j := range i + 1 {
					if p != nil && i-j >= recent && !reads(r.fars[g], j) {
						continue
					}
					q, k := float64(i), float64(j)
					if i-j >= recent {
						q, k = float64(i/size+recent-recent/size), float64(j/size)
					}
					e := math.Exp(turnedProduct(mat.Part(x.q, i, h*dim, dim), mat.Part(x.k, j, g*dim, dim), q-k) / math.Sqrt(dim))
					w[0] += e
					for c, v := range mat.Part(x.v, j, g*dim, dim) {
						out[c] += e * float64(v)
					}
				}
				for c, y := range mat.Part(got, i, h*dim, dim) {
					if want := out[c] / w[0]; math.Abs(float64(y)-want) > 1e-5 {
						t.Fatalf("%T: query %d, head %d: %v, want %v", p, i, h, y, want)
					}
				}
			}
		}
	}
}

func reads(list []Run, row int) bool {
	for _, x := range list {
		if row >= x.From && row < x.To {
			return true
		}
	}
	return false
}

// turnedProduct is the product of a query and a key of which the query is turned by a
// distance further, with frequencies of base 10,000.
func turnedProduct(q, k []float32, distance float64) (sum float64) {
	half := len(q) / 2
	for i := range half {
		sin, cos := math.Sincos(distance * math.Pow(10000, -float64(i)/float64(half)))
		a, b, c, d := float64(q[i]), float64(q[i+half]), float64(k[i]), float64(k[i+half])
		sum += cos*(a*c+b*d) + sin*(a*d-b*c)
	}
	return sum
}

// TestCompacted (law 9): with InCache a query meets what is kept as if that were the whole
// sequence, in float64; AtOrigin as it came.
func TestCompacted(t *testing.T) {
	const dim, n = 8, 60
	for _, p := range []Positions{InCache, AtOrigin} {
		for _, e := range []Evictor{Knorm{Budget: 15}, H2O{Budget: 15}, AdaKV{Evict: KeyDiff{Budget: 15}}, SirLLM{Tokens: 8}} {
			cfg := Config{Heads: 4, KVHeads: 2, HeadDim: dim, Keep: 2, Recent: 5, Every: 4, Chunk: 1, Evict: e, Positions: p, Rotation: &rope.Config{HeadDim: dim}}
			a := operator(t, cfg)
			x := newText(38, &a.cfg, n)
			s := newState(t, a, StateConfig{})
			x.run(t, a, s, 0, n-1)
			s.Trace(true)
			got := x.run(t, a, s, n-1, n)
			for h := range 4 {
				reads := s.Reads(nil, h)
				if len(reads) >= n {
					t.Fatalf("%T has forgotten nothing", e)
				}
				sum, out := 0.0, [dim]float64{}
				for row, at := range reads {
					distance := float64(n - 1 - int(at))
					if p == InCache {
						distance = float64(len(reads) - 1 - row)
					}
					w := math.Exp(turnedProduct(mat.Part(x.q, n-1, h*dim, dim), mat.Part(x.k, int(at), h/2*dim, dim), distance) / math.Sqrt(dim))
					sum += w
					for c, v := range mat.Part(x.v, int(at), h/2*dim, dim) {
						out[c] += w * float64(v)
					}
				}
				for c, y := range mat.Part(got, 0, h*dim, dim) {
					if math.Abs(float64(y)-out[c]/sum) > 1e-5 {
						t.Fatalf("%T, Positions %d: head %d is %v, want %v", e, p, h, y, out[c]/sum)
					}
				}
			}
		}
	}
}

package kvcache

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// keysOf are kinds of keys that strain a shadow.
var keysOf = map[string]func(r *rand.Rand, token, d int) float64{
	"normal":      func(r *rand.Rand, _, _ int) float64 { return r.NormFloat64() },
	"heavy tails": func(r *rand.Rand, _, _ int) float64 { return r.NormFloat64() / math.Sqrt((sq(r)+sq(r)+sq(r))/3) },
	"biased": func(r *rand.Rand, _, d int) float64 {
		if d%7 == 0 {
			return 12 + r.NormFloat64()
		}
		return r.NormFloat64()
	},
	"equal":   func(_ *rand.Rand, _, d int) float64 { return float64(d%5) - 2 },
	"extreme": func(r *rand.Rand, _, _ int) float64 { return 3 * float64(1-2*r.IntN(2)) },
	"tiny":    func(r *rand.Rand, _, _ int) float64 { return 1e-42 * r.NormFloat64() },
	"large":   func(r *rand.Rand, token, _ int) float64 { return r.NormFloat64() * []float64{1, 1, 50}[token%3] },
}

// fillState gives a state tokens without attending from them.
func fillState(t testing.TB, s *State, k, v blas32.General) {
	t.Helper()
	cfg := &s.op.cfg
	for g, st := range s.heads {
		if err := st.Append(mat.Columns(k, g*cfg.HeadDim, cfg.HeadDim), mat.Columns(v, g*cfg.ValueDim, cfg.ValueDim)); err != nil {
			t.Fatal(err)
		}
	}
	s.n += k.Rows
}

func sq(r *rand.Rand) float64 { x := r.NormFloat64(); return x * x }

func normalMatrix(seed uint64, rows, cols int) blas32.General {
	r, m := rand.New(rand.NewPCG(seed, 7)), mat.New(rows, cols)
	for i := range m.Data {
		m.Data[i] = float32(r.NormFloat64())
	}
	return m
}

// exact64 is attention of one query to all keys, in float64: outputs, and the log of the
// sum of weights of each head.
func exact64(cfg *Config, q []float32, k, v blas32.General, read func(head, token int) bool) (out [][]float64, total, seen []float64) {
	g := cfg.Heads / cfg.KVHeads
	for h := range cfg.Heads {
		x, o := q[h*cfg.HeadDim:][:cfg.HeadDim], make([]float64, cfg.ValueDim)
		logits, top := make([]float64, k.Rows), math.Inf(-1)
		for j := range logits {
			logits[j] = dot64(x, mat.Part(k, j, h/g*cfg.HeadDim, cfg.HeadDim)) * float64(cfg.Scale)
			top = max(top, logits[j])
		}
		sum, part := 0.0, 0.0
		for j, l := range logits {
			w := math.Exp(l - top)
			sum += w
			if read != nil && read(h/g, j) {
				part += w
			}
			for c, y := range mat.Part(v, j, h/g*cfg.ValueDim, cfg.ValueDim) {
				o[c] += w * float64(y)
			}
		}
		for c := range o {
			o[c] /= sum
		}
		out, total, seen = append(out, o), append(total, sum), append(seen, part)
	}
	return out, total, seen
}

func distance(a []float32, b []float64) (d, length float64) {
	for i, x := range b {
		d += (float64(a[i]) - x) * (float64(a[i]) - x)
		length += x * x
	}
	return math.Sqrt(d), math.Sqrt(length)
}

// TestShadow compares with float64 on keys of all kinds: what is said of the share that was
// not read and of the outputs' error holds, and outputs are close.
func TestShadow(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for name, key := range keysOf {
			for trial, format := range []asm.Format{asm.Float32, asm.BFloat16} {
				cfg := Config{Heads: 6, KVHeads: 2, HeadDim: [...]int{33, 64}[trial], ValueDim: [...]int{64, 20}[trial], Keep: 2, Recent: 70, Workers: 1 + 2*trial,
					Select: Shadow{Bits: [...]int{8, 4}[len(name)%2], TopK: 20, Drop: trial == 1 && name == "normal"}, Chunk: 1}
				if name == "heavy tails" {
					cfg.Scale = .5
				}
				a, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				cfg = a.Config()
				const n = 1200
				r := rand.New(rand.NewPCG(uint64(trial), 5))
				k, v := mat.New(n, 2*cfg.HeadDim), normalMatrix(2, n, 2*cfg.ValueDim)
				for i := range n {
					for d := range k.Cols {
						k.Data[i*k.Cols+d] = float32(key(r, i, d))
					}
				}
				if format == asm.BFloat16 {
					for _, m := range []blas32.General{k, v} {
						for i, x := range m.Data {
							m.Data[i] = asm.BFloat16Of(asm.BFloat16Bits(x))
						}
					}
				}
				s, err := a.NewState(StateConfig{Format: format})
				if err != nil {
					t.Fatal(err)
				}
				q, dst := normalMatrix(3, n, 6*cfg.HeadDim), mat.New(n, 6*cfg.ValueDim)
				if name == "large" {
					asm.Scale(q.Data, .05, q.Data)
				}
				fillState(t, s, mat.Rows(k, 0, n-3), mat.Rows(v, 0, n-3))
				for i := n - 3; i < n; i++ {
					var report Report
					lse := mat.New(1, 6)
					c := &attention.Call{State: s, Dst: mat.Rows(dst, i, i+1), Q: mat.Rows(q, i, i+1), K: []blas32.General{mat.Rows(k, i, i+1)}, V: []blas32.General{mat.Rows(v, i, i+1)}, LSE: lse, Options: &Options{Report: &report}}
					if err := a.Run(context.Background(), c); err != nil {
						t.Fatal(err)
					}
					if report.Tokens == report.Held || report.Index == 0 {
						t.Fatalf("%s: everything was read: %+v", name, report)
					}
					// What was read exactly is what the working memory of the call last found.
					w := a.scratch.Get()
					want, total, seen := exact64(&cfg, mat.Row(q, i), mat.Rows(k, 0, i+1), mat.Rows(v, 0, i+1), func(head, token int) bool {
						f := &w.shadow.heads[head]
						_, found := slices.BinarySearch(f.exact, int32(token))
						return found || token >= f.limit
					})
					a.scratch.Put(w)
					worst := 0.0
					for h, o := range want {
						d, length := distance(mat.Part(dst, i, h*cfg.ValueDim, cfg.ValueDim), o)
						if d > report.Error+1e-5*(1+length) {
							t.Errorf("%s, %v: head %d is %v off, more than the bound %v", name, format, h, d, report.Error)
						}
						worst = max(worst, d/math.Sqrt(float64(cfg.ValueDim)))
						// The share that was read is between 1 - Missing and what it is.
						if miss := 1 - seen[h]/total[h]; miss > report.Missing+1e-5 {
							t.Errorf("%s, %v: head %d misses %v, more than the bound %v", name, format, h, miss, report.Missing)
						}
					}
					if worst > .1 && !cfg.Select.(Shadow).Drop {
						t.Errorf("%s, %v: outputs are %v of a value off (%+v)", name, format, worst, report)
					}
				}
			}
		}
	})
}

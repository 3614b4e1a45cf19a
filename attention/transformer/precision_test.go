package transformer

import (
	"errors"
	"math"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestPrecision: products in parts of bfloat16 give nearly the logits of float32, token by
// token too, and the same bits by any number of goroutines; states are not of the model in
// float32; and what the weights take is told before.
func TestPrecision(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		single := open(t, "llama", Config{})
		ids := tokens(single, 40)
		v := single.shape.Vocab
		want := zeros(len(ids), v)
		must(t, single.Step(want, ids, newState(t, single, StateConfig{})))
		var largest float64
		for _, x := range want.Data {
			largest = max(largest, math.Abs(float64(x)))
		}
		for _, c := range []struct {
			precision asm.Precision
			within    float64 // of the largest logit
		}{{asm.BFloat16x3, 2e-4}, {asm.BFloat16x6, 1e-5}, {asm.BFloat16x1, 5e-2}} {
			m := open(t, "llama", Config{Precision: c.precision})
			got, again := zeros(len(ids), v), zeros(len(ids), v)
			must(t, m.Step(got, ids, newState(t, m, StateConfig{})))
			near := func(what string, got []float32) {
				for i, x := range got {
					if e := math.Abs(float64(x)-float64(want.Data[i])) / largest; !(e <= c.within) {
						t.Fatalf("%v%s: logit %d is %v, %v in float32", c.precision, what, i, x, want.Data[i])
					}
				}
			}
			near("", got.Data)
			st := newState(t, m, StateConfig{})
			for i := range ids {
				must(t, m.Step(mat.Rows(again, i, i+1), ids[i:i+1], st))
			}
			near(", token by token", again.Data)
			must(t, m.Run(t.Context(), &Call{Tokens: ids, State: newState(t, m, StateConfig{}), Logits: again, Workers: 1}))
			same(t, c.precision.String()+" on one goroutine", again.Data, got.Data)
			if err := single.Step(zeros(1, v), ids[:1], st); !errors.Is(err, ErrState) {
				t.Errorf("%v: a state is taken by the model in float32: %v", c.precision, err)
			}
		}
	})
	m := open(t, "llama", Config{Precision: asm.BFloat16x6})
	s := m.Shape()
	all := s.Bytes(asm.Float32)
	if _, err := Open(goldenFolder+"llama", Config{MaxBytes: all, Precision: asm.BFloat16x3}); err != nil {
		t.Error(err)
	}
	if _, err := Open(goldenFolder+"llama", Config{MaxBytes: s.Bytes(asm.BFloat16), Precision: asm.BFloat16x1}); err != nil {
		t.Error(err)
	}
	latent, err := Open(goldenFolder+"deepseek_v3", Config{})
	must(t, err)
	s = latent.Shape()
	if _, err := Open(goldenFolder+"deepseek_v3", Config{MaxBytes: s.Bytes(asm.BFloat16), Precision: asm.BFloat16x1}); !errors.Is(err, ErrConfig) {
		t.Errorf("latent attention is told to take no more than in bfloat16: %v", err)
	}
	if _, err := Open(goldenFolder+"llama", Config{MaxBytes: all, Precision: asm.BFloat16x6}); !errors.Is(err, ErrConfig) {
		t.Errorf("weights in three parts are told to take no more than in float32: %v", err)
	}
}

// TestPrecisionBytes: what is in no precision, of latent attention and of recurrent layers, is told
// to take the memory of float32 in each.
func TestPrecisionBytes(t *testing.T) {
	for _, name := range laws {
		var told, is [4]float64
		for p := range told {
			cfg := Config{Precision: asm.Precision(p)}
			m := open(t, name, cfg)
			s := m.Shape()
			told[p], is[p] = float64(cfg.bytes(&s)), float64(m.Bytes())
		}
		one, two, three := asm.BFloat16x1, asm.BFloat16x3, asm.BFloat16x6
		toldApart, apart := 2*told[one]-told[two], 2*is[one]-is[two] // each part of the others takes as much
		if told[two] != told[0] || told[three]-toldApart != 1.5*(told[two]-toldApart) {
			t.Errorf("%s: told of %v bytes", name, told)
		}
		if toldApart > 1.02*apart || apart > 2*toldApart+is[0]/20 { // narrow layers are filled up, and norms are not told of
			t.Errorf("%s: told of %v bytes that are in float32 in each precision, there are %v", name, toldApart, apart)
		}
	}
}

// TestExpertsLooks: a router of many experts looks for the end of a context as its layer does.
func TestExpertsLooks(t *testing.T) {
	defer isa.Without(isa.AMXBFloat16)()
	const n, d, count = 192, 64, 256
	linear := func(out, in int) *dense.Linear {
		return dense.NewLinearIn(asm.Float32, asm.BFloat16x1, mat.New(out, in), nil)
	}
	m := &experts{cfg: &Experts{Count: count, TopK: 1}, dim: d, wide: d, router: linear(count, d), list: make([]lm.MLP, count)}
	for i := range m.list { // of equal ones the first is for all
		m.list[i] = &dense.Gated{Up: linear(2, d), Down: linear(d, 1)}
	}
	x, dst, hidden := mat.New(n, d), mat.New(n, d), mat.New(n, m.Hidden())
	var g parallel.Group
	ctx := &statetest.Ending{Context: t.Context(), Left: 1 << 30}
	must(t, g.Run(ctx, 1, 1, func(_, _ int) { m.Forward(&g, dst, x, hidden) }))
	if want := n * d * count / 1_000_000; ctx.Asked() < 4+want { // the group asks twice, an expert's layers once each
		t.Errorf("%d looks at the context, want %d", ctx.Asked(), 4+want)
	}
}

// BenchmarkPrecision times a prompt of which only the last token's logits are made, in each
// precision in turns, on one goroutine: how many times as fast as float32 it is, by the shortest times.
func BenchmarkPrecision(b *testing.B) {
	if asm.BFloat16x3.Unit() == "none" {
		b.Skip("not run: unit")
	}
	n := 512
	if testing.Short() {
		n = 64
	}
	var times [4]best
	var runs [4]func()
	for i := range runs {
		m := read135M(b, Config{Precision: asm.Precision(i), Workers: 1})
		st := newState(b, m, StateConfig{MaxTokens: n})
		call := &Call{Tokens: tokens(m, n), State: st, Last: zeros(1, m.shape.Vocab)}
		runs[i] = func() {
			st.Reset()
			must(b, m.Run(b.Context(), call))
		}
		runs[i]()
	}
	for b.Loop() {
		for i, run := range runs {
			times[i].time(run)
		}
	}
	for i, t := range times {
		b.ReportMetric(float64(n)/t.shortest.Seconds(), asm.Precision(i).String()+"-tokens/s")
		b.ReportMetric(times[0].shortest.Seconds()/t.shortest.Seconds(), asm.Precision(i).String()+"-ratio")
	}
}

// TestInt8Products: with products of integers over caches in int8 logits are near those without,
// and a state belongs to either model.
func TestInt8Products(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, name := range []string{"llama", "deepseek_v3"} {
			plain, rounds := open(t, name, Config{}), open(t, name, Config{Int8Products: true})
			ids := tokens(plain, 40)
			want, got := zeros(1, plain.shape.Vocab), zeros(1, plain.shape.Vocab)
			st := newState(t, plain, StateConfig{Format: asm.Int8})
			must(t, plain.Step(zeros(39, plain.shape.Vocab), ids[:39], st))
			same := st.Clone()
			must(t, plain.Step(want, ids[39:], st))
			must(t, rounds.Step(got, ids[39:], same))
			near(t, name, got.Data, want.Data, 1e-2)
		}
	})
}

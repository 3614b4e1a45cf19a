package delta

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"
)

// benchCall is a call of an operator with random inputs.
func benchCall(op *Recurrence, n int) *Call {
	c := &op.cfg
	r := rand.New(rand.NewPCG(1, 2))
	call := &Call{Dst: zeros(n, op.outs*c.ValueDim), Q: random(r, n, c.QueryHeads*c.KeyDim), K: random(r, n, c.KeyHeads*c.KeyDim), V: random(r, n, c.Heads*c.ValueDim), Workers: 1}
	logs := func(cols int) blas32.General {
		m := random(r, n, cols)
		for i, v := range m.Data {
			m.Data[i] = -float32(math.Exp(float64(v) - 2))
		}
		return m
	}
	switch c.Decay {
	case HeadDecay:
		call.Decay = logs(c.Heads)
	case KeyDecay:
		call.Decay = logs(c.Heads * c.KeyDim)
	}
	if c.Erase == NoErase || c.Erase == EraseKey || c.Erase == EraseVector {
		call.Beta = random(r, n, c.Heads)
		for i, v := range call.Beta.Data {
			call.Beta.Data[i] = float32(1 / (1 + math.Exp(-float64(v))))
		}
	}
	if c.Erase >= EraseGated {
		call.Erase = random(r, n, c.Heads*c.KeyDim)
		for i := range call.Erase.Data {
			call.Erase.Data[i] /= float32(c.KeyDim)
		}
	}
	if c.Erase == ErasePair {
		call.Insert = random(r, n, c.Heads*c.KeyDim)
	}
	return call
}

var benchKinds = map[string]Config{
	"linear": {Decay: ConstantDecay, Erase: NoErase},
	"gdn":    {Decay: HeadDecay, Erase: EraseKey, Normalize: true},
	"kda":    {Decay: KeyDecay, Erase: EraseKey, Normalize: true},
	"dplr":   {Decay: KeyDecay, Erase: ErasePair},
}

func benchConfig(name string, heads, dim int) Config {
	cfg := benchKinds[name]
	cfg.Heads, cfg.KeyDim, cfg.ValueDim = heads, dim, dim
	if cfg.Decay == ConstantDecay {
		cfg.LogDecay = RetNetDecay(heads)
	}
	return cfg
}

func BenchmarkForward(b *testing.B) {
	const heads, dim, n = 16, 128, 2048
	for _, name := range []string{"gdn", "kda", "linear", "dplr", "gdn-recurrent", "kda-recurrent"} {
		b.Run(fmt.Sprintf("%s/h=%d/d=%d/n=%d", name, heads, dim, n), func(b *testing.B) {
			kind, recurrent := name, false
			if len(name) > 4 && name[3] == '-' {
				kind, recurrent = name[:3], true
			}
			cfg := benchConfig(kind, heads, dim)
			cfg.Recurrent = recurrent
			op := value[*Recurrence](b)(New(cfg))
			call := benchCall(op, n)
			st := value[*State](b)(op.NewState(StateConfig{}))
			call.State = st
			must(b, op.Run(b.Context(), call))
			b.ReportAllocs()
			for b.Loop() {
				st.Reset()
				must(b, op.Run(b.Context(), call))
			}
			each := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / n / heads
			b.ReportMetric(each, "ns/token·head")
			b.ReportMetric(7*dim*dim/each, "GFLOP/s")
		})
	}
}

// BenchmarkPiece is where chunks begin to be faster than the recurrence.
func BenchmarkPiece(b *testing.B) {
	const heads, dim = 16, 128
	for _, name := range []string{"gdn", "kda"} {
		for _, n := range []int{4, 8, 12, 16, 24, 32, 64} {
			for _, recurrent := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/n=%d/recurrent=%v", name, n, recurrent), func(b *testing.B) {
					defer inChunks()()
					cfg := benchConfig(name, heads, dim)
					cfg.Recurrent = recurrent
					op := value[*Recurrence](b)(New(cfg))
					call := benchCall(op, n)
					call.State = value[*State](b)(op.NewState(StateConfig{}))
					for b.Loop() {
						call.State.Reset()
						must(b, op.Run(b.Context(), call))
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n)/heads, "ns/token·head")
				})
			}
		}
	}
}

// BenchmarkStep decodes a token with the states of so many layers that they do not fit into
// the cache.
func BenchmarkStep(b *testing.B) {
	const heads, dim, layers = 32, 128, 64
	for _, name := range []string{"gdn", "kda"} {
		b.Run(fmt.Sprintf("%s/h=%d/d=%d", name, heads, dim), func(b *testing.B) {
			op := value[*Recurrence](b)(New(benchConfig(name, heads, dim)))
			call := benchCall(op, 1)
			var states []*State
			for range layers {
				call.State = value[*State](b)(op.NewState(StateConfig{}))
				must(b, op.Run(b.Context(), call)) // the first step has its memory from the system
				states = append(states, call.State)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				call.State = states[i%layers]
				i++
				must(b, op.Run(b.Context(), call))
			}
			each := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / heads
			b.ReportMetric(each, "ns/token·head")
			b.ReportMetric(8000*dim*dim/each, "MB/s")
		})
	}
}

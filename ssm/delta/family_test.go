package delta

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/ssm"
)

// runOf runs a call of a recurrence of cfg and returns the outputs and the states.
func runOf(t testing.TB, cfg Config, call *Call) (out, states []float32) {
	op := value[*Recurrence](t)(New(cfg))
	st := value[*State](t)(op.NewState(StateConfig{}))
	c := *call
	c.Dst, c.State = zeros(call.V.Rows, op.outs*cfg.ValueDim), st
	must(t, op.Run(t.Context(), &c))
	return c.Dst.Data, st.fixed.Values
}

// mapped is a matrix of what f makes of the elements.
func mapped(m blas32.General, f func(i, j int, v float32) float32) blas32.General {
	out := zeros(m.Rows, m.Cols)
	for i := range m.Rows {
		for j, v := range mat.Row(m, i) {
			out.Data[i*m.Cols+j] = f(i, j, v)
		}
	}
	return out
}

// repeated has every column of m n times.
func repeated(m blas32.General, n int) blas32.General {
	out := zeros(m.Rows, m.Cols*n)
	for i := range m.Rows {
		for j := range out.Cols {
			out.Data[i*out.Cols+j] = mat.Row(m, i)[j/n]
		}
	}
	return out
}

// TestFamily: members that others contain.
func TestFamily(t *testing.T) {
	defer inChunks()()
	const heads, key, width, n = 3, 6, 10, 90
	isatest.Run(t, func(t *testing.T) {
		for _, recurrent := range []bool{false, true} {
			base := Config{Heads: heads, KeyDim: key, ValueDim: width, Recurrent: recurrent}
			gdn, kda := base, base
			gdn.Decay, gdn.Erase, gdn.Normalize = HeadDecay, EraseKey, true
			kda.Decay, kda.Erase, kda.Normalize = KeyDecay, EraseKey, true
			call := lawCall(rand.New(rand.NewPCG(1, 2)), value[*Recurrence](t)(New(gdn)), n)
			want, _ := runOf(t, gdn, call)

			byKey := *call
			byKey.Decay = repeated(call.Decay, key)
			got, _ := runOf(t, kda, &byKey)
			near(t, "one decay for all channels", got, want, 3e-6)

			gated := kda
			gated.Erase = EraseGated
			c := byKey
			c.Beta, c.Erase, c.WriteGate = blas32.General{}, repeated(call.Beta, key), repeated(call.Beta, width)
			got, _ = runOf(t, gated, &c)
			near(t, "the same gates", got, want, 3e-6)

			// Keys of length 1, as a pair.
			unit := mapped(call.K, func(i, j int, v float32) float32 {
				head := mat.Part(call.K, i, j/key*key, key)
				var sum float64
				for _, x := range head {
					sum += float64(x) * float64(x)
				}
				return float32(float64(v) / math.Sqrt(sum))
			})
			plain, pair := base, base
			plain.Erase, pair.Erase = EraseKey, ErasePair
			c = *call
			c.Decay, c.K = blas32.General{}, unit
			want, _ = runOf(t, plain, &c)
			p := c
			p.Beta = blas32.General{}
			p.Erase = mapped(unit, func(_, _ int, v float32) float32 { return -v })
			p.Insert = mapped(unit, func(i, j int, v float32) float32 { return v * mat.Row(call.Beta, i)[j/key] })
			p.V = mapped(call.V, func(i, j int, v float32) float32 { return v * mat.Row(call.Beta, i)[j/width] })
			got, _ = runOf(t, pair, &p)
			near(t, "a pair", got, want, 5e-6)

			// Nothing erased: SSD with decays.
			linear := base
			linear.Decay, linear.Scale = HeadDecay, 1
			c = *call
			c.Beta = blas32.General{}
			got, _ = runOf(t, linear, &c)
			ssd := value[*ssm.SSD](t)(ssm.NewSSD(ssm.SSDConfig{Heads: heads, HeadDim: width, States: key, Groups: heads}, ssm.SSDWeights{}))
			y := zeros(n, heads*width)
			must(t, ssd.Run(t.Context(), &ssm.SSDCall{Dst: y, X: c.V, B: c.K, C: c.Q, Decay: c.Decay}))
			near(t, "SSD", got, y.Data, 3e-6)
		}
	})
}

// TestDeltaProduct: several steps of the delta rule a token, as rows of which the first one
// has the token's decay and the last one its output, are the product of as many reflections
// that the formula (Siems et al. 2025) says, in a loop of its own in float64.
func TestDeltaProduct(t *testing.T) {
	defer inChunks()()
	const heads, key, width, tokens = 2, 6, 5, 37
	isatest.Run(t, func(t *testing.T) {
		for _, steps := range []int{1, 2, 3, 4} {
			for _, gated := range []bool{false, true} {
				for _, recurrent := range []bool{false, true} {
					cfg := Config{Heads: heads, KeyDim: key, ValueDim: width, Erase: EraseKey, Normalize: true, Scale: 1, Recurrent: recurrent}
					if gated {
						cfg.Decay = HeadDecay
					}
					call := lawCall(rand.New(rand.NewPCG(uint64(steps), 8)), value[*Recurrence](t)(New(cfg)), tokens*steps)
					for i := range call.Beta.Data { // to 2: eigenvalues from -1 to 1
						call.Beta.Data[i] = 2 * float32(i%11) / 10
					}
					for i := range call.Decay.Data {
						if i/heads%steps > 0 {
							call.Decay.Data[i] = 0
						}
					}
					got, states := runOf(t, cfg, call)

					var want, final []float64
					for h := range heads {
						out, s := deltaProduct(call, h, key, width, steps)
						want, final = append(want, out...), append(final, s...)
					}
					var outs []float32
					for h := range heads {
						for i := range tokens {
							outs = append(outs, got[((i+1)*steps-1)*heads*width+h*width:][:width]...)
						}
					}
					what := fmt.Sprintf("%d steps, gated %v, recurrent %v", steps, gated, recurrent)
					near(t, what, outs, narrow(want), 3e-6)
					near(t, what+": state", states, narrow(final), 3e-6)
				}
			}
		}
	})
}

// deltaProduct is head h of DeltaProduct: for each token, with n steps j,
//
//	H = a (I - b_n k_n k_n^T) .. (I - b_1 k_1 k_1^T) H + what the steps write;  o = H^T q
//
// where step j's value is reflected by the steps behind it. It returns the outputs
// [tokens, width] and the state [key, width].
func deltaProduct(call *Call, h, key, width, steps int) (out, state []float64) {
	state = make([]float64, key*width)
	for from := 0; from < call.V.Rows; from += steps {
		a := 1.0
		if mat.Given(call.Decay) {
			a = math.Exp(float64(mat.Row(call.Decay, from)[h]))
		}
		product, written := make([]float64, key*key), make([]float64, key*width)
		for i := range key {
			product[i*key+i] = 1
		}
		for t := from; t < from+steps; t++ {
			k, b := unit64(mat.Part(call.K, t, h*key, key)), float64(mat.Row(call.Beta, t)[h])
			product, written = reflected(product, k, b), reflected(written, k, b)
			for i := range key {
				for j, v := range mat.Part(call.V, t, h*width, width) {
					written[i*width+j] += b * k[i] * float64(v)
				}
			}
		}
		next := written
		for i := range key {
			for l := range key {
				for j := range width {
					next[i*width+j] += a * product[i*key+l] * state[l*width+j]
				}
			}
		}
		state = next
		q := unit64(mat.Part(call.Q, from+steps-1, h*key, key))
		for j := range width {
			var o float64
			for i := range key {
				o += q[i] * state[i*width+j]
			}
			out = append(out, o)
		}
	}
	return out, state
}

// unit64 is x by its length.
func unit64(x []float32) (unit []float64) {
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	for _, v := range x {
		unit = append(unit, float64(v)/math.Sqrt(sum))
	}
	return unit
}

// reflected is (I - b k k^T) m.
func reflected(m, k []float64, b float64) []float64 {
	cols := len(m) / len(k)
	out := make([]float64, len(m))
	for i := range k {
		for j := range cols {
			var dot float64
			for l := range k {
				dot += k[l] * m[l*cols+j]
			}
			out[i*cols+j] = m[i*cols+j] - b*k[i]*dot
		}
	}
	return out
}

// TestIdle: tokens that neither decay nor write leave the states to the bit, and a decay
// of 0 forgets all that was before.
func TestIdle(t *testing.T) {
	defer inChunks()()
	isatest.Run(t, func(t *testing.T) {
		for _, recurrent := range []bool{false, true} {
			for _, decay := range []Decay{HeadDecay, KeyDecay} {
				r := rand.New(rand.NewPCG(3, 4))
				cfg := Config{Heads: 2, KeyDim: 7, ValueDim: 9, Decay: decay, Erase: EraseKey, Normalize: true, Recurrent: recurrent}
				op := value[*Recurrence](t)(New(cfg))
				call := lawCall(r, op, 40)
				clear(call.Decay.Data)
				clear(call.Beta.Data)
				st, _ := randomState(t, r, op)
				before := slices.Clone(st.fixed.Values)
				call.State = st
				must(t, op.Run(t.Context(), call))
				same(t, "the state", st.fixed.Values, before)

				call = lawCall(r, op, 60)
				const reset = 23
				for i, inf := range mat.Row(call.Decay, reset) {
					mat.Row(call.Decay, reset)[i] = inf + float32(math.Inf(-1))
				}
				whole, _ := runOf(t, cfg, call)
				rest, _ := runOf(t, cfg, call.part(reset, 60))
				near(t, "after a decay of 0", whole[reset*18:], rest, 3e-6)
			}
		}
	})
}

// TestHard: equal keys and betas near 2, where inverses and series of the triangular
// system lose their digits, and reflections, which keep the length of a state.
func TestHard(t *testing.T) {
	defer inChunks()()
	isatest.Run(t, func(t *testing.T) {
		for _, recurrent := range []bool{false, true} {
			r := rand.New(rand.NewPCG(5, 6))
			cfg := Config{Heads: 1, KeyDim: 16, ValueDim: 8, Erase: EraseKey, Normalize: true, Recurrent: recurrent}
			op := value[*Recurrence](t)(New(cfg))
			call := lawCall(r, op, 200)
			for i := range call.K.Rows { // 1 % apart
				for j := range 16 {
					mat.Row(call.K, i)[j] = float32(1 + 0.01*r.NormFloat64())
				}
				mat.Row(call.Beta, i)[0] = 1.9
			}
			got, _ := runOf(t, cfg, call)
			near(t, "keys that are nearly equal", got, narrow(oracle(&op.cfg, call, make([]float64, 16*8))), 1e-5)

			// Reflections: v is 0 and beta 2.
			call = lawCall(r, op, 2000)
			clear(call.V.Data)
			for i := range call.Beta.Data {
				call.Beta.Data[i] = 2
			}
			st, wide := randomState(t, r, op)
			call.State = st
			must(t, op.Run(t.Context(), call))
			length := func(n int, at func(i int) float64) (sum float64) {
				for i := range n {
					sum += at(i) * at(i)
				}
				return math.Sqrt(sum)
			}
			after, before := length(len(st.fixed.Values), func(i int) float64 { return float64(st.fixed.Values[i]) }), length(len(wide), func(i int) float64 { return wide[i] })
			if d := math.Abs(after/before - 1); d > 1e-4 {
				t.Errorf("2000 reflections change the length by %.2g", d)
			}
		}
	})
}

// TestLong: a long sequence, a million tokens where time allows, does not drift away from
// the recurrence in float64.
func TestLong(t *testing.T) {
	defer inChunks()()
	steps, each := 10, 100_000
	if testing.Short() {
		steps, each = 2, 30_000
	}
	for _, cfg := range []Config{
		{Heads: 1, KeyDim: 4, ValueDim: 4, Decay: HeadDecay, Erase: EraseKey, Normalize: true},
		{Heads: 1, KeyDim: 4, ValueDim: 4, Decay: KeyDecay, Erase: ErasePair, Scale: 1},
		{Heads: 1, KeyDim: 4, ValueDim: 4, Erase: EraseKey, Normalize: true, Recurrent: true},
	} {
		op := value[*Recurrence](t)(New(cfg))
		st := value[*State](t)(op.NewState(StateConfig{}))
		wide := make([]float64, 16)
		r := rand.New(rand.NewPCG(7, 8))
		for range steps {
			call := lawCall(r, op, each)
			for i := range call.Decay.Data { // from a thousandth to some
				call.Decay.Data[i] = -float32(math.Exp(2*r.NormFloat64() - 4))
			}
			call.State = st
			must(t, op.Run(t.Context(), call))
			want := oracle(&op.cfg, call, wide)
			near(t, cfg.String(), call.Dst.Data[4*(each-100):], narrow(want[4*(each-100):]), 2e-5)
		}
		if st.Len() != steps*each {
			t.Error(st.Len())
		}
	}
}

// TestLightningDecay: MiniMax-01's slopes, written out: those of ALiBi, less in later layers.
func TestLightningDecay(t *testing.T) {
	for layer, slow := range []float64{1.00001, 1 - 1/3.00001 + 1e-5, 1 - 2/3.00001 + 1e-5, 1 - 3/3.00001 + 1e-5} {
		for h, got := range LightningDecay(8, layer, 4) {
			if want := -math.Pow(.5, float64(h+1)) * slow; math.Abs(float64(got)-want) > 1e-6*math.Abs(want) {
				t.Errorf("layer %d, head %d: %g, want %g", layer, h, got, want)
			}
		}
	}
	if got := LightningDecay(0, 0, 1); len(got) != 0 {
		t.Errorf("%v of no heads", got)
	}
}

package attention

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// errorOf is the root of the mean square of got - want over that of want.
func errorOf(got, want []float32) float64 {
	sum, size := 0.0, 0.0
	for i, x := range want {
		d := float64(got[i]) - float64(x)
		sum, size = sum+d*d, size+float64(x)*float64(x)
	}
	return math.Sqrt(sum / size)
}

// normal is N(0, 1), with some columns of each head moved or made larger by f.
func normal(seed uint64, n, heads, dim int, f func(token, col int, x float64) float64) blas32.General {
	r := rand.New(rand.NewPCG(seed, 5))
	m := mat.New(n, heads*dim)
	for i := range m.Data {
		m.Data[i] = float32(f(i/m.Cols, i%dim, r.NormFloat64()))
	}
	return m
}

func plainKeys(_, _ int, x float64) float64 { return x }

// biased gives one feature a bias, in all tokens or in every third.
func biased(every int) func(token, col int, x float64) float64 {
	return func(token, col int, x float64) float64 {
		if col == 5 && token%every == 0 {
			x += 300
		}
		return x
	}
}

// turning has a pair of features with a bias of 300 that turns with the position.
func turning(token, col int, x float64) float64 {
	switch col {
	case 5:
		x += 300 * math.Cos(0.3*float64(token))
	case 37:
		x += 300 * math.Sin(0.3*float64(token))
	}
	return x
}

// threeBiased has three features with a bias.
func threeBiased(_, col int, x float64) float64 {
	switch col {
	case 3, 40:
		x -= 300
	case 17:
		x += 300
	}
	return x
}

// TestStorageError measures what each storage adds to outputs: the table of
// StateConfig.Format. Keys with features of very different size do not make int8 much
// worse than bfloat16.
func TestStorageError(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n = 512
		for _, c := range []struct {
			name string
			dim  int
			key  func(token, col int, x float64) float64
			most map[asm.Format]float64
		}{
			{"N(0, 1)", 64, plainKeys, map[asm.Format]float64{asm.Float32: 1e-6, asm.Float16: 5e-4, asm.BFloat16: 4e-3, asm.Int8: 0.012}},
			{"N(0, 1)", 128, plainKeys, map[asm.Format]float64{asm.Float32: 1e-6, asm.Float16: 5e-4, asm.BFloat16: 4e-3, asm.Int8: 0.012}},
			{"N(0, 1)", 72, plainKeys, map[asm.Format]float64{asm.Float32: 1e-6, asm.Float16: 5e-4, asm.BFloat16: 4e-3, asm.Int8: 0.012}},
			{"one feature + 300", 64, biased(1), map[asm.Format]float64{asm.Float32: 1e-4, asm.Float16: 2e-2, asm.BFloat16: 0.12, asm.Int8: 0.12}},
			{"one feature + 300", 128, biased(1), map[asm.Format]float64{asm.Float32: 1e-4, asm.Float16: 2e-2, asm.BFloat16: 0.12, asm.Int8: 0.1}},
			{"one feature + 300", 72, biased(1), map[asm.Format]float64{asm.Float32: 1e-4, asm.Float16: 2e-2, asm.BFloat16: 0.12, asm.Int8: 0.12}},
			{"a turning pair of 300", 64, turning, map[asm.Format]float64{asm.Float32: 1e-4, asm.Float16: 2e-2, asm.BFloat16: 0.12, asm.Int8: 0.15}},
			{"three features ± 300", 64, threeBiased, map[asm.Format]float64{asm.Float32: 1e-4, asm.Float16: 2e-2, asm.BFloat16: 0.2, asm.Int8: 0.35}},
		} {
			a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: c.dim, Causal: true, Workers: 1})
			q := normal(1, 8, 4, c.dim, plainKeys)
			k, v := normal(2, n, 2, c.dim, c.key), normal(3, n, 2, c.dim, plainKeys)
			var want []float32
			for _, format := range []asm.Format{asm.Float32, asm.Float16, asm.BFloat16, asm.Int8} {
				s := newState(t, a, StateConfig{Format: format})
				if err := s.Append(k, v); err != nil {
					t.Fatal(err)
				}
				got := blank(8, 4*c.dim)
				if err := a.Run(context.Background(), &Call{Dst: got, Q: q, State: s}); err != nil {
					t.Fatal(err)
				}
				if want == nil { // exact up to rounding
					want = make([]float32, len(got.Data))
					for i, x := range oracleLast(a, q, k, v) {
						want[i] = float32(x)
					}
				}
				e := errorOf(got.Data, want)
				t.Logf("%s of %d, %v: %.2g", c.name, c.dim, format, e)
				if !(e <= c.most[format]) {
					t.Errorf("%s of %d, %v: error %.2g, want at most %.2g", c.name, c.dim, format, e, c.most[format])
				}
			}
		}
	})
}

// oracleLast is attention in float64 from queries that see all keys but those after them:
// query i stands at the last key but rows-1-i.
func oracleLast(a *Attention, q, k, v blas32.General) (out []float64) {
	cfg := &a.cfg
	for i := range q.Rows {
		for h := range cfg.Heads {
			g := h / (cfg.Heads / cfg.KVHeads)
			logits, top := make([]float64, k.Rows-q.Rows+1+i), math.Inf(-1)
			for j := range logits {
				for d := range cfg.HeadDim {
					logits[j] += float64(q.Data[i*q.Stride+h*cfg.HeadDim+d]) * float64(k.Data[j*k.Stride+g*cfg.HeadDim+d])
				}
				logits[j] *= float64(cfg.Scale)
				top = math.Max(top, logits[j])
			}
			sum, o := 0.0, make([]float64, cfg.ValueDim)
			for j, x := range logits {
				p := math.Exp(x - top)
				sum += p
				for d := range o {
					o[d] += p * float64(v.Data[j*v.Stride+g*cfg.ValueDim+d])
				}
			}
			for _, x := range o {
				out = append(out, x/sum)
			}
		}
	}
	return out
}

// TestInt8Turned has keys that stand turned among others that do not: any steps, pages,
// files and copies give the same bits, and keys are read back as what they are.
func TestInt8Turned(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, every := range []int{1, 3} {
			for values, shape := range [][2]int{{64, 64}, {48, 32}, {36, 20}} { // the last by way of float32 copies
				a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: shape[0], ValueDim: shape[1], Causal: true, Workers: 2})
				smallSteps(a)
				const n = 90
				what := fmt.Sprintf("%v, every %d", shape, every)
				x := sequence{normal(1, n, 4, shape[0], plainKeys), normal(2, n, 2, shape[0], biased(every)), normal(3, n, 2, shape[1], plainKeys)}
				if values == 1 {
					x.v = normal(3, n, 2, shape[1], biased(2))
				}
				s := newState(t, a, StateConfig{Format: asm.Int8})
				step(t, a, s, x.part(0, n-1))
				if !s.blocks[0].k.turned || s.blocks[0].v.turned != (values == 1) {
					t.Fatalf("%s: keys turned: %v, values: %v", what, s.blocks[0].k.turned, s.blocks[0].v.turned)
				}
				last := x.part(n-1, n)
				want := step(t, a, s.Clone(), last)
				var file bytes.Buffer
				if _, err := s.WriteTo(&file); err != nil {
					t.Fatal(err)
				}
				read, err := a.ReadState(bytes.NewReader(file.Bytes()))
				if err != nil {
					t.Fatal(err)
				}
				sameBits(t, what+", read", step(t, a, read, last), want)

				pool := newPages(t, a, PagesConfig{PageTokens: 7, Format: asm.Int8})
				paged := newState(t, a, StateConfig{Pages: pool})
				for i := range n - 1 {
					step(t, a, paged, x.part(i, i+1))
				}
				fork := paged.Clone()
				sameBits(t, what+", paged", step(t, a, paged, last), want)
				sameBits(t, what+", forked", step(t, a, fork, last), want)

				// What is read back is near what was stored, and gives the same as float32.
				copied := newState(t, a, StateConfig{})
				for _, g := range s.Segments(nil) {
					k, v := blank(g.Tokens, 2*shape[0]), blank(g.Tokens, 2*shape[1])
					for h := range 2 {
						kh, vh := k, v
						kh.Cols, kh.Data = shape[0], k.Data[h*shape[0]:]
						vh.Cols, vh.Data = shape[1], v.Data[h*shape[1]:]
						if err := g.Keys(kh, h, 0); err != nil {
							t.Fatal(err)
						}
						if err := g.Values(vh, h, 0); err != nil {
							t.Fatal(err)
						}
					}
					for i, y := range k.Data {
						if d := math.Abs(float64(y - x.k.Data[g.Position*x.k.Stride+i])); !(d < 0.8) {
							t.Fatalf("%s: key element %d is %v, want %v", what, i, y, x.k.Data[i])
						}
					}
					if err := copied.Append(k, v); err != nil {
						t.Fatal(err)
					}
				}
				look := func(s *State) []float32 {
					dst := blank(1, 4*shape[1])
					if err := a.Run(context.Background(), &Call{Dst: dst, Q: last.q, State: s}); err != nil {
						t.Fatal(err)
					}
					return dst.Data
				}
				got := look(s)
				close64(t, what+", from float32", got, look(copied), rounded(2e-4))
				extra := &Call{Dst: blank(1, 4*shape[1]), Q: last.q, K: []blas32.General{blank(0, 2*shape[0])}, V: []blas32.General{blank(0, 2*shape[1])}, Extra: []Extra{{Heads: 2, State: s}}}
				if err := a.Run(context.Background(), extra); err != nil {
					t.Fatal(err)
				}
				close64(t, what+", as Extra", extra.Dst.Data, got, rounded(2e-4))
				empty := newState(t, a, StateConfig{})
				extra = &Call{Dst: blank(1, 4*shape[1]), Q: last.q, State: empty, Extra: []Extra{{Heads: 2, State: s}}}
				if err := a.Run(context.Background(), extra); err != nil {
					t.Fatal(err)
				}
				sameBits(t, what+", as a step's Extra", extra.Dst.Data, got)
			}
		}
	})
}

// TestInt8Files has files of before keys stood turned read, but for those of shared
// values, which had one scale for two things.
func TestInt8Files(t *testing.T) {
	for _, shared := range []bool{false, true} {
		a := must(t, Config{Heads: 2, KVHeads: 1, HeadDim: 16, ValueDim: 8, Causal: true})
		s := newState(t, a, StateConfig{Format: asm.Int8, SharedValues: shared})
		v := matrix(2, 3, 8)
		if shared {
			v = blas32.General{}
		}
		if err := s.Append(matrix(1, 3, 16), v); err != nil {
			t.Fatal(err)
		}
		if want := int64(3 * (16 + 8 + 8)); !shared && a.StateBytes(s.cfg, 3) != want {
			t.Errorf("%d bytes, want %d", a.StateBytes(s.cfg, 3), want)
		}
		if want := int64(3 * (16 + 8)); shared && a.StateBytes(s.cfg, 3) != want {
			t.Errorf("shared: %d bytes, want %d", a.StateBytes(s.cfg, 3), want)
		}
		var file bytes.Buffer
		if _, err := s.WriteTo(&file); err != nil {
			t.Fatal(err)
		}
		data := file.Bytes()
		at := 8 + 8*(1+len(a.fingerprint()))
		if data[at] != byte(int8Turned) {
			t.Fatalf("format %d", data[at])
		}
		data[at] = byte(asm.Int8)
		back, err := a.ReadState(statetest.Sealed(data[:len(data)-4]))
		if shared {
			if err == nil {
				t.Error("an old file of shared values was read")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		x := tokens(a, 5, 1)
		sameBits(t, "old file", step(t, a, back, x), step(t, a, s, x))
	}
}

// TestTurn has turn be its own inverse, and keep lengths.
func TestTurn(t *testing.T) {
	for n := range 200 {
		x := random(1, n)
		y := append([]float32(nil), x...)
		turn(y)
		if got, want := asm.Dot(y, y), asm.Dot(x, x); math.Abs(float64(got-want)) > 1e-5*float64(want) {
			t.Errorf("%d: length %v, want %v", n, got, want)
		}
		turn(y)
		close64(t, fmt.Sprint(n), y, x, 1e-5)
	}
}

// lookError is the error of attention from 8 queries to keys and values stored in a format,
// beside float32, over the features that counts says.
func lookError(t *testing.T, a *Attention, format asm.Format, shared bool, k, v blas32.General, counts func(col int) bool) float64 {
	t.Helper()
	cfg := &a.cfg
	q := normal(1, 8, cfg.Heads, cfg.HeadDim, plainKeys)
	var outs [2][]float32
	for i, format := range []asm.Format{asm.Float32, format} {
		s := newState(t, a, StateConfig{Format: format, SharedValues: shared})
		if err := s.Append(k, v); err != nil {
			t.Fatal(err)
		}
		dst := blank(8, cfg.Heads*cfg.ValueDim)
		if err := a.Run(context.Background(), &Call{Dst: dst, Q: q, State: s}); err != nil {
			t.Fatal(err)
		}
		for j, x := range dst.Data {
			if counts(j % cfg.ValueDim) {
				outs[i] = append(outs[i], x)
			}
		}
	}
	return errorOf(outs[1], outs[0])
}

// TestInt8Values has values with a feature that is much larger, in all tokens or in some,
// leave the other features most of their accuracy.
func TestInt8Values(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, dim := range []int{64, 128, 40} {
			for _, every := range []int{1, 2} {
				a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: dim, Causal: true})
				e := lookError(t, a, asm.Int8, false, normal(2, 512, 2, dim, plainKeys), normal(3, 512, 2, dim, biased(every)), func(col int) bool { return col != 5 })
				t.Logf("%d features, every %d: %.2g", dim, every, e)
				if !(e < 0.15) {
					t.Errorf("%d features, every %d: error %.2g, want at most 0.15", dim, every, e)
				}
			}
		}
	})
}

// TestInt8Parts has values that are a prefix of keys, of another size than the rest of the
// key, keep their accuracy: MLA's latent and rotated key.
func TestInt8Parts(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, shape := range [][2]int{{576, 512}, {48, 32}, {30, 20}} {
			for _, sizes := range [][2]float64{{0.03, 1}, {1, 1}, {1, 20}, {1e-4, 1e3}} {
				a := must(t, Config{Heads: 4, KVHeads: 1, HeadDim: shape[0], ValueDim: shape[1], Scale: float32(0.3 / sizes[1] / math.Sqrt(float64(shape[0]-shape[1]))), Causal: true})
				k := normal(2, 512, 1, shape[0], func(_, col int, x float64) float64 {
					if col < shape[1] {
						return sizes[0] * x
					}
					return sizes[1] * x
				})
				for _, format := range []asm.Format{asm.Float16, asm.BFloat16, asm.Int8} {
					e := lookError(t, a, format, true, k, blas32.General{}, func(int) bool { return true })
					t.Logf("%v of %v, %v: %.2g", shape, sizes, format, e)
					if most := map[asm.Format]float64{asm.Float16: 1e-3, asm.BFloat16: 8e-3, asm.Int8: 0.016}[format]; !(e < most) && !(format == asm.Float16 && sizes[0] < 1e-3) {
						t.Errorf("%v of %v, %v: error %.2g, want at most %.2g", shape, sizes, format, e, most)
					}
				}
			}
		}
	})
}

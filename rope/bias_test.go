package rope

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// biases are one of each kind, for 3 heads.
func biases(t testing.TB) map[string]Decaying {
	t.Helper()
	out := map[string]Decaying{}
	add := func(name string) func(b Decaying, err error) {
		return func(b Decaying, err error) {
			must(t, err)
			out[name] = b
		}
	}
	wrap := func(b *Distance, err error) (Decaying, error) { return b, err }
	flex := func(cfg FlexRoPEConfig) (Decaying, error) { return NewFlexRoPE(cfg) }
	r := rand.New(rand.NewPCG(1, 2))
	fire := FIREConfig{B2: []float64{0.1, -0.2, 0.3}, C: 0.1, Threshold: 6}
	for range 16 {
		fire.W1, fire.B1 = append(fire.W1, math.Abs(r.NormFloat64())), append(fire.B1, r.NormFloat64())
		fire.W2 = append(fire.W2, r.NormFloat64(), -math.Abs(r.NormFloat64()), -8*r.Float64())
	}
	var frames []int64
	for f := range int64(2000) {
		for range 1 + r.IntN(4) {
			frames = append(frames, f)
		}
	}
	add("ALiBi")(wrap(NewALiBi(ALiBiSlopes(3))))
	add("ALiBi, one slope")(wrap(NewALiBi([]float32{0.03})))
	add("KERPLE log")(wrap(NewKERPLELog([]float64{1, 2, 3}, []float64{0.1, 1, 2})))
	add("KERPLE power")(wrap(NewKERPLEPower([]float64{0.01, 0.5, 1}, []float64{2, 1, 0.3})))
	add("FIRE")(func() (Decaying, error) { return NewFIRE(fire) }())
	add("FIRE, no threshold")(func() (Decaying, error) { fire.Threshold = 0; return NewFIRE(fire) }())
	add("FlexRoPE")(flex(FlexRoPEConfig{Slopes: []float32{0.1, 0.2, 0}, TokensPerFrame: 5}))
	add("FlexRoPE, frames")(flex(FlexRoPEConfig{Slopes: []float32{0.1}, Frames: frames}))
	add("FlexRoPE, no mask")(flex(FlexRoPEConfig{Slopes: []float32{0.1, 0.2, 0.3}, Frames: frames, NoMask: true}))
	return out
}

// TestBiasTiles: a tile is the same region of the full matrix, to the bit, what is
// added to stays in it, and no element exceeds Most.
func TestBiasTiles(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		for name, b := range biases(t) {
			const n = 2*block + 30
			for _, start := range [][2]int64{{0, 0}, {2300, 100}, {100, 2300}} {
				for head := range 3 {
					full := tile(b, head, start[0], start[1], n, n)
					for range 12 {
						i, j := r.IntN(n), r.IntN(n)
						queries, keys := 1+r.IntN(n-i), 1+r.IntN(n-j)
						s := blas32.General{Rows: queries, Cols: keys, Stride: keys + 3, Data: random(1, queries*(keys+3))}
						before := clone(s)
						b.AddTo(s, head, start[0]+int64(i), start[1]+int64(j))
						most := b.Most(head, start[0]+int64(i), start[1]+int64(j), queries, keys)
						for y := range queries {
							for x := range s.Stride {
								at := y*s.Stride + x
								if x >= keys {
									if at < len(s.Data) && s.Data[at] != before.Data[at] {
										t.Fatalf("%s: wrote between the rows", name)
									}
									continue
								}
								bias := full[(i+y)*n+j+x]
								if got, want := s.Data[at], before.Data[at]+bias; got != want {
									t.Fatalf("%s, head %d: element %d, %d of a tile at %d, %d is %v, want %v", name, head, y, x, i, j, got, want)
								}
								if bias > most {
									t.Fatalf("%s, head %d: bias %v, but Most of the tile is %v", name, head, bias, most)
								}
							}
						}
					}
				}
			}
			if most := b.Most(0, 5, 5, 0, 3); !math.IsInf(float64(most), -1) {
				t.Errorf("%s: Most of no query is %v", name, most)
			}
			b.AddTo(blas32.General{Stride: 1}, 0, 0, 0)
		}
	})
}

// TestReach: from the distance on that Reach returns, no key is heavier than
// stated, and just before it one is.
func TestReach(t *testing.T) {
	for name, b := range biases(t) {
		found := false
		for head := range 3 {
			for _, query := range []int64{10, 1000, 3000} {
				for _, spread := range []float64{0, 2} {
					for _, eps := range []float64{0.1, 1e-3} {
						d := b.Reach(head, query, spread, eps)
						if d < 0 {
							t.Fatalf("%s: Reach is %d", name, d)
						}
						limit := math.Log(eps) - spread
						row := tile(b, head, query, 0, 1, int(query)+1)
						own := float64(row[query])
						for distance, slack := int64(1), 1e-5; distance <= query; distance++ {
							bias := float64(row[query-distance]) - own
							if distance >= d && bias > limit+slack*(1-limit) {
								t.Fatalf("%s, head %d, query %d, spread %v, eps %v: Reach is %d, but at distance %d the bias is %v", name, head, query, spread, eps, d, distance, bias)
							}
							if distance == d-1 {
								found = true
								if bias < limit-slack*(1-limit) {
									t.Fatalf("%s, head %d, query %d, spread %v, eps %v: Reach is %d, but at distance %d the bias is already %v", name, head, query, spread, eps, d, distance, bias)
								}
							}
						}
					}
				}
			}
		}
		if !found {
			t.Errorf("%s: nothing was within reach", name)
		}
	}
	never, err := NewALiBi([]float32{0})
	must(t, err)
	if d := never.Reach(0, 5, 1, 0.5); d != math.MaxInt64 {
		t.Errorf("without a slope Reach is %d", d)
	}
}

func TestBiasAllocations(t *testing.T) {
	s := matrix(make([]float32, 64*64), 64, 64)
	for name, b := range biases(t) {
		if n := testing.AllocsPerRun(5, func() {
			b.AddTo(s, 1, 3000, 0)
			b.Most(1, 3000, 0, 64, 64)
		}); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() { tile(b, 2, 100, 50, 20, 20) })
		}
		group.Wait()
	}
}

// TestALiBiSlopes has the values of the paper for 8 heads.
func TestALiBiSlopes(t *testing.T) {
	want := []float32{0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625}
	if got := ALiBiSlopes(8); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if got := ALiBiSlopes(0); len(got) != 0 {
		t.Errorf("no heads: %v", got)
	}
}

func TestFlexRoPEOutside(t *testing.T) {
	f, err := NewFlexRoPE(FlexRoPEConfig{Frames: []int64{0, 0, 1}})
	must(t, err)
	for _, at := range [][2]int64{{3, 0}, {-1, 0}, {0, 3}, {0, -1}} {
		if v := tile(f, 0, at[0], at[1], 1, 1)[0]; v == v {
			t.Errorf("query %d, key %d: bias %v, want NaN", at[0], at[1], v)
		}
		if v := f.Most(0, at[0], at[1], 1, 1); !math.IsInf(float64(v), 1) {
			t.Errorf("query %d, key %d: Most %v", at[0], at[1], v)
		}
	}
	if v := f.Most(0, 0, 2, 2, 1); !math.IsInf(float64(v), -1) {
		t.Errorf("a later frame: Most %v", v)
	}
}

func TestBiasErrors(t *testing.T) {
	nan := math.NaN()
	one := []float64{1}
	for want, err := range map[string]error{
		"slopes is empty":              second(NewALiBi(nil)),
		"slopes[1] is -1":              second(NewALiBi([]float32{1, -1})),
		"slopes[0] is NaN":             second(NewALiBi([]float32{float32(nan)})),
		"r1 has 1 elements and r2 2":   second(NewKERPLELog(one, []float64{1, 2})),
		"r1[0] is 0":                   second(NewKERPLELog([]float64{0}, one)),
		"r2[0] is 2.5, want at most 2": second(NewKERPLEPower(one, []float64{2.5})),
		"W1 has 0 elements":            second(NewFIRE(FIREConfig{})),
		"W2 has 3 elements":            second(NewFIRE(FIREConfig{W1: one, B1: one, W2: []float64{1, 2, 3}, B2: one, C: 1})),
		"C is 0":                       second(NewFIRE(FIREConfig{W1: one, B1: one, W2: one, B2: one})),
		"Threshold is -1":              second(NewFIRE(FIREConfig{W1: one, B1: one, W2: one, B2: one, C: 1, Threshold: -1})),
		"B1[0] is NaN":                 second(NewFIRE(FIREConfig{W1: one, B1: []float64{nan}, W2: one, B2: one, C: 1})),
		"want one of the two":          second(NewFlexRoPE(FlexRoPEConfig{})),
		"TokensPerFrame is -2":         second(NewFlexRoPE(FlexRoPEConfig{TokensPerFrame: -2})),
		"Frames[1] is 0, less than":    second(NewFlexRoPE(FlexRoPEConfig{Frames: []int64{1, 0}})),
		"Slopes[0] is -0.5":            second(NewFlexRoPE(FlexRoPEConfig{Slopes: []float32{-0.5}, TokensPerFrame: 1})),
		"frames is 0":                  second(FlexRoPESlope(0, 0.5)),
		"eps is 2":                     second(FlexRoPESlope(1, 2)),
		"FAR: Patch is 3":              second(NewFAR(FARConfig{Frames: 1, Height: 4, Width: 4, Patch: 3})),
		"FAR: ContextPatch is 2":       second(NewFAR(FARConfig{Frames: 1, Height: 4, Width: 4, Patch: 4, ContextPatch: 2})),
		"FAR: 1 frames of 0 x 4":       second(NewFAR(FARConfig{Frames: 1, Width: 4})),
		"more than 2^24 tokens":        second(NewFAR(FARConfig{Frames: 1 << 20, Height: 1 << 10, Width: 1 << 10})),
	} {
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	x := matrix(make([]float32, 16), 4, 4)
	for _, err := range []error{
		Patches(x, make([]float32, 16), 1, 1, 4, 4, 3),
		Patches(x, make([]float32, 15), 1, 1, 4, 4, 2),
		Patches(x, make([]float32, 32), 2, 1, 4, 4, 2),
		Patches(x, nil, math.MaxInt, math.MaxInt, 4, 4, 2),
	} {
		if !errors.Is(err, ErrShape) {
			t.Errorf("error %v", err)
		}
	}
	must(t, Patches(x, nil, 5, 0, 4, 4, 2))
}

// TestOneHead: biases of one head are those of any.
func TestOneHead(t *testing.T) {
	fire, err := NewFIRE(FIREConfig{W1: []float64{1, -1}, B1: []float64{0, 1}, W2: []float64{1, 2}, B2: []float64{1}, C: 0.1})
	must(t, err)
	alibi, err := NewALiBi([]float32{0.5})
	must(t, err)
	flex, err := NewFlexRoPE(FlexRoPEConfig{Slopes: []float32{0.5}, TokensPerFrame: 2})
	must(t, err)
	for name, b := range map[string]Bias{"ALiBi": alibi, "FIRE": fire, "FlexRoPE": flex} {
		x, y := matrix(make([]float32, 12), 3, 4), matrix(make([]float32, 12), 3, 4)
		b.AddTo(x, 0, 9, 2)
		b.AddTo(y, 5, 9, 2)
		if !slices.Equal(x.Data, y.Data) || b.Most(0, 9, 2, 3, 4) != b.Most(5, 9, 2, 3, 4) {
			t.Errorf("%s of head 5 is %v, want %v", name, y.Data, x.Data)
		}
	}
}

func second[T any](_ T, err error) error { return err }

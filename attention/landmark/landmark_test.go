package landmark

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/state/statetest"
	"github.com/subquad/subquad/internal/tile"
	"github.com/subquad/subquad/rope"
)

// grouped is the grouped softmax of one query over logits of tokens: it returns
// the weight of each. landmark tells tokens apart; the query's section is the
// tokens after the last landmark before at.
func grouped(logits []float64, landmark []bool, at int) []float64 {
	softmax := func(index []int) map[int]float64 {
		top, sum, p := math.Inf(-1), 0.0, map[int]float64{}
		for _, j := range index {
			top = max(top, logits[j])
		}
		for _, j := range index {
			p[j] = math.Exp(logits[j] - top)
			sum += p[j]
		}
		for j := range p {
			p[j] /= sum
		}
		return p
	}
	var outer, block []int
	blocks := map[int][]int{}
	for j := range at {
		if landmark[j] {
			outer, blocks[j], block = append(outer, j), block, nil
		} else {
			block = append(block, j)
		}
	}
	outer = append(outer, block...)
	if !landmark[at] {
		outer = append(outer, at)
	}
	weights := make([]float64, len(logits))
	for j, p := range softmax(outer) {
		if !landmark[j] {
			weights[j] = p
			continue
		}
		for t, w := range softmax(blocks[j]) {
			weights[t] = p * w
		}
	}
	return weights
}

func wideDot(a, b []float32, scale float32) float64 {
	s := 0.0
	for i := range a {
		s += float64(a[i]) * float64(b[i])
	}
	return s * float64(scale)
}

func TestLandmarkOracle(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		seeds := uint64(60)
		if testing.Short() {
			seeds = 15
		}
		for seed := range seeds {
			r := rand.New(rand.NewPCG(seed, 1))
			kvHeads, n := 1+r.IntN(2), r.IntN(120)
			cfg := Config{Heads: kvHeads * (1 + r.IntN(3)), KVHeads: kvHeads, HeadDim: 1 + r.IntN(9), ValueDim: 1 + r.IntN(20), Workers: 1 + r.IntN(3)}
			end := tile.Small()
			l := mustLandmark(t, cfg)
			end()
			q, k, v := matrix(seed, n, cfg.Heads*cfg.HeadDim), matrix(seed+1, n, kvHeads*cfg.HeadDim), matrix(seed+2, n, kvHeads*cfg.ValueDim)
			is, rate := make([]bool, n), 2+r.IntN(40)
			for i := range is {
				is[i] = r.IntN(rate) == 0
			}
			for i := range is { // nobody may look at these
				if is[i] {
					for j := range v.Cols {
						v.Data[i*v.Stride+j] = float32(math.NaN())
					}
				}
			}
			dst, want := zeroMatrix(n, cfg.Heads*cfg.ValueDim), make([][]float64, n)
			if err := l.Forward(dst, q, k, v, is); err != nil {
				t.Fatal(err)
			}
			for i := range want {
				want[i] = make([]float64, dst.Cols)
				for h := range cfg.Heads {
					g := h / (cfg.Heads / kvHeads)
					logits := make([]float64, n)
					for j := range i + 1 {
						logits[j] = wideDot(row(q, i)[h*cfg.HeadDim:][:cfg.HeadDim], row(k, j)[g*cfg.HeadDim:], l.cfg.Scale)
					}
					for j, w := range grouped(logits, is, i) {
						for d := range cfg.ValueDim {
							if w > 0 {
								want[i][h*cfg.ValueDim+d] += w * float64(row(v, j)[g*cfg.ValueDim+d])
							}
						}
					}
				}
			}
			near(t, "dst", dst, want, 2e-5)
		}
	})
}

// landmarkChunks runs a sequence in random steps and calls f after each with
// where it began and ended.
func landmarkChunks(t *testing.T, l *Landmark, s *State, r *rand.Rand, q, k, v, dst blas32.General, f func(from, to int)) {
	t.Helper()
	for at := 0; at < q.Rows; {
		to := min(at+1+r.IntN(9), q.Rows)
		is := make([]bool, to-at)
		for i := range is {
			is[i] = l.IsLandmark(int64(at + i))
		}
		if err := l.Step(part(dst, at, to), part(q, at, to), part(k, at, to), part(v, at, to), is, s); err != nil {
			t.Fatal(err)
		}
		if s.Len() != to {
			t.Fatalf("%d tokens, want %d", s.Len(), to)
		}
		f(at, to)
		at = to
	}
}

// TestLandmarkSplit has Step be Forward where every block is read and there are
// no positions, for any split, and states that are copied or written and read.
func TestLandmarkSplit(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for seed := range uint64(20) {
			r := rand.New(rand.NewPCG(seed, 1))
			const n, d, heads, kvHeads = 90, 5, 4, 2
			l := mustLandmark(t, Config{Heads: heads, KVHeads: kvHeads, HeadDim: d, Block: 1 + r.IntN(7), TopK: n, Workers: 1 + r.IntN(2)})
			q, k, v := matrix(seed, n, heads*d), matrix(seed+1, n, kvHeads*d), matrix(seed+2, n, kvHeads*d)
			is := make([]bool, n)
			for i := range is {
				is[i] = l.IsLandmark(int64(i))
			}
			want, got := zeroMatrix(n, heads*d), zeroMatrix(n, heads*d)
			if err := l.Forward(want, q, k, v, is); err != nil {
				t.Fatal(err)
			}
			s, _ := l.NewState(StateConfig{})
			landmarkChunks(t, l, s, r, q, k, v, got, func(_, to int) {
				switch r.IntN(3) {
				case 0:
					*s = *s.Clone()
				case 1:
					var file bytes.Buffer
					if _, err := s.WriteTo(&file); err != nil {
						t.Fatal(err)
					}
					read, err := l.ReadState(&file)
					if err != nil {
						t.Fatal(err)
					}
					*s = *read
				}
			})
			close64(t, "steps", got.Data, want.Data, 1e-5)
		}
	})
}

// TestLandmarkRetrieval follows the published rule to the letter: landmarks and
// chosen blocks rotated at their places, for every way to choose.
func TestLandmarkRetrieval(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for seed := range uint64(24) {
			r := rand.New(rand.NewPCG(seed, 1))
			const n, d, heads, kvHeads = 70, 8, 4, 2
			turn := mustRotation(t, rotation(d))
			block, top, most := 1+r.IntN(5), 1+r.IntN(4), []int{0, 6}[r.IntN(2)]
			l := mustLandmark(t, Config{Heads: heads, KVHeads: kvHeads, HeadDim: d, Block: block, TopK: top, Rotation: rotation(d), Selection: Selection(seed % 3), Workers: 2})
			period := block + 1
			q, k, v, dst := matrix(seed, n, heads*d), matrix(seed+1, n, kvHeads*d), matrix(seed+2, n, kvHeads*d), zeroMatrix(n, heads*d)
			at := func(x []float32, position int) []float32 {
				m := general(append([]float32(nil), x[:d]...), 1, d)
				if err := turn.Rotate(m, int64(position)); err != nil {
					t.Fatal(err)
				}
				return m.Data
			}
			s, _ := l.NewState(StateConfig{MaxBlocks: most})
			landmarkChunks(t, l, s, r, q, k, v, dst, func(from, to int) {
				seen := from / period
				held := seen
				if most > 0 {
					held = min(held, most)
				}
				first := (seen - held) * period // token of the oldest block held
				tail := from % period
				start := min(seen, top+1)*period + tail
				take := min(top, held)
				weight := func(i, h int) []float64 { // of the landmarks
					w, sum := make([]float64, held), 0.0
					for a := range w {
						slot := 0
						if a >= held-top {
							slot = a - (held - top) + 1
						}
						g := h / (heads / kvHeads)
						key := at(row(k, first+a*period+block)[g*d:], slot*period+block)
						w[a] = math.Exp(wideDot(at(row(q, i)[h*d:], start+i-from), key, l.cfg.Scale))
						sum += w[a]
					}
					for a := range w {
						w[a] /= sum
					}
					return w
				}
				for i := from; i < to; i++ {
					for h := range heads {
						scores := make([]float64, held)
						for a, w := range weight(i, h) {
							scores[a] = w
						}
						for other := range heads {
							if l.cfg.Selection == MaxOverHeads {
								for a, w := range weight(i, other) {
									scores[a] = max(scores[a], w)
								}
							}
						}
						for other := from; other < to; other++ {
							if l.cfg.Selection == MaxOverTokens {
								for a, w := range weight(other, h) {
									scores[a] = max(scores[a], w)
								}
							}
						}
						order := make([]int, held)
						for a := range order {
							order[a] = a
						}
						sort.SliceStable(order, func(x, y int) bool { return scores[order[x]] > scores[order[y]] })
						chosen := order[:take]
						sort.Ints(chosen)
						g := h / (heads / kvHeads)
						query := at(row(q, i)[h*d:], start+i-from)
						var logits []float64
						var is []bool
						var values [][]float32
						add := func(token, position int) {
							logits = append(logits, wideDot(query, at(row(k, token)[g*d:], position), l.cfg.Scale))
							is, values = append(is, l.IsLandmark(int64(token))), append(values, row(v, token)[g*d:][:d])
						}
						for rank, a := range chosen {
							place := rank
							if a >= held-top && held > top {
								place++
							}
							for j := range period {
								add(first+a*period+j, place*period+j)
							}
						}
						for j := from - tail; j <= i; j++ {
							add(j, start+j-from)
						}
						want := make([]float64, d)
						for j, w := range grouped(logits, is, len(logits)-1) {
							for c := range want {
								want[c] += w * float64(values[j][c])
							}
						}
						near(t, "dst", general(row(dst, i)[h*d:][:d], 1, d), [][]float64{want}, 2e-5)
					}
				}
			})
			if most > 0 && s.Blocks() > most {
				t.Errorf("%d blocks are held, want at most %d", s.Blocks(), most)
			}
		}
	})
}

func TestLandmarkBits(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n, d = 150, 6
		q, k, v := matrix(1, n, 4*d), matrix(2, n, 2*d), matrix(3, n, 2*d)
		var want []float32
		for _, workers := range []int{1, 2, 5} {
			end := tile.Small()
			l := mustLandmark(t, Config{Heads: 4, KVHeads: 2, HeadDim: d, Block: 6, TopK: 3, Workers: workers, Rotation: rotation(d)})
			end()
			s, _ := l.NewState(StateConfig{})
			dst := zeroMatrix(n, 4*d)
			landmarkChunks(t, l, s, rand.New(rand.NewPCG(1, 1)), q, k, v, dst, func(int, int) {})
			if want == nil {
				want = dst.Data
			}
			sameBits(t, "workers", dst.Data, want)
		}
	})
}

func TestLandmarkErrors(t *testing.T) {
	axes := &rope.Config{HeadDim: 4, Axes: []rope.Axis{{Dim: 2}, {Dim: 2}}}
	for want, cfg := range map[string]Config{
		"Heads is 0":     {HeadDim: 4},
		"Block is -1":    {Heads: 1, HeadDim: 4, Block: -1},
		"TopK is -1":     {Heads: 1, HeadDim: 4, TopK: -1},
		"Selection is 3": {Heads: 1, HeadDim: 4, Selection: 3},
		"Rotation.HeadDim is 4, want HeadDim = 6":       {Heads: 1, HeadDim: 6, Rotation: rotation(4)},
		"Rotation is " + mustRotation(t, axes).String(): {Heads: 1, HeadDim: 4, Rotation: axes},
		"Rotation: rope: ":                              {Heads: 1, HeadDim: 4, Rotation: &rope.Config{HeadDim: -1}},
	} {
		if _, err := New(cfg); !errors.Is(err, attention.ErrConfig) || !strings.HasPrefix(err.Error(), "landmark: "+want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	l, other := mustLandmark(t, Config{Heads: 2, HeadDim: 4, Block: 2}), mustLandmark(t, Config{Heads: 2, HeadDim: 4, Block: 3})
	if _, err := l.NewState(StateConfig{MaxBlocks: -1}); !errors.Is(err, attention.ErrConfig) {
		t.Errorf("error %v", err)
	}
	s, _ := l.NewState(StateConfig{})
	alien, _ := other.NewState(StateConfig{})
	for want, change := range map[string]func(c *flat){
		"landmarks has 2 elements, want one for each token = 3":                            func(c *flat) { c.Landmarks = c.Landmarks[:2] },
		"q has 7 columns, want Heads*HeadDim = 8":                                          func(c *flat) { c.Q.Cols-- },
		"k has 2 rows, want 3":                                                             func(c *flat) { c.K.Rows-- },
		"v has 9 columns, want KVHeads*ValueDim = 8":                                       func(c *flat) { c.V = zeroMatrix(3, 9) },
		"dst shares elements with an input":                                                func(c *flat) { c.Dst = c.Q },
		"LSE has 1 columns, want Heads = 2":                                                func(c *flat) { c.LSE = zeroMatrix(3, 1) },
		"State is of another operator":                                                     func(c *flat) { c.State = alien },
		"landmarks[2] is false after 0 tokens, want true: a landmark after every 2 tokens": func(c *flat) { c.State = s; c.Landmarks = make([]bool, 3) },
	} {
		c := &flat{Dst: zeroMatrix(3, 8), Q: zeroMatrix(3, 8), K: zeroMatrix(3, 8), V: zeroMatrix(3, 8), Landmarks: []bool{false, false, true}}
		change(c)
		if err := c.run(context.Background(), l); err == nil || err.Error() != "landmark: "+want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	x := zeroMatrix(3, 8)
	if err := l.Step(zeroMatrix(3, 8), x, x, x, []bool{false, false, true}, nil); !errors.Is(err, attention.ErrState) {
		t.Errorf("error %v without a state", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	c := &flat{Dst: zeroMatrix(3, 8), Q: x, K: x, V: x, Landmarks: []bool{false, false, true}, State: s}
	if err := c.run(ended, l); err != context.Canceled || s.Len() != 0 {
		t.Errorf("error %v, %d tokens", err, s.Len())
	}
	if err := c.run(context.Background(), l); err != nil || s.Len() != 3 || s.Blocks() != 1 {
		t.Errorf("error %v, %d tokens", err, s.Len())
	}
	var file bytes.Buffer
	if _, err := s.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	statetest.Damage(t, file.Bytes(), func(r io.Reader) error { _, err := l.ReadState(r); return err })
	s.Reset()
	if s.Len() != 0 || s.Bytes() == 0 {
		t.Errorf("%d tokens, %d bytes after Reset", s.Len(), s.Bytes())
	}
	none := blas32.General{Cols: 8}
	if err := l.Forward(none, none, none, none, nil); err != nil {
		t.Error(err)
	}
}

// counted is a context that counts how often it is looked at.
type counted struct {
	context.Context
	looks int
}

func (c *counted) Err() error {
	c.looks++
	return nil
}

// TestLooks: a tile of queries that sees thousands of blocks, or one of thousands of tokens,
// looks at the context on its way.
func TestLooks(t *testing.T) {
	const n, d = 1500, 32
	l := mustLandmark(t, Config{Heads: 1, HeadDim: d, Block: 1, TopK: 1, Workers: 1})
	tasks := (n + l.sizes.Rows - 1) / l.sizes.Rows
	for name, every := range map[string]int{"blocks": 2, "a block": n + 1} {
		marks, sections := make([]bool, n), 1
		for i := every - 1; i < n; i += every {
			marks[i] = true
			sections++
		}
		c := &flat{Dst: zeroMatrix(n, d), Q: zeroMatrix(n, d), K: zeroMatrix(n, d), V: zeroMatrix(n, d), Landmarks: marks}
		ctx := &counted{Context: context.Background()}
		if err := c.run(ctx, l); err != nil {
			t.Fatal(err)
		}
		if most := tasks + sections + 8; ctx.looks <= most {
			t.Errorf("%s: %d looks, want more than %d", name, ctx.looks, most)
		}
	}
}

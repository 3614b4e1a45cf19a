package kvcache

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/rope"
)

// TestWindowPositions: whatever the chunks and the cuts, each query reads what a Window leaves it at
// the positions of its policy, as a loop over float64 says that looks at one pair at a time.
func TestWindowPositions(t *testing.T) {
	const n, keep, recent, group = 75, 3, 10, 4
	scheme := rope.YaRN{Factor: 4, Original: 64} // which has an attention factor
	for _, way := range []struct {
		name string
		cfg  Config
		far  func(i, j int) (query, key int) // positions of tokens that are not near
	}{
		{"in the cache", Config{Positions: InCache, Select: Window{}, Evict: StreamingLLM{}}, func(i, j int) (int, int) {
			return min(i, keep+recent-1), j
		}},
		{"far", Config{Positions: Far, Distance: recent - 1, Select: Window{}, Evict: StreamingLLM{}}, func(i, j int) (int, int) {
			return recent - 1, 0
		}},
		{"at the origin", Config{Select: Window{}, Evict: StreamingLLM{}}, func(i, j int) (int, int) { return i, j }},
		{"in groups", Config{Positions: Grouped, GroupSize: group}, func(i, j int) (int, int) {
			return i/group + recent - recent/group, j / group
		}},
		{"in groups of a window", Config{Positions: Grouped, GroupSize: group, Select: Window{}, Evict: StreamingLLM{}}, func(i, j int) (int, int) {
			return i/group + recent - recent/group, j / group
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			isatest.Run(t, func(t *testing.T) {
				for _, chunk := range []int{1, 7, 512} {
					cfg := way.cfg
					cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.Keep, cfg.Recent, cfg.Chunk = 4, 2, 12, keep, recent, chunk
					cfg.Rotation = &rope.Config{HeadDim: 12, Scheme: scheme}
					a := operator(t, cfg)
					x := newText(33, &a.cfg, n)
					want := pairs(t, a, x, way.far)
					r := rand.New(rand.NewPCG(5, uint64(chunk)))
					s := newState(t, a, StateConfig{})
					for at := 0; at < n; {
						to := min(n, at+1+r.IntN(20))
						got := x.run(t, a, s, at, to)
						for i := range got.Rows {
							for c, y := range mat.Row(got, i) {
								if z := want[at+i][c]; math.Abs(float64(y)-z) > 2e-5 {
									t.Fatalf("chunks of %d: token %d, column %d is %v, want %v", chunk, at+i, c, y, z)
								}
							}
						}
						at = to
					}
					if way.cfg.Evict != nil && s.Held(0) > keep+recent+min(chunk, 20) {
						t.Errorf("chunks of %d: %d tokens are held", chunk, s.Held(0))
					}
				}
			})
		})
	}
}

// pairs attends in float64, every pair of query and key turned for itself.
func pairs(t *testing.T, a *Attention, x lawText, far func(i, j int) (int, int)) [][]float64 {
	t.Helper()
	cfg := &a.cfg
	d, dv := cfg.HeadDim, cfg.ValueDim
	turn := func(m blas32.General, row, head, at int) []float32 {
		y := mat.New(1, d)
		copy(y.Data, mat.Part(m, row, head*d, d))
		must(t, a.rotation.Rotate(y, int64(at)))
		return y.Data
	}
	_, windowed := cfg.Select.(Window)
	out := make([][]float64, x.q.Rows)
	for i := range out {
		out[i] = make([]float64, cfg.Heads*dv)
		for h := range cfg.Heads {
			sum, g := 0.0, h/a.group
			for j := range i + 1 {
				qAt, kAt := i, j
				if i-j >= cfg.Recent {
					if windowed && j >= cfg.Keep {
						continue
					}
					qAt, kAt = far(i, j)
				}
				dot := 0.0
				q, k := turn(x.q, i, h, qAt), turn(x.k, j, g, kAt)
				if cfg.Positions == Far && i-j >= cfg.Recent {
					k = mat.Part(x.k, j, g*d, d) // as it came
				}
				for c := range d {
					dot += float64(q[c]) * float64(k[c])
				}
				w := math.Exp(dot * float64(cfg.Scale))
				sum += w
				for c, v := range mat.Part(x.v, j, g*dv, dv) {
					out[i][h*dv+c] += w * float64(v)
				}
			}
			for c := range dv {
				out[i][h*dv+c] /= sum
			}
		}
	}
	return out
}

package ssm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

func at64(m blas32.General, row, col int) float64 { return float64(m.Data[row*m.Stride+col]) }

func softplus64(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

func silu64(x float64) float64 { return x / (1 + math.Exp(-x)) }

// limited64 is dt after bias, softplus and limits.
func limited64(x float64, softplus bool, least, most float32) float64 {
	if softplus {
		x = softplus64(x)
	}
	x = max(x, float64(least))
	if most != 0 {
		x = min(x, float64(most))
	}
	return x
}

// scan64 is a scan in float64, which brings h [D, N] up to date.
func scan64(cfg ScanConfig, w ScanWeights, c *ScanCall, h []float64) (out []float32) {
	d, n := cfg.Channels, cfg.States
	each := d / cfg.Groups
	for t := range c.X.Rows {
		for ch := range d {
			x, dt := at64(c.X, t, ch), at64(c.Dt, t, ch)
			if w.DtBias != nil {
				dt += float64(w.DtBias[ch])
			}
			dt = limited64(dt, cfg.Softplus, cfg.DtMin, cfg.DtMax)
			shared := func(constant, m blas32.General, i int) float64 {
				if mat.Given(constant) {
					return at64(constant, ch, i)
				}
				return at64(m, t, ch/each*n+i)
			}
			var y float64
			for i := range n {
				v := &h[ch*n+i]
				*v = math.Exp(dt*at64(w.A, ch, i))**v + dt*x*shared(w.B, c.B, i)
				y += *v * shared(w.C, c.C, i)
			}
			if w.D != nil {
				y += float64(w.D[ch]) * x
			}
			if mat.Given(c.Z) {
				y *= silu64(at64(c.Z, t, ch))
			}
			out = append(out, float32(y))
		}
	}
	return out
}

func narrow(x []float64) (out []float32) {
	for _, v := range x {
		out = append(out, float32(v))
	}
	return out
}

// TestScan compares the scan with float64 in every combination of options, for odd
// numbers of channels, states and groups, no token and one, and steps from e^-100
// to 100.
func TestScan(t *testing.T) {
	rounds := 4
	if testing.Short() {
		rounds = 2
	}
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(9, 9))
		for _, shape := range [][3]int{{1, 1, 1}, {3, 64, 3}, {17, 5, 1}, {15, 4, 5}, {48, 16, 1}, {33, 20, 3}, {272, 3, 1}} {
			for _, n := range []int{0, 1, 2, 70} {
				for round := range rounds {
					cfg := ScanConfig{Channels: shape[0], States: shape[1], Groups: shape[2], Softplus: r.IntN(2) == 0, Workers: 2}
					d, s, wide := cfg.Channels, cfg.States, cfg.Groups*cfg.States
					w := ScanWeights{A: blas32.General{Rows: d, Cols: s, Stride: s, Data: decays(r.Uint64(), d*s)}}
					dt := random(r.Uint64(), n, d, 30, 0)
					if !cfg.Softplus {
						for i, v := range dt.Data {
							dt.Data[i] = float32(math.Abs(float64(v))) / 30
						}
					}
					c := ScanCall{Dst: zeros(n, d), X: random(r.Uint64(), n, d, 1, 0), Dt: dt}
					option := func() bool { return r.IntN(2) == 0 }
					if option() {
						w.D = normal(r.Uint64(), 1, 0, d)
					}
					if option() {
						w.DtBias = normal(r.Uint64(), 0.1, 0.2, d)
					}
					if option() {
						cfg.DtMin, cfg.DtMax = 0.001, 0.5
					}
					for _, m := range [][2]*blas32.General{{&w.B, &c.B}, {&w.C, &c.C}} {
						if option() {
							*m[0] = random(r.Uint64(), d, s, 1, 0)
						} else {
							*m[1] = random(r.Uint64(), n, wide, 1, 0)
						}
					}
					if option() {
						c.Z = random(r.Uint64(), n, d, 3, 0)
					}
					op := value[*Scan](t)(NewScan(cfg, w))
					st, h := value[*State](t)(op.NewState(StateConfig{})), random(r.Uint64(), d, s, 1, 0)
					must(t, op.Write(st, h))
					c.State = st
					want := make([]float64, d*s)
					for i, v := range h.Data {
						want[i] = float64(v)
					}
					out := scan64(cfg, w, &c, want)
					must(t, op.Run(t.Context(), &c))
					must(t, op.Read(h, st))
					name := fmt.Sprintf("%s, %d tokens, round %d", op.kind.Name, n, round)
					near(t, name, c.Dst.Data, out, 2e-5)
					near(t, name+": state", h.Data, narrow(want), 2e-5)
				}
			}
		}
	})
}

// TestSISO compares with float64, and Forward, Step and StepBatch with each other.
func TestSISO(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, shape := range [][5]int{{1, 1, 1, 1, 0}, {6, 5, 7, 3, 3}, {4, 33, 64, 1, 16}, {3, 8, 16, 3, 8}} {
			heads, width, states, groups, angles := shape[0], shape[1], shape[2], shape[3], shape[4]
			w := SISOWeights{BBias: normal(1, 1, 0, heads*states), CBias: normal(2, 1, 0, heads*states), D: normal(3, 1, 0, heads)}
			op := value[*SISO](t)(NewSISO(SISOConfig{Heads: heads, HeadDim: width, States: states, Groups: groups, Angles: angles}, w))
			for _, n := range []int{0, 1, 67} {
				x, dt, decay, trap := random(4, n, heads*width, 1, 0), random(5, n, heads, 0.3, 0), random(6, n, heads, 1, 0), random(7, n, heads, 3, 0)
				b, c, turn := random(8, n, groups*states, 1, 0), random(9, n, groups*states, 1, 0), random(10, n, heads*angles, 2, 0)
				for i := range dt.Data {
					dt.Data[i], decay.Data[i] = float32(math.Abs(float64(dt.Data[i]))), -float32(math.Abs(float64(decay.Data[i])))
				}
				whole, steps := zeros(n, heads*width), zeros(n, heads*width)
				must(t, op.Forward(whole, x, dt, decay, trap, b, c, turn))
				near(t, op.kind.Name, whole.Data, siso64(op.cfg, w, x, dt, decay, trap, b, c, turn), 2e-5)
				st := value[*State](t)(op.NewState(StateConfig{}))
				for i := range n {
					row := func(m blas32.General) blas32.General { m.Rows, m.Data = 1, m.Data[i*m.Stride:]; return m }
					step := func(dst, x, dt, decay, trap, b, c, turn blas32.General, st *State) error {
						return op.StepBatch(dst, x, dt, decay, trap, b, c, turn, []*State{st})
					}
					if i%2 == 0 {
						step = op.Step
					}
					must(t, step(row(steps), row(x), row(dt), row(decay), row(trap), row(b), row(c), row(turn), st))
				}
				same(t, op.kind.Name+": steps", steps.Data, whole.Data)
			}
		}
	})
}

func siso64(cfg SISOConfig, w SISOWeights, x, dt, decay, trap, b, c, turn blas32.General) (out []float32) {
	heads, width, states := cfg.Heads, cfg.HeadDim, cfg.States
	s, before := make([]float64, heads*width*states), make([]float64, heads*(width+states))
	angles := make([]float64, heads*cfg.Angles)
	for t := range x.Rows {
		for h := range heads {
			group := h / (heads / cfg.Groups) * states
			q, k := make([]float64, states), make([]float64, states)
			for i := range states {
				q[i] = at64(c, t, group+i) + float64(w.CBias[h*states+i])
				k[i] = at64(b, t, group+i) + float64(w.BBias[h*states+i])
			}
			step, a, l := at64(dt, t, h), math.Exp(at64(decay, t, h)), 1/(1+math.Exp(-at64(trap, t, h)))
			for i := range cfg.Angles {
				angle := &angles[h*cfg.Angles+i]
				*angle += math.Tanh(at64(turn, t, h*cfg.Angles+i)) * math.Pi * step
				sin, cos := math.Sincos(*angle)
				for _, v := range [][]float64{q, k} {
					v[2*i], v[2*i+1] = v[2*i]*cos-v[2*i+1]*sin, v[2*i]*sin+v[2*i+1]*cos
				}
			}
			oldX, oldK := before[h*(width+states):][:width], before[h*(width+states)+width:][:states]
			for p := range width {
				v := at64(x, t, h*width+p)
				y := float64(w.D[h]) * v
				for i := range states {
					e := &s[(h*width+p)*states+i]
					*e = a**e + (1-l)*step*a*oldK[i]*oldX[p] + l*step*k[i]*v
					y += *e * q[i]
				}
				oldX[p] = v
				out = append(out, float32(y))
			}
			copy(oldK, k)
		}
	}
	return out
}

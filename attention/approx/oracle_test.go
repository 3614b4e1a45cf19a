package approx

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/mat"
)

// The oracles are the formulas in float64, one head at a time.

// weight is exp of a log-weight, 0 of what is not there.
func weight(c *request, j, g int) float64 {
	if c.Valid != nil && !c.Valid[j] {
		return 0
	}
	if !c.weighted() {
		return 1
	}
	return math.Exp(float64(c.logWeight(j, g)))
}

func at(m blas32.General, i, j int) float64 { return float64(m.Data[i*m.Stride+j]) }

// eachHead fills rows of all heads with f, which sets out [rows][cols] of one.
func eachHead(rows int, sh shape, f func(h, g int, out [][]float64)) [][]float64 {
	all := make([][]float64, rows)
	for i := range all {
		all[i] = make([]float64, sh.heads*sh.valueDim)
	}
	for h := range sh.heads {
		out := make([][]float64, rows)
		for i := range out {
			out[i] = all[i][h*sh.valueDim:][:sh.valueDim]
		}
		f(h, h/sh.group(), out)
	}
	return all
}

func phi(x float64) float64 {
	if x > 0 {
		return x + 1
	}
	return math.Exp(x)
}

func linearOracle(causal bool) func(c *request, sh shape) [][]float64 {
	return func(c *request, sh shape) [][]float64 {
		return eachHead(c.Q.Rows, sh, func(h, g int, out [][]float64) {
			sum, z := mat.NewDense(sh.dim, sh.valueDim, nil), make([]float64, sh.dim)
			add := func(j int) {
				w := weight(c, j, g)
				for d := 0; w > 0 && d < sh.dim; d++ {
					p := w * phi(at(c.K, j, g*sh.dim+d))
					z[d] += p
					for e := range sh.valueDim {
						sum.Set(d, e, sum.At(d, e)+p*at(c.V, j, g*sh.valueDim+e))
					}
				}
			}
			for j := 0; !causal && j < c.K.Rows; j++ {
				add(j)
			}
			for i := range out {
				if causal {
					add(i)
				}
				den := 1e-6
				for d := range sh.dim {
					p := phi(at(c.Q, i, h*sh.dim+d))
					den += p * z[d]
					for e := range out[i] {
						out[i][e] += p * sum.At(d, e)
					}
				}
				for e := range out[i] {
					out[i][e] /= den
				}
			}
		})
	}
}

func efficientOracle(c *request, sh shape) [][]float64 {
	return eachHead(c.Q.Rows, sh, func(h, g int, out [][]float64) {
		ctx := mat.NewDense(sh.dim, sh.valueDim, nil)
		for d := range sh.dim {
			sum := 0.0
			for j := range c.K.Rows {
				w := weight(c, j, g)
				if w == 0 {
					continue
				}
				w *= math.Exp(at(c.K, j, g*sh.dim+d))
				sum += w
				for e := range sh.valueDim {
					ctx.Set(d, e, ctx.At(d, e)+w*at(c.V, j, g*sh.valueDim+e))
				}
			}
			for e := range sh.valueDim {
				if sum > 0 {
					ctx.Set(d, e, ctx.At(d, e)/sum)
				}
			}
		}
		for i := range out {
			sum := 0.0
			for d := range sh.dim {
				sum += math.Exp(at(c.Q, i, h*sh.dim+d))
			}
			for d := range sh.dim {
				for e := range out[i] {
					out[i][e] += math.Exp(at(c.Q, i, h*sh.dim+d)) / sum * ctx.At(d, e)
				}
			}
		}
	})
}

func xcaOracle(temperature []float32) func(c *request, sh shape) [][]float64 {
	return func(c *request, sh shape) [][]float64 {
		return eachHead(c.Q.Rows, sh, func(h, g int, out [][]float64) {
			norm := func(m blas32.General, col int) float64 {
				sum := 0.0
				for j := range c.K.Rows {
					if w := weight(c, j, g); w > 0 {
						sum += w * at(m, j, col) * at(m, j, col)
					}
				}
				return math.Max(math.Sqrt(sum), 1e-12)
			}
			for a := range sh.dim {
				p, total := make([]float64, sh.dim), 0.0
				for b := range p {
					sum := 0.0
					for j := range c.K.Rows {
						if w := weight(c, j, g); w > 0 {
							sum += w * at(c.Q, j, h*sh.dim+a) * at(c.K, j, g*sh.dim+b)
						}
					}
					p[b] = math.Exp(float64(temperature[h]) * sum / norm(c.Q, h*sh.dim+a) / norm(c.K, g*sh.dim+b))
					total += p[b]
				}
				for i := range out {
					for b := range p {
						out[i][a] += p[b] / total * at(c.V, i, g*sh.dim+b)
					}
				}
			}
		})
	}
}

// nystromOracle has the true pseudo-inverse replaced by the iteration, in float64.
func nystromOracle(landmarks int, conv blas32.General) func(c *request, sh shape) [][]float64 {
	return func(c *request, sh shape) [][]float64 {
		n := c.Q.Rows
		m := min(landmarks, n)
		return eachHead(n, sh, func(h, g int, out [][]float64) {
			if n == 0 {
				return
			}
			valid := func(j int) bool { return c.Valid == nil || c.Valid[j] }
			scale := 1 / math.Sqrt(float64(sh.dim))
			q, k := mat.NewDense(n, sh.dim, nil), mat.NewDense(n, sh.dim, nil)
			v := mat.NewDense(n, sh.valueDim, nil)
			w := make([]float64, n) // log-weights
			for j := range n {
				for d := range sh.dim {
					if valid(j) {
						q.Set(j, d, at(c.Q, j, h*sh.dim+d))
						k.Set(j, d, at(c.K, j, g*sh.dim+d))
					}
				}
				for d := range sh.valueDim {
					if valid(j) {
						v.Set(j, d, at(c.V, j, g*sh.valueDim+d))
					}
				}
				if c.weighted() {
					w[j] = float64(c.logWeight(j, g))
				}
			}
			means := func(x *mat.Dense) *mat.Dense {
				y := mat.NewDense(m, sh.dim, nil)
				for i := range m {
					from, to := segment(n, m, i)
					total := 0.0
					for j := from; j < to; j++ {
						total += math.Exp(w[j])
					}
					for j := from; j < to; j++ {
						share := math.Exp(w[j]) / total
						if total == 0 {
							share = 0 // hidden, all of them
						}
						for d := range sh.dim {
							y.Set(i, d, y.At(i, d)+share*x.At(j, d))
						}
					}
				}
				return y
			}
			softmax := func(a, b *mat.Dense, weights func(j int) float64) *mat.Dense {
				var p mat.Dense
				p.Mul(a, b.T())
				r, cols := p.Dims()
				for i := range r {
					sum := 0.0
					for j := range cols {
						p.Set(i, j, math.Exp(scale*p.At(i, j))*weights(j))
						sum += p.At(i, j)
					}
					for j := range cols {
						if sum > 0 {
							p.Set(i, j, p.At(i, j)/sum)
						}
					}
				}
				return &p
			}
			one := func(int) float64 { return 1 }
			seen := func(j int) float64 { return weight(c, j, g) }
			ql, kl := means(q), means(k)
			var result mat.Dense
			if n <= landmarks {
				result.Mul(softmax(q, k, seen), v)
			} else {
				var k3v, zk3v mat.Dense
				k3v.Mul(softmax(ql, k, seen), v)
				zk3v.Mul(pinv(softmax(ql, kl, one)), &k3v)
				result.Mul(softmax(q, kl, one), &zk3v)
			}
			for i := range out {
				for d := range out[i] {
					out[i][d] = result.At(i, d)
					for t := range conv.Cols {
						if j := i + t - conv.Cols/2; j >= 0 && j < n {
							out[i][d] += at(conv, h, t) * v.At(j, d)
						}
					}
				}
			}
		})
	}
}

func pinv(k *mat.Dense) *mat.Dense {
	m, _ := k.Dims()
	top := 0.0
	for j := range m {
		top = math.Max(top, mat.Sum(k.ColView(j)))
	}
	z := mat.NewDense(m, m, nil)
	z.Scale(1/top, k.T())
	for range 6 {
		var kz mat.Dense
		kz.Mul(k, z)
		minus := func(a float64, x *mat.Dense) *mat.Dense {
			y := mat.NewDense(m, m, nil)
			for i := range m {
				y.Set(i, i, a)
			}
			y.Sub(y, x)
			return y
		}
		t := minus(7, &kz)
		for _, a := range []float64{15, 13} {
			var p mat.Dense
			p.Mul(&kz, t)
			t = minus(a, &p)
		}
		var p mat.Dense
		p.Mul(z, t)
		z.Scale(0.25, &p)
	}
	return z
}

package approx

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"
)

// vectorOf is a head's part of a row, in float64.
func vectorOf(m blas32.General, row, head, dim int) []float64 {
	x := make([]float64, dim)
	for i := range x {
		x[i] = at(m, row, head*dim+i)
	}
	return x
}

// vectorsOf are a head's parts of all rows.
func vectorsOf(m blas32.General, head, dim int) [][]float64 {
	list := make([][]float64, m.Rows)
	for i := range list {
		list[i] = vectorOf(m, i, head, dim)
	}
	return list
}

// dot is the product of two vectors.
func dot(a, b []float64) (sum float64) {
	for i, x := range a {
		sum += x * b[i]
	}
	return sum
}

// weightedMeans fills rows with means of the values whose weights p gives, for each query and
// key of a head, besides the keys' own; den adds to their sum.
func weightedMeans(c *request, sh shape, causal bool, make func(h, g int) (p func(i, j int) float64, den func(i int) float64)) [][]float64 {
	return eachHead(c.Q.Rows, sh, func(h, g int, out [][]float64) {
		p, den := make(h, g)
		v := vectorsOf(c.V, g, sh.valueDim)
		for i := range out {
			sum := den(i)
			for j := 0; j < c.K.Rows && (!causal || j <= i); j++ {
				s := weight(c, j, g)
				if s == 0 {
					continue
				}
				s *= p(i, j)
				sum += s
				for e := range out[i] {
					out[i][e] += s * v[j][e]
				}
			}
			for e := range out[i] {
				if sum != 0 {
					out[i][e] /= sum
				}
			}
		}
	})
}

func basedOracle(c *request, sh shape) [][]float64 {
	return weightedMeans(c, sh, true, func(h, g int) (func(i, j int) float64, func(int) float64) {
		q, k := vectorsOf(c.Q, h, sh.dim), vectorsOf(c.K, g, sh.dim)
		return func(i, j int) float64 {
			x := dot(q[i], k[j]) / math.Sqrt(float64(sh.dim))
			return 1 + x + x*x/2
		}, func(int) float64 { return 1e-12 }
	})
}

// favorOracle is the features of Performer, by its formula.
func favorOracle(p *Performer, w [][]float64, x []float64, top *float64) []float64 {
	f, d := p.cfg.Features, float64(len(x))
	phi, square, largest := make([]float64, f), 0.0, math.Inf(-1)
	for i := range x {
		square += x[i] * x[i] / math.Sqrt(d)
	}
	for a := range phi {
		phi[a] = dot(w[a], x) * math.Pow(d, -0.25)
		largest = math.Max(largest, phi[a])
	}
	if top == nil {
		top = &largest
	}
	for a, v := range phi {
		if p.cfg.ReLU {
			phi[a] = math.Max(v, 0) + 1e-3
		} else {
			phi[a] = (math.Exp(v-square/2-*top) + 1e-4) / math.Sqrt(float64(f))
		}
	}
	return phi
}

func performerOracle(p *Performer) func(c *request, sh shape) [][]float64 {
	return func(c *request, sh shape) [][]float64 {
		return weightedMeans(c, sh, p.cfg.Causal, func(h, g int) (func(i, j int) float64, func(int) float64) {
			top, w := math.Inf(-1), vectorsOf(p.cfg.Projection, 0, sh.dim)
			for j := range c.K.Rows {
				for a := range w {
					if weight(c, j, g) > 0 {
						top = math.Max(top, dot(w[a], vectorOf(c.K, j, g, sh.dim))*math.Pow(float64(sh.dim), -0.25))
					}
				}
			}
			if p.cfg.Stabilizer != nil {
				top = float64(*p.cfg.Stabilizer)
			}
			q, k := make([][]float64, c.Q.Rows), make([][]float64, c.K.Rows)
			for i := range q {
				q[i] = favorOracle(p, w, vectorOf(c.Q, i, h, sh.dim), nil)
			}
			for j := range k {
				k[j] = favorOracle(p, w, vectorOf(c.K, j, g, sh.dim), &top)
			}
			return func(i, j int) float64 { return dot(q[i], k[j]) }, func(i int) (den float64) {
				if p.cfg.Causal {
					for _, x := range q[i] {
						den += 1e-6 * x
					}
				}
				return den
			}
		})
	}
}

// linformerOracle has padding as zeros, and keys beyond a sequence's as padding.
func linformerOracle(e blas32.General) func(c *request, sh shape) [][]float64 {
	return func(c *request, sh shape) [][]float64 {
		rows := e.Rows / sh.kvHeads
		return eachHead(c.Q.Rows, sh, func(h, g int, out [][]float64) {
			project := func(m blas32.General, dim int) [][]float64 {
				all := make([][]float64, rows)
				for a := range all {
					all[a] = make([]float64, dim)
					for j := range c.K.Rows {
						for d := 0; weight(c, j, g) > 0 && d < dim; d++ {
							all[a][d] += at(e, g*rows+a, j) * at(m, j, g*dim+d)
						}
					}
				}
				return all
			}
			k, v := project(c.K, sh.dim), project(c.V, sh.valueDim)
			for i := range out {
				sum := 0.0
				for a := range k {
					p := math.Exp(dot(vectorOf(c.Q, i, h, sh.dim), k[a]) / math.Sqrt(float64(sh.dim)))
					sum += p
					for d := range out[i] {
						out[i][d] += p * v[a][d]
					}
				}
				for d := range out[i] {
					out[i][d] /= sum
				}
			}
		})
	}
}

package cca

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"
)

// ccaOracle is CCA as it is defined, one query and head at a time, in float64.
func ccaOracle(c *CCA, q, k, v blas32.General) [][]float64 {
	cfg := &c.cfg
	wide := func(x []float32) []float64 {
		y := make([]float64, len(x))
		for i, v := range x {
			y[i] = float64(v)
		}
		return y
	}
	dot := func(a, b []float64) (s float64) {
		for i := range a {
			s += a[i] * b[i]
		}
		return s * float64(cfg.Scale)
	}
	softmax := func(s []float64) {
		top, sum := slices.Max(s), 0.0
		for i := range s {
			s[i] = math.Exp(s[i] - top)
			sum += s[i]
		}
		for i := range s {
			s[i] /= sum
		}
	}
	out := make([][]float64, q.Rows)
	for i := range out {
		out[i] = make([]float64, cfg.Heads*cfg.ValueDim)
	}
	for h := range cfg.Heads {
		g := h / (cfg.Heads / cfg.KVHeads)
		queries, keys, values := make([][]float64, q.Rows), [][][]float64{nil}, [][][]float64{nil}
		for i := range q.Rows {
			queries[i] = wide(q.Data[i*q.Stride+h*cfg.HeadDim:][:cfg.HeadDim])
			keys[0] = append(keys[0], wide(k.Data[i*k.Stride+g*cfg.HeadDim:][:cfg.HeadDim]))
			values[0] = append(values[0], wide(v.Data[i*v.Stride+g*cfg.ValueDim:][:cfg.ValueDim]))
		}
		size, members := 1, cfg.GroupSize
		for range c.levels {
			size *= members
			below := len(keys) - 1
			var ks, vs [][]float64
			for p := range q.Rows / size {
				last := (p+1)*size - 1
				w := make([]float64, members)
				mk, mv := keys[below][p*members:][:members], values[below][p*members:][:members]
				for j := range w {
					w[j] = dot(queries[last], mk[j])
				}
				softmax(w)
				pool := func(m [][]float64) []float64 {
					core := make([]float64, len(m[0]))
					for d := range core {
						largest := math.Inf(-1)
						for j := range m {
							largest = max(largest, m[j][d])
							switch cfg.Pooling {
							case PoolMean:
								core[d] += m[j][d] / float64(members)
							case PoolSignificance:
								core[d] += w[j] * m[j][d]
							}
						}
						if cfg.Pooling == PoolMax {
							core[d] = largest
						}
					}
					return core
				}
				ks, vs = append(ks, pool(mk)), append(vs, pool(mv))
			}
			keys, values = append(keys, ks), append(values, vs)
			members = growth
		}
		for i := range q.Rows {
			var s []float64
			var val [][]float64
			edge := 0 // tokens that have been seen to, from the oldest on
			for l := len(c.levels); l >= 0; l-- {
				size, to, weight := 1, i+1, 0.0
				if l > 0 {
					size, weight = int(c.levels[l-1].size), float64(c.levels[l-1].size)
					to = max(0, (i+1-int(c.levels[l-1].window))/size) * size
					if !cfg.CountTokens {
						weight /= float64(cfg.GroupSize)
					}
					weight = math.Log(weight)
				}
				for ; edge < to; edge += size {
					s = append(s, dot(queries[i], keys[l][edge/size])+weight)
					val = append(val, values[l][edge/size])
				}
			}
			softmax(s)
			for j, w := range s {
				for d, x := range val[j] {
					out[i][h*cfg.ValueDim+d] += w * x
				}
			}
		}
	}
	return out
}

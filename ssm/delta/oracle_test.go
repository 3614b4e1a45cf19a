package delta

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
)

// oracle is the recurrence in float64, as the formula says it, for one sequence from the
// states s [H K V]; it returns the outputs and changes s.
func oracle(cfg *Config, call *Call, s []float64) (out []float64) {
	k, v, each := cfg.KeyDim, cfg.ValueDim, max(1, cfg.QueryHeads/cfg.Heads)
	outs := max(cfg.Heads, cfg.QueryHeads)
	at := func(m blas32.General, t, from, n int) (x []float64) {
		for _, e := range mat.Part(m, t, from, n) {
			x = append(x, float64(e))
		}
		return x
	}
	normalize := func(x []float64) []float64 {
		if !cfg.Normalize {
			return x
		}
		var sum float64
		for _, e := range x {
			sum += e * e
		}
		for i := range x {
			x[i] /= math.Sqrt(sum + cfg.NormEps)
		}
		return x
	}
	read := func(m, x []float64) []float64 { // m^T x
		y := make([]float64, v)
		for i, e := range x {
			for j := range y {
				y[j] += m[i*v+j] * e
			}
		}
		return y
	}
	write := func(m, x, y []float64) { // m += x y^T
		for i, e := range x {
			for j, f := range y {
				m[i*v+j] += e * f
			}
		}
	}
	for t := range call.V.Rows {
		row := make([]float64, outs*v)
		for h := range cfg.Heads {
			m := s[h*k*v:][:k*v]
			key := normalize(at(call.K, t, h/(cfg.Heads/cfg.KeyHeads)*k, k))
			value, beta := at(call.V, t, h*v, v), 1.0
			if mat.Given(call.Beta) {
				beta = float64(mat.Row(call.Beta, t)[h%call.Beta.Cols])
			}
			before := append([]float64{}, m...)
			for i := range k {
				g := 0.0
				switch cfg.Decay {
				case ConstantDecay:
					g = float64(cfg.LogDecay[h])
				case HeadDecay:
					g = float64(mat.Row(call.Decay, t)[h])
				case KeyDecay:
					g = float64(mat.Row(call.Decay, t)[h*k+i])
				}
				for j := range v {
					m[i*v+j] *= math.Exp(g)
				}
			}
			from := m
			if cfg.EraseFirst {
				from = before
			}
			var r []float64
			switch cfg.Erase {
			case NoErase:
				r = make([]float64, v)
			case EraseKey:
				r = read(from, key)
			case EraseGated:
				e := at(call.Erase, t, h*k, k)
				for i := range e {
					e[i] *= key[i]
				}
				r = read(from, e)
				if mat.Given(call.WriteGate) {
					for j, w := range at(call.WriteGate, t, h*v, v) {
						value[j] *= w
					}
				}
			case EraseVector:
				r = read(from, at(call.Erase, t, h*k, k))
			case ErasePair:
				r = read(before, at(call.Erase, t, h*k, k))
				write(m, at(call.Insert, t, h*k, k), r)
				r = make([]float64, v)
			}
			for j := range value {
				value[j] = beta * (value[j] - r[j])
			}
			write(m, key, value)
			for j := range outs / cfg.Heads {
				head := h*each + j
				q := head
				if cfg.QueryHeads < cfg.Heads {
					q = h / (cfg.Heads / cfg.QueryHeads)
				}
				for i, y := range read(m, normalize(at(call.Q, t, q*k, k))) {
					row[head*v+i] = float64(cfg.Scale) * y
				}
			}
		}
		out = append(out, row...)
	}
	return out
}

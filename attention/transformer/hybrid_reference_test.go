package transformer

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/weights/weightstest"
)

// reference computes a hybrid token by token in float64, by loops and the published names:
// independent of all of this module's operators.
type reference struct {
	text string // config.json
	cfg  map[string]any
	w    weightstest.State // without what stands before names
}

func newReference(t testing.TB, config string, w weightstest.State) *reference {
	t.Helper()
	r := &reference{text: config}
	must(t, json.Unmarshal([]byte(config), &r.cfg))
	r.w = w.Renamed(func(name string) string {
		return strings.TrimPrefix(strings.TrimPrefix(name, "model."), "backbone.")
	})
	return r
}

type vector = []float64

func (r *reference) number(key string, otherwise float64) float64 {
	if v, ok := r.cfg[key].(float64); ok {
		return v
	}
	return otherwise
}

func (r *reference) int(key string) int { return int(r.number(key, 0)) }

func (r *reference) vec(name string) (x vector) {
	for _, v := range r.w[name].Data {
		x = append(x, float64(v))
	}
	return x
}

// linear returns W x + b, of a matrix that may be one of several in a tensor.
func (r *reference) linear(name string, x vector, part ...int) (y vector) {
	t, ok := r.w[name+".weight"]
	if !ok {
		t = r.w[name]
	}
	rows, data := t.Shape[0], t.Data
	if len(part) > 0 {
		rows = t.Shape[1]
		data = data[part[0]*rows*len(x):]
	}
	bias := r.vec(name + ".bias")
	for o := range rows {
		sum := 0.0
		for i, v := range x {
			sum += float64(data[o*len(x)+i]) * v
		}
		if bias != nil {
			sum += bias[o]
		}
		y = append(y, sum)
	}
	return y
}

func rms(x, w vector, eps float64) (y vector) {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	for i, v := range x {
		v /= math.Sqrt(sum/float64(len(x)) + eps)
		if w != nil {
			v *= w[i]
		}
		y = append(y, v)
	}
	return y
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
func silu(x float64) float64    { return x * sigmoid(x) }
func softplus(x float64) float64 {
	if x > 30 {
		return x
	}
	return math.Log1p(math.Exp(x))
}

func times(x vector, by float64) (y vector) {
	for _, v := range x {
		y = append(y, v*by)
	}
	return y
}

func plus(x, y vector) (z vector) {
	for i, v := range x {
		z = append(z, v+y[i])
	}
	return z
}

// each applies f to all rows.
func each(x []vector, f func(vector) vector) (y []vector) {
	for _, v := range x {
		y = append(y, f(v))
	}
	return y
}

// convolve returns silu of the causal convolution of each channel.
func (r *reference) convolve(name string, x []vector) (y []vector) {
	w, bias := r.vec(name+".weight"), r.vec(name+".bias")
	taps := len(w) / len(x[0])
	for t := range x {
		row := make(vector, len(x[t]))
		for c := range row {
			if bias != nil {
				row[c] = bias[c]
			}
			for k := range taps {
				if at := t - (taps - 1) + k; at >= 0 {
					row[c] += w[c*taps+k] * x[at][c]
				}
			}
			row[c] = silu(row[c])
		}
		y = append(y, row)
	}
	return y
}

// mamba2 are the numbers of a block of Mamba-2.
type mamba2 struct {
	heads, wide, groups, states, normGroups int
	noNorm, normFirst                       bool
	eps, in, out                            float64
	by                                      [5]float64 // of z, x, B, C, dt
	limit                                   [2]float64
}

func (r *reference) mamba2(prefix string, m mamba2, x []vector) (y []vector) {
	inner, shared := m.heads*m.wide, m.groups*m.states
	var z, xbc, dt []vector
	for _, v := range x {
		u := r.linear(prefix+"in_proj", times(v, m.in))
		at := 0
		for i, n := range []int{inner, inner, shared, shared, m.heads} {
			for range n {
				u[at] *= m.by[i]
				at++
			}
		}
		z, xbc, dt = append(z, u[:inner]), append(xbc, u[inner:2*inner+2*shared]), append(dt, u[2*inner+2*shared:])
	}
	xbc = r.convolve(prefix+"conv1d", xbc)
	a, bias, d, norm := r.vec(prefix+"A_log"), r.vec(prefix+"dt_bias"), r.vec(prefix+"D"), r.vec(prefix+"norm.weight")
	h := make(vector, inner*m.states)
	for t := range x {
		o := make(vector, inner)
		for j := range m.heads {
			step := min(max(softplus(dt[t][j]+bias[j]), m.limit[0]), m.limit[1])
			group := j / (m.heads / m.groups) * m.states
			for p := range m.wide {
				c := j*m.wide + p
				for n := range m.states {
					s := &h[c*m.states+n]
					*s = *s*math.Exp(-math.Exp(a[j])*step) + step*xbc[t][inner+group+n]*xbc[t][c]
					o[c] += xbc[t][inner+shared+group+n] * *s
				}
				o[c] += d[j] * xbc[t][c]
			}
		}
		for c := range o {
			if !m.normFirst {
				o[c] *= silu(z[t][c])
			}
		}
		if !m.noNorm {
			part := inner / m.normGroups
			for g := range m.normGroups {
				copy(o[g*part:], rms(o[g*part:(g+1)*part], norm[g*part:(g+1)*part], m.eps))
			}
		}
		for c := range o {
			if m.normFirst {
				o[c] *= silu(z[t][c])
			}
		}
		y = append(y, times(r.linear(prefix+"out_proj", o), m.out))
	}
	return y
}

// mamba1 is a block of Mamba with norms of dt, B and C.
func (r *reference) mamba1(prefix string, states, rank int, eps float64, x []vector) (y []vector) {
	var xs, zs []vector
	for _, v := range x {
		u := r.linear(prefix+"in_proj", v)
		xs, zs = append(xs, u[:len(u)/2]), append(zs, u[len(u)/2:])
	}
	xs = r.convolve(prefix+"conv1d", xs)
	inner := len(xs[0])
	a, d := r.vec(prefix+"A_log"), r.vec(prefix+"D")
	h := make(vector, inner*states)
	for t := range x {
		u := r.linear(prefix+"x_proj", xs[t])
		dt := r.linear(prefix+"dt_proj", rms(u[:rank], r.vec(prefix+"dt_layernorm.weight"), eps))
		b := rms(u[rank:rank+states], r.vec(prefix+"b_layernorm.weight"), eps)
		c := rms(u[rank+states:], r.vec(prefix+"c_layernorm.weight"), eps)
		o := make(vector, inner)
		for i := range o {
			step := softplus(dt[i])
			for n := range states {
				s := &h[i*states+n]
				*s = *s*math.Exp(-math.Exp(a[i*states+n])*step) + step*b[n]*xs[t][i]
				o[i] += c[n] * *s
			}
			o[i] = (o[i] + d[i]*xs[t][i]) * silu(zs[t][i])
		}
		y = append(y, r.linear(prefix+"out_proj", o))
	}
	return y
}

// attention are the numbers of a layer of attention.
type attentionNumbers struct {
	heads, kvHeads, wide, rotary int
	scale, theta, in, out, key   float64
}

func (r *reference) attention(prefix string, m attentionNumbers, x []vector) []vector {
	return r.normedAttention(prefix, m, 0, x)
}

// normedAttention norms all heads of queries and keys together, where there are norms.
func (r *reference) normedAttention(prefix string, m attentionNumbers, eps float64, x []vector) (y []vector) {
	var keys, values []vector
	rotate := func(x vector, t int) {
		half := m.rotary / 2
		for at := 0; at < len(x); at += m.wide {
			for i := range half {
				angle := float64(t) * math.Pow(m.theta, -2*float64(i)/float64(m.rotary))
				a, b := x[at+i], x[at+half+i]
				x[at+i], x[at+half+i] = a*math.Cos(angle)-b*math.Sin(angle), b*math.Cos(angle)+a*math.Sin(angle)
			}
		}
	}
	for t, v := range x {
		v = times(v, m.in)
		q, k := r.linear(prefix+"q_proj", v), times(r.linear(prefix+"k_proj", v), m.key)
		if norm := r.vec(prefix + "q_norm.weight"); norm != nil {
			q, k = rms(q, norm, eps), rms(k, r.vec(prefix+"k_norm.weight"), eps)
		}
		rotate(q, t)
		rotate(k, t)
		keys, values = append(keys, k), append(values, r.linear(prefix+"v_proj", v))
		o := make(vector, len(q))
		for h := range m.heads {
			kv := h / (m.heads / m.kvHeads) * m.wide
			p, sum := make(vector, t+1), 0.0
			for s := range p {
				for i := range m.wide {
					p[s] += q[h*m.wide+i] * keys[s][kv+i]
				}
				p[s] = math.Exp(p[s] * m.scale)
				sum += p[s]
			}
			for s := range p {
				for i := range m.wide {
					o[h*m.wide+i] += p[s] / sum * values[s][kv+i]
				}
			}
		}
		y = append(y, times(r.linear(prefix+"o_proj", o), m.out))
	}
	return y
}

// gated is down(act(gate x) up x), with multipliers.
func (r *reference) gated(prefix string, x vector, gate, down float64) vector {
	g, u := times(r.linear(prefix+"gate_proj", x), gate), r.linear(prefix+"up_proj", x)
	for i := range u {
		u[i] *= silu(g[i])
	}
	return times(r.linear(prefix+"down_proj", u), down)
}

// halves is the same where gate and input are one matrix, or one of several.
func (r *reference) halves(in, out string, x vector, part ...int) vector {
	u := r.linear(in, x, part...)
	n := len(u) / 2
	for i := range n {
		u[i] = silu(u[i]) * u[n+i]
	}
	return r.linear(out, u[:n], part...)
}

// squared is down(relu(up x)^2).
func (r *reference) squared(prefix string, x vector) vector {
	u := r.linear(prefix+"up_proj", x)
	for i, v := range u {
		u[i] = max(v, 0) * max(v, 0)
	}
	return r.linear(prefix+"down_proj", u)
}

// largest returns the indices of the k largest elements.
func largestOf(x vector, k int) (list []int) {
	x = append(vector(nil), x...)
	for range k {
		best := 0
		for i, v := range x {
			if v > x[best] {
				best = i
			}
		}
		list = append(list, best)
		x[best] = math.Inf(-1)
	}
	return list
}

func softmax(x vector) (y vector) {
	sum := 0.0
	for _, v := range x {
		y = append(y, math.Exp(v))
		sum += math.Exp(v)
	}
	return times(y, 1/sum)
}

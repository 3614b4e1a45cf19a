package kvcache

import (
	"fmt"
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// ExpectedAttention holds the tokens that queries to come are expected to weigh most
// (Devoto et al. 2025, arXiv 2510.00636): queries are taken to be normal, with the mean mu
// and covariance Sigma of the last Window ones before their rotation, and to come at the
// next 512 positions, over which the rotation's matrix has the mean R:
//
//	s = softmax over tokens of (R mu . k / sqrt(D) + k^T R Sigma R^T k / (2 D)),
//
// mean over the query heads of a key head, plus Eps, times |v|. The first four tokens
// stay; their queries do not count. 1/sqrt(D) stands for Config.Scale. It needs keys that
// are held at their positions.
type ExpectedAttention struct {
	// Budget is how many tokens a key head holds, Keep and Recent among them.
	Budget int
	// Window is how many last queries are held for it; 0 stands for 4,096.
	Window int
	// Eps is added to a token's score before that is multiplied; 0 adds nothing.
	Eps float64
}

// expectedAhead is how many positions queries are expected at.
const expectedAhead = 512

// describe says what it was before Eps had its name, so that states are theirs.
func (p ExpectedAttention) describe() string {
	return fmt.Sprintf("kvcache.ExpectedAttention{Budget:%d Window:%d Epsilon:%v}", p.Budget, p.Window, p.Eps)
}

func (p ExpectedAttention) window() int {
	if p.Window == 0 {
		return 4096
	}
	return p.Window
}

func (p ExpectedAttention) check(cfg *Config) error {
	switch {
	case p.Window < 0 || p.Window > 1<<24:
		return check.Errorf(ErrConfig, "kvcache: ExpectedAttention.Window is %d, want 0 to 2^24", p.Window)
	case !(p.Eps >= 0) || math.IsInf(p.Eps, 0):
		return check.Errorf(ErrConfig, "kvcache: ExpectedAttention.Eps is %v, want 0 or more", p.Eps)
	case cfg.Rotation != nil && cfg.Positions != AtOrigin:
		return check.Errorf(ErrConfig, "kvcache: ExpectedAttention with Positions %d, want AtOrigin", cfg.Positions)
	}
	return checkBudget("ExpectedAttention", p.Budget, cfg)
}

func (p ExpectedAttention) rule(*Config) rule {
	return rule{budget: p.Budget, queries: p.window(), raw: true}
}

func (p ExpectedAttention) score(dst [][]float32, o *Observation) error {
	d, group, scale := o.cfg.HeadDim, o.group(), float64(o.cfg.Scale)
	from := 0
	if o.s != nil {
		from = min(max(0, sinkTokens-(o.s.n-o.Queries.Rows)), o.Queries.Rows)
	}
	q := mat.Rows(o.Queries, from, o.Queries.Rows)
	turn := o.meanRotation()
	for g, x := range dst {
		k, v := o.Keys(g), o.Values(g)
		clear(x)
		s := o.vector(len(x))
		for h := range group {
			floats, doubles := o.taken()
			mean, cov := o.moments(mat.Columns(q, (g*group+h)*d, d).Data, q.Rows, q.Stride, d)
			mean, cov = o.turned(turn, mean, cov, d)
			for i := range s {
				key := mat.Row(k, i)
				dot, form := 0.0, 0.0
				for a := range d {
					dot += mean[a] * float64(key[a])
					sum := 0.0
					for b := range d {
						sum += cov[a*d+b] * float64(key[b])
					}
					form += float64(key[a]) * sum
				}
				s[i] = float32(scale*dot + scale*scale*form/2)
			}
			asm.Softmax(s, s)
			asm.Axpy(x, 1/float32(group), s)
			o.release(floats, doubles)
		}
		for i := range x {
			x[i] = (x[i] + float32(p.Eps)) * norm(mat.Row(v, i))
		}
	}
	raiseSinks(dst)
	return nil
}

// raiseSinks gives the first four tokens more than any other has.
func raiseSinks(dst [][]float32) {
	top := float32(0)
	for _, x := range dst {
		for _, v := range x {
			top = max(top, v)
		}
	}
	for _, x := range dst {
		for i := range x[:min(sinkTokens, len(x))] {
			x[i] = top + 1
		}
	}
}

// moments are the mean and covariance (divided by n) of rows of queries.
func (o *Observation) moments(q []float32, n, stride, d int) (mean, cov []float64) {
	mean, cov = o.double(d), o.double(d*d)
	for i := range n {
		for j, v := range q[i*stride:][:d] {
			mean[j] += float64(v) / float64(n)
		}
	}
	for i := range n {
		row := q[i*stride:][:d]
		for a := range d {
			x := (float64(row[a]) - mean[a]) / float64(n)
			for b := range d {
				cov[a*d+b] += x * (float64(row[b]) - mean[b])
			}
		}
	}
	return mean, cov
}

// meanRotation is the mean of the rotation's matrix [D, D] over the positions to come, or
// nil without one.
func (o *Observation) meanRotation() []float64 {
	if o.s == nil || o.s.op.rotation == nil {
		return nil
	}
	d := o.cfg.HeadDim
	m := o.double(d * d)
	unit := o.matrix(1, d*d) // the unit vectors, side by side as heads are
	for p := range expectedAhead {
		mat.Clear(unit)
		for j := range d {
			unit.Data[j*d+j] = 1
		}
		if err := o.s.op.rotation.Rotate(unit, int64(o.s.n+p)); err != nil {
			return nil // positions are those of tokens
		}
		for j := range d {
			for i, v := range unit.Data[j*d : (j+1)*d] {
				m[i*d+j] += float64(v) / expectedAhead
			}
		}
	}
	return m
}

// turned returns R mean and R cov R^T.
func (o *Observation) turned(r, mean, cov []float64, d int) (a, b []float64) {
	if r == nil {
		return mean, cov
	}
	a, b = o.double(d), o.double(d*d)
	half := o.double(d * d)
	for i := range d {
		for j := range d {
			a[i] += r[i*d+j] * mean[j]
			for l := range d {
				half[i*d+l] += r[i*d+j] * cov[j*d+l]
			}
		}
	}
	for i := range d {
		for j := range d {
			for l := range d {
				b[i*d+j] += half[i*d+l] * r[j*d+l]
			}
		}
	}
	return a, b
}

// FINCH is SnapKV whose window is the question at the prompt's end, Window tokens, with
// more weight on earlier of its queries: query i's weights are multiplied by the number of
// tokens that it sees, so that all count alike; mean over the query heads of a key head,
// without pooling (Corallo and Papotti 2024, arXiv 2408.00167). With Positions InCache what
// is kept closes up, as published.
type FINCH struct {
	// Budget is how many tokens a key head holds, the window, Keep and Recent among them.
	Budget int
	// Window is how many tokens the question has.
	Window int
}

func (p FINCH) check(cfg *Config) error {
	if p.Window < 1 || p.Window > p.Budget || p.Window > 1<<20 {
		return check.Errorf(ErrConfig, "kvcache: FINCH.Window is %d, want 1 to Budget = %d", p.Window, p.Budget)
	}
	return checkBudget("FINCH", p.Budget, cfg)
}

func (p FINCH) rule(*Config) rule { return rule{budget: p.Budget, queries: p.Window} }

func (p FINCH) score(dst [][]float32, o *Observation) error {
	w := min(p.Window, o.Queries.Rows)
	weights := windowWeights(o, w)
	top := float32(0)
	for g, x := range dst {
		clear(x)
		past := max(0, len(x)-w)
		for _, m := range weights[g*o.group() : (g+1)*o.group()] {
			for i := range m.Rows {
				asm.Axpy(x[:past], float32(past+i)/float32(o.group()), mat.Row(m, i)[:past])
			}
		}
		for _, v := range x[:past] {
			top = max(top, v)
		}
	}
	for _, x := range dst {
		for i := max(0, len(x)-w); i < len(x); i++ {
			x[i] = top + 1
		}
	}
	return nil
}

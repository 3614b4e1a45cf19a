package kvcache

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// CUR holds the tokens that a CUR decomposition of keys and values would take (Sengupta et
// al. 2025, arXiv 2509.15038): |k|^2 and |v|^2, each divided by its sum in stretches of 16
// tokens, multiplied with each other. The first four tokens stay.
type CUR struct {
	// Budget is how many tokens a key head holds, Keep and Recent among them.
	Budget int
}

func (p CUR) check(cfg *Config) error { return checkBudget("CUR", p.Budget, cfg) }
func (p CUR) rule(*Config) rule       { return rule{budget: p.Budget} }

func (CUR) score(dst [][]float32, o *Observation) error {
	const stretch = 16
	for g, x := range dst {
		k, v := o.Keys(g), o.Values(g)
		a, b := o.vector(len(x)), o.vector(len(x))
		for i := range x {
			a[i], b[i] = asm.Dot(mat.Row(k, i), mat.Row(k, i)), asm.Dot(mat.Row(v, i), mat.Row(v, i))
		}
		total := 0.0
		for at := 0; at < len(x); at += stretch {
			to := min(at+stretch, len(x))
			sa, sb := asm.Sum(a[at:to]), asm.Sum(b[at:to])
			for i := at; i < to; i++ {
				if x[i] = 0; sa > 0 && sb > 0 {
					x[i] = a[i] / sa * (b[i] / sb)
				}
				total += float64(x[i])
			}
		}
		for i := range x {
			if total > 0 {
				x[i] /= float32(total)
			}
			if i < sinkTokens {
				x[i] = 1
			}
		}
	}
	return nil
}

// Leverage holds the tokens whose centred keys are least like combinations of the others
// (approximate leverage scores; kvpress): with X the keys times a sketch of 48 columns of
// random numbers, the diagonal of X (X^T X + 0.01 I)^-1 X^T, as deviations from its mean.
// Keys that are held rotated are taken so.
type Leverage struct {
	// Budget is how many tokens a key head holds, Keep and Recent among them.
	Budget int
}

func (p Leverage) check(cfg *Config) error { return checkBudget("Leverage", p.Budget, cfg) }
func (p Leverage) rule(*Config) rule       { return rule{budget: p.Budget} }

// Of Leverage: columns of the sketch, and what is added to the diagonal.
const (
	sketchColumns = 48
	sketchJitter  = 0.01
)

func (Leverage) score(dst [][]float32, o *Observation) error {
	for g, x := range dst {
		o.leverage(x, o.Keys(g))
		standardise(x)
	}
	return nil
}

// leverage sets dst to the leverage scores of keys.
func (o *Observation) leverage(dst []float32, k blas32.General) {
	n, d, c := k.Rows, k.Cols, min(sketchColumns, k.Cols)
	mean := o.vector(d)
	for i := range n {
		asm.Axpy(mean, 1/float32(n), mat.Row(k, i))
	}
	sketch, seed := o.matrix(d, c), uint64(0x9E3779B97F4A7C15)
	for i := range sketch.Data {
		sum := 0.0
		for range 12 { // a sum of twelve uniform numbers is nearly normal
			seed ^= seed << 13
			seed ^= seed >> 7
			seed ^= seed << 17
			sum += float64(seed>>11) * 0x1p-53
		}
		sketch.Data[i] = float32((sum - 6) / math.Sqrt(float64(c)))
	}
	centred, x := o.matrix(n, d), o.matrix(n, c)
	for i := range n {
		for j, v := range mat.Row(k, i) {
			mat.Row(centred, i)[j] = v - mean[j]
		}
	}
	packed := &o.room().packed
	packed.Set(sketch)
	asm.Gemm(x, centred, packed, nil)
	// A Cholesky factor L of X^T X + jitter: the score of a row r is |L^-1 r|^2.
	l := o.double(c * c)
	for a := range c {
		for b := range a + 1 {
			sum := 0.0
			for i := range n {
				sum += float64(mat.Row(x, i)[a]) * float64(mat.Row(x, i)[b])
			}
			if a == b {
				sum += sketchJitter
			}
			for j := range b {
				sum -= l[a*c+j] * l[b*c+j]
			}
			if a == b {
				l[a*c+a] = math.Sqrt(max(sum, 1e-12))
			} else {
				l[a*c+b] = sum / l[b*c+b]
			}
		}
	}
	y := o.double(c)
	for i := range dst {
		sum := 0.0
		for a := range c {
			v := float64(mat.Row(x, i)[a])
			for j := range a {
				v -= l[a*c+j] * y[j]
			}
			y[a] = v / l[a*c+a]
			sum += y[a] * y[a]
		}
		dst[i] = float32(sum)
	}
}

// standardise makes scores deviations from their mean, in standard deviations, over all
// lists together.
func standardise(lists ...[]float32) {
	var sum, square, n float64
	for _, x := range lists {
		for _, v := range x {
			sum += float64(v)
			n++
		}
	}
	mean := sum / max(n, 1)
	for _, x := range lists {
		for _, v := range x {
			square += (float64(v) - mean) * (float64(v) - mean)
		}
	}
	deviation := math.Sqrt(square / max(n-1, 1))
	for _, x := range lists {
		for i, v := range x {
			x[i] = float32((float64(v) - mean) / max(deviation, 1e-30))
		}
	}
}

// NonCausal holds the tokens that the queries of their own chunk of 256 weigh most, those
// before them included (kvpress's non-causal attention): softmax of q.k unscaled, not
// causal, within the last Window tokens cut in chunks of 256, summed over queries, mean
// over the query heads of a key head, times |v|, averaged over three neighbours, and put
// as deviations from the mean of all heads. Tokens before the window get the least score.
// The last chunk counts no tokens that are not there.
type NonCausal struct {
	// Budget is how many tokens a key head holds, Keep and Recent among them.
	Budget int
	// Window is how many last tokens' queries are held for it; 0 stands for 4,096.
	Window int
}

const nonCausalChunk = 256

func (p NonCausal) window() int {
	if p.Window == 0 {
		return 4096
	}
	return p.Window
}

func (p NonCausal) check(cfg *Config) error {
	if p.Window < 0 || p.Window > 1<<24 {
		return check.Errorf(ErrConfig, "kvcache: NonCausal.Window is %d, want 0 to 2^24", p.Window)
	}
	return checkBudget("NonCausal", p.Budget, cfg)
}

func (p NonCausal) rule(*Config) rule { return rule{budget: p.Budget, queries: p.window()} }

func (NonCausal) score(dst [][]float32, o *Observation) error {
	d, group := o.cfg.HeadDim, o.group()
	m := o.room()
	m.ranks = scratch.Sized(m.ranks, len(dst))
	first := m.ranks
	for g, x := range dst {
		k, v := o.Keys(g), o.Values(g)
		w := min(o.Queries.Rows, len(x))
		first[g] = len(x) - w
		sums, pooled := o.vector(w), o.vector(w)
		for at := 0; at < w; at += nonCausalChunk {
			to := min(at+nonCausalChunk, w)
			keys := o.transposed(mat.Rows(k, first[g]+at, first[g]+to))
			for h := range group {
				q := mat.Rows(mat.Columns(o.Queries, (g*group+h)*d, d), o.Queries.Rows-w+at, o.Queries.Rows-w+to)
				floats, doubles := o.taken()
				p := o.matrix(to-at, to-at)
				asm.Gemm(p, q, keys, nil)
				for i := range p.Rows {
					asm.Softmax(mat.Row(p, i), mat.Row(p, i))
					asm.Axpy(sums[at:to], 1/float32(group), mat.Row(p, i))
				}
				o.release(floats, doubles)
			}
		}
		for i := range sums {
			sums[i] *= norm(mat.Row(v, first[g]+i))
		}
		pool(pooled, sums, 3, AveragePool)
		copy(x[first[g]:], pooled)
	}
	m.lists = scratch.Sized(m.lists, len(dst))
	rest := m.lists
	defer clear(rest)
	for g, x := range dst {
		rest[g] = x[first[g]:]
	}
	standardise(rest...)
	for g, x := range dst {
		for i := range x[:first[g]] {
			x[i] = -math.MaxFloat32
		}
	}
	return nil
}

// Compactor adds Leverage, times Blend, to NonCausal, and keeps the first eight and the
// last four tokens (kvpress).
type Compactor struct {
	// Budget is how many tokens a key head holds, Keep and Recent among them.
	Budget int
	// Blend is what Leverage's score is multiplied by; 0 stands for 0.3.
	Blend float64
	// Window is NonCausal's.
	Window int
}

func (p Compactor) check(cfg *Config) error {
	if math.IsNaN(p.Blend) || math.IsInf(p.Blend, 0) {
		return check.Errorf(ErrConfig, "kvcache: Compactor.Blend is %v", p.Blend)
	}
	if p.Budget < 12 {
		return check.Errorf(ErrConfig, "kvcache: Compactor.Budget is %d, want at least 12: eight first and four last tokens", p.Budget)
	}
	return NonCausal{Budget: p.Budget, Window: p.Window}.check(cfg)
}

func (p Compactor) rule(cfg *Config) rule {
	return NonCausal{Budget: p.Budget, Window: p.Window}.rule(cfg)
}

func (p Compactor) score(dst [][]float32, o *Observation) error {
	if err := (NonCausal{}).score(dst, o); err != nil {
		return err
	}
	blend := p.Blend
	if blend == 0 {
		blend = 0.3
	}
	for g, x := range dst {
		own := o.vector(len(x))
		o.leverage(own, o.Keys(g))
		standardise(own)
		asm.Axpy(x, float32(blend), own)
		for i := range x {
			if i < 8 || i >= len(x)-4 {
				x[i] = math.MaxFloat32
			}
		}
	}
	return nil
}

package rope

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"
)

// FIREConfig are the parameters of FIRE.
type FIREConfig struct {
	// W1 and B1 are the hidden layer of the MLP, [hidden] each.
	W1, B1 []float64
	// W2 is [hidden, heads] and B2 [heads].
	W2, B2 []float64
	// C is c, above 0, and Threshold is L, 0 or more.
	C, Threshold float64
}

// FIRE is the bias
//
//	mlp_h(t),  t = log(c |i-j| + 1) / log(c max(i, L) + 1),
//
// of a query at position i and a key at position j, mlp_h(t) = sum over u of
// W2[u][h] relu(W1[u] t + B1[u]) + B2[h] (Li et al. 2023, arXiv 2310.04418, the
// formula taken from memory). Positions count from 0; t is 0 where the
// denominator is. The MLP need not decay, so that Reach looks at its values.
type FIRE struct {
	cfg FIREConfig
	// breaks are the places in (0, inf) where a hidden unit turns on or off: between
	// them each head is linear.
	breaks []float64
}

// NewFIRE returns the bias, or an error that matches ErrConfig.
func NewFIRE(cfg FIREConfig) (*FIRE, error) {
	hidden, heads := len(cfg.W1), len(cfg.B2)
	switch {
	case hidden == 0 || len(cfg.B1) != hidden:
		return nil, configErrorf("W1 has %d elements and B1 %d, want the same number above 0", hidden, len(cfg.B1))
	case heads == 0 || len(cfg.W2) != hidden*heads:
		return nil, configErrorf("W2 has %d elements, want len(W1)*len(B2) = %d*%d, above 0", len(cfg.W2), hidden, heads)
	}
	if err := first(positive("C", cfg.C), notNegative("Threshold", cfg.Threshold)); err != nil {
		return nil, err
	}
	copied := FIREConfig{C: cfg.C, Threshold: cfg.Threshold}
	for _, l := range []struct {
		name string
		to   *[]float64
		list []float64
	}{{"W1", &copied.W1, cfg.W1}, {"B1", &copied.B1, cfg.B1}, {"W2", &copied.W2, cfg.W2}, {"B2", &copied.B2, cfg.B2}} {
		for i, v := range l.list {
			if !finite(v) {
				return nil, configErrorf("%s[%d] is %v", l.name, i, v)
			}
		}
		*l.to = append([]float64{}, l.list...)
	}
	f := &FIRE{cfg: copied}
	for u, w := range copied.W1 {
		if at := -copied.B1[u] / w; at > 0 && finite(at) {
			f.breaks = append(f.breaks, at)
		}
	}
	return f, nil
}

// Heads returns for how many heads there are biases.
func (f *FIRE) Heads() int { return len(f.cfg.B2) }

func (f *FIRE) mlp(head int, t float64) float64 {
	heads := len(f.cfg.B2)
	sum := f.cfg.B2[head]
	for u, w := range f.cfg.W1 {
		if v := w*t + f.cfg.B1[u]; v > 0 {
			sum += f.cfg.W2[u*heads+head] * v
		}
	}
	return sum
}

// scale is the denominator of t.
func (f *FIRE) scale(query int64) float64 {
	return math.Log1p(f.cfg.C * max(float64(query), f.cfg.Threshold))
}

func (f *FIRE) t(distance, scale float64) float64 {
	if scale == 0 {
		return 0
	}
	return math.Log1p(f.cfg.C*distance) / scale
}

// AddTo implements [Bias]. It costs a logarithm and 2 hidden flop for each element.
func (f *FIRE) AddTo(s blas32.General, head int, query, key int64) {
	for i := range s.Rows {
		row := s.Data[i*s.Stride:][:s.Cols]
		at := query + int64(i)
		scale := f.scale(at)
		for j := range row {
			row[j] += float32(f.mlp(head, f.t(math.Abs(float64(at-key-int64(j))), scale)))
		}
	}
}

// Most implements [Bias]: the largest value of the MLP between the smallest t and
// the largest.
func (f *FIRE) Most(head int, query, key int64, queries, keys int) float32 {
	if queries <= 0 || keys <= 0 {
		return float32(math.Inf(-1))
	}
	lastQuery, lastKey := query+int64(queries)-1, key+int64(keys)-1
	farthest := max(lastQuery-key, lastKey-query)
	// Room for the rounding of t.
	low := f.t(float64(gap(query, key, queries, keys)), f.scale(lastQuery)) * (1 - 1e-12)
	high := f.t(float64(farthest), f.scale(query)) * (1 + 1e-12)
	if f.scale(query) == 0 { // t of the first queries is 0
		low = 0
		high = max(high, f.t(float64(farthest), f.scale(query+1))*(1+1e-12))
	}
	return up(f.most(head, low, high))
}

// most is the largest value of a head on [low, high].
func (f *FIRE) most(head int, low, high float64) float64 {
	most := max(f.mlp(head, low), f.mlp(head, high))
	for _, b := range f.breaks {
		if b > low && b < high {
			most = max(most, f.mlp(head, b))
		}
	}
	return most
}

// up rounds to a float32 that is not smaller, with room for rounding errors.
func up(v float64) float32 {
	return math.Nextafter32(float32(v+1e-12*math.Abs(v)), float32(math.Inf(1)))
}

// Reach implements [Decaying] for keys from position 0 to the query's. It is
// math.MaxInt64 where even the first key may count.
func (f *FIRE) Reach(head int, query int64, spread, eps float64) int64 {
	limit := math.Log(eps) - spread + f.mlp(head, 0)
	scale := f.scale(query)
	last := f.t(float64(query), scale)
	negligible := func(d int64) bool {
		return f.most(head, f.t(float64(d), scale)*(1-1e-12), last*(1+1e-12)) <= limit-1e-9*math.Abs(limit)
	}
	if query <= 0 || !negligible(query) {
		return math.MaxInt64
	}
	low, high := int64(0), query // negligible from high on
	for low < high {
		if mid := low + (high-low)/2; negligible(mid) {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return high
}

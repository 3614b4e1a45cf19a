package rope

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
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
	c, threshold float64
	heads        int
	// breaks are the t above 0, in order, where a hidden unit turns on or off. Between
	// them each head is linear: pieces is [len(breaks)+1, heads].
	breaks []float64
	pieces []piece
}

// piece is slope t + offset.
type piece struct{ slope, offset float64 }

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
	for _, l := range []struct {
		name string
		list []float64
	}{{"W1", cfg.W1}, {"B1", cfg.B1}, {"W2", cfg.W2}, {"B2", cfg.B2}} {
		for i, v := range l.list {
			if !finite(v) {
				return nil, configErrorf("%s[%d] is %v", l.name, i, v)
			}
		}
	}
	f := &FIRE{c: cfg.C, threshold: cfg.Threshold, heads: heads}
	for u, w := range cfg.W1 {
		if at := -cfg.B1[u] / w; at > 0 && finite(at) {
			f.breaks = append(f.breaks, at)
		}
	}
	slices.Sort(f.breaks)
	for k := range len(f.breaks) + 1 {
		within := 0.0 // a place in the piece
		switch {
		case len(f.breaks) == 0:
		case k == 0:
			within = f.breaks[0] / 2
		case k == len(f.breaks):
			within = 2 * f.breaks[k-1]
		default:
			within = f.breaks[k-1]/2 + f.breaks[k]/2
		}
		for h := range heads {
			p := piece{0, cfg.B2[h]}
			for u, w := range cfg.W1 {
				if v := w*within + cfg.B1[u]; v > 0 || v == 0 && w > 0 {
					p.slope += cfg.W2[u*heads+h] * w
					p.offset += cfg.W2[u*heads+h] * cfg.B1[u]
				}
			}
			f.pieces = append(f.pieces, p)
		}
	}
	return f, nil
}

// Heads returns for how many heads there are biases; 1 is for any number.
func (f *FIRE) Heads() int { return f.heads }

// piece is a head's k-th.
func (f *FIRE) piece(k, head int) piece {
	if f.heads == 1 {
		return f.pieces[k]
	}
	return f.pieces[k*f.heads+head]
}

func (f *FIRE) mlp(head int, t float64) float64 {
	k, _ := slices.BinarySearch(f.breaks, t)
	p := f.piece(k, head)
	return float64(p.slope*t) + p.offset
}

// denominator is that of t.
func (f *FIRE) denominator(query int64) float64 {
	return math.Log1p(f.c * max(float64(query), f.threshold))
}

func (f *FIRE) t(distance, scale float64) float64 {
	if scale == 0 {
		return 0
	}
	return math.Log1p(f.c*distance) / scale
}

// AddTo implements [Bias]. It costs a few flop for each element, and a logarithm
// for each distance in a square of 128 x 128.
func (f *FIRE) AddTo(s blas32.General, head int, query, key int64) {
	blocks(s, query, key, func(s blas32.General, query, key int64) {
		var buffer [2*block - 1]float64
		logs := buffer[:s.Rows+s.Cols-1] // from the last row's first column to the first row's last
		for i := range logs {
			logs[i] = math.Log1p(f.c * distance(query+int64(s.Rows-1), key+int64(i)))
		}
		k := 0 // the piece; it changes seldom
		for i := range s.Rows {
			row, scale := mat.Row(s, i), f.denominator(query+int64(i))
			own := logs[s.Rows-1-i:]
			for j := range row {
				t := 0.0
				if scale != 0 {
					t = own[j] / scale
				}
				for k > 0 && t <= f.breaks[k-1] {
					k--
				}
				for k < len(f.breaks) && t > f.breaks[k] {
					k++
				}
				p := f.piece(k, head)
				row[j] += float32(float64(p.slope*t) + p.offset)
			}
		}
	})
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
	low := f.t(float64(gap(query, key, queries, keys)), f.denominator(lastQuery)) * (1 - 1e-12)
	high := f.t(float64(farthest), f.denominator(query)) * (1 + 1e-12)
	if f.denominator(query) == 0 { // t of the first queries is 0
		low = 0
		high = max(high, f.t(float64(farthest), f.denominator(query+1))*(1+1e-12))
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
	scale := f.denominator(query)
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

package rope

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
)

// Bias is a term added to attention logits, made tile by tile: the matrix of all
// queries and keys never exists. Implementations are safe for concurrent use and
// allocate nothing.
type Bias interface {
	// AddTo adds to s[i][j] the bias of head between the query at position query+i and the key at position key+j.
	AddTo(s blas32.General, head int, query, key int64)
	// Most returns a number that the bias of no pair in that rectangle of queries x keys exceeds (an upper bound; may be +Inf), so that tiles can be skipped.
	Most(head int, query, key int64, queries, keys int) float32
}

// Decaying is a Bias that can say from where on keys are negligible.
type Decaying interface {
	Bias
	// Reach returns the smallest distance from which on every earlier key, compared
	// with the key at the query's own position, has a weight of at most eps in the
	// softmax of the query at position query: bias + spread <= ln eps. spread is the
	// most by which two logits without the bias differ, 2 max|q| max|k| / sqrt(d).
	// Leaving n such keys out takes at most n*eps of the softmax's mass away, and so
	// changes the output by at most 2 n eps max|v|. It is math.MaxInt64 where there
	// is no such distance.
	Reach(head int, query int64, spread, eps float64) int64
}

// Distance is a bias that depends on the distance |query - key| alone, and does
// not grow with it: ALiBi and KERPLE. Keys after the query get the bias of the
// same distance; masking them is the attention's matter.
type Distance struct {
	name   string
	heads  int
	at     func(head int, distance float64) float64
	invert func(head int, bias float64) float64 // the distance of a bias
}

// NewALiBi returns the bias -slopes[head] |query - key| (Press et al. 2021, arXiv
// 2108.12409). One slope serves all heads. Errors match ErrConfig.
func NewALiBi(slopes []float32) (*Distance, error) {
	if err := checkSlopes("slopes", slopes); err != nil {
		return nil, err
	}
	m := append([]float32{}, slopes...)
	return &Distance{"ALiBi", len(m),
		func(h int, d float64) float64 { return -float64(m[h]) * d },
		func(h int, bias float64) float64 { return -bias / float64(m[h]) }}, nil
}

// ALiBiSlopes returns the published slopes: 2^(-8(h+1)/n) for n heads, a power of
// two; for other n those of the power of two below, then every other one of twice
// that power. heads is 1 to 65,536; for other numbers there are no slopes, and
// NewALiBi returns an error.
func ALiBiSlopes(heads int) []float32 {
	if heads < 1 || heads > maxWidth {
		return nil
	}
	var slopes []float32
	power := 1
	for 2*power <= heads {
		power *= 2
	}
	at := func(h float64) float32 { return float32(math.Exp2(-8 * h / float64(power))) }
	for h := range heads {
		if h < power {
			slopes = append(slopes, at(float64(h+1)))
		} else {
			slopes = append(slopes, at(float64(h-power)+0.5))
		}
	}
	return slopes
}

func checkSlopes(name string, slopes []float32) error {
	if len(slopes) == 0 {
		return configErrorf("%s is empty, want one for each head or one for all", name)
	}
	for i, m := range slopes {
		if !(m >= 0) || math.IsInf(float64(m), 0) {
			return configErrorf("%s[%d] is %v, want a number from 0 on", name, i, m)
		}
	}
	return nil
}

// NewKERPLELog returns the bias -r1 log(1 + r2 |query - key|), KERPLE's
// logarithmic kernel (Chi et al. 2022, arXiv 2205.09921), r1 and r2 by head, above 0. Errors
// match ErrConfig.
func NewKERPLELog(r1, r2 []float64) (*Distance, error) {
	if err := checkKERPLE(r1, r2, math.MaxFloat64); err != nil {
		return nil, err
	}
	a, b := append([]float64{}, r1...), append([]float64{}, r2...)
	return &Distance{"KERPLE, logarithmic", len(a),
		func(h int, d float64) float64 { return -a[h] * math.Log1p(b[h]*d) },
		func(h int, bias float64) float64 { return math.Expm1(-bias/a[h]) / b[h] }}, nil
}

// NewKERPLEPower returns the bias -r1 |query - key|^r2, KERPLE's power kernel, r1
// above 0 and r2 above 0, at most 2. Errors match ErrConfig.
func NewKERPLEPower(r1, r2 []float64) (*Distance, error) {
	if err := checkKERPLE(r1, r2, 2); err != nil {
		return nil, err
	}
	a, b := append([]float64{}, r1...), append([]float64{}, r2...)
	return &Distance{"KERPLE, power", len(a),
		func(h int, d float64) float64 { return -a[h] * math.Pow(d, b[h]) },
		func(h int, bias float64) float64 { return math.Pow(-bias/a[h], 1/b[h]) }}, nil
}

func checkKERPLE(r1, r2 []float64, most float64) error {
	if len(r1) == 0 || len(r1) != len(r2) {
		return configErrorf("r1 has %d elements and r2 %d, want one of each for each head", len(r1), len(r2))
	}
	for i := range r1 {
		if err := first(positive(fmt.Sprintf("r1[%d]", i), r1[i]), positive(fmt.Sprintf("r2[%d]", i), r2[i])); err != nil {
			return err
		}
		if r2[i] > most {
			return configErrorf("r2[%d] is %v, want at most %v", i, r2[i], most)
		}
	}
	return nil
}

// Heads returns for how many heads there are biases; 1 is for any number.
func (b *Distance) Heads() int { return b.heads }

// String names the bias and tells its heads.
func (b *Distance) String() string { return fmt.Sprintf("%s, %d heads", b.name, b.heads) }

func (b *Distance) head(h int) int {
	if b.heads == 1 {
		return 0
	}
	return h
}

// block is the side of the squares in which AddTo goes through a tile: their
// 2 block - 1 distances are computed once each.
const block = 128

// blocks calls f for every such square of s.
func blocks(s blas32.General, query, key int64, f func(s blas32.General, query, key int64)) {
	for i := 0; i < s.Rows; i += block {
		for j := 0; j < s.Cols; j += block {
			part := mat.Columns(mat.Rows(s, i, min(i+block, s.Rows)), j, min(block, s.Cols-j))
			f(part, query+int64(i), key+int64(j))
		}
	}
}

// AddTo implements [Bias]. It costs an addition for each element, and one
// evaluation of the formula for each distance in a square of 128 x 128.
func (b *Distance) AddTo(s blas32.General, head int, query, key int64) {
	h := b.head(head)
	blocks(s, query, key, func(s blas32.General, query, key int64) {
		var buffer [2*block - 1]float32
		biases := buffer[:s.Rows+s.Cols-1] // from the last row's first column to the first row's last
		for i := range biases {
			biases[i] = float32(b.at(h, distance(query+int64(s.Rows-1), key+int64(i))))
		}
		for i := range s.Rows {
			row := mat.Row(s, i)
			asm.Add(row, row, biases[s.Rows-1-i:][:s.Cols])
		}
	})
}

func distance(query, key int64) float64 { return math.Abs(float64(query - key)) }

// Most implements [Bias]: the bias of the smallest distance.
func (b *Distance) Most(head int, query, key int64, queries, keys int) float32 {
	if queries <= 0 || keys <= 0 {
		return float32(math.Inf(-1))
	}
	return float32(b.at(b.head(head), float64(gap(query, key, queries, keys))))
}

// gap is the smallest distance between two ranges of positions.
func gap(query, key int64, queries, keys int) int64 {
	lastQuery, lastKey := query+int64(queries)-1, key+int64(keys)-1
	return max(query-lastKey, key-lastQuery, 0)
}

// Reach implements [Decaying].
func (b *Distance) Reach(head int, _ int64, spread, eps float64) int64 {
	return distanceOf(b.invert(b.head(head), math.Log(eps)-spread))
}

// distanceOf rounds a distance up, with some room for rounding errors.
func distanceOf(d float64) int64 {
	d = math.Ceil(d * (1 + 1e-9))
	if !(d < 1<<63) {
		return math.MaxInt64
	}
	return int64(max(d, 0))
}

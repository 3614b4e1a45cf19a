// Package tile is what operators share that attend tile by tile with
// kernel.AttentionTile: the sizes of tiles, scores that are hidden, and values that
// are not finite.
package tile

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/mat"
)

// Sizes are those of the tiles. Rounding depends on Keys, Rows, Block, StepTile and
// StepKeys, which are the same for every call of a tier; the others change no bit.
type Sizes struct {
	Keys  int // keys in a tile, a multiple of a panel
	Rows  int // query rows in a tile
	Block int // queries for which keys are packed once
	Pack  int // float32 of packed keys and values at a time
	Near  int // of these, as many as the second cache of one who works on them keeps
	Alone int // multiply-adds up to which one goroutine does all

	// Of decoding.
	StepTile  int // keys in a tile
	StepKeys  int // keys, at least, that are summed up by themselves
	StepRows  int // queries times heads at a time
	StepBytes int // of keys or values read in a row
}

// Pad is how many float32 stand between rows of scores, against cache conflicts.
const Pad = 16

var small bool

// Small makes New return small sizes until the function that it returns is called: for
// tests, whose small inputs then cross every border. It is not for concurrent use.
func Small() (end func()) {
	small = true
	return func() { small = false }
}

// New returns the sizes for a tier's tiles, or those of a kernel.SplitTile.
func New(t interface {
	Panel() int
	Rows() int
}) Sizes {
	if small {
		return Sizes{
			Keys: t.Panel(), Rows: t.Rows() + 1, Block: 13, Pack: 1, Near: 1, Alone: 1,
			StepTile: 8, StepKeys: 24, StepRows: 12, StepBytes: 64,
		}
	}
	return Sizes{
		Keys:  256 / t.Panel() * t.Panel(),
		Rows:  192,
		Block: 8192,
		Pack:  9 << 19,
		Near:  isa.SecondCache() / 4 * 3 / 4,
		Alone: 1 << 20,

		StepTile:  256,
		StepKeys:  512,
		StepRows:  512,
		StepBytes: 128 << 10,
	}
}

// NegInf is the score of a key that is not seen.
var NegInf = float32(math.Inf(-1))

// SparseValues is AttentionTile.Values for a tile with NaN or Inf among its values:
// a value whose weight is 0 must not count. o is [rows, whole panels], p the weights
// [rows, keys], v the values as the tile packs them, panels of size keys each, and
// from the first of p's keys among them.
func SparseValues(o, p blas32.General, v []float32, panel, size, from int, factor []float32) {
	for i := range p.Rows {
		row := mat.Row(o, i)
		asm.Scale(row, factor[i], row)
		for j, x := range mat.Row(p, i) {
			if x == 0 {
				continue
			}
			for c := 0; c < o.Cols; c += panel {
				asm.Axpy(row[c:c+panel], x, v[c*size+(from+j)*panel:][:panel])
			}
		}
	}
}

// Finite tells whether there is no NaN and no Inf in x.
func Finite(x []float32) bool {
	for len(x) > 0 {
		n := min(len(x), len(noughts))
		if asm.Dot(x[:n], noughts[:n]) != 0 { // NaN
			return false
		}
		x = x[n:]
	}
	return true
}

// noughts times a value is 0, or NaN where the value is not finite.
var noughts [4096]float32

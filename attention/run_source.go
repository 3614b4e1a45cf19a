package attention

import (
	"fmt"
	"math"
	"sort"
	"strings"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/tile"
)

// source is one set of keys and values: the raw ones, or an Extra's.
type source struct {
	heads   int
	rows    int
	k, v    []blas32.General
	starts  []int // of the segments, in rows
	offsets []int // of the sequences
	weights blas32.General
	visible func(query int64) (from, to int64) // of an Extra

	states []*State // of an Extra, in place of k and v: one for each sequence
	spans  []span   // of what the states hold, of all sequences
	single [1]*State
}

func (s *source) clear() {
	s.heads, s.rows, s.k, s.v, s.visible = 0, 0, nil, nil, nil
	s.starts, s.offsets, s.weights = s.starts[:0], s.offsets[:0], blas32.General{}
	clear(s.spans)
	s.states, s.spans, s.single[0] = nil, s.spans[:0], nil
}

// sourceNames is what a source's arguments are called in errors.
type sourceNames struct{ prefix, weights, offsets, kCols, vCols string }

var (
	rawNames   = sourceNames{"", "LogWeights", "KOffsets", "KVHeads*HeadDim", "KVHeads*ValueDim"}
	extraNames = sourceNames{"Extra.", "Extra.LogWeights", "Extra.Offsets", "Extra.Heads*HeadDim", "Extra.Heads*ValueDim"}
)

// nameOf names one of several matrices.
func (n *sourceNames) nameOf(letter string, i, of int) string {
	if n.prefix == "" && of == 1 {
		return strings.ToLower(letter) // as in Forward
	}
	return fmt.Sprintf("%s%s[%d]", n.prefix, letter, i)
}

// set checks and keeps keys and values.
func (s *source) set(r *forwardRun, names *sourceNames, heads int, k, v []blas32.General, offsets []int, weights blas32.General) error {
	s.clear()
	cfg := &r.op.cfg
	if len(k) != len(v) {
		return check.Errorf(ErrShape, "attention: %sV has %d segments, want as many as K = %d", names.prefix, len(v), len(k))
	}
	for i := range k {
		err := checkSegment(names, "K", i, len(k), k[i], -1, heads*cfg.HeadDim, names.kCols)
		if err == nil {
			err = checkSegment(names, "V", i, len(k), v[i], k[i].Rows, heads*cfg.ValueDim, names.vCols)
		}
		if err != nil {
			return err
		}
		s.starts = append(s.starts, s.rows)
		if s.rows += k[i].Rows; s.rows < 0 {
			return check.Errorf(ErrShape, "attention: %sK has more rows than an int holds", names.prefix)
		}
	}
	if err := s.checkWeights(names, heads, weights); err != nil {
		return err
	}
	sequences := len(r.qOffsets) - 1
	switch {
	case offsets != nil:
		if err := check.Offsets("attention", names.offsets, offsets, s.rows, sequences); err != nil {
			return err
		}
		s.offsets = append(s.offsets, offsets...)
	case sequences != 1:
		return check.Errorf(ErrCall, "attention: %s is missing for %d sequences", names.offsets, sequences)
	default:
		s.offsets = append(s.offsets, 0, s.rows)
	}
	s.heads, s.k, s.v, s.weights = heads, k, v, weights
	return nil
}

// checkWeights checks the shape of log-weights, where they are given.
func (s *source) checkWeights(names *sourceNames, heads int, weights blas32.General) error {
	if !mat.Given(weights) {
		return nil
	}
	cols := weights.Cols
	if cols != 1 {
		cols = heads
	}
	return check.Matrix(ErrShape, "attention", names.weights, weights, s.rows, cols, "1 or the heads of the keys")
}

// checkSegment returns an error unless matrix i of several has a shape.
func checkSegment(names *sourceNames, letter string, i, of int, m blas32.General, rows, cols int, what string) error {
	if check.Matrix(ErrShape, "attention", "", m, rows, cols, what) == nil {
		return nil // without making the name
	}
	return check.Matrix(ErrShape, "attention", names.nameOf(letter, i, of), m, rows, cols, what)
}

// sequence returns the rows of a sequence; there are none without keys.
func (s *source) sequence(b int) (from, to int) {
	if s.heads == 0 {
		return 0, 0
	}
	return s.offsets[b], s.offsets[b+1]
}

// slot is how a tile of one head is packed: keys, values, log-weights.
type slot struct {
	k, v, w int // where they begin
	size    int
}

func (a *Attention) slot() slot {
	keys := a.sizes.Keys
	var s slot
	s.v = a.keysSize()
	s.w = s.v + a.valuesSize()
	s.size = s.w + (keys+15)/16*16
	return s
}

// tileInfo describes a packed tile.
type tileInfo struct {
	finite bool    // no NaN and no Inf among the values
	norm   float32 // of the largest key; with Config.Skip
	weight float32 // the largest log-weight
}

// packTile packs rows from up to to of a head into a slot; wide is memory for keys and
// values of a state that are not float32.
func (s *source) packTile(a *Attention, head, from, to int, dst []float32, wide *[]float32) tileInfo {
	at, d, dv := a.slot(), a.cfg.HeadDim, a.cfg.ValueDim
	info := tileInfo{finite: true, weight: tile.NegInf}
	pack := func(row int, k, v blas32.General) {
		kernel.PrefetchRows(k)
		kernel.PrefetchRows(v)
		if a.split.Split() {
			a.split.PackKeys(dst[at.k:at.v], row-from, k)
			finite := a.split.PackValues(dst[at.v:at.w], a.sizes.Keys, row-from, v)
			info.finite = info.finite && finite
		} else {
			a.tile.PackKeys(dst[at.k:at.v], row-from, k)
			a.tile.PackValues(dst[at.v:at.w], a.sizes.Keys, row-from, v)
		}
		if a.cfg.Skip > 0 {
			for i := range k.Rows {
				x := mat.Row(k, i)
				info.norm = max(info.norm, float32(math.Sqrt(float64(asm.Dot(x, x)))))
			}
		}
	}
	if s.states != nil {
		s.eachSpan(from, to, func(row int, b *block, first, n int) {
			k, v := b.float32Rows(wide, head, first, n, d, dv)
			pack(row, k, v)
		})
	} else {
		seg := sort.SearchInts(s.starts, from+1) - 1
		for row := from; row < to; seg++ {
			first := row - s.starts[seg]
			n := min(s.k[seg].Rows-first, to-row)
			if n <= 0 {
				continue
			}
			pack(row, mat.Columns(mat.Rows(s.k[seg], first, first+n), head*d, d), mat.Columns(mat.Rows(s.v[seg], first, first+n), head*dv, dv))
			row += n
		}
	}
	if w := a.tile.Panel(); !a.split.Split() {
		for c := 0; c < at.w-at.v; c += a.sizes.Keys * w {
			info.finite = info.finite && tile.Finite(dst[at.v+c:][:(to-from)*w])
		}
	}
	info.weight = s.packWeights(dst[at.w:], head, from, to)
	return info
}

// packWeights sets dst to the log-weights of rows from ... to of a head and returns the
// largest; without any, nothing is written.
func (s *source) packWeights(dst []float32, head, from, to int) float32 {
	if !s.weighted() {
		return 0
	}
	dst = dst[:to-from]
	clear(dst)
	s.eachSpan(from, to, func(row int, b *block, first, n int) {
		if len(b.weights) > 0 {
			copy(dst[row-from:], b.logWeights(head, first, n))
		}
	})
	most := tile.NegInf
	for j := range dst {
		if s.weights.Rows > 0 {
			dst[j] += mat.Part(s.weights, from+j, min(head, s.weights.Cols-1), 1)[0]
		}
		most = max(most, dst[j])
	}
	return most
}

package kernel

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/mat"
)

// Nearest is Scores of which only the largest is kept, in each lane of the panels: for
// each row i of q and each lane l, going over panels p of k in order,
//
//	if q[i].k[p][l] > best[i][l]: best[i][l] = q[i].k[p][l], place[i][l] = first + p
//
// with best and place [rows, Panel] without gaps, best beginning with -Inf. The first
// of equal scores of a lane stays, and a score that is NaN is never taken. Places are
// whole numbers below 2^24. best and place must not overlap q, k or each other. It costs
// what Scores costs, and no memory for the scores.
func (t AttentionTile) Nearest(best, place []float32, q blas32.General, k []float32, first, panels int) {
	const op = "kernel: AttentionTile.Nearest"
	w, dim := t.Panel(), q.Cols
	CheckMatrix(op, "q", q, q.Rows, dim)
	CheckLen(op, "best", len(best), q.Rows*w)
	CheckLen(op, "place", len(place), q.Rows*w)
	if first < 0 || panels < 0 || first > maxPlace-panels {
		Panicf("%s: %d panels from %d, want at most %d", op, panels, first, maxPlace)
	}
	CheckAtLeast(op, "k", len(k), panels*w*dim)
	for _, in := range [...][]float32{Extent(q), k[:panels*w*dim]} {
		if mat.OverlapVectors(best, place) || mat.OverlapVectors(best, in) || mat.OverlapVectors(place, in) {
			Panicf("%s: best or place overlaps another", op)
		}
	}
	if dim == 0 { // every score is 0
		for i := range best {
			if panels > 0 && best[i] < 0 {
				best[i], place[i] = 0, float32(first)
			}
		}
		return
	}
	const perCallWork = 1 << 19 // multiply-adds
	for i := 0; i < q.Rows; {
		height := t.height(min(q.Rows-i, max(1, perCallWork/(w*dim))))
		var numbers [64]float32
		perCall := max(1, min(len(numbers), perCallWork/(height*w*dim)))
		for p := 0; p < panels; p += perCall {
			n := min(perCall, panels-p)
			for j := range numbers[:n] {
				numbers[j] = float32(first + p + j)
			}
			t.nearestTile(height, n, dim, q.Data[i*q.Stride:], q.Stride, k[p*w*dim:], best[i*w:], place[i*w:], numbers[:])
		}
		i += height
	}
}

// maxPlace bounds the numbers of panels, so that they are exact as float32.
const maxPlace = 1 << 24

func (t AttentionTile) nearestTile(rows, panels, dim int, q []float32, qStride int, k, best, place, numbers []float32) {
	switch {
	case t.tier == isa.Generic:
		nearestGeneric(rows, panels, dim, q, qStride, k, best, place, numbers)
	case rows == 1:
		nearest1SIMD(t.tier, dim, panels, &q[0], 4*qStride, &k[0], &best[0], &place[0], &numbers[0])
	case rows == 4:
		nearest4SIMD(t.tier, dim, panels, &q[0], 4*qStride, &k[0], &best[0], &place[0], &numbers[0])
	default:
		nearestFullSIMD(t.tier, dim, panels, &q[0], 4*qStride, &k[0], &best[0], &place[0], &numbers[0])
	}
}

func nearestGeneric(rows, panels, dim int, q []float32, qStride int, k, best, place, numbers []float32) {
	const w = genericPanel
	for p := range panels {
		b := quads(k[p*dim*w:][:dim*w])
		for i := 0; i < rows; i += 2 {
			var score [2]quad
			height := min(2, rows-i)
			if height == 2 {
				tile2(&score[0], &score[1], q[i*qStride:], q[(i+1)*qStride:], b)
			} else {
				tile1(&score[0], q[i*qStride:], b)
			}
			for r := range height {
				best, place := (*quad)(best[(i+r)*w:]), (*quad)(place[(i+r)*w:])
				for l, v := range score[r] {
					if v > best[l] {
						best[l], place[l] = v, numbers[p]
					}
				}
			}
		}
	}
}

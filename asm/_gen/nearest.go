package main

import (
	"fmt"

	. "github.com/subquad/subquad/asm/_gen/simd"
)

// nearest is attentionScores that keeps, of all panels, only the largest score of each
// lane and the number of the panel it came from: the scores never leave the registers.
func nearest(rows int) kernel {
	return func(m Machine) {
		height, vectors := tileRows(m, rows), tileVectors(m)
		m.Func(tileName("nearest", rows), "func(dim int, panels int, q *float32, qRow int, k *float32, best *float32, place *float32, number *float32)",
			fmt.Sprintf("for %d rows of q [dim] and panels [dim][%d], where a score is greater than best: best = score, place = number[panel]", height, vectors*m.Lanes()))
		panels, k, number := m.Param("panels"), m.Param("k"), m.Param("number")
		m.Loop(panels, 1, func() {
			acc := zeroTile(m, height)
			tileProduct(m, acc, m.Param("dim"), m.Rows(m.Param("q"), m.Param("qRow"), height), k, func() {})
			best, place, current := m.Param("best"), m.Param("place"), m.SplatAt(At{Base: number})
			for i := range acc {
				for j, score := range acc[i] {
					at := (i*vectors + j) * Bytes(m)
					old, from := m.Load(At{Base: best, Disp: at}, nil), m.Load(At{Base: place, Disp: at}, nil)
					greater := m.Cmp(Greater, score, old)
					m.SetWhere(greater, old, score)
					m.SetWhere(greater, from, current)
					m.Store(At{Base: best, Disp: at}, nil, old)
					m.Store(At{Base: place, Disp: at}, nil, from)
				}
			}
			m.AddImm(number, 4)
		})
		m.End()
	}
}

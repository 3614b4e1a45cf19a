package main

import (
	"fmt"

	. "github.com/subquad/subquad/asm/_gen/simd"
)

// The micro-kernel of matrix multiplication: rows x columns of c in registers,
//
//	c[i][j] = init[i][j] + sum over k of a[i][k] * b[k][j].
//
// b comes in packed panels of vectors*Lanes columns, one row after the other; a
// is read where it stands, through two strides, so that it may be transposed
// and need not be packed. Every element is summed in the order of k whatever
// the number of rows, so a row's result does not depend on its neighbours.

// weight is a storage type of b.
type weight struct {
	suffix string
	bytes  int
	scaled bool
	load   func(Machine, At) Vec
}

var weights = []weight{
	{"Float32", 4, false, func(m Machine, a At) Vec { return m.Load(a, nil) }},
	{"BFloat16", 2, false, Machine.LoadBFloat16},
	{"Int8", 1, true, Machine.LoadInt8},
	{"Float16", 2, false, Machine.LoadFloat16},
}

// gemm makes the kernel for rows rows (0: tileRows) of panels panels.
func gemm(rows, panels int, w weight) kernel {
	return func(m Machine) {
		height := tileRows(m, rows)
		if rows > 4 && (m.Tier() != "AVX512" || w.bytes != 4) {
			return // too few registers for much more than half of a tile
		}
		signature := "func(k int, a *float32, aRow int, aStep int, b *byte, bPanel int, init *float32, initRow int, c *float32, cRow int)"
		if w.scaled {
			signature = signature[:len(signature)-1] + ", scale *float32)"
		}
		m.Func(gemmName(rows, panels)+w.suffix, signature, fmt.Sprintf(
			"%d rows by %d panel(s) of %d columns; strides in bytes", height, panels, tileVectors(m)*m.Lanes()))
		vectors := panels * tileVectors(m)
		acc := make([][]Vec, height)
		initRows := m.Rows(m.Param("init"), m.Param("initRow"), height)
		for i := range acc {
			for j := range vectors {
				acc[i] = append(acc[i], m.Load(initRows.At(i).Plus(j*Bytes(m)), nil))
			}
		}

		// Column scales stay in registers where there are enough.
		scale := func(int) Src { return nil }
		if w.scaled {
			p := m.Param("scale")
			at := func(j int) At { return At{Base: p, Disp: j * Bytes(m)} }
			scale = func(j int) Src { return at(j) }
			if m.Lanes() != 8 {
				var regs []Vec
				for j := range vectors {
					regs = append(regs, m.Load(at(j), nil))
				}
				scale = func(j int) Src { return regs[j] }
			}
		}

		aRows := m.Rows(m.Param("a"), m.Param("aRow"), height)
		step, k := m.Param("aStep"), m.Param("k")
		b := []GP{m.Param("b")}
		for p := 1; p < panels; p++ {
			next := m.CopyGP(b[p-1])
			m.AddGP(next, m.Param("bPanel"))
			b = append(b, next)
		}
		m.Loop(k, 1, func() {
			width := tileVectors(m)
			row := make([]Vec, width)
			for p := range panels {
				for j := range row {
					row[j] = w.load(m, At{Base: b[p], Disp: j * m.Lanes() * w.bytes})
					if w.scaled {
						row[j] = m.Mul(row[j], scale(p*width+j))
					}
				}
				for i := range height {
					var x Vec
					if HasPast(m) && p == panels-1 {
						x = m.SplatPast(aRows.At(i).Base, step)
					} else {
						x = m.SplatAt(aRows.At(i))
					}
					for j := range row {
						m.MulAdd(acc[i][p*width+j], x, row[j])
					}
				}
				m.AddImm(b[p], width*m.Lanes()*w.bytes)
			}
			if !HasPast(m) {
				aRows.AdvanceGP(step)
			}
		})

		cRows := m.Rows(m.Param("c"), m.Param("cRow"), height)
		for i := range acc {
			for j := range vectors {
				m.Store(cRows.At(i).Plus(j*Bytes(m)), nil, acc[i][j])
			}
		}
		m.End()
	}
}

// gemmShapes lists rows and panels: the main kernel (0 rows stand for the full height),
// the ones for the last rows, of which that of 8 is not in every tier, and for few rows (decoding) the ones that read
// several panels at once.
var gemmShapes = [][2]int{{0, 1}, {8, 1}, {4, 1}, {2, 1}, {1, 1}, {2, 2}, {1, 4}}

func gemmKernels(w weight) (list []kernel) {
	for _, shape := range gemmShapes {
		list = append(list, gemm(shape[0], shape[1], w))
	}
	return list
}

// gemmChoice is the one among the kernels, by storage type and shape. The full
// height is as good as its number: it differs between tiers, and so it is 0 here.
func gemmChoice() choice {
	c := choice{
		name: "gemm",
		doc:  "gemmSIMD is one tile of a product: rows x panels, where rows is 0 for the tier's\n// full height, or 8 (AVX-512 and Float32), 4, 2 or 1, and panels 1 or, with few rows, 4 / rows.",
		by:   "format Format, rows int, panels int", key: "int(format)<<8 | rows<<4 | panels",
		params: "k int, a *float32, aRow int, aStep int, b *byte, bPanel int, init *float32, initRow int, c *float32, cRow int, scale *float32",
	}
	for _, w := range weights {
		for _, s := range gemmShapes {
			m := member{key: fmt.Sprintf("int(%s)<<8 | %d<<4 | %d", w.suffix, s[0], s[1]), kernel: gemmName(s[0], s[1]) + w.suffix}
			if !w.scaled {
				m.except = "scale"
			}
			c.members = append(c.members, m)
		}
	}
	return newChoice(c)
}

func gemmName(rows, panels int) string {
	if rows == 0 {
		return "gemmFull"
	}
	return fmt.Sprint("gemm", rows, "x", panels)
}

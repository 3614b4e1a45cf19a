//go:build !purego

package kernel

import (
	"unsafe"

	"github.com/subquad/subquad/internal/isa"
)

// unitNow tells whether the processor's matrix unit may be used.
func unitNow() unit { return unit(isa.Granted(isa.AMXBFloat16)) }

// tileConfigs has what LDTILECFG reads, by how many rows a strip has: tiles 0, 1 and 4 are
// of its first sixteen rows, 2, 3 and 5 of the others, 6 and 7 of a panel.
var tileConfigs = func() (list [splitHigh + 1][64]byte) {
	for rows := range list {
		c := &list[rows]
		c[0] = 1 // palette
		for tile, n := range [8]int{min(rows, 16), min(rows, 16), rows - 16, rows - 16, min(rows, 16), rows - 16, 16, 16} {
			if n > 0 {
				c[16+2*tile], c[48+tile] = 64, byte(n) // bytes to a row, rows
			}
		}
	}
	return list
}()

func splitRowsUnit(parts, rows, steps int, x []float32, xRow int, dst []uint16, dstRow int) {
	switch parts {
	case 1:
		splitRows1AMX(rows, steps, &x[0], 4*xRow, &dst[0], 2*dstRow)
	case 2:
		splitRows2AMX(rows, steps, &x[0], 4*xRow, &dst[0], 2*dstRow)
	default:
		splitRows3AMX(rows, steps, &x[0], 4*xRow, &dst[0], 2*dstRow)
	}
}

func splitPairsUnit(parts, pairs int, x []float32, xRow int, dst []uint16) (finite bool) {
	switch parts {
	case 1:
		return splitPairs1AMX(pairs, &x[0], 4*xRow, &dst[0]) == 0
	case 2:
		return splitPairs2AMX(pairs, &x[0], 4*xRow, &dst[0]) == 0
	}
	return splitPairs3AMX(pairs, &x[0], 4*xRow, &dst[0]) == 0
}

// turnSplitUnit sets a tile of a panel to the transpose, as pairs of parts, of 16 rows of a packStrip.
func turnSplitUnit(dst, x []uint16) {
	_, _ = dst[splitTile-1], x[15*packRow+splitStep-1]
	attentionPackAVX512(16, (*float32)(unsafe.Pointer(&x[0])), 2*packRow, (*float32)(unsafe.Pointer(&dst[0])), 64)
}

func addSplitUnit(parts, rows, steps, panels int, a []uint16, aRow int, b []uint16, bPanel int, c []float32, cRow int, add bool) {
	config, more := &tileConfigs[rows][0], 0
	if add {
		more = 1
	}
	switch high := rows > 16; {
	case parts == 1 && high:
		splitProduct1x32AMX(config, steps, panels, &a[0], 2*aRow, &b[0], 2*bPanel, &c[0], 4*cRow, more)
	case parts == 1:
		splitProduct1x16AMX(config, steps, panels, &a[0], 2*aRow, &b[0], 2*bPanel, &c[0], 4*cRow, more)
	case parts == 2 && high:
		splitProduct3x32AMX(config, steps, panels, &a[0], 2*aRow, &b[0], 2*bPanel, &c[0], 4*cRow, more)
	case parts == 2:
		splitProduct3x16AMX(config, steps, panels, &a[0], 2*aRow, &b[0], 2*bPanel, &c[0], 4*cRow, more)
	case high:
		splitProduct6x32AMX(config, steps, panels, &a[0], 2*aRow, &b[0], 2*bPanel, &c[0], 4*cRow, more)
	default:
		splitProduct6x16AMX(config, steps, panels, &a[0], 2*aRow, &b[0], 2*bPanel, &c[0], 4*cRow, more)
	}
}

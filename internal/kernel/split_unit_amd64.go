//go:build !purego

package kernel

import "github.com/subquad/subquad/internal/isa"

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

func splitRowsUnit(parts, rows, steps int, x []float32, xRow int, dst []uint16) {
	if parts == 2 {
		splitRows2AMX(rows, steps, &x[0], 4*xRow, &dst[0])
	} else {
		splitRows3AMX(rows, steps, &x[0], 4*xRow, &dst[0])
	}
}

func addSplitUnit(parts, rows, steps, panels int, a, b []uint16, bPanel int, c []float32, cRow int) {
	config := &tileConfigs[rows][0]
	switch high := rows > 16; {
	case parts == 2 && high:
		splitProduct3x32AMX(config, steps, panels, &a[0], &b[0], 2*bPanel, &c[0], 4*cRow)
	case parts == 2:
		splitProduct3x16AMX(config, steps, panels, &a[0], &b[0], 2*bPanel, &c[0], 4*cRow)
	case high:
		splitProduct6x32AMX(config, steps, panels, &a[0], &b[0], 2*bPanel, &c[0], 4*cRow)
	default:
		splitProduct6x16AMX(config, steps, panels, &a[0], &b[0], 2*bPanel, &c[0], 4*cRow)
	}
}

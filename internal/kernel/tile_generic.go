package kernel

import (
	"runtime"
	"unsafe"

	"github.com/subquad/subquad/internal/kernel/scalar"
)

// The portable tiles: products of one or two rows with a panel of four columns, added
// to what stands in c, over k in order. Their sums are scalars, which the compiler
// keeps in registers, as it does not the elements of an array.

// quad is a row of a panel of the generic tier.
type quad = [genericPanel]float32

// quads returns panels of the generic tier as their rows.
func quads(x []float32) []quad {
	return unsafe.Slice((*quad)(unsafe.Pointer(unsafe.SliceData(x))), len(x)/genericPanel)
}

// fewRegisters tells of ports on which eight sums and their factors do not all have a
// register: two passes over half the columns are then faster (386 by .6, amd64 by .2).
const fewRegisters = runtime.GOARCH == "386" || runtime.GOARCH == "amd64"

// tile2 adds the products of rows x and y, each as long as b, and b to c and d.
func tile2(c, d *quad, x, y []float32, b []quad) {
	x, y = x[:len(b)], y[:len(b)]
	if fewRegisters {
		tile2Halves(c, d, x, y, b)
		return
	}
	c0, c1, c2, c3 := c[0], c[1], c[2], c[3]
	d0, d1, d2, d3 := d[0], d[1], d[2], d[3]
	for k := range b {
		u, v, r := x[k], y[k], &b[k]
		b0, b1, b2, b3 := r[0], r[1], r[2], r[3]
		c0 += float32(u * b0)
		c1 += float32(u * b1)
		c2 += float32(u * b2)
		c3 += float32(u * b3)
		d0 += float32(v * b0)
		d1 += float32(v * b1)
		d2 += float32(v * b2)
		d3 += float32(v * b3)
	}
	*c, *d = quad{c0, c1, c2, c3}, quad{d0, d1, d2, d3}
}

func tile2Halves(c, d *quad, x, y []float32, b []quad) {
	x, y = x[:len(b)], y[:len(b)]
	c0, c1, d0, d1 := c[0], c[1], d[0], d[1]
	for k := range b {
		u, v, r := x[k], y[k], &b[k]
		b0, b1 := r[0], r[1]
		c0 += float32(u * b0)
		c1 += float32(u * b1)
		d0 += float32(v * b0)
		d1 += float32(v * b1)
	}
	c[0], c[1], d[0], d[1] = c0, c1, d0, d1
	c2, c3, d2, d3 := c[2], c[3], d[2], d[3]
	for k := range b {
		u, v, r := x[k], y[k], &b[k]
		b2, b3 := r[2], r[3]
		c2 += float32(u * b2)
		c3 += float32(u * b3)
		d2 += float32(v * b2)
		d3 += float32(v * b3)
	}
	c[2], c[3], d[2], d[3] = c2, c3, d2, d3
}

// tile1 adds the product of row x, as long as b, and b to c.
func tile1(c *quad, x []float32, b []quad) {
	x = x[:len(b)]
	c0, c1, c2, c3 := c[0], c[1], c[2], c[3]
	for k := range b {
		u, r := x[k], &b[k]
		c0 += float32(u * r[0])
		c1 += float32(u * r[1])
		c2 += float32(u * r[2])
		c3 += float32(u * r[3])
	}
	*c = quad{c0, c1, c2, c3}
}

// Blocks of the portable product: so many rows of b, and so many panels, are widened to
// float32 at once and then serve all rows of a.
const (
	genericK      = 256
	genericPanels = 4
)

// generic is the portable product.
func (p *product) generic(rows int) {
	if !p.add {
		p.empty(rows)
	}
	if p.b.format != Float32 || p.aAt != 1 {
		p.genericCopied(rows)
		return
	}
	m := p.b
	b := quads(m.float32())
	for k0 := 0; k0 < m.rows; k0 += genericK {
		kn := min(genericK, m.rows-k0)
		for panel := range m.panels() {
			block := b[panel*m.rows+k0:][:kn]
			row := 0
			for ; row+2 <= rows; row += 2 {
				p.genericTile2(row, panel, p.a[row*p.aRow+k0:], p.a[(row+1)*p.aRow+k0:], block)
			}
			if row < rows {
				p.genericTile1(row, panel, p.a[row*p.aRow+k0:], block)
			}
		}
	}
}

// genericCopied is generic for a b that has to be widened, or an a whose rows stand in
// columns.
func (p *product) genericCopied(rows int) {
	var wide [genericPanels * genericK]quad
	var rowsOfA [2][genericK]float32
	m := p.b
	panels := m.panels()
	for k0 := 0; k0 < m.rows; k0 += genericK {
		kn := min(genericK, m.rows-k0)
		for p0 := 0; p0 < panels; p0 += genericPanels {
			p1 := min(p0+genericPanels, panels)
			for panel := p0; panel < p1; panel++ {
				m.widenPanel(wide[(panel-p0)*kn:][:kn], panel, k0)
			}
			for row := 0; row < rows; row += 2 {
				height := min(2, rows-row)
				for i := range height {
					p.copyRow(rowsOfA[i][:kn], row+i, k0)
				}
				for panel := p0; panel < p1; panel++ {
					block := wide[(panel-p0)*kn:][:kn]
					if height == 2 {
						p.genericTile2(row, panel, rowsOfA[0][:], rowsOfA[1][:], block)
					} else {
						p.genericTile1(row, panel, rowsOfA[0][:], block)
					}
				}
			}
		}
	}
}

// copyRow sets dst to a row of a from k0 on.
func (p *product) copyRow(dst []float32, row, k0 int) {
	at := row*p.aRow + k0*p.aAt
	if p.aAt == 1 {
		copy(dst, p.a[at:])
		return
	}
	for k := range dst {
		dst[k] = p.a[at]
		at += p.aAt
	}
}

func (p *product) genericTile2(row, panel int, x, y []float32, b []quad) {
	at := row*p.dst.Stride + panel*genericPanel
	c, d := p.dst.Data[at:], p.dst.Data[at+p.dst.Stride:]
	if n := p.b.cols - panel*genericPanel; n < genericPanel {
		var t [2]quad
		copy(t[0][:n], c)
		copy(t[1][:n], d)
		tile2(&t[0], &t[1], x, y, b)
		copy(c[:n], t[0][:])
		copy(d[:n], t[1][:])
		return
	}
	tile2((*quad)(c), (*quad)(d), x, y, b)
}

func (p *product) genericTile1(row, panel int, x []float32, b []quad) {
	c := p.dst.Data[row*p.dst.Stride+panel*genericPanel:]
	if n := p.b.cols - panel*genericPanel; n < genericPanel {
		var t quad
		copy(t[:n], c)
		tile1(&t, x, b)
		copy(c[:n], t[:])
		return
	}
	tile1((*quad)(c), x, b)
}

// widenPanel sets dst to rows of a panel of the generic tier from k0 on.
func (m *Matrix) widenPanel(dst []quad, panel, k0 int) {
	at, n := (panel*m.rows+k0)*genericPanel, len(dst)*genericPanel
	switch m.format {
	case Float32:
		copy(dst, quads(m.float32()[at:at+n]))
	case Int8:
		s, from := (*quad)(m.scale[panel*genericPanel:]), m.data[at:at+n]
		s0, s1, s2, s3 := s[0], s[1], s[2], s[3]
		for k := range dst {
			b := (*[genericPanel]byte)(from[k*genericPanel:])
			dst[k] = quad{float32(int8(b[0])) * s0, float32(int8(b[1])) * s1, float32(int8(b[2])) * s2, float32(int8(b[3])) * s3}
		}
	case BFloat16:
		from := m.half()[at : at+n]
		for k := range dst {
			b := (*[genericPanel]uint16)(from[k*genericPanel:])
			dst[k] = quad{scalar.BFloat16Of(b[0]), scalar.BFloat16Of(b[1]), scalar.BFloat16Of(b[2]), scalar.BFloat16Of(b[3])}
		}
	default:
		from := m.half()[at : at+n]
		for k := range dst {
			b := (*[genericPanel]uint16)(from[k*genericPanel:])
			dst[k] = quad{scalar.Float16Of(b[0]), scalar.Float16Of(b[1]), scalar.Float16Of(b[2]), scalar.Float16Of(b[3])}
		}
	}
}

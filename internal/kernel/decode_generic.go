package kernel

import "gonum.org/v1/gonum/blas/blas32"

// genericWide is how many elements of a key or value are widened at once.
const genericWide = 64

// rowsOf returns elements c to c+n of rows from j on: views where they are float32, and
// widened in memory of the caller's otherwise, which stays on its stack.
func (m *Strided) rowsOf(wide *[4][genericWide]float32, rows, j, c, n int) (dst [4][]float32) {
	for r := range rows {
		if m.Format == Float32 {
			dst[r] = m.Float32[(j+r)*m.Stride+c:][:n]
			continue
		}
		dst[r] = wide[r][:n]
		m.Widen(dst[r], j+r, c)
	}
	return dst
}

func decodeScoresGeneric(s blas32.General, q []float32, k Strided) {
	var wide [4][genericWide]float32
	for j := 0; j < k.Rows; {
		rows := 1
		if k.Rows-j >= 4 {
			rows = 4
		}
		for i := range s.Rows {
			clear(s.Data[i*s.Stride+j:][:rows])
		}
		for c := 0; c < k.Cols; c += genericWide {
			n := min(genericWide, k.Cols-c)
			keys := k.rowsOf(&wide, rows, j, c, n)
			for i := range s.Rows {
				x, sum := q[i*k.Cols+c:][:n], s.Data[i*s.Stride+j:][:rows]
				if rows == 4 {
					dot4((*quad)(sum), x, keys[0], keys[1], keys[2], keys[3])
				} else {
					sum[0] = dot1(sum[0], x, keys[0])
				}
			}
		}
		j += rows
	}
}

// dot4 adds the products of x with each of four rows to s, in order.
func dot4(s *quad, x, a, b, c, d []float32) {
	a, b, c, d = a[:len(x)], b[:len(x)], c[:len(x)], d[:len(x)]
	s0, s1, s2, s3 := s[0], s[1], s[2], s[3]
	for i, v := range x {
		s0 += float32(a[i] * v)
		s1 += float32(b[i] * v)
		s2 += float32(c[i] * v)
		s3 += float32(d[i] * v)
	}
	*s = quad{s0, s1, s2, s3}
}

func dot1(s float32, x, a []float32) float32 {
	a = a[:len(x)]
	for i, v := range x {
		s += float32(a[i] * v)
	}
	return s
}

func decodeValuesGeneric(o, p blas32.General, v Strided, factor []float32) {
	for i := range o.Rows {
		scaleBy(o.Data[i*o.Stride:][:o.Cols], factor[i])
	}
	var wide [4][genericWide]float32
	for j := 0; j < v.Rows; {
		rows := 1
		if v.Rows-j >= 4 {
			rows = 4
		}
		for c := 0; c < v.Cols; c += genericWide {
			n := min(genericWide, v.Cols-c)
			values := v.rowsOf(&wide, rows, j, c, n)
			for i := range o.Rows {
				w, row := p.Data[i*p.Stride+j:][:rows], o.Data[i*o.Stride+c:][:n]
				if rows == 4 {
					add4(row, (*quad)(w), values[0], values[1], values[2], values[3])
				} else {
					add1(row, w[0], values[0])
				}
			}
		}
		j += rows
	}
}

// add4 adds w[0] a, w[1] b, w[2] c and w[3] d to dst, in that order.
func add4(dst []float32, w *quad, a, b, c, d []float32) {
	a, b, c, d = a[:len(dst)], b[:len(dst)], c[:len(dst)], d[:len(dst)]
	w0, w1, w2, w3 := w[0], w[1], w[2], w[3]
	for i, s := range dst {
		s += float32(w0 * a[i])
		s += float32(w1 * b[i])
		s += float32(w2 * c[i])
		s += float32(w3 * d[i])
		dst[i] = s
	}
}

func add1(dst []float32, w float32, a []float32) {
	a = a[:len(dst)]
	for i, s := range dst {
		dst[i] = s + float32(w*a[i])
	}
}

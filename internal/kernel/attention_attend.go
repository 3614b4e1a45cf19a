package kernel

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
)

// Attending is query rows that attend to one tile of keys after the other.
type Attending struct {
	Q, O             blas32.General // [rows, dim], [rows, cols], cols a multiple of Panel
	Top, Sum, Factor []float32      // [rows], as Weights has them
	S                blas32.General // [Rows, keys in whole panels] at least, scores of a strip of rows
}

// Attend is Scores, Weights and Values for all rows of x, to the bit, where nothing stands
// between the three: Rows rows at a time, so that their scores stay in the first cache, and with
// one look at the sizes for all of them. k is packed by PackKeys, v by PackValues for size keys,
// of which the first keys count. ahead is that of ScoresAhead, divided among the rows.
func (t AttentionTile) Attend(x *Attending, k, v []float32, size, keys int, ahead []float32) {
	const op = "kernel: AttentionTile.Attend"
	rows, dim, cols, w, full := x.Q.Rows, x.Q.Cols, x.O.Cols, t.Panel(), t.Rows()
	panels := t.Panels(keys)
	CheckMatrix(op, "Q", x.Q, rows, dim)
	CheckMatrix(op, "O", x.O, rows, cols/w*w)
	CheckMatrix(op, "S", x.S, x.S.Rows, x.S.Cols)
	CheckAtLeast(op, "S.Rows", x.S.Rows, min(rows, full))
	CheckAtLeast(op, "S.Cols", x.S.Cols, panels*w)
	CheckLen(op, "Top", len(x.Top), rows)
	CheckLen(op, "Sum", len(x.Sum), rows)
	CheckLen(op, "Factor", len(x.Factor), rows)
	CheckAtLeast(op, "size", size, keys)
	CheckAtLeast(op, "k", len(k), panels*w*dim)
	CheckAtLeast(op, "v", len(v), size*cols)
	i := 0
	if t.tier != isa.Generic && rows >= full && dim > 0 && cols > 0 && keys > 0 && keys <= maxTileKeys {
		perCall := max(1, perCallWork/(full*w*dim))
		next, step := ahead, full*len(ahead)/max(1, rows)
		if len(next) == 0 {
			next = k
		}
		s := &x.S.Data[0]
		sRow, qRow, oRow := 4*x.S.Stride, 4*x.Q.Stride, 4*x.O.Stride
		for ; i+full <= rows; i += full {
			q, top, sum, factor := &x.Q.Data[i*x.Q.Stride], &x.Top[i], &x.Sum[i], &x.Factor[i]
			for p := 0; p < panels; p += perCall {
				at := min(p*dim/4*prefetchLine, len(next)-1)
				attentionScoresFullSIMD(t.tier, dim, min(perCall, panels-p), q, qRow, &k[p*w*dim], &x.S.Data[p*w], sRow, &next[at])
			}
			attentionWeightsSIMD(t.tier, full, keys, s, sRow, top, sum, factor)
			for c := 0; c < cols; c += w {
				attentionValuesFullSIMD(t.tier, keys, s, sRow, &v[c*size], &x.O.Data[i*x.O.Stride+c], oRow, factor)
			}
			next = next[min(step, len(next)-1):]
		}
	}
	for ; i < rows; i += full {
		n := min(full, rows-i)
		part := func(m blas32.General, rows, cols int) blas32.General {
			return blas32.General{Rows: rows, Cols: cols, Stride: m.Stride, Data: m.Data[min(i*m.Stride, len(m.Data)):]}
		}
		s := blas32.General{Rows: n, Cols: panels * w, Stride: x.S.Stride, Data: x.S.Data}
		t.ScoresAhead(s, part(x.Q, n, dim), k, ahead[len(ahead)*i/rows:])
		s.Cols = keys
		t.Weights(s, x.Top[i:i+n], x.Sum[i:i+n], x.Factor[i:i+n])
		t.Values(part(x.O, n, cols), s, v, size, 0, x.Factor[i:i+n])
	}
}

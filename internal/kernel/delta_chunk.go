package kernel

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel/scalar"
	"github.com/subquad/subquad/internal/mat"
)

// DeltaRows are rows of tokens of a chunk of a recurrence whose state is a matrix, for a panel
// of the state, s [states, PanelCols], and rows u [.., PanelCols] of tokens, which stand one
// below the other. What row i reads from them is
//
//	x[i] = By[i] (A[i] s) + sum over j < Before of M[i][j] u[j].
type DeltaRows struct {
	A      blas32.General // [rows, states]
	By     []float32      // [rows]
	M      blas32.General // [rows, Before+rows]
	Before int
	Ahead  *Ahead // memory to ask for meanwhile, or nil
}

// Solve sets rows of u from Before on to the solution of
//
//	u[Before+i] = x[i] + w[i] v[i] + sum over j < i of M[i][Before+j] u[Before+j],
//
// and kept, which has the shape of u, to rest[i] u[Before+i]. v is [rows, at most PanelCols];
// columns beyond it are those of zeros.
func (d *DeltaRows) Solve(s, u, kept []float32, w []float32, v blas32.General, rest []float32) {
	const op = "kernel: DeltaRows.Solve"
	tier, width, rows := isa.Active(), PanelCols(), d.A.Rows
	d.check(op, s, u, v.Cols)
	CheckMatrix(op, "v", v, rows, v.Cols)
	CheckLen(op, "w", len(w), rows)
	CheckLen(op, "rest", len(rest), rows)
	CheckAtLeast(op, "kept", len(kept), (d.Before+rows)*width)
	for row, height := 0, 0; row < rows; row += height {
		kind := 0
		kind, height = deltaHeight(tier, rows-row)
		if v.Cols == width {
			d.solve(tier, row, kind, height, s, u, kept, w, v.Data[row*v.Stride:], v.Stride, rest)
			continue
		}
		var tile [maxTileRows * maxPanelCols]float32
		for i := range height {
			copy(tile[i*width:][:v.Cols], v.Data[(row+i)*v.Stride:])
		}
		d.solve(tier, row, kind, height, s, u, kept, w, tile[:], width, rest)
	}
}

// solve is Solve for a kernel's rows from row on, of whole panels.
func (d *DeltaRows) solve(tier isa.Tier, row, kind, height int, s, u, kept, w, v []float32, stride int, rest []float32) {
	if tier == isa.Generic {
		d.solveGeneric(row, height, quads(s), quads(u), quads(kept), w, v, stride, rest)
		return
	}
	ahead, aheadRow := d.Ahead.next(d.A.Cols / 4)
	before := d.Before + row
	deltaSolveSIMD(tier, kind, d.A.Cols, first(s), first(d.A.Data[row*d.A.Stride:]), 4*d.A.Stride, &d.By[row], before, first(d.M.Data[row*d.M.Stride:]), 4*d.M.Stride, &u[0],
		ahead, aheadRow, &w[row], &v[0], 4*stride, &rest[row], &kept[before*PanelCols()])
}

// Ask sets dst [rows, at most PanelCols] to
//
//	dst[i] = x[i] + sum over j <= i of M[i][Before+j] u[Before+j].
func (d *DeltaRows) Ask(dst blas32.General, s, u []float32) {
	const op = "kernel: DeltaRows.Ask"
	tier, width, rows := isa.Active(), PanelCols(), d.A.Rows
	d.check(op, s, u, dst.Cols)
	CheckMatrix(op, "dst", dst, rows, dst.Cols)
	for row, height := 0, 0; row < rows; row += height {
		kind := 0
		kind, height = deltaHeight(tier, rows-row)
		if dst.Cols == width {
			d.ask(tier, row, kind, height, s, u, dst.Data[row*dst.Stride:], dst.Stride)
			continue
		}
		var tile [maxTileRows * maxPanelCols]float32
		d.ask(tier, row, kind, height, s, u, tile[:], width)
		for i := range height {
			copy(dst.Data[(row+i)*dst.Stride:][:dst.Cols], tile[i*width:])
		}
	}
}

// ask is Ask for a kernel's rows from row on, of whole panels.
func (d *DeltaRows) ask(tier isa.Tier, row, kind, height int, s, u, dst []float32, stride int) {
	if tier == isa.Generic {
		d.askGeneric(row, height, quads(s), quads(u), dst, stride)
		return
	}
	ahead, aheadRow := d.Ahead.next(d.A.Cols / 4)
	deltaAskSIMD(tier, kind, d.A.Cols, first(s), first(d.A.Data[row*d.A.Stride:]), 4*d.A.Stride, &d.By[row], d.Before+row, first(d.M.Data[row*d.M.Stride:]), 4*d.M.Stride, &u[0],
		ahead, aheadRow, &dst[0], 4*stride)
}

func (d *DeltaRows) check(op string, s, u []float32, cols int) {
	rows, width := d.A.Rows, PanelCols()
	CheckMatrix(op, "A", d.A, rows, d.A.Cols)
	CheckMatrix(op, "M", d.M, rows, d.Before+rows)
	CheckLen(op, "By", len(d.By), rows)
	CheckLen(op, "s", len(s), d.A.Cols*width)
	CheckAtLeast(op, "u", len(u), (d.Before+rows)*width)
	if cols < 1 || cols > width || d.Before < 0 {
		Panicf("%s: %d columns, %d rows before, want 1 to %d and 0 or more", op, cols, d.Before, width)
	}
}

// deltaHeight returns the kernel for the next of some rows, and how many it takes.
func deltaHeight(tier isa.Tier, rows int) (kind, height int) {
	switch full := sizesOf[tier].tileRows; {
	case rows >= full:
		return 0, full
	case rows >= 8 && tier == isa.AVX512:
		return 8, 8
	case rows >= 4 && tier != isa.Generic:
		return 4, 4
	}
	return 1, 1
}

// first is where x begins, if it has any elements.
func first(x []float32) *float32 {
	if len(x) == 0 {
		return &zeros[0]
	}
	return &x[0]
}

// DeltaWrite takes a panel of a state, [states, PanelCols], over the tokens of a chunk whose
// rows are u [tokens, PanelCols]:
//
//	s[i] = scale[i] s[i] + sum over j of a[j][i] u[j]
//
// or, with after, scale[i] times the sum of both.
func DeltaWrite(s []float32, scale []float32, a blas32.General, u []float32, after bool) {
	const op = "kernel: DeltaWrite"
	tier, width := isa.Active(), PanelCols()
	CheckMatrix(op, "a", a, a.Rows, a.Cols)
	CheckLen(op, "scale", len(scale), a.Cols)
	CheckLen(op, "s", len(s), a.Cols*width)
	CheckLen(op, "u", len(u), a.Rows*width)
	if tier == isa.Generic {
		deltaWriteGeneric(quads(s), scale, a, quads(u), after)
		return
	}
	const most = 16 // tiles to a kernel call
	for row, tiles := 0, 1; row < a.Cols; {
		kind, height := deltaHeight(tier, a.Cols-row)
		if tiles = 1; kind == 0 {
			tiles = min(most, (a.Cols-row)/height)
		}
		var from []float32
		if a.Rows > 0 {
			from = a.Data[row:]
		}
		if after {
			deltaWriteAfterSIMD(tier, kind, tiles, a.Rows, &s[row*width], first(from), 4*a.Stride, first(u), &scale[row])
		} else {
			deltaWriteSIMD(tier, kind, tiles, a.Rows, &s[row*width], first(from), 4*a.Stride, first(u), &scale[row])
		}
		row += tiles * height
	}
}

// DeltaProducts sets dst[i][j], for j <= i, to the products of rows i of a and columns j of b,
// [states, tokens] both turned so that dst is [tokens, tokens]; for j > i it is unspecified.
func DeltaProducts(dst, a blas32.General, b *Matrix) {
	const op = "kernel: DeltaProducts"
	n, width := a.Rows, b.PanelCols()
	CheckMatrix(op, "a", a, n, b.rows)
	CheckMatrix(op, "dst", dst, n, b.cols)
	const corner = 16 // rows and columns
	if b.tier == isa.AVX512 && n >= corner && b.cols == n && b.rows > 0 {
		deltaCornerSIMD(b.tier, b.rows, &a.Data[0], 4*a.Stride, &b.float32()[0], &dst.Data[0], 4*dst.Stride)
		for from, to := corner, 0; from < n; from = to { // to where a panel ends
			to = min(from/width*width+width, n)
			right := b.Columns(0, to)
			Gemm(mat.Columns(mat.Rows(dst, from, to), 0, to), mat.Rows(a, from, to), &right, nil)
		}
		return
	}
	for from := 0; from < n; from += width {
		right := b.Columns(from, min(from+width, n))
		Gemm(mat.Columns(mat.Rows(dst, from, n), from, right.cols), mat.Rows(a, from, n), &right, nil)
	}
}

// oneAmongZeros is where DeltaFall finds a 1 among zeros.
var oneAmongZeros = [2*deltaTokens + maxPanelCols]float32{deltaTokens: 1}

// deltaTokens is the most tokens of DeltaFall.
const deltaTokens = 64

// DeltaFall weighs products of tokens' rows, x [tokens, cols], by the decays between them:
//
//	dst[i][j] = by[i] x[i][j] step[j+1] step[j+2] ... step[i] for j <= i, unspecified for j > i.
//
// Decays that leave less than 2^-103 leave nothing. There are at most 64 tokens, and as many
// columns as tokens or fewer. x and dst have one stride; dst may be x.
func DeltaFall(dst blas32.General, step, by []float32, x blas32.General) {
	const op = "kernel: DeltaFall"
	CheckMatrix(op, "dst", dst, dst.Rows, dst.Cols)
	CheckMatrix(op, "x", x, dst.Rows, dst.Cols)
	CheckLen(op, "step", len(step), dst.Rows)
	CheckLen(op, "by", len(by), dst.Rows)
	if x.Stride != dst.Stride || dst.Rows > deltaTokens || dst.Cols > dst.Rows {
		Panicf("%s: %d x %d with strides %d and %d, want one stride and at most %d rows, with columns for each or fewer", op, dst.Rows, dst.Cols, dst.Stride, x.Stride, deltaTokens)
	}
	if dst.Rows == 0 || dst.Cols == 0 {
		return
	}
	if tier := isa.Active(); tier != isa.Generic {
		deltaFallSIMD(tier, dst.Cols, dst.Rows, &step[0], &oneAmongZeros[deltaTokens], &by[0], &x.Data[0], &dst.Data[0], 4*dst.Stride)
		return
	}
	for j := range dst.Cols {
		fall := float32(1)
		for i := j; i < dst.Rows; i++ {
			if i > j {
				fall *= step[i]
			}
			if fall < scalar.Tiny {
				fall = 0
			}
			dst.Data[i*dst.Stride+j] = float32(x.Data[i*x.Stride+j]*fall) * by[i]
		}
	}
}

// mildest is the least that decays leave of a channel after a chunk where they are mild: far
// from what float32 cannot hold, upside down, times a key.
const mildest = 0x1p-90

// DeltaKeys are rows of tokens of a chunk, [tokens, width], whose key channels have decays of
// their own, exp(Logs), Logs being 0 or less: keys, and what a state is read and asked with.
// All but Logs have one stride.
type DeltaKeys struct {
	Logs, K, Erase, Q blas32.General
	First             bool // the state is read with Erase in front of a token's own decay
}

// Multiply multiplies decays up, rows by them, and divides keys by them:
//
//	grow[t] = exp(Logs[0] + Logs[1] + ... + Logs[t]),
//	near[t] = K[t] / grow[t], left[t] = Erase[t] grow[t], ask[t] = Q[t] grow[t],
//
// with grow[t-1] for left where First is set; last is the last of grow. It returns whether
// decays are mild: of every channel 2^-90 is left, or more. Where they are not, the results
// are unspecified.
func (d *DeltaKeys) Multiply(near, left, ask blas32.General, last []float32) bool {
	const op = "kernel: DeltaKeys"
	tokens, width, tier := d.Logs.Rows, d.Logs.Cols, isa.Active()
	CheckMatrix(op, "Logs", d.Logs, tokens, width)
	CheckLen(op, "last", len(last), width)
	for _, m := range [...]*blas32.General{&d.K, &d.Erase, &d.Q, &near, &left, &ask} {
		if CheckMatrix(op, "a matrix beside Logs", *m, tokens, width); m.Stride != d.K.Stride {
			Panicf("%s: strides %d and %d, want one", op, m.Stride, d.K.Stride)
		}
	}
	const most = 2 * 16 // columns to look at before the next
	for from := 0; from < width; from += most {
		cols := min(most, width-from)
		at := func(m *blas32.General) *float32 { return first(m.Data[min(from, len(m.Data)):]) }
		switch {
		case tier == isa.Generic:
			for i := from; i < from+cols; i++ {
				last[i] = d.channel(i, near, left, ask)
			}
		case d.First:
			deltaKeysFirstSIMD(tier, cols, tokens, at(&d.Logs), 4*d.Logs.Stride, at(&d.K), at(&d.Erase), at(&d.Q), at(&near), at(&left), at(&ask), 4*near.Stride, &last[from])
		default:
			deltaKeysSIMD(tier, cols, tokens, at(&d.Logs), 4*d.Logs.Stride, at(&d.K), at(&d.Erase), at(&d.Q), at(&near), at(&left), at(&ask), 4*near.Stride, &last[from])
		}
		for _, v := range last[from:][:cols] {
			if !(v >= mildest && v <= 1) {
				return false
			}
		}
	}
	return true
}

// channel is Multiply for channel i; it returns the last of grow.
func (d *DeltaKeys) channel(i int, near, left, ask blas32.General) float32 {
	down, up := float32(1), float32(1)
	for t := range d.Logs.Rows {
		x, at := d.Logs.Data[t*d.Logs.Stride+i], t*near.Stride+i
		before := down
		down = max(down*scalar.Exp(x), scalar.Tiny)
		up *= scalar.Exp(-x)
		near.Data[at] = up * d.K.Data[at]
		if !d.First {
			before = down
		}
		left.Data[at] = before * d.Erase.Data[at]
		ask.Data[at] = down * d.Q.Data[at]
	}
	return down
}

// readGeneric sets x to what rows of d read from s and from rows of u before them.
func (d *DeltaRows) readGeneric(row, height int, s, u []quad, x *[genericPanel]quad) {
	a := func(i int) []float32 { return d.A.Data[(row+i)*d.A.Stride:][:d.A.Cols] }
	i := 0
	for ; i+2 <= height; i += 2 {
		tile2(&x[i], &x[i+1], a(i), a(i+1), s)
	}
	if i < height {
		tile1(&x[i], a(i), s)
	}
	for i := range height {
		for j := range x[i] {
			x[i][j] = float32(x[i][j] * d.By[row+i])
		}
	}
}

func (d *DeltaRows) solveGeneric(row, height int, s, u, kept []quad, w, v []float32, vStride int, rest []float32) {
	var x [genericPanel]quad
	d.readGeneric(row, height, s, u, &x)
	for i := range height {
		t := row + i
		for j, v := range v[i*vStride:][:genericPanel] {
			x[i][j] += float32(w[t] * v)
		}
		at := d.Before + t
		tile1(&x[i], d.M.Data[t*d.M.Stride:], u[:at])
		u[at] = x[i]
		for j, v := range x[i] {
			kept[at][j] = rest[t] * v
		}
	}
}

func (d *DeltaRows) askGeneric(row, height int, s, u []quad, dst []float32, stride int) {
	var x [genericPanel]quad
	d.readGeneric(row, height, s, u, &x)
	for i := range height {
		t := row + i
		tile1(&x[i], d.M.Data[t*d.M.Stride:], u[:d.Before+t+1])
		*(*quad)(dst[i*stride:]) = x[i]
	}
}

func deltaWriteGeneric(s []quad, scale []float32, a blas32.General, u []quad, after bool) {
	var column [2][deltaTokens]float32
	for i := 0; i < len(s); i += 2 {
		height := min(2, len(s)-i)
		if !after {
			scaleQuads(s[i:][:height], scale[i:])
		}
		for from := 0; from < len(u); from += deltaTokens {
			part := u[from:min(from+deltaTokens, len(u))]
			for j := range part {
				at := (from+j)*a.Stride + i
				column[0][j] = a.Data[at]
				if height == 2 {
					column[1][j] = a.Data[at+1]
				}
			}
			if height == 2 {
				tile2(&s[i], &s[i+1], column[0][:], column[1][:], part)
			} else {
				tile1(&s[i], column[0][:], part)
			}
		}
		if after {
			scaleQuads(s[i:][:height], scale[i:])
		}
	}
}

func scaleQuads(s []quad, scale []float32) {
	for i := range s {
		for j := range s[i] {
			s[i][j] = float32(scale[i] * s[i][j])
		}
	}
}

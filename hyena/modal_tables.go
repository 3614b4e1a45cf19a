package hyena

import (
	"math/cmplx"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// modalChunk is how many tokens a chunk of a recurrence has. Chunks begin at multiples of it,
// counted from a sequence's first token, so that every split of a sequence gives the same
// bits. It is directTaps, so that one short convolution gives what a chunk's tokens give
// each other.
const modalChunk = directTaps

// modalTables are the recurrence of modes in the form that chunks of T tokens take. With the
// state s [N] at a chunk's beginning, which has seen all tokens before it,
//
//	y[t] = sum over m <= t of k[m] u[t-m] + D u[t] + Re sum over n of R p^(t+1) s,
//	s'   = p^T s + sum over t of p^(T-1-t) u[t]:
//
// sums of products of rows, for all channels side by side.
type modalTables struct {
	channels, n int
	taps        blas32.General // [T, C], k backwards, D added to the last
	carry       blas32.General // [T 2N, C]: T times Re R p^(t+1) and -Im R p^(t+1), a row for each part of s
	gather      blas32.General // [2N T, C]: Re p^(T-1-t) and Im p^(T-1-t), T rows for each part of s
	decay       blas32.General // [2N 2, C]: Re p^T, -Im p^T, and Im p^T, Re p^T
}

func newModalTables(m *Modes, skip []float32) *modalTables {
	const T = modalChunk
	c, n := m.channels, m.n
	tb := &modalTables{channels: c, n: n, taps: mat.New(T, c), carry: mat.New(T*2*n, c), gather: mat.New(2*n*T, c), decay: mat.New(4*n, c)}
	set := func(m blas32.General, row, col int, v float64) { m.Data[row*m.Stride+col] = float32(v) }
	k := mat.New(T, c)
	if err := m.Kernel(k, 0); err != nil {
		panic(err) // it has as many channels
	}
	for t := range T {
		row := mat.Row(tb.taps, T-1-t)
		copy(row, mat.Row(k, t))
		if t == 0 && skip != nil {
			asm.Add(row, row, skip)
		}
	}
	for ch := range c {
		for j := range n {
			p, r := m.Mode(ch, j)
			at := complex128(1)
			for t := range T {
				set(tb.gather, 2*j*T+T-1-t, ch, real(at))
				set(tb.gather, (2*j+1)*T+T-1-t, ch, imag(at))
				at *= p
				w := r * at
				set(tb.carry, t*2*n+2*j, ch, real(w))
				set(tb.carry, t*2*n+2*j+1, ch, -imag(w))
			}
			set(tb.decay, 4*j, ch, real(at))
			set(tb.decay, 4*j+1, ch, -imag(at))
			set(tb.decay, 4*j+2, ch, imag(at))
			set(tb.decay, 4*j+3, ch, real(at))
		}
	}
	return tb
}

func (tb *modalTables) bytes() int64 {
	return floatBytes(tb.channels, modalChunk*(1+4*tb.n)+4*tb.n)
}

// size is how many float32 the past takes: s at the beginning of the chunk [2N, C], and the
// chunk's inputs so far [T, C].
func (tb *modalTables) size() int { return (2*tb.n + modalChunk) * tb.channels }

// modalWorker is what each worker has for itself.
type modalWorker struct {
	x   []float32 // [T-1+T, block]: zeros and the chunk's inputs
	sum []float32 // [T, block]
	s   []float32 // [2N, block]
}

// blockChannels is how many channels a task takes through a recurrence: what they need stays
// in the first cache.
const blockChannels = 64

// advance takes rows of u, of channels from on, through the recurrence, whose past values
// [size] have seen pos tokens. dst may be u.
func (tb *modalTables) advance(dst, u blas32.General, values []float32, from, pos int, w *modalWorker, stopped func() bool) {
	const T = modalChunk
	c := u.Cols
	past := mat.Columns(mat.Of(values, 2*tb.n+T, tb.channels), from, c)
	s, window := mat.Rows(past, 0, 2*tb.n), mat.Rows(past, 2*tb.n, past.Rows)
	w.x, w.sum, w.s = scratch.Floats(w.x, (2*T-1)*c), scratch.Floats(w.sum, T*c), scratch.Floats(w.s, 2*tb.n*c)
	x, sum, own := mat.Of(w.x, 2*T-1, c), mat.Of(w.sum, T, c), mat.Of(w.s, 2*tb.n, c)
	clear(w.x[:(T-1)*c])
	taps := mat.Columns(tb.taps, from, c)
	mat.Copy(mat.Rows(x, T-1, x.Rows), mat.Rows(window, 0, pos%T))
	for t := 0; t < u.Rows && !stopped(); {
		at := (pos + t) % T
		n := min(T-at, u.Rows-t)
		in := mat.Rows(x, T-1+at, T-1+at+n)
		mat.Copy(in, mat.Rows(u, t, t+n))
		asm.DepthwiseConv(mat.Rows(sum, 0, n), in, taps, nil, mat.Rows(x, at, at+T-1))
		for i := range n {
			carry := mat.Columns(mat.Rows(tb.carry, (at+i)*2*tb.n, (at+i+1)*2*tb.n), from, c)
			dotRows(mat.Rows(dst, t+i, t+i+1), s, carry, mat.Row(sum, i))
		}
		if at+n == T {
			tb.endChunk(s, mat.Rows(x, T-1, x.Rows), own, sum, from)
			clear(w.x[(T-1)*c:])
		}
		t += n
	}
	if at := (pos + u.Rows) % T; at > 0 {
		first := max(0, at-u.Rows)
		mat.Copy(mat.Rows(window, first, at), mat.Rows(x, T-1+first, T-1+at))
	}
}

// endChunk brings s to the end of a chunk of inputs x [T, block].
func (tb *modalTables) endChunk(s, x, own, sum blas32.General, from int) {
	const T = modalChunk
	c := x.Cols
	for i := range 2 * tb.n { // part i of s
		gather := mat.Columns(mat.Rows(tb.gather, i*T, (i+1)*T), from, c)
		dotRows(mat.Rows(sum, 0, 1), x, gather, nil)
		decay := mat.Columns(mat.Rows(tb.decay, 2*i, 2*i+2), from, c)
		dotRows(mat.Rows(own, i, i+1), mat.Rows(s, i&^1, i&^1+2), decay, mat.Row(sum, 0))
	}
	kernel.Flush(own.Data)
	mat.Copy(s, own)
}

// dotRows sets dst, a row, to the sum of the products of the rows of x and w, and bias, if
// there is one: what a convolution gives for the last of them.
func dotRows(dst, x, w blas32.General, bias []float32) {
	var history blas32.General
	if x.Rows > 1 {
		history = mat.Rows(x, 0, x.Rows-1)
	}
	asm.DepthwiseConv(dst, mat.Rows(x, x.Rows-1, x.Rows), w, bias, history)
}

// modeStates returns the state of each mode after pos tokens, [C, N].
func (tb *modalTables) modeStates(m *Modes, values []float32, pos int) []complex128 {
	past := mat.Of(values, 2*tb.n+modalChunk, tb.channels)
	out := make([]complex128, tb.channels*tb.n)
	at := pos % modalChunk
	for c := range tb.channels {
		for j := range tb.n {
			p, _ := m.Mode(c, j)
			s := complex(float64(mat.Row(past, 2*j)[c]), float64(mat.Row(past, 2*j+1)[c])) * cmplx.Pow(p, complex(float64(at), 0))
			for t := range at {
				s += complex(float64(mat.Row(past, 2*tb.n+t)[c]), 0) * cmplx.Pow(p, complex(float64(at-1-t), 0))
			}
			out[c*tb.n+j] = s
		}
	}
	return out
}

package hyena

import (
	"context"
	"math"
	"math/cmplx"

	"gonum.org/v1/gonum/blas/blas32"
	dense64 "gonum.org/v1/gonum/mat"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
)

// DistillConfig says how a filter is distilled.
type DistillConfig struct {
	// Order is the most modes of a channel, 0 for 16. An oscillation is one, and so is a decay.
	Order int
	// Rows is how many rows and columns the Hankel matrix has from which poles are found: it
	// sees 2 Rows taps, at equal distances over the whole filter and, where these are not all,
	// as many of its first taps. 0 is 128, 512 the most.
	Rows int
	// Workers is how many goroutines it may use, 0 for GOMAXPROCS.
	Workers int
}

// Distillation is a filter in modes, and how far it is from the one it was made of.
type Distillation struct {
	// Modes and Skip [channels] are the filter: ModalConfig takes both. Skip is what the first
	// tap has besides the modes.
	Modes *Modes
	Skip  []float32
	// Errors are those of each channel.
	Errors []DistillError
}

// DistillError is how far a channel's modes are from the filter they were made of, over its
// taps. Outputs differ by at most Sum times the largest input.
type DistillError struct {
	Relative float64 // the root of the sum of the squares of the differences, over that of the taps
	Max, Sum float64 // the largest difference, and the sum of all
	// Hankel are the singular values of the Hankel matrix, from the largest on, 2 Order of
	// them at the most: where they have fallen to little, so many modes are enough.
	Hankel []float64
}

// Distill makes modes of a long filter, [taps, channels]: convolutions with it then need a few
// numbers of the past and not all of it, and a token costs the same however many came before
// (Massaroli et al. 2023, "Laughing Hyena Distillery", arXiv 2310.18780). Poles are those of the
// smallest system that has the Hankel matrix of the filter (Ho and Kalman 1966, Kung 1978),
// residues then fit all taps by least squares. It is approximate: Errors tell how much. Filters
// that fall and wave slowly over their length, as HyenaDNA's do, need few modes; what changes
// within taps/(2 Rows) taps is seen at the beginning alone.
//
// With Order 2 of a Hyena [Operator] a [Gated] with the modes of its filter, its short
// convolution and the sum of the two Skips stands between its projections as the Operator does.
//
// It costs about 50 Rows^3 + 8 taps Order^2 flop for each channel, in float64; ctx is looked at
// between the parts of that. Errors match ErrConfig, ErrShape or ErrCall, or are ctx.Err() once
// ctx is done.
func Distill(ctx context.Context, kernel blas32.General, cfg DistillConfig) (*Distillation, error) {
	if err := check.Call(pkg, ctx, true); err != nil {
		return nil, err
	}
	if cfg.Order == 0 {
		cfg.Order = 16
	}
	if cfg.Rows == 0 {
		cfg.Rows = 128
	}
	switch {
	case cfg.Order < 0 || cfg.Order > 1024:
		return nil, check.Errorf(ErrConfig, "hyena: Order is %d, want 0 to 1024", cfg.Order)
	case cfg.Rows < 0 || cfg.Rows > 512:
		return nil, check.Errorf(ErrConfig, "hyena: Rows is %d, want 0 to 512", cfg.Rows)
	case kernel.Rows <= 0 || kernel.Cols <= 0:
		return nil, check.Errorf(ErrShape, "hyena: kernel is %d x %d, want a tap and a channel or more", kernel.Rows, kernel.Cols)
	}
	if err := check.Matrix(ErrShape, pkg, "kernel", kernel, -1, kernel.Cols, "channels"); err != nil {
		return nil, err
	}
	for t := range kernel.Rows {
		if err := check.Finite(ErrShape, pkg, "a row of kernel", mat.Row(kernel, t)); err != nil {
			return nil, err
		}
	}
	if err := check.Workers(ErrConfig, pkg, cfg.Workers); err != nil {
		return nil, err
	}
	d := &Distillation{Skip: make([]float32, kernel.Cols), Errors: make([]DistillError, kernel.Cols)}
	n := cfg.Order
	poles, residues := make([]complex128, kernel.Cols*n), make([]complex128, kernel.Cols*n)
	var group parallel.Group
	err := group.RunAs(ctx, pkg, parallel.Workers(cfg.Workers), kernel.Cols, func(_, c int) {
		h := make([]float64, kernel.Rows)
		for t := range h {
			h[t] = float64(kernel.Data[t*kernel.Stride+c])
		}
		p, r := poles[c*n:(c+1)*n], residues[c*n:(c+1)*n]
		list, values := polesOf(h, cfg.Order, cfg.Rows)
		copy(p, list)
		if group.Stopped() {
			return
		}
		fitResidues(r[:len(list)], list, h, &group)
		d.Errors[c], d.Skip[c] = distillError(h, list, r)
		d.Errors[c].Hankel = values
	})
	if err != nil {
		return nil, err
	}
	d.Modes, err = newModes(kernel.Cols, n, poles, residues)
	return d, err
}

// polesOf returns at most order poles of h and the singular values: those of taps at equal
// distances over all of it and, where these are not all taps, as many of the first taps, which
// may change faster.
func polesOf(h []float64, order, rows int) (poles []complex128, values []float64) {
	h = h[1:]
	rows = min(rows, len(h)/2)
	if rows == 0 {
		return nil, nil
	}
	stride := len(h) / (2 * rows)
	if stride == 1 || order == 1 {
		return hankelPoles(h, order, rows, stride)
	}
	first, _ := hankelPoles(h[:2*rows], order/2, rows, 1)
	poles, values = hankelPoles(h, order-len(first), rows, stride)
	return append(poles, first...), values
}

// hankelPoles returns at most order poles of h, of which it takes taps some distance apart,
// and the singular values.
func hankelPoles(h []float64, order, rows, stride int) (poles []complex128, values []float64) {
	at := func(i int) float64 { return h[i*stride] }
	a, b := dense64.NewDense(rows, rows, nil), dense64.NewDense(rows, rows, nil)
	for i := range rows {
		for j := range rows {
			a.Set(i, j, at(i+j))
			b.Set(i, j, at(min(i+j+1, (len(h)-1)/stride)))
		}
	}
	var svd dense64.SVD
	if !svd.Factorize(a, dense64.SVDThin) {
		return nil, nil
	}
	values = svd.Values(nil)
	rank := 0
	for rank < min(2*order, rows) && values[rank] > hankelNoise*values[0] {
		rank++
	}
	values = values[:min(2*order, rows)]
	// An oscillation takes two of the rank, a decay one: as many as give no more modes than order.
	for ; rank > 0; rank-- {
		if poles = systemPoles(&svd, b, values, rank); len(poles) <= order {
			break
		}
	}
	for i, p := range poles {
		if p = cmplx.Pow(p, complex(1/float64(stride), 0)); cmplx.Abs(p) > 1 {
			p /= complex(cmplx.Abs(p), 0)
		}
		poles[i] = p
	}
	return poles, values
}

// hankelNoise is what singular values are noise below, of taps in float32.
const hankelNoise = 1e-7

// systemPoles returns the eigenvalues of the system of some rank, one of each pair.
func systemPoles(svd *dense64.SVD, shifted *dense64.Dense, values []float64, rank int) (poles []complex128) {
	var u, v, left, m dense64.Dense
	svd.UTo(&u)
	svd.VTo(&v)
	rows, _ := u.Dims()
	left.Mul(u.Slice(0, rows, 0, rank).T(), shifted)
	m.Mul(&left, v.Slice(0, rows, 0, rank))
	for i := range rank {
		for j := range rank {
			m.Set(i, j, m.At(i, j)/math.Sqrt(values[i]*values[j]))
		}
	}
	var eigen dense64.Eigen
	if !eigen.Factorize(&m, dense64.EigenNone) {
		return nil
	}
	for _, p := range eigen.Values(nil) {
		if imag(p) >= 0 {
			poles = append(poles, p)
		}
	}
	return poles
}

// fitResidues sets r to the residues by which the poles come nearest to the taps after the first.
func fitResidues(r, poles []complex128, h []float64, group *parallel.Group) {
	n := 2 * len(poles)
	if n == 0 {
		return
	}
	gram, right := make([]float64, n*n), make([]float64, n)
	row, at := make([]float64, n), make([]complex128, len(poles))
	for j := range at {
		at[j] = 1
	}
	for t := 1; t < len(h); t++ {
		if t%stopRows == 0 && group.Stopped() {
			return
		}
		for j, p := range poles {
			at[j] *= p
			row[2*j], row[2*j+1] = real(at[j]), -imag(at[j])
		}
		for i, x := range row {
			right[i] += x * h[t]
			for j := range i + 1 {
				gram[i*n+j] += x * row[j]
			}
		}
	}
	// Columns of length 1, so that none is taken for nothing.
	scale := make([]float64, n)
	for i := range scale {
		scale[i] = 1
		if g := gram[i*n+i]; g > 0 {
			scale[i] = 1 / math.Sqrt(g)
		}
	}
	m := dense64.NewSymDense(n, nil)
	for i := range n {
		for j := range i + 1 {
			m.SetSym(i, j, gram[i*n+j]*scale[i]*scale[j])
		}
	}
	var eigen dense64.EigenSym
	if !eigen.Factorize(m, true) {
		return
	}
	var vectors dense64.Dense
	eigen.VectorsTo(&vectors)
	list := eigen.Values(nil)
	out := make([]float64, n)
	for k, value := range list {
		if !(value > 1e-13*list[n-1]) {
			continue // a direction in which taps tell nothing
		}
		dot := 0.0
		for i := range n {
			dot += vectors.At(i, k) * right[i] * scale[i]
		}
		for i := range n {
			out[i] += vectors.At(i, k) * dot / value
		}
	}
	for j := range r {
		r[j] = complex(out[2*j]*scale[2*j], out[2*j+1]*scale[2*j+1])
	}
}

// distillError returns how far modes are from h, and what the first tap has besides them.
func distillError(h []float64, poles, residues []complex128) (e DistillError, skip float32) {
	at := append([]complex128{}, residues[:len(poles)]...)
	square, of := 0.0, 0.0
	for t, v := range h {
		sum := 0.0
		for j, p := range poles {
			sum += real(at[j])
			at[j] *= p
		}
		if t == 0 {
			skip = float32(v - sum)
			sum = v
		}
		d := math.Abs(v - sum)
		e.Max, e.Sum = max(e.Max, d), e.Sum+d
		square, of = square+d*d, of+v*v
	}
	if of > 0 {
		e.Relative = math.Sqrt(square / of)
	}
	return e, skip
}

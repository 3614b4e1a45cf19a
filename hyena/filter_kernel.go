package hyena

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// position returns the position of row i of the kernel, from 0 to 1.
func (f *Filter) position(i int) float64 {
	if f.t != nil {
		return float64(f.t[i])
	}
	return float64(i) / float64(max(f.cfg.MaxLen-1, 1))
}

// embedding sets z to the positional embedding of row i of the kernel.
func (f *Filter) embedding(z []float64, i int) {
	if f.z != nil {
		for j, v := range f.z[i*len(z):][:len(z)] {
			z[j] = float64(v)
		}
		return
	}
	z[0] = float64(i) / float64(max(f.cfg.MaxLen-1, 1))
	bands := (len(z) - 1) / 2
	for b := range bands {
		frequency := linspace(1e-4, float64(bands-1), bands, b)
		sin, cos := math.Sincos(frequency * 2 * math.Pi * float64(i) / float64(f.cfg.MaxLen))
		z[1+b], z[1+bands+b] = cos, -sin
	}
}

// linspace returns step i of n from a to b.
func linspace(a, b float64, n, i int) float64 {
	if n == 1 {
		return a
	}
	return a + (b-a)*float64(i)/float64(n-1)
}

// Kernel sets dst [rows, Channels] to rows from, from+1, ... of the kernel. Rows
// do not depend on how many are asked for. Errors match ErrShape, or ErrTooLong where
// MaxLen ends before the rows do.
//
// It costs 2 (EmbDim H + H^2 (layers-1) + H Channels) flop in float64 and H
// sines a layer, for each row, H being the width of the hidden layers.
func (f *Filter) Kernel(dst blas32.General, from int) error {
	if err := check.Matrix(ErrShape, pkg, "dst", dst, -1, f.cfg.Channels, "Channels"); err != nil {
		return err
	}
	if from < 0 || from > f.cfg.MaxLen || dst.Rows > f.cfg.MaxLen-from {
		return check.Errorf(ErrTooLong, "hyena: dst is %d rows of a kernel from row %d, more than MaxLen = %d", dst.Rows, from, f.cfg.MaxLen)
	}
	f.columns(dst, from, 0, make([]float64, f.work()))
	return nil
}

// work implements implicit.
func (f *Filter) work() int {
	width := max(f.cfg.EmbDim, kernelCols)
	for _, l := range f.layers {
		width = max(width, l.weight.Rows)
	}
	return 2 * kernelRows * width
}

// columns implements implicit.
func (f *Filter) columns(dst blas32.General, from, channel int, work []float64) {
	a, b := work[:len(work)/2], work[len(work)/2:]
	for t := 0; t < dst.Rows; t += kernelRows {
		f.kernelBlock(mat.Rows(dst, t, min(t+kernelRows, dst.Rows)), from+t, channel, a, b)
	}
}

// whole implements implicit: normalized rows depend on all channels.
func (f *Filter) whole() bool { return f.cfg.Normalized }

// kernelRows and kernelCols are how much of the kernel is computed at once: gonum
// multiplies small blocks on the calling goroutine.
const kernelRows, kernelCols = 64, 128

// kernelBlock sets dst to rows from, from+1, ... of the kernel, of the channels from channel on;
// a and b are scratch of a layer's output each.
func (f *Filter) kernelBlock(dst blas32.General, from, channel int, a, b []float64) {
	n, emb := dst.Rows, f.cfg.EmbDim
	h := blas64.General{Rows: n, Cols: emb, Stride: emb, Data: b[:n*emb]}
	for i := range n {
		f.embedding(h.Data[i*emb:(i+1)*emb], from+i)
	}
	for i, l := range f.layers {
		out := [2][]float64{a, b}[i%2]
		next := blas64.General{Rows: n, Cols: l.weight.Rows, Stride: l.weight.Rows, Data: out[:n*l.weight.Rows]}
		blas64.Gemm(blas.NoTrans, blas.Trans, 1, h, l.weight, 0, next)
		for j := range next.Data {
			c := j % next.Cols
			next.Data[j] = math.Sin(l.freq[c] * (next.Data[j] + l.bias[c]))
		}
		h = next
	}
	spare := [2][]float64{a, b}[len(f.layers)%2]
	for c := 0; c < dst.Cols; c += kernelCols {
		m := min(kernelCols, dst.Cols-c)
		k := blas64.General{Rows: n, Cols: m, Stride: m, Data: spare[:n*m]}
		output := blas64.General{Rows: m, Cols: f.output.Cols, Stride: f.output.Stride, Data: f.output.Data[(channel+c)*f.output.Stride:]}
		blas64.Gemm(blas.NoTrans, blas.Trans, 1, h, output, 0, k)
		for i := range n {
			f.window(mat.Part(dst, i, c, m), k.Data[i*m:], f.position(from+i), f.deltas[channel+c:])
		}
	}
	if f.cfg.Normalized {
		for i := range n {
			normalize(mat.Row(dst, i))
		}
	}
}

// normalize divides x by the sum of its absolute values.
func normalize(x []float32) {
	sum := 0.0
	for _, v := range x {
		sum += math.Abs(float64(v))
	}
	for c, v := range x {
		x[c] = float32(float64(v) / sum)
	}
}

// window sets dst to a row of the kernel, the exponential window applied.
func (f *Filter) window(dst []float32, k []float64, t float64, deltas []float64) {
	for c := range dst {
		if f.cfg.NoModulation {
			dst[c] = float32(k[c])
		} else {
			dst[c] = float32(k[c] * (math.Exp(-t*math.Abs(deltas[c])) + f.shift))
		}
	}
}

// implicit is a kernel that is computed from a few numbers, row by row.
type implicit interface {
	MaxLen() int
	Channels() int
	Bytes() int64
	// columns sets dst to rows from, from+1, ..., which there are, of the channels from channel
	// on. They do not depend on how many rows and channels there are. work is what it takes
	// beside, at most taskRows of them at a time.
	columns(dst blas32.General, from, channel int, work []float64)
	work() int
	// whole tells whether a channel costs as much as all of them.
	whole() bool
	// taskRows is how many rows are a few milliseconds' work.
	taskRows() int
}

// computed is the memory that rows of a kernel take while they are computed.
type computed struct {
	rows []float32   // where the cache has no room for them
	work [][]float64 // of each worker
}

// grownKernel is the part of a filter's kernel that calls have needed so far, as far as
// the cache has room for it.
type grownKernel struct {
	filter implicit
	cache  *Cache
	turn   chan struct{} // who has put something into it may compute rows to keep
}

// grow returns what is wanted of the kernel, or more of it, and the first channel that is there.
// It computes rows that are not there on the group's workers: of all channels where the cache
// has room for them, else of those that are wanted.
func (g *grownKernel) grow(ctx context.Context, group *parallel.Group, workers int, w want, own *computed) (blas32.General, int, error) {
	rows := min(w.rows, g.filter.MaxLen())
	k := g.cache.known(g, w.size)
	if rows <= k.Rows {
		return k, 0, nil
	}
	select {
	case g.turn <- struct{}{}:
	case <-ctx.Done(): // another call computes
		return blas32.General{}, 0, ctx.Err()
	}
	if k = g.cache.known(g, w.size); rows <= k.Rows {
		<-g.turn
		return k, 0, nil
	}
	if !g.cache.reserve(g, rows, w.size) {
		<-g.turn
		if g.filter.whole() {
			w.from, w.to = 0, g.filter.Channels()
		}
		own.rows = scratch.Floats(own.rows, rows*(w.to-w.from))
		dst := mat.Of(own.rows, rows, w.to-w.from)
		return dst, w.from, g.compute(ctx, group, workers, own, dst, k, w.from)
	}
	defer func() { <-g.turn }()
	grown, err := mat.New(rows, g.filter.Channels()), error(nil)
	done := false
	defer func() {
		if !done {
			g.cache.keep(g, blas32.General{})
		}
	}()
	if err = g.compute(ctx, group, workers, own, grown, k, 0); err != nil {
		return blas32.General{}, 0, err
	}
	done = true
	g.cache.keep(g, grown)
	return grown, 0, nil
}

// compute sets dst to the first rows of the kernel, of the channels from channel on. k is its
// beginning.
func (g *grownKernel) compute(ctx context.Context, group *parallel.Group, workers int, own *computed, dst, k blas32.General, channel int) error {
	for len(own.work) < workers {
		own.work = append(own.work, nil)
	}
	if k.Rows > 0 {
		mat.Copy(mat.Rows(dst, 0, k.Rows), mat.Columns(k, channel, dst.Cols))
	}
	from, each := k.Rows, g.filter.taskRows()
	return group.Run(ctx, workers, (dst.Rows-from+each-1)/each, func(worker, i int) {
		own.work[worker] = scratch.Sized(own.work[worker], g.filter.work())
		first := from + i*each
		g.filter.columns(mat.Rows(dst, first, min(first+each, dst.Rows)), first, channel, own.work[worker])
	})
}

// taskRows returns how many rows of the kernel are a few milliseconds' work.
func (f *Filter) taskRows() int {
	flops, in := int64(0), f.cfg.EmbDim
	for _, l := range f.layers {
		flops, in = flops+2*int64(in)*int64(l.weight.Rows), l.weight.Rows
	}
	flops += 2 * int64(in) * int64(f.cfg.Channels)
	return int(max(1, min(256, 20_000_000/flops)))
}

// bytes returns the memory of the rows that there are, and of the filter.
func (g *grownKernel) bytes() int64 { return sumBytes(g.rowBytes(), g.filter.Bytes()) }

// rowBytes returns the memory of the rows that there are.
func (g *grownKernel) rowBytes() int64 {
	k := g.cache.known(g, 0)
	return floatBytes(k.Rows, k.Cols)
}

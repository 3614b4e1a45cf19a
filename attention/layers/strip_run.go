package layers

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// stripMix is the block that mixes along strips, packed; Cc is C/2, n the pixels of an image.
type stripMix struct {
	side, parts, half    int
	mlp                  *dense.Linear   // with its norm
	projH, projW         []*dense.Linear // of each group, [3 S] -> [S]
	posH, posW           blas32.General  // [2S+1, Cc]
	fuseH, fuseW, fuse   *dense.Linear   // fuseH with its norm
	localH, localW       *dense.Depthwise
	reweight1, reweight2 *dense.Linear
}

func packMix(w *dense.Packer, cfg StripConfig, weights *StripMixWeights) stripMix {
	c, half, s := cfg.Dim, cfg.Dim/2, cfg.Side
	m := stripMix{side: s, parts: partsOf(c), half: half}
	norm := packAffine(w, "MLPNorm", weights.MLPNorm, c)
	m.mlp = norm.into(w, "MLP", weights.MLP, weights.MLPBias, c, c)
	position := func(name string, table blas32.General) blas32.General {
		w.Matrix(name, table, 2*s+1, half)
		if w.Err != nil {
			return blas32.General{}
		}
		own := mat.New(2*s+1, half)
		mat.Copy(own, table)
		return own
	}
	m.posH, m.posW = position("PosH", weights.PosH), position("PosW", weights.PosW)
	groups := half / m.parts
	project := func(name string, p blas32.General, bias []float32) (list []*dense.Linear) {
		w.Matrix(name, p, groups*s, 3*s)
		bias = w.Vector(name+"Bias", bias, groups*s, false)
		if w.Err != nil {
			return nil
		}
		for g := range groups {
			list = append(list, dense.NewLinear(asm.Float32, mat.Rows(p, g*s, (g+1)*s), bias[g*s:(g+1)*s]))
		}
		return list
	}
	m.projH, m.projW = project("ProjH", weights.ProjH, weights.ProjHBias), project("ProjW", weights.ProjW, weights.ProjWBias)
	norm = packAffine(w, "Norm", weights.Norm, half)
	m.fuseH, m.fuseW = norm.into(w, "FuseH", weights.FuseH, nil, half, c), w.Linear("FuseW", weights.FuseW, nil, half, c)
	m.localH, m.localW = packConv(w, "LocalH", weights.LocalH, half, 3, 7), packConv(w, "LocalW", weights.LocalW, half, 7, 3)
	if w.Err == nil {
		w.Err = sizes(size{"the rows of Mix.Reweight1", weights.Reweight1.Rows})
	}
	m.reweight1 = w.Linear("Reweight1", weights.Reweight1, weights.Reweight1Bias, weights.Reweight1.Rows, half)
	m.reweight2 = w.Linear("Reweight2", weights.Reweight2, weights.Reweight2Bias, 3*half, weights.Reweight1.Rows)
	m.fuse = w.Linear("Fuse", weights.Fuse, nil, c, c)
	return m
}

func (m *stripMix) bytes() int64 {
	bytes := m.localH.Bytes() + m.localW.Bytes() + 4*int64(len(m.posH.Data)+len(m.posW.Data))
	for _, l := range append([]*dense.Linear{m.mlp, m.fuseH, m.fuseW, m.fuse, m.reweight1, m.reweight2}, append(m.projH, m.projW...)...) {
		bytes += int64(l.Bytes())
	}
	return bytes
}

// memory is what is left of a worker's.
type memory struct{ rest []float32 }

func (w *memory) take(rows, cols int) blas32.General {
	m := mat.Of(w.rest, rows, cols)
	w.rest = w.rest[rows*cols:]
	return m
}

// mix sets y [n, C] to the block of x [n, C], which is overwritten. both [n, C] is where
// halves are put side by side; group may be nil.
func (m *stripMix) mix(group *parallel.Group, y, x, both blas32.General, work memory) {
	z := y
	m.mlp.ForwardIn(group, z, x)
	gelu(z)
	m.strips(group, mat.Columns(x, 0, m.half), z, both, work)
	m.local(mat.Columns(x, m.half, m.half), mat.Columns(z, m.half, m.half), work)
	m.fuse.ForwardIn(group, y, x)
}

func gelu(x blas32.General) {
	for t := range x.Rows {
		asm.GELU(mat.Row(x, t), mat.Row(x, t))
	}
}

// strips sets dst [n, Cc] to what the first half of z [n, C] becomes along lines and columns.
func (m *stripMix) strips(group *parallel.Group, dst, z, both blas32.General, work memory) {
	first, left, right := mat.Columns(z, 0, m.half), mat.Columns(both, 0, m.half), mat.Columns(both, m.half, m.half)
	m.place(dst, first, m.posH)
	m.along(group, left, dst, m.projH, false, work)
	mat.Copy(right, first)
	m.fuseH.ForwardIn(group, dst, both) // [y, x1]
	gelu(dst)
	m.place(dst, dst, m.posW)
	m.along(group, right, dst, m.projW, true, work)
	mat.Copy(left, first)
	m.fuseW.ForwardIn(group, dst, both) // [x1, y]
}

// place adds a table's row of each pixel, that of its column minus its line.
func (m *stripMix) place(dst, x, table blas32.General) {
	for t := range x.Rows {
		asm.Add(mat.Row(dst, t), mat.Row(x, t), mat.Row(table, t%m.side-t/m.side+m.side))
	}
}

// along sets dst [n, Cc] from x [n, Cc]: line i of a channel becomes its group's layer of the
// lines i-1, i and i+1, 0 outside. With columns, lines are columns.
func (m *stripMix) along(group *parallel.Group, dst, x blas32.General, layers []*dense.Linear, columns bool, work memory) {
	s, groups := m.side, len(layers)
	in, out := work.take(m.parts*s, 3*s), work.take(m.parts*s, s)
	pixel := func(line, at int) int {
		if columns {
			return at*s + line
		}
		return line*s + at
	}
	for g, layer := range layers {
		for p := range m.parts {
			c := p*groups + g
			for i := range s {
				row := mat.Row(in, p*s+i)
				for t := range 3 {
					if line := i + t - 1; line < 0 || line >= s {
						for j := range s {
							row[3*j+t] = 0
						}
					} else {
						for j := range s {
							row[3*j+t] = x.Data[pixel(line, j)*x.Stride+c]
						}
					}
				}
			}
		}
		layer.ForwardIn(group, out, in)
		for p := range m.parts {
			c := p*groups + g
			for i := range s {
				for j, v := range mat.Row(out, p*s+i) {
					dst.Data[pixel(i, j)*dst.Stride+c] = v
				}
			}
		}
	}
}

// local sets dst [n, Cc] to g0 localW(x) + g1 localH(x) + g2 x, the gates being a softmax for
// each channel of what the image's mean of the three's sum says.
func (m *stripMix) local(dst, x blas32.General, work memory) {
	s := m.side
	hidden, _ := m.reweight2.Dims()
	mean, narrow, gates := work.take(1, m.half), work.take(1, hidden), work.take(1, 3*m.half)
	h, w := work.take(1, m.localH.Floats(s)), work.take(1, m.localW.Floats(s))
	clear(mean.Data)
	m.lines(x, h.Data, w.Data, func(t int, a, b []float32) {
		for _, part := range [][]float32{a, b, mat.Row(x, t)} {
			asm.Add(mean.Data, mean.Data, part)
		}
	})
	asm.Scale(mean.Data, 1/float32(s*s), mean.Data)
	m.reweight1.Forward(narrow, mean)
	gelu(narrow)
	m.reweight2.Forward(gates, narrow)
	for c := range m.half {
		g := gates.Data[3*c : 3*c+3]
		asm.Softmax(g, g)
	}
	m.lines(x, h.Data, w.Data, func(t int, a, b []float32) {
		d, in := mat.Row(dst, t), mat.Row(x, t)
		for c := range d {
			g := gates.Data[3*c:]
			d[c] = b[c]*g[0] + a[c]*g[1] + in[c]*g[2]
		}
	})
}

// lines calls each with every pixel t of an image and its channels after both convolutions.
func (m *stripMix) lines(x blas32.General, workH, workW []float32, each func(t int, h, w []float32)) {
	for y := range m.side {
		h, w := m.localH.Line(x, y, m.side, m.side, workH), m.localW.Line(x, y, m.side, m.side, workW)
		for i := range m.side {
			each(y*m.side+i, mat.Row(h, i), mat.Row(w, i))
		}
	}
}

// stripRun is one call of a Strip, and the memory that calls share.
type stripRun struct {
	layer   *Strip
	call    StripCall
	workers parallel.Group
	work    [][]float32 // of each worker
	image   func(worker, i int)
}

func (r *stripRun) images(ctx context.Context, s *Strip, call *StripCall) error {
	r.layer, r.call = s, *call
	defer func() { r.call = StripCall{} }()
	if r.image == nil {
		r.image = r.oneImage
	}
	workers := parallel.Choose(s.cfg.Workers, call.Workers)
	r.work = scratch.Sized(r.work, max(len(r.work), workers))
	return r.workers.RunAs(ctx, "layers", workers, call.X.Rows/(s.cfg.Side*s.cfg.Side), r.image)
}

// oneImage is the layer of one image.
func (r *stripRun) oneImage(worker, i int) {
	l, s, dim := r.layer, r.layer.cfg.Side, r.layer.cfg.Dim
	n := s * s
	x, dst := mat.Rows(r.call.X, i*n, (i+1)*n), mat.Rows(r.call.Dst, i*n, (i+1)*n)
	r.work[worker] = scratch.Floats(r.work[worker], int(l.floats()))
	work := memory{r.work[worker]}
	a, b, c, d := work.take(n, dim), work.take(n, dim), work.take(n, dim), work.take(n, dim)

	for t := range n {
		row := mat.Row(a, t)
		asm.Mul(row, mat.Row(x, t), l.before.scale)
		asm.Add(row, row, l.before.shift)
	}
	gelu(a)
	l.convolve(b, a, l.conv, work)
	l.mix.mix(&r.workers, c, b, d, work)
	for t := range n {
		asm.Add(mat.Row(a, t), mat.Row(x, t), mat.Row(c, t)) // x + mix
	}
	if r.workers.Stopped() {
		return
	}
	l.convolve(b, a, l.conv7, work)
	l.norm.Forward(b, b)
	wide, _ := l.fc2.Dims()
	hidden := work.take(n, wide)
	l.fc1.ForwardIn(&r.workers, hidden, b)
	gelu(hidden)
	l.respond(hidden, work.take(1, wide).Data)
	l.fc2.ForwardIn(&r.workers, b, hidden)
	for t := range n {
		asm.Add(mat.Row(dst, t), mat.Row(a, t), mat.Row(b, t))
	}
}

// convolve sets dst from x, both [n, C].
func (s *Strip) convolve(dst, x blas32.General, conv *dense.Depthwise, work memory) {
	side := s.cfg.Side
	for y := range side {
		mat.Copy(mat.Rows(dst, y*side, (y+1)*side), conv.Line(x, y, side, side, work.rest))
	}
}

// respond is the global response norm of an image x [n, E], in place; length [E] is working
// memory.
func (s *Strip) respond(x blas32.General, length []float32) {
	const eps = 1e-6
	clear(length)
	for t := range x.Rows {
		for c, v := range mat.Row(x, t) {
			length[c] += v * v
		}
	}
	var mean float64
	for c, v := range length {
		length[c] = float32(math.Sqrt(float64(v)))
		mean += float64(length[c]) / float64(len(length))
	}
	for c, v := range length {
		length[c] = 1 + float32(float64(s.gamma[c])*float64(v)/(mean+eps))
	}
	for t := range x.Rows {
		row := mat.Row(x, t)
		asm.Mul(row, row, length)
		asm.Add(row, row, s.beta)
	}
}

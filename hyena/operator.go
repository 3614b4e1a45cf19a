package hyena

import (
	"context"
	"math"
	"sync"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// OperatorConfig fixes a Hyena operator.
type OperatorConfig struct {
	// Dim is D, the width of a token.
	Dim int
	// Order is N, the number of gates; it has N-1 long convolutions. 0 is 2.
	Order int
	// ChannelMajor says how the channels of filter and skip are laid out: channel
	// d of convolution o is d*(Order-1)+o, as in the hyena-dna and safari
	// repositories, and not o*Dim+d, as in the standalone file and the checkpoints.
	// With Order 2 there is no difference.
	ChannelMajor bool
	// Format is how the projections' weights are stored.
	Format asm.Format
	// SpectraBytes is how much memory each long convolution may use for transformed
	// kernels, 0 for 256 MiB (see ConvConfig).
	SpectraBytes int64
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
	// Memory is the working memory to use; nil is the operator's own.
	Memory *Memory
}

// OperatorWeights are the weights of a Hyena operator.
type OperatorWeights struct {
	In        blas32.General // [(Order+1) Dim, Dim]
	InBias    []float32      // [(Order+1) Dim]
	Short     blas32.General // the short convolution, [(Order+1) Dim, taps], oldest tap first
	ShortBias []float32      // [(Order+1) Dim]
	Filter    *Filter        // of (Order-1) Dim channels
	Skip      []float32      // D of the long convolutions, [(Order-1) Dim]
	Out       blas32.General // [Dim, Dim]
	OutBias   []float32      // [Dim]
}

// Operator is the Hyena operator (Poli et al. 2023, arXiv 2302.10866, definition
// 3.1; as HyenaDNA has it, arXiv 2306.15794). With the projections
//
//	x0, x1, ..., x(N-1), v = short convolution of (x In^T + InBias),
//
// it gates and convolves N-1 times and projects:
//
//	v = h_o * (v x(N-1-o)) + D_o (v x(N-1-o))    for o = 0 ... N-2,
//	y = (v x0) Out^T + OutBias,
//
// h_o being the filter's channels for o. It is causal: y[t] depends on x[0..t].
//
// An Operator is immutable and safe for concurrent use. It makes its filter, and
// transforms it, when a call first needs that many rows; it keeps the filter's
// rows, 4 Dim (Order-1) bytes for each.
type Operator struct {
	cfg     OperatorConfig
	taps    int
	maxLen  int
	in, out *dense.Linear
	short   blas32.General // [taps, (Order+1) Dim]
	bias    []float32
	kernel  grownKernel
	convs   []*Conv
	memory  *Memory
}

// NewOperator returns an operator, or an error that matches ErrConfig. It keeps
// none of the weights' memory but the filter's.
func NewOperator(cfg OperatorConfig, w OperatorWeights) (*Operator, error) {
	if cfg.Order == 0 {
		cfg.Order = 2
	}
	switch {
	case cfg.Dim <= 0:
		return nil, check.Errorf(ErrConfig, "hyena: Dim is %d, want more than 0", cfg.Dim)
	case cfg.Order < 2 || cfg.Order > 1000 || cfg.Dim > math.MaxInt32/1001:
		return nil, check.Errorf(ErrConfig, "hyena: Order is %d and Dim %d, want an order from 2 to 1000", cfg.Order, cfg.Dim)
	case cfg.Format > asm.Float16:
		return nil, check.Errorf(ErrConfig, "hyena: Format is %d", cfg.Format)
	case w.Filter == nil:
		return nil, check.Errorf(ErrConfig, "hyena: Filter is nil")
	case w.Short.Cols <= 0:
		return nil, check.Errorf(ErrConfig, "hyena: Short has %d columns, want a tap or more", w.Short.Cols)
	}
	wide, long := (cfg.Order+1)*cfg.Dim, (cfg.Order-1)*cfg.Dim
	for _, c := range []struct {
		name string
		m    blas32.General
		rows int
		cols int
		what string
	}{
		{"In", w.In, wide, cfg.Dim, "Dim"},
		{"Short", w.Short, wide, w.Short.Cols, "taps"},
		{"Out", w.Out, cfg.Dim, cfg.Dim, "Dim"},
	} {
		if err := check.Matrix(ErrConfig, "hyena", c.name, c.m, c.rows, c.cols, c.what); err != nil {
			return nil, err
		}
	}
	for _, c := range []struct {
		name string
		v    []float32
		n    int
		what string
	}{
		{"InBias", w.InBias, wide, "(Order+1)*Dim"},
		{"ShortBias", w.ShortBias, wide, "(Order+1)*Dim"},
		{"Skip", w.Skip, long, "(Order-1)*Dim"},
		{"OutBias", w.OutBias, cfg.Dim, "Dim"},
	} {
		if err := check.Vector(ErrConfig, "hyena", c.name, c.v, c.n, c.what); err != nil {
			return nil, err
		}
	}
	if w.Filter.Channels() != long {
		return nil, check.Errorf(ErrConfig, "hyena: Filter has %d channels, want (Order-1)*Dim = %d", w.Filter.Channels(), long)
	}
	filter, skip := w.Filter, w.Skip
	if cfg.ChannelMajor {
		filter, skip = orderMajor(cfg, filter, skip)
	}
	if cfg.Memory == nil {
		cfg.Memory = new(Memory)
	}
	op := &Operator{
		cfg: cfg, memory: cfg.Memory, taps: w.Short.Cols, maxLen: filter.MaxLen(),
		in: dense.NewLinear(cfg.Format, w.In, w.InBias), out: dense.NewLinear(cfg.Format, w.Out, w.OutBias),
		short:  mat.Of(make([]float32, w.Short.Cols*wide), w.Short.Cols, wide),
		bias:   append([]float32{}, w.ShortBias...),
		kernel: grownKernel{filter: filter},
	}
	for c := range wide {
		for j := range op.taps {
			op.short.Data[j*wide+c] = w.Short.Data[c*w.Short.Stride+j]
		}
	}
	for o := range cfg.Order - 1 {
		d := append([]float32{}, skip[o*cfg.Dim:(o+1)*cfg.Dim]...)
		source := func(ctx context.Context, group *parallel.Group, workers, rows int) (kernels, error) {
			k, err := op.kernel.rows(ctx, group, workers, rows)
			return kernels{causal: mat.Columns(k, o*cfg.Dim, cfg.Dim), skip: d}, err
		}
		conv, err := newConv(ConvConfig{SpectraBytes: cfg.SpectraBytes, Workers: cfg.Workers, Memory: cfg.Memory}, cfg.Dim, op.maxLen, source)
		if err != nil {
			return nil, err
		}
		op.convs = append(op.convs, conv)
	}
	return op, nil
}

// orderMajor brings channels d*(Order-1)+o to o*Dim+d.
func orderMajor(cfg OperatorConfig, f *Filter, skip []float32) (*Filter, []float32) {
	var order []int
	var moved []float32
	for o := range cfg.Order - 1 {
		for d := range cfg.Dim {
			order = append(order, d*(cfg.Order-1)+o)
			moved = append(moved, skip[d*(cfg.Order-1)+o])
		}
	}
	return f.permuted(order), moved
}

// Dim returns the width of a token.
func (op *Operator) Dim() int { return op.cfg.Dim }

// MaxLen returns the length of the longest sequence.
func (op *Operator) MaxLen() int { return op.maxLen }

// Bytes returns the memory of the projections' weights.
func (op *Operator) Bytes() int { return op.in.Bytes() + op.out.Bytes() }

// grownKernel is the part of a filter's kernel that has been needed so far.
type grownKernel struct {
	filter *Filter
	mu     sync.Mutex
	k      blas32.General
}

// kernelRows is how many rows a task computes.
const kernelRows = 256

// rows returns at least so many rows of the kernel, or all.
func (g *grownKernel) rows(ctx context.Context, group *parallel.Group, workers, rows int) (blas32.General, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	rows = min(rows, g.filter.MaxLen())
	if rows <= g.k.Rows {
		return g.k, nil
	}
	cols := g.filter.Channels()
	grown := mat.Of(make([]float32, rows*cols), rows, cols)
	copy(grown.Data, g.k.Data)
	from := g.k.Rows
	err := group.Run(ctx, workers, (rows-from+kernelRows-1)/kernelRows, func(_, i int) {
		first := from + i*kernelRows
		if err := g.filter.Kernel(mat.Rows(grown, first, min(first+kernelRows, rows)), first); err != nil {
			panic(err) // the rows are within MaxLen
		}
	})
	if err != nil {
		return blas32.General{}, wrap(err)
	}
	g.k = grown
	return g.k, nil
}

// operatorScratch is the working memory of a call.
type operatorScratch struct {
	group        parallel.Group
	op           *Operator
	dst, x       blas32.General
	v            blas32.General
	gates        []blas32.General // x0 ... x(N-2)
	vData        []float32
	gateData     []float32
	workers      []operatorWork
	gate         int
	project, mix func(worker, i int)
	finish       func(worker, i int)
}

// operatorWork is what each worker has for itself: projections of a block, and
// two pieces of their short convolution.
type operatorWork struct{ u, a, b []float32 }

// Forward applies the operator to a whole sequence: x and dst are [tokens, Dim],
// at most MaxLen tokens. dst may be x. After the first call of a length it
// allocates nothing.
//
// It costs 2 tokens Dim^2 (Order+2) flop for the projections and the long
// convolutions' own, and Order tokens Dim float32 of working memory beside
// those of Conv.
func (op *Operator) Forward(dst, x blas32.General) error {
	return op.Run(context.Background(), &OperatorCall{Dst: dst, X: x})
}

// OperatorCall is a call of Operator with everything optional.
type OperatorCall struct {
	// Dst and X are [tokens, Dim]; Dst may be X.
	Dst, X blas32.General
	// Workers is how many goroutines the call may use, 0 for the configuration's.
	Workers int
}

// Run is Forward with an end: when ctx is done it returns ctx.Err() and leaves
// dst in an unspecified state.
func (op *Operator) Run(ctx context.Context, call *OperatorCall) error {
	if err := check.Matrix(ErrShape, "hyena", "x", call.X, -1, op.cfg.Dim, "Dim"); err != nil {
		return err
	}
	if call.X.Rows > op.maxLen {
		return check.Errorf(ErrTooLong, "hyena: x has %d rows, more than MaxLen = %d", call.X.Rows, op.maxLen)
	}
	if err := check.Output(ErrShape, "hyena", call.Dst, call.X.Rows, op.cfg.Dim, "Dim", call.X, true); err != nil {
		return err
	}
	workers, err := callWorkers(call.Workers, op.cfg.Workers)
	if err != nil {
		return err
	}
	if call.X.Rows == 0 {
		return ctx.Err()
	}
	s := op.memory.operators.Get()
	defer op.memory.operators.Put(s)
	return s.run(ctx, op, call.Dst, call.X, workers)
}

// ScratchBytes returns the working memory that a call of so many tokens holds,
// beside filter and spectra, when every worker is busy.
func (op *Operator) ScratchBytes(tokens int) int64 {
	dim := int64(op.cfg.Dim)
	workers := int64(min(parallel.Workers(op.cfg.Workers), (tokens+dense.BlockRows-1)/dense.BlockRows))
	block := int64(min(tokens, dense.BlockRows) + op.taps)
	return 4*int64(tokens)*dim*int64(op.cfg.Order) + 4*workers*block*dim*int64(op.cfg.Order+3) + op.convs[0].ScratchBytes(tokens)
}

func (s *operatorScratch) run(ctx context.Context, op *Operator, dst, x blas32.General, workers int) error {
	if s.project == nil {
		s.project, s.mix, s.finish = s.runProject, s.runMix, s.runFinish
	}
	s.op, s.dst, s.x = op, dst, x
	defer func() { s.op, s.dst, s.x = nil, blas32.General{}, blas32.General{} }()
	dim, order := op.cfg.Dim, op.cfg.Order
	s.vData = scratch.Floats(s.vData, x.Rows*dim)
	s.v = mat.Of(s.vData, x.Rows, dim)
	s.gateData = scratch.Floats(s.gateData, (order-1)*x.Rows*dim)
	s.gates = s.gates[:0]
	for i := range order - 1 {
		s.gates = append(s.gates, mat.Of(s.gateData[i*x.Rows*dim:], x.Rows, dim))
	}
	for len(s.workers) < workers {
		s.workers = append(s.workers, operatorWork{})
	}
	blocks := (x.Rows + dense.BlockRows - 1) / dense.BlockRows
	if err := s.group.Run(ctx, workers, blocks, s.project); err != nil {
		return wrap(err)
	}
	for o, conv := range op.convs {
		if o > 0 {
			s.gate = order - 1 - o
			if err := s.group.Run(ctx, workers, blocks, s.mix); err != nil {
				return wrap(err)
			}
		}
		if err := conv.Run(ctx, &ConvCall{Dst: s.v, U: s.v, Workers: workers}); err != nil {
			return err
		}
	}
	s.gate = 0
	return wrap(s.group.Run(ctx, workers, blocks, s.finish))
}

// block returns the tokens of a task.
func (s *operatorScratch) block(i int) (from, to int) {
	return i * dense.BlockRows, min((i+1)*dense.BlockRows, s.x.Rows)
}

// runProject computes, for a block of tokens, the projections, their short
// convolution and the first gate.
func (s *operatorScratch) runProject(worker, i int) {
	op, w := s.op, &s.workers[worker]
	dim, order := op.cfg.Dim, op.cfg.Order
	from, to := s.block(i)
	// The short convolution sees the taps-1 tokens before the block; near the
	// beginning, all there are.
	before := op.taps - 1
	if from < before {
		before = from
	}
	rows, wide := to-from+before, (order+1)*dim
	w.u = scratch.Floats(w.u, rows*wide)
	u := mat.Of(w.u, rows, wide) // [block, (N+1) D]
	op.in.Forward(u, mat.Rows(s.x, from-before, to))
	w.a, w.b = scratch.Floats(w.a, rows*dim), scratch.Floats(w.b, rows*dim)

	short := func(dst blas32.General, chunk int) {
		op.shortConv(dst, mat.Columns(u, chunk*dim, dim), chunk, before, w)
	}
	for g := range s.gates {
		short(mat.Rows(s.gates[g], from, to), g) // x0 ... x(N-2)
	}
	v := mat.Rows(s.v, from, to)
	short(v, order) // v
	last := mat.Of(w.a, to-from, dim)
	short(last, order-1) // x(N-1)
	asm.Mul(v.Data[:(to-from)*dim], v.Data[:(to-from)*dim], last.Data)
}

// shortConv convolves a chunk of the projections, leaving the rows before out.
func (op *Operator) shortConv(dst, u blas32.General, chunk, before int, w *operatorWork) {
	dim := op.cfg.Dim
	taps, bias := mat.Columns(op.short, chunk*dim, dim), op.bias[chunk*dim:][:dim]
	if before == op.taps-1 {
		var history blas32.General
		if before > 0 {
			history = mat.Rows(u, 0, before)
		}
		asm.DepthwiseConv(dst, mat.Rows(u, before, u.Rows), taps, bias, history)
		return
	}
	all := mat.Of(w.b, u.Rows, dim)
	asm.DepthwiseConv(all, u, taps, bias, blas32.General{})
	copyRows(dst, mat.Rows(all, before, u.Rows))
}

// runMix gates a block of v.
func (s *operatorScratch) runMix(_, i int) {
	from, to := s.block(i)
	dim := s.op.cfg.Dim
	v := s.v.Data[from*dim : to*dim]
	asm.Mul(v, v, s.gates[s.gate].Data[from*dim:to*dim])
}

// runFinish gates a block of v for the last time and projects it.
func (s *operatorScratch) runFinish(worker, i int) {
	s.runMix(worker, i)
	from, to := s.block(i)
	s.op.out.Forward(mat.Rows(s.dst, from, to), mat.Rows(s.v, from, to))
}

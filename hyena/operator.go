package hyena

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
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
	// Activation is applied after the last gate, before the output projection
	// ("activation" in the published code); 0 is Identity.
	Activation Activation
	// Format is how the projections' weights are stored; 0 is Float32.
	Format asm.Format
	// SpectraBytes is how much memory the operator may keep for spectra, 8 (Order-1) Dim
	// bytes for each token, and for the rows of its filter that they are made of, half of
	// that; 0 is 2 GiB. Rows are kept first; what has no room is computed again by each call,
	// rows for 128 channels at a time or, with more than 8 workers, for a vector each.
	// Results do not depend on it.
	SpectraBytes int64
	// Cache is where they are kept, and its size counts, not SpectraBytes; nil is the
	// operator's own.
	Cache *Cache
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
	// Scratch is the working memory to use; nil is the operator's own.
	Scratch *Scratch
}

// OperatorWeights are the weights of a Hyena operator.
type OperatorWeights struct {
	In        blas32.General // [(Order+1) Dim, Dim]
	InBias    []float32      // [(Order+1) Dim]
	Short     blas32.General // the short convolution, [(Order+1) Dim, taps], the oldest tap first; any number of taps
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
//	y = act(v x0) Out^T + OutBias,
//
// h_o being the filter's channels for o and act the Activation, if there is one. It is causal: y[t] depends on x[0..t].
//
// An Operator is immutable and safe for concurrent use. It makes its filter, and
// transforms it, when a call (or Prepare) first needs that many rows; it keeps both as far
// as its Cache has room, and Bytes counts them.
type Operator struct {
	cfg     OperatorConfig
	taps    int            // of the short convolution
	maxLen  int            // l_max of the filter
	in, out *dense.Linear  // Dim -> (Order+1) Dim, Dim -> Dim
	short   blas32.General // [taps, (Order+1) Dim], the oldest tap first
	bias    []float32      // [(Order+1) Dim], of the short convolution
	kernel  *grownKernel   // [.., (Order-1) Dim], convolution after convolution
	skip    []float32      // [(Order-1) Dim], likewise
	convs   []*Conv        // Order-1 of Dim channels each
	kind    kind           // of states: projections of the last taps-1 tokens, and what convs have
	scratch *Scratch
}

// NewOperator returns an operator, or an error that matches ErrConfig. It keeps
// none of the weights' memory but the filter's.
func NewOperator(cfg OperatorConfig, w OperatorWeights) (*Operator, error) {
	if cfg.Order == 0 {
		cfg.Order = 2
	}
	if err := cfg.check(w); err != nil {
		return nil, err
	}
	filter, skip := w.Filter, append([]float32{}, w.Skip...)
	if cfg.ChannelMajor {
		filter, skip = orderMajor(cfg, filter, skip)
	}
	if cfg.Scratch == nil {
		cfg.Scratch = new(Scratch)
	}
	if cfg.Cache == nil {
		var err error
		if cfg.Cache, err = NewCache(cfg.SpectraBytes); err != nil {
			return nil, check.Errorf(ErrConfig, "hyena: SpectraBytes is %d, want 0 or more", cfg.SpectraBytes)
		}
	}
	wide := (cfg.Order + 1) * cfg.Dim
	op := &Operator{
		cfg: cfg, scratch: cfg.Scratch, taps: w.Short.Cols, maxLen: filter.MaxLen(),
		in: dense.NewLinear(cfg.Format, w.In, w.InBias), out: dense.NewLinear(cfg.Format, w.Out, w.OutBias),
		short: mat.New(w.Short.Cols, wide), bias: append([]float32{}, w.ShortBias...), skip: skip,
		kernel: &grownKernel{filter: filter, cache: cfg.Cache, turn: make(chan struct{}, 1)},
	}
	for c := range wide {
		for j, v := range mat.Row(w.Short, c) {
			op.short.Data[j*wide+c] = v
		}
	}
	for o := range cfg.Order - 1 {
		source := &filterColumns{kernel: op.kernel, from: o * cfg.Dim, width: cfg.Dim, skip: skip[o*cfg.Dim : (o+1)*cfg.Dim]}
		conv, err := newConv(ConvConfig{Cache: cfg.Cache, Workers: cfg.Workers, Scratch: cfg.Scratch}, cfg.Dim, op.maxLen, source)
		if err != nil {
			return nil, err
		}
		op.convs = append(op.convs, conv)
	}
	op.kind = op.stateKind(w.Filter)
	return op, nil
}

// filterColumns are the columns of an operator's filter for one of its convolutions.
type filterColumns struct {
	kernel      *grownKernel
	from, width int
	skip        []float32 // [width], or nil
}

func (f *filterColumns) rows(ctx context.Context, group *parallel.Group, workers int, w want, own *computed) (kernels, error) {
	w.from, w.to = f.from+w.from, f.from+w.to
	k, first, err := f.kernel.grow(ctx, group, workers, w, own)
	if err != nil {
		return kernels{}, err
	}
	from, to := max(first, f.from), min(first+k.Cols, f.from+f.width)
	return kernels{causal: mat.Columns(k, from-first, to-from), skip: f.skip, first: from - f.from}, nil
}

// spareBytes counts what computing takes, and the rows unless they are kept.
func (f *filterColumns) spareBytes(rows, channels, workers int) int64 {
	filter := f.kernel.filter
	work := 2 * floatBytes(workers, filter.work())
	if rows = min(rows, filter.MaxLen()); rows <= f.kernel.cache.known(f.kernel, 0).Rows {
		return work
	}
	if filter.whole() {
		channels = filter.Channels()
	}
	return sumBytes(work, floatBytes(rows, channels))
}

// check checks a configuration with its weights.
func (cfg OperatorConfig) check(w OperatorWeights) error {
	if err := check.Workers(ErrConfig, pkg, cfg.Workers); err != nil {
		return err
	}
	switch {
	case cfg.Dim <= 0:
		return check.Errorf(ErrConfig, "hyena: Dim is %d, want more than 0", cfg.Dim)
	case cfg.Order < 2 || cfg.Order > 1000 || cfg.Dim > math.MaxInt32/1001:
		return check.Errorf(ErrConfig, "hyena: Order is %d and Dim %d, want an order from 2 to 1000 and a Dim up to %d", cfg.Order, cfg.Dim, math.MaxInt32/1001)
	case cfg.Activation > Softplus:
		return check.Errorf(ErrConfig, "hyena: Activation is %d, want one of the constants", cfg.Activation)
	case cfg.Format > asm.Float16:
		return check.Errorf(ErrConfig, "hyena: Format is %d, want one of the constants", cfg.Format)
	case w.Filter == nil:
		return check.Errorf(ErrConfig, "hyena: Filter is nil")
	case w.Short.Cols <= 0:
		return check.Errorf(ErrConfig, "hyena: Short has %d columns, want a tap or more", w.Short.Cols)
	}
	wide, long := (cfg.Order+1)*cfg.Dim, (cfg.Order-1)*cfg.Dim
	for _, c := range []struct {
		name       string
		m          blas32.General
		rows, cols int
		what       string
	}{
		{"In", w.In, wide, cfg.Dim, "Dim"},
		{"Short", w.Short, wide, w.Short.Cols, "taps"},
		{"Out", w.Out, cfg.Dim, cfg.Dim, "Dim"},
	} {
		if err := check.Matrix(ErrConfig, pkg, c.name, c.m, c.rows, c.cols, c.what); err != nil {
			return err
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
		if err := check.Vector(ErrConfig, pkg, c.name, c.v, c.n, c.what); err != nil {
			return err
		}
	}
	if w.Filter.Channels() != long {
		return check.Errorf(ErrConfig, "hyena: Filter has %d channels, want (Order-1)*Dim = %d", w.Filter.Channels(), long)
	}
	return nil
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

// Bytes returns the memory that the operator takes now: its weights, the filter with
// the rows that calls and Prepare have computed, and what the convolutions keep of them
// (Conv.Bytes).
func (op *Operator) Bytes() int64 {
	n := sumBytes(int64(op.in.Bytes()), int64(op.out.Bytes()), floatBytes(op.short.Rows, op.short.Cols),
		floatBytes(len(op.bias)+len(op.skip)), op.kernel.bytes())
	for _, c := range op.convs {
		n = sumBytes(n, c.keptBytes())
	}
	return n
}

package hyena

import (
	"context"
	"fmt"
	"sync"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// ConvConfig fixes a long convolution.
type ConvConfig struct {
	// Kernel is k, [taps, channels]: row m is what an input counts for m tokens
	// later. It is kept, and must not be changed.
	Kernel blas32.General
	// Skip is D, one factor for each channel; nil for none.
	Skip []float32
	// Reverse is an anticausal kernel, [taps, channels]: row m is what an input
	// counts for m tokens earlier. The zero value is none. With both kernels, an
	// input counts for its own token by the sum of their first rows.
	Reverse blas32.General
	// GELU applies the exact GELU to the result.
	GELU bool
	// SpectraBytes is how much memory transformed kernels may keep, 0 for 256 MiB.
	// Those beyond are transformed again by each call. Results do not depend on it.
	SpectraBytes int64
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
	// Memory is the working memory to use; nil is the convolution's own.
	Memory *Memory
}

// Memory is working memory, kept between calls, that operators may share: those
// of a model's layers, say, which run one after the other. The zero value is
// ready, and safe for concurrent use; it must not be copied.
type Memory struct {
	convs     scratch.List[convScratch]
	operators scratch.List[operatorScratch]
}

const defaultSpectraBytes = 256 << 20

// Conv is a causal long convolution of each channel with a kernel as long as the
// sequence, as in Hyena (Poli et al. 2023, arXiv 2302.10866):
//
//	y[t][c] = sum over m <= t of k[m][c] u[t-m][c] + D[c] u[t][c]
//	        + sum over m of r[m][c] u[t+m][c]      (r the reverse kernel).
//
// Kernels shorter than the sequence count as zero beyond their end; of longer
// ones the first rows are used.
//
// A Conv is immutable and safe for concurrent use.
type Conv struct {
	cfg      ConvConfig
	channels int
	taps     int // of the causal kernel, when all of it is known
	kernels  kernelSource
	b        kernel.Butterflies
	direct   lazyDirect
	cache    spectra
	memory   *Memory
}

// kernelSource returns the kernels of a convolution, of which at least the first
// rows causal rows (or all) are there. It may use group to compute them.
type kernelSource func(ctx context.Context, group *parallel.Group, workers, rows int) (kernels, error)

// directTaps is the number of taps up to which the sum is computed as it stands.
const directTaps = 32

// NewConv returns a convolution, or an error that matches ErrConfig.
func NewConv(cfg ConvConfig) (*Conv, error) {
	channels := cfg.Kernel.Cols
	if channels <= 0 || cfg.Kernel.Rows <= 0 {
		return nil, check.Errorf(ErrConfig, "hyena: Kernel is %d x %d", cfg.Kernel.Rows, channels)
	}
	if err := check.Matrix(ErrConfig, "hyena", "Kernel", cfg.Kernel, -1, channels, "channels"); err != nil {
		return nil, err
	}
	if cfg.Skip != nil {
		if err := check.Vector(ErrConfig, "hyena", "Skip", cfg.Skip, channels, "channels"); err != nil {
			return nil, err
		}
	}
	if cfg.Reverse.Rows != 0 {
		if err := check.Matrix(ErrConfig, "hyena", "Reverse", cfg.Reverse, -1, channels, "channels"); err != nil {
			return nil, err
		}
	}
	k := kernels{cfg.Kernel, cfg.Reverse, cfg.Skip}
	return newConv(cfg, channels, cfg.Kernel.Rows, func(context.Context, *parallel.Group, int, int) (kernels, error) { return k, nil })
}

// newConv returns a convolution whose kernels come from elsewhere.
func newConv(cfg ConvConfig, channels, taps int, source kernelSource) (*Conv, error) {
	switch {
	case cfg.Workers < 0:
		return nil, check.Errorf(ErrConfig, "hyena: Workers is %d, want 0 or more", cfg.Workers)
	case cfg.SpectraBytes < 0:
		return nil, check.Errorf(ErrConfig, "hyena: SpectraBytes is %d, want 0 or more", cfg.SpectraBytes)
	case cfg.SpectraBytes == 0:
		cfg.SpectraBytes = defaultSpectraBytes
	}
	if cfg.Memory == nil {
		cfg.Memory = new(Memory)
	}
	return &Conv{
		cfg: cfg, channels: channels, taps: taps, kernels: source,
		b: kernel.NewButterflies(), cache: spectra{budget: cfg.SpectraBytes}, memory: cfg.Memory,
	}, nil
}

// lazyDirect is the beginning of the kernel backwards, its skip term added, for
// sums of few taps.
type lazyDirect struct {
	once sync.Once
	w    blas32.General
}

func (d *lazyDirect) get(k kernels) blas32.General {
	d.once.Do(func() {
		taps, channels := min(k.causal.Rows, directTaps), k.causal.Cols
		d.w = mat.Of(make([]float32, taps*channels), taps, channels)
		for m := range taps {
			row := d.w.Data[(taps-1-m)*channels:][:channels]
			copy(row, k.causal.Data[m*k.causal.Stride:])
			if m == 0 && k.skip != nil {
				asm.Add(row, row, k.skip)
			}
		}
	})
	return d.w
}

// Channels returns the number of channels.
func (c *Conv) Channels() int { return c.channels }

// Forward convolves a whole sequence: u and dst are [tokens, channels]. dst may
// be u. The first call of a length transforms the kernels, and later ones
// allocate nothing.
//
// It costs about 10 log2(tokens) flop for each token and channel and, as working
// memory, 16 bytes for each token and each of the channels done at once
// (Lanes of kernel.Butterflies for each worker).
func (c *Conv) Forward(dst, u blas32.General) error {
	return c.Run(context.Background(), &ConvCall{Dst: dst, U: u})
}

// ConvCall is a call of Conv with everything optional.
type ConvCall struct {
	// Dst and U are [tokens, channels]; Dst may be U.
	Dst, U blas32.General
	// Workers is how many goroutines the call may use, 0 for the configuration's.
	Workers int
}

// Run is Forward with an end: when ctx is done it returns ctx.Err() and leaves
// dst in an unspecified state.
func (c *Conv) Run(ctx context.Context, call *ConvCall) error {
	if err := check.Matrix(ErrShape, "hyena", "u", call.U, -1, c.Channels(), "channels"); err != nil {
		return err
	}
	if err := check.Output(ErrShape, "hyena", call.Dst, call.U.Rows, c.Channels(), "channels", call.U, true); err != nil {
		return err
	}
	workers, err := callWorkers(call.Workers, c.cfg.Workers)
	if err != nil {
		return err
	}
	if call.U.Rows == 0 {
		return ctx.Err()
	}
	s := c.memory.convs.Get()
	defer c.memory.convs.Put(s)
	return s.run(ctx, c, call.Dst, call.U, workers)
}

// callWorkers returns how many goroutines a call uses.
func callWorkers(call, config int) (int, error) {
	if call < 0 {
		return 0, check.Errorf(ErrShape, "hyena: Workers is %d, want 0 or more", call)
	}
	if call == 0 {
		call = config
	}
	return parallel.Workers(call), nil
}

// isDirect tells whether a call of so many tokens sums taps as they stand.
func (c *Conv) isDirect(tokens int) bool {
	return min(tokens, c.taps) <= directTaps && c.cfg.Reverse.Rows == 0
}

// ScratchBytes returns the working memory that a call of so many tokens holds,
// beside the spectra, when every worker is busy.
func (c *Conv) ScratchBytes(tokens int) int64 {
	units := c.units(nil, tokens)
	workers := int64(min(parallel.Workers(c.cfg.Workers), len(units)))
	const each, sundry = 64, 1 << 10 // a unit's bookkeeping, and the rest
	held := each*int64(len(units)) + sundry
	if c.isDirect(tokens) {
		return held + 4*workers*int64(tokens)*int64(min(directChannels, c.Channels()))
	}
	n := 0
	for _, u := range units {
		n = max(n, c.size(tokens, u.phases))
	}
	// A worker's kernel, work, spare and spectrum, and rows copied.
	return held + 4*workers*int64(c.b.Lanes())*int64(n)*(1+2+2+2+1)
}

// directChannels is how many channels a task of the direct sum has.
const directChannels = 64

// units divides the channels into what is done at once.
func (c *Conv) units(list []unit, tokens int) []unit {
	channel, n := 0, c.b.Lanes()
	if c.isDirect(tokens) {
		n = directChannels
	}
	for ; c.Channels()-channel >= n; channel += n {
		list = append(list, unit{channel, n, false})
	}
	rest := c.Channels() - channel
	if rest > 0 && (c.isDirect(tokens) || 5*rest >= 2*n) { // a channel by itself costs 2.5 lanes' worth
		return append(list, unit{channel, rest, false})
	}
	for ; channel < c.Channels(); channel++ {
		list = append(list, unit{channel, 1, true})
	}
	return list
}

// fewRows is the number of rows that a plan takes at the least.
const fewRows = 8

// size returns the size of the plan for so many tokens.
func (c *Conv) size(tokens int, phases bool) int {
	if phases {
		tokens = (tokens + c.b.Lanes() - 1) / c.b.Lanes()
	}
	return fastSize(max(tokens, fewRows))
}

// convScratch is the working memory of a call.
type convScratch struct {
	group     parallel.Group
	conv      *Conv
	dst, u    blas32.General
	k         kernels
	direct    blas32.General
	plans     [2]*plan // of channels side by side, of phases
	units     []unit
	workers   []convWork
	unit, act func(worker, i int)
}

// convWork is what each worker has for itself.
type convWork struct{ kernel, work, spare, spectrum, rows []float32 }

// actRows is how many tokens a task of the activation has.
const actRows = 64

func (s *convScratch) run(ctx context.Context, c *Conv, dst, u blas32.General, workers int) error {
	if s.unit == nil {
		s.unit, s.act = s.runUnit, s.runAct
	}
	s.conv, s.dst, s.u = c, dst, u
	defer func() { s.conv, s.dst, s.u, s.k = nil, blas32.General{}, blas32.General{}, kernels{} }()
	s.units = c.units(s.units[:0], u.Rows)
	reach := directTaps // how many taps the plans take
	for i := range s.plans {
		if n := c.size(u.Rows, i > 0); !c.isDirect(u.Rows) {
			if p := s.plans[i]; p == nil || p.n != n || p.Butterflies != c.b {
				s.plans[i] = planFor(c.b, n)
			}
			reach = max(reach, n, i*n*c.b.Lanes())
		}
	}
	for len(s.workers) < workers {
		s.workers = append(s.workers, convWork{})
	}
	var err error
	if s.k, err = c.kernels(ctx, &s.group, workers, reach); err != nil {
		return err
	}
	if c.isDirect(u.Rows) {
		s.direct = c.direct.get(s.k)
	}
	err = s.group.Run(ctx, workers, len(s.units), s.unit)
	if err == nil && c.cfg.GELU {
		err = s.group.Run(ctx, workers, (u.Rows+actRows-1)/actRows, s.act)
	}
	return wrap(err)
}

// wrap says where an error of a worker, or the end of a context, came from.
func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("hyena: %w", err)
}

func (s *convScratch) runAct(_, i int) {
	for t := i * actRows; t < min((i+1)*actRows, s.dst.Rows); t++ {
		row := s.dst.Data[t*s.dst.Stride:][:s.dst.Cols]
		asm.GELU(row, row)
	}
}

func (s *convScratch) runUnit(worker, i int) {
	w, u := &s.workers[worker], s.units[i]
	dst, in := mat.Columns(s.dst, u.channel, u.channels), mat.Columns(s.u, u.channel, u.channels)
	if s.conv.isDirect(in.Rows) {
		if mat.Overlap(dst, in) { // a sum needs the tokens before it
			w.rows = scratch.Floats(w.rows, in.Rows*in.Cols)
			copied := mat.Of(w.rows, in.Rows, in.Cols)
			copyRows(copied, in)
			in = copied
		}
		taps := s.direct
		if in.Rows < taps.Rows { // the oldest are never reached
			taps = mat.Rows(taps, taps.Rows-in.Rows, taps.Rows)
		}
		asm.DepthwiseConv(dst, in, mat.Columns(taps, u.channel, u.channels), nil, blas32.General{})
		return
	}
	p := s.plans[0]
	if u.phases {
		p = s.plans[1]
	}
	spectrum := s.spectrum(p, u, w)
	w.work = scratch.Floats(w.work, p.n*p.row())
	lanes := p.Lanes()
	if u.channels == lanes && in.Rows >= fewRows {
		p.convolve(dst.Data, dst.Stride, in.Data, in.Stride, in.Rows, spectrum, w.work, false)
		return
	}
	// Rows of our own, filled up with zeros.
	rows := in.Rows
	if u.phases {
		rows = (rows + lanes - 1) / lanes
	}
	rows = max(rows, fewRows)
	w.rows = scratch.Floats(w.rows, rows*lanes)
	clear(w.rows)
	own := blas32.General{Rows: in.Rows, Cols: u.channels, Stride: lanes, Data: w.rows}
	if u.phases {
		own.Stride = 1
	}
	copyRows(own, in)
	p.convolve(w.rows, lanes, w.rows, lanes, rows, spectrum, w.work, u.phases)
	copyRows(dst, own)
}

func copyRows(dst, src blas32.General) {
	if dst.Cols == 1 {
		if dst.Stride == 1 && src.Stride == 1 {
			copy(dst.Data, src.Data[:src.Rows])
			return
		}
		for t := range src.Rows {
			dst.Data[t*dst.Stride] = src.Data[t*src.Stride]
		}
		return
	}
	for t := range src.Rows {
		copy(dst.Data[t*dst.Stride:][:dst.Cols], src.Data[t*src.Stride:])
	}
}

// spectrum returns the transformed kernels of a unit, from the cache or made now.
func (s *convScratch) spectrum(p *plan, u unit, w *convWork) []float32 {
	c := s.conv
	size := p.spectrumLen(u.phases)
	if e := c.cache.claim(spectrumKey{p.n, u.channel}, p, size); e != nil {
		e.once.Do(func() { p.spectrum(e.data, s.k, u, w) })
		return e.data
	}
	w.spectrum = scratch.Floats(w.spectrum, size)
	p.spectrum(w.spectrum, s.k, u, w)
	return w.spectrum
}

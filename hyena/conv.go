package hyena

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
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
	cfg     ConvConfig
	b       asm.Butterflies
	direct  blas32.General // the kernel's rows backwards, skip added, if it is short
	cache   spectra
	scratch scratch.List[convScratch]
}

// directTaps is the number of taps up to which the sum is computed as it stands.
const directTaps = 32

// NewConv returns a convolution, or an error that matches ErrConfig.
func NewConv(cfg ConvConfig) (*Conv, error) {
	channels := cfg.Kernel.Cols
	switch {
	case channels <= 0 || cfg.Kernel.Rows <= 0:
		return nil, check.Errorf(ErrConfig, "hyena: Kernel is %d x %d", cfg.Kernel.Rows, channels)
	case cfg.Workers < 0:
		return nil, check.Errorf(ErrConfig, "hyena: Workers is %d, want 0 or more", cfg.Workers)
	case cfg.SpectraBytes < 0:
		return nil, check.Errorf(ErrConfig, "hyena: SpectraBytes is %d, want 0 or more", cfg.SpectraBytes)
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
	if cfg.SpectraBytes == 0 {
		cfg.SpectraBytes = defaultSpectraBytes
	}
	c := &Conv{cfg: cfg, b: asm.NewButterflies(), cache: spectra{budget: cfg.SpectraBytes}}
	taps := min(cfg.Kernel.Rows, directTaps)
	c.direct = blas32.General{Rows: taps, Cols: channels, Stride: channels, Data: make([]float32, taps*channels)}
	for m := range taps {
		row := c.direct.Data[(taps-1-m)*channels:][:channels]
		copy(row, cfg.Kernel.Data[m*cfg.Kernel.Stride:])
		if m == 0 && cfg.Skip != nil {
			asm.Add(row, row, cfg.Skip)
		}
	}
	return c, nil
}

// Channels returns the number of channels.
func (c *Conv) Channels() int { return c.cfg.Kernel.Cols }

// Forward convolves a whole sequence: u and dst are [tokens, channels]. dst may
// be u. The first call of a length transforms the kernels, and later ones
// allocate nothing.
//
// It costs about 10 log2(tokens) flop for each token and channel and, as working
// memory, 16 bytes for each token and each of the channels done at once
// (Lanes of asm.Butterflies for each worker).
func (c *Conv) Forward(dst, u blas32.General) error {
	return c.Run(context.Background(), &ConvCall{Dst: dst, U: u})
}

// ConvCall is a call of Conv with everything optional.
type ConvCall struct {
	// Dst and U are [tokens, channels]; Dst may be U.
	Dst, U blas32.General
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
	if call.U.Rows == 0 {
		return ctx.Err()
	}
	s := c.scratch.Get()
	defer c.scratch.Put(s)
	return s.run(ctx, c, call.Dst, call.U)
}

// isDirect tells whether a call of so many tokens sums taps as they stand.
func (c *Conv) isDirect(tokens int) bool {
	return min(tokens, c.cfg.Kernel.Rows) <= directTaps && c.cfg.Reverse.Rows == 0
}

// ScratchBytes returns the working memory that a call of so many tokens holds,
// beside the spectra, when every worker is busy.
func (c *Conv) ScratchBytes(tokens int) int64 {
	workers := int64(min(parallel.Workers(c.cfg.Workers), len(c.units(nil, tokens))))
	if c.isDirect(tokens) {
		return 4 * workers * int64(tokens) * directChannels
	}
	n, lanes := int64(c.size(tokens, false)), int64(c.b.Lanes())
	// A worker's kernel, work, spare and spectrum, and rows copied.
	return 4 * workers * lanes * n * (1 + 2 + 2 + 2 + 1)
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
	plans     [2]*plan // of channels side by side, of phases
	units     []unit
	workers   []convWork
	unit, act func(worker, i int)
}

// convWork is what each worker has for itself.
type convWork struct{ kernel, work, spare, spectrum, rows []float32 }

// actRows is how many tokens a task of the activation has.
const actRows = 64

func (s *convScratch) run(ctx context.Context, c *Conv, dst, u blas32.General) error {
	if s.unit == nil {
		s.unit, s.act = s.runUnit, s.runAct
	}
	s.conv, s.dst, s.u = c, dst, u
	defer func() { s.dst, s.u = blas32.General{}, blas32.General{} }()
	s.units = c.units(s.units[:0], u.Rows)
	for i := range s.plans {
		if n := c.size(u.Rows, i > 0); !c.isDirect(u.Rows) && (s.plans[i] == nil || s.plans[i].n != n) {
			s.plans[i] = planFor(c.b, n)
		}
	}
	workers := parallel.Workers(c.cfg.Workers)
	for len(s.workers) < workers {
		s.workers = append(s.workers, convWork{})
	}
	err := s.group.Run(ctx, workers, len(s.units), s.unit)
	if err == nil && c.cfg.GELU {
		err = s.group.Run(ctx, workers, (u.Rows+actRows-1)/actRows, s.act)
	}
	if err != nil {
		return fmt.Errorf("hyena: %w", err)
	}
	return nil
}

func (s *convScratch) runAct(_, i int) {
	for t := i * actRows; t < min((i+1)*actRows, s.dst.Rows); t++ {
		row := s.dst.Data[t*s.dst.Stride:][:s.dst.Cols]
		asm.GELU(row, row)
	}
}

// columns returns n columns of m.
func columns(m blas32.General, from, n int) blas32.General {
	return blas32.General{Rows: m.Rows, Cols: n, Stride: m.Stride, Data: m.Data[from:]}
}

func (s *convScratch) runUnit(worker, i int) {
	w, u := &s.workers[worker], s.units[i]
	dst, in := columns(s.dst, u.channel, u.channels), columns(s.u, u.channel, u.channels)
	if s.conv.isDirect(in.Rows) {
		if asm.Overlap(dst, in) { // a sum needs the tokens before it
			w.rows = scratch.Floats(w.rows, in.Rows*in.Cols)
			copied := blas32.General{Rows: in.Rows, Cols: in.Cols, Stride: in.Cols, Data: w.rows}
			copyRows(copied, in)
			in = copied
		}
		taps := s.conv.direct
		if in.Rows < taps.Rows { // the oldest are never reached
			taps = blas32.General{Rows: in.Rows, Cols: taps.Cols, Stride: taps.Stride, Data: taps.Data[(taps.Rows-in.Rows)*taps.Stride:]}
		}
		asm.DepthwiseConv(dst, in, columns(taps, u.channel, u.channels), nil, blas32.General{})
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
	k := kernels{c.cfg.Kernel, c.cfg.Reverse, c.cfg.Skip}
	size := p.spectrumLen(u.phases)
	if e := c.cache.claim(spectrumKey{p.n, u.channel}, p, size); e != nil {
		e.once.Do(func() { p.spectrum(e.data, k, u, w) })
		return e.data
	}
	w.spectrum = scratch.Floats(w.spectrum, size)
	p.spectrum(w.spectrum, k, u, w)
	return w.spectrum
}

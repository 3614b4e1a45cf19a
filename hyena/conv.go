package hyena

import (
	"context"
	"sync"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
)

// ConvConfig fixes a long convolution.
type ConvConfig struct {
	// Kernel is k, [taps, channels]: row m is the weight of an input m tokens
	// later. It is kept, and must not be changed.
	Kernel blas32.General
	// Skip is D, one factor for each channel; nil for none. It is kept, too.
	Skip []float32
	// Reverse is an anticausal kernel, [taps, channels]: row m is the weight of an
	// input m tokens earlier. The zero value is none. With both kernels, the weight of
	// an input for its own token is the sum of their first rows. It is kept, too.
	Reverse blas32.General
	// GELU applies the exact GELU to the result.
	GELU bool
	// SpectraBytes is how much memory transformed kernels may keep, 0 for 256 MiB.
	// Those beyond are transformed again by each call. Results do not depend on it.
	SpectraBytes int64
	// Cache is where they are kept, and its size counts, not SpectraBytes; nil is the
	// convolution's own.
	Cache *Cache
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
	// Scratch is the working memory to use; nil is the convolution's own.
	Scratch *Scratch
}

const defaultSpectraBytes = 256 << 20

// Conv is a causal long convolution of each channel with a kernel as long as the
// sequence, as in Hyena (Poli et al. 2023, arXiv 2302.10866):
//
//	y[t][c] = sum over m <= t of k[m][c] x[t-m][c] + D[c] x[t][c]
//	        + sum over m of r[m][c] x[t+m][c]      (r the reverse kernel).
//
// Kernels shorter than the sequence are zero beyond their end; of longer ones the
// first rows are used. Where they are much shorter, the sequence is transformed in windows
// that overlap by as many tokens, each in a cache of the processor. Which length goes with
// which kernel follows a rule that is the same on all machines.
//
// A Conv is immutable and safe for concurrent use.
type Conv struct {
	cfg      ConvConfig
	channels int                // C
	taps     int                // rows of the causal kernel, when all of it is known
	source   kernelSource       // gives the kernels
	b        kernel.Butterflies // of the tier that was active at New
	direct   directKernel       // for sums of few taps
	cache    *Cache             // of transformed kernels
	alone    bool               // the cache is of no other
	tiles    tileSet            // of states
	kind     kind               // likewise
	scratch  *Scratch
}

// kernelSource gives the kernels of a convolution.
type kernelSource interface {
	// rows returns what is wanted of them, or more. It may use group to compute it, and own
	// to put it.
	rows(ctx context.Context, group *parallel.Group, workers int, w want, own *computed) (kernels, error)
	// spareBytes returns the memory that rows takes of own, for some of the channels.
	spareBytes(rows, channels, workers int) int64
}

// want is what is asked for of kernels: the first rows (or all that there are) of channels from
// to to, for plans of up to that size.
type want struct{ rows, size, from, to int }

// given are kernels that are there.
type given kernels

func (g *given) rows(context.Context, *parallel.Group, int, want, *computed) (kernels, error) {
	return kernels(*g), nil
}

func (g *given) spareBytes(int, int, int) int64 { return 0 }

// kernels are the filters of a convolution in time: causal [taps, channels] of the channels
// from first on, reverse [taps, channels] or empty, skip [channels] or nil.
type kernels struct {
	causal, reverse blas32.General
	skip            []float32
	first           int
	// lag, where it is not 0, makes a tile of the causal kernel: its row lag is that of an
	// input for its own place, rows above it are those of earlier inputs, rows below it of later.
	lag int
}

// NewConv returns a convolution, or an error that matches ErrConfig.
func NewConv(cfg ConvConfig) (*Conv, error) {
	channels := cfg.Kernel.Cols
	if channels <= 0 || cfg.Kernel.Rows <= 0 {
		return nil, check.Errorf(ErrConfig, "hyena: Kernel is %d x %d, want a tap and a channel or more", cfg.Kernel.Rows, channels)
	}
	if err := check.Matrix(ErrConfig, pkg, "Kernel", cfg.Kernel, -1, channels, "channels"); err != nil {
		return nil, err
	}
	if cfg.Skip != nil {
		if err := check.Vector(ErrConfig, pkg, "Skip", cfg.Skip, channels, "channels"); err != nil {
			return nil, err
		}
	}
	if mat.Given(cfg.Reverse) {
		if err := check.Matrix(ErrConfig, pkg, "Reverse", cfg.Reverse, -1, channels, "channels"); err != nil {
			return nil, err
		}
	}
	c, err := newConv(cfg, channels, cfg.Kernel.Rows, &given{causal: cfg.Kernel, reverse: cfg.Reverse, skip: cfg.Skip})
	if err != nil {
		return nil, err
	}
	c.kind = convKind(c)
	return c, nil
}

// newConv returns a convolution whose kernels come from elsewhere.
func newConv(cfg ConvConfig, channels, taps int, source kernelSource) (*Conv, error) {
	if err := check.Workers(ErrConfig, pkg, cfg.Workers); err != nil {
		return nil, err
	}
	switch {
	case cfg.SpectraBytes < 0:
		return nil, check.Errorf(ErrConfig, "hyena: SpectraBytes is %d, want 0 or more", cfg.SpectraBytes)
	case cfg.SpectraBytes == 0:
		cfg.SpectraBytes = defaultSpectraBytes
	}
	if cfg.Scratch == nil {
		cfg.Scratch = new(Scratch)
	}
	cache := cfg.Cache
	if cache == nil {
		cache = &Cache{most: cfg.SpectraBytes}
	}
	return &Conv{
		cfg: cfg, channels: channels, taps: taps, source: source,
		b: kernel.NewButterflies(), cache: cache, alone: cfg.Cache == nil, scratch: cfg.Scratch,
	}, nil
}

// Channels returns the number of channels.
func (c *Conv) Channels() int { return c.channels }

// Bytes returns the memory that the convolution takes now: its kernels, those that
// calls and Prepare have transformed, and the tables of these transforms. Convolutions
// of one size share the tables; each counts them.
func (c *Conv) Bytes() int64 {
	return sumBytes(
		floatBytes(c.cfg.Kernel.Rows, c.cfg.Kernel.Cols), floatBytes(c.cfg.Reverse.Rows, c.cfg.Reverse.Cols),
		floatBytes(len(c.cfg.Skip)), c.keptBytes(),
	)
}

// keptBytes returns what calls have made and kept.
func (c *Conv) keptBytes() int64 {
	return sumBytes(c.direct.bytes(), c.cache.spectraBytes(c), c.tiles.bytes())
}

// directTaps is the number of taps up to which the sum is computed as it stands,
// directChannels how many channels a task of it has.
const directTaps, directChannels = 32, 64

// isDirect tells whether a call of this many tokens sums taps as they stand.
func (c *Conv) isDirect(tokens int) bool {
	return min(tokens, c.taps) <= directTaps && c.cfg.Reverse.Rows == 0
}

// directKernel is the beginning of the kernel backwards, its skip term added, for
// sums of few taps. It is made when first needed.
type directKernel struct {
	mu sync.Mutex
	w  blas32.General // [taps, channels], the oldest tap first
}

// backwards returns the taps of k, of which there are enough.
func (d *directKernel) backwards(k kernels) blas32.General {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.w.Rows > 0 {
		return d.w
	}
	taps := min(k.causal.Rows, directTaps)
	w := mat.New(taps, k.causal.Cols)
	for m := range taps {
		row := mat.Row(w, taps-1-m)
		copy(row, mat.Row(k.causal, m))
		if m == 0 && k.skip != nil {
			asm.Add(row, row, k.skip)
		}
	}
	d.w = w
	return w
}

// ready tells whether the taps are there.
func (d *directKernel) ready() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.w.Rows > 0
}

func (d *directKernel) bytes() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return floatBytes(d.w.Rows, d.w.Cols)
}

// unit is what is transformed at once: up to Lanes channels side by side, or one
// channel whose elements fill the lanes.
type unit struct {
	channel, channels int
	phases            bool // one channel, its successive elements side by side
}

// units divides the channels into what is done at once.
func (c *Conv) units(list []unit, tokens int) []unit {
	channel, n := 0, c.b.Lanes()
	if c.isDirect(tokens) {
		n = directChannels
	}
	for ; c.channels-channel >= n; channel += n {
		list = append(list, unit{channel, n, false})
	}
	rest := c.channels - channel
	if rest > 0 && (c.isDirect(tokens) || 5*rest >= 2*n) { // a channel by itself costs 2.5 lanes' worth
		return append(list, unit{channel, rest, false})
	}
	for ; channel < c.channels; channel++ {
		list = append(list, unit{channel, 1, true})
	}
	return list
}

// kernelChannels is how many channels of a kernel that is not kept are computed at once, at the
// least: half of those of the largest HyenaDNA. All of a million rows would take as much memory
// as the sequence; fewer would cost more, for each time the filter's hidden layers are computed.
// Tests make it smaller.
var kernelChannels = 128

// atOnce returns how many channels of a kernel that is not kept are computed at once: enough
// for all workers.
func (c *Conv) atOnce(workers int) int {
	return min(max(kernelChannels, workers*c.b.Lanes()), c.channels)
}

// fewRows is the number of rows that a plan takes at the least.
const fewRows = 8

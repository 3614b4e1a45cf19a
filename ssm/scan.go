package ssm

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// ScanConfig fixes a Scan.
type ScanConfig struct {
	// Channels is D, States is N, the states of each channel.
	Channels, States int
	// Groups is G: channel d reads B and C of group d / (D/G). 0 is 1.
	Groups int
	// Softplus passes dt + DtBias through log(1 + exp).
	Softplus bool
	// DtMin and DtMax limit dt after the softplus; a DtMax of 0 is no limit.
	DtMin, DtMax float32
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// ScanWeights are the weights of a Scan.
type ScanWeights struct {
	// A [D, N] are the decay rates, usually -exp(A_log): negative, for a state that
	// does not grow.
	A blas32.General
	// B and C [D, N], where they are given, are the same for all tokens; then the
	// call has none (S4D).
	B, C blas32.General
	// D [D] is the skip and DtBias [D] is added to dt; nil is 0.
	D, DtBias []float32
}

// Scan is the selective scan of Mamba (Gu and Dao 2023, arXiv 2312.00752, section
// 3.2), for each channel d with N states h:
//
//	dt = limits(softplus(dt + DtBias))
//	h[n] = exp(dt A[d][n]) h[n] + dt B[n] x[d]
//	dst[d] = sum over n of C[n] h[n] + D[d] x[d],  times silu(z[d])
//
// The state is h. Scans of a sequence in pieces give the bits of the whole.
//
// It costs about 14 flop for each token, channel and state, however many tokens came
// before. A Scan is immutable and safe for concurrent use.
type Scan struct {
	cfg     ScanConfig
	kind    kind
	states  int       // N, filled up to a multiple of 4
	slabs   []slab    // all channels
	b, c    []float32 // [blocks][states][ScanBlock]: constant B and C; nil for those of calls
	da      []float32 // [blocks][1 + states][ScanBlock]: D, and below it A times log2(e)
	bias    []float32 // [D]: DtBias, or nil
	scratch scratch.List[scanWork]
}

// slab is a run of channels of one group that a task takes: blocks of ScanBlock
// channels, of which the last may be filled up.
type slab struct {
	group             int
	channel, channels int // the first, and how many
	block, blocks     int // likewise, of the blocks of all slabs
}

// slabBlocks is how many blocks a slab has at most: its rows of a chunk stay in
// the second cache.
const slabBlocks = 16

// NewScan returns a scan, or an error that matches ErrConfig. It keeps none of the
// weights' memory.
func NewScan(cfg ScanConfig, w ScanWeights) (*Scan, error) {
	if cfg.Groups == 0 {
		cfg.Groups = 1
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if err := w.check(cfg.Channels, cfg.States); err != nil {
		return nil, err
	}
	d, n := cfg.Channels, cfg.States
	op := &Scan{cfg: cfg, states: (n + 3) / 4 * 4, bias: cloned(w.DtBias)}
	blocks, each := 0, d/cfg.Groups
	for g := range cfg.Groups {
		for c := 0; c < each; c += slabBlocks * kernel.ScanBlock {
			s := slab{group: g, channel: g*each + c, channels: min(slabBlocks*kernel.ScanBlock, each-c), block: blocks}
			s.blocks = (s.channels + kernel.ScanBlock - 1) / kernel.ScanBlock
			blocks += s.blocks
			op.slabs = append(op.slabs, s)
		}
	}
	size := blocks * op.states * kernel.ScanBlock
	op.packRates(w, blocks)
	if mat.Given(w.B) {
		op.b = op.packConstant(w.B, size)
	}
	if mat.Given(w.C) {
		op.c = op.packConstant(w.C, size)
	}
	name := fmt.Sprintf("scan of %d channels in %d groups with %d states", d, cfg.Groups, n)
	f := state.NewFingerprint(name, state.Bool(cfg.Softplus))
	f.Matrices(w.A, w.B, w.C)
	f.Floats(w.D, w.DtBias, []float32{cfg.DtMin, cfg.DtMax})
	op.kind = newKind(name, size, f, 7*int64(size), d)
	return op, nil
}

func (cfg *ScanConfig) check() error {
	d, n, g := cfg.Channels, cfg.States, cfg.Groups
	if err := checkSizes(size{"Channels", d}, size{"States", n}, size{"Groups", g}); err != nil {
		return err
	}
	if err := checkGroups(g, d, "Channels"); err != nil {
		return err
	}
	if check.Product(maxFloats, d+kernel.ScanBlock*g, n+3) < 0 {
		return check.Errorf(ErrConfig, "ssm: %d states of %d channels are too many", n, d)
	}
	if err := checkDt(cfg.DtMin, cfg.DtMax); err != nil {
		return err
	}
	return check.Workers(ErrConfig, "ssm", cfg.Workers)
}

func (w *ScanWeights) check(d, n int) error {
	list := []matrixWeight{{"A", w.A, d, n, "States"}}
	for _, m := range []matrixWeight{{"B", w.B, d, n, "States"}, {"C", w.C, d, n, "States"}} {
		if mat.Given(m.m) {
			list = append(list, m)
		}
	}
	if err := checkMatrices(list...); err != nil {
		return err
	}
	if err := checkFinite("A", w.A); err != nil {
		return err
	}
	return checkVectors(vectorWeight{"D", w.D, d, "Channels", true}, vectorWeight{"DtBias", w.DtBias, d, "Channels", true})
}

// each calls f with every channel and the place of its first state.
func (op *Scan) each(f func(channel, at int)) {
	for _, s := range op.slabs {
		for c := range s.channels {
			f(s.channel+c, (s.block+c/kernel.ScanBlock)*op.states*kernel.ScanBlock+c%kernel.ScanBlock)
		}
	}
}

// packConstant brings a [D, N] matrix to the order of the states.
func (op *Scan) packConstant(m blas32.General, size int) []float32 {
	out := scratch.Floats(nil, size)
	clear(out)
	op.each(func(channel, at int) {
		for n, v := range mat.Row(m, channel) {
			out[at+n*kernel.ScanBlock] = v
		}
	})
	return out
}

// packRates sets op.da.
func (op *Scan) packRates(w ScanWeights, blocks int) {
	op.da = scratch.Floats(nil, blocks*(1+op.states)*kernel.ScanBlock)
	clear(op.da)
	op.each(func(channel, at int) {
		if w.D != nil {
			op.da[op.rateAt(at, -1)] = w.D[channel]
		}
		for n, v := range mat.Row(w.A, channel) {
			op.da[op.rateAt(at, n)] = float32(float64(v) * math.Log2E)
		}
	})
}

// rateAt is where da has the rate of state n of the channel whose first state is at
// at, or, for -1, its D.
func (op *Scan) rateAt(at, n int) int {
	block := at / (op.states * kernel.ScanBlock)
	return (block*(1+op.states)+1+n)*kernel.ScanBlock + at%kernel.ScanBlock
}

// Identity names the scan, and says how many steps dt a token has: the channels.
func (op *Scan) Identity() Identity { return op.kind.identity() }

// Rates returns a copy of A [D, N], which may differ from the weights' in the last bit.
func (op *Scan) Rates() blas32.General {
	m := mat.New(op.cfg.Channels, op.cfg.States)
	op.each(func(channel, at int) {
		for n := range m.Cols {
			m.Data[channel*m.Stride+n] = float32(float64(op.da[op.rateAt(at, n)]) / math.Log2E)
		}
	})
	return m
}

// Bytes returns the memory of the weights.
func (op *Scan) Bytes() int64 { return floatBytes(len(op.b) + len(op.c) + len(op.da) + len(op.bias)) }

// ScratchBytes returns the working memory that a call of one sequence takes at most,
// besides its arguments, however many tokens it has.
func (op *Scan) ScratchBytes(tokens int) int64 {
	return scratchBytes(int64(op.kind.Size) + op.workFloats(parallel.Workers(op.cfg.Workers)))
}

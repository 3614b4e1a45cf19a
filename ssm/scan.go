package ssm

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// ScanConfig fixes a Scan.
type ScanConfig struct {
	// Channels is D, States is N, the states of each channel.
	Channels, States int
	// Groups is G: channel d reads B and C of group d / (D/G). 0 is 1.
	Groups int
	// Softplus passes dt + DtBias through log(1 + exp).
	Softplus bool
	// DtMin and DtMax limit dt behind the softplus; a DtMax of 0 is no limit.
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
// It costs about 14 flop for each token, channel and state, whatever came before.
// A Scan is immutable and safe for concurrent use.
type Scan struct {
	cfg     ScanConfig
	kind    kind
	states  int // N, filled up to a multiple of 4
	slabs   []slab
	b, c    []float32 // [blocks][states][ScanBlock]
	da      []float32 // [blocks][1 + states][ScanBlock]: D, and below it A in base 2
	bias    []float32
	scratch scratch.List[scanScratch]
}

// slab is a run of channels of one group that a task takes: blocks of ScanBlock
// channels, of which the last may be filled up.
type slab struct{ group, channel, channels, block, blocks int }

// slabBlocks is how many blocks a slab has at most: its rows of a chunk stay in
// the second cache.
const slabBlocks = 16

// NewScan returns a scan, or an error that matches ErrConfig.
func NewScan(cfg ScanConfig, w ScanWeights) (*Scan, error) {
	if cfg.Groups == 0 {
		cfg.Groups = 1
	}
	d, n := cfg.Channels, cfg.States
	for _, f := range []struct {
		name string
		n    int
	}{{"Channels", d}, {"States", n}, {"Groups", cfg.Groups}} {
		if f.n <= 0 || f.n > maxSize {
			return nil, check.Errorf(ErrConfig, "ssm: %s is %d, want 1 to %d", f.name, f.n, maxSize)
		}
	}
	switch {
	case d%cfg.Groups != 0:
		return nil, check.Errorf(ErrConfig, "ssm: Groups is %d, want a divisor of Channels = %d", cfg.Groups, d)
	case sizeOf(d+kernel.ScanBlock*cfg.Groups, n+3) < 0:
		return nil, check.Errorf(ErrConfig, "ssm: %d states of %d channels are too many", n, d)
	}
	if err := checkDt(cfg.DtMin, cfg.DtMax, cfg.Workers); err != nil {
		return nil, err
	}
	if err := w.check(d, n); err != nil {
		return nil, err
	}
	op := &Scan{cfg: cfg, states: (n + 3) / 4 * 4}
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
	if gated(w.B) {
		op.b = op.packed(w.B, size)
	}
	if gated(w.C) {
		op.c = op.packed(w.C, size)
	}
	op.bias = cloned(w.DtBias)
	op.kind = kind{name: fmt.Sprintf("scan of %d channels in %d groups with %d states", d, cfg.Groups, n), size: size, channels: d}
	f := newFingerprint(op.kind.name)
	f.floats(op.da, op.b, op.c, op.bias, []float32{cfg.DtMin, cfg.DtMax})
	op.kind.hash = uint64(f)
	return op, nil
}

func checkDt(least, most float32, workers int) error {
	switch {
	case !(least >= 0) || math.IsInf(float64(least), 0):
		return check.Errorf(ErrConfig, "ssm: DtMin is %v, want a finite number, 0 or more", least)
	case most != 0 && !(most >= least) || math.IsInf(float64(most), 0):
		return check.Errorf(ErrConfig, "ssm: DtMax is %v, want a finite number, at least DtMin = %v, or 0 for no limit", most, least)
	case workers < 0:
		return check.Errorf(ErrConfig, "ssm: Workers is %d, want 0 or more", workers)
	}
	return nil
}

func (w *ScanWeights) check(d, n int) error {
	if err := check.Matrix(ErrConfig, "ssm", "A", w.A, d, n, "States"); err != nil {
		return err
	}
	for t := range d {
		if err := finite("A", w.A.Data[t*w.A.Stride:][:n]); err != nil {
			return err
		}
	}
	for name, m := range map[string]blas32.General{"B": w.B, "C": w.C} {
		if !gated(m) {
			continue
		}
		if err := check.Matrix(ErrConfig, "ssm", name, m, d, n, "States"); err != nil {
			return err
		}
	}
	for name, v := range map[string][]float32{"D": w.D, "DtBias": w.DtBias} {
		if v != nil && len(v) != d {
			return check.Errorf(ErrConfig, "ssm: %s has %d elements, want Channels = %d", name, len(v), d)
		}
	}
	return nil
}

func cloned(x []float32) []float32 {
	if x == nil {
		return nil
	}
	return append([]float32{}, x...)
}

// each calls f with every channel and the place of its first state.
func (op *Scan) each(f func(channel, at int)) {
	for _, s := range op.slabs {
		for c := range s.channels {
			f(s.channel+c, (s.block+c/kernel.ScanBlock)*op.states*kernel.ScanBlock+c%kernel.ScanBlock)
		}
	}
}

// packed brings a [D, N] matrix to the order of the states.
func (op *Scan) packed(m blas32.General, size int) []float32 {
	out := scratch.Floats(nil, size)
	clear(out)
	op.each(func(channel, at int) {
		for n, v := range m.Data[channel*m.Stride:][:op.cfg.States] {
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
		for n, v := range w.A.Data[channel*w.A.Stride:][:op.cfg.States] {
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

// NewState returns an empty state.
func (op *Scan) NewState(cfg StateConfig) (*State, error) { return op.kind.newState(cfg) }

// Read sets h [D, N] to what the state holds.
func (op *Scan) Read(h blas32.General, st *State) error {
	if err := op.checkStates(h, st); err != nil {
		return err
	}
	op.read(h, st.values)
	return nil
}

// Write makes h [D, N] what the state holds; Len stays. It is how a scan begins
// with an initial state.
func (op *Scan) Write(st *State, h blas32.General) error {
	if err := op.checkStates(h, st); err != nil {
		return err
	}
	op.each(func(channel, at int) {
		for n, v := range h.Data[channel*h.Stride:][:op.cfg.States] {
			st.values[at+n*kernel.ScanBlock] = v
		}
	})
	return nil
}

func (op *Scan) checkStates(h blas32.General, st *State) error {
	if err := op.kind.check("the state", st); err != nil {
		return err
	}
	return check.Matrix(ErrShape, "ssm", "h", h, op.cfg.Channels, op.cfg.States, "States")
}

func (op *Scan) read(h blas32.General, values []float32) {
	op.each(func(channel, at int) {
		row := h.Data[channel*h.Stride:][:op.cfg.States]
		for n := range row {
			row[n] = values[at+n*kernel.ScanBlock]
		}
	})
}

// ScanCall is a call of Scan with everything optional.
type ScanCall struct {
	// Dst, X and Dt are [n, D]. Dst may be X.
	Dst, X, Dt blas32.General
	// B and C are [n, G N], unless the weights have them.
	B, C blas32.General
	// Z [n, D], where it is given, gates the result.
	Z blas32.General
	// State is where the scan begins, and is brought up to date; nil is zero, and
	// nothing kept.
	State *State
	// Offsets packs several sequences into one call: the first row of each and at
	// last n. States, if given, has a state for each.
	Offsets []int
	States  []*State
	// Filter changes dt, behind that of a state (StateConfig).
	Filter DeltaFilter
	// Workers is how many goroutines the call may use, 0 for the configuration's.
	Workers int
}

// Forward scans a whole sequence from a state of zero. Working memory does not
// depend on its length; after the first call nothing is allocated.
func (op *Scan) Forward(dst, x, dt, b, c blas32.General) error {
	return op.Run(context.Background(), &ScanCall{Dst: dst, X: x, Dt: dt, B: b, C: c})
}

// Step scans the next tokens, one or many, behind those the state has seen.
func (op *Scan) Step(dst, x, dt, b, c blas32.General, st *State) error {
	if err := op.kind.check("the state", st); err != nil {
		return err
	}
	return op.Run(context.Background(), &ScanCall{Dst: dst, X: x, Dt: dt, B: b, C: c, State: st})
}

// StepBatch scans one token, a row, for each of many states.
func (op *Scan) StepBatch(dst, x, dt, b, c blas32.General, states []*State) error {
	call := ScanCall{Dst: dst, X: x, Dt: dt, B: b, C: c}
	return op.run(context.Background(), &call, packing{states: states, each: true})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match
// ErrShape or, once ctx is done, ctx.Err(); states then stand where they stood, and
// Dst is unspecified.
func (op *Scan) Run(ctx context.Context, call *ScanCall) error {
	return op.run(ctx, call, packing{state: call.State, offsets: call.Offsets, states: call.States})
}

func (op *Scan) run(ctx context.Context, call *ScanCall, p packing) error {
	if err := op.check(call); err != nil {
		return err
	}
	workers, err := callWorkers(call.Workers, op.cfg.Workers)
	if err != nil {
		return err
	}
	s := op.scratch.Get()
	defer op.scratch.Put(s)
	if err := s.sequences.begin(&op.kind, call.X.Rows, p, mayStop(ctx, call.Filter)); err != nil {
		return err
	}
	err = s.run(ctx, op, call, s.sequences.list, workers)
	s.sequences.end(err)
	return err
}

func (op *Scan) check(c *ScanCall) error {
	n, d := c.X.Rows, op.cfg.Channels
	shared := op.cfg.Groups * op.cfg.States
	return checkInputs(c.Dst, n, []input{
		{"X", c.X, d, "Channels", false},
		{"Dt", c.Dt, d, "Channels", false},
		{"B", c.B, shared, "Groups*States", op.b != nil},
		{"C", c.C, shared, "Groups*States", op.c != nil},
		{"Z", c.Z, d, "Channels", !gated(c.Z)},
	})
}

// input is a matrix of a call, [n, cols].
type input struct {
	name   string
	m      blas32.General
	cols   int
	what   string
	absent bool
}

// checkInputs wants inputs of n rows that dst, but for the first, does not touch.
func checkInputs(dst blas32.General, n int, inputs []input) error {
	for i, in := range inputs {
		if in.absent {
			if gated(in.m) {
				return check.Errorf(ErrShape, "ssm: %s is given, but the weights have it", in.name)
			}
			continue
		}
		if err := check.Matrix(ErrShape, "ssm", in.name, in.m, n, in.cols, in.what); err != nil {
			return err
		}
		if i > 0 && mat.Overlap(dst, in.m) {
			return check.Errorf(ErrShape, "ssm: dst shares elements with %s", in.name)
		}
	}
	return check.Output(ErrShape, "ssm", dst, n, inputs[0].cols, inputs[0].what, inputs[0].m, true)
}

// Identity names the scan, and says how many steps dt a token has: the channels.
func (op *Scan) Identity() Identity { return op.kind.identity() }

// Rates returns a copy of A [D, N].
func (op *Scan) Rates() blas32.General {
	m := mat.New(op.cfg.Channels, op.cfg.States)
	op.each(func(channel, at int) {
		for n := range m.Cols {
			m.Data[channel*m.Stride+n] = float32(float64(op.da[op.rateAt(at, n)]) / math.Log2E)
		}
	})
	return m
}

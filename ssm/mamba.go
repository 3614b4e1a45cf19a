package ssm

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// MambaConfig fixes a Mamba block; the shapes of the weights tell the rest.
type MambaConfig struct {
	// Eps is added to mean squares by the norms of dt, B and C, where there are
	// any; 0 is 1e-6.
	Eps float64
	// NormDtBC normalises dt, B and C (Falcon-Mamba).
	NormDtBC bool
	// Format is how the projections' weights are stored.
	Format asm.Format
	// Scratch is working memory to share with other blocks; nil is the block's own.
	Scratch *Scratch
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// MambaWeights are the weights of a Mamba block, as checkpoints have them. With I
// the inner width, R the rank of dt, N the states and K the taps:
type MambaWeights struct {
	In       blas32.General // in_proj.weight [2 I, Dim]
	InBias   []float32      // [2 I], or nil
	Conv     blas32.General // conv1d.weight [I, K]
	ConvBias []float32      // [I], or nil
	X        blas32.General // x_proj.weight [R + 2 N, I]
	Dt       blas32.General // dt_proj.weight [I, R]
	DtBias   []float32      // dt_proj.bias [I]
	ALog     blas32.General // A_log [I, N]
	D        []float32      // [I]
	Out      blas32.General // out_proj.weight [Dim, I]
	OutBias  []float32      // [Dim], or nil

	DtNorm, BNorm, CNorm []float32 // with NormDtBC: [R], [N], [N], or nil for 1
}

// Mamba is the block of Mamba (Gu and Dao 2023, arXiv 2312.00752, figure 3):
//
//	x, z = in_proj(input)
//	x = silu(conv(x))
//	dt, B, C = x_proj(x);  dt = dt_proj(dt)
//	dst = out_proj(scan(x, dt, B, C) silu(z))
//
// The state is that of the convolution and of the scan. It is immutable and safe
// for concurrent use.
type Mamba struct {
	block
	cfg             MambaConfig
	rank, states    int
	scan            *Scan
	xProj, dtProj   *dense.Linear
	dtN, bN, cN     []float32
	channels, small int
}

// NewMamba returns a Mamba block, or an error that matches ErrConfig. It keeps none
// of the weights' memory.
func NewMamba(cfg MambaConfig, w MambaWeights) (*Mamba, error) {
	inner, dim, states, rank := w.Out.Cols, w.Out.Rows, w.ALog.Cols, w.Dt.Cols
	if cfg.Eps == 0 {
		cfg.Eps = 1e-6
	}
	if err := checkSizes(size{"the inner width", inner}, size{"Dim", dim}, size{"States", states}, size{"the rank of dt", rank}, size{"the taps", w.Conv.Cols}); err != nil {
		return nil, err
	}
	if err := checkShapes(
		shape{"In", w.In, 2 * inner, dim, "Dim"},
		shape{"Conv", w.Conv, inner, w.Conv.Cols, "taps"},
		shape{"X", w.X, rank + 2*states, inner, "the inner width"},
		shape{"Dt", w.Dt, inner, rank, "the rank of dt"},
		shape{"ALog", w.ALog, inner, states, "States"},
		shape{"Out", w.Out, dim, inner, "the inner width"},
	); err != nil {
		return nil, err
	}
	if err := checkLengths(
		length{"InBias", w.InBias, 2 * inner, "2 * the inner width", true},
		length{"DtBias", w.DtBias, inner, "the inner width", true},
		length{"D", w.D, inner, "the inner width", true},
		length{"OutBias", w.OutBias, dim, "Dim", true},
		length{"DtNorm", w.DtNorm, rank, "the rank of dt", true},
		length{"BNorm", w.BNorm, states, "States", true},
		length{"CNorm", w.CNorm, states, "States", true},
	); err != nil {
		return nil, err
	}
	if err := checkFormat(cfg.Format); err != nil {
		return nil, err
	}
	if !(cfg.Eps > 0) || math.IsInf(cfg.Eps, 0) {
		return nil, check.Errorf(ErrConfig, "ssm: Eps is %v, want a finite number above 0", cfg.Eps)
	}
	a := zeroMatrix(inner, states)
	for t := range inner {
		copy(a.Data[t*states:], negativeExp(w.ALog.Data[t*w.ALog.Stride:][:states]))
	}
	scan, err := NewScan(ScanConfig{Channels: inner, States: states, Softplus: true, Workers: cfg.Workers},
		ScanWeights{A: a, D: w.D, DtBias: w.DtBias})
	if err != nil {
		return nil, err
	}
	conv, err := NewConv(ConvConfig{SiLU: true}, w.Conv, w.ConvBias)
	if err != nil {
		return nil, err
	}
	m := &Mamba{cfg: cfg, rank: rank, states: states, scan: scan, channels: inner, small: rank + 2*states}
	m.block = block{
		dim: dim, workers: cfg.Workers, wide: 2 * inner, inner: inner, conv: conv, mixer: m, scratch: ownOr(cfg.Scratch),
		in: dense.NewLinear(cfg.Format, w.In, w.InBias), out: dense.NewLinear(cfg.Format, w.Out, w.OutBias),
	}
	m.xProj, m.dtProj = dense.NewLinear(cfg.Format, w.X, nil), dense.NewLinear(asm.Float32, w.Dt, nil)
	m.dtN, m.bN, m.cN = cloned(w.DtNorm), cloned(w.BNorm), cloned(w.CNorm)
	m.finishKind(fmt.Sprintf("Mamba block of width %d and %d, %d states, %d taps", dim, inner, states, w.Conv.Cols), scan.kind.size,
		[]blas32.General{w.In, w.X, w.Dt, w.Out}, scan.kind.hash)
	return m, nil
}

func zeroMatrix(rows, cols int) blas32.General {
	return mat.Of(make([]float32, rows*cols), rows, cols)
}

// Bytes returns the memory of the projections' weights.
func (m *Mamba) Bytes() int { return m.block.Bytes() + m.xProj.Bytes() + m.dtProj.Bytes() }

// ReadWindow sets conv [K-1, I] to the inputs of the convolution that the state
// holds, oldest first.
func (m *Mamba) ReadWindow(conv blas32.General, st *State) error { return m.readWindow(conv, st) }

// ReadScan sets h [I, N] to the states of the scan that the state holds.
func (m *Mamba) ReadScan(h blas32.General, st *State) error {
	if err := m.kind.check("the state", st); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "ssm", "h", h, m.channels, m.states, "States"); err != nil {
		return err
	}
	m.scan.read(h, st.values[m.conv.kind.size:])
	return nil
}

func (b *block) readWindow(conv blas32.General, st *State) error {
	if err := b.kind.check("the state", st); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "ssm", "conv", conv, b.conv.taps.Rows-1, b.conv.taps.Cols, "channels"); err != nil {
		return err
	}
	copyRows(conv, mat.Of(st.values, conv.Rows, conv.Cols))
	return nil
}

// mix implements mixer.
func (m *Mamba) mix(ctx context.Context, s *blockScratch) error {
	if err := s.convolve(ctx, 0); err != nil {
		return err
	}
	s.smallData, s.dtData = scratch.Floats(s.smallData, s.n*m.small), scratch.Floats(s.dtData, s.n*m.channels)
	s.small, s.dt = mat.Of(s.smallData, s.n, m.small), mat.Of(s.dtData, s.n, m.channels)
	if err := s.tasks(ctx, s.mid); err != nil {
		return err
	}
	return s.scan.run(ctx, m.scan, &ScanCall{
		Dst: s.y, X: s.x, Dt: s.dt, Z: mat.Columns(s.u, m.channels, m.channels), Filter: s.call.Filter,
		B: mat.Columns(s.small, m.rank, m.states), C: mat.Columns(s.small, m.rank+m.states, m.states),
	}, s.mixers, s.workers)
}

// holds implements mixer.
func (m *Mamba) holds(n, workers int) int64 {
	return int64(n)*int64(m.small+m.channels) + m.scan.holds(workers)
}

// middle computes dt, B and C of some rows.
func (m *Mamba) middle(s *blockScratch, _, from, to int) {
	small := mat.Rows(s.small, from, to)
	m.xProj.Forward(small, mat.Rows(s.x, from, to))
	if m.cfg.NormDtBC {
		for t := range small.Rows {
			row := small.Data[t*small.Stride:][:small.Cols]
			dt, b, c := row[:m.rank], row[m.rank:m.rank+m.states], row[m.rank+m.states:]
			asm.RMSNorm(dt, dt, m.dtN, float32(m.cfg.Eps))
			asm.RMSNorm(b, b, m.bN, float32(m.cfg.Eps))
			asm.RMSNorm(c, c, m.cN, float32(m.cfg.Eps))
		}
	}
	m.dtProj.Forward(mat.Rows(s.dt, from, to), mat.Columns(small, 0, m.rank))
}

// Rates returns a copy of A: [I, N].
func (m *Mamba) Rates() blas32.General { return m.scan.Rates() }

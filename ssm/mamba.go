package ssm

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// MambaConfig fixes a Mamba block; the shapes of the weights tell the rest.
type MambaConfig struct {
	// Eps is added to mean squares by the norms of dt, B and C, where there are
	// any; 0 is 1e-6.
	Eps float64
	// NormDtBC normalises dt, B and C (Falcon-Mamba).
	NormDtBC bool
	// Format is how the projections' weights are stored; 0 is Float32.
	Format asm.Format
	// Scratch is working memory to share with other blocks; nil is the block's own.
	Scratch *Scratch
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// MambaWeights are the weights of a Mamba block, as checkpoints have them. I is
// the inner width, R the rank of dt, N the states and K the taps.
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
	cfg           MambaConfig
	rank, states  int // R, N
	channels      int // I
	small         int // R + 2 N
	scan          *Scan
	xProj, dtProj *dense.Linear // [small, I], [I, R]
	dtN, bN, cN   []float32     // [R], [N], [N]: weights of norms, or nil
}

// NewMamba returns a Mamba block, or an error that matches ErrConfig. It keeps none
// of the weights' memory.
func NewMamba(cfg MambaConfig, w MambaWeights) (*Mamba, error) {
	if cfg.Eps == 0 {
		cfg.Eps = 1e-6
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	if err := checkFormat(cfg.Format); err != nil {
		return nil, err
	}
	if err := checkEps(cfg.Eps); err != nil {
		return nil, err
	}
	inner, dim, states, rank := w.Out.Cols, w.Out.Rows, w.ALog.Cols, w.Dt.Cols
	a := mat.New(inner, states)
	for t := range inner {
		copy(mat.Row(a, t), negativeExp(mat.Row(w.ALog, t)))
	}
	scan, err := NewScan(ScanConfig{Channels: inner, States: states, Softplus: true, Workers: cfg.Workers},
		ScanWeights{A: a, D: w.D, DtBias: w.DtBias})
	if err != nil {
		return nil, err
	}
	conv, err := NewConv(ConvConfig{SiLU: true}, ConvWeights{w.Conv, w.ConvBias})
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
	m.identify(fmt.Sprintf("Mamba block of width %d and %d, %d states, %d taps", dim, inner, states, w.Conv.Cols),
		&scan.kind, int64(inner)*int64(m.small+rank), []int64{state.Bool(cfg.NormDtBC), int64(math.Float64bits(cfg.Eps))},
		[]blas32.General{w.In, w.X, w.Dt, w.ALog, w.Out}, w.InBias, w.DtBias, w.D, w.OutBias, w.DtNorm, w.BNorm, w.CNorm)
	return m, nil
}

func (w *MambaWeights) check() error {
	inner, dim, states, rank := w.Out.Cols, w.Out.Rows, w.ALog.Cols, w.Dt.Cols
	if err := checkSizes(
		size{"the number of rows of Out, Dim,", dim}, size{"the number of columns of Out, the inner width,", inner},
		size{"the number of columns of ALog, States,", states}, size{"the number of columns of Dt, the rank,", rank},
		size{"the number of columns of Conv, the taps,", w.Conv.Cols},
	); err != nil {
		return err
	}
	if err := checkMatrices(
		matrixWeight{"In", w.In, 2 * inner, dim, "Dim"},
		matrixWeight{"Conv", w.Conv, inner, w.Conv.Cols, "taps"},
		matrixWeight{"X", w.X, rank + 2*states, inner, "the inner width"},
		matrixWeight{"Dt", w.Dt, inner, rank, "the rank of dt"},
		matrixWeight{"ALog", w.ALog, inner, states, "States"},
		matrixWeight{"Out", w.Out, dim, inner, "the inner width"},
	); err != nil {
		return err
	}
	if err := checkFinite("ALog", w.ALog); err != nil {
		return err
	}
	return checkVectors(
		vectorWeight{"InBias", w.InBias, 2 * inner, "2 * the inner width", true},
		vectorWeight{"ConvBias", w.ConvBias, inner, "the inner width", true},
		vectorWeight{"DtBias", w.DtBias, inner, "the inner width", true},
		vectorWeight{"D", w.D, inner, "the inner width", true},
		vectorWeight{"OutBias", w.OutBias, dim, "Dim", true},
		vectorWeight{"DtNorm", w.DtNorm, rank, "the rank of dt", true},
		vectorWeight{"BNorm", w.BNorm, states, "States", true},
		vectorWeight{"CNorm", w.CNorm, states, "States", true},
	)
}

// Bytes returns the memory of the weights.
func (m *Mamba) Bytes() int64 {
	return m.block.bytes() + m.scan.Bytes() + int64(m.xProj.Bytes()) + int64(m.dtProj.Bytes()) + floatBytes(len(m.dtN)+len(m.bN)+len(m.cN))
}

// ReadWindow sets conv [K-1, I] to the last inputs of the convolution, oldest first, in
// a state. Errors match ErrShape or ErrState.
func (m *Mamba) ReadWindow(conv blas32.General, st *State) error { return m.readWindow(conv, st) }

// ReadScan sets h [I, N] to the states of the scan in a state of the block. Errors match
// ErrShape or ErrState.
func (m *Mamba) ReadScan(h blas32.General, st *State) error {
	if err := m.kind.acceptRead(st, "h", h, m.channels, m.states, "States"); err != nil {
		return err
	}
	m.scan.readStates(h, m.recurrence(st))
	return nil
}

// mix implements mixer.
func (m *Mamba) mix(ctx context.Context, s *blockWork) error {
	if err := s.convolveColumns(ctx, 0); err != nil {
		return err
	}
	s.smallData, s.dtData = scratch.Floats(s.smallData, s.n*m.small), scratch.Floats(s.dtData, s.n*m.channels)
	s.small, s.dt = mat.Of(s.smallData, s.n, m.small), mat.Of(s.dtData, s.n, m.channels)
	if err := s.eachRows(ctx, s.mid); err != nil {
		return err
	}
	return s.scan.scan(ctx, m.scan, &ScanCall{
		Dst: s.y, X: s.x, Dt: s.dt, Z: mat.Columns(s.u, m.channels, m.channels), Filter: s.call.Filter,
		B: mat.Columns(s.small, m.rank, m.states), C: mat.Columns(s.small, m.rank+m.states, m.states),
	}, s.mixers, s.workers)
}

// workFloats implements mixer.
func (m *Mamba) workFloats(n, workers int) int64 {
	return int64(n)*int64(m.small+m.channels) + m.scan.workFloats(workers)
}

// middle computes dt, B and C of some rows.
func (m *Mamba) middle(s *blockWork, _, from, to int) {
	small := mat.Rows(s.small, from, to)
	m.xProj.ForwardIn(&s.group, small, mat.Rows(s.x, from, to))
	if m.cfg.NormDtBC {
		for t := range small.Rows {
			row := mat.Row(small, t)
			dt, b, c := row[:m.rank], row[m.rank:m.rank+m.states], row[m.rank+m.states:]
			asm.RMSNorm(dt, dt, m.dtN, float32(m.cfg.Eps))
			asm.RMSNorm(b, b, m.bN, float32(m.cfg.Eps))
			asm.RMSNorm(c, c, m.cN, float32(m.cfg.Eps))
		}
	}
	m.dtProj.ForwardIn(&s.group, mat.Rows(s.dt, from, to), mat.Columns(small, 0, m.rank))
}

// Rates returns a copy of A: [I, N].
func (m *Mamba) Rates() blas32.General { return m.scan.Rates() }

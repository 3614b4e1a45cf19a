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
	"github.com/subquad/subquad/internal/state"
)

// Mamba2Config fixes a Mamba2 block; the shapes of the weights tell the rest.
type Mamba2Config struct {
	// States is N, the states of each channel; 0 is 128.
	States int
	// HeadDim is P, the channels of a head; 0 is 64.
	HeadDim int
	// Groups is G: heads of a group share B and C, and its channels are normalised
	// together (but see NormGroups). 0 is 1.
	Groups int
	// NormGroups is in how many parts, of equal width, a token's channels are normalised,
	// each by itself; 0 is Groups. Hugging Face's Bamba and Granite have 1.
	NormGroups int
	// NoNorm leaves out the norm before the last projection; the gate is then
	// a plain product (rmsnorm=False).
	NoNorm bool
	// NormBeforeGate gates what is normalised, instead of normalising what is gated.
	NormBeforeGate bool
	// DtMin and DtMax limit dt after the softplus, in prefill and step alike; a
	// DtMax of 0 is no limit.
	DtMin, DtMax float32
	// Eps is added to mean squares; 0 is 1e-5.
	Eps float64
	// Format is how the projections' weights are stored; 0 is Float32.
	Format asm.Format
	// Scratch is working memory to share with other blocks; nil is the block's own.
	Scratch *Scratch
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Mamba2Weights are the weights of a Mamba2 block, as checkpoints have them. There
// are H heads of P channels, S = H P, N states and G groups.
type Mamba2Weights struct {
	// In is in_proj.weight, [2 M + 2 S + 2 G N + H, Dim]: for M channels beside the
	// heads, as a rule none, the gate and input of an MLP; the gate z; x; B; C; dt.
	In       blas32.General
	InBias   []float32      // or nil
	Conv     blas32.General // conv1d.weight [S + 2 G N, K]
	ConvBias []float32      // [S + 2 G N], or nil
	DtBias   []float32      // dt_bias [H]
	ALog     []float32      // A_log [H]
	D        []float32      // [H] or [H P]
	Norm     []float32      // norm.weight [S], unless NoNorm
	Out      blas32.General // out_proj.weight [Dim, M + S]
	OutBias  []float32      // [Dim], or nil
}

// Mamba2 is the block of Mamba-2 (Dao and Gu 2024, arXiv 2405.21060, figure 6):
//
//	z, x, B, C, dt = in_proj(input)
//	x, B, C = silu(conv(x, B, C))
//	dst = out_proj(norm(SSD(x, dt, B, C), z))
//
// The state is that of the convolution and of the SSD. It is immutable and safe for
// concurrent use.
type Mamba2 struct {
	block
	cfg   Mamba2Config
	heads int // H
	mlp   int // M
	ssd   *SSD
	norm  *GatedNorm // nil with NoNorm
}

// NewMamba2 returns a Mamba2 block, or an error that matches ErrConfig. It keeps
// none of the weights' memory.
func NewMamba2(cfg Mamba2Config, w Mamba2Weights) (*Mamba2, error) {
	for _, f := range []struct {
		field   *int
		without int
	}{{&cfg.States, 128}, {&cfg.HeadDim, 64}, {&cfg.Groups, 1}} {
		if *f.field == 0 {
			*f.field = f.without
		}
	}
	if cfg.NormGroups == 0 {
		cfg.NormGroups = cfg.Groups
	}
	if cfg.Eps == 0 {
		cfg.Eps = 1e-5
	}
	if err := w.check(&cfg); err != nil {
		return nil, err
	}
	if err := checkFormat(cfg.Format); err != nil {
		return nil, err
	}
	heads, dim := len(w.ALog), w.Out.Rows
	wide := heads * cfg.HeadDim
	ssd, err := NewSSD(SSDConfig{
		Heads: heads, HeadDim: cfg.HeadDim, States: cfg.States, Groups: cfg.Groups,
		Softplus: true, DtMin: cfg.DtMin, DtMax: cfg.DtMax, Workers: cfg.Workers,
	}, SSDWeights{A: negativeExp(w.ALog), D: w.D, DtBias: w.DtBias})
	if err != nil {
		return nil, err
	}
	conv, err := NewConv(ConvConfig{SiLU: true}, ConvWeights{w.Conv, w.ConvBias})
	if err != nil {
		return nil, err
	}
	m := &Mamba2{cfg: cfg, heads: heads, mlp: w.Out.Cols - wide, ssd: ssd}
	if !cfg.NoNorm {
		m.norm, err = NewGatedNorm(GatedNormConfig{GroupSize: wide / cfg.NormGroups, NormBeforeGate: cfg.NormBeforeGate, Eps: cfg.Eps}, GatedNormWeights{w.Norm})
		if err != nil {
			return nil, err
		}
	}
	m.block = block{
		dim: dim, workers: cfg.Workers, wide: w.In.Rows, inner: w.Out.Cols, conv: conv, mixer: m, scratch: ownOr(cfg.Scratch),
		in: dense.NewLinear(cfg.Format, w.In, w.InBias), out: dense.NewLinear(cfg.Format, w.Out, w.OutBias),
	}
	numbers := []int64{state.Bool(cfg.NoNorm), state.Bool(cfg.NormBeforeGate), int64(math.Float64bits(cfg.Eps))}
	if cfg.NormGroups != cfg.Groups {
		numbers = append(numbers, int64(cfg.NormGroups))
	}
	m.identify(fmt.Sprintf("Mamba2 block of width %d, %d heads of %d, %d groups, %d states, %d taps", dim, heads, cfg.HeadDim, cfg.Groups, cfg.States, w.Conv.Cols),
		&ssd.kind, 0, numbers,
		[]blas32.General{w.In, w.Out}, w.InBias, w.DtBias, w.ALog, w.D, w.Norm, w.OutBias, []float32{cfg.DtMin, cfg.DtMax})
	return m, nil
}

func (w *Mamba2Weights) check(cfg *Mamba2Config) error {
	heads, dim := len(w.ALog), w.Out.Rows
	if err := checkSizes(size{"States", cfg.States}, size{"HeadDim", cfg.HeadDim}, size{"Groups", cfg.Groups}, size{"NormGroups", cfg.NormGroups},
		size{"the number of elements of ALog, the heads,", heads}, size{"the number of rows of Out, Dim,", dim},
		size{"the number of columns of Conv, the taps,", w.Conv.Cols}); err != nil {
		return err
	}
	if check.Product(maxFloats, heads, cfg.HeadDim) < 0 || check.Product(maxFloats, 2, cfg.Groups, cfg.States) < 0 {
		return check.Errorf(ErrConfig, "ssm: %d heads of %d channels, %d groups of %d states are too many", heads, cfg.HeadDim, cfg.Groups, cfg.States)
	}
	wide, shared := heads*cfg.HeadDim, 2*cfg.Groups*cfg.States
	if cfg.NormGroups != cfg.Groups && wide%cfg.NormGroups != 0 {
		return check.Errorf(ErrConfig, "ssm: NormGroups is %d, want a divisor of Heads*HeadDim = %d", cfg.NormGroups, wide)
	}
	mlp := w.Out.Cols - wide
	if mlp < 0 || mlp > maxSize {
		return check.Errorf(ErrConfig, "ssm: Out has %d columns, want at least Heads*HeadDim = %d", w.Out.Cols, wide)
	}
	if err := checkMatrices(
		matrixWeight{"In", w.In, 2*mlp + 2*wide + shared + heads, dim, "Dim"},
		matrixWeight{"Conv", w.Conv, wide + shared, w.Conv.Cols, "taps"},
		matrixWeight{"Out", w.Out, dim, mlp + wide, "channels"},
	); err != nil {
		return err
	}
	if err := check.Finite(ErrConfig, "ssm", "ALog", w.ALog); err != nil {
		return err
	}
	return checkVectors(
		vectorWeight{"InBias", w.InBias, w.In.Rows, "rows of In", true},
		vectorWeight{"ConvBias", w.ConvBias, w.Conv.Rows, "rows of Conv", true},
		vectorWeight{"DtBias", w.DtBias, heads, "heads", true},
		vectorWeight{"Norm", w.Norm, wide, "Heads*HeadDim", cfg.NoNorm},
		vectorWeight{"OutBias", w.OutBias, dim, "Dim", true},
	)
}

// Bytes returns the memory of the weights.
func (m *Mamba2) Bytes() int64 {
	n := m.block.bytes() + m.ssd.Bytes()
	if m.norm != nil {
		n += m.norm.Bytes()
	}
	return n
}

// ReadWindow sets conv [K-1, S + 2 G N] to the last inputs of the convolution, oldest
// first, in a state. Errors match ErrShape or ErrState.
func (m *Mamba2) ReadWindow(conv blas32.General, st *State) error { return m.readWindow(conv, st) }

// ReadSSD sets h [H P, N] to the states of the SSD in a state of the block, a row for
// each channel. Errors match ErrShape or ErrState.
func (m *Mamba2) ReadSSD(h blas32.General, st *State) error {
	if err := m.kind.acceptRead(st, "h", h, m.heads*m.cfg.HeadDim, m.cfg.States, "States"); err != nil {
		return err
	}
	m.ssd.readStates(h, m.recurrence(st))
	return nil
}

// mix implements mixer.
func (m *Mamba2) mix(ctx context.Context, s *blockWork) error {
	wide, shared := m.heads*m.cfg.HeadDim, m.cfg.Groups*m.cfg.States
	first := 2*m.mlp + wide // of x, B and C
	if err := s.convolveColumns(ctx, first); err != nil {
		return err
	}
	call := SSDCall{
		Dst: mat.Columns(s.y, m.mlp, wide), X: mat.Columns(s.x, 0, wide), Filter: s.call.Filter,
		B: mat.Columns(s.x, wide, shared), C: mat.Columns(s.x, wide+shared, shared),
		Dt: mat.Columns(s.u, first+wide+2*shared, m.heads),
	}
	if m.norm == nil {
		call.Z = mat.Columns(s.u, 2*m.mlp, wide)
	}
	if err := s.ssd.sweep(ctx, m.ssd, &call, s.mixers, s.workers); err != nil {
		return err
	}
	if m.norm == nil && m.mlp == 0 {
		return nil
	}
	return s.eachRows(ctx, s.mid)
}

// workFloats implements mixer.
func (m *Mamba2) workFloats(n, workers int) int64 {
	return int64(workers)*int64(m.heads*m.cfg.HeadDim) + m.ssd.workFloats(n, workers)
}

// middle normalises and gates some rows of y.
func (m *Mamba2) middle(s *blockWork, worker, from, to int) {
	wide := m.heads * m.cfg.HeadDim
	u, y := mat.Rows(s.u, from, to), mat.Rows(s.y, from, to)
	for t := range y.Rows { // silu(z0) x0
		row := mat.Part(y, t, 0, m.mlp)
		asm.SiLU(row, mat.Part(u, t, 0, m.mlp))
		asm.Mul(row, row, mat.Part(u, t, m.mlp, m.mlp))
	}
	if m.norm != nil {
		s.gates[worker] = scratch.Floats(s.gates[worker], wide)
		ssd := mat.Columns(y, m.mlp, wide)
		m.norm.normalise(ssd, ssd, mat.Columns(u, 2*m.mlp, wide), s.gates[worker])
	}
}

// Rates returns a copy of A: [H, 1].
func (m *Mamba2) Rates() blas32.General { return m.ssd.Rates() }

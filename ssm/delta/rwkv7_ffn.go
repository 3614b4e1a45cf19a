package delta

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state"
)

// RWKV7FFNConfig fixes an RWKV7FFN.
type RWKV7FFNConfig struct {
	// Format is how the weights are stored; 0 is Float32.
	Format asm.Format
	// Scratch is working memory to share with other blocks; nil is the block's own.
	Scratch *Scratch
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// RWKV7FFNWeights are the weights of an RWKV7FFN, under blocks.i.ffn in official files.
type RWKV7FFNWeights struct {
	// XK is x_k [Dim].
	XK []float32
	// Key is key.weight [wide, Dim], Value value.weight [Dim, wide].
	Key, Value blas32.General
}

// RWKV7FFN is the channel mixing of RWKV-7, between a layer's norm ln2 and its residual
// sum. With d_t = x_{t-1} - x_t:
//
//	dst = value(relu(key(x + d x_k))^2)
//
// The state is x of the last token. It is immutable and safe for concurrent use.
type RWKV7FFN struct {
	block
	mix        []float32
	key, value *dense.Linear
	zeros      []float32 // [wide]
}

// NewRWKV7FFN returns a block, or an error that matches ErrConfig. It keeps none of the
// weights' memory.
func NewRWKV7FFN(cfg RWKV7FFNConfig, w RWKV7FFNWeights) (*RWKV7FFN, error) {
	dim, wide := w.Value.Rows, w.Value.Cols
	switch {
	case dim <= 0 || dim > maxSize || wide <= 0 || wide > maxSize:
		return nil, check.Errorf(ErrConfig, "delta: Value is %d x %d, want Dim x wide, 1 to %d", dim, wide, maxSize)
	case cfg.Format > asm.Float16:
		return nil, check.Errorf(ErrConfig, "delta: Format is %d, want %d to %d", cfg.Format, asm.Float32, asm.Float16)
	}
	if err := check.Workers(ErrConfig, "delta", cfg.Workers); err != nil {
		return nil, err
	}
	p := dense.Packer{Package: "delta", Format: cfg.Format}
	b := &RWKV7FFN{zeros: make([]float32, wide)}
	b.mix = p.Vector("XK", w.XK, dim, false)
	b.key = p.Linear("Key", w.Key, nil, wide, dim)
	b.value = p.Linear("Value", w.Value, nil, dim, wide)
	if p.Err != nil {
		return nil, p.Err
	}
	b.block = block{dim: dim, window: dim, workers: cfg.Workers, body: b, scratch: ownOr(cfg.Scratch)}
	name := fmt.Sprintf("RWKV7FFN block of width %d and %d", dim, wide)
	f := state.NewFingerprint(name, int64(b.key.Fingerprint()), int64(b.value.Fingerprint()))
	f.Floats(b.mix)
	b.kind = newKind(name, dim, f, 2*int64(dim)*int64(wide))
	b.weights = int64(b.key.Bytes()) + int64(b.value.Bytes()) + 4*int64(len(b.mix)+len(b.zeros))
	return b, nil
}

// ReadShift sets x [1, Dim] to the last token's input in a state, behind the layer's norm.
// Errors match ErrShape or ErrState.
func (b *RWKV7FFN) ReadShift(x blas32.General, st *State) error { return b.readShift(x, st) }

// WriteShift makes x [1, Dim] the last token's input in a state. Errors match ErrShape or
// ErrState.
func (b *RWKV7FFN) WriteShift(st *State, x blas32.General) error { return b.writeShift(st, x) }

func (b *RWKV7FFN) workFloats(n, workers int) int64 {
	return int64(n)*int64(b.dim) + int64(workers)*int64(min(n, dense.BlockRows))*int64(len(b.zeros))
}

// pass implements body.
func (b *RWKV7FFN) pass(ctx context.Context, s *blockWork) error {
	s.ffn = b
	if s.tasks[5] == nil {
		s.tasks[5] = s.finishFFN
	}
	s.rows[0].size(s.n, b.dim)
	x, in := s.in(), s.rows[0].General
	s.shifts(in, x, 0, s.n)
	mixed(in, x, in, b.mix)
	s.keepWindow(x, 1, 0)
	return s.eachRows(ctx, s.tasks[5])
}

func (s *blockWork) finishFFN(worker, i int) {
	b, h := s.ffn, &s.own[worker][0]
	from, to := s.taskRows(i)
	h.size(to-from, len(b.zeros))
	b.key.ForwardIn(&s.group, h.General, mat.Rows(s.rows[0].General, from, to))
	for t := range h.Rows {
		row := mat.Row(h.General, t)
		asm.Maximum(row, row, b.zeros)
		asm.Mul(row, row, row)
	}
	b.value.ForwardIn(&s.group, mat.Rows(s.out(), from, to), h.General)
}

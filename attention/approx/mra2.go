package approx

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/tile"
)

// MRA2Config fixes an MRA2.
type MRA2Config struct {
	// Heads is H, KVHeads G a divisor of it (0 stands for Heads), HeadDim D and
	// ValueDim Dv (0 stands for HeadDim), as in package attention.
	Heads, KVHeads, HeadDim, ValueDim int
	// Scale multiplies q.k; 0 stands for 1/sqrt(HeadDim).
	Scale float32
	// Block is b, the tokens of a block; 0 stands for 32.
	Block int
	// Pairs is how many pairs of a block of queries and a block of keys each head attends to
	// exactly, or all where there are no more; 0 stands for PairsPerRow for each block of
	// queries.
	Pairs int
	// PairsPerRow, where Pairs is 0, is how many pairs there are for each block of queries,
	// on average; 0 stands for 4.
	PairsPerRow int
	// Diagonals puts the pairs of blocks that are at most Diagonals/2 apart before all others,
	// 1 those of a block with itself; 0 has no such preference.
	Diagonals int
	// Sparse leaves out the pairs that are not exact, in place of approximating them.
	Sparse bool
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// MRA2 is multiresolution attention of two resolutions (Zeng et al. 2022, arXiv 2207.10284), an
// approximation of softmax attention: with q', k' and v' the means of blocks of b tokens,
//
//	low[x][y] = Scale q'[x].k'[y]                                          [n/b, n/b]
//	chosen    = the Pairs largest low[x][y] - max over y of low[x][y]
//	p[i][j]   = exp(Scale q[i].k[j])      in chosen pairs of blocks
//	            exp(low[x][y])            in the others; 0 with Sparse
//	out[i]    = sum over j of p[i][j] v[j] / (sum over j of p[i][j] + Eps)
//
// for each head, where i is in block x and j in block y. Eps is 1e-6 after the exponents were
// lessened by the largest of the exact ones of the row and, unless Sparse, of all low[x]. The
// last block may be shorter. Which of equal pairs are chosen is the first in order, row by row.
//
// Where tokens have log-weights w, which is ours and not the paper's, exact logits have w[j]
// added, a block's means are weighted with exp(w), and low[x][y] has the logarithm of the mean
// of exp(w) over block y added: tokens that are merged give what they gave before, if blocks
// shrink as they do. Padding (Options.Valid) counts nowhere, and its rows of Dst are 0.
//
// Queries and keys are the same tokens, and a query sees all of them: blocks are chosen among
// all, so that it is not causal and there is no State. NaN in a query or key leaves nothing to
// choose by: results of all queries whose blocks are compared with it are NaN, Sparse or not; Sparse,
// one in a value reaches the queries whose pairs have it. Logits of 1e8 and more are rounded by more
// than exponents reach: unless Sparse, where the tokens of a block are alike, their mean's may pass
// theirs by so much that a row is 0.
//
// It costs 2 b PairsPerRow (D + Dv) flop for each token and head, and 2 n (2 D + Dv) / b^2 for
// low, of which it holds some rows at a time. There may be 46340 blocks, 1.4 million tokens in
// blocks of 32. An MRA2 is immutable and safe for concurrent use.
type MRA2 struct {
	cfg     MRA2Config
	shape   shape
	tile    kernel.AttentionTile
	given   func(head int) []int32 // for tests: pairs in place of those that are chosen
	scratch scratch.List[mraRun]
}

const (
	maxBlock  = 1 << 10 // tokens of a block, at most
	maxBlocks = 46340   // of a sequence: pairs are numbered in an int32
	mraEps    = 1e-6
)

// NewMRA2 returns an operator, or an error that matches ErrConfig.
func NewMRA2(cfg MRA2Config) (*MRA2, error) {
	sh, err := newShape(cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.ValueDim, cfg.Workers)
	if err != nil {
		return nil, err
	}
	fail := func(format string, args ...any) (*MRA2, error) {
		return nil, check.Errorf(ErrConfig, "approx: "+format, args...)
	}
	const most = math.MaxInt32
	switch {
	case !finite(cfg.Scale):
		return fail("Scale is %v, want a finite number", cfg.Scale)
	case cfg.Block < 0 || cfg.Block > maxBlock:
		return fail("Block is %d, want 0 to %d", cfg.Block, maxBlock)
	case cfg.Pairs < 0 || cfg.Pairs > most:
		return fail("Pairs is %d, want 0 to %d", cfg.Pairs, most)
	case cfg.PairsPerRow < 0 || cfg.PairsPerRow > maxBlocks:
		return fail("PairsPerRow is %d, want 0 to %d", cfg.PairsPerRow, maxBlocks)
	case cfg.Pairs != 0 && cfg.PairsPerRow != 0:
		return fail("Pairs is %d and PairsPerRow %d, want one of them", cfg.Pairs, cfg.PairsPerRow)
	case cfg.Diagonals < 0 || cfg.Diagonals > 2*maxBlocks:
		return fail("Diagonals is %d, want 0 to %d", cfg.Diagonals, 2*maxBlocks)
	}
	if cfg.Scale == 0 {
		cfg.Scale = float32(1 / math.Sqrt(float64(sh.dim)))
	}
	if cfg.Block == 0 {
		cfg.Block = 32
	}
	if cfg.PairsPerRow == 0 {
		cfg.PairsPerRow = 4
	}
	return &MRA2{cfg: cfg, shape: sh, tile: kernel.NewAttentionTile()}, nil
}

// blocks is how many blocks n tokens have.
func (m *MRA2) blocks(n int) int { return n/m.cfg.Block + (n%m.cfg.Block+m.cfg.Block-1)/m.cfg.Block }

// pairs is how many pairs of so many blocks are chosen.
func (m *MRA2) pairs(blocks int) int {
	most := int64(blocks) * int64(blocks)
	if m.cfg.Pairs > 0 {
		return int(min(int64(m.cfg.Pairs), most))
	}
	return int(min(int64(m.cfg.PairsPerRow)*int64(blocks), most))
}

// Forward attends over one sequence: q is [tokens, Heads*HeadDim], k [tokens,
// KVHeads*HeadDim], v [tokens, KVHeads*ValueDim] and dst [tokens,
// Heads*ValueDim], heads side by side. Inputs may overlap each other, dst none
// of them. After the first calls of a shape nothing is allocated. Errors match ErrShape.
func (m *MRA2) Forward(dst, q, k, v blas32.General) error {
	return m.resolve(context.Background(), request{Dst: dst, Q: q, K: k, V: v})
}

// Run is Forward with everything optional, and an end: when ctx is done it
// returns ctx.Err() and leaves Dst in an unspecified state. Of a Call it takes K and V of
// one segment, Offsets, KOffsets, LogWeights, Workers and an *Options for Options; any
// other option is an error. Errors about matrices match ErrShape, those about options
// ErrCall; both come before anything is written.
func (m *MRA2) Run(ctx context.Context, call *attention.Call) error {
	var q request
	if err := q.take(ctx, call, uses); err != nil {
		return err
	}
	return m.resolve(ctx, q)
}

// resolve runs a call.
func (m *MRA2) resolve(ctx context.Context, q request) error {
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	return r.solve(ctx, m, q)
}

// Bytes returns 0: the operator has neither weights nor tables. Working memory counts for
// itself.
func (m *MRA2) Bytes() int64 { return 0 }

// ScratchBytes returns the working memory that a call of one sequence holds, at
// the most, besides its arguments.
func (m *MRA2) ScratchBytes(tokens int) int64 {
	s, blocks := &m.shape, int64(m.blocks(tokens))
	h, g, d, dv := int64(s.heads), int64(s.kvHeads), int64(s.dim), int64(s.valueDim)
	means := blocks*(h*d+g*(d+dv+2)+1) + g*((blocks+maxPanel)*d+blocks*(dv+maxPanel))
	chosen := h * (25*max(4*int64(m.pairs(m.blocks(tokens))), 256)/4 + 3*(blocks+2))
	keys, rows := int64(m.tileKeys()), int64(m.cfg.Block)
	low := min(max(lowScores, blocks), blocks*blocks) + mraRows*(blocks+dv+2)
	each := low + rows*(d+dv+maxPanel+keys+tile.Pad+3) + 2*keys*(d+dv+maxPanel+1)
	const rest = 1 << 14
	return 4*(means+chosen+int64(parallel.Workers(m.cfg.Workers))*each) + rest + 256*(h+2*g)
}

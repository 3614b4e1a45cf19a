package catanet

import (
	"context"
	"errors"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// GroupCall is a call of GroupAttention. Centres, Offsets and Workers are optional.
type GroupCall struct {
	// Dst is [tokens, Heads*ValueDim], Q and K [tokens, Heads*HeadDim], V [tokens,
	// Heads*ValueDim]. Dst shares no element with the others.
	Dst, Q, K, V blas32.General
	// Bucket [tokens] is what tokens are sorted by: 0 or more. AssignCenters makes it.
	Bucket []int32
	// CenterK [centres, Heads*HeadDim] and CenterV [centres, Heads*ValueDim] are what
	// every query attends to besides its group.
	CenterK, CenterV blas32.General
	// Offsets packs several sequences, each sorted by itself: the first row of each and
	// at last the number of rows.
	Offsets []int
	// Workers is how many goroutines the call may use; 0 stands for the Config's.
	Workers int
}

// checkGroups reports what is wrong with a call. It fills r.offsets.
func (r *groupRun) checkGroups(ctx context.Context, cfg *GroupConfig, c *GroupCall) error {
	if err := check.Call("catanet", ctx, c != nil); err != nil {
		return err
	}
	qk, cols, n := cfg.Heads*cfg.HeadDim, cfg.Heads*cfg.ValueDim, c.Q.Rows
	if n > maxTokens {
		return check.Errorf(ErrShape, "catanet: %d tokens, want at most %d", n, maxTokens)
	}
	keyCols, valueCols := c.CenterK.Cols, c.CenterV.Cols
	if mat.Given(c.CenterK) || mat.Given(c.CenterV) {
		keyCols, valueCols = qk, cols
	}
	err := errors.Join(
		check.Matrix(ErrShape, "catanet", "q", c.Q, -1, qk, "Heads*HeadDim"),
		check.Matrix(ErrShape, "catanet", "k", c.K, n, qk, "Heads*HeadDim"),
		check.Matrix(ErrShape, "catanet", "v", c.V, n, cols, "Heads*ValueDim"),
		check.Matrix(ErrShape, "catanet", "CenterK", c.CenterK, -1, keyCols, "Heads*HeadDim"),
		check.Matrix(ErrShape, "catanet", "CenterV", c.CenterV, c.CenterK.Rows, valueCols, "Heads*ValueDim"),
		check.Matrix(ErrShape, "catanet", "dst", c.Dst, n, cols, "Heads*ValueDim"))
	if err != nil {
		return err
	}
	for _, in := range [...]blas32.General{c.Q, c.K, c.V, c.CenterK, c.CenterV} {
		if mat.Overlap(c.Dst, in) {
			return check.Errorf(ErrShape, "catanet: dst shares elements with an input")
		}
	}
	if len(c.Bucket) != n {
		return check.Errorf(ErrShape, "catanet: Bucket has %d elements, want the rows of q = %d", len(c.Bucket), n)
	}
	if t := slices.IndexFunc(c.Bucket, func(b int32) bool { return b < 0 }); t >= 0 {
		return check.Errorf(ErrCall, "catanet: Bucket[%d] is %d, want 0 or more", t, c.Bucket[t])
	}
	if err := check.Workers(ErrCall, "catanet", c.Workers); err != nil {
		return err
	}
	if c.Offsets == nil {
		r.offsets = append(r.offsets[:0], 0, n)
		return nil
	}
	r.offsets = append(r.offsets[:0], c.Offsets...)
	return check.Offsets("catanet", "Offsets", c.Offsets, n, -1)
}

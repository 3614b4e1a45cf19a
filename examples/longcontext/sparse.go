package main

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/sparse"
)

// sparseBlock is the tokens of a block that package sparse chooses, as in MInference.
const sparseBlock = 64

// newSparse returns exact attention to blocks that are chosen by their means: by blocks of
// queries together, and by each query.
func newSparse(o options) ([]method, error) {
	op, err := sparse.NewBlocks(sparse.BlocksConfig{Heads: o.heads, HeadDim: o.dim, Causal: true, QueryBlock: sparseBlock, KeyBlock: sparseBlock, Workers: o.workers})
	if err != nil {
		return nil, err
	}
	moba, err := sparse.NewMoBA(sparse.MoBAConfig{Heads: o.heads, HeadDim: o.dim, Block: sparseBlock, TopK: 32, Workers: o.workers})
	if err != nil {
		return nil, err
	}
	own := func(query int64) (from, to int64) { return query / sparseBlock * sparseBlock, query + 1 }
	return []method{{
		name: means,
		attend: func(ctx context.Context, dst blas32.General, s *sequence) error {
			var choice sparse.Choice
			if err := op.ChooseBy(ctx, &choice, sparse.Pattern{TopK: 100, Window: 1}, s.q, s.k); err != nil {
				return err
			}
			return op.Run(ctx, &attention.Call{Dst: dst, Q: s.q, K: []blas32.General{s.k}, V: []blas32.General{s.v}, Options: &choice})
		},
		seen: own,
	}, {
		name: mixed,
		attend: func(ctx context.Context, dst blas32.General, s *sequence) error {
			return moba.Run(ctx, &attention.Call{Dst: dst, Q: s.q, K: []blas32.General{s.k}, V: []blas32.General{s.v}})
		},
		seen: own,
	}}, nil
}

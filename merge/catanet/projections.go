package catanet

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/dense"
)

// projections are the norm before attention and the layers around it, of either block.
type projections struct {
	norm              dense.Norm
	query, key, value *dense.Linear
	proj              *dense.Linear
}

func packProjections(w *dense.Packer, norm, normBias []float32, query, key, value, proj blas32.General, dim, qkDim int) projections {
	return projections{
		norm:  w.Norm("Norm", norm, normBias, dim, false),
		query: w.Linear("Q", query, nil, qkDim, dim),
		key:   w.Linear("K", key, nil, qkDim, dim),
		value: w.Linear("V", value, nil, dim, dim),
		proj:  w.Linear("Out", proj, nil, dim, dim),
	}
}

// project sets q and k [rows, QKDim] and v [rows, Dim] from normed tokens n [rows, Dim].
func (p *projections) project(q, k, v, n blas32.General) {
	p.query.Forward(q, n)
	p.key.Forward(k, n)
	p.value.Forward(v, n)
}

// bytes returns the memory of the weights.
func (p *projections) bytes() int64 {
	return int64(p.query.Bytes()) + int64(p.key.Bytes()) + int64(p.value.Bytes()) + int64(p.proj.Bytes()) + p.norm.Bytes()
}

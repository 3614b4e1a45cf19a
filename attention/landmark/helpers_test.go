package landmark

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/golden"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
)

var (
	matrix     = mattest.Matrix
	close64    = mattest.Close
	sameBits   = mattest.SameBits
	near       = mattest.Near
	part       = mat.Rows
	row        = mat.Row
	zeroMatrix = mat.New
)

func general(data []float32, rows, cols int) blas32.General { return mat.Of(data, rows, cols) }

// flat is a call of Landmark, or of Meta, with its options in one.
type flat struct {
	Dst, Q, K, V, LSE blas32.General
	Landmarks, Meta   []bool
	State             attention.Past
}

func (f *flat) call() *attention.Call {
	return &attention.Call{Dst: f.Dst, Q: f.Q, K: []blas32.General{f.K}, V: []blas32.General{f.V}, LSE: f.LSE, State: f.State}
}

func (f *flat) run(ctx context.Context, l *Landmark) error {
	call := f.call()
	call.Options = &Options{Landmarks: f.Landmarks}
	return l.Run(ctx, call)
}

func (f *flat) runMeta(ctx context.Context, m *Meta) error {
	call := f.call()
	call.Options = &MetaOptions{Meta: f.Meta}
	return m.Run(ctx, call)
}

// inputs reads q, k and v and what they say of the Config.
func inputs(f *golden.File, prefix string) (q, k, v blas32.General, cfg Config) {
	q, cfg.Heads = f.Heads(prefix + "q")
	k, cfg.KVHeads = f.Heads(prefix + "k")
	v, _ = f.Heads(prefix + "v")
	cfg.HeadDim, cfg.ValueDim = q.Cols/cfg.Heads, v.Cols/cfg.KVHeads
	return q, k, v, cfg
}

package main

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/ssm"
	"github.com/subquad/subquad/ssm/delta"
)

// mambaRule is the selective scan of Mamba. Each of its states decays by itself, so that T is
// one number for a state, exp(A sum of dt), and a summary is two: T and W.
type mambaRule struct {
	c    longScan
	scan *ssm.Scan
}

// The scan has so many channels, and states of each.
const mambaChannels, mambaStates = 64, 16

func newMambaRule(c longScan) (*mambaRule, error) {
	a := matrix(make([]float32, mambaChannels*mambaStates), mambaChannels, mambaStates)
	for i := range a.Data {
		a.Data[i] = -float32(1 + i%mambaStates)
	}
	scan, err := ssm.NewScan(ssm.ScanConfig{Channels: mambaChannels, States: mambaStates, Workers: c.Workers}, ssm.ScanWeights{A: a})
	return &mambaRule{c, scan}, err
}

// load returns the inputs of a shard. Here they are drawn; in a model they come out of its
// projections.
func (r *mambaRule) load(shard int64) ssm.ScanCall {
	n, stream := r.c.size(shard), uint64(shard)*4
	return ssm.ScanCall{
		X: drawn(stream, n, mambaChannels, -1, 1), Dt: drawn(stream+1, n, mambaChannels, 0, 2e-3),
		B: drawn(stream+2, n, mambaStates, -1, 1), C: drawn(stream+3, n, mambaStates, -1, 1),
		Dst: matrix(make([]float32, n*mambaChannels), n, mambaChannels),
	}
}

func (r *mambaRule) zero() []float32 { return make([]float32, mambaChannels*mambaStates) }

func (r *mambaRule) run(ctx context.Context, shard int64, state []float32) (out, next []float32, err error) {
	call := r.load(shard)
	next, err = r.scanFrom(ctx, &call, state)
	return call.Dst.Data, next, err
}

func (r *mambaRule) scanFrom(ctx context.Context, call *ssm.ScanCall, state []float32) ([]float32, error) {
	var err error
	if call.State, err = r.scan.NewState(ssm.StateConfig{}); err != nil {
		return nil, err
	}
	if err := r.scan.Write(call.State, matrix(state, mambaChannels, mambaStates)); err != nil {
		return nil, err
	}
	if err := r.scan.Run(ctx, call); err != nil {
		return nil, err
	}
	next := r.zero()
	return next, r.scan.Read(matrix(next, mambaChannels, mambaStates), call.State)
}

func (r *mambaRule) summary(ctx context.Context, shard int64) ([]float32, error) {
	call := r.load(shard)
	written, err := r.scanFrom(ctx, &call, r.zero())
	if err != nil {
		return nil, err
	}
	var steps [mambaChannels]float64
	for t := range call.Dt.Rows {
		for d := range steps {
			steps[d] += float64(call.Dt.Data[t*call.Dt.Stride+d])
		}
	}
	summary := make([]float32, 0, 2*len(written))
	for i, a := range r.scan.Rates().Data {
		summary = append(summary, float32(math.Exp(float64(a)*steps[i/mambaStates])))
	}
	return append(summary, written...), nil
}

func (r *mambaRule) written(summary []float32) []float32 { return summary[len(summary)/2:] }

func (r *mambaRule) after(state, summary []float32) []float32 {
	next, written := make([]float32, len(state)), r.written(summary)
	for i := range next {
		next[i] = float32(summary[i]*state[i]) + written[i]
	}
	return next
}

func (r *mambaRule) join(left, right []float32) ([]float32, error) {
	both := make([]float32, len(left)/2, len(left))
	for i := range both {
		both[i] = right[i] * left[i]
	}
	return append(both, r.after(r.written(left), right)...), nil
}

// deltaRule is the gated delta rule (Gated DeltaNet). A token takes out of the state what it has
// under its key, so that T is a matrix [K, K] for each head, the product of exp(g) (1 - beta k k^T)
// over the tokens. No formula of its own gives it: the columns of a state do not meet, and a scan
// of V + K columns that begins with (0 | 1), and writes values to the first V alone, ends as (W | T).
type deltaRule struct {
	c           longScan
	scan, wider *delta.Recurrence // of V columns, and of V + K
}

// The rule has so many heads, key channels and value channels.
const deltaHeads, deltaKeys, deltaValues = 2, 32, 64

func newDeltaRule(c longScan) (*deltaRule, error) {
	cfg := delta.Config{
		Heads: deltaHeads, KeyDim: deltaKeys, ValueDim: deltaValues,
		Decay: delta.HeadDecay, Erase: delta.EraseKey, Normalize: true, Workers: c.Workers,
	}
	scan, err := delta.New(cfg)
	if err != nil {
		return nil, err
	}
	cfg.ValueDim += deltaKeys
	wider, err := delta.New(cfg)
	return &deltaRule{c, scan, wider}, err
}

// load returns the inputs of a shard, with columns of 0 behind the values of each head.
func (r *deltaRule) load(shard int64, zeros int) delta.Call {
	n, stream := r.c.size(shard), uint64(shard)*5
	values, width := drawn(stream, n, deltaHeads*deltaValues, -1, 1), deltaValues+zeros
	v := matrix(make([]float32, n*deltaHeads*width), n, deltaHeads*width)
	for i := range n * deltaHeads {
		copy(v.Data[i*width:], values.Data[i*deltaValues:][:deltaValues])
	}
	return delta.Call{
		Q: drawn(stream+1, n, deltaHeads*deltaKeys, -1, 1), K: drawn(stream+2, n, deltaHeads*deltaKeys, -1, 1), V: v,
		Decay: drawn(stream+3, n, deltaHeads, -1e-3, 0), Beta: drawn(stream+4, n, deltaHeads, 0, 1),
		Dst: matrix(make([]float32, len(v.Data)), n, v.Cols),
	}
}

func (r *deltaRule) zero() []float32 { return make([]float32, deltaHeads*deltaKeys*deltaValues) }

func (r *deltaRule) run(ctx context.Context, shard int64, state []float32) (out, next []float32, err error) {
	call := r.load(shard, 0)
	next, err = scanFrom(ctx, r.scan, &call, matrix(state, deltaHeads*deltaKeys, deltaValues))
	return call.Dst.Data, next, err
}

// scanFrom runs a call from a state, and returns the state behind it.
func scanFrom(ctx context.Context, op *delta.Recurrence, call *delta.Call, state blas32.General) ([]float32, error) {
	var err error
	if call.State, err = op.NewState(delta.StateConfig{}); err != nil {
		return nil, err
	}
	if err := op.Write(call.State, state); err != nil {
		return nil, err
	}
	if err := op.Run(ctx, call); err != nil {
		return nil, err
	}
	next := matrix(make([]float32, state.Rows*state.Cols), state.Rows, state.Cols)
	return next.Data, op.Read(next, call.State)
}

func (r *deltaRule) summary(ctx context.Context, shard int64) ([]float32, error) {
	const width = deltaValues + deltaKeys
	one := matrix(make([]float32, deltaHeads*deltaKeys*width), deltaHeads*deltaKeys, width)
	for i := range one.Rows {
		one.Data[i*width+deltaValues+i%deltaKeys] = 1
	}
	call := r.load(shard, deltaKeys)
	return scanFrom(ctx, r.wider, &call, one)
}

func (r *deltaRule) written(summary []float32) []float32 {
	w := r.zero()
	for i := range deltaHeads * deltaKeys {
		copy(w[i*deltaValues:][:deltaValues], summary[i*(deltaValues+deltaKeys):])
	}
	return w
}

func (r *deltaRule) after(state, summary []float32) []float32 {
	return advance(state, deltaValues, summary, r.written(summary))
}

// join takes the left summary for a state of V + K columns, the last of which nothing is added to.
func (r *deltaRule) join(left, right []float32) ([]float32, error) {
	const width = deltaValues + deltaKeys
	written := make([]float32, len(right))
	for i := range deltaHeads * deltaKeys {
		copy(written[i*width:][:deltaValues], right[i*width:])
	}
	return advance(left, width, right, written), nil
}

// advance is T S + W for each head, with states of so many columns.
func advance(state []float32, cols int, summary, written []float32) []float32 {
	const width = deltaValues + deltaKeys
	next := append([]float32(nil), written...)
	for h := range deltaHeads {
		t := blas32.General{Rows: deltaKeys, Cols: deltaKeys, Stride: width, Data: summary[h*deltaKeys*width+deltaValues:]}
		from := h * deltaKeys * cols
		s, d := matrix(state[from:], deltaKeys, cols), matrix(next[from:], deltaKeys, cols)
		blas32.Gemm(blas.NoTrans, blas.NoTrans, 1, t, s, 1, d)
	}
	return next
}

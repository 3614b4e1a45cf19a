package maelre

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/merge"
)

// encoderRun is one call of an Encoder, and the memory that calls share. Sequences go one
// after the other; n are the tokens that are left of the present one.
type encoderRun struct {
	m       *Encoder
	call    Call
	workers int // goroutines
	group   parallel.Group
	one     [2]int // offsets of a single sequence

	block   *block         // the present one
	x       blas32.General // [n, D], in memory[turn]
	sizes   []float32      // [n], in totals[turn]
	merged  bool           // some size is not 1
	memory  [2][]float32   // of x and of what it is merged into, in turns
	totals  [2][]float32   // of sizes, likewise
	turn    int            // which of the two has x
	qkvs    []float32
	qkv     blas32.General // [n, 3 D], in qkvs
	outs    []float32
	out     blas32.General // [n, D] of attention, in outs
	metrics []float32
	metric  blas32.General // [n, D/Heads] the keys' mean over heads, in metrics
	logs    []float32      // [n] logarithms of sizes
	pooled  []float32      // [D]
	plan    merge.Plan
	match   merge.Call
	load    merge.Workload
	attend  attention.Call
	kv      [2][1]blas32.General // the keys and values of attend
	work    []encoderWork        // of each worker

	before, project, after, last func(worker, task int) // normAndProject, addAttention, addMLP and lastNorm
}

// encoderWork is the memory of one worker: a block of dense.BlockRows tokens, [rows, D],
// and its hidden layer, [rows, hidden].
type encoderWork struct{ h, hidden []float32 }

// encode runs a call.
func (r *encoderRun) encode(ctx context.Context, m *Encoder, call *Call) error {
	r.m = m
	offsets, err := r.checkCall(ctx, m, call)
	if err != nil {
		return err
	}
	r.call = *call
	defer r.forget()
	if r.before == nil {
		r.before, r.project, r.after, r.last = r.normAndProject, r.addAttention, r.addMLP, r.lastNorm
	}
	for len(r.work) < r.workers {
		r.work = append(r.work, encoderWork{})
	}
	for b := range len(offsets) - 1 {
		if err := r.encodeSequence(ctx, b, offsets[b], offsets[b+1]); err != nil {
			return err
		}
	}
	return nil
}

// forget drops what is the caller's.
func (r *encoderRun) forget() {
	r.call, r.match, r.attend, r.kv = Call{}, merge.Call{}, attention.Call{}, [2][1]blas32.General{}
}

// encodeSequence encodes rows from up to to of X.
func (r *encoderRun) encodeSequence(ctx context.Context, b, from, to int) error {
	r.gather(from, to)
	for i := range r.m.blocks {
		r.block = &r.m.blocks[i]
		approximated, err := r.attendLayer(ctx, i)
		if err != nil {
			return err
		}
		if err := r.mergeLayer(ctx, i); err != nil {
			return err
		}
		if err := r.perBlock(ctx, r.after); err != nil {
			return err
		}
		if r.call.Observe != nil {
			r.call.Observe(Stage{Sequence: b, Layer: i, Approximated: approximated, Plan: &r.plan, X: r.x, Sizes: r.sizes})
		}
	}
	if err := r.perBlock(ctx, r.last); err != nil {
		return err
	}
	if r.call.Observe != nil {
		r.call.Observe(Stage{Sequence: b, Layer: len(r.m.blocks), X: r.x, Sizes: r.sizes})
	}
	r.pool(b)
	return nil
}

// gather copies the tokens of a sequence, without padding.
func (r *encoderRun) gather(from, to int) {
	d := r.m.dim
	r.turn = 0
	r.memory[0], r.totals[0] = scratch.Floats(r.memory[0], (to-from)*d), scratch.Floats(r.totals[0], to-from)
	n := 0
	r.merged = r.call.Sizes != nil
	for t := from; t < to; t++ {
		if r.call.Valid != nil && !r.call.Valid[t] {
			continue
		}
		copy(r.memory[0][n*d:][:d], mat.Row(r.call.X, t))
		r.totals[0][n] = 1
		if r.merged {
			r.totals[0][n] = r.call.Sizes[t]
		}
		n++
	}
	r.x, r.sizes = mat.Of(r.memory[0], n, d), r.totals[0][:n]
}

// perBlock runs a step for blocks of tokens.
func (r *encoderRun) perBlock(ctx context.Context, step func(worker, task int)) error {
	workers := r.workers
	const alone = 1 << 20 // multiply-adds up to which one goroutine does all
	if int64(r.x.Rows)*int64(r.m.dim)*int64(r.m.dim+r.m.hidden) <= alone {
		workers = 1
	}
	return r.group.RunAs(ctx, "maelre", workers, (r.x.Rows+dense.BlockRows-1)/dense.BlockRows, step)
}

// rows returns the tokens of a task.
func (r *encoderRun) rows(task int) (from, to int) {
	return task * dense.BlockRows, min((task+1)*dense.BlockRows, r.x.Rows)
}

// attendLayer adds attention to x, and makes the metric.
func (r *encoderRun) attendLayer(ctx context.Context, layer int) (approximated bool, err error) {
	n, d, heads := r.x.Rows, r.m.dim, r.m.cfg.Heads
	r.qkvs, r.outs, r.metrics = scratch.Floats(r.qkvs, n*3*d), scratch.Floats(r.outs, n*d), scratch.Floats(r.metrics, n*d/heads)
	r.qkv, r.out, r.metric = mat.Of(r.qkvs, n, 3*d), mat.Of(r.outs, n, d), mat.Of(r.metrics, n, d/heads)
	if err := r.perBlock(ctx, r.before); err != nil {
		return false, err
	}
	var logs blas32.General
	if r.merged {
		r.logs = scratch.Floats(r.logs, n)
		if err := merge.LogSizes(r.logs, r.sizes); err != nil {
			return false, err
		}
		logs = mat.Of(r.logs, n, 1)
	}
	q, k, v := mat.Columns(r.qkv, 0, d), mat.Columns(r.qkv, d, d), mat.Columns(r.qkv, 2*d, d)
	r.kv = [2][1]blas32.General{{k}, {v}}
	r.attend = attention.Call{Dst: r.out, Q: q, K: r.kv[0][:], V: r.kv[1][:], LogWeights: logs, Workers: r.call.Workers}
	op := attention.Operator(r.m.exact)
	if approximated = r.approximates(layer, n); approximated {
		op = r.m.cfg.Approximation
	}
	if err := op.Run(ctx, &r.attend); err != nil {
		if err != ctx.Err() {
			err = fmt.Errorf("maelre: layer %d: %w", layer, err)
		}
		return approximated, err
	}
	return approximated, r.perBlock(ctx, r.project)
}

func (r *encoderRun) approximates(layer, tokens int) bool {
	if f := r.m.cfg.Approximate; f != nil {
		return f(layer, tokens)
	}
	return tokens > r.m.cfg.SwitchTokens
}

// normAndProject makes queries, keys and values, and the metric.
func (r *encoderRun) normAndProject(worker, task int) {
	from, to := r.rows(task)
	h := r.normed(worker, r.block.norm1, from, to)
	qkv := mat.Rows(r.qkv, from, to)
	r.block.qkv.ForwardIn(&r.group, qkv, h)
	d, width := r.m.dim, r.metric.Cols
	for i := range qkv.Rows {
		mean, keys := mat.Row(r.metric, from+i), mat.Row(qkv, i)[d:2*d]
		copy(mean, keys)
		for at := width; at < d; at += width {
			asm.Add(mean, mean, keys[at:][:width])
		}
		asm.Scale(mean, 1/float32(r.m.cfg.Heads), mean)
	}
}

// normed returns rows of x normalised, in the worker's memory.
func (r *encoderRun) normed(worker int, n dense.Norm, from, to int) blas32.General {
	w := &r.work[worker]
	w.h = scratch.Floats(w.h, dense.BlockRows*r.m.dim)
	h := mat.Of(w.h, to-from, r.m.dim)
	n.Forward(h, mat.Rows(r.x, from, to))
	return h
}

// addAttention adds what attention has found to x.
func (r *encoderRun) addAttention(worker, task int) {
	from, to := r.rows(task)
	w := &r.work[worker]
	w.h = scratch.Floats(w.h, dense.BlockRows*r.m.dim)
	h := mat.Of(w.h, to-from, r.m.dim)
	r.block.proj.ForwardIn(&r.group, h, mat.Rows(r.out, from, to))
	x := mat.Rows(r.x, from, to).Data[:len(h.Data)]
	asm.Add(x, x, h.Data)
}

// mergeLayer merges the tokens of a layer.
func (r *encoderRun) mergeLayer(ctx context.Context, layer int) error {
	cfg := &r.m.cfg
	n := r.x.Rows
	r.match = merge.Call{Plan: &r.plan, Metric: r.metric, MinTokens: cfg.MinTokens, AtMost: true, Shift: cfg.Alternate && layer%2 == 1, Workers: r.call.Workers}
	switch {
	case cfg.Schedule != nil:
		r.match.R = cfg.Schedule(layer, n)
	case len(cfg.Ratios) == 1:
		r.match.Ratio = cfg.Ratios[0]
	case len(cfg.Ratios) > 1:
		r.match.Ratio = cfg.Ratios[layer]
	}
	if r.match.R == 0 && int(r.match.Ratio*float64(n)) == 0 {
		return r.plan.SetIdentity(n)
	}
	if cfg.IfPays {
		r.load = r.workload(layer)
		r.match.Workload = &r.load
	}
	if err := cfg.Matching.Run(ctx, &r.match); err != nil {
		if end := ctx.Err(); end != nil {
			return end
		}
		return fmt.Errorf("maelre: layer %d: %w", layer, err)
	}
	if r.plan.Tokens() != n {
		return check.Errorf(ErrCall, "maelre: layer %d: Matching made a plan of %d tokens, want %d", layer, r.plan.Tokens(), n)
	}
	left := r.plan.Len()
	if left == n {
		return nil
	}
	other := 1 - r.turn
	r.memory[other], r.totals[other] = scratch.Floats(r.memory[other], left*r.m.dim), scratch.Floats(r.totals[other], left)
	x, sizes := mat.Of(r.memory[other], left, r.m.dim), r.totals[other]
	if err := r.plan.ApplyWeighted(x, r.x, sizes, r.sizes); err != nil {
		return err
	}
	r.x, r.sizes, r.merged, r.turn = x, sizes, true, other
	return nil
}

// workload is what runs after the merge of a layer, until the end.
func (r *encoderRun) workload(layer int) merge.Workload {
	d := float64(r.m.dim)
	w := merge.Workload{Dim: r.m.dim, Layers: 1, TokenFlop: 4 * d * float64(r.block.hidden)}
	for i := layer + 1; i < len(r.m.blocks); i++ {
		w.TokenFlop += 8*d*d + 4*d*float64(r.m.blocks[i].hidden)
		if r.approximates(i, r.x.Rows) {
			w.TokenFlop += 4 * d * d / float64(r.m.cfg.Heads)
		} else {
			w.PairFlop += 4 * d
		}
	}
	return w
}

// addMLP adds the layers after attention to x.
func (r *encoderRun) addMLP(worker, task int) {
	from, to := r.rows(task)
	h := r.normed(worker, r.block.norm2, from, to)
	w := &r.work[worker]
	w.hidden = scratch.Floats(w.hidden, dense.BlockRows*r.m.hidden)
	hidden := mat.Of(w.hidden, to-from, r.block.hidden)
	r.block.up.ForwardIn(&r.group, hidden, h)
	asm.GELU(hidden.Data, hidden.Data)
	r.block.down.ForwardIn(&r.group, h, hidden)
	x := mat.Rows(r.x, from, to).Data[:len(h.Data)]
	asm.Add(x, x, h.Data)
}

// lastNorm is the last norm, in place.
func (r *encoderRun) lastNorm(_, task int) {
	from, to := r.rows(task)
	x := mat.Rows(r.x, from, to)
	r.m.norm.Forward(x, x)
}

// pool makes the results of sequence b.
func (r *encoderRun) pool(b int) {
	r.pooled = scratch.Floats(r.pooled, r.m.dim)
	clear(r.pooled)
	var total float64
	for _, s := range r.sizes {
		total += float64(s)
	}
	for i, s := range r.sizes {
		asm.Axpy(r.pooled, float32(float64(s)/total), mat.Row(r.x, i))
	}
	if r.call.Pooled.Rows > 0 {
		copy(mat.Row(r.call.Pooled, b), r.pooled)
	}
	if r.call.Logits.Rows > 0 {
		r.m.head.Forward(mat.Rows(r.call.Logits, b, b+1), mat.Of(r.pooled, 1, r.m.dim))
	}
}

package sparse

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/tile"
)

// padding is how many float32 stand between rows of scores, against cache conflicts.
const padding = tile.Pad

// atOnce is how many blocks of that many tokens a task packs, or compresses.
func (cfg *NSAConfig) atOnce(block int) int { return max(1, 1024/block) }

// newOnes is how many compressed keys come with the call.
func (r *nsaRun) newOnes() int { return r.op.compressed(r.total()) - r.made }

// compressNew makes the compressed keys and values that come with the call.
func (r *nsaRun) compressNew(ctx context.Context, workers int) error {
	cfg, n := &r.op.cfg, r.newOnes()
	r.newMeans[0] = scratch.Floats(r.newMeans[0], cfg.KVHeads*n*cfg.HeadDim)
	r.newMeans[1] = scratch.Floats(r.newMeans[1], cfg.KVHeads*n*cfg.ValueDim)
	return r.group.RunAs(ctx, "sparse", workers, cfg.KVHeads*ceil(n, cfg.atOnce(cfg.Compress)), r.compress)
}

// newMeansOf are the compressed keys and values of a key head that come with the call.
func (r *nsaRun) newMeansOf(g int) (k, v blas32.General) {
	cfg, n := &r.op.cfg, r.newOnes()
	return mat.Of(r.newMeans[0][g*n*cfg.HeadDim:], n, cfg.HeadDim), mat.Of(r.newMeans[1][g*n*cfg.ValueDim:], n, cfg.ValueDim)
}

// compressTask makes some compressed keys and values of a key head.
func (r *nsaRun) compressTask(worker, task int) {
	cfg := &r.op.cfg
	size := cfg.atOnce(cfg.Compress)
	g, first := task%cfg.KVHeads, task/cfg.KVHeads*size
	toK, toV := r.newMeansOf(g)
	for c := first; c < min(first+size, toK.Rows); c++ {
		from := (r.made + c) * cfg.Stride
		k, v := r.tokensOf(&r.work[worker], g, from, from+cfg.Compress)
		cfg.compressBlock(mat.Row(toK, c), mat.Row(toV, c), k, v, g)
	}
}

// compressBlock makes one key and one value of a block's.
func (cfg *NSAConfig) compressBlock(key, value []float32, k, v blas32.General, head int) {
	if c := cfg.Compressor; c != nil {
		c.Keys(key, k, head)
		c.Values(value, v, head)
		return
	}
	blockMean(key, k)
	blockMean(value, v)
}

// meansStride is from row to row of scores of compressed keys.
func (r *nsaRun) meansStride() int {
	a := r.op
	return a.tile.Panels(a.compressed(r.total()))*a.tile.Panel() + padding
}

// chunk is how many compressed keys go into a softmax at a time: no more than the kernel
// takes without a pause.
func (a *NSA) chunk() int {
	return ceil(a.sizes.Block, a.sizes.Keys) * a.sizes.Keys
}

// packAllMeans packs the compressed keys and values of the sequence.
func (r *nsaRun) packAllMeans(ctx context.Context, workers int) error {
	a := r.op
	n := a.compressed(r.total())
	r.means[0] = scratch.Floats(r.means[0], a.cfg.KVHeads*a.tile.Panels(n)*a.tile.Panel()*a.cfg.HeadDim)
	r.means[1] = scratch.Floats(r.means[1], a.cfg.KVHeads*n*a.outCols())
	tiles := ceil(n, a.sizes.Keys)
	r.finite = scratch.Sized(r.finite, a.cfg.KVHeads*tiles)
	return r.group.RunAs(ctx, "sparse", workers, a.cfg.KVHeads*tiles, r.packMeans)
}

// meansOf are all compressed keys and values of a key head, packed, and what tiles of
// them are finite.
func (r *nsaRun) meansOf(g int) (k, v []float32, finite []bool) {
	kv := r.op.cfg.KVHeads
	of := func(x []float32) []float32 { return x[g*(len(x)/kv):][:len(x)/kv] }
	n := len(r.finite) / kv
	return of(r.means[0]), of(r.means[1]), r.finite[g*n:][:n]
}

// meanKeys are the compressed keys of a key head, as they are.
func (r *nsaRun) meanKeys(w *nsaWorker, g int) (k blas32.General) {
	if r.state == nil {
		k, _ = r.newMeansOf(g)
		return k
	}
	cfg := &r.op.cfg
	k, _ = w.held(r.state.blocks[g], 0, r.op.compressed(r.total()), cfg.HeadDim, cfg.ValueDim)
	return k
}

// packMeansTask packs a tile of the compressed keys and values of a key head.
func (r *nsaRun) packMeansTask(worker, task int) {
	a := r.op
	n := a.compressed(r.total())
	g, t := task%a.cfg.KVHeads, task/a.cfg.KVHeads
	from, to := t*a.sizes.Keys, min((t+1)*a.sizes.Keys, n)
	var k, v blas32.General
	if r.state != nil {
		k, v = r.work[worker].held(r.state.blocks[g], from, to, a.cfg.HeadDim, a.cfg.ValueDim)
	} else {
		k, v = r.newMeansOf(g)
		k, v = mat.Rows(k, from, to), mat.Rows(v, from, to)
	}
	toK, toV, finite := r.meansOf(g)
	a.tile.PackKeys(toK, from, k)
	a.tile.PackValues(toV, n, from, v)
	finite[t] = true
	for i := range v.Rows {
		finite[t] = finite[t] && tile.Finite(mat.Row(v, i))
	}
}

package kvcache

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/internal/topk"
)

// RetroInfer reads the tokens of the nearest clusters, and of more clusters their
// centroid and mean value in place of their tokens (Chen et al. 2025, arXiv 2505.02922).
// Clusters of each key head are ranked by the sum over its query heads of softmax(Scale
// q.c) over all centroids. A cluster that is estimated weighs size exp(Scale q.c): less
// than its tokens, for the exponential is convex.
//
// Whenever Segment tokens have gathered between the first Keep and the last Recent, they
// are divided into Segment/16 clusters by spherical k-means of their centred keys.
// Tokens in no cluster are read. (The published code takes up to 8,192 tokens of a prompt
// at a time, and 1,024 after that.)
type RetroInfer struct {
	// Read and Estimate are the shares of the clusters that are read, and estimated; 0
	// stands for 0.018 and 0.232. At least one is read.
	Read, Estimate float64
	// Segment is how many tokens are divided at a time; 0 stands for 1,024.
	Segment int
	// clusters and estimates fix the numbers of clusters, for tests.
	clusters, estimates int
}

// Of k-means: tokens to a cluster, and rounds.
const (
	retroCluster = 16
	retroRounds  = 10
)

func (p RetroInfer) filled() RetroInfer {
	if p.Read == 0 {
		p.Read = 0.018
	}
	if p.Estimate == 0 {
		p.Estimate = 0.232
	}
	if p.Segment == 0 {
		p.Segment = 1024
	}
	return p
}

func (p RetroInfer) check(cfg *Config) error {
	f := p.filled()
	switch {
	case !(f.Read > 0 && f.Estimate >= 0 && f.Read+f.Estimate <= 1):
		return check.Errorf(ErrConfig, "kvcache: RetroInfer.Read is %v and Estimate %v, want shares of 1", p.Read, p.Estimate)
	case f.Segment < retroCluster || f.Segment > 1<<20:
		return check.Errorf(ErrConfig, "kvcache: RetroInfer.Segment is %d, want 0 or 16 to 2^20", p.Segment)
	case cfg.Rotation != nil && cfg.Positions != AtOrigin:
		return check.Errorf(ErrConfig, "kvcache: RetroInfer with Positions %d, want AtOrigin: it divides rotated keys", cfg.Positions)
	case cfg.Evict != nil:
		return check.Errorf(ErrConfig, "kvcache: RetroInfer together with Evict, whose clusters would lose tokens")
	}
	return nil
}

func (p RetroInfer) newIndex(a *Attention) index {
	return &retroIndex{p: p.filled(), first: a.cfg.Keep, heads: make([]clusters, a.cfg.KVHeads)}
}

// retroIndex is the clusters of each key head.
type retroIndex struct {
	p     RetroInfer
	first int // tokens before the first in a cluster
	done  int // tokens in clusters
	heads []clusters

	order   []int32
	scores  []float32
	chosen  []bool
	estK    [][]float32
	estV    [][]float32
	estW    [][]float32
	ranked  [][]int32 // clusters of the last choice: those that are read, then estimated
	exactly []int     // how many are read
}

// clusters are those of a key head. Those without a token have size 0.
type clusters struct {
	centroids []float32 // [clusters][HeadDim]
	values    []float32 // [clusters][ValueDim], sums
	size      []float32
	of        []int32 // the cluster of each token, from the first one in a cluster on
}

func (x *retroIndex) observes() bool   { return false }
func (x *retroIndex) observe(*run)     {}
func (x *retroIndex) keep(*State, int) {}

func (x *retroIndex) append(r *run) error {
	for r.first-x.first-x.done-r.op.cfg.Recent >= x.p.Segment { // of what was there before the chunk
		for g := range x.heads {
			x.divide(r, g)
		}
		x.done += x.p.Segment
	}
	return nil
}

// divide makes clusters of the next tokens of a key head.
func (x *retroIndex) divide(r *run, head int) {
	s, cfg, w := r.state, &r.op.cfg, &r.sel.dividing
	n, from := x.p.Segment, x.first+x.done
	w.memory.empty()
	k, v := w.matrix(n, cfg.HeadDim), w.matrix(n, cfg.ValueDim)
	s.readRows(k, head, from, true)
	s.readRows(v, head, from, false)
	of, centroids := w.sphericalMeans(k, n/retroCluster, retroRounds)
	c, most, clusters := &x.heads[head], s.tokensRoom(head), n/retroCluster
	c.of, c.size = reserve(c.of, n, most), reserve(c.size, clusters, most/retroCluster)
	c.centroids, c.values = reserve(c.centroids, clusters*cfg.HeadDim, most/retroCluster*cfg.HeadDim), reserve(c.values, clusters*cfg.ValueDim, most/retroCluster*cfg.ValueDim)
	c.add(of, centroids, v)
}

// dividing is working memory of k-means.
type dividing struct {
	memory stack[float32]
	of     []int32
	packed asm.Matrix
}

func (w *dividing) matrix(rows, cols int) blas32.General {
	return mat.Of(w.memory.take(rows*cols), rows, cols)
}

// add takes up clusters of tokens with values v.
func (c *clusters) add(of []int32, centroids, v blas32.General) {
	first := len(c.size)
	for i := range centroids.Rows {
		c.centroids = append(c.centroids, mat.Row(centroids, i)...)
		c.size = append(c.size, 0)
	}
	at := len(c.values)
	c.values = slices.Grow(c.values, centroids.Rows*v.Cols)[:at+centroids.Rows*v.Cols]
	clear(c.values[at:])
	for i, n := range of {
		c.of = append(c.of, int32(first)+n)
		c.size[first+int(n)]++
		to := c.values[(first+int(n))*v.Cols:][:v.Cols]
		asm.Add(to, to, mat.Row(v, i))
	}
}

// sphericalMeans divides keys into clusters by the direction from their mean: centroids
// begin as keys at equal distances, and every round gives each key to the centroid of the
// largest product and makes centroids the means of their keys, of length 1 but for those
// of the last round; one without keys stays. Centroids come with the mean added back, in
// the working memory.
func (w *dividing) sphericalMeans(k blas32.General, clusters, rounds int) (of []int32, centroids blas32.General) {
	n, d := k.Rows, k.Cols
	mean := w.memory.take(d)
	for i := range n {
		asm.Axpy(mean, 1/float32(n), mat.Row(k, i))
	}
	x := w.matrix(n, d)
	for i := range n {
		for j, v := range mat.Row(k, i) {
			mat.Row(x, i)[j] = v - mean[j]
		}
	}
	w.of = scratch.Sized(w.of, n)
	of, centroids = w.of, w.matrix(clusters, d)
	for c := range clusters {
		row := mat.Row(centroids, c)
		copy(row, mat.Row(x, int((float64(c)+0.5)*float64(n)/float64(clusters))))
		normalise(row)
	}
	products, sums, count := w.matrix(n, clusters), w.matrix(clusters, d), w.memory.take(clusters)
	for round := range rounds {
		w.packed.SetT(centroids)
		asm.Gemm(products, x, &w.packed, nil)
		mat.Clear(sums)
		clear(count)
		for i := range n {
			best := 0
			for c, p := range mat.Row(products, i) {
				if p > mat.Row(products, i)[best] {
					best = c
				}
			}
			of[i] = int32(best)
			count[best]++
			asm.Add(mat.Row(sums, best), mat.Row(sums, best), mat.Row(x, i))
		}
		for c, m := range count {
			if m == 0 {
				continue
			}
			asm.Scale(mat.Row(centroids, c), 1/m, mat.Row(sums, c))
			if round < rounds-1 {
				normalise(mat.Row(centroids, c))
			}
		}
	}
	for c := range clusters {
		asm.Add(mat.Row(centroids, c), mat.Row(centroids, c), mean)
	}
	return of, centroids
}

func normalise(x []float32) {
	if n := math.Sqrt(float64(asm.Dot(x, x))); n > 0 {
		asm.Scale(x, float32(1/n), x)
	}
}

// shares returns how many of n clusters are read, and estimated.
func (x *retroIndex) shares(n int) (read, estimate int) {
	read, estimate = max(1, int(math.Round(x.p.Read*float64(n)))), int(math.Round(x.p.Estimate*float64(n)))
	if x.p.clusters > 0 {
		read, estimate = x.p.clusters, x.p.estimates
	}
	read = min(read, n)
	return read, min(estimate, n-read)
}

func (x *retroIndex) choose(r *run) error {
	if x.done == 0 {
		return nil
	}
	cfg := &r.op.cfg
	r.choose1(cfg.KVHeads)
	for len(r.choice.Estimates) < cfg.KVHeads {
		r.choice.Estimates = append(r.choice.Estimates, Estimate{})
	}
	for len(x.estK) < cfg.KVHeads {
		x.estK, x.estV, x.estW, x.ranked, x.exactly = append(x.estK, nil), append(x.estV, nil), append(x.estW, nil), append(x.ranked, nil), append(x.exactly, 0)
	}
	for g := range x.heads {
		x.chooseHead(r, g)
	}
	r.tail = x.first + x.done
	return nil
}

func (x *retroIndex) chooseHead(r *run, g int) {
	c, cfg := &x.heads[g], &r.op.cfg
	d, dv, n, group := cfg.HeadDim, cfg.ValueDim, len(c.size), r.op.group
	x.scores = grown(x.scores, 2*n)
	rank, s := x.scores[:n], x.scores[n:2*n]
	clear(rank)
	r.report.Index += 4 * int64(n) * int64(d)
	for i := range r.x {
		for h := range group {
			q := mat.Part(r.q, i, (g*group+h)*d, d)
			for j := range s {
				s[j] = cfg.Scale * asm.Dot(q, c.centroids[j*d:][:d])
			}
			asm.Softmax(s, s)
			asm.Add(rank, rank, s)
		}
	}
	full := 0
	for j, size := range c.size {
		if size == 0 {
			rank[j] = negInf
		} else {
			full++
		}
	}
	read, estimate := x.shares(n)
	read = min(read, full)
	estimate = min(estimate, full-read)
	x.order = topk.Select(x.order, rank, read+estimate)
	x.ranked[g], x.exactly[g] = append(x.ranked[g][:0], x.order...), read
	x.chosen = slices.Grow(x.chosen[:0], n)[:n]
	clear(x.chosen)
	for _, j := range x.order[:read] {
		x.chosen[j] = true
	}
	list := r.choice.Lists[g]
	for t, j := range c.of {
		if x.chosen[j] {
			list = addRun(list, Run{From: x.first + t, To: x.first + t + 1})
		}
	}
	r.choice.Lists[g] = list
	kc, vc := r.kCols(), r.vCols()
	x.estK[g], x.estV[g], x.estW[g] = grown(x.estK[g], estimate*kc), grown(x.estV[g], estimate*vc), grown(x.estW[g], estimate)
	clear(x.estK[g][:estimate*kc])
	clear(x.estV[g][:estimate*vc])
	for i, j := range x.order[read:] {
		copy(x.estK[g][i*kc:], c.centroids[int(j)*d:][:d])
		asm.Scale(x.estV[g][i*vc:][:dv], 1/c.size[j], c.values[int(j)*dv:][:dv])
		x.estW[g][i] = float32(math.Log(float64(c.size[j])))
	}
	r.choice.Estimates[g] = Estimate{mat.Of(x.estK[g], estimate, kc), mat.Of(x.estV[g], estimate, vc), x.estW[g][:estimate]}
}

// truncate goes back as far as a state of n tokens would have divided them by its next call.
func (x *retroIndex) truncate(s *State, n int, try bool) bool {
	return !try || x.done == 0 || x.first+x.done+s.op.cfg.Recent <= n
}

func (x *retroIndex) clone() index {
	c := &retroIndex{p: x.p, first: x.first, done: x.done}
	for _, h := range x.heads {
		c.heads = append(c.heads, clusters{slices.Clone(h.centroids), slices.Clone(h.values), slices.Clone(h.size), slices.Clone(h.of)})
	}
	return c
}

func (x *retroIndex) bytes() (n int64) {
	for _, h := range x.heads {
		n += 4 * int64(cap(h.centroids)+cap(h.values)+cap(h.size)+cap(h.of))
	}
	return n
}

func (x *retroIndex) save(w *state.Writer) {
	w.Ints(int64(x.done))
	for _, h := range x.heads {
		w.Ints(int64(len(h.size)))
		w.Floats(h.centroids)
		w.Floats(h.values)
		w.Floats(h.size)
		for _, c := range h.of {
			w.Ints(int64(c))
		}
	}
}

func (x *retroIndex) load(r *state.Reader, s *State) {
	cfg := &s.op.cfg
	done := r.Int()
	if done < 0 || done > int64(s.n) || done%int64(x.p.Segment) != 0 {
		r.Fail("it has %d tokens of %d in clusters", done, s.n)
		return
	}
	x.done = int(done)
	for g := range x.heads {
		n := r.Int()
		if n < 0 || n > done {
			r.Fail("it has %d clusters of %d tokens", n, done)
			return
		}
		h := &x.heads[g]
		h.centroids, h.values, h.size = r.Floats(n*int64(cfg.HeadDim)), r.Floats(n*int64(cfg.ValueDim)), r.Floats(n)
		for range done {
			c := r.Int()
			if r.Err() != nil {
				return
			}
			if c < 0 || c >= n {
				r.Fail("it has a token in cluster %d of %d", c, n)
				return
			}
			h.of = append(h.of, int32(c))
		}
	}
}

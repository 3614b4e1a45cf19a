package kvcache

import (
	"fmt"
	"math"
	"sync/atomic"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
)

// Shadow looks at every token, in a copy of the keys that is a quarter of a float32 key
// and less: int8, without the mean of the first keys, which softmax does not see. The best
// tokens of each query head are then read exactly, with all others that its key head's
// queries chose; the rest is represented by the means of the values of 16 tokens each,
// weighted by what the shadow says of the 16:
//
//	out = (sum over exact j of w[j] v[j] + sum over pages P of W~[P] mean v[P]) / (A + R~)
//
// with A and R~ the sums of the exact and of the estimated weights. Leaving the rest out,
// as other selectors do, costs 20 to 300 times the error. The method is this library's own.
//
// Report.Missing bounds, for certain, the share of the weight that was not read: an exact
// logit differs from the shadow's by at most |q| e[j], with e[j] the error of the key's
// copy. Report.Error bounds the distance of an output of a head from the exact one.
//
// What a step reads, its speed beside the library's exact step in turns with it, and the
// median distance of outputs from exact ones, relative to their length, for planted needles
// that have 0.9 of the weight (all were found), 32 query and 8 key heads of 128, float32, one
// core of a loaded AVX-512 machine (go test ./attention/kvcache -bench Step/Shadow):
//
//	tokens      exact     8 bits                      4 bits
//	  262,144   2147 MB   315 MB, 4.9 times,  .0008   206 MB, 8.5 times, .0017
//	1,048,576   8590 MB   1246 MB, 5.2 times, .0007   810 MB, 8.2 times, .0026
//
// Only steps of one token use it; longer ones, prompts, are read in full. It needs
// Positions AtOrigin, and neither Softcap nor an Evictor. What is not finite is read
// exactly.
type Shadow struct {
	// Bits of a number of the copy: 8, for which 0 stands too, or 4, half the bytes to look
	// at, with a scale for each 32 numbers: a logit's error is some 15 times that of 8.
	Bits int
	// TopK is how many tokens each query head reads exactly; 0 stands for 256.
	TopK int
	// Drop leaves the rest out instead of estimating it.
	Drop bool
	// Eps, if not 0, has more and more tokens read until Missing is no more than that.
	Eps float64
}

// shadowBlock is how many tokens a block of a shadow has, and blockPages how many pages.
const (
	shadowBlockTokens = 512
	shadowBlockPages  = shadowBlockTokens / kernel.ShadowPanel
)

// describe says what it was before TopK had its name, so that states are theirs.
func (p Shadow) describe() string {
	return fmt.Sprintf("kvcache.Shadow{Bits:%d Top:%d Drop:%t Eps:%v}", p.Bits, p.TopK, p.Drop, p.Eps)
}

func (p Shadow) check(cfg *Config) error {
	fail := func(format string, args ...any) error {
		return check.Errorf(ErrConfig, "kvcache: Shadow."+format, args...)
	}
	switch {
	case p.Bits != 0 && p.Bits != 8 && p.Bits != 4:
		return fail("Bits is %d, want 8 or 4", p.Bits)
	case p.TopK < 0 || p.TopK > 1<<24:
		return fail("TopK is %d, want 0 to 2^24", p.TopK)
	case !(p.Eps >= 0 && p.Eps < 1):
		return fail("Eps is %v, want at least 0 and less than 1", p.Eps)
	case cfg.HeadDim > kernel.MaxShadowDim:
		return fail("HeadDim is %d, want at most %d", cfg.HeadDim, kernel.MaxShadowDim)
	case cfg.Softcap != 0:
		return fail("Softcap is %v, want 0: bounds hold for logits without", cfg.Softcap)
	case cfg.Positions != AtOrigin:
		return fail("Positions is %d, want AtOrigin: keys do not turn once they are copied", cfg.Positions)
	case cfg.Evict != nil:
		return fail("Evict is %T, want nil: all tokens stay", cfg.Evict)
	}
	return nil
}

func (p Shadow) newIndex(a *Attention) index {
	if p.TopK == 0 {
		p.TopK = 256
	}
	return &shadowIndex{op: a, policy: p, tile: kernel.NewShadowTile(), heads: make([]shadowHead, a.cfg.KVHeads)}
}

// shadowIndex is the shadow of one state.
type shadowIndex struct {
	still  // files have none of it: it is made again from the keys
	op     *Attention
	policy Shadow
	tile   kernel.ShadowTile
	heads  []shadowHead
}

// shadowHead is the shadow of a key head: whole blocks of its tokens, from the first on,
// which never change once they are made.
type shadowHead struct {
	mean   []float32 // of the first block's keys
	blocks []*shadow
}

// shadow is the copy of a block of tokens.
type shadow struct {
	keys   []int8    // of 8 bits, [pages][groups][16][4], see kernel.ShadowTile
	halves []uint8   // of 4 bits, [pages][4*blocks][16][4]
	scale  []float32 // [tokens], of 4 bits [pages][blocks][16]
	values []uint16  // [pages][vCols], means of values as bfloat16
	off    float32   // largest distance of a key from its copy
	reach  float32   // longest copy
	value  float32   // longest value
	wild   bool      // some of it is not finite: never estimated
}

func (b *shadow) bytes() int64 {
	return int64(len(b.keys)) + int64(len(b.halves)) + 4*int64(len(b.scale)) + 2*int64(len(b.values))
}

// score sets s to the scores of pages of a block, from a page on; next is the block after it,
// or nil.
func (x *shadowIndex) score(s blas32.General, q *kernel.ShadowQueries, b *shadow, page int, next *shadow) {
	if next == nil {
		next = new(shadow)
	}
	scale := b.scale[page*len(b.scale)/shadowBlockPages:]
	if x.policy.Bits == 4 {
		x.tile.ScoresNibbles(s, q, b.halves[page*len(b.halves)/shadowBlockPages:], scale, next.halves)
		return
	}
	x.tile.Scores(s, q, b.keys[page*len(b.keys)/shadowBlockPages:], scale, next.keys)
}

func (x *shadowIndex) clone() index {
	c := &shadowIndex{op: x.op, policy: x.policy, tile: x.tile}
	for _, h := range x.heads {
		c.heads = append(c.heads, shadowHead{h.mean, append([]*shadow(nil), h.blocks...)})
	}
	return c
}

func (x *shadowIndex) bytes() (n int64) {
	for i := range x.heads {
		n += 4 * int64(len(x.heads[i].mean))
		for _, b := range x.heads[i].blocks {
			n += b.bytes()
		}
	}
	return n
}

func (x *shadowIndex) truncate(s *State, _ int, try bool) bool {
	if !try {
		for g := range x.heads {
			h := &x.heads[g]
			n := min(len(h.blocks), s.heads[g].Held()/shadowBlockTokens)
			clear(h.blocks[n:])
			h.blocks = h.blocks[:n]
		}
	}
	return true
}

// append makes the blocks that have become whole.
func (x *shadowIndex) append(r *run) error {
	w := r.shadowWork(x)
	w.jobs = w.jobs[:0]
	for g, st := range r.state.heads {
		h := &x.heads[g]
		for n := len(h.blocks); (n+1)*shadowBlockTokens <= st.Held(); n++ {
			if n == 0 {
				h.mean = w.meanOf(g)
			}
			h.blocks = append(h.blocks, nil)
			w.jobs = append(w.jobs, [2]int{g, n})
		}
	}
	if len(w.jobs) == 0 {
		return nil
	}
	workers := w.reserve(x.op.workersFor(r.call.Workers, int64(len(w.jobs))<<20))
	return r.group.RunAs(r.ctx, "kvcache", workers, len(w.jobs), w.build)
}

// choose scans the shadow for a step of one token.
func (x *shadowIndex) choose(r *run) error {
	r.choice.All = true
	if r.x != 1 {
		return nil
	}
	w := r.shadowWork(x)
	if !w.begin() {
		return nil
	}
	if err := w.scan(x.policy.TopK); err != nil {
		return err
	}
	r.choice.All = w.wild.Load()
	return nil
}

// shadowWork is the working memory of a step, in the run's.
func (r *run) shadowWork(x *shadowIndex) *shadowRun {
	if r.shadow == nil {
		r.shadow = new(shadowRun)
		w := r.shadow
		w.build, w.look, w.join = w.buildTask, w.scanTask, w.joinTask
	}
	r.shadow.r, r.shadow.x = r, x
	return r.shadow
}

// shadowRun is what a step needs to scan a shadow, and what it finds.
type shadowRun struct {
	r                 *run
	x                 *shadowIndex
	build, look, join func(worker, task int)
	jobs              [][2]int // head and block that are made
	works             []shadowWorker
	wild              atomic.Bool // the shadow does not tell: all is read

	heads      []shadowFound
	ranges     int // of blocks that are scanned by themselves
	top        int
	pasts      []attention.Past
	selections []attention.Selection
	inner      attention.Call
	lse        []float32 // [Heads] of what is read exactly
}

// shadowFound is what is found of a key head. Rows are its query heads.
type shadowFound struct {
	scaled  []float32 // [group][HeadDim], the queries times Scale
	queries kernel.ShadowQueries
	limit   int       // tokens of whole pages that are estimated; those after are read exactly
	blocks  int       // that have some of them
	sums    []float32 // [group][blocks*32], of exp(score - the block's largest)
	tops    []float32 // [group][blocks]
	finds   []finds   // [ranges][group]
	best    finds
	exact   []int32   // tokens below limit that are read exactly, ascending
	mass    []float32 // [blocks]
	tail    []float32 // [group][vCols], mean of the estimated values
	rest    []float64 // [group], log of the estimated weights' sum
	most    []float64 // [group], log of what it is at most
	value   float32   // the longest value of the blocks
}

// shadowWorker is what a worker needs.
type shadowWorker struct {
	k, v   []float32 // of a block's tokens
	row    []float32
	eight  []int8
	scores []float32 // [group][512]
	ones   []float32
}

// reserve makes room for workers.
func (w *shadowRun) reserve(workers int) int {
	cfg, g := &w.x.op.cfg, w.x.op.group
	for len(w.works) < workers {
		w.works = append(w.works, shadowWorker{
			row: make([]float32, cfg.HeadDim), eight: make([]int8, cfg.HeadDim), scores: make([]float32, g*shadowBlockTokens), ones: make([]float32, g),
		})
		for i := range g {
			w.works[len(w.works)-1].ones[i] = 1
		}
	}
	return workers
}

// fetch copies the keys and values of a block's tokens.
func (w *shadowRun) fetch(k, v blas32.General, head, from int) {
	w.r.state.readRows(k, head, from, true)
	w.r.state.readRows(v, head, from, false)
}

func finite1(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

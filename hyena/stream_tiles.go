package hyena

import (
	"context"
	"fmt"
	"math/bits"
	"sync"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// A tile is what a block of inputs adds to a block of outputs, both of U tokens, that begins
// lag U tokens later: a convolution with kernels on both sides of a tap,
//
//	y[t] = sum over s < U of k[lag U + t - s] u[s]    for t < U.
//
// Where z^U = i (see plan), it takes a transform of U complex numbers and no zeros.
type tile struct {
	conv  *Conv
	units int
}

// tileSet makes the tiles of a convolution when they are first needed.
type tileSet struct {
	mu    sync.Mutex
	tiles map[[2]int]*tile // by size and lag
}

// tileSource gives the kernel of a convolution as that of a tile.
type tileSource struct {
	of        *Conv
	size, lag int
}

func (s *tileSource) rows(ctx context.Context, group *parallel.Group, workers int, w want, own *computed) (kernels, error) {
	w.rows += s.lag * s.size
	k, err := s.of.source.rows(ctx, group, workers, w, own)
	return kernels{causal: k.causal, first: k.first, lag: s.lag * s.size}, err
}

func (s *tileSource) spareBytes(rows, channels, workers int) int64 {
	return s.of.source.spareBytes(s.lag*s.size+rows, channels, workers)
}

// tile returns the tile of a size and a lag.
func (c *Conv) tile(size, lag int) *tile {
	c.tiles.mu.Lock()
	defer c.tiles.mu.Unlock()
	key := [2]int{size, lag}
	if t := c.tiles.tiles[key]; t != nil {
		return t
	}
	cfg := ConvConfig{Reverse: blas32.General{Rows: size, Cols: c.channels, Stride: c.channels}, Cache: c.cache, Workers: c.cfg.Workers, Scratch: c.scratch}
	conv, err := newConv(cfg, c.channels, size, &tileSource{c, size, lag})
	if err != nil {
		panic(err) // it is like c
	}
	conv.b = c.b
	t := &tile{conv, len(conv.units(nil, size))}
	if c.tiles.tiles == nil {
		c.tiles.tiles = map[[2]int]*tile{}
	}
	c.tiles.tiles[key] = t
	return t
}

// bytes returns what the tiles keep.
func (s *tileSet) bytes() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tiles {
		n = sumBytes(n, t.conv.cache.spectraBytes(t.conv))
	}
	return n
}

// convKind returns what states of a convolution have in common.
func convKind(c *Conv) kind {
	name := fmt.Sprintf("Conv of %d channels with %d taps", c.channels, c.taps)
	f := state.NewFingerprint(name, state.Bool(c.cfg.GELU))
	f.Matrices(c.cfg.Kernel)
	f.Floats(c.cfg.Skip)
	return kind{name: name, hash: uint64(f), most: mostTokens, convs: []*Conv{c}}
}

// nearMost is how many tokens a near block has at the most: those that outputs wait for.
// Tests make it smaller.
var nearMost = 1024

// nearTokens returns how many it has with a kernel of some taps: a power of 2.
func nearTokens(taps int) int { return max(2*directTaps, min(nearMost, 1<<bits.Len(uint(taps-1)))) }

// farLevels returns how many levels of far blocks a kernel of that many taps has, of near,
// 2 near, 4 near, ... tokens: those of U tokens serve taps beyond U.
func farLevels(near, taps int) (n int) {
	for u := near; u < taps-1 && u <= mostTokens/8; u *= 2 {
		n++
	}
	return n
}

// tileWork is how many inputs a tile has at the least that several goroutines share.
const tileWork = 1 << 16

// convolveTile sets dst to what a tile makes of inputs, of some of its units.
func (r *convRun) convolveTile(ctx context.Context, t *tile, dst, u blas32.General, workers, first, end int) error {
	c := t.conv
	if check.Product(tileWork, u.Rows, u.Cols) >= 0 {
		workers = 1
	}
	r.all = c.units(r.all[:0], u.Rows)
	return r.convolveRange(ctx, c, dst, u, workers, first, end)
}

// addTile adds to sums what a tile makes of inputs, of some of its units.
func (r *convRun) addTile(ctx context.Context, t *tile, sums, u blas32.General, workers, first, end int) error {
	r.tile = scratch.Floats(r.tile, u.Rows*u.Cols)
	own := mat.Of(r.tile, u.Rows, u.Cols)
	if err := r.convolveTile(ctx, t, own, u, workers, first, end); err != nil {
		return err
	}
	from, to := r.all[first].channel, r.all[end-1].channel+r.all[end-1].channels
	addRows(mat.Columns(sums, from, to-from), mat.Columns(own, from, to-from))
	return nil
}

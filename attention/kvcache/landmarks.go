package kvcache

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state"
)

// Landmarks reads the blocks whose last tokens, their landmarks, have the largest logits
// with a query (the lookup of Mohtashami and Jaggi 2023, arXiv 2305.16300, for models that
// were trained so). Tokens of the last, unfinished block are read. It is a lookup alone:
// the softmax is the plain one, package landmark has the grouped one.
type Landmarks struct {
	// Block is how many tokens a block has, its landmark among them, and TopK how many
	// blocks are read.
	Block, TopK int
	// Group says who chooses where query heads share a key head; 0 is GroupSum.
	Group GroupChoice
}

// describe says what it was before TopK had its name, so that states are theirs.
func (p Landmarks) describe() string {
	return fmt.Sprintf("kvcache.Landmarks{Block:%d Blocks:%d Group:%d}", p.Block, p.TopK, p.Group)
}

func (p Landmarks) check(cfg *Config) error {
	switch {
	case p.Block < 1 || p.Block > 1<<20:
		return check.Errorf(ErrConfig, "kvcache: Landmarks.Block is %d, want 1 to 2^20", p.Block)
	case cfg.Rotation != nil && cfg.Positions != AtOrigin:
		return check.Errorf(ErrConfig, "kvcache: Landmarks with Positions %d, want AtOrigin", cfg.Positions)
	case p.TopK > math.MaxInt32/p.Block:
		return check.Errorf(ErrConfig, "kvcache: Landmarks.TopK is %d of %d tokens", p.TopK, p.Block)
	}
	return checkTop("Landmarks.TopK", p.TopK, p.Group)
}

func (p Landmarks) newIndex(a *Attention) index {
	d := a.cfg.HeadDim
	return &landmarkIndex{p: p, dim: d, cols: whole(d, a.tile.Unit()), keys: make([][]float32, a.cfg.KVHeads)}
}

// landmarkIndex is the landmarks of whole blocks, [blocks][cols] of each key head, of which
// the first dim are the key.
type landmarkIndex struct {
	still
	p         Landmarks
	dim, cols int
	keys      [][]float32
}

func (x *landmarkIndex) append(r *run) error {
	x.extend(r.state)
	return nil
}

// extend takes up the blocks that have become whole.
func (x *landmarkIndex) extend(s *State) {
	kc, blocks := x.cols, s.n/x.p.Block
	for g, keys := range x.keys {
		for b := len(keys) / kc; b < blocks; b++ {
			for range kc {
				keys = append(keys, 0)
			}
			s.readRows(blas32.General{Rows: 1, Cols: x.dim, Stride: kc, Data: keys[b*kc:]}, g, (b+1)*x.p.Block-1, true)
		}
		x.keys[g] = keys
	}
}

func (x *landmarkIndex) choose(r *run) error {
	cfg := &r.op.cfg
	blocks := r.first / x.p.Block // whole before the chunk
	if blocks <= x.p.TopK {
		return nil
	}
	q := r.meanQuery(r.q)
	r.sel.log = grown(r.sel.log, cfg.Heads*blocks)
	r.sel.from, r.sel.to = 0, blocks
	r.works = atLeast(r.works, 1)
	w := &r.works[0]
	w.r = r
	kc, group := r.kCols(), r.op.group
	for g := range x.keys {
		w.packQuery(q[g*group*cfg.HeadDim:], group, cfg.HeadDim)
		r.op.tile.Scores(mat.Of(r.sel.log[g*group*blocks:], group, blocks), w.packed[:group*kc], kernel.Strided{Rows: blocks, Cols: kc, Stride: kc, Float32: x.keys[g][:blocks*kc]}, nil)
	}
	r.report.Index += 4 * int64(blocks) * int64(cfg.KVHeads*cfg.HeadDim)
	lists := x.p.Group.lists(cfg)
	r.choose1(lists)
	for i := range lists {
		list := r.choice.Lists[i]
		for _, b := range r.pickTop(r.groupScores(i, x.p.Group), x.p.TopK) {
			list = addRun(list, Run{From: int(b) * x.p.Block, To: (int(b) + 1) * x.p.Block})
		}
		r.choice.Lists[i] = list
	}
	r.tail = min(r.tail, blocks*x.p.Block)
	return nil
}

func (x *landmarkIndex) truncate(_ *State, n int, try bool) bool {
	if !try {
		for g := range x.keys {
			x.keys[g] = x.keys[g][:min(len(x.keys[g]), n/x.p.Block*x.cols)]
		}
	}
	return true
}

func (x *landmarkIndex) clone() index {
	return &landmarkIndex{p: x.p, dim: x.dim, cols: x.cols, keys: cloneLists(x.keys)}
}

func (x *landmarkIndex) bytes() (n int64) {
	for _, k := range x.keys {
		n += 4 * int64(cap(k))
	}
	return n
}

// save writes landmarks without what a tier fills them up with.
func (x *landmarkIndex) save(w *state.Writer) {
	for _, keys := range x.keys {
		list := make([]float32, 0, len(keys)/x.cols*x.dim)
		for ; len(keys) > 0; keys = keys[x.cols:] {
			list = append(list, keys[:x.dim]...)
		}
		w.Floats(list)
	}
}

func (x *landmarkIndex) load(r *state.Reader, s *State) {
	for g := range x.keys {
		list := r.Floats(int64(s.n / x.p.Block * x.dim))
		x.keys[g] = make([]float32, len(list)/x.dim*x.cols)
		for b := range len(list) / x.dim {
			copy(x.keys[g][b*x.cols:], list[b*x.dim:][:x.dim])
		}
	}
}

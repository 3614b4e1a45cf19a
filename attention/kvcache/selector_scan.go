package kvcache

import (
	"fmt"
	"math"
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// GroupChoice says who chooses where several query heads read a key head.
type GroupChoice uint8

const (
	// GroupSum gives the query heads of a key head one choice, by the sum of their scores.
	GroupSum GroupChoice = iota
	// GroupMax gives them one choice, by the largest of their scores.
	GroupMax
	// Alone lets each query head choose and read for itself: up to as many times the reads.
	Alone
)

// scanKeys sets the scores [Heads][n] of rows from ... to of every key head with one query
// of each of its query heads, as keys are held. They are in r.sel.scores.
func (r *run) scanKeys(q []float32, from, to int) error {
	cfg := &r.op.cfg
	n := to - from
	r.sel.log = grown(r.sel.log, cfg.Heads*n)
	r.sel.from, r.sel.to, r.sel.query = from, to, q
	workers := r.op.workersFor(r.call.Workers, int64(n)*int64(cfg.Heads*cfg.HeadDim))
	r.works = atLeast(r.works, workers)
	r.report.Index += int64(n) * int64(cfg.KVHeads*cfg.HeadDim) * elementBytes(r.state.cfg.Format)
	return r.group.RunAs(r.ctx, "kvcache", workers, cfg.KVHeads, r.scan)
}

// scoresOf returns the scores of a query head.
func (r *run) scoresOf(head int) []float32 {
	n := r.sel.to - r.sel.from
	return r.sel.log[head*n:][:n]
}

// scanTask scores the keys of one key head.
func (r *run) scanTask(worker, head int) {
	w := &r.works[worker]
	w.r = r
	if r.sel.pages != nil {
		w.scanPages(r.sel.pages, head)
		return
	}
	cfg := &r.op.cfg
	g, n := r.op.group, r.sel.to-r.sel.from
	w.packQuery(r.sel.query[head*g*cfg.HeadDim:], g, cfg.HeadDim)
	w.scanRows(mat.Of(r.sel.log[head*g*n:], g, n), head, r.sel.from)
}

// packQuery packs rows of queries one after the other.
func (w *work) packQuery(q []float32, rows, cols int) {
	kc := whole(cols, w.r.op.tile.Unit())
	w.head, w.packed = scratch.Floats(w.head, rows*kc), scratch.Floats(w.packed, rows*kc)
	clear(w.head[:rows*kc])
	m := blas32.General{Rows: rows, Cols: kc, Stride: kc, Data: w.head}
	for i := range rows {
		copy(mat.Row(m, i), q[i*cols:][:cols])
	}
	w.r.op.tile.PackQueries(w.packed[:rows*kc], m)
}

// scanBlock is how many keys are widened at a time, and scanBytes how much of keys that are
// read where they stand is scored while as much is fetched.
const (
	scanBlock = 64
	scanBytes = 128 << 10
)

// scanAtOnce is how many keys are scored between two looks at the context.
const scanAtOnce = 1 << 14

// scanRows scores the rows of a key head from one on, with the queries that are packed.
func (w *work) scanRows(s blas32.General, head, from int) {
	r := w.r
	st, kc, d := r.state.heads[head], r.kCols(), r.op.cfg.HeadDim
	q := w.packed[:s.Rows*kc]
	inPlace := st.Config().Format == asm.Float32 && kc == d
	for at := 0; at < s.Cols; {
		g, ok := st.Segment(r.state.position(head, from+at))
		if !ok {
			panic("kvcache: a row that is not held")
		}
		n := min(g.Tokens, s.Cols-at, scanAtOnce)
		if r.group.Stopped() {
			return
		}
		if inPlace {
			k, _, _ := g.Float32()
			few := max(scanBlock, scanBytes/(4*d))
			for i := 0; i < n; i += few {
				m := min(few, n-i)
				var next *byte // for all memory to be under way before it is needed
				if i+2*m <= k.Rows {
					next = (*byte)(unsafe.Pointer(&k.Data[(i+m)*k.Stride]))
				}
				r.op.tile.Scores(mat.Columns(s, at+i, m), q, strided(mat.Rows(k, i, i+m)), next)
			}
		} else {
			w.keys = scratch.Floats(w.keys, scanBlock*kc)
			for i := 0; i < n; i += scanBlock {
				m := min(scanBlock, n-i)
				clear(w.keys[:m*kc])
				k := blas32.General{Rows: m, Cols: d, Stride: kc, Data: w.keys}
				if err := g.Keys(k, 0, i); err != nil {
					panic(err)
				}
				r.op.tile.Scores(mat.Columns(s, at+i, m), q, kernel.Strided{Rows: m, Cols: kc, Stride: kc, Float32: w.keys[:m*kc]}, nil)
			}
		}
		at += n
	}
}

// groupScores makes the scores of a list: those of one query head (Alone) or of those of a
// key head together, in memory that the next list takes.
func (r *run) groupScores(list int, how GroupChoice) []float32 {
	if how == Alone {
		return r.scoresOf(list)
	}
	n := r.sel.to - r.sel.from
	r.sel.group = grown(r.sel.group, n)
	x := r.sel.group[:n]
	copy(x, r.scoresOf(list*r.op.group))
	for h := 1; h < r.op.group; h++ {
		y := r.scoresOf(list*r.op.group + h)
		if how == GroupMax {
			asm.Maximum(x, x, y)
		} else {
			asm.Add(x, x, y)
		}
	}
	return x
}

// lists is how many lists a choice of the kind has.
func (c GroupChoice) lists(cfg *Config) int {
	if c == Alone {
		return cfg.Heads
	}
	return cfg.KVHeads
}

// lookup is the mean query of the chunk by which keys are looked up: as keys are held; or,
// where they are held unrotated, turned to the positions from Recent on (TokenSelect).
func (r *run) lookup() ([]float32, error) {
	if r.op.rotation == nil || r.op.rotatedHeld() {
		return r.meanQuery(r.q), nil
	}
	q, err := r.queryAt(r.op.cfg.Recent, false)
	if err != nil {
		return nil, err
	}
	return r.meanQuery(q), nil
}

// pickTop returns the n largest of scores, ascending by their numbers.
func (r *run) pickTop(scores []float32, n int) []int32 {
	return r.sel.best.Ascending(scores, n)
}

// Top reads the tokens whose keys have the largest logits with a query, looking at every
// key: what an index of any kind is at best. A chunk of several queries looks up their
// mean.
type Top struct {
	// TopK is how many tokens of the middle are read.
	TopK int
	// Group says who chooses where query heads share a key head; 0 is GroupSum.
	Group GroupChoice
}

type topIndex struct {
	still
	p Top
}

// describe says what it was before TopK had its name, so that states are theirs.
func (p Top) describe() string {
	return fmt.Sprintf("kvcache.Top{Tokens:%d Group:%d}", p.TopK, p.Group)
}

func (p Top) check(*Config) error       { return checkTop("Top.TopK", p.TopK, p.Group) }
func (p Top) newIndex(*Attention) index { return topIndex{p: p} }
func (x topIndex) clone() index         { return x }

func (x topIndex) choose(r *run) error {
	from, to := r.middle(0)
	if to-from <= x.p.TopK {
		return nil
	}
	q, err := r.lookup()
	if err != nil {
		return err
	}
	if err := r.scanKeys(q, from, to); err != nil {
		return err
	}
	r.choose1(x.p.Group.lists(&r.op.cfg))
	for i := range r.choice.Lists {
		r.choice.Lists[i] = addRows(r.choice.Lists[i], r.pickTop(r.groupScores(i, x.p.Group), x.p.TopK), from)
	}
	return nil
}

func checkTop(name string, n int, g GroupChoice) error {
	switch {
	case n < 1 || n > math.MaxInt32:
		return check.Errorf(ErrConfig, "kvcache: %s is %d, want 1 to 2^31-1", name, n)
	case g > Alone:
		return check.Errorf(ErrConfig, "kvcache: Group is %d, want GroupSum, GroupMax or Alone", g)
	}
	return nil
}

// elementBytes is what a number takes in a format.
func elementBytes(f asm.Format) int64 {
	switch f {
	case asm.Float32:
		return 4
	case asm.Int8:
		return 1
	}
	return 2
}

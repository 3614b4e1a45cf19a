package landmark

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/tile"
	"github.com/subquad/subquad/rope"
)

// run is the working memory of one call of Landmark, and the call
// itself. Keys are the state's tail and the call's, of which the call's tokens
// are the last. They are packed section by section, once, for each key head.
type run struct {
	op   *Landmark
	call request

	q, k, v  blas32.General // rotated, and with the tail before the call's
	data     [3][]float32
	past     int // keys before the call's first token
	sections []section
	packed   []float32
	finite   []bool // of each key head's tiles: no NaN and no Inf among the values
	perHead  int    // float32 of packed for a key head
	tiles    int    // in all sections

	retrieval retrieval

	group                  parallel.Group
	pack, attend, retrieve func(worker, task int)
	work                   []worker
}

// section is the tokens up to a landmark.
type section struct {
	from, to int // keys, without the landmark
	landmark int // key, or -1 if there is none yet
	tile     int // its first tile's number
	packed   int // where its tiles begin
}

// worker is what one worker needs for a tile of query rows of one head.
type worker struct {
	q, o, s          []float32
	top, sum, factor []float32 // of the outer softmax
	blockTop         []float32 // and of that within a block
	blockSum         []float32
	blockO           []float32
	logits           []float32 // of some landmarks, [rows][a panel]
	landmarks        []float32 // packed
	two              [2]float32
	chooser          chooser
	weights          []float32
}

func (r *run) run(ctx context.Context, l *Landmark, call request) error {
	r.op, r.call = l, call
	defer r.forget()
	if err := r.check(); err != nil {
		return err
	}
	if r.pack == nil {
		r.pack, r.attend, r.retrieve = r.packTask, r.attendTask, r.retrieveTask
	}
	if call.Q.Rows == 0 {
		return ctx.Err()
	}
	if err := r.gather(ctx); err != nil {
		return err
	}
	r.divide()
	cfg := &l.cfg
	work := float64(call.Q.Rows) * float64(r.k.Rows) * float64(cfg.Heads*(cfg.HeadDim+cfg.ValueDim))
	workers := l.workersFor(call.workers, int64(min(work, math.MaxInt32)))
	r.reserve(workers)
	if err := r.group.Run(ctx, workers, len(r.sections)*cfg.KVHeads, r.pack); err != nil {
		return check.Wrap(ctx, "landmark", err)
	}
	if call.State != nil {
		if err := r.choose(ctx, workers); err != nil {
			return err
		}
	}
	tasks := cfg.Heads * ((call.Q.Rows + l.sizes.Rows - 1) / l.sizes.Rows)
	if err := r.group.Run(ctx, workers, tasks, r.attend); err != nil {
		return check.Wrap(ctx, "landmark", err)
	}
	if call.State != nil {
		return call.State.commit(r)
	}
	return nil
}

// forget drops what belongs to the caller.
func (r *run) forget() {
	r.call, r.q, r.k, r.v = request{}, blas32.General{}, blas32.General{}, blas32.General{}
}

// gather brings queries and keys to their positions, behind the state's tail.
func (r *run) gather(ctx context.Context) error {
	c, l := &r.call, r.op
	r.q, r.k, r.v, r.past = c.Q, c.K, c.V, 0
	start := int64(0) // position of the first key
	if s := c.State; s != nil {
		start = s.start() - int64(s.tail.Rows)
		r.past = s.tail.Rows
		n := r.past + c.Q.Rows
		for i, x := range [...]struct {
			m     *blas32.General
			tail  blas32.General
			after blas32.General
		}{{&r.k, s.tail.K(), c.K}, {&r.v, s.tail.V(), c.V}} {
			r.data[i] = scratch.Floats(r.data[i], n*x.after.Cols)
			*x.m = mat.Of(r.data[i], n, x.after.Cols)
			for j := range r.past {
				copy(mat.Row(*x.m, j), mat.Row(x.tail, j))
			}
			for j := range c.Q.Rows {
				copy(mat.Row(*x.m, r.past+j), mat.Row(x.after, j))
			}
		}
	}
	if l.cfg.Rotation == nil {
		return nil
	}
	var err error
	if c.State != nil {
		err = l.cfg.Rotation.Rotate(r.k, start) // in place
	} else {
		r.data[0] = scratch.Floats(r.data[0], r.k.Rows*r.k.Cols)
		r.k, err = rotated(ctx, l.cfg.Rotation, r.data[0], r.k, start)
	}
	if err != nil {
		return err
	}
	r.data[2] = scratch.Floats(r.data[2], r.q.Rows*r.q.Cols)
	r.q, err = rotated(ctx, l.cfg.Rotation, r.data[2], r.q, start+int64(r.past))
	return err
}

// rotated returns x, rotated from position start on, in data.
func rotated(ctx context.Context, rotation *rope.Rotation, data []float32, x blas32.General, start int64) (blas32.General, error) {
	m := mat.Of(data, x.Rows, x.Cols)
	return m, rotation.Run(ctx, &rope.Call{Dst: m, X: x, Positions: rope.Positions{Start: start}})
}

// divide finds the sections and lays out their tiles.
func (r *run) divide() {
	a := r.op
	panel := a.tile.Panel()
	r.sections, r.perHead, r.tiles = r.sections[:0], 0, 0
	add := func(from, to, landmark int) {
		r.sections = append(r.sections, section{from, to, landmark, r.tiles, r.perHead})
		for n := to - from; n > 0; n -= a.sizes.Keys {
			keys := min(n, a.sizes.Keys)
			r.perHead += a.tile.Panels(keys)*panel*a.cfg.HeadDim + keys*a.outCols()
			r.tiles++
		}
	}
	from := 0
	for i, is := range r.call.Landmarks {
		if is {
			add(from, r.past+i, r.past+i)
			from = r.past + i + 1
		}
	}
	if from < r.k.Rows {
		add(from, r.k.Rows, -1)
	}
	r.packed = scratch.Floats(r.packed, r.perHead*a.cfg.KVHeads)
	if n := r.tiles * a.cfg.KVHeads; cap(r.finite) < n {
		r.finite = make([]bool, n)
	} else {
		r.finite = r.finite[:n]
	}
}

func (r *run) reserve(workers int) {
	a := r.op
	n, panel := (a.sizes.Rows+a.tile.Rows()-1)/a.tile.Rows()*a.tile.Rows(), a.tile.Panel()
	for len(r.work) < workers {
		w := worker{
			q: scratch.Floats(nil, n*a.cfg.HeadDim), o: scratch.Floats(nil, n*a.outCols()), s: scratch.Floats(nil, a.tile.Rows()*a.scoreStride()),
			blockO: scratch.Floats(nil, a.tile.Rows()*a.outCols()), logits: scratch.Floats(nil, n*panel), landmarks: scratch.Floats(nil, panel*a.cfg.HeadDim),
		}
		for _, x := range []*[]float32{&w.top, &w.sum, &w.factor, &w.blockTop, &w.blockSum} {
			*x = make([]float32, n)
		}
		r.work = append(r.work, w)
	}
}

// tile returns a section's tile's keys and where they and their values are
// packed for a key head.
func (r *run) tile(s *section, t, kvHead int) (from, to int, k, v []float32, finite *bool) {
	a := r.op
	from = s.from + t*a.sizes.Keys
	to = min(from+a.sizes.Keys, s.to)
	kSize := a.tile.Panels(to-from) * a.tile.Panel() * a.cfg.HeadDim
	full := a.sizes.Keys * (a.cfg.HeadDim + a.outCols()) // sizes.Keys is whole panels
	at := kvHead*r.perHead + s.packed + t*full
	return from, to, r.packed[at:][:kSize], r.packed[at+kSize:][:(to-from)*a.outCols()], &r.finite[kvHead*r.tiles+s.tile+t]
}

func (r *run) tilesOf(s *section) int {
	return (s.to - s.from + r.op.sizes.Keys - 1) / r.op.sizes.Keys
}

// packTask packs a section for one key head.
func (r *run) packTask(_, task int) {
	a := r.op
	s, g := &r.sections[task/a.cfg.KVHeads], task%a.cfg.KVHeads
	for t := range r.tilesOf(s) {
		from, to, k, v, finite := r.tile(s, t, g)
		a.tile.PackKeys(k, 0, mat.Columns(mat.Rows(r.k, from, to), g*a.cfg.HeadDim, a.cfg.HeadDim))
		a.tile.PackValues(v, to-from, 0, mat.Columns(mat.Rows(r.v, from, to), g*a.cfg.ValueDim, a.cfg.ValueDim))
		*finite = tile.Finite(v)
	}
}

// attendTask does a tile of query rows of one head.
func (r *run) attendTask(worker, task int) {
	w, a := &r.work[worker], r.op
	d, cols, panel := a.cfg.HeadDim, a.outCols(), a.tile.Panel()
	head := task % a.cfg.Heads
	g := head / (a.cfg.Heads / a.cfg.KVHeads)
	// The last rows, which see most, come first.
	first := (tilesFor(r.q.Rows, a.sizes.Rows) - 1 - task/a.cfg.Heads) * a.sizes.Rows
	n := min(a.sizes.Rows, r.q.Rows-first)
	for i := range n {
		asm.Scale(w.q[i*d:][:d], a.cfg.Scale, mat.Row(r.q, first+i)[head*d:][:d])
		w.top[i], w.sum[i] = -math.MaxFloat32, 0
	}
	clear(w.o[:n*cols])
	if r.call.State != nil {
		for i := range n {
			w.read(r, i, first+i, head)
		}
	}
	height := a.tile.Rows()
	for b := range r.sections {
		s := &r.sections[b]
		if s.from > r.past+first+n-1 {
			break
		}
		if b%panel == 0 {
			w.landmarkLogits(r, b, g, n)
		}
		for i := 0; i < n; i += height {
			w.strip(r, s, b%panel, g, first, i, min(height, n-i))
		}
	}
	for i := range n {
		dst := mat.Row(r.call.Dst, first+i)[head*a.cfg.ValueDim:][:a.cfg.ValueDim]
		factor, lse := float32(0), tile.NegInf
		if w.sum[i] != 0 {
			factor, lse = 1/w.sum[i], float32(float64(w.top[i])+math.Log(float64(w.sum[i])))
		}
		asm.Scale(dst, factor, w.o[i*cols:][:len(dst)])
		if out := r.call.LSE; out.Rows > 0 {
			mat.Row(out, first+i)[head] = lse
		}
	}
}

func tilesFor(n, size int) int { return (n + size - 1) / size }

// landmarkLogits fills logits with a panel of landmarks, of the sections from b
// on.
func (w *worker) landmarkLogits(r *run, b, kvHead, n int) {
	a := r.op
	d, panel := a.cfg.HeadDim, a.tile.Panel()
	for i := range min(panel, len(r.sections)-b) {
		if at := r.sections[b+i].landmark; at >= 0 {
			a.tile.PackKeys(w.landmarks, i, mat.Columns(mat.Rows(r.k, at, at+1), kvHead*d, d))
		}
	}
	a.tile.Scores(mat.Of(w.logits, n, panel), mat.Of(w.q, n, d), w.landmarks)
}

// strip adds a section to rows i ... i+n, the first of which are of earlier
// sections, then of this, then of later ones.
func (w *worker) strip(r *run, s *section, column, kvHead, first, i, n int) {
	key := func(row int) int { return r.past + first + row }
	own := max(i, s.from-r.past-first) // the first row that is in the section or after
	after := i + n
	if s.landmark >= 0 {
		after = max(own, min(after, s.landmark+1-r.past-first))
	}
	if own < after && own < i+n {
		w.ownTokens(r, s, kvHead, own, min(after, i+n)-own, key(own))
	}
	if after < i+n {
		w.block(r, s, column, kvHead, after, i+n-after)
	}
}

// ownTokens adds the tokens of the section that rows i ... i+n belong to, the
// first of them being key at.
func (w *worker) ownTokens(r *run, s *section, kvHead, i, n, at int) {
	for t := range r.tilesOf(s) {
		from, to, k, v, finite := r.tile(s, t, kvHead)
		if from > at+n-1 {
			return
		}
		x := w.scores(r, i, n, to-from, k)
		for j := range n {
			if seen := at + j + 1 - from; seen < x.Cols {
				tile.Hide(x.Data[j*x.Stride:][max(seen, 0):x.Cols])
			}
		}
		r.op.tile.Weights(x, w.top[i:i+n], w.sum[i:i+n], w.factor[i:i+n])
		w.values(r, w.o[i*r.op.outCols():], x, v, *finite, w.factor[i:i+n])
	}
}

// block adds an earlier block to rows i ... i+n.
func (w *worker) block(r *run, s *section, column, kvHead, i, n int) {
	a := r.op
	cols, panel, tiles := a.outCols(), a.tile.Panel(), r.tilesOf(s)
	top, sum := w.blockTop[:n], w.blockSum[:n]
	for j := range n {
		top[j], sum[j] = -math.MaxFloat32, 0
	}
	clear(w.blockO[:n*cols])
	var x blas32.General
	for t := range tiles {
		_, _, k, v, finite := r.tile(s, t, kvHead)
		x = w.scores(r, i, n, len(v)/cols, k)
		a.tile.Weights(x, top, sum, w.factor[:n])
		if tiles > 1 {
			w.values(r, w.blockO, x, v, *finite, w.factor[:n])
		}
	}
	for j := range n {
		keep, share := w.join(i+j, w.logits[(i+j)*panel+column], sum[j])
		w.factor[j] = keep
		switch o := w.o[(i+j)*cols:][:cols]; {
		case tiles == 1:
			y := x.Data[j*x.Stride:][:x.Cols]
			asm.Scale(y, share, y)
		default:
			asm.Scale(o, keep, o)
			if tiles > 1 {
				asm.Axpy(o, share, w.blockO[j*cols:][:cols])
			}
		}
	}
	if tiles == 1 {
		_, _, _, v, finite := r.tile(s, 0, kvHead)
		w.values(r, w.o[i*cols:], x, v, *finite, w.factor[:n])
	}
}

// join takes a landmark's logit into a row's softmax. The row's values are to be
// multiplied by keep, the block's, whose weights have a sum, by share.
func (w *worker) join(i int, logit, sum float32) (keep, share float32) {
	if math.IsInf(float64(logit), -1) {
		return 1, 0
	}
	top := max(w.top[i], logit) // keeps NaN
	w.two = [2]float32{w.top[i] - top, logit - top}
	asm.Exp(w.two[:], w.two[:])
	w.top[i] = top
	w.sum[i] = float32(w.sum[i]*w.two[0]) + w.two[1]
	if sum == 0 {
		return w.two[0], 0
	}
	return w.two[0], w.two[1] / sum
}

// scores returns the logits of rows i ... i+n with packed keys.
func (w *worker) scores(r *run, i, n, keys int, k []float32) blas32.General {
	a := r.op
	d := a.cfg.HeadDim
	x := blas32.General{Rows: n, Cols: a.tile.Panels(keys) * a.tile.Panel(), Stride: a.scoreStride(), Data: w.s}
	a.tile.Scores(x, blas32.General{Rows: n, Cols: d, Stride: d, Data: w.q[i*d:]}, k)
	x.Cols = keys
	return x
}

func (w *worker) values(r *run, o []float32, x blas32.General, v []float32, finite bool, factor []float32) {
	a := r.op
	cols := a.outCols()
	m := blas32.General{Rows: x.Rows, Cols: cols, Stride: cols, Data: o}
	if finite {
		a.tile.Values(m, x, v, x.Cols, 0, factor)
	} else {
		tile.SparseValues(m, x, v, a.tile.Panel(), x.Cols, 0, factor)
	}
}

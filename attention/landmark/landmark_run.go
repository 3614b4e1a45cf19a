package landmark

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/tile"
	"github.com/subquad/subquad/rope"
)

// run is the working memory of one call of Landmark, and the sequence of it that is being
// done. Keys are the state's tail and the call's, of which the call's tokens are the
// last. They are packed section by section, once, for each key head.
type run struct {
	op     *Landmark
	states states[*State] // of the call
	call   tokens         // of the sequence
	state  *State         // that it goes on from, or nil

	q, k, v  blas32.General // rotated: [tokens, Heads*HeadDim]; [past + tokens, KVHeads*HeadDim or ValueDim]
	data     [3][]float32   // memory of k, v, q
	past     int            // keys before the call's first token: the state's tail
	sections []section
	packed   []float32 // tiles of keys and values: [KVHeads][perHead]
	finite   []bool    // [KVHeads][tiles]: no NaN and no Inf among a tile's values
	perHead  int       // float32 of packed for a key head
	tiles    int       // in all sections

	retrieval retrieval
	whole     [4][]float32 // of blocks that have become whole: keys, values, then landmarks' keys, values

	group                  parallel.Group
	pack, attend, retrieve func(worker, task int) // packTask, attendTask, retrieveTask
	work                   []worker
}

// section is the tokens up to a landmark.
type section struct {
	from, to int // keys, without the landmark
	landmark int // its key, or -1 if there is none yet
	tile     int // number of its first tile
	packed   int // where its tiles begin, in float32 of a key head
}

// worker is what one worker needs for a tile of query rows of one head.
type worker struct {
	q                []float32 // [rows, HeadDim], times Scale
	o                []float32 // [rows, outCols], sums of values
	s                []float32 // [rows of the kernel, scoreStride], scores
	top, sum, factor []float32 // of the rows' outer softmax: maximum, denominator, what a sum is to be multiplied by
	blockTop         []float32 // of that within a block: maximum
	blockSum         []float32 // and denominator
	blockO           []float32 // [rows of the kernel, outCols], sums of a block's values
	logits           []float32 // [rows, panel], of some landmarks
	landmarks        []float32 // their keys, a packed panel
	two              [2]float32
	chooser          chooser
	weights          []float32 // [Block], of a block that is read
	wide             []float32 // [Block, HeadDim + ValueDim], of one that is not stored as float32
}

// attendAll attends from the tokens of one sequence, and has its state take them up.
func (r *run) attendAll(ctx context.Context) error {
	l := r.op
	if err := r.gather(ctx); err != nil {
		return err
	}
	r.divide()
	cfg, n := &l.cfg, r.call.q.Rows
	work := float64(n) * float64(r.k.Rows) * float64(cfg.Heads*(cfg.HeadDim+cfg.ValueDim))
	workers := l.workersFor(r.call.workers, int64(min(work, math.MaxInt32)))
	r.reserve(workers)
	if err := r.group.RunAs(ctx, "landmark", workers, len(r.sections)*cfg.KVHeads, r.pack); err != nil {
		return err
	}
	if r.state != nil {
		if err := r.choose(ctx, workers); err != nil {
			return err
		}
	}
	tasks := cfg.Heads * ((n + l.sizes.Rows - 1) / l.sizes.Rows)
	if err := r.group.RunAs(ctx, "landmark", workers, tasks, r.attend); err != nil {
		return err
	}
	if r.state != nil {
		return r.commit()
	}
	return nil
}

// forget drops what belongs to the caller.
func (r *run) forget() {
	r.call, r.state, r.q, r.k, r.v = tokens{}, nil, blas32.General{}, blas32.General{}, blas32.General{}
	r.states.clear()
	r.retrieval.landmarks = blas32.General{}
}

// gather brings queries and keys to their positions, after the state's tail.
func (r *run) gather(ctx context.Context) error {
	c, l := &r.call, r.op
	r.q, r.k, r.v, r.past = c.q, c.k, c.v, 0
	start := int64(0) // position of the first key
	if s := r.state; s != nil {
		tailK, tailV := held(s.tail)
		r.past = tailK.Rows
		start = s.start() - int64(r.past)
		r.k, r.v = r.joined(0, tailK, c.k), r.joined(1, tailV, c.v)
	}
	if l.turn == nil {
		return nil
	}
	var err error
	if r.state != nil {
		err = l.turn.Rotate(r.k, start) // in place
	} else {
		r.data[0] = scratch.Floats(r.data[0], r.k.Rows*r.k.Cols)
		r.k, err = rotated(ctx, l.turn, r.data[0], r.k, start)
	}
	if err != nil {
		return err
	}
	r.data[2] = scratch.Floats(r.data[2], r.q.Rows*r.q.Cols)
	r.q, err = rotated(ctx, l.turn, r.data[2], r.q, start+int64(r.past))
	return err
}

// joined returns the rows of a and then those of b, in memory of a number.
func (r *run) joined(memory int, a, b blas32.General) blas32.General {
	n := a.Rows + b.Rows
	r.data[memory] = scratch.Floats(r.data[memory], n*b.Cols)
	m := mat.Of(r.data[memory], n, b.Cols)
	if a.Rows > 0 {
		mat.Copy(m, a)
	}
	mat.Copy(mat.Rows(m, a.Rows, n), b)
	return m
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
	for i, is := range r.call.marks {
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

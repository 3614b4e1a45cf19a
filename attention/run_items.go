package attention

import "github.com/subquad/subquad/internal/parallel"

// stretch is some queries of a sequence, and what any of them sees of each
// source's keys.
type stretch struct {
	seq         int   // the sequence
	from, to    int   // queries, rows of Q
	first, last []int // [sources], keys of the sequence from first to before last
}

// item is a stretch of queries of one sequence for some sets of heads.
type item struct {
	seq        int // the sequence
	set, sets  int // number of the first set of heads, and how many
	from, to   int // queries, rows of Q
	reaches    int // where its reaches begin in forwardRun.reaches
	tiles      int // tiles of keys, of all sources together
	perRound   int // tiles of keys that are packed at a time
	rounds     int // so often
	packed     int // where its slots begin in forwardRun.packed, in float32
	infos      int // and in forwardRun.infos, in slots
	state      int // and where its rows begin in forwardRun.state, in float32
	packTasks  int // number of its first task that packs, in the present round
	queryTasks int // and of its first that attends
}

// reach is the tiles of a source's keys that an item needs.
type reach struct {
	first int // the first tile, counted from the sequence's beginning
	tiles int // how many
}

func (r *forwardRun) reachesOf(it *item) []reach { return r.reaches[it.reaches:][:len(r.src)] }

// shares is how query heads share keys.
type shares struct {
	sets       int // sets of heads that share neither raw nor extra keys
	blockHeads int // successive query heads that share both
}

func (r *forwardRun) findShares() {
	r.shares = shares{}
	for s := range r.src {
		r.shares.sets = gcd(r.shares.sets, r.src[s].heads)
		r.shares.blockHeads = gcd(r.shares.blockHeads, r.op.cfg.Heads/r.src[s].heads)
	}
}

func (r *forwardRun) sets() int       { return r.shares.sets }
func (r *forwardRun) blockHeads() int { return r.shares.blockHeads }

// gcd is the greatest common divisor; gcd(0, b) is b.
func gcd(a, b int) int {
	for b > 0 {
		a, b = b, a%b
	}
	return a
}

// setHeads is how many heads of a source belong to a set.
func (r *forwardRun) setHeads(src int) int { return r.src[src].heads / r.sets() }

// lookTask finds what the stretch's queries see.
func (r *forwardRun) lookTask(_, _ int) {
	x := &r.extent
	x.first, x.last = x.first[:0], x.last[:0]
	for s := range r.src {
		first, last := 0, 0
		if s == 0 {
			first, _ = r.causalRange(x.seq, x.from)
			_, last = r.causalRange(x.seq, x.to-1)
		} else {
			f, l := r.src[s].sequence(x.seq)
			last = l - f
			if r.src[s].visible != nil {
				first, last = last, 0
				for row := x.from; row < x.to; row++ {
					if from, to := r.extraInSight(s, x.seq, row); from < to {
						first, last = min(first, from), max(last, to)
					}
				}
			}
		}
		x.first, x.last = append(x.first, first), append(x.last, last)
	}
}

// extraInSight returns the keys of an Extra's source that a query sees.
func (r *forwardRun) extraInSight(s, b, row int) (from, to int) {
	start, end := r.src[s].sequence(b)
	if r.src[s].visible == nil {
		return 0, end - start
	}
	query, _ := r.positions(b)
	f, t := r.src[s].visible(query + int64(row-r.qOffsets[b]))
	if r.src[s].states != nil {
		return r.src[s].seen(b, f, t)
	}
	return narrow(0, end-start, f, t, 0)
}

// addItem puts an item into the wave, for the extent's queries and as many of the
// sets from set on as fit; it returns their number, which is 0 when the wave is
// full.
func (r *forwardRun) addItem(set int) int {
	a, x := r.op, &r.extent
	it := item{seq: x.seq, set: set, sets: r.sets() - set, from: x.from, to: x.to, reaches: len(r.items) * len(r.src)}
	r.reaches = r.reaches[:it.reaches]
	keys := a.sizes.Keys
	heads := 0
	for s := range r.src {
		first, tiles := 0, 0
		if x.last[s] > x.first[s] {
			first = x.first[s] / keys
			tiles = (x.last[s]+keys-1)/keys - first
			heads = max(heads, r.setHeads(s))
		}
		r.reaches = append(r.reaches, reach{first, tiles})
		it.tiles += tiles
	}
	tiles, size := it.tiles, a.slot().size*heads
	it.perRound = tiles
	if size > 0 {
		it.perRound = min(tiles, max(1, a.sizes.Pack/size))
	}
	if tiles > 0 {
		it.rounds = (tiles + it.perRound - 1) / it.perRound
	} else {
		it.rounds, it.perRound = 1, 1
	}
	// What a wave packs stays in the second caches of those who work on it, and close at hand for one who
	// works alone, as long as a wave's beginning and end are little beside its work.
	workers := parallel.Choose(a.cfg.Workers, r.call.Workers)
	pack := min(a.sizes.Pack, a.sizes.Near*workers)
	size *= it.perRound
	if size > 0 {
		if workers == 1 {
			const worth = 1 << 17 // rows of queries times keys
			pairs := int64(r.itemRows(&it)) * int64(r.blocks()) * int64(it.tiles*keys)
			pack = int(min(int64(pack), max(int64(a.sizes.Near/3), (worth+pairs-1)/pairs*int64(size))))
		}
		it.sets = min(it.sets, max(1, pack/size))
	}
	if n := len(r.items); n > 0 {
		last := &r.items[n-1]
		it.packed = last.packed + r.slots(last)*a.slot().size
		it.infos = last.infos + r.slots(last)
		it.state = last.state
		if last.rounds > 1 {
			it.state += r.states(last)
		}
		if it.packed+it.sets*size > pack || it.rounds > 1 {
			return 0
		}
	}
	r.items = append(r.items, it)
	return it.sets
}

// slotHeads is how many slots a tile of an item has at the most.
func (r *forwardRun) slotHeads(it *item) (heads int) {
	for s, x := range r.reachesOf(it) {
		if x.tiles > 0 {
			heads = max(heads, r.setHeads(s))
		}
	}
	return heads
}

// slots is how many slots an item has, states how many float32 its rows take
// between rounds.
func (r *forwardRun) slots(it *item) int  { return it.perRound * it.sets * r.slotHeads(it) }
func (r *forwardRun) states(it *item) int { return 2 * r.itemRows(it) * r.blocks() * it.sets }

// blocks is how many blocks of heads a set has, rows how many rows a block: a
// row is a query of one head, the heads of a query side by side.
func (r *forwardRun) blocks() int           { return r.op.cfg.Heads / r.sets() / r.blockHeads() }
func (r *forwardRun) itemRows(it *item) int { return (it.to - it.from) * r.blockHeads() }
func (r *forwardRun) tileOf(rows int) int   { return (rows + r.op.sizes.Rows - 1) / r.op.sizes.Rows }

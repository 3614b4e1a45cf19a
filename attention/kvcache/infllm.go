package kvcache

import (
	"fmt"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/internal/topk"
)

// InfLLM reads whole blocks of far tokens, chosen by a few representatives of each (Xiao
// et al. 2024, arXiv 2402.04617). The last Recent tokens are near; the first Keep and the
// chosen blocks are far, with Positions Far at the distance Config.Distance, which is
// Recent - 1 where it is 0. Blocks of Block tokens are made of what leaves the near ones.
// A block's representative, for each query head, is the mean of its Representatives keys
// that received the most weight, unrotated, while they were near. A chunk of queries
// reads the TopK blocks whose representatives have the largest product with its mean
// query, summed over all heads; one choice for all heads.
//
// The published mask shows some tokens of a chunk twice; here each is seen once, by its
// true distance. Chunk is the published exc_block_size.
type InfLLM struct {
	// Block is how many tokens a block has; 0 stands for 128. TopK is how many blocks are
	// read; 0 stands for 16.
	Block, TopK int
	// Representatives is how many keys stand for a block; 0 stands for 4.
	Representatives int
}

// describe says what it was before TopK had its name, so that states are theirs.
func (p InfLLM) describe() string {
	return fmt.Sprintf("kvcache.InfLLM{Block:%d Blocks:%d Representatives:%d}", p.Block, p.TopK, p.Representatives)
}

func (p InfLLM) filled() InfLLM {
	if p.Block == 0 {
		p.Block = 128
	}
	if p.TopK == 0 {
		p.TopK = 16
	}
	if p.Representatives == 0 {
		p.Representatives = 4
	}
	return p
}

func (p InfLLM) check(cfg *Config) error {
	f := p.filled()
	switch {
	case f.Block < 1 || f.Block > 1<<16:
		return check.Errorf(ErrConfig, "kvcache: InfLLM.Block is %d, want 0 to 65,536", p.Block)
	case f.TopK < 1 || int64(f.TopK) > most:
		return check.Errorf(ErrConfig, "kvcache: InfLLM.TopK is %d, want 0 or more", p.TopK)
	case f.Representatives < 1 || f.Representatives > f.Block:
		return check.Errorf(ErrConfig, "kvcache: InfLLM.Representatives is %d, want 1 to Block = %d", f.Representatives, f.Block)
	case cfg.Positions != Far && cfg.Positions != FarInCache:
		return check.Errorf(ErrConfig, "kvcache: InfLLM with Positions %d, want Far", cfg.Positions)
	case cfg.Evict != nil:
		return check.Errorf(ErrConfig, "kvcache: InfLLM together with Evict, whose blocks would lose tokens")
	}
	if cfg.Distance == 0 {
		cfg.Distance = cfg.Recent - 1
	}
	return nil
}

func (p InfLLM) newIndex(a *Attention) index {
	return &infIndex{p: p.filled(), most: a.cfg.Keep, scores: make([][]float32, a.cfg.Heads)}
}

// infIndex is the blocks that have left the near tokens, and the weight that the tokens
// since have received.
type infIndex struct {
	p      InfLLM
	most   int // tokens that may go to the first ones
	first  int // tokens that have gone to the first ones
	blocks int
	keys   []float32   // [blocks][Heads*HeadDim], the representatives
	scores [][]float32 // [Heads][tokens after the last block]
	order  []int32     // working memory
	ranked []float32
	block  []float32

	chosen []int // blocks of the last choice, for tests
	made   func(block int, scores [][]float32, rows [][]int32)
}

// rest is the position from which tokens are in no block.
func (x *infIndex) rest() int { return x.first + x.blocks*x.p.Block }

func (x *infIndex) append(*run) error { return nil }
func (x *infIndex) observes() bool    { return true }
func (x *infIndex) keep(*State, int)  {}

func (x *infIndex) choose(r *run) error {
	cfg := &r.op.cfg
	r.choose1(1)
	r.tail = x.rest()
	n := min(x.p.TopK, x.blocks)
	x.order = x.order[:0]
	if n < x.blocks {
		q, err := r.queryAt(cfg.Distance, true)
		if err != nil {
			return err
		}
		bar := r.meanQuery(q)
		width := cfg.Heads * cfg.HeadDim
		x.ranked = slices.Grow(x.ranked[:0], x.blocks)[:x.blocks]
		for b := range x.ranked {
			x.ranked[b] = asm.Dot(bar, x.keys[b*width:][:width])
		}
		r.report.Index += 4 * int64(x.blocks) * int64(width)
		x.order = topk.Select(x.order, x.ranked, n)
		slices.Sort(x.order)
	} else {
		for b := range x.blocks {
			x.order = append(x.order, int32(b))
		}
	}
	list := r.choice.Lists[0]
	x.chosen = x.chosen[:0]
	for _, b := range x.order {
		from := x.first + int(b)*x.p.Block
		list = addRun(list, Run{From: from, To: from + x.p.Block})
		x.chosen = append(x.chosen, int(b))
	}
	r.choice.Lists[0] = list
	return nil
}

// observe adds the weights of the near tokens that are in no block, and makes blocks.
func (x *infIndex) observe(r *run) {
	s, cfg := r.state, &r.op.cfg
	rest := x.rest()
	for h := range x.scores {
		for len(x.scores[h]) < s.n-rest {
			x.scores[h] = append(x.scores[h], 0)
		}
		g, of := h/r.op.group, h%r.op.group
		if len(r.lists[g]) == 0 {
			continue
		}
		near := r.lists[g][0]
		w := r.weights[g][of*runRows(r.lists[g]):][:near.To-near.From]
		for i, p := range w {
			if row := near.From + i - rest; row >= 0 {
				x.scores[h][row] += p
			}
		}
	}
	if move := min(cfg.Keep-x.first, s.n-rest-cfg.Recent); x.first < cfg.Keep && move > 0 {
		x.first += move
		for h := range x.scores {
			x.scores[h] = slices.Delete(x.scores[h], 0, move)
		}
	}
	for s.n-x.rest()-x.p.Block >= cfg.Recent {
		x.makeBlock(s)
	}
}

// makeBlock makes a block of the oldest tokens that are in none.
func (x *infIndex) makeBlock(s *State) {
	cfg := &s.op.cfg
	group, d, block := s.op.group, cfg.HeadDim, x.p.Block
	at := len(x.keys)
	x.keys = reserve(x.keys, cfg.Heads*d, s.tokensRoom(0)/block*cfg.Heads*d)
	x.keys = slices.Grow(x.keys, cfg.Heads*d)[:at+cfg.Heads*d]
	clear(x.keys[at:])
	x.block = scratch.Floats(x.block, block*d)
	k := mat.Of(x.block, block, d)
	var chosen [][]int32
	for h := range x.scores {
		if h%group == 0 {
			s.readKeys(k, h/group, x.rest())
		}
		x.order = topk.Select(x.order, x.scores[h][:block], x.p.Representatives)
		to := x.keys[at+h*d:][:d]
		for _, i := range x.order {
			asm.Add(to, to, mat.Row(k, int(i)))
		}
		asm.Scale(to, 1/float32(len(x.order)), to)
		if x.made != nil {
			chosen = append(chosen, slices.Clone(x.order))
		}
	}
	if x.made != nil {
		x.made(x.blocks, x.scores, chosen)
	}
	for h := range x.scores {
		x.scores[h] = slices.Delete(x.scores[h], 0, block)
	}
	x.blocks++
}

// readKeys sets dst to the keys of a key head, as they are held, from a row on.
func (s *State) readKeys(dst blas32.General, head, from int) {
	s.readRows(dst, head, from, true)
}

// readRows sets dst to keys, or values, of a key head from a row on.
func (s *State) readRows(dst blas32.General, head, from int, keys bool) {
	for at := 0; at < dst.Rows; {
		g, ok := s.heads[head].Segment(s.position(head, from+at))
		if !ok {
			panic("kvcache: a row that is not held")
		}
		n := min(g.Tokens, dst.Rows-at)
		read := g.Keys
		if !keys {
			read = g.Values
		}
		if err := read(mat.Rows(dst, at, at+n), 0, 0); err != nil {
			panic(err)
		}
		at += n
	}
}

func (x *infIndex) truncate(_ *State, _ int, try bool) bool { return !try }

func (x *infIndex) clone() index {
	c := *x
	c.keys, c.scores = slices.Clone(x.keys), cloneLists(x.scores)
	c.order, c.ranked, c.chosen, c.block = nil, nil, nil, nil
	return &c
}

func (x *infIndex) bytes() int64 {
	n := 4 * int64(cap(x.keys))
	for _, s := range x.scores {
		n += 4 * int64(cap(s))
	}
	return n
}

func (x *infIndex) save(w *state.Writer) {
	w.Ints(int64(x.first), int64(x.blocks))
	w.Floats(x.keys)
	for _, s := range x.scores {
		w.Floats(s)
	}
}

func (x *infIndex) load(r *state.Reader, s *State) {
	first, blocks := r.Int(), r.Int()
	if first < 0 || first > int64(x.most) || blocks < 0 || first > int64(s.n) || blocks > (int64(s.n)-first)/int64(x.p.Block) {
		r.Fail("it has %d blocks after %d tokens of %d", blocks, first, s.n)
		return
	}
	x.first, x.blocks = int(first), int(blocks)
	cfg := &s.op.cfg
	x.keys = r.Floats(blocks * int64(cfg.Heads*cfg.HeadDim))
	for h := range x.scores {
		x.scores[h] = r.Floats(int64(s.n - x.rest()))
	}
}

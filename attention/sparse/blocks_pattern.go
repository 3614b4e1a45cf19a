package sparse

import (
	"context"
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
)

// Pattern is a rule for choices: the blocks of keys that any of its parts names, as far as
// the block of queries sees them; with BlocksConfig.Causal, none after the queries'. A block
// of queries stands where its own blocks of keys are, those at the positions of its queries.
// All numbers but Seed are of blocks; the zero value chooses nothing.
//
//   - Longformer (Beltagy et al. 2020, arXiv 2004.05150): Window, Keep and FirstQueries.
//   - BigBird (Zaheer et al. 2020, arXiv 2007.14062): the same, and Random 3.
//   - Sparse Transformer's strided pattern (Child et al. 2019): Window and Stride.
//   - A-shape and Tri-shape (MInference): Keep and Window; LastQueries besides.
//   - block-sparse heads of MInference (Jiang et al. 2024, arXiv 2407.02490): TopK 100, with
//     blocks of 64.
type Pattern struct {
	// Window is how many blocks up to the queries' own are chosen, these counted as one; unless
	// causal, as many on the other side.
	Window int
	// Keep is how many of the sequence's first blocks of keys are chosen.
	Keep int
	// Stride chooses the last block of each Stride of them.
	Stride int
	// Random is how many blocks are drawn besides, for each block of queries and each head.
	Random int
	// Share, 0 to 1, draws as many more as are missing to that share of what the queries see,
	// rounded up.
	Share float64
	// Seed makes the draws: the same ones for the same seed, shape and head.
	Seed uint64
	// TopK is how many blocks are chosen by their means, for each head: those of the largest
	// mean(q) . mean(k), over the queries and the keys of the blocks, of all that the queries
	// see; of equal ones the earlier. Only ChooseBy has queries and keys to look at; ChooseScored
	// takes the caller's scores instead.
	TopK int
	// FirstQueries and LastQueries are how many of the sequence's first and last blocks of
	// queries choose all that they see.
	FirstQueries, LastQueries int
}

// Choose appends to choice what a pattern without TopK chooses for a sequence of so many
// queries and keys. A pattern without draws has one list for all heads, one with Random or
// Share one for each; sequences of one choice must have as many. Errors match ErrCall.
func (b *Blocks) Choose(choice *Choice, p Pattern, queries, keys int) error {
	if p.TopK != 0 {
		return check.Errorf(ErrCall, "sparse: Pattern.TopK is %d, want 0 without queries and keys", p.TopK)
	}
	if queries < 0 || keys < 0 {
		return check.Errorf(ErrCall, "sparse: a choice for %d queries and %d keys, want 0 or more", queries, keys)
	}
	return b.choose(context.Background(), choice, &p, blas32.General{Rows: queries}, blas32.General{Rows: keys}, p.lists(b.cfg.Heads), nil)
}

// ChooseBy is Choose for a sequence with queries q [queries, Heads*HeadDim] and keys k [keys,
// KVHeads*HeadDim], at which a pattern with TopK looks: each once, and each pair of their
// blocks' means, with Config.Workers. Errors match ErrCall or ErrShape, or are those of ctx.
func (b *Blocks) ChooseBy(ctx context.Context, choice *Choice, p Pattern, q, k blas32.General) error {
	if ctx == nil {
		return check.Errorf(ErrCall, "sparse: ctx is nil, want a context")
	}
	if err := check.Matrix(ErrShape, "sparse", "q", q, -1, b.cfg.Heads*b.cfg.HeadDim, "Heads*HeadDim"); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "sparse", "k", k, -1, b.cfg.KVHeads*b.cfg.HeadDim, "KVHeads*HeadDim"); err != nil {
		return err
	}
	return b.choose(ctx, choice, &p, q, k, p.lists(b.cfg.Heads), nil)
}

// lists is how many lists a block of queries gets.
func (p *Pattern) lists(heads int) int {
	if p.Random > 0 || p.Share > 0 || p.TopK > 0 {
		return heads
	}
	return 1
}

// maxBlocks bounds the blocks of a sequence that is chosen for.
const maxBlocks = 1 << 20

func (p *Pattern) check() error {
	for _, x := range [...]struct {
		name string
		n    int
	}{{"Window", p.Window}, {"Keep", p.Keep}, {"Stride", p.Stride}, {"Random", p.Random}, {"TopK", p.TopK}, {"FirstQueries", p.FirstQueries}, {"LastQueries", p.LastQueries}} {
		if x.n < 0 || x.n > maxBlock {
			return check.Errorf(ErrCall, "sparse: Pattern.%s is %d, want 0 to 2^29", x.name, x.n)
		}
	}
	if !(p.Share >= 0 && p.Share <= 1) {
		return check.Errorf(ErrCall, "sparse: Pattern.Share is %v, want 0 to 1", p.Share)
	}
	return nil
}

// chooser is what choosing for one sequence needs.
type chooser struct {
	op            *Blocks
	p             *Pattern
	queries, keys int
	heads         int // lists of a block of queries
	offset        int // position of the first query
	blocks        int // of keys
	queryBlocks   int
	marked        []bool // [blocks]: chosen for the list being made

	gates  gates // with TopK
	score  func(scores []float32, block, head int)
	qMeans blas32.General // of blocks of queries
	tops   []int32        // [heads][blocks of queries][TopK], of those that do not choose all
	group  parallel.Group
	work   []gateWork
}

func (b *Blocks) choose(ctx context.Context, choice *Choice, p *Pattern, q, k blas32.General, heads int, score func([]float32, int, int)) error {
	if choice == nil {
		return check.Errorf(ErrCall, "sparse: choice is nil")
	}
	if err := p.check(); err != nil {
		return err
	}
	n, m := ceil(q.Rows, b.cfg.QueryBlock), ceil(k.Rows, b.cfg.KeyBlock)
	if n > maxBlocks || m > maxBlocks {
		return check.Errorf(ErrCall, "sparse: a choice for %d blocks of queries and %d of keys, want at most 2^20", n, m)
	}
	if check.Product(math.MaxInt/4, n, heads) < 0 {
		return check.Errorf(ErrCall, "sparse: a choice for %d blocks of queries of %d heads, more than memory can hold", n, heads)
	}
	before := *choice
	if err := choice.open(heads); err != nil {
		return err
	}
	c := chooser{op: b, p: p, queries: q.Rows, keys: k.Rows, heads: heads, offset: k.Rows - q.Rows, blocks: m, queryBlocks: n, score: score}
	c.marked = make([]bool, c.blocks)
	err := c.rank(ctx, q, k)
	draws := make([]*rand.Rand, heads)
	for h := range draws {
		draws[h] = rand.New(rand.NewPCG(p.Seed, uint64(h)))
	}
	for i := 0; i < n*heads && err == nil; i++ {
		c.list(choice, i/heads, i%heads, draws[i%heads])
		err = ctx.Err()
	}
	if err != nil { // as it was, but for memory that it got
		choice.Heads, choice.Offsets, choice.Blocks = before.Heads, choice.Offsets[:len(before.Offsets)], choice.Blocks[:len(before.Blocks)]
	}
	return err
}

// list appends the list of a block of queries and a head.
func (c *chooser) list(choice *Choice, a, h int, draws *rand.Rand) {
	seen := c.mark(a)
	if top := c.p.TopK; top > 0 && seen > top {
		for _, x := range c.tops[(h*c.queryBlocks+a)*top:][:top] {
			c.marked[x] = true
		}
	} else if top > 0 {
		for x := range seen {
			c.marked[x] = true
		}
	}
	c.draw(draws, seen)
	for x, yes := range c.marked[:seen] {
		if yes {
			choice.Blocks = append(choice.Blocks, int32(x))
		}
	}
	choice.close()
}

// seen returns how many blocks of keys, from the first, a block of queries sees.
func (c *chooser) seen(a int) int {
	cfg := &c.op.cfg
	if !cfg.Causal {
		return c.blocks
	}
	return min(ceil(max(c.offset+c.end(a), 0), cfg.KeyBlock), c.blocks)
}

// end returns the query after the last of a block of them.
func (c *chooser) end(a int) int {
	size := c.op.cfg.QueryBlock
	return a*size + min(size, c.queries-a*size)
}

// mark marks what the pattern chooses for a block of queries by its place alone, and returns
// how many blocks the queries see, from the first.
func (c *chooser) mark(a int) (seen int) {
	cfg, p := &c.op.cfg, c.p
	from := c.offset + a*cfg.QueryBlock // position of the first query
	last := c.offset + c.end(a) - 1     // and of the last
	seen = c.seen(a)
	clear(c.marked)
	set := func(from, to int) {
		for x := max(from, 0); x < min(to, seen); x++ {
			c.marked[x] = true
		}
	}
	if c.readsAll(a) {
		set(0, seen)
		return seen
	}
	set(0, p.Keep)
	if p.Window > 0 && last >= 0 {
		set(max(from, 0)/cfg.KeyBlock-p.Window+1, last/cfg.KeyBlock+p.Window)
	}
	if p.Stride > 0 {
		for x := p.Stride - 1; x < seen; x += p.Stride {
			c.marked[x] = true
		}
	}
	return seen
}

// readsAll tells whether a block of queries is one of the first or last that choose all.
func (c *chooser) readsAll(a int) bool {
	return a < c.p.FirstQueries || a >= c.queryBlocks-c.p.LastQueries
}

// draw marks blocks at random among those that are not marked.
func (c *chooser) draw(r *rand.Rand, seen int) {
	if c.p.Random == 0 && c.p.Share == 0 {
		return
	}
	marked := 0
	for _, yes := range c.marked[:seen] {
		if yes {
			marked++
		}
	}
	left := seen - marked  // that may be drawn
	const rounding = 1e-12 // a share of 0.07 is 7 of 100, whose product is more in float64
	need := min(max(c.p.Random, int(math.Ceil(c.p.Share*float64(seen)*(1-rounding)))-marked), left)
	for x := 0; need > 0; x++ { // each of the left with the same probability (Knuth, volume 2, algorithm S)
		if c.marked[x] {
			continue
		}
		if r.IntN(left) < need {
			c.marked[x] = true
			need--
		}
		left--
	}
}

// rank finds the best blocks by their means, with TopK.
func (c *chooser) rank(ctx context.Context, q, k blas32.General) error {
	b, top := c.op, c.p.TopK
	if top == 0 || c.blocks <= top {
		return ctx.Err()
	}
	cfg := &b.cfg
	if check.Product(math.MaxInt/4, c.heads, c.queryBlocks, top) < 0 {
		return check.Errorf(ErrCall, "sparse: Pattern.TopK is %d for %d heads of %d queries, more than memory can hold", top, c.heads, q.Rows)
	}
	if c.score != nil {
		c.tops = make([]int32, c.heads*c.queryBlocks*top)
		workers := parallel.Workers(cfg.Workers)
		c.work = make([]gateWork, workers)
		return c.group.RunAs(ctx, "sparse", workers, c.heads*c.queryBlocks, c.scoreTask)
	}
	var kMeans blas32.General
	var err error
	if c.qMeans, err = blockMeans(ctx, q, cfg.QueryBlock); err == nil {
		kMeans, err = blockMeans(ctx, k, cfg.KeyBlock)
	}
	if err != nil {
		return err
	}
	if err := c.gates.pack(ctx, &b.engine, cfg.KVHeads, top, kMeans); err != nil {
		return err
	}
	c.tops = make([]int32, cfg.Heads*c.qMeans.Rows*top)
	workers := b.workersFor(0, float64(c.qMeans.Rows)*float64(c.blocks)*float64(q.Cols))
	c.work = make([]gateWork, workers)
	return c.group.RunAs(ctx, "sparse", workers, cfg.Heads*ceil(c.qMeans.Rows, rankRows), c.rankTask)
}

// rankRows is how many blocks of queries a task of rank has.
const rankRows = 96

// rankTask ranks for some blocks of queries of a head.
func (c *chooser) rankTask(worker, task int) {
	cfg, n := &c.op.cfg, c.qMeans.Rows
	tasks := ceil(n, rankRows)
	h, from := task/tasks, task%tasks*rankRows
	means := mat.Columns(mat.Rows(c.qMeans, from, min(from+rankRows, n)), h*cfg.HeadDim, cfg.HeadDim)
	c.gates.choose(&c.group, &c.work[worker], means, h/(cfg.Heads/cfg.KVHeads), c.tops[(h*n+from)*c.p.TopK:], func(i int) int { return c.seen(from + i) })
}

// blockMeans returns the means of blocks of so many rows.
func blockMeans(ctx context.Context, x blas32.General, size int) (blas32.General, error) {
	m := mat.New(ceil(x.Rows, size), x.Cols)
	atOnce := max(1, packAtOnce/x.Cols)
	for i := range m.Rows {
		mean, from, to := mat.Row(m, i), i*size, min((i+1)*size, x.Rows)
		for at := from; at < to; at += atOnce {
			if err := ctx.Err(); err != nil {
				return m, err
			}
			addRows(mean, mat.Rows(x, at, min(at+atOnce, to)))
		}
		asm.Scale(mean, 1/float32(to-from), mean)
	}
	return m, nil
}

// blockMean sets dst to the mean of rows, which are one or more: their sum in their order,
// divided by their number.
func blockMean(dst []float32, x blas32.General) {
	clear(dst)
	addRows(dst, x)
	asm.Scale(dst, 1/float32(x.Rows), dst)
}

// addRows adds rows to dst, one after the other.
func addRows(dst []float32, x blas32.General) {
	for i := range x.Rows {
		asm.Add(dst, dst, mat.Row(x, i))
	}
}

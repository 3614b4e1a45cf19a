package sparse

import (
	"context"
	"sort"

	"github.com/subquad/subquad/internal/check"
)

// Choice says which blocks of keys each block of queries reads: lists of numbers of blocks,
// one after the other (compressed sparse rows). Choose, ChooseBy and ChooseScored of Blocks append
// those of one more sequence; the zero value is empty. By hand, set Heads and Offsets to {0}, and
// for each list append its blocks to Blocks, then len(Blocks) to Offsets.
type Choice struct {
	// Heads is how many lists a block of queries has: Config.Heads, one for each query head;
	// KVHeads, each for the query heads that share a key head; or 1 for all heads.
	Heads int
	// Offsets has where lists begin in Blocks, and at last its length: list h of block a of
	// the call's blocks of queries, those of the first sequence first, is
	// Blocks[Offsets[a*Heads+h]:Offsets[a*Heads+h+1]].
	Offsets []int
	// Blocks has the blocks of keys, those of a list in rising order, none twice, counted from
	// the sequence's first. An empty list reads nothing.
	Blocks []int32
}

// Reset makes the choice one of no queries, and keeps its memory.
func (c *Choice) Reset() { c.Heads, c.Offsets, c.Blocks = 0, c.Offsets[:0], c.Blocks[:0] }

// Lists returns how many lists there are.
func (c *Choice) Lists() int { return max(len(c.Offsets)-1, 0) }

// List returns a list.
func (c *Choice) List(i int) []int32 { return c.Blocks[c.Offsets[i]:c.Offsets[i+1]] }

// open readies a choice for the lists of one more sequence, of which there are heads for each
// block of queries.
func (c *Choice) open(heads int) error {
	if len(c.Offsets) == 0 && len(c.Blocks) == 0 && c.Heads == 0 {
		c.Heads, c.Offsets = heads, append(c.Offsets, 0)
	}
	n := len(c.Offsets)
	switch {
	case c.Heads != heads:
		return check.Errorf(ErrCall, "sparse: Choice.Heads is %d, want %d as the pattern's, or an empty choice", c.Heads, heads)
	case n == 0 || (n-1)%heads != 0 || c.Offsets[0] != 0 || c.Offsets[n-1] != len(c.Blocks):
		return check.Errorf(ErrCall, "sparse: Choice.Offsets has %d elements for %d Blocks, want lists for whole blocks of queries that end with the last", n, len(c.Blocks))
	}
	return nil
}

// close ends a list.
func (c *Choice) close() { c.Offsets = append(c.Offsets, len(c.Blocks)) }

// check reports a choice that is none for queries of the sequences, of which each has as
// many blocks of queries as queryBlocks says and of keys as keyBlocks; or that ctx is done.
func (c *Choice) check(ctx context.Context, heads, kvHeads, sequences int, queryBlocks, keyBlocks func(sequence int) int) error {
	fail := func(format string, args ...any) error {
		return check.Errorf(ErrCall, "sparse: Choice."+format, args...)
	}
	if c == nil {
		return check.Errorf(ErrCall, "sparse: choice is nil")
	}
	if c.Heads != 1 && c.Heads != kvHeads && c.Heads != heads {
		return fail("Heads is %d, want 1, KVHeads = %d or Heads = %d", c.Heads, kvHeads, heads)
	}
	blocks := 0
	for b := range sequences {
		blocks += queryBlocks(b)
	}
	if len(c.Offsets)-1 != blocks*c.Heads {
		return fail("Offsets has %d elements, want one more than blocks of queries * Heads = %d * %d", len(c.Offsets), blocks, c.Heads)
	}
	if c.Offsets[0] != 0 || c.Offsets[blocks*c.Heads] != len(c.Blocks) {
		return fail("Offsets goes from %d to %d, want 0 to the number of Blocks = %d", c.Offsets[0], c.Offsets[blocks*c.Heads], len(c.Blocks))
	}
	list, work := 0, 0
	for b := range sequences {
		most := keyBlocks(b)
		for range queryBlocks(b) * c.Heads {
			from, to := c.Offsets[list], c.Offsets[list+1]
			if from > to || to > len(c.Blocks) {
				return fail("Offsets runs from %d to %d at %d of %d Blocks", from, to, list, len(c.Blocks))
			}
			last := int32(-1)
			for i, x := range c.Blocks[from:to] {
				switch {
				case x < 0 || int(x) >= most:
					return fail("Blocks[%d] is %d, want 0 to %d: sequence %d has %d blocks of keys", from+i, x, most-1, b, most)
				case x == last:
					return fail("Blocks[%d] is %d again, in list %d of block of queries %d", from+i, x, list%c.Heads, list/c.Heads)
				case x < last:
					return fail("Blocks[%d] is %d after %d, want lists in rising order", from+i, x, last)
				}
				last = x
			}
			list++
			if work += 1 + to - from; work >= lookAfter {
				if err := ctx.Err(); err != nil {
					return err
				}
				work = 0
			}
		}
	}
	return nil
}

// lookAfter is how many blocks of lists are gone through between two looks at the context: a
// fraction of a millisecond.
const lookAfter = 1 << 16

// within returns the part of a list from block from up to block to.
func within(list []int32, from, to int) []int32 {
	list = list[sort.Search(len(list), func(i int) bool { return int(list[i]) >= from }):]
	return list[:sort.Search(len(list), func(i int) bool { return int(list[i]) >= to })]
}

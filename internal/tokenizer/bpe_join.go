package tokenizer

import "container/heap"

// fewTokens is up to how many tokens a word is joined by looking at all its pairs each time.
// That costs their square, and less than a queue for words as they are.
const fewTokens = 48

// joinFew joins the tokens of a word in place and returns how many are left.
func (b *bpe) joinFew(ids []int32) int {
	var merges [fewTokens]merge // of each token with the next
	look := func(i int) merge {
		if m, ok := b.merges[both(ids[i], ids[i+1])]; ok {
			return m
		}
		return merge{-1, 0}
	}
	n := len(ids)
	for i := range n - 1 {
		merges[i] = look(i)
	}
	for {
		best := -1
		for i, m := range merges[:max(n-1, 0)] {
			if m.rank >= 0 && (best < 0 || m.rank < merges[best].rank) {
				best = i
			}
		}
		if best < 0 {
			return n
		}
		ids[best] = merges[best].id
		copy(ids[best+1:n], ids[best+2:n])
		copy(merges[best:n-1], merges[best+1:n-1])
		n--
		if best > 0 {
			merges[best-1] = look(best - 1)
		}
		if best < n-1 {
			merges[best] = look(best)
		}
	}
}

// symbol is a part of a word that is one token.
type symbol struct {
	id         int32
	last, next int // neighbours, -1 for none; next -2 for a symbol that has been joined to the one before
}

// join is a pair that can be joined.
type join struct {
	rank, left, right, id int32
	at                    int
}

type joins []join

func (j joins) Len() int      { return len(j) }
func (j joins) Swap(a, b int) { j[a], j[b] = j[b], j[a] }
func (j joins) Less(a, b int) bool {
	return j[a].rank < j[b].rank || j[a].rank == j[b].rank && j[a].at < j[b].at
}
func (j *joins) Push(x any) { *j = append(*j, x.(join)) }
func (j *joins) Pop() any {
	last := (*j)[len(*j)-1]
	*j = (*j)[:len(*j)-1]
	return last
}

// join joins tokens in place and returns how many are left.
func (b *bpe) join(ids []int32) int {
	symbols := make([]symbol, len(ids))
	for i, id := range ids {
		symbols[i] = symbol{id, i - 1, i + 1}
	}
	if len(symbols) > 0 {
		symbols[len(symbols)-1].next = -1
	}
	var queue joins
	note := func(at int) {
		if at < 0 || symbols[at].next < 0 {
			return
		}
		left, right := symbols[at].id, symbols[symbols[at].next].id
		if m, ok := b.merges[both(left, right)]; ok {
			heap.Push(&queue, join{m.rank, left, right, m.id, at})
		}
	}
	for i := range symbols {
		note(i)
	}
	for len(queue) > 0 {
		j := heap.Pop(&queue).(join)
		s := &symbols[j.at]
		if s.next < 0 || s.id != j.left || symbols[s.next].id != j.right {
			continue // one of the two has been joined to another
		}
		gone := &symbols[s.next]
		s.id, s.next = j.id, gone.next
		gone.next = -2
		if s.next >= 0 {
			symbols[s.next].last = j.at
		}
		note(s.last)
		note(j.at)
	}
	n := 0
	for at := 0; at >= 0 && at < len(symbols); at = symbols[at].next {
		ids[n] = symbols[at].id
		n++
	}
	return n
}

package attention

import "sort"

// span is a stretch of rows of a block with tokens of rising positions.
type span struct {
	b      *block
	row, n int
	pos    int     // of the first token
	list   []int64 // positions of all of them, or nil where they follow each other
	kept   bool    // for all queries, whatever their window
	first  int     // number of the first token among the keys of a job
	order  int     // of Weights: the row of the first token or, where named, of position 0
	named  bool    // by a Selection
}

// at is the position of token i.
func (x *span) at(i int) int {
	if x.list != nil {
		return int(x.list[i])
	}
	return x.pos + i
}

// end is the position after the last token's.
func (x *span) end() int { return x.at(x.n-1) + 1 }

// before is how many of the tokens stand before a position.
func (x *span) before(position int64) int {
	if x.list != nil {
		return sort.Search(x.n, func(i int) bool { return x.list[i] >= position })
	}
	if position <= int64(x.pos) { // which may be too far from it for a difference
		return 0
	}
	return int(min(position-int64(x.pos), int64(x.n)))
}

// Held returns how many tokens the state holds.
func (s *State) Held() int {
	switch {
	case s.cfg.Window > 0:
		kept := min(s.cfg.Keep, s.n)
		return kept + max(0, s.n-max(kept, s.high-s.ring()))
	case s.list != nil:
		return len(s.list)
	}
	return s.n - s.first
}

// keeps tells whether a ring holds the token at a position for all queries.
func (s *State) keeps(pos int) bool { return s.cfg.Window > 0 && pos < s.cfg.Keep }

// rowsUsed is how many rows of memory there are up to the last token's.
func (s *State) rowsUsed() int {
	if s.cfg.Window > 0 {
		return min(s.high, s.ringTokens())
	}
	return s.skip + s.Held()
}

// rowsBefore is how many of the tokens held, or to come, stand before a position.
func (s *State) rowsBefore(pos int) int {
	switch {
	case s.list == nil:
		return max(max(pos, 0)-s.first, 0)
	case pos >= s.n:
		return len(s.list) + pos - s.n
	}
	return sort.Search(len(s.list), func(i int) bool { return int(s.list[i]) >= pos })
}

// Positions appends to dst the position of every token held, oldest first.
func (s *State) Positions(dst []int64) []int64 {
	for _, x := range s.spans(nil, 0, s.n) {
		for i := range x.n {
			dst = append(dst, int64(x.at(i)))
		}
	}
	return dst
}

// spans lists the tokens held before position n, without those before
// position from that are not kept for all. Tokens from s.n on are those of a step that
// is under way.
func (s *State) spans(list []span, from, n int) []span {
	if s.cfg.Window > 0 {
		return s.ringSpans(list, from, n)
	}
	held := s.Held()
	lo, hi := s.rowsBefore(from), s.rowsBefore(n)
	if s.list != nil {
		list = s.rowSpans(list, lo, min(hi, held))
		lo = max(lo, held)
	}
	return s.rowSpans(list, lo, hi)
}

// rowSpans lists rows lo ... hi of those held, page by page.
func (s *State) rowSpans(list []span, lo, hi int) []span {
	for lo < hi {
		b, row, room := s.rowPlace(lo)
		x := span{b: b, row: row, n: min(room, hi-lo)}
		switch {
		case lo < len(s.list):
			x.list = s.list[lo:][:x.n]
			x.pos = int(x.list[0])
		case s.list != nil:
			x.pos = s.n + lo - len(s.list)
		default:
			x.pos = s.first + lo
		}
		list = append(list, x)
		lo += x.n
	}
	return list
}

// ringSpans is spans of a ring.
func (s *State) ringSpans(list []span, from, n int) []span {
	keep, ring := s.cfg.Keep, s.ring()
	var b *block // none before anything was stored, or while a file is read
	if len(s.blocks) > 0 {
		b = s.blocks[0]
	}
	if kept := min(keep, n); kept > 0 {
		list = append(list, span{b: b, n: kept, kept: true})
	}
	for pos := max(from, keep, s.high-ring); pos < n; {
		row := (pos - keep) % ring
		count := min(ring-row, n-pos)
		list = append(list, span{b: b, row: keep + row, n: count, pos: pos})
		pos += count
	}
	return list
}

// runs calls f for the runs of a span's tokens that follow each other: n of them from
// token i on.
func (x *span) runs(f func(i, n int)) {
	if x.list == nil {
		f(0, x.n)
		return
	}
	for i := 0; i < x.n; {
		n := 1
		for i+n < x.n && x.list[i+n] == x.list[i]+int64(n) {
			n++
		}
		f(i, n)
		i += n
	}
}

package kvcache

import "github.com/subquad/subquad/attention"

// trace is what the last queries of a state have read, by query head.
type trace struct{ reads [][]int64 }

// Trace has the state note, from the next call on, what queries read, or stop doing so: to
// see what a policy looks at. It costs a list of positions for each query head; it is not
// stored, and not copied by Clone.
func (s *State) Trace(on bool) {
	s.trace = nil
	if on {
		s.trace = &trace{reads: make([][]int64, s.op.cfg.Heads)}
	}
}

// Reads appends to dst the positions, ascending, that the last call's queries of a head
// read exactly, or the last Chunk of them: what any of them saw, and those between
// that it did not see for its own place. There are none without Trace, or before a call.
func (s *State) Reads(dst []int64, head int) []int64 {
	if s.trace == nil || head < 0 || head >= len(s.trace.reads) {
		return dst
	}
	return append(dst, s.trace.reads[head]...)
}

// noteRows notes runs of rows that one of n tasks read, those of its query heads.
func (s *State) noteRows(task, n int, lists ...[]Run) {
	if s.trace == nil {
		return
	}
	heads := s.op.cfg.Heads / n
	key := task * s.op.cfg.KVHeads / n
	first := s.trace.reads[task*heads][:0]
	for _, list := range lists {
		for _, x := range list {
			for row := x.From; row < x.To; row++ {
				if at := int64(s.position(key, row)); len(first) == 0 || at > first[len(first)-1] {
					first = append(first, at)
				}
			}
		}
	}
	s.trace.reads[task*heads] = first
	for h := task*heads + 1; h < (task+1)*heads; h++ {
		s.trace.reads[h] = append(s.trace.reads[h][:0], first...)
	}
}

// noteAll notes that all that is held was read.
func (s *State) noteAll() {
	if s.trace == nil {
		return
	}
	for g, st := range s.heads {
		s.noteRows(g, len(s.heads), []Run{{From: 0, To: st.Held()}})
	}
}

// noteSelections notes what was read of each key head.
func (s *State) noteSelections(list []attention.Selection) {
	if s.trace == nil {
		return
	}
	for g, x := range list {
		var runs []Run
		for _, run := range x {
			runs = append(runs, Run(run))
		}
		s.noteRows(g, len(list), runs)
	}
}

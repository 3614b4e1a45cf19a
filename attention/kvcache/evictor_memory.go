package kvcache

import (
	"slices"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state"
)

// memory is what an evictor knows of the tokens of a state.
type memory struct {
	rule       rule
	mass       [][]float32 // [KVHeads][held]
	importance [][]float32 // [KVHeads][held]
	queries    []float32   // the last of rule.queries tokens, oldest first
	kept       int         // of them
}

func newMemory(a *Attention) (m memory) {
	if a.cfg.Evict == nil {
		return m
	}
	m.rule = a.cfg.Evict.rule(&a.cfg)
	if m.rule.mass {
		m.mass = make([][]float32, a.cfg.KVHeads)
	}
	if m.rule.importance {
		m.importance = make([][]float32, a.cfg.KVHeads)
	}
	return m
}

func (m *memory) clone() memory {
	c := *m
	if m.mass != nil {
		c.mass = cloneLists(m.mass)
	}
	if m.importance != nil {
		c.importance = cloneLists(m.importance)
	}
	c.queries = slices.Clone(m.queries)
	return c
}

func (m *memory) bytes() (n int64) {
	for _, list := range [...][][]float32{m.mass, m.importance} {
		for _, x := range list {
			n += 4 * int64(cap(x))
		}
	}
	return n + 4*int64(cap(m.queries))
}

// canTruncate tells whether what is known can go back to any number of tokens.
func (m *memory) canTruncate(int) bool {
	return !m.rule.mass && m.rule.queries == 0 && m.rule.decay == 0
}

// truncate goes back to what the state is now.
func (m *memory) truncate(s *State, n int) {
	for _, list := range [...][][]float32{m.mass, m.importance} {
		for g := range list {
			list[g] = list[g][:min(len(list[g]), s.heads[g].Held())]
		}
	}
}

// keep leaves what is known of some rows of a head.
func (m *memory) keep(head int, rows []int32) {
	for _, list := range [...][][]float32{m.mass, m.importance} {
		if list == nil {
			continue
		}
		x := list[head]
		for i, r := range rows {
			x[i] = x[r]
		}
		list[head] = x[:len(rows)]
	}
}

// see takes up a chunk: its importance, its queries, and what tokens weighed in it.
func (m *memory) see(r *run) {
	s, cfg := r.state, &r.op.cfg
	if m.importance != nil {
		for g, list := range m.importance {
			if d := m.rule.decay; d != 0 { // of all before the chunk
				for i := range list {
					list[i] *= d
				}
			}
			for i := range r.x {
				x := float32(0)
				if r.importance != nil {
					x = r.importance[i]
				}
				m.importance[g] = append(m.importance[g], x)
			}
		}
	}
	if m.mass != nil {
		for g := range m.mass {
			for len(m.mass[g]) < s.heads[g].Held() {
				m.mass[g] = append(m.mass[g], 0)
			}
			r.addWeights(m.mass[g], g)
		}
	}
	if most := m.rule.queries; most > 0 {
		cols := cfg.Heads * cfg.HeadDim
		from := r.q
		if m.rule.raw {
			from = r.qRaw
		}
		take := min(from.Rows, most)
		if drop := m.kept + take - most; drop > 0 {
			m.queries = slices.Delete(m.queries, 0, drop*cols)
			m.kept -= drop
		}
		for i := from.Rows - take; i < from.Rows; i++ {
			m.queries = append(m.queries, mat.Row(from, i)...)
		}
		m.kept += take
	}
}

// addWeights adds what the rows of a key head weighed, over its query heads.
func (r *run) addWeights(to []float32, head int) {
	n := runRows(r.lists[head])
	group := r.op.group
	w := r.weights[head]
	at := 0
	for _, x := range r.lists[head] {
		for row := x.From; row < x.To; row++ {
			for g := range group {
				to[row] += w[g*n+at]
			}
			at++
		}
	}
}

// save and load are the file of what is known.
func (m *memory) save(w *state.Writer) {
	for _, list := range [...][][]float32{m.mass, m.importance} {
		for _, x := range list {
			w.Floats(x)
		}
	}
	w.Ints(int64(m.kept))
	w.Floats(m.queries[:len(m.queries):len(m.queries)])
}

func (m *memory) load(r *state.Reader, s *State, held []int64) {
	for _, list := range [...][][]float32{m.mass, m.importance} {
		for g := range list {
			list[g] = r.Floats(held[g])
		}
	}
	kept := r.Int()
	if kept < 0 || kept > int64(m.rule.queries) {
		r.Fail("it has %d queries, want at most %d", kept, m.rule.queries)
		kept = 0
	}
	m.kept = int(kept)
	m.queries = r.Floats(kept * int64(s.op.cfg.Heads*s.op.cfg.HeadDim))
}

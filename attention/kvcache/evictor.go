package kvcache

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/topk"
)

// Evictor is a policy that says what to forget for good: StreamingLLM, SirLLM, H2O,
// TOVA, SnapKV, Knorm and the others of this package, which score tokens, and wrappers
// of these: Chunk, Block, AdaKV, CriticalKV, Merging. Its value is its configuration.
type Evictor interface {
	check(cfg *Config) error
	rule(cfg *Config) rule
	// score sets dst[g][row] for all rows that key head g holds: higher stays.
	score(dst [][]float32, o *Observation) error
}

// rule says when an evictor acts, and what it must have seen by then.
type rule struct {
	budget     int  // tokens that a key head holds afterwards
	before     bool // room is made before tokens come
	each       bool // it acts after each call
	mass       bool // it needs the weights that tokens received
	importance bool // it needs Options.Importance
	queries    int  // of the last tokens, that it needs
	raw        bool // as they came
	decay      float32
	// shares is how budgets are divided: nil gives each head its own.
	shares func(keep [][]int32, o *Observation, scores [][]float32, budget int)
	// keeps is a rule of its own for which rows stay; nil takes the best.
	keeps func(dst []int32, o *Observation, head int, scores []float32, budget int) []int32
	// merge, if not nil, changes the values of rows that stay before others go.
	merge func(o *Observation, head int, stay []int32) error
}

// Observation is what a scorer sees of a state.
type Observation struct {
	cfg *Config
	s   *State
	// Queries [window, Heads*HeadDim] are those of the last tokens, as keys are held.
	Queries blas32.General
	// Mass[g][row] is the weight that rows have received, summed over the query heads of
	// key head g. Importance[g][row] is what the caller said.
	Mass, Importance [][]float32
	keys, values     []blas32.General
	memory           *scoring
}

// Keys returns the keys [held, HeadDim] of a key head as they are held, in memory that is
// the observation's.
func (o *Observation) Keys(head int) blas32.General {
	o.fetch(head)
	return o.keys[head]
}

// Values returns the values [held, ValueDim] likewise.
func (o *Observation) Values(head int) blas32.General {
	o.fetch(head)
	return o.values[head]
}

// Held is how many rows a key head holds.
func (o *Observation) Held(head int) int {
	if o.s == nil {
		return o.keys[head].Rows
	}
	return o.s.heads[head].Held()
}

// group is how many query heads read a key head.
func (o *Observation) group() int { return o.cfg.Heads / o.cfg.KVHeads }

func (o *Observation) fetch(head int) {
	if o.keys == nil {
		m := o.room()
		m.keys, m.values = scratch.Sized(m.keys, o.cfg.KVHeads), scratch.Sized(m.values, o.cfg.KVHeads)
		clear(m.keys)
		clear(m.values)
		o.keys, o.values = m.keys, m.values
	}
	if o.keys[head].Data != nil || o.s == nil {
		return
	}
	st := o.s.heads[head]
	k, v := o.matrix(st.Held(), o.cfg.HeadDim), o.matrix(st.Held(), o.cfg.ValueDim)
	o.s.readRows(k, head, 0, true)
	o.s.readRows(v, head, 0, false)
	o.keys[head], o.values[head] = k, v
}

// makeRoom forgets before tokens come, where the evictor works so.
func (s *State) makeRoom(x int) error {
	if m := &s.marks; m.rule.before {
		if s.n == 0 {
			return nil
		}
		for g := range s.heads {
			if held := s.heads[g].Held(); held+x > m.rule.budget+s.op.cfg.Every {
				s.rows = s.op.cfg.Evict.(roomMaker).room(s.rows[:0], s, g, x)
				if err := s.forget(g, s.rows); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// roomMaker is an evictor that makes room before tokens come: it appends the rows that
// stay to a list.
type roomMaker interface {
	room(rows []int32, s *State, head, coming int) []int32
}

// settle lets the policies know how a chunk went, and forgets.
func (s *State) settle(r *run) error {
	if s.index != nil && s.index.observes() {
		s.index.observe(r)
	}
	if s.op.cfg.Evict == nil {
		return nil
	}
	s.marks.see(r)
	m := &s.marks
	if m.rule.before || s.n < s.op.cfg.Dense {
		return nil
	}
	every := s.op.cfg.Every
	if !m.rule.each && every == 0 {
		return nil
	}
	for _, st := range s.heads {
		if st.Held() > m.rule.budget+max(0, every-1) {
			return s.Compact(0)
		}
	}
	return nil
}

// Compact has the Evictor forget all but a budget of tokens of each key head, those of
// Keep and Recent among them; 0 stands for the policy's own. It is what policies do at
// the end of a prompt (SnapKV and most others). Errors match ErrCall, for a state
// without an Evictor or a budget below Keep + Recent, or are about pages.
func (s *State) Compact(budget int) error {
	if s.op == nil {
		return check.Unmade("kvcache")
	}
	cfg := &s.op.cfg
	if cfg.Evict == nil {
		return check.Errorf(ErrCall, "kvcache: Compact of a state without an Evictor")
	}
	if budget == 0 {
		budget = s.marks.rule.budget
	}
	if budget < cfg.Keep+cfg.Recent || budget < 1 {
		return check.Errorf(ErrCall, "kvcache: a budget of %d tokens, want at least Keep + Recent = %d, and 1", budget, cfg.Keep+cfg.Recent)
	}
	more := false
	for _, st := range s.heads {
		more = more || st.Held() > budget
	}
	if !more {
		return nil
	}
	o := &s.seen
	s.observe(o)
	o.memory = s.op.scoring.Get()
	o.memory.begin()
	defer o.drop()
	for len(s.scores) < cfg.KVHeads {
		s.scores, s.stay = append(s.scores, nil), append(s.stay, nil)
	}
	for g := range s.scores {
		s.scores[g] = scratch.Sized(s.scores[g], o.Held(g))
	}
	if err := cfg.Evict.score(s.scores, o); err != nil {
		return err
	}
	s.marks.rule.choose(s.stay, o, s.scores, budget)
	for g, rows := range s.stay {
		if merge := s.marks.rule.merge; merge != nil {
			if err := merge(o, g, rows); err != nil {
				return err
			}
		}
		if err := s.forget(g, rows); err != nil {
			return err
		}
	}
	return nil
}

// SetImportance sets what SirLLM and External go by, of the last tokens: for scores that
// are known only after a step, as a token's surprise in a turn is. Errors match ErrCall,
// where the Evictor needs none, or ErrShape, for more than are held.
func (s *State) SetImportance(values []float32) error {
	if s.op == nil {
		return check.Unmade("kvcache")
	}
	if s.marks.importance == nil {
		return check.Errorf(ErrCall, "kvcache: SetImportance of a state whose Evictor is a %T", s.op.cfg.Evict)
	}
	for g, list := range s.marks.importance {
		if len(values) > len(list) {
			return check.Errorf(ErrShape, "kvcache: %d importances, want at most as many as key head %d holds = %d", len(values), g, len(list))
		}
	}
	for _, list := range s.marks.importance {
		copy(list[len(list)-len(values):], values)
	}
	return nil
}

// observe shows the state to a scorer.
func (s *State) observe(o *Observation) {
	m, cfg := &s.marks, &s.op.cfg
	*o = Observation{cfg: cfg, s: s, Queries: mat.Of(m.queries, m.kept, cfg.Heads*cfg.HeadDim), Mass: m.mass, Importance: m.importance}
}

// drop gives back copies of keys, and all other working memory.
func (o *Observation) drop() {
	if m := o.memory; 4*len(m.floats.memory)+8*len(m.doubles.memory) <= keptScoring {
		o.s.op.scoring.Put(m)
	}
	*o = Observation{}
}

// choose sets keep[g] to the rows of each key head that stay.
func (u *rule) choose(keep [][]int32, o *Observation, scores [][]float32, budget int) {
	for g := range scores {
		o.protect(g, scores[g])
	}
	if u.shares != nil {
		u.shares(keep, o, scores, budget)
		return
	}
	for g, x := range scores {
		if n := min(budget, len(x)); u.keeps != nil {
			keep[g] = u.keeps(keep[g], o, g, x, n)
		} else {
			keep[g] = best(keep[g], x, n)
		}
	}
}

// protect gives the first Keep and the last Recent tokens scores that nothing exceeds.
func (o *Observation) protect(head int, scores []float32) {
	if o.s == nil {
		return
	}
	inf := float32(math.Inf(1))
	for i := range scores[:o.s.rowsBefore(head, o.cfg.Keep)] {
		scores[i] = inf
	}
	for i := o.s.rowsBefore(head, o.s.n-o.cfg.Recent); i < len(scores); i++ {
		scores[i] = inf
	}
}

// best returns the n rows of the highest scores, ascending; of equal ones the lower row,
// and NaN last.
func best(dst []int32, scores []float32, n int) []int32 {
	rows := topk.Select(dst, scores, n)
	slices.Sort(rows)
	return rows
}

// checkBudget reports a budget that has no room for what is never forgotten.
func checkBudget(name string, budget int, cfg *Config) error {
	if budget < 1 || budget < cfg.Keep+cfg.Recent || int64(budget) > most {
		return check.Errorf(ErrConfig, "kvcache: %s.Budget is %d, want at least Keep + Recent = %d, and 1", name, budget, cfg.Keep+cfg.Recent)
	}
	return nil
}

var _ attention.Past = (*State)(nil)

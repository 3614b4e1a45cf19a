package kvcache

import (
	"slices"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/topk"
)

// SirLLM holds, besides the first Config.Keep and some of the latest tokens, those that
// surprised most (Yao et al. 2024, arXiv 2405.12528): Options.Importance has a token's
// surprise -log P(token | those before it), which SelfInformation computes. Each chunk of
// a call is a turn. Before r tokens come to a state that would hold more than Keep +
// Recent + Tokens with them, there stay the Tokens - r highest, the first Keep, and the
// newest of the others until r more fit. Then what is left of the surprises is multiplied
// by Decay. With Positions InCache dialogues may be endless.
//
// The published code gives a token the surprise of the one before it; here it has its own.
type SirLLM struct {
	// Tokens is how many are held for their surprise.
	Tokens int
	// Decay is what surprises are multiplied by at each turn; 0 stands for 1.
	Decay float32
}

func (p SirLLM) check(cfg *Config) error {
	switch {
	case p.Tokens < 1 || int64(p.Tokens) > most:
		return check.Errorf(ErrConfig, "kvcache: SirLLM.Tokens is %d, want at least 1", p.Tokens)
	case !(p.Decay >= 0 && p.Decay <= 1):
		return check.Errorf(ErrConfig, "kvcache: SirLLM.Decay is %v, want 0 to 1", p.Decay)
	}
	return nil
}

func (p SirLLM) rule(cfg *Config) rule {
	u := rule{before: true, importance: true, budget: cfg.Keep + cfg.Recent + p.Tokens}
	if p.Decay != 1 {
		u.decay = p.Decay
	}
	return u
}

func (SirLLM) score(dst [][]float32, o *Observation) error {
	for g := range dst {
		copy(dst[g], o.Importance[g])
	}
	return nil
}

func (p SirLLM) room(rows []int32, s *State, head, coming int) []int32 {
	cfg := &s.op.cfg
	surprise := s.marks.importance[head]
	held := s.heads[head].Held()
	keep := s.rowsBefore(head, cfg.Keep)
	room := max(keep, cfg.Keep+cfg.Recent+p.Tokens-coming)
	rows = topk.Select(rows, surprise, p.Tokens-coming)
	n := 0
	for _, r := range rows { // the first are counted once
		if int(r) >= keep && n < room-keep {
			rows[n] = r
			n++
		}
	}
	rows = rows[:n]
	slices.Sort(rows)
	for i := held - 1; i >= keep && len(rows) < room-keep; i-- {
		if at, found := slices.BinarySearch(rows[:n], int32(i)); !found || at == n {
			rows = append(rows, int32(i))
		}
	}
	for i := range keep {
		rows = append(rows, int32(i))
	}
	slices.Sort(rows)
	return rows
}

// External holds the tokens of the highest Options.Importance, whatever the caller means
// by it: a learned scorer, another model's attention.
type External struct {
	// Budget is how many tokens a key head holds, Keep and Recent among them.
	Budget int
}

func (p External) check(cfg *Config) error { return checkBudget("External", p.Budget, cfg) }
func (p External) rule(*Config) rule       { return rule{importance: true, each: true, budget: p.Budget} }
func (External) score(dst [][]float32, o *Observation) error {
	return SirLLM{}.score(dst, o)
}

package kvcache

import "github.com/subquad/subquad/internal/check"

// StreamingLLM holds the first Config.Keep and the last Config.Recent tokens (Xiao et al.
// 2023, arXiv 2309.17453): room is made before tokens come, so that with them no more are
// held, unless a first call brings more. With Positions InCache positions never grow and
// a text may be endless. With the selector Window a chunk of tokens more is held, and each
// query reads its own last Recent, whatever the chunks: as if tokens came one at a time.
type StreamingLLM struct{}

func (StreamingLLM) check(cfg *Config) error {
	if cfg.Recent < 1 {
		return check.Errorf(ErrConfig, "kvcache: StreamingLLM with Recent %d, want at least 1", cfg.Recent)
	}
	return nil
}

func (StreamingLLM) rule(cfg *Config) rule { return rule{before: true, budget: cfg.Keep + cfg.Recent} }

func (StreamingLLM) score(dst [][]float32, _ *Observation) error {
	for _, x := range dst {
		for i := range x {
			x[i] = float32(i) // the latest
		}
	}
	return nil
}

func (StreamingLLM) room(rows []int32, s *State, head, coming int) []int32 {
	cfg := &s.op.cfg
	held := s.heads[head].Held()
	keep := s.rowsBefore(head, cfg.Keep)
	for i := range keep {
		rows = append(rows, int32(i))
	}
	if _, each := cfg.Select.(Window); each {
		coming = 1 // what the first of them reads
	}
	for i := max(keep, held-cfg.Recent+coming); i < held; i++ {
		rows = append(rows, int32(i))
	}
	return rows
}

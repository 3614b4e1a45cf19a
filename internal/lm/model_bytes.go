package lm

import (
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/parallel"
)

// Bytes returns the memory of the model's weights, and of the tables, filters and spectra
// that calls and Prepare have made so far.
func (m *Model) Bytes() int64 {
	n := m.cfg.Norm.Bytes() + 4*int64(len(m.cfg.Embedding.Table.Data))
	if tied := m.cfg.Embedding.Tied; tied != nil && tied != m.cfg.Head.Weights {
		n += int64(tied.Bytes())
	}
	if m.cfg.Head.Weights != nil {
		n += int64(m.cfg.Head.Weights.Bytes())
	}
	if m.cfg.Classifier != nil {
		n += int64(m.cfg.Classifier.Weights.Bytes())
	}
	for _, s := range m.program {
		n += s.Norm.Bytes() + s.Post.Bytes()
		if s.MLP != nil {
			n += s.MLP.Bytes()
		} else {
			n += s.Mixer.Bytes()
		}
	}
	return n
}

// ScratchBytes returns the working memory that a call of one sequence of that many tokens
// takes, at the most, besides its arguments and what Bytes counts.
func (m *Model) ScratchBytes(tokens int) int64 {
	tokens = max(tokens, 0)
	if m.cfg.MaxLen > 0 {
		tokens = min(tokens, m.cfg.MaxLen)
	}
	rows := m.pieceRows(tokens)
	kinds := map[string]int64{}
	for _, at := range m.mixers {
		mixer := m.program[at].Mixer
		kinds[mixer.Kind()] = max(kinds[mixer.Kind()], mixer.ScratchBytes(tokens))
	}
	var n int64
	for _, bytes := range kinds {
		n += bytes
	}
	dim, vocab := int64(m.dim), int64(m.vocab)
	all := parallel.Workers(m.cfg.Workers)
	each := min(BlockRows(rows, all), rows)
	workers := int64(min(all, max((rows+each-1)/max(each, 1), 1)))
	// The first worker may be alone in another call, with more rows.
	worked := int64(min(BlockRows(rows, 1), rows)) + (workers-1)*int64(each)
	scored := workers * int64(min(scoreRows, rows)) * vocab
	// The residual stream and a mixer's rows; what workers have; what poolings gather, in
	// float32 and float64; a state of the call's own, and a mark of it.
	n += 4 * (2*int64(rows)*dim + worked*(2*dim+int64(m.hidden)) + scored + workers*vocab)
	n += 16*dim + 8*dim
	if !m.whole {
		n += 2 * m.StateBytes(tokens)
	}
	const rest = 16 << 10
	return n + rest
}

// StateBytes returns the memory of a state, without snapshots, after as many tokens.
func (m *Model) StateBytes(tokens int) (n int64) {
	if m.streams {
		for _, s := range m.streamers {
			n += s.StateBytes(tokens)
		}
	}
	return n
}

// pieceRows returns how many of a sequence's tokens go through the layers together.
func (m *Model) pieceRows(tokens int) int {
	if m.streams && !m.whole {
		return min(tokens, pieceTokens)
	}
	return tokens
}

// BlockRows returns how many of n rows a task takes from one mixer to the next, or through a
// mixer's projections, with some goroutines. Weights come from memory once for each task, so that
// tasks are large, but as many as there are goroutines, and alike. No bit depends on it.
func BlockRows(n, workers int) int {
	if n > pieceTokens {
		return dense.BlockRows
	}
	const least, most = 64, 256
	each := (n + workers - 1) / workers
	return min(max((each+least-1)/least*least, least), most)
}

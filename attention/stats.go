package attention

import (
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// Stats gathers, over the calls of one sequence, what tells active heads from
// dormant ones, which put their weight on a sink (Guo et al., "Active-Dormant
// Attention Heads", 2024, arXiv 2410.13835). Give it to Call.Stats; the zero
// value is ready. A sequence may come in pieces: queries are told by their
// position, and keys met again add to what is there. It is not safe for
// concurrent use.
type Stats struct {
	// Queries is how many queries have been taken up.
	Queries int
	// Mass[h][p] is the weight that the key at position p got in head h from all
	// queries together.
	Mass [][]float64
	// After[p] is how many queries could see the key at position p: those at p or
	// later or, where attention is not causal, all.
	After []int64
	// Entropy[h] is the sum over queries of their entropy divided by its largest
	// value, the logarithm of the number of keys in sight; 0 for a single key.
	Entropy []float64
	// ValueNorm[g][p] is |v| of the key at position p in key head g.
	ValueNorm [][]float64
}

// Reset forgets everything and keeps the memory.
func (s *Stats) Reset() {
	for h := range s.Mass {
		s.Mass[h], s.Entropy[h] = s.Mass[h][:0], 0
	}
	for g := range s.ValueNorm {
		s.ValueNorm[g] = s.ValueNorm[g][:0]
	}
	s.After, s.Queries = s.After[:0], 0
}

// Alpha returns the mean weight that the key at a position got in a head from the
// queries that could see it, 0 if there is none.
func (s *Stats) Alpha(head, position int) float64 {
	if s.After[position] == 0 {
		return 0
	}
	return s.Mass[head][position] / float64(s.After[position])
}

// MeanEntropy returns the mean of a head's entropies, each between 0 (one key
// has all the weight) and 1 (all keys have the same).
func (s *Stats) MeanEntropy(head int) float64 {
	return s.Entropy[head] / float64(max(s.Queries, 1))
}

// Dormant tells whether a head puts more than a share eps of its weight on the
// first key, on average: whether that key is a sink. 0.3 is usual.
func (s *Stats) Dormant(head int, eps float64) bool {
	return len(s.After) > 0 && s.Alpha(head, 0) > eps
}

// mostStats bounds positions, for each of which Stats has a number for each head.
const mostStats = 1 << 24

// checkStats reports a call that cannot be taken up.
func (s *Stats) checkStats(r *forwardRun, c *Call) error {
	cfg := &r.op.cfg
	switch {
	case len(r.qOffsets) != 2:
		return check.Errorf(ErrCall, "attention: Stats with %d sequences, want 1", len(r.qOffsets)-1)
	case c.KeyPos != nil && (c.KeyPos[0] < 0 || c.KeyPos[0] > mostStats):
		return check.Errorf(ErrCall, "attention: Stats with KeyPos %d, want 0 to 2^24: there is a number for each position", c.KeyPos[0])
	case s.Mass != nil && (len(s.Mass) != cfg.Heads || len(s.Entropy) != cfg.Heads || len(s.ValueNorm) != cfg.KVHeads):
		return check.Errorf(ErrCall, "attention: Stats is of another number of heads")
	}
	return nil
}

// takeRun takes up what the second pass found; the call has one sequence and its
// keys begin at KeyPos.
func (s *Stats) takeRun(r *forwardRun) {
	cfg := &r.op.cfg
	if s.Mass == nil {
		s.Mass, s.Entropy = make([][]float64, cfg.Heads), make([]float64, cfg.Heads)
		s.ValueNorm = make([][]float64, cfg.KVHeads)
	}
	queryPos, keyPos := r.positions(0)
	n := int(keyPos) + r.src[0].rows
	s.After = extend(s.After, n)
	for h := range s.Mass {
		s.Mass[h] = extend(s.Mass[h], n)
		for j := range r.massOut.Rows {
			s.Mass[h][int(keyPos)+j] += float64(mat.Row(r.massOut, j)[h])
		}
	}
	for j := range r.src[0].rows {
		after := int64(r.call.Q.Rows)
		if cfg.Causal {
			after = min(max(queryPos+after-keyPos-int64(j), 0), after)
		}
		s.After[int(keyPos)+j] += after
	}
	for i := range r.call.Q.Rows {
		from, to := r.rangeInSight(0, i)
		if to-from < 2 {
			continue
		}
		for h := range s.Entropy {
			s.Entropy[h] += float64(mat.Row(r.entropyOut, i)[h]) / math.Log(float64(to-from))
		}
	}
	s.Queries += r.call.Q.Rows
	dv := cfg.ValueDim
	for g := range s.ValueNorm {
		s.ValueNorm[g] = extend(s.ValueNorm[g], n)
		at := int(keyPos)
		for _, v := range r.src[0].v {
			for j := range v.Rows {
				x := mat.Part(v, j, g*dv, dv)
				s.ValueNorm[g][at] = math.Sqrt(float64(asm.Dot(x, x)))
				at++
			}
		}
	}
}

// extend returns x with zeros up to n elements.
func extend[T int64 | float64](x []T, n int) []T {
	for len(x) < n {
		x = append(x, 0)
	}
	return x
}

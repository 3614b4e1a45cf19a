package merge

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// energetic tells whether a method divides tokens by their energy.
func (m Method) energetic() bool { return m >= PiToMe }

// energies sets r.energy of all tokens that take part, and lists them in r.all.
func (r *matchRun) energies(ctx context.Context) error {
	r.all, r.energy = r.all[:0], scratch.Sized(r.energy, len(r.inverse))
	for i := range r.seqs {
		s := &r.seqs[i]
		s.all.from = len(r.all)
		for t := s.from; t < s.to; t++ {
			if r.inverse[t] != 0 {
				r.all = append(r.all, int32(t))
			}
		}
		s.all.to = len(r.all)
	}
	if err := r.packUnits(ctx, r.all, func(s *sequence) span { return s.all }); err != nil {
		return err
	}
	return r.perTask(ctx, r.cut(searchTiles*r.m.tile.Rows(), func(s *sequence) int { return s.all.len() }), (*matchRun).energyBlock)
}

// energyBlock sums, for a block of tokens, a function of their similarity S to every
// token j, themselves included:
//
//	vision: energy[i] = mean over j of elu(S[i][j] - margin)
//	text:   energy[i] = mean over j of the density at 1 - S[i][j] of N(0, (1-margin)^2)
func (r *matchRun) energyBlock(k *worker, t task) {
	s, w, dim := &r.seqs[t.seq], r.m.tile.Panel(), r.call.Metric.Cols
	all := s.all.of(r.all)
	tokens := all[t.from:t.to]
	k.rows = scratch.Floats(k.rows, len(tokens)*dim)
	rows := mat.Of(k.rows, len(tokens), dim)
	for i, token := range tokens {
		r.normalise(mat.Row(rows, i), token)
		r.energy[token] = 0
	}
	const strip = 512
	cols := max(1, strip/w) * w
	k.best = scratch.Floats(k.best, cols)
	for from := 0; from < len(all); from += cols {
		if from%(64*cols) == 0 && r.stopped() {
			return
		}
		n := min(cols, len(all)-from)
		whole := (n + w - 1) / w * w
		k.score = scratch.Floats(k.score, len(tokens)*whole)
		scores := mat.Of(k.score, len(tokens), whole)
		r.m.tile.Scores(scores, rows, r.packed[s.packed+from*dim:][:whole*dim])
		for i, token := range tokens {
			similar := mat.Row(scores, i)[:n]
			if self := t.from + i - from; self >= 0 && self < n && similar[self] != 0 {
				similar[self] = 1 // but for rounding, which a narrow density would show
			}
			if r.m.cfg.Method == PiToMeText {
				r.energy[token] += densities(k.best[:n], similar, r.call.Margin)
			} else {
				r.energy[token] += elus(k.best[:n], similar, r.call.Margin, r.m.cfg.Alpha)
			}
		}
	}
	for _, token := range tokens {
		r.energy[token] /= float64(len(all))
	}
}

// elus returns the sum of elu(s - margin), that is, without a branch, max(x, 0) + alpha
// (exp(min(x, 0)) - 1). e is scratch.
func elus(e, s []float32, margin, alpha float32) float64 {
	var positive, exponentials float64
	for j, v := range s {
		x := v - margin
		e[j] = min(x, 0)
		positive += float64(x - e[j])
	}
	asm.Exp(e, e)
	for _, v := range e {
		exponentials += float64(v)
	}
	return positive + float64(float64(alpha)*(exponentials-float64(len(e))))
}

// densities returns the sum of exp(-((1-s)/sigma)^2/2) / (sigma sqrt(2 pi)), sigma = 1 -
// margin. e is scratch.
func densities(e, s []float32, margin float32) (sum float64) {
	sigma := 1 - margin
	for j, v := range s {
		z := (1 - v) / sigma
		e[j] = -z * z / 2
	}
	asm.Exp(e, e)
	for _, v := range e {
		sum += float64(v)
	}
	return sum / (float64(sigma) * math.Sqrt(2*math.Pi))
}

// byEnergy divides the tokens of sequence i by their energy.
func (r *matchRun) byEnergy(i int, s *sequence) error {
	for t := s.from; t < s.to; t++ {
		if r.inverse[t] == 0 {
			r.head = append(r.head, int32(t))
		}
	}
	ranked := s.all.of(r.all)
	slices.SortFunc(ranked, func(a, b int32) int {
		if c := cmp.Compare(r.energy[b], r.energy[a]); c != 0 {
			return c
		}
		return int(a - b)
	})
	merging := len(ranked)
	if r.m.cfg.Method != PiToMeBSM {
		n, err := r.number(i, s, len(ranked)/2)
		if err != nil {
			return err
		}
		merging = 2 * n
	}
	for place, t := range ranked[:merging] {
		source := place%2 == 0
		if r.m.cfg.Method == PiToMeText {
			source = place < merging/2
		}
		if source {
			r.src = append(r.src, t)
		} else {
			r.dst = append(r.dst, t)
		}
	}
	r.head = append(r.head, ranked[merging:]...)
	return nil
}

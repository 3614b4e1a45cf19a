package approx

import "math"

// causalSums are the sums of a sequence, [KVHeads, part] each, which is S [D, Dv] and z [D]
// below it for every key head. A sum in float32 stops growing at 2^24 terms of its own size.
// So the latest tokens have a sum to themselves, which is added to that of all from time to
// time, and what this addition rounds away is kept, too: 48 bits together.
type causalSums struct{ latest, all, rest []float32 }

// split returns the sums that stand one after the other in values.
func (l *featured) split(values []float32) causalSums {
	n := l.sums.kvHeads * l.sums.part
	return causalSums{values[:n], values[n : 2*n], values[2*n:][:n]}
}

// fold adds the sums of the latest tokens, from element from up to to, to those of all.
func (s causalSums) fold(from, to int) {
	latest, all, rest := s.latest[from:to], s.all[from:to], s.rest[from:to]
	for i, x := range latest {
		latest[i] = 0
		sum := all[i] + x
		if math.IsNaN(float64(sum)) || math.IsInf(float64(sum), 0) {
			all[i], rest[i] = sum, 0
			continue
		}
		// What is lost of a + x is exact in float32 (Knuth 1969, 4.2.2).
		part := sum - all[i]
		low := rest[i] + ((all[i] - (sum - part)) + (x - part))
		all[i] = sum + low
		rest[i] = low - (all[i] - sum)
	}
}

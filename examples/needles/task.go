package main

import "math/rand/v2"

// The task's tokens: a marker of pairs and one of queries, keys, values, and noise.
const (
	pairMarker  = 0
	queryMarker = 1
	firstKey    = 2
	firstValue  = 34
	firstNoise  = 66
	vocabulary  = 96
	keys        = firstValue - firstKey
	values      = firstNoise - firstValue

	pairs       = 4
	queryTokens = 3 * pairs
)

// sequence is a sequence of the task.
type sequence struct {
	tokens  []int32
	targets []int32 // the values that are asked for
}

// newSequence makes a sequence of n tokens: noise, a fifth of it keys and values that no
// marker stands before; among it four marked pairs; then a query for each, in any order.
func newSequence(r *rand.Rand, n int) *sequence {
	s := &sequence{tokens: make([]int32, n)}
	context := n - queryTokens
	for i := range s.tokens {
		s.tokens[i] = int32(firstNoise + r.IntN(vocabulary-firstNoise))
		if r.IntN(5) == 0 {
			s.tokens[i] = int32(firstKey + r.IntN(firstNoise-firstKey))
		}
	}
	chosen := map[int]bool{}
	for len(chosen) < pairs {
		chosen[r.IntN(context-2*pairs)] = true
	}
	var at []int
	for p := 0; len(at) < pairs; p++ {
		if chosen[p] {
			at = append(at, p+2*len(at)) // each makes room for the two tokens after it
		}
	}
	key := r.Perm(keys)
	for i, p := range at {
		copy(s.tokens[p:], []int32{pairMarker, int32(firstKey + key[i]), int32(firstValue + r.IntN(values))})
	}
	for i, asked := range r.Perm(pairs) {
		q := context + 3*i
		copy(s.tokens[q:], s.tokens[at[asked]:][:3])
		s.tokens[q] = queryMarker
		s.targets = append(s.targets, s.tokens[q+2])
	}
	return s
}

package main

import "math/rand/v2"

// The vocabulary: markers of pairs and of queries, keys, values, noise.
const (
	pairMarker, queryMarker = 0, 1
	firstKey, firstValue    = 2, 34
	firstNoise, vocabulary  = 66, 96
	keys, values            = firstValue - firstKey, firstNoise - firstValue
)

const (
	pairs = 4
	// queryTokens is how many tokens the queries at a sequence's end have: a marker, a
	// key and the value for each pair.
	queryTokens = 3 * pairs
	// trainLength is what the model was trained with.
	trainLength = 128
)

// sequence is a sequence of the task, and what is in it.
type sequence struct {
	tokens []int32
	// pairs are where the triples of marker, key and value begin.
	pairs []int
	// answers are where a key has been asked for: the next token is to be its value.
	answers []int
}

// newSequence makes a sequence of n tokens: noise; among it four pairs, all placements
// equally likely; then the queries, in any order. In the harder task a fifth of the
// noise is replaced by keys and values that no marker stands before.
func newSequence(r *rand.Rand, n int, hard bool) *sequence {
	s := &sequence{tokens: make([]int32, n)}
	context := n - queryTokens
	for i := range s.tokens {
		s.tokens[i] = int32(firstNoise + r.IntN(vocabulary-firstNoise))
		if hard && r.IntN(5) == 0 {
			s.tokens[i] = int32(firstKey + r.IntN(firstNoise-firstKey))
		}
	}
	// Of context - 2 pairs places, pairs distinct ones, in order; each makes room for
	// the two tokens after it.
	chosen := map[int]bool{}
	for len(chosen) < pairs {
		chosen[r.IntN(context-2*pairs)] = true
	}
	for at := 0; len(s.pairs) < pairs; at++ {
		if chosen[at] {
			s.pairs = append(s.pairs, at+2*len(s.pairs))
		}
	}
	key := r.Perm(keys)
	for i, at := range s.pairs {
		copy(s.tokens[at:], []int32{pairMarker, int32(firstKey + key[i]), int32(firstValue + r.IntN(values))})
	}
	for i, asked := range r.Perm(pairs) {
		at := context + 3*i
		copy(s.tokens[at:], s.tokens[s.pairs[asked]:][:3])
		s.tokens[at] = queryMarker
		s.answers = append(s.answers, at+1)
	}
	return s
}

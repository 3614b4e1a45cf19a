package merge

import (
	"math/rand/v2"
	"slices"

	"github.com/subquad/subquad/internal/check"
)

// RandomPartition returns r of n tokens, drawn at random, as sources and the others as
// destinations, for Given: with R = r all of them merge (ToMe's random matching). Errors match
// ErrCall.
func RandomPartition(n, r int, rng *rand.Rand) (sources, destinations []int, err error) {
	if rng == nil {
		return nil, nil, check.Errorf(ErrCall, "merge: rng is nil")
	}
	if n < 0 || n > maxTokens || r < 0 || r > n || r == n && n > 0 {
		return nil, nil, check.Errorf(ErrCall, "merge: a partition of %d tokens with %d sources, want 0 or more and a destination", n, r)
	}
	tokens := rng.Perm(n)
	return tokens[:r], tokens[r:], nil
}

// GridPartition is the partition of Grid with a destination drawn at random in each cell,
// for Given. Errors match ErrCall.
func GridPartition(height, width, cellHeight, cellWidth int, rng *rand.Rand) (sources, destinations []int, err error) {
	if rng == nil {
		return nil, nil, check.Errorf(ErrCall, "merge: rng is nil")
	}
	if height <= 0 || width <= 0 || height > maxTokens/width || cellHeight <= 0 || cellWidth <= 0 {
		return nil, nil, check.Errorf(ErrCall, "merge: a grid of %d x %d tokens in cells of %d x %d, want 1 or more each", height, width, cellHeight, cellWidth)
	}
	for y := 0; y+cellHeight <= height; y += cellHeight {
		for x := 0; x+cellWidth <= width; x += cellWidth {
			destinations = append(destinations, (y+rng.IntN(cellHeight))*width+x+rng.IntN(cellWidth))
		}
	}
	slices.Sort(destinations)
	next := 0
	for t := range height * width {
		if next < len(destinations) && destinations[next] == t {
			next++
		} else {
			sources = append(sources, t)
		}
	}
	return sources, destinations, nil
}

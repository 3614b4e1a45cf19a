// Package merge shortens a sequence: it finds similar tokens, merges them, and gives
// what has been computed of few tokens back to all of them.
//
//   - A [Matcher] finds which tokens are similar, by the cosine of their rows of a
//     metric, and makes a [Plan]: ToMe's bipartite matching and its k-th form, a grid of
//     cells, local and causal matching, PiToMe's energy, or any partition.
//   - A [Plan] is applied to features, sizes, positions, masks, rows of keys and
//     values, undone by Unmerge, and put behind another one by Compose.
//
// Sizes, how many tokens a merged token stands for, go into attention as log-weights of
// its keys (attention.Call.LogWeights; see [LogSizes]): proportional attention.
//
// # Letters
//
//	n, t   tokens of a sequence, and a token's index
//	m, j   tokens that are left, and a merged token's index
//	r      tokens that merge away: m = n - r
//	D      width of the metric, or of a token
//	s      size of a token
//
// Matrices are [tokens, columns], row-major, with a stride.
//
// # Cost
//
// Matching by ToMe takes n² D / 2 flop and memory O(n D): similarities are never
// stored, only the largest of each source. Local matching takes 2 n D Window flop. Plans
// take 20 bytes a token and are applied in O(n D).
//
// # Determinism
//
// The same to the bit for any Workers. Of destinations that are equally similar the
// first one is taken, of sources the first. A row of the metric is divided by its length or by
// 1e-12, so that zeros have similarity 0 to everything; a token whose row holds NaN or
// Inf takes no part.
package merge

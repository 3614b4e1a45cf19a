// Package merge shortens a sequence: it finds similar tokens, merges them, and gives
// what has been computed of few tokens back to all of them.
//
//   - A [Matcher] finds which tokens are similar, by the cosine of their rows of a
//     metric, and makes a [Plan]: ToMe's bipartite matching and its k-th form, a grid of
//     cells, local and causal matching, PiToMe's energy, or any partition.
//   - A [Plan] is applied to features, sizes, positions, masks, rows of keys and
//     values, undone by Unmerge, and joined to the next one by Compose.
//   - A [Stream] merges causally as tokens come in.
//   - [Matcher.Estimate] and Call.Workload tell whether merging pays; [Schedule] says how
//     many tokens each layer merges.
//
// Package merge/catanet leaves all tokens and makes attention among them linear, by
// grouping them by content; package merge/maelre is an encoder for classification that
// merges from block to block.
//
// # In a model
//
// ToMe merges between a block's attention and its MLP, by the keys' mean over heads
// ([MeanHeads]) and weighted by sizes, how many tokens a merged token stands for
// ([Plan.ApplyWeighted]). Sizes go into attention as log-weights of its keys
// (attention.Call.LogWeights, [LogSizes]): proportional attention, which models that were
// trained without merging need. Positions of merged tokens, for rotary embeddings, come
// from [Plan.ApplyPositions]. For layers that must see all tokens, a convolution or a
// window attention, unmerge after the block and merge anew.
//
// Merging tokens from all over breaks causality: in causal models use Local with a Window
// of 1 and a threshold. The choice of the R most similar looks at the whole sequence.
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
// stored, only the largest of each source. Local matching takes 2 n D Window flop, KTh
// and Grid 2 n² D/k (1-1/k) for groups or cells of k tokens, PiToMe 2 n² D and n²
// exponentials. A plan takes about 32 bytes a token and is applied in O(n D), by the
// caller's goroutine.
//
// # Determinism
//
// Plans are the same for any Workers. Of destinations that are equally similar the first
// one is taken, of sources the first. A row of the metric is divided by its length or by
// 1e-12, so that zeros have similarity 0 to everything; a token whose row holds NaN or Inf
// takes no part. Between tiers similarities differ by rounding, and so may the choice
// between pairs that are as good as equally similar.
//
// # Provenance
//
//	ToMe, KTh, Given, Schedule   checked against ToMe's code (Bolya et al., "Token Merging: Your ViT
//	                             But Faster", 2023, arXiv 2210.09461); written from its formulas
//	proportional attention       checked against ToMe's code, alone and in a stack of blocks
//	Grid                         checked against tomesd (Bolya and Hoffman 2023, arXiv 2303.17604)
//	PiToMe, …Text, …BSM          checked against PiToMe's code (Tran et al., 2024, arXiv 2405.16148);
//	                             written from its formulas
//	Local                        a reconstruction of local merging (Götz et al., 2025, arXiv
//	                             2405.17951): checked against a reference of the published idea, there
//	                             is no official code
//	Stream                       checked against Local
//
// Where the published code differs: KTh keeps the tokens after the last whole group, Unmerge
// undoes the order of a distillation token, and zeros and NaN are defined.
package merge

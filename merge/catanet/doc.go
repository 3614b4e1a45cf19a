// Package catanet has content-aware grouping: attention whose cost is linear in the
// tokens because tokens of like content, not neighbours, attend to each other (Liu et
// al., "CATANet: Efficient Content-Aware Token Aggregation for Lightweight Image
// Super-Resolution", 2025, arXiv 2503.06896).
//
//   - [GroupAttention] sorts tokens by a bucket, cuts them into groups, and lets each
//     group attend to itself and the next one.
//   - [AssignCenters] makes buckets: the nearest of some centres. [FitCenters] fits
//     centres offline, [MoveCenters] moves them as training does.
//   - [TAB], the token aggregation block, and [LRSA], local-region self-attention, are the
//     two blocks of the network, each with its feed-forward layer.
//
// No token merges away: package merge does that.
//
// # Letters
//
//	n, t   tokens of a sequence or pixels of an image, and an index
//	M      centres
//	g      tokens of a group (GroupSize)
//	D      width of a token (Dim); QKDim that of its query and key over all heads
//	H, W   height and width of an image
//
// Matrices are [tokens, columns], row-major, with a stride. The pixels of an image are
// tokens, line after line; a packed batch has image after image.
//
// # Cost
//
// Of n tokens GroupAttention takes 4 n g (HeadDim + ValueDim) flop a head; it sorts by
// counting, or in n log n comparisons where buckets have numbers above 4 n. Nearest centres
// take 2 n M D flop.
//
// # Determinism
//
// Results are the same to the bit for any Workers, and for an image alone and in a batch
// (but for a TAB that makes its centres of the tokens of all images). Of centres that are
// equally near the first is taken.
//
// # Provenance
//
// Checked against CATANet's code; where groups are longer than the tokens that are left,
// which is an error there, keys are repeated backwards, which is ours.
package catanet

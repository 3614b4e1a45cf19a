// Package sparse is softmax attention to chosen blocks of keys: what is chosen is attended
// to exactly, in tiles of package attention's kernel, and the rest is not read.
//
//   - [Blocks] takes the choice from the caller: lists of blocks of keys for each block of
//     queries, of windows, sinks, strides, draws, by the means of blocks or by scores of the
//     caller's; see [Pattern] and [Blocks.ChooseScored].
//   - [MoBA], mixture of block attention: each query chooses blocks of keys by their means.
//   - [NSA], native sparse attention: compressed keys, chosen blocks and a window, weighed by
//     gates.
//
// # Which to take
//
// Of a model that was trained with exact attention, Blocks takes the place of it for long
// prompts, at the price of what the choice leaves out; attention.Reporter tells how much that is.
// Pattern{TopK: 100, Window: 1} with blocks of 64 is a beginning, see examples/longcontext. Blocks
// has no states: steps that read a part of what a state of package attention holds are those of
// package kvcache, or attention.Call.Select.
//
// MoBA and NSA are for models that were trained with them, whose Config comes with the weights.
// MoBA needs nothing but queries, keys and values; NSA needs the gates, too, which are
// projections of the model's own.
//
// # Letters
//
//	n, i   queries of a sequence, and a query's index
//	m, j   keys of a sequence, and a key's index
//	H, h   query heads (Heads), and a head's index
//	G, g   key and value heads (KVHeads); head h reads g = h / (H/G)
//	D, Dv  width of a query and key (HeadDim), and of a value (ValueDim)
//	A, a   blocks of queries, and a block's index
//	B, b   blocks of keys, and a block's index
//
// Matrices are [tokens, heads*dim], row-major, heads side by side, with a stride.
//
// # Cost
//
// Each pair of a query and a key that is read costs what it does in exact attention; keys are
// read in panels of 4 to 32, by the tier, and a narrower block costs as much as a panel. Of a
// sequence of 65536 tokens, 8 heads of 64, causal, a tenth of the blocks of 128 takes a ninth
// of exact attention's processor time, and of blocks of 64 an eighth (one thread of a virtual
// Xeon with AVX-512; go test -bench Forward).
//
// NSA with its defaults, 16 query heads of 64 that share a key head, takes of exact attention's
// processor time a quarter for 16384 tokens and a seventh for 32768; a step after 16384 tokens
// takes a sixth of exact attention's time (same machine, queries and keys of noise, so that
// neighbours choose different blocks; go test -bench NSA). Where each query head has a key head
// of its own, choosing costs as much as reading: half of exact attention's time for 16384.
//
// # Accuracy
//
// A query meets its blocks in rising order, in one online softmax: results are the same to the
// bit for any Workers, and of a sequence in a packed batch and alone. A query that reads no key
// has 0 for its output and -Inf for its log-sum-exp. NaN and Inf reach the queries that read
// them, and no others.
//
// # Provenance
//
//	Blocks   checked against attention under the same mask, in float64
//	Pattern  the rules from the papers
//	MoBA     checked against the published naive form
//	NSA      checked against flash-linear-attention's naive form
package sparse

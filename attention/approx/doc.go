// Package approx has attention whose cost is linear in the tokens.
//
//   - [Linear] is linear attention with the feature map elu + 1; causal, it is a
//     recurrence, and a [LinearState] decodes in memory that does not grow.
//   - [Based] is linear attention by the first terms of the series of exp, with the same
//     states.
//   - [Performer] approximates softmax attention by random features; with a
//     Stabilizer, or features by relu, it has the same states, too.
//   - [Efficient] is efficient attention: queries are normalised over their
//     features, keys over the tokens.
//   - [XCA] is cross-covariance attention: the features of a head attend to each
//     other.
//   - [Linformer] is softmax attention to a fixed number of projections of the keys and
//     values.
//   - [Nystrom] is the Nyström approximation of softmax attention by landmarks.
//   - [MRA2] approximates softmax attention at two resolutions: pairs of blocks that matter
//     most exactly, the others by means.
//
// Linear, Based, Efficient and XCA are models of their own, with matrices of features in
// place of n x n weights, and Linformer has weights for each position: a network must have
// been trained with them. Performer, Nystrom and
// MRA2 can take the place of softmax attention in a network that has it, at the price of an
// error; see below.
//
// All are attention.Operator. They take grouped heads, packed batches and, but for Linformer,
// log-weights of merged tokens in an attention.Call, and padding in its Options, a pointer to
// [Options]. Only a causal Linear, Based or Performer has states, of type LinearState, and takes
// several in one call: in the others every token sees all, so that the next token would change
// the results before it.
//
// # Which to take
//
// A network that was trained with Linear, Based, Efficient, XCA or Linformer needs that one, and
// the values of its fields; 0 stands for the published ones. In place of softmax attention to all
// tokens of a sequence:
//
//   - where queries and keys change slowly along the tokens, as in images and sounds, Nystrom;
//     16 Iterations in place of the published 6 are cheap and can matter more than Landmarks;
//   - where a token has most of its weight in few places, MRA2, with as many PairsPerRow as there
//     is time for;
//   - where logits are of the order of 1 or less, Performer: with a Stabilizer also causal and
//     token by token;
//   - below some 500 tokens, by the times below, exact attention, which is no slower;
//   - else none of them: packages attention/sparse and attention/kvcache attend to chosen tokens
//     exactly.
//
// attention.NewReporter tells the error for one's own queries, keys and values.
//
// # Letters
//
//	n, i   queries in a sequence, and a query's index
//	j      a key's index
//	H, h   query heads (Heads), and a head's index
//	G, g   key and value heads (KVHeads); head h reads g = h / (H/G)
//	D, Dv  width of a query and key (HeadDim), and of a value (ValueDim)
//	b, p   tokens of a block (Block), and pairs for each block of queries (PairsPerRow)
//	m      landmarks (Landmarks), or rows of a projection of the tokens
//	F      features of a query or key
//	s, w   size of a token, how many it counts as, and its log-weight, log s
//
// Matrices are [tokens, heads*dim], row-major, heads side by side, with a stride:
// a fused buffer of queries, keys and values needs no copy.
//
// # Memory and cost
//
//	            flop for each token and head    memory besides the arguments
//	Linear      4 D Dv                          up to 64 partial sums of D Dv for each head
//	… causal    8 D Dv                          D Dv for each head
//	Based       4 F Dv, F = 1 + D + D (D+1)/2   F Dv for each head
//	Performer   4 F (D + Dv)                    as Linear, of F Dv
//	… causal    4 F (D + Dv + 32)               F Dv for each head
//	Efficient   4 D Dv                          as Linear
//	XCA         4 D^2                           as Linear
//	Linformer   4 m (D + Dv)                    m (D + Dv) for each key head
//	Nystrom     4 m (D + Dv), and 50 m^3 once   m (2 D + 2 Dv) for each head, m^2 for each worker
//	MRA2        2 b p (D + Dv), and the below   3 D n/b and 12 p n/b for each head
//
// MRA2's cost has a part that grows with n, 2 n (2 D + Dv) / b^2: of exact attention's it is
// 0.15 %.
//
// All are matrix products on the kernels of exact attention. Beside exact attention,
// not causal, in milliseconds, 8 heads of 64 on one thread of a virtual AMD EPYC
// (Zen 4) with AVX-512, least of four runs on a shared machine (go test -bench .
// -cpu 1; exact attention to 65536 tokens is 16 times the line above):
//
//	tokens   exact   Nystrom m=64   m=256   Efficient   XCA   Linear   causal
//	  4096     351             20     113          13    13       10       23
//	 16384    5750             83     272          50    50       43       97
//	 65536   92000            336     924         209   197      174      397
//
// That is 41 to 51 GFLOP/s for the full ones, 33 for the causal one, of a peak of
// 118: at these widths a token's features, read and written once, cost as much time
// as its products. A token of decoding takes a causal Linear 8 microseconds, whatever
// came before it: it works in the state itself.
//
// The later ones beside some of these at 4096 tokens, on one thread of an Intel Xeon with
// AVX-512, least of five runs on a shared machine (go test -short -bench . -cpu 1). Only MRA2's
// time grows by more than the tokens; exact attention's, of which causal takes half, by their
// square:
//
//	                           ms   times as fast as exact
//	exact                     248
//	Linear                      9   28
//	… causal                   20   12
//	Nystrom, m = 64            16   16
//	MRA2, p = 4                24   10
//	… p = 16                   65   3.8
//	Based, D = 16              34   7.2
//	Linformer, m = 256         37   6.7
//	Performer, F = 266         62   4.0
//	… with a Stabilizer        48   5.1
//	… causal, with one         63   3.9
//
// # Accuracy
//
// Sums over keys are kept in float32, by blocks of 256 tokens and pieces of up to
// 1/64 of a sequence. Results are the same to the bit for any Workers, and of a
// sequence in a packed batch and alone; between a State's splits and between
// tiers they differ by rounding.
//
// |out - exact| / |exact| of Nystrom, mean over rows, 2 heads of 32, 2048 tokens
// (TestNystromError):
//
//	landmarks   smooth    smooth, 16 iterations   noise
//	       16   0.033     0.043                   0.75
//	       64   0.010     0.00006                 0.74
//	      256   0.010     0.00002                 0.6
//
// It is small where queries and keys change slowly along the sequence, so that a
// segment's mean stands for it, and the published 6 iterations are then what
// limits it. Of noise, whose means are all alike, nothing is left.
//
// The same of Performer, F features of D = 32, for that smooth data and for noise whose queries
// and keys have elements of a size, as published and with Stabilizer 0 (TestPerformerError):
//
//	             F = 32       110           256           1024
//	smooth       1.1   1.3    0.90   1.1    0.81   0.92   0.75   0.62
//	noise, 0.25  0.095 0.095  0.052  0.052  0.031  0.031  0.017  0.017
//	noise, 0.5   0.41  0.42   0.28   0.29   0.19   0.20   0.11   0.11
//	noise, 1     0.92  2.5    0.80   2.4    0.76   2.1    0.75   1.7
//
// It is small where logits are, and falls with the root of F. Beyond, the mean of all values is
// as good: an error of 0.75 for noise of 1. What Eps adds to each feature draws results
// towards that mean, more so as published, where the features of most keys are small beside it.
//
// The same of MRA2, blocks of 32, p pairs for each, for that smooth data at two sizes of queries
// and keys and for noise, full and Sparse (TestMRA2Error):
//
//	             p = 1         4             8             16
//	smooth       0.081 2.2     0.069 1.7     0.056 1.3     0.037  0.80
//	smooth, 2    0.089 0.52    0.059 0.29    0.029 0.12    0.0055 0.023
//	noise        0.75  7.2     0.74  4.5     0.72  3.2     0.67   2.1
//
// The blocks' means alone do much where data are smooth. Pairs pay where few tokens have most of
// the weight, as at twice the size, and leaving out the rest costs more than it saves.
//
// A float32 sum grows no more once it is 2^24 times what is added. Causal operators fold their
// sums after each 4096 tokens into others of 48 bits, so that those of equal keys are still
// right after 2^24 of them; the bits of the first 4096 tokens do not depend on it.
// Sums over all keys of one call have 2^24 blocks of 256 tokens in each of 64 pieces to go.
//
// NaN and Inf reach what sees them: of keys and values, all queries, causal those from their
// own on (but of keys all, where a Performer has neither ReLU nor a Stabilizer); of a query its own
// row, with XCA and Nystrom all rows of its head and with MRA2 those of its block. A Sparse MRA2's
// values are seen by the queries whose pairs have them.
// Where features or their products are more than a float32 holds, as those of keys and queries of
// 1e20, or XCA's sums of squares, results are NaN or Inf, too. Padding may hold anything, and so may a token's part for the heads from which log-weights of
// -Inf hide it: it reaches its own row alone. Nystrom's convolution sees it.
//
// # Provenance
//
//	Linear      formulas of fast-transformers, re-typed: its C++ was not run
//	Based       formula of the official code, re-typed; its recurrence, which lacks the
//	            denominator, corrected
//	Linformer   formula of Nyströmformer's code of it, re-typed
//	Performer   checked against performer-pytorch, both kinds of features, causal and not;
//	            Stabilizer is ours
//	Nystrom     checked against Nyströmformer's NystromAttention, both initialisations,
//	            masks and convolution; uneven segments by the rule of its T2T-ViT code
//	Efficient   derived from the paper's formula
//	XCA         derived from the paper's formula
//	MRA2        against a dense float64 program of its formulas; the official kernels are
//	            for CUDA alone and were not run
//	log-weights of all that have them, and of landmarks   ours: a token of size s counts as s equal ones
package approx

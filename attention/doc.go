// Package attention computes exact softmax attention, over whole sequences and token
// by token: the yardstick for every approximation of it. Its Call, State and Operator
// are also those of the packages beside it: [cca], [landmark], [mla] and [approx].
//
//   - [Attention] is one tiled kernel with an online softmax and every common
//     feature: grouped and multi-query heads, causal and windowed masks, softcap,
//     learned sinks, biases and masks made tile by tile, log-weights of merged
//     tokens, packed batches, keys and values in segments, extra keys beside the
//     raw ones, and ReLU in place of the softmax.
//   - [Partial] and [Merge] put attention to parts of the keys together, exactly.
//   - [Call.Mass], [Call.Entropy] and [Stats] tell what keys received.
//   - [State] and [Attention.Step] decode: the next tokens after those of a cache
//     that grows, is a ring, or has pages of a pool, in float32, float16, bfloat16
//     or int8; with forks, trees of guesses, and files.
//   - [Operator] is attention of any kind, with one [Call] for all; [View] lets a step
//     look at keys and values that stand in the caller's own matrices.
//   - [Reporter] measures any approximation against exact attention on sampled
//     queries.
//
// # Letters
//
//	n, i   queries in a sequence, and a query's index
//	m, j   keys in a sequence, and a key's index
//	H, h   query heads (Heads), and a head's index
//	G, g   key and value heads (KVHeads); head h reads g = h / (H/G)
//	D, Dv  width of a query and key (HeadDim), and of a value (ValueDim)
//	s      logit, before the softmax; w its log-weight; p its weight after
//
// Matrices are [tokens, heads*dim], row-major, heads side by side, with a stride:
// a fused buffer of queries, keys and values needs no copy.
//
// # Positions
//
// Unless Call.QueryPos and KeyPos say otherwise, key j stands at position j and
// query i at i+m-n: the last query at the last key, as in FlashAttention since
// 2.1. PyTorch's is_causal puts the first at the first instead; give QueryPos 0
// for that. Window counts the query's own position: FlashAttention's window_left
// is Window-1, its window_right LookAhead, and gpt-oss's sliding_window is Window.
//
// # Memory and cost
//
// Keys and values are packed once for up to 8192 queries, at most 18 MiB of them
// at a time (or one tile, where heads are wider than that), and scores live in
// one tile for each worker, in the first cache. Nothing grows with queries times
// keys. With [Call.Mass], [Call.Entropy] or [Call.Stats] the scores are made a
// second time: about 60 % more work, done by up to as many workers as there are
// key heads.
//
// Tiles of which nothing is visible cost nothing; so do those that a Mask or a
// Bias says are hidden, and, with Config.Skip, those that a bias makes
// negligible.
//
// # Decoding
//
// One query against a long past is bound by memory. A step reads each byte of a
// state once for all query heads that share it, where it stands and in the type it
// is stored in; its cost is linear in the tokens held, or in the window. Keys are
// cut into at most 64 splits, by their number alone, so that many workers share one
// query. Of many new tokens, 512/H at a time read the past together, which is nearly
// as fast as Forward.
//
// The memory of a token, by the kind of state:
//
//	Float32             4 (D + Dv) G bytes
//	Float16, BFloat16   2 (D + Dv) G
//	Int8                (D + Dv + 8) G
//	SharedValues        D in place of D + Dv (MLA: 576 numbers for 512 + 64), of Int8 8 more
//	LogWeights          4 G more
//	Window w, Keep n    of w + n + 64 tokens at the most
//
// Keys are stored as they come, rotated or not, unless [StateConfig.Rotation] is
// given; [StateConfig.Policy] then says which. After an error a state is as it was,
// except that a ring, given more than 64 tokens at once, may have taken some of them:
// State.Len tells.
//
// A state knows the position of every token that it holds ([State.Positions]).
// [State.Keep] drops all but a choice of them and compacts the rest; [State.Forget]
// drops the oldest. What is left keeps its position in masks, biases, windows and
// rotations. [State.Segments] reads keys and values where they stand, and [Call.Extra]
// takes a whole state of another operator into the softmax.
//
// [State.WriteTo] writes a state. [Attention.ReadState] makes one like the one that was
// written; [State.ReadFrom] fills one made by NewState, which is the way for a state of
// pages, or with a Rotation. A state belongs to every operator with the same Config.
//
// [Call.State] has a step's options: log-weights that stay with their keys, extra
// keys, biases and masks, trees, the log-sum-exp, and the weights that keys received.
// [Call.Select] has queries read a choice of a long state instead of all of it, and
// [Call.Weights] tells what that choice received.
//
// The next limit after memory is arithmetic: with four query heads to a key head, each
// number that is read takes part in four multiply-adds. At a Zen 4's rate of float32
// that allows BFloat16 about the speed of memory and Int8 half of it, whose numbers are
// made float32. [Config.Int8Products] has them multiplied as integers.
//
// # Products of integers
//
// With [Config.Int8Products] a step over states of Int8 rounds its queries to integers of 14
// bits, by the largest number of each head's query (and of each part of it that has a scale of
// its own), and the weights times the scales of the values likewise, by the largest of each row
// among 256 keys. The products that are left are of integers, of which AVX-512 makes four times as many at
// once; sums of them are exact. Nothing but this option asks for it, and it is a permission:
// tier avx512 makes use of it, where HeadDim and ValueDim are multiples of 16 and HeadDim is at
// most 2048; all other tiers and shapes, states of other formats, those with a Policy of
// EachStep, and Extra keys that are no state of Int8 stay in float32. Processors with and without VNNI give
// the same bits; without it nothing is won. States, and all options of a Call, are as before.
//
// With m the largest number of a head's query times Scale, a logit moves by at most
// m/16254 sum |k| over D, where |k| are the key's numbers. A weight times the largest number of its
// value moves by at most 1/32766 of the largest such product among the 256; sums of
// weights, log-sum-exps, Mass and Entropy are of the weights before rounding. Outputs for
// 512 keys N(0, 1) move by 1.7e-4 of their size, a fiftieth of what storing Int8 does
// (TestInt8ProductsError). A query that is not finite makes NaN of all that its head gives, where float32 may have
// an infinity. On a virtual Xeon with VNNI a step with 32 heads over 8 of 128 after 32,768 tokens takes
// .8 to .85 of its time in float32, and one of latent attention, whose 128 heads read one key,
// .5 to .6 of it.
//
// # Accuracy
//
// Sums are kept in float32, those over keys tile by tile. Largest error against
// float64 over sampled rows in any tier (TestAccuracy), H=2, D=64, inputs N(0, 1),
// which give outputs of about 0.05 and 0.01:
//
//	keys    |out - exact|   |lse - exact|
//	 1024   1.5e-7          3.1e-7
//	16384   2.9e-8          8.6e-7
//
// Logits are computed in float32: with logits in the hundreds expect an error of
// their own rounding, 1e-5 and more, as with any float32 implementation.
//
// Results are the same to the bit for any Workers. They differ by rounding
// between tiers, between Forward and Step, and between a query attended alone and
// among others. A paged state gives the bits of a contiguous one.
//
// Storage adds an error of its own: relative 2^-11 of an element for Float16, 2^-8
// for BFloat16, 1/254 of a row's largest for Int8. [StateConfig.Format] has what that
// makes of outputs.
//
// NaN and Inf reach the queries that see them, and no others: a value whose
// weight is 0 does not count, whatever it is. A hidden key's logit does not
// either, with one exception: hiding by a bias or a log-weight of -Inf adds it
// to the logit, and NaN - Inf is NaN.
//
// # Precision
//
// With [Config.Precision] the two products of Forward, q.k and the weights times the values, are
// made of parts of bfloat16, as package asm's Precision says: on a matrix unit, where
// Precision.Unit names one, and otherwise in portable Go with the same bits, hundreds of times
// slower than float32 in AVX-512. Nothing but this option asks for it. Everything between the products,
// softmax, softcap, biases and sums of weights, stays in float32, and so do steps of decoding, whose
// few queries a matrix unit has no use for; where Call.Prefill gives a step to Forward's tiles, they are
// in Precision. Step and Forward so agree within the error below. States belong to operators of
// any Precision. All options of a Call work as in float32; Mass, Entropy and Stats are of the
// weights that Forward has.
//
// With e = 2^-7, 2^-15 and 2^-24 in BFloat16x1, x3 and x6, a logit is within e Scale sum |q| |k|
// over D of the exact one, and an output within (2 d + e) max |v|, d the largest of such errors of
// logits, besides the errors of float32. In the example above, the first query, which is a
// value, included:
//
//	            |out - exact|, 1024 and 16384 keys    |lse - exact|
//	BFloat16x1  3.9e-3  7.3e-3                        2.8e-3  4.1e-3
//	BFloat16x3  7.6e-6  1.3e-5                        3.9e-6  3.6e-6
//	BFloat16x6  1.6e-7  7.5e-8                        2.5e-7  6.5e-7
//
// Results depend on the tier, by the softmax between the products, but not on whether there
// is a unit. Elements from 3.396e38 on in magnitude count as infinite, and an infinite value that
// a query sees makes NaN of its output where float32 may have an infinity; of one that it does not
// see no bit depends. Subnormal elements count as zeros.
//
// On AMX BFloat16x3 can be faster than any float32 on vectors: causal, at its best 1.2 times (D = 64) and
// 1.5 times (D = 128) the rate that fused multiply-adds have at the most, BFloat16x1 1.8 and 2.4 times;
// the README has medians, which are less where others use the memory. Forward takes then .5 (BFloat16x3), .8 (BFloat16x6) and .3 to .4 (BFloat16x1) of its time in float32.
//
// # Provenance
//
//	Attention     checked against FlashAttention's attention_ref (masks, softcap, packed
//	              batches, ALiBi), gpt-oss's sdpa (sinks), and a float64 oracle
//	ReLU, Stats   checked against Active-Dormant-Attention's BBM model and entropy
//	Merge         checked against an independent reference of the formula
//	Step          checked like Attention, which it must equal, and against independent
//	              references of paged and quantised caches; the tree against its paths
//
// [cca]: https://pkg.go.dev/github.com/subquad/subquad/attention/cca
// [landmark]: https://pkg.go.dev/github.com/subquad/subquad/attention/landmark
// [mla]: https://pkg.go.dev/github.com/subquad/subquad/attention/mla
// [approx]: https://pkg.go.dev/github.com/subquad/subquad/attention/approx
package attention

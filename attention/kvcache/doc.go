// Package kvcache computes attention to long pasts of which not all is read, or not all
// is held: an operator in the words of package attention, and policies as values.
//
//   - Attention runs one layer's attention: Config says what is always read (Keep first
//     and Recent last tokens), which Selector chooses what else a query looks at, which
//     Evictor chooses what is forgotten for good, and at which Positions tokens meet.
//   - State is a sequence so far: keys and values in states of package attention, one for
//     each key head, on the heap, in pages or in a file, in float32, float16, bfloat16 or int8, with
//     what the policies know of them. It forks, goes back, and is stored.
//   - Selectors: All, Window, Top (exact), TokenSelect, Quest, InfLLM, RetroInfer,
//     Landmarks, and Cached around them; Shadow, which estimates what it does not read.
//   - Evictors: StreamingLLM and SirLLM make room before tokens come; H2O, TOVA and
//     External act after each call; SnapKV, Pyramid, FINCH, ObservedAttention,
//     ExpectedAttention, NonCausal, Compactor, Leverage, CUR, Knorm, KeyDiff and LagKV score
//     tokens at State.Compact, the end of a prompt, or every Config.Every tokens. AdaKV
//     divides one budget among heads, CriticalKV looks at what values do to the output,
//     Chunk keeps whole stretches, Block chooses block after block, Merging adds the values
//     of what goes to those of what stays.
//   - Functions: VerticalSlash (prefill of columns and diagonals), Sentences (choosing text,
//     not keys), Verify (which drafted tokens are accepted), SelfInformation, Rerotate, HeavyHitters, PyramidBudgets.
//
// # Which to take
//
// In doubt hold everything and select: what a Selector does not choose can be chosen later,
// what an Evictor forgets is gone.
//
//	outputs as of all tokens, several times as fast      Shadow
//	far fewer reads, and misses now and then             Quest
//	texts longer than the model's training               TokenSelect with Positions InCache, InfLLM with
//	                                                     Far, or all tokens with Grouped
//	a text without end in constant memory                Window and StreamingLLM with InCache; SirLLM keeps
//	                                                     of the past what surprised
//	a long prompt and its answer in little memory        SnapKV and State.Compact after the prompt, AdaKV
//	                                                     around it; the question must be in the prompt
//	less memory, nothing forgotten                       StateConfig.Format, or pages in a file
//
// Keys and queries that are rotated already need no Rotation; InCache, Far and Grouped need
// one, and then both come unrotated:
//
//	op, err := kvcache.New(kvcache.Config{
//		Heads: 32, KVHeads: 8, HeadDim: 128, Keep: 4, Recent: 256, Select: kvcache.Shadow{},
//	})
//	if err != nil {
//		return err
//	}
//	st, err := op.NewState(kvcache.StateConfig{})
//	if err != nil {
//		return err
//	}
//	err = op.Step(dst, q, k, v, st) // the prompt, and then token after token
//
// Of a language model's layers, StateConfig.Policies of package transformer says the same.
//
// # Letters
//
//	n, t   tokens of a sequence, and a token's index
//	H, h   query heads, and a head's index
//	G      query heads of a key head; head h reads key head h / G
//	D, Dv  width of a key, and of a value
//	P      tokens of a page
//
// # Selecting and forgetting
//
// What a Selector does not choose stays held and can be chosen later: its cost is memory,
// and an index of its own. What an Evictor leaves out is gone; its State.Positions tell
// what is left, and its memory is given back. Chosen tokens are read where they stand; a
// few together are copied first. A query that may read all that is held gets the bits of
// attention.Step, one token at a time.
//
//	policy        reads to choose, a token held and key head   finds one of a million
//	Top, TokenSelect   4 D bytes (2 D in 16 bits, D in int8)    yes: it looks at every key
//	TokenSelect.Bits   D + 4, or 5 D / 8, and some keys         yes: it looks at every key, in a copy
//	Quest              8 D / P                                  the less, the longer and the less alike neighbours are
//	InfLLM             4 D G Representatives-mean / Block       where neighbours of a kind stand together
//	RetroInfer         4 D / 16                                 between a page's mean and every key
//	Shadow             D + 4 + Dv / 8 of 8 bits,                yes: it looks at every key, in a copy
//	                   5 D / 8 + Dv / 8 of 4
//	Window, StreamingLLM   0                                    no
//
// # Speed
//
// A step of one token after 262,144 others, 32 heads over 8 key heads of 128 features in
// float32, one core of a loaded AVX-512 machine, fastest of 8 to 16 beside the exact step in
// the same run (go test ./attention/kvcache -bench Step):
//
//	policy                       MB read   of exact's speed   needles found
//	exact                        2147      1                  1
//	Quest, 2,048 tokens          153       10                 .94
//	Top, 2,048 tokens            1092      1.8                1
//	TokenSelect, 2,048 tokens    1092      1.6                1
//	TokenSelect of 8 bits        307       2.7                1
//	Landmarks, 32 blocks of 64   36        60                 0 (of keys without landmarks)
//	Window                       2         960                .06
//
// Top and TokenSelect without Bits read all keys, half of what there is, and cannot be more
// than twice as fast. A step in which a Cached uses a choice again reads 20 MB, whatever the
// length, and takes a fifth of the exact one's time after 65,536 tokens. Shadow has its own
// table.
//
// After 1,048,576 tokens, 8 heads over 2 key heads of 64 (a gigabyte), likewise, on the heap
// and in a file that memory has room for (-bench Million):
//
//	policy                       MB read   heap   file   needles found
//	Shadow, 8 bits               160       3.5    4.3    1
//	Quest, 2,048 tokens          69        9      13     .44
//	TokenSelect, 2,048 tokens    539       1.4    1.2    1
//	Landmarks, 32 blocks of 64   11        180    160    0
//
// # Positions
//
// Rotated keys cannot be far from what a model was trained on. With a Rotation, Config.
// Positions AtOrigin holds keys rotated at their own positions; InCache holds them
// unrotated and numbers what is read from 0 on, so that no position exceeds what is
// read; Far leaves the last Recent tokens at their distances and puts all others at one;
// Grouped (Self-Extend) has several positions share one beyond the last Recent.
//
// # Law
//
// A sequence cut into steps at multiples of Chunk gives the same as in one step, and
// Workers never change a bit. Chunk 1 makes that any cut.
//
// # Provenance
//
//	StreamingLLM, SirLLM, H2O, SnapKV, InfLLM, VerticalSlash, Knorm, KeyDiff, LagKV,
//	AdaKV, Chunk, PyramidShares, Rerotate    checked against the published code's results
//	TokenSelect     votes and choices against the published code; outputs independent
//	Quest           bounds and masks against the published code
//	RetroInfer      zones against an independent reference; k-means as described
//	Sentences       checked against the published package's functions
//	Verify          greedy against the published code, sampled by enumeration of all outcomes
//	PyramidBudgets, Cached                   checked against independent references
//	Shadow          this library's own; its bounds are checked against float64
//	ExpectedAttention, NonCausal, Compactor, Leverage, CUR, FINCH, CriticalKV, Block, Merging
//	                from the formulas of kvpress's scorers; no vectors
//	Landmarks       a lookup of our own; package landmark has the method
//	in a model      a small trained Llama, 19 policies and rotary schemes: logits and choices
//	                as two independent programs have them (examples/needles)
//
// ThinK, which sets the least used features of keys to 0, is not here: rows of a state have
// one width, so that zeros would save neither memory nor time; StateConfig.Format and Shadow
// do.
//
// Defects of published code are not copied: InfLLM's mask shows some tokens twice,
// TokenSelect's kernel pairs heads wrongly where key heads are shared, SirLLM gives a
// token the surprise of the one before it.
package kvcache

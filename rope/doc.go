// Package rope gives a model its positions: rotary embeddings in every published
// scaling scheme, from a Hugging Face config.json as it is, over one axis or
// several, and biases of attention logits, FlexRoPE among them.
//
//   - [Rotation] rotates queries and keys in place, at any positions, moves cached
//     keys to other positions or to another scheme, and takes rotations back.
//   - [Scheme] is how frequencies are made: [YaRN], [Llama3], [LongRoPE] and the
//     others. [Rotation.Describe] shows them.
//   - [FromHF] reads a config.json: [HF.Layer] has the configuration of each layer,
//     or says that it does not rotate.
//   - [Schedule] follows schemes whose frequencies depend on the sequence's length.
//   - [Config.Axes], [Config.Sections] and [Config.Learned] are for images and
//     videos; [MRoPE] numbers the tokens of vision-language models, [FAR] those of
//     FAR.
//   - [Bias] is a term of the logits, made tile by tile: [FlexRoPE], [Distance]
//     (ALiBi, KERPLE) and [FIRE].
//
// # Letters
//
//	n, p     tokens, and a token's position
//	h        heads, side by side in the columns
//	d        features of a head (HeadDim); those that rotate are RotaryDim, from
//	         feature Offset on
//	i        a pair of features, of RotaryDim/2
//	f_i      frequency, radians per position; base^(-2i/RotaryDim) without a scheme
//	c, s     cosine and sine of p f_i, times the attention factor
//
// Matrices are [tokens, heads * HeadDim], row-major, with a stride: the queries,
// the keys, or both side by side in a fused buffer.
//
// # Accuracy
//
// An angle in float32 has an error of 6e-2 at position 10^6 and is of no use at
// 10^7. Here a frequency is an integer, in 2^-64 turns, and a phase its product
// with the position, which wraps around as an angle does; the cosine and sine
// are off by 1.2e-7 at the most, at position 10^8 as at 1. Beyond 10^15 the
// frequency's own rounding shows. What remains is which frequencies: see
// [Accuracy].
//
// Results are the same to the bit for any Workers, and however rows are split
// over calls.
//
// # Models
//
// The same keys of a config.json mean different things in different models, and most
// of what a model does stands in its code: how much of a head rotates and in which
// layout, which layers rotate, which of them are scaled. [FromHF] has a table of
// model types for that. It holds for the models' own layers of attention over the
// text; towers of images and sounds are not read, and their keys are in [HF.Unknown].
//
//	cfg, err := hf.Layer(i)
//	switch {
//	case cfg.None:                  // no rotation in this layer
//	default:
//		r, err = rope.New(cfg)       // once for all layers with the same cfg
//		scale *= cfg.SoftmaxFactor() // DeepSeek's latent attention with YaRN
//	}
//
// # Growing sequences
//
// A scheme that depends on the length makes keys that were rotated earlier wrong
// when the sequence grows, as users of several libraries have found. A
// [Policy] says which way out is taken: frequencies fixed from the start, keys
// cached unrotated, or keys rotated again.
//
// # Provenance
//
//	Rotate, Shift, layouts        checked against transformers, diffusers and 80-bit tables, positions to 10^8
//	Plain ... Llama3, LongRoPE, Proportional   checked against transformers' modeling_rope_utils (v5)
//	NTK, DynamicNTK, NTKByParts, YaRN          checked against jquesnelle/yarn
//	Giraffe, XPos                 checked against abacusai/Long-Context; levels one by one, against the formula
//	LongRoPE's magnitudes         checked against microsoft/LongRoPE
//	RIFLEx, YaRN's PaperRamp      checked against the formula
//	Axes, Learned, Sections       checked against diffusers, rope-vit, rotary-embedding-torch, Qwen's code
//	MRoPE                         checked against Qwen2-VL, Qwen2.5-VL and Qwen3-VL, one sequence at a time
//	ALiBi                         checked against the official slopes
//	KERPLE, FIRE                  formulas from memory, checked against an independent float64 run
//	FAR, FlexRoPE                 checked against showlab/FAR; that its decay is FlexRoPE is an inference, see [FlexRoPE]
//	FromHF's table                read from transformers 5's configuration_*.py and modeling_*.py, and for models outside of it
//	                              from their own code or vLLM's; 12 published files checked, and a line of each kind
//	Compat                        V5 checked; the older readings follow the code of those versions, by reading it
package rope

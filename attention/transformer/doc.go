// Package transformer runs decoder-only language models with attention, from the checkpoints
// that are published: Llama, Mistral, Qwen, Gemma, OLMo, Phi-3, Granite, gpt-oss, DeepSeek-V3
// and what has their form, and hybrids of attention and recurrent layers: Bamba, Granite 4,
// Nemotron-H, Falcon-H1, Jamba, Qwen3-Next, Qwen3.5, Kimi Linear, OLMo-Hybrid.
//
//   - [Open] reads a folder as the Hugging Face hub has it: config.json, safetensors in one
//     file or several, generation_config.json. [ParseConfig] tells a model's [Shape], and so
//     the memory that it will take, before anything else is read.
//   - llama2.c's files open too.
//   - [OpenTokenizer] turns text into tokens and back, [OpenTemplate] conversations, by the
//     checkpoint's chat template (package text).
//   - [Model] gives logits, log-likelihoods, hidden states of any layer and pooled embeddings,
//     of whole sequences or of the next tokens after a [State].
//   - [Model.Generate] continues a prompt, [Model.Stream] tells its text and how likely each
//     token was; [Sampler] chooses tokens. A [Drafter] proposes several, which are looked at
//     in one call without changing the text.
//   - [State] is a prefix, to be gone on from, forked, cut back, stored and read. With a
//     window and first tokens that are kept it never grows ([StateConfig]); [Model.Endless]
//     counts positions within them, [Model.SelfExtend] has far ones share positions.
//   - [Prefixes] are states of texts that others begin like, under a bound of memory.
//   - [Config] may turn queries and keys otherwise than the checkpoint says, and put other
//     operators in the place of layers' attention ([Replace]).
//
// # Letters
//
//	n, t   tokens in a call, and a token's index
//	r      residual stream, [n, D]
//	D      width of a token (Shape.Dim)
//	H      query heads (Shape.Heads), each HeadDim wide
//	I      width of an MLP's hidden layer (Shape.Inner)
//	L      number of layers (Shape.Layers)
//	V      rows of the embedding (Shape.Vocab)
//
// # The model
//
// With r the embeddings [n, D], times a multiplier, a layer computes
//
//	r = r + c Post1(A(Norm1(r)));  r = r + c Post2(F(Norm2(r)))
//
// A being attention with its projections, F a gated MLP or experts with a router, norms
// RMSNorm, LayerNorm or absent, and c 1 but for Granite; Cohere's F reads what its A does. Logits are those of the last norm, times the
// head or the embedding, scaled, and in Gemma 2 capped. A model type that is not in the table
// below is an error, for nothing else tells several of them apart.
//
// What config.json leaves out is what the code of its model type has. A null counts as left
// out, except where it says that there is none: no window, cap, groups of experts, rank of
// queries or token that ends a text. Sizes must be there, and heads of keys and values where they are not
// as many as those of queries by default: widths alone would not tell that a number is wrong.
// In a text_config they need not be, for such files are written as the difference from the
// model type's own sizes. Without lm_head the embedding is the head too, unless
// tie_word_embeddings is false. Keys that would change results and are not computed are errors.
//
//	model type    what is its own
//	llama         biases where attention_bias and mlp_bias say so
//	mistral       a window in all layers; ministral: by layer_types
//	mixtral       experts: softmax, the largest, summing to 1
//	qwen2         biases of q, k and v; windows from max_window_layers on
//	qwen3         queries and keys of each head normed
//	qwen3_moe     the same with experts in some layers
//	smollm3       every fourth layer does not rotate
//	phi3          fused projections; a part of a head rotates, by LongRoPE
//	gemma         norms by 1+w, GELU, embeddings times sqrt(D)
//	gemma2        norms on both sides, soft caps, windows in every other layer
//	gemma3_text   norms on both sides and of heads; two rotations
//	olmo2         norms after attention and MLP, and of all heads together
//	olmo3         the same with windows; only full layers are scaled
//	granite       multipliers of embedding, residual, attention and logits
//	gpt_oss       sinks, biases, windows in every other layer, experts in MXFP4
//	deepseek_v3   latent attention, experts in groups; kimi_k2 is read as one
//	seed_oss      biases of q, k and v, of the output apart
//	exaone4       norms after attention and MLP and of heads; full layers do not rotate
//	hunyuan_v1_dense  heads are normed after they are rotated
//	ministral3    queries grow with their position
//	starcoder2    LayerNorm, an MLP without a gate, biases
//	stablelm      LayerNorm, a part of a head rotates, attention and MLP may be side by side
//	cohere        LayerNorm without bias, attention and MLP side by side, pairs (2i, 2i+1)
//	cohere2       the same with windows; full layers do not rotate
//	glm4          norms on both sides, one matrix of gate and input, half of a head rotates
//	bamba         Mamba-2 in most layers, attention in some; half of a head rotates
//	granitemoehybrid  the same with Granite's multipliers and, beside an MLP, experts or none
//	nemotron_h    a layer is a Mamba-2, attention, an MLP by relu(x)^2 or experts, alone
//	falcon_h1     attention and Mamba-2 side by side, with multipliers of all they make
//	jamba         Mamba-1 with norms of dt, B and C, attention in some layers, experts in some
//	qwen3_next    Gated DeltaNet in most layers; attention with a gate of its output, a quarter
//	              of a head rotating; norms by 1+w; experts beside an MLP that has a gate
//	qwen3_5       the same with a dense MLP; qwen3_5_moe: with experts
//	kimi_linear   Kimi Delta Attention in most layers, latent attention without positions,
//	              experts as deepseek_v3
//	olmo_hybrid   Gated DeltaNet with norms before it, attention as olmo3 with norms after it,
//	              which rotates only where rope_theta is a number
//
// A layer's A is attention or a block of package ssm or ssm/delta (Shape.Kinds), both of the
// same inputs in Falcon-H1, and a layer of Nemotron-H has an A or an F.
//
// Weights are stored as float32, bfloat16, float16 or int8 (Config.Format), whatever their
// type in the file; arithmetic is float32, or in parts of bfloat16 on a matrix unit where
// Config.Precision asks for that. Weights of 8 bits with a scale for each block
// (quant_method fp8) and gpt-oss's MXFP4 are expanded, the latter at each use if it is to stay
// in 4 bits (Config.KeepMXFP4); those that are quantized in other ways
// are an error that names the method, and so is a tensor that a model of the type
// does not have: a bias that is not read would only make a model worse.
//
// Tokens go through all layers at most 512 at a time, so that working memory does not grow
// with a call, but for the keys and values. A single token is interrupted when a context
// ends, and taken back, unless a layer is recurrent or has a Replacement.
//
// # States of hybrids
//
// A [State] has keys and values for layers of attention, which grow with the tokens, and for
// recurrent layers a state of one size. It is one value all the same: stored, forked and
// gone on from as a whole. Truncate is another matter, for a recurrence cannot be undone:
// where a model has a recurrent layer a state goes back to 0 tokens, or to those after one of
// the last StateConfig.Snapshots calls, and to any other number it is an error that matches
// ErrState. Format, Window and Keep are of keys and values; recurrent states are float32.
// [Prefixes] hold both: keys and values in pages, recurrent states after some tokens.
//
// # Accuracy
//
// Logits of a float32 model agree with the official code in float64 to about 1e-5 of the
// largest. Results are the same to the bit for any Workers, and each sequence of a batch has
// those that it has alone; other splits into steps differ by rounding.
//
// Constants are float32 where the official code rounds them to the type of the weights
// (Gemma's multiplier of embeddings), and angles are exact where it computes them in float32.
//
// # Provenance
//
//	model types        checked against transformers 5.3.0 in float64; olmo3 against 4.57, as
//	                   5.3 scales its sliding layers too, a known defect. Its base, where no
//	                   key says, is that of 4.57, 10000, unless the file has rope_parameters:
//	                   500000 then. Cohere's is that of 5.3, 500000, and was 10000
//	ministral          re-derived: as mistral, with layer_types
//	qwen3_next, qwen3_5, qwen3_5_moe
//	                   checked against transformers of August 2026 in float64, the text part;
//	                   layers for further tokens (mtp) and images are passed over
//	other hybrids      re-derived: compared with loops over float64 that were written from the
//	                   code of transformers 5 (kimi_linear: of its own published code), on
//	                   random weights; no vectors of that code itself. Steps dt are kept in
//	                   time_step_limit and nothing else, as the kernels do that such models
//	                   are trained with; a slow path of transformers raises them to
//	                   time_step_min too
//	kimi_k2            re-derived: as deepseek_v3
//	groups of experts  those passed over never count, as in DeepSeek's own code; Hugging Face's
//	                   sets their scores to 0
//	gemma              "gelu" is read as its tanh form, with which it was trained
package transformer

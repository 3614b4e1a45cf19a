// Package rwkv runs RWKV-7 language models: Peng et al., "RWKV-7 Goose with Expressive
// Dynamic State Evolution" (2025, arXiv 2503.14456).
//
//   - [Open] reads a checkpoint under the official names (a .pth file of PyTorch, or
//     safetensors), under those of flash linear attention and Hugging Face, with the
//     config.json beside it where there is one, or a file of rwkv.cpp.
//   - [Model] gives logits, log-likelihoods, hidden states of any layer and pooled
//     embeddings, of whole sequences or of the next tokens after a [State], whose memory
//     does not grow.
//   - [Model.Generate] continues a prompt; [Sampler] chooses tokens; [Vocabulary] is the
//     models' own tokens, those of RWKV's World.
//   - [State] is a prefix: to be gone on from, forked, rolled back, stored and read.
//
// # Letters
//
//	n, t   tokens in a call, and a token's index
//	r      residual stream, [n, D]
//	D      width of a token (Dim)
//	N      channels of a head (HeadDim); there are D/N heads
//	V      rows of the embedding (Vocab)
//
// # The model
//
// With r the normed embeddings [n, D], LayerNorm(emb) by the first block's ln0, each of the
// layers computes
//
//	r = r + att(LayerNorm(r));  r = r + ffn(LayerNorm(r))
//
// att being delta.RWKV7, whose state is a matrix [N, N] for each head, and ffn
// delta.RWKV7FFN. Either looks at the token before by its own. Values of the first layer are
// mixed into those of all others. Logits are head(LayerNorm(r)). Weights are stored as
// float32, bfloat16, float16 or int8 (Config.Format), whatever their type in the file;
// arithmetic and states are float32.
//
// Tokens go through all layers at most 512 at a time, so that working memory does not grow
// with a call. A single token is not interrupted when a context ends.
//
// # States
//
// A state is of one size, D (N + 2) numbers for each layer, however long the text. It cannot
// be cut back to any token: Truncate goes to 0 or to those after one of the last
// StateConfig.Snapshots calls, and to others it is an error that matches ErrState.
//
// # Accuracy
//
// Logits of a float32 model agree with the official code in float64 to about 1e-5 of the
// largest. Results are the same to the bit for any Workers and any batch; other splits of a
// sequence into steps differ by rounding.
//
// # Provenance
//
//	model         checked against the official rwkv_v7_demo_rnn.py in float64, under both
//	              namings, and against the logits that rwkv.cpp publishes of a trained model
//	decay         exp(-exp(-1/2) sigmoid(...)), of which the official demo rounds the constant
//	keys          divided by max(|k|, 1e-12), as official code does; flash linear attention
//	              adds 1e-6 to the squares where its fuse_norm is set
//	group norm    eps 64e-5, as official code; HeadDim times norm_eps where config.json is
//	              flash linear attention's, the same for heads of 64
//	Vocabulary    re-derived from the format of rwkv_vocab_v20230424.txt, and checked on
//	              lines of it
//	rwkv.cpp      its files re-derived from the description of the format; float32 and
//	              float16, no quantized ones
//
// RWKV-7a, 7b and 8 (DeepEmbed, DEA) are not covered.
package rwkv

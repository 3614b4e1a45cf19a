// Package mamba runs Mamba language models: Gu and Dao, "Mamba: Linear-Time
// Sequence Modeling with Selective State Spaces" (2023, arXiv 2312.00752), and Dao
// and Gu, "Transformers are SSMs" (2024, arXiv 2405.21060).
//
//   - [Open] reads a checkpoint from safetensors files or from PyTorch's
//     (pytorch_model.bin), under the original names or Hugging Face's, with the
//     config.json beside it.
//   - [Model] gives logits, log-likelihoods, hidden states of any layer and pooled
//     embeddings, of whole sequences or of the next tokens after a [State], whose memory
//     does not grow.
//   - [Model.Generate] continues a prompt, [Model.Stream] tells its text and how likely each
//     token was; [Sampler] chooses tokens. Package text has tokenizers.
//   - [State] is a prefix: to be gone on from, forked, rolled back, stored and read.
//   - [Model.Calibrate] makes LongMamba's tables, by which a state reads prompts longer
//     than those of the training (package longmamba); [Model.Report] tells what it does, and
//     [Model.Prefill] runs what must look at a whole prompt: other rules, DeciMamba.
//
// # Letters
//
//	n, t   tokens in a call, and a token's index
//	r      residual stream, [n, D]
//	D      width of a token (Dim)
//	V      rows of the embedding (Vocab), the vocabulary filled up
//
// # The model
//
// With r the embeddings [n, D], each of the layers computes
//
//	r = r + mixer(RMSNorm(r))                        Mamba or Mamba-2 (package ssm)
//	y, gate = W1 RMSNorm(r);  r = r + W2 (y silu(gate))    in hybrids with an MLP
//
// and logits are RMSNorm(r) times the embedding or, where the checkpoint has one,
// lm_head. Layers of attention are not supported. Weights are stored as float32,
// bfloat16, float16 or int8 (Config.Format), whatever their type in the file; arithmetic and
// states are float32.
//
// Tokens go through all layers at most 512 at a time, so that working memory does not grow
// with a call. A single token is not interrupted when a context ends: the state would have
// to be copied before each, which costs a fifth of it.
//
// # Accuracy
//
// Logits of a float32 model agree with the official code in float64 to about 1e-5 of
// the largest. Results are the same to the bit for any Workers and any batch, and
// for any split of a sequence at multiples of ssm.Chunk; other splits differ by
// rounding where there are Mamba-2 blocks.
//
// # Provenance
//
//	Mamba-1, Mamba-2   checked against MambaLMHeadModel of state-spaces/mamba
//	Calibrate, filters checked against the official LongMamba, by a trained model
//	Prefill            re-derived; what DeciMamba keeps is checked in package longmamba
//	hybrids            the MLP re-derived from its code
//	Hugging Face's layout  names, config.json and files with an index: the same
//	                   models, laid out so, give the same bits
//	Falcon-Mamba       checked against its published code, written out in float64; no
//	                   published checkpoint of it has been run
//	LayerNorm          from the published code, not checked against its numbers
package mamba
